//! Encryption, authentication, authorization.

use super::*;

const BUILT_IN_TLS: &str = "TLS is built in, by rustls, and knows one way to do this";
const NO_LOGIN: &str =
    "no Java classes are loaded: sasl.mechanism.inter.broker.protocol says how brokers log in to each other";
const NO_CONTROLLER: &str = "there are no controllers apart from brokers";
const NO_ASSERTION: &str = "brokers log in to an identity provider with id and secret, or read a file with a token";
const NO_KERBEROS: &str = "GSSAPI (Kerberos) is not served";

const fn tls(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    def(name, kind, default, doc).dynamic()
}

const fn tls_unset(name: &'static str, kind: Kind, doc: &'static str) -> ConfigDef {
    unset(name, kind, doc).dynamic()
}

const fn sasl(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    def(name, kind, default, doc).dynamic()
}

const fn sasl_unset(name: &'static str, kind: Kind, doc: &'static str) -> ConfigDef {
    unset(name, kind, doc).dynamic()
}

/// What Kafka's authorizer reads itself, outside Kafka's table of settings.
pub(super) const AUTHORIZERS_OWN: [&str; 2] = ["super.users", "allow.everyone.if.no.acl.found"];

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(def(
        "authorizer.class.name",
        Kind::Text,
        "",
        "What decides who may do what: org.apache.kafka.metadata.authorizer.StandardAuthorizer, by rules that \
         kafka-acls.sh manages, or nothing if empty: then everybody may do everything.",
    )),
    high(unset("super.users", Kind::Text, "Principals that may do everything, as User:name, separated by semicolons.")),
    unset(
        "allow.everyone.if.no.acl.found",
        Kind::Bool,
        "Whether everybody may do everything with a resource that no rule names; false if unset.",
    ),
    def(
        "principal.builder.class",
        Kind::Class,
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
        "The Java class that names who is connected.",
    )
    .dynamic()
    .refused("no Java classes are loaded"),
    low(unset("security.providers", Kind::Text, "Java classes that bring other security algorithms."))
        .refused("no Java classes are loaded"),
    low(def(
        "connection.failed.authentication.delay.ms",
        NATURAL_INT,
        "100",
        "Pause before a failed authentication is answered, in milliseconds.",
    )),
    def(
        "connections.max.reauth.ms",
        ANY_LONG,
        "0",
        "How long an authentication by SASL is valid, in milliseconds (KIP-368); 0 or less: as long as what was shown. A \
         connection that is used beyond that without saying again who it is is closed. While the node runs it changes for \
         one listener, by listener.name.<listener>.connections.max.reauth.ms or that of a mechanism.",
    )
    .dynamic(),
    // TLS
    tls(
        "ssl.client.auth",
        Kind::Enum(&["required", "requested", "none"]),
        "none",
        "Whether clients must show a certificate. It is that of a user (ssl.principal.mapping.rules). On listeners that speak \
         SASL_SSL only listener.name.<listener>.ssl.client.auth counts, and the user is that of SASL.",
    ),
    tls_unset(
        "ssl.keystore.location",
        Kind::Text,
        "File with the node's private key and certificates. It is read again when it changes, and with every change of \
         a dynamic setting of the listener.",
    ),
    tls_unset("ssl.keystore.password", Kind::Password, "Password of the key store; PEM has none."),
    tls(
        "ssl.keystore.type",
        Kind::Text,
        "JKS",
        "Format of the key store: PEM, or PKCS12, which Java writes under the name of JKS too. Its old JKS format is not \
         read.",
    ),
    tls_unset("ssl.keystore.key", Kind::Password, "Private key, as PEM, instead of a file."),
    tls_unset("ssl.keystore.certificate.chain", Kind::Password, "Certificate chain, as PEM, instead of a file."),
    tls_unset("ssl.key.password", Kind::Password, "Password of an encrypted PEM key."),
    tls_unset(
        "ssl.truststore.location",
        Kind::Text,
        "File of the certificates that clients' and other brokers' are to come from.",
    ),
    tls_unset("ssl.truststore.password", Kind::Password, "Password of the trust store; PEM has none."),
    tls("ssl.truststore.type", Kind::Text, "JKS", "Format of the trust store, as ssl.keystore.type."),
    tls_unset("ssl.truststore.certificates", Kind::Password, "Trusted certificates, as PEM, instead of a file."),
    tls("ssl.enabled.protocols", ANY_LIST, "TLSv1.2,TLSv1.3", "Versions of TLS that are spoken."),
    tls(
        "ssl.cipher.suites",
        ANY_LIST,
        "",
        "Cipher suites that are allowed, by Java's names; all that TLS 1.2 and 1.3 have in use if empty.",
    ),
    tls(
        "ssl.principal.mapping.rules",
        Kind::Text,
        "DEFAULT",
        "How a certificate's subject becomes a user: RULE:pattern/replacement/[LU], comma-separated, or DEFAULT for the \
         subject itself. The first rule that matches decides; if none does, the connection is refused.",
    ),
    tls("ssl.allow.dn.changes", Kind::Bool, "false", "Allow a new certificate to have another subject."),
    tls(
        "ssl.allow.san.changes",
        Kind::Bool,
        "false",
        "Allow a new certificate to lack alternative names of the old one.",
    ),
    tls("ssl.protocol", Kind::Text, "TLSv1.3", "Name of Java's TLS context.")
        .no_effect("ssl.enabled.protocols says which versions are spoken"),
    tls(
        "ssl.endpoint.identification.algorithm",
        Kind::Text,
        "https",
        "How this node checks the names in the certificates of other brokers: https (they must have the host of \
         advertised.listeners), or not at all if empty.",
    ),
    tls("ssl.keymanager.algorithm", Kind::Text, "SunX509", "Algorithm of Java's key manager.").no_effect(BUILT_IN_TLS),
    tls("ssl.trustmanager.algorithm", Kind::Text, "PKIX", "Algorithm of Java's trust manager.").no_effect(BUILT_IN_TLS),
    tls_unset("ssl.provider", Kind::Text, "Java's security provider.").no_effect(BUILT_IN_TLS),
    tls_unset("ssl.secure.random.implementation", Kind::Text, "Java's source of random numbers.")
        .no_effect(BUILT_IN_TLS),
    tls_unset("ssl.engine.factory.class", Kind::Class, "The Java class that makes TLS engines.")
        .refused("no Java classes are loaded; key and certificates come from ssl.keystore.location"),
    // SASL
    sasl(
        "sasl.enabled.mechanisms",
        ANY_LIST,
        "GSSAPI",
        "Mechanisms that clients may use: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER. GSSAPI is not served, so a \
         listener with SASL must say.",
    ),
    sasl(
        "sasl.mechanism.inter.broker.protocol",
        Kind::Text,
        "GSSAPI",
        "The mechanism with which brokers log in to each other, where they use a listener with SASL: PLAIN, SCRAM-SHA-256, \
         SCRAM-SHA-512 or OAUTHBEARER.",
    ),
    sasl("sasl.mechanism.controller.protocol", Kind::Text, "GSSAPI", "The mechanism towards controllers.")
        .no_effect(NO_CONTROLLER),
    sasl_unset(
        "sasl.jaas.config",
        Kind::Password,
        "Login configuration in the form of Java's JAAS, best given as \
         listener.name.<listener>.<mechanism>.sasl.jaas.config: the users of PLAIN (user_NAME=\"PASSWORD\" of \
         PlainLoginModule); and username=\"NAME\" password=\"PASSWORD\" of PlainLoginModule or ScramLoginModule, as which this \
         broker logs in to others. Of OAuthBearerLoginModule, for brokers alone: clientId, clientSecret and scope, where their own \
         settings are not given, and extension_NAME=\"VALUE\".",
    ),
    sasl_unset("sasl.login.class", Kind::Class, "The Java class that logs in.").no_effect(NO_LOGIN),
    sasl_unset("sasl.login.callback.handler.class", Kind::Class, "How brokers get tokens of OAUTHBEARER, by the name of Kafka's class: OAuthBearerLoginCallbackHandler, which is what is \
         done anyway. No other class is loaded."),
    sasl_unset("sasl.client.callback.handler.class", Kind::Class, "The Java class that answers on the client's side.")
        .no_effect(NO_LOGIN),
    sasl_unset(
        "sasl.server.callback.handler.class",
        Kind::Class,
        "How tokens of OAUTHBEARER are checked, by the name of Kafka's class: OAuthBearerValidatorCallbackHandler (signed \
         ones, the default) or OAuthBearerUnsecuredValidatorCallbackHandler (such as anybody can make). No other class is \
         loaded.",
    ),
    sasl("sasl.server.max.receive.size", ANY_INT, "524288", "Largest request before authentication, in bytes."),
    sasl("sasl.kerberos.kinit.cmd", Kind::Text, "/usr/bin/kinit", "Kerberos: the program kinit.")
        .no_effect(NO_KERBEROS),
    sasl(
        "sasl.kerberos.min.time.before.relogin",
        ANY_LONG,
        "60000",
        "Kerberos: time between two logins, in milliseconds.",
    )
    .no_effect(NO_KERBEROS),
    sasl("sasl.kerberos.principal.to.local.rules", ANY_LIST, "DEFAULT", "Kerberos: how a principal becomes a user.")
        .no_effect(NO_KERBEROS),
    sasl_unset("sasl.kerberos.service.name", Kind::Text, "Kerberos: the service's name.").no_effect(NO_KERBEROS),
    sasl("sasl.kerberos.ticket.renew.jitter", ANY_DOUBLE, "0.05", "Kerberos: random part of the renewal time.")
        .no_effect(NO_KERBEROS),
    sasl(
        "sasl.kerberos.ticket.renew.window.factor",
        ANY_DOUBLE,
        "0.8",
        "Kerberos: share of a ticket's life after which it is renewed.",
    )
    .no_effect(NO_KERBEROS),
    sasl_unset("sasl.login.connect.timeout.ms", ANY_INT, "How long brokers wait for a connection to the token endpoint, in milliseconds; 10 seconds if unset."),
    sasl_unset("sasl.login.read.timeout.ms", ANY_INT, "How long brokers wait for its answer, in milliseconds; 10 seconds if unset."),
    sasl(
        "sasl.login.refresh.buffer.seconds",
        ANY_SHORT,
        "300",
        "Time before its end at which brokers ask for a new token at the latest, in seconds, from 0 to 3600.",
    ),
    sasl("sasl.login.refresh.min.period.seconds", ANY_SHORT, "60", "Time between two tokens at least, in seconds, from 0 to 900."),
    sasl("sasl.login.refresh.window.factor", ANY_DOUBLE, "0.8", "Share of a token's life after which brokers ask for a new one, from 0.5 to 1."),
    sasl("sasl.login.refresh.window.jitter", ANY_DOUBLE, "0.05", "Largest random share that is added to it, from 0 to 0.25."),
    sasl("sasl.login.retry.backoff.ms", ANY_LONG, "100", "First pause after no token could be had, in milliseconds."),
    sasl("sasl.login.retry.backoff.max.ms", ANY_LONG, "10000", "Longest pause after no token could be had, in milliseconds; a token that another broker refused is not replaced sooner."),
    sasl("sasl.oauthbearer.assertion.algorithm", Kind::Text, "RS256", "OAuth: how the client's assertion is signed.")
        .no_effect(NO_ASSERTION),
    sasl_unset("sasl.oauthbearer.assertion.claim.aud", Kind::Text, "OAuth: audience of the client's assertion.")
        .no_effect(NO_ASSERTION),
    sasl(
        "sasl.oauthbearer.assertion.claim.exp.seconds",
        ANY_INT,
        "300",
        "OAuth: how long the assertion is valid, in seconds.",
    )
    .no_effect(NO_ASSERTION),
    sasl_unset("sasl.oauthbearer.assertion.claim.iss", Kind::Text, "OAuth: issuer of the assertion.")
        .no_effect(NO_ASSERTION),
    sasl(
        "sasl.oauthbearer.assertion.claim.jti.include",
        Kind::Bool,
        "false",
        "OAuth: whether the assertion has an id.",
    )
    .no_effect(NO_ASSERTION),
    sasl(
        "sasl.oauthbearer.assertion.claim.nbf.seconds",
        ANY_INT,
        "60",
        "OAuth: how far back the assertion begins, in seconds.",
    )
    .no_effect(NO_ASSERTION),
    sasl_unset("sasl.oauthbearer.assertion.claim.sub", Kind::Text, "OAuth: subject of the assertion.")
        .no_effect(NO_ASSERTION),
    sasl_unset("sasl.oauthbearer.assertion.file", Kind::Text, "OAuth: file with a ready assertion.")
        .no_effect(NO_ASSERTION),
    sasl_unset(
        "sasl.oauthbearer.assertion.private.key.file",
        Kind::Text,
        "OAuth: file with the key that signs assertions.",
    )
    .no_effect(NO_ASSERTION),
    sasl_unset("sasl.oauthbearer.assertion.private.key.passphrase", Kind::Password, "OAuth: password of that key.")
        .no_effect(NO_ASSERTION),
    sasl_unset(
        "sasl.oauthbearer.assertion.template.file",
        Kind::Text,
        "OAuth: file with the assertion's other claims.",
    )
    .no_effect(NO_ASSERTION),
    sasl_unset("sasl.oauthbearer.client.credentials.client.id", Kind::Text, "OAuth: the id by which the identity provider knows this broker."),
    sasl_unset("sasl.oauthbearer.client.credentials.client.secret", Kind::Password, "OAuth: the secret by which the identity provider knows this broker."),
    sasl("sasl.oauthbearer.clock.skew.seconds", ANY_INT, "30", "OAuth: how far clocks may differ, in seconds."),
    sasl("sasl.oauthbearer.expected.audience", ANY_LIST, "", "OAuth: audiences of which a token must name one."),
    sasl_unset("sasl.oauthbearer.expected.issuer", Kind::Text, "OAuth: the issuer that a token must name."),
    sasl(
        "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        ANY_LONG,
        "3600000",
        "OAuth: how often keys are fetched, in milliseconds.",
    ),
    sasl(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        ANY_LONG,
        "100",
        "OAuth: first pause after a failed fetch of keys, in milliseconds.",
    ),
    sasl(
        "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        ANY_LONG,
        "10000",
        "OAuth: longest pause after failed fetches of keys, in milliseconds.",
    ),
    sasl_unset(
        "sasl.oauthbearer.jwks.endpoint.url",
        Kind::Text,
        "OAuth: where the identity provider's keys are: an https:, http: or file: URL.",
    ),
    sasl(
        "sasl.oauthbearer.jwt.retriever.class",
        Kind::Class,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
        "OAuth: how brokers get tokens, by the name of Kafka's class: FileJwtRetriever, ClientCredentialsJwtRetriever, or the \
         default, which takes the one that the URL is for.",
    ),
    sasl(
        "sasl.oauthbearer.jwt.validator.class",
        Kind::Class,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
        "OAuth: the Java class that checks tokens; only Kafka's own.",
    ),
    sasl_unset("sasl.oauthbearer.scope", Kind::Text, "OAuth: the scope that brokers ask for."),
    sasl("sasl.oauthbearer.scope.claim.name", Kind::Text, "scope", "OAuth: the claim that holds the scope."),
    sasl("sasl.oauthbearer.sub.claim.name", Kind::Text, "sub", "OAuth: the claim that holds the subject."),
    sasl_unset("sasl.oauthbearer.token.endpoint.url", Kind::Text, "OAuth: where brokers get tokens to log in to each other with: an https: or http: URL, asked with the client's id and \
         secret, or a file: URL of a file that holds a token and is kept up to date."),
    // Of our own
    unset(
        "varve.first.users",
        Kind::Password,
        "Users of SCRAM that are made at the start unless the cluster knows them: \
         SCRAM-SHA-256=[name=admin,password=secret], several with semicolons between them. It is how the first one gets in; \
         kafka-configs.sh makes the others.",
    ),
    // Delegation tokens
    unset(
        "delegation.token.secret.key",
        Kind::Password,
        "Secret from which passwords of delegation tokens are derived; without it there are no tokens.",
    ),
    def(
        "delegation.token.max.lifetime.ms",
        POSITIVE_LONG,
        "604800000",
        "The longest life of a delegation token, in milliseconds.",
    ),
    def(
        "delegation.token.expiry.time.ms",
        POSITIVE_LONG,
        "86400000",
        "Life of a delegation token until it is renewed, in milliseconds.",
    ),
    low(def(
        "delegation.token.expiry.check.interval.ms",
        POSITIVE_LONG,
        "3600000",
        "How often expired delegation tokens are removed, in milliseconds.",
    )),
];

const ANY_DOUBLE: Kind = Kind::Double { min: f64::MIN, max: f64::MAX };
