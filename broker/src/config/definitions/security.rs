//! Encryption, authentication, authorization. Listeners that ask for them are refused (`listeners`), so most of these
//! names have nothing to act on.

use super::*;

const NO_TLS: &str = "no listener uses TLS: listeners with SSL or SASL_SSL are refused";
const NO_SASL: &str = "no listener uses SASL: listeners with SASL_PLAINTEXT or SASL_SSL are refused";
const NO_TOKENS: &str = "delegation tokens need SASL, and listeners with SASL are refused";

const fn tls(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    def(name, kind, default, doc).dynamic().no_effect(NO_TLS)
}

const fn tls_unset(name: &'static str, kind: Kind, doc: &'static str) -> ConfigDef {
    unset(name, kind, doc).dynamic().no_effect(NO_TLS)
}

const fn sasl(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    def(name, kind, default, doc).dynamic().no_effect(NO_SASL)
}

const fn sasl_unset(name: &'static str, kind: Kind, doc: &'static str) -> ConfigDef {
    unset(name, kind, doc).dynamic().no_effect(NO_SASL)
}

/// What Kafka's authorizer reads itself, outside Kafka's table of settings.
pub(super) const AUTHORIZERS_OWN: [&str; 2] = ["super.users", "allow.everyone.if.no.acl.found"];

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(def(
        "authorizer.class.name",
        Kind::Class,
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
    ))
    .no_effect(NO_SASL),
    def("connections.max.reauth.ms", ANY_LONG, "0", "How long an authentication is valid, in milliseconds.")
        .no_effect(NO_SASL),
    // TLS
    tls(
        "ssl.client.auth",
        Kind::Enum(&["required", "requested", "none"]),
        "none",
        "Whether clients must show a certificate.",
    ),
    tls_unset("ssl.keystore.location", Kind::Text, "File of the key store."),
    tls_unset("ssl.keystore.password", Kind::Password, "Password of the key store."),
    tls("ssl.keystore.type", Kind::Text, "JKS", "Format of the key store."),
    tls_unset("ssl.keystore.key", Kind::Password, "Private key, as PEM."),
    tls_unset("ssl.keystore.certificate.chain", Kind::Password, "Certificate chain, as PEM."),
    tls_unset("ssl.key.password", Kind::Password, "Password of the private key."),
    tls_unset("ssl.truststore.location", Kind::Text, "File of the trust store."),
    tls_unset("ssl.truststore.password", Kind::Password, "Password of the trust store."),
    tls("ssl.truststore.type", Kind::Text, "JKS", "Format of the trust store."),
    tls_unset("ssl.truststore.certificates", Kind::Password, "Trusted certificates, as PEM."),
    tls("ssl.protocol", Kind::Text, "TLSv1.3", "Newest version of TLS."),
    tls("ssl.enabled.protocols", ANY_LIST, "TLSv1.2,TLSv1.3", "Versions of TLS that are allowed."),
    tls("ssl.cipher.suites", ANY_LIST, "", "Cipher suites that are allowed; all if empty."),
    tls("ssl.endpoint.identification.algorithm", Kind::Text, "https", "How the name in a certificate is checked."),
    tls("ssl.principal.mapping.rules", Kind::Text, "DEFAULT", "How a certificate's name becomes a user."),
    tls("ssl.allow.dn.changes", Kind::Bool, "false", "Allow a new certificate to have another name."),
    tls("ssl.allow.san.changes", Kind::Bool, "false", "Allow a new certificate to have other alternative names."),
    tls("ssl.keymanager.algorithm", Kind::Text, "SunX509", "Algorithm of Java's key manager."),
    tls("ssl.trustmanager.algorithm", Kind::Text, "PKIX", "Algorithm of Java's trust manager."),
    tls_unset("ssl.provider", Kind::Text, "Java's security provider."),
    tls_unset("ssl.secure.random.implementation", Kind::Text, "Java's source of random numbers."),
    tls_unset("ssl.engine.factory.class", Kind::Class, "The Java class that makes TLS engines."),
    // SASL
    sasl("sasl.enabled.mechanisms", ANY_LIST, "GSSAPI", "Mechanisms that clients may use."),
    sasl("sasl.mechanism.inter.broker.protocol", Kind::Text, "GSSAPI", "The mechanism between brokers."),
    sasl("sasl.mechanism.controller.protocol", Kind::Text, "GSSAPI", "The mechanism towards controllers."),
    sasl_unset("sasl.jaas.config", Kind::Password, "Login configuration in the form of Java's JAAS."),
    sasl_unset("sasl.login.class", Kind::Class, "The Java class that logs in."),
    sasl_unset("sasl.login.callback.handler.class", Kind::Class, "The Java class that answers at a login."),
    sasl_unset("sasl.client.callback.handler.class", Kind::Class, "The Java class that answers on the client's side."),
    sasl_unset("sasl.server.callback.handler.class", Kind::Class, "The Java class that answers on the broker's side."),
    sasl("sasl.server.max.receive.size", ANY_INT, "524288", "Largest request before authentication, in bytes."),
    sasl("sasl.kerberos.kinit.cmd", Kind::Text, "/usr/bin/kinit", "Kerberos: the program kinit."),
    sasl(
        "sasl.kerberos.min.time.before.relogin",
        ANY_LONG,
        "60000",
        "Kerberos: time between two logins, in milliseconds.",
    ),
    sasl("sasl.kerberos.principal.to.local.rules", ANY_LIST, "DEFAULT", "Kerberos: how a principal becomes a user."),
    sasl_unset("sasl.kerberos.service.name", Kind::Text, "Kerberos: the service's name."),
    sasl("sasl.kerberos.ticket.renew.jitter", ANY_DOUBLE, "0.05", "Kerberos: random part of the renewal time."),
    sasl(
        "sasl.kerberos.ticket.renew.window.factor",
        ANY_DOUBLE,
        "0.8",
        "Kerberos: share of a ticket's life after which it is renewed.",
    ),
    sasl_unset("sasl.login.connect.timeout.ms", ANY_INT, "How long a login waits for a connection, in milliseconds."),
    sasl_unset("sasl.login.read.timeout.ms", ANY_INT, "How long a login waits for an answer, in milliseconds."),
    sasl(
        "sasl.login.refresh.buffer.seconds",
        ANY_INT,
        "300",
        "Time before expiry at which a login is refreshed, in seconds.",
    ),
    sasl("sasl.login.refresh.min.period.seconds", ANY_INT, "60", "Time between two refreshes, in seconds."),
    sasl("sasl.login.refresh.window.factor", ANY_DOUBLE, "0.8", "Share of a login's life after which it is refreshed."),
    sasl("sasl.login.refresh.window.jitter", ANY_DOUBLE, "0.05", "Random part of the refresh time."),
    sasl("sasl.login.retry.backoff.ms", ANY_LONG, "100", "First pause after a failed login, in milliseconds."),
    sasl("sasl.login.retry.backoff.max.ms", ANY_LONG, "10000", "Longest pause after failed logins, in milliseconds."),
    sasl("sasl.oauthbearer.assertion.algorithm", Kind::Text, "RS256", "OAuth: how the client's assertion is signed."),
    sasl_unset("sasl.oauthbearer.assertion.claim.aud", Kind::Text, "OAuth: audience of the client's assertion."),
    sasl(
        "sasl.oauthbearer.assertion.claim.exp.seconds",
        ANY_INT,
        "300",
        "OAuth: how long the assertion is valid, in seconds.",
    ),
    sasl_unset("sasl.oauthbearer.assertion.claim.iss", Kind::Text, "OAuth: issuer of the assertion."),
    sasl(
        "sasl.oauthbearer.assertion.claim.jti.include",
        Kind::Bool,
        "false",
        "OAuth: whether the assertion has an id.",
    ),
    sasl(
        "sasl.oauthbearer.assertion.claim.nbf.seconds",
        ANY_INT,
        "60",
        "OAuth: how far back the assertion begins, in seconds.",
    ),
    sasl_unset("sasl.oauthbearer.assertion.claim.sub", Kind::Text, "OAuth: subject of the assertion."),
    sasl_unset("sasl.oauthbearer.assertion.file", Kind::Text, "OAuth: file with a ready assertion."),
    sasl_unset(
        "sasl.oauthbearer.assertion.private.key.file",
        Kind::Text,
        "OAuth: file with the key that signs assertions.",
    ),
    sasl_unset("sasl.oauthbearer.assertion.private.key.passphrase", Kind::Password, "OAuth: password of that key."),
    sasl_unset(
        "sasl.oauthbearer.assertion.template.file",
        Kind::Text,
        "OAuth: file with the assertion's other claims.",
    ),
    sasl_unset("sasl.oauthbearer.client.credentials.client.id", Kind::Text, "OAuth: the client's id."),
    sasl_unset("sasl.oauthbearer.client.credentials.client.secret", Kind::Password, "OAuth: the client's secret."),
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
    sasl_unset("sasl.oauthbearer.jwks.endpoint.url", Kind::Text, "OAuth: where keys are fetched."),
    sasl(
        "sasl.oauthbearer.jwt.retriever.class",
        Kind::Class,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever",
        "OAuth: the Java class that fetches tokens.",
    ),
    sasl(
        "sasl.oauthbearer.jwt.validator.class",
        Kind::Class,
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator",
        "OAuth: the Java class that checks tokens.",
    ),
    sasl_unset("sasl.oauthbearer.scope", Kind::Text, "OAuth: the scope that is asked for."),
    sasl("sasl.oauthbearer.scope.claim.name", Kind::Text, "scope", "OAuth: the claim that holds the scope."),
    sasl("sasl.oauthbearer.sub.claim.name", Kind::Text, "sub", "OAuth: the claim that holds the subject."),
    sasl_unset("sasl.oauthbearer.token.endpoint.url", Kind::Text, "OAuth: where tokens are fetched."),
    // Delegation tokens
    unset("delegation.token.secret.key", Kind::Password, "Secret with which delegation tokens are signed.")
        .no_effect(NO_TOKENS),
    def(
        "delegation.token.max.lifetime.ms",
        POSITIVE_LONG,
        "604800000",
        "The longest life of a delegation token, in milliseconds.",
    )
    .no_effect(NO_TOKENS),
    def(
        "delegation.token.expiry.time.ms",
        POSITIVE_LONG,
        "86400000",
        "Life of a delegation token until it is renewed, in milliseconds.",
    )
    .no_effect(NO_TOKENS),
    low(def(
        "delegation.token.expiry.check.interval.ms",
        POSITIVE_LONG,
        "3600000",
        "How often expired delegation tokens are removed, in milliseconds.",
    ))
    .no_effect(NO_TOKENS),
];

const ANY_DOUBLE: Kind = Kind::Double { min: f64::MIN, max: f64::MAX };
