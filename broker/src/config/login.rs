//! How this node logs in to other brokers: `sasl.mechanism.inter.broker.protocol`, and what that one wants.

use std::{collections::BTreeMap, time::Duration};

use url::Url;
use varve_metadata::model::ScramMechanism;

use super::{
    listener_settings::ListenerSettings,
    sasl::{OAUTH_PACKAGE, login_entry},
};
use crate::security::{
    Secret,
    sasl::{Mechanism, Refresh, TokenEndpoint, TokenOrigin, TokenSource},
};

/// As whom a broker logs in to others.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// By a name that the others know, and its password.
    Password(PasswordLogin),
    /// By a token that says who it is.
    Token(Box<TokenSource>),
}

/// Whom a broker says that it is to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordLogin {
    /// `sasl.mechanism.inter.broker.protocol`.
    pub mechanism: PasswordMechanism,
    /// `username` of the login configuration.
    pub user: String,
    /// `password` of the login configuration.
    pub password: Secret,
}

/// Mechanisms that want a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordMechanism {
    /// PLAIN.
    Plain,
    /// SCRAM, by a hash.
    Scram(ScramMechanism),
}

impl PasswordMechanism {
    /// As one of all of them.
    pub fn in_general(self) -> Mechanism {
        match self {
            PasswordMechanism::Plain => Mechanism::Plain,
            PasswordMechanism::Scram(scram) => Mechanism::Scram(scram),
        }
    }
}

const NAME: &str = "OAUTHBEARER";
const HANDLER: &str = "sasl.login.callback.handler.class";
const RETRIEVER: &str = "sasl.oauthbearer.jwt.retriever.class";
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const CLIENT: &str = "sasl.oauthbearer.client.credentials.client.id";
const SECRET: &str = "sasl.oauthbearer.client.credentials.client.secret";
const JAAS: &str = "sasl.jaas.config";
/// How long an identity provider may take where nothing is said.
const LIMIT: Duration = Duration::from_secs(10);

impl Login {
    /// Reads the settings of the listener that brokers use, of which `enabled` are the mechanisms; what is wrong is noted there.
    pub(super) fn read(settings: &mut ListenerSettings<'_>, enabled: &[Mechanism]) -> Option<Login> {
        const MECHANISM: &str = "sasl.mechanism.inter.broker.protocol";
        let named = settings.text(MECHANISM).and_then(|name| Mechanism::parse(&name));
        match named.filter(|mechanism| enabled.contains(mechanism)) {
            Some(Mechanism::Plain) => by_password(settings, PasswordMechanism::Plain).map(Login::Password),
            Some(Mechanism::Scram(scram)) => {
                by_password(settings, PasswordMechanism::Scram(scram)).map(Login::Password)
            }
            Some(Mechanism::OauthBearer) => by_token(settings).map(|source| Login::Token(Box::new(source))),
            None => {
                let why = "the mechanism with which brokers log in to each other: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or \
                           OAUTHBEARER, and one of sasl.enabled.mechanisms";
                settings.invalid(MECHANISM, why);
                None
            }
        }
    }
}

fn by_password(settings: &mut ListenerSettings<'_>, mechanism: PasswordMechanism) -> Option<PasswordLogin> {
    let (class, package) = match mechanism {
        PasswordMechanism::Plain => ("PlainLoginModule", "plain"),
        PasswordMechanism::Scram(_) => ("ScramLoginModule", "scram"),
    };
    let entry = login_entry(settings, mechanism.in_general(), class);
    let option = |name: &str| entry.as_ref()?.options.get(name).filter(|value| !value.is_empty()).cloned();
    let Some((user, password)) = option("username").zip(option("password")) else {
        let why = format!(
            "org.apache.kafka.common.security.{package}.{class} required username=\"NAME\" password=\"PASSWORD\" …; of the user \
             as whom this broker logs in to the others"
        );
        settings.invalid_for(mechanism.in_general().name(), JAAS, why);
        return None;
    };
    Some(PasswordLogin { mechanism, user: user.reveal().to_owned(), password })
}

/// Tokens as Kafka's clients get them (KIP-768, KIP-1139): from a file, or for a client's id and secret.
fn by_token(settings: &mut ListenerSettings<'_>) -> Option<TokenSource> {
    let handler = settings.text_of(NAME, HANDLER);
    let class = handler.as_deref().map(|class| class.strip_prefix(OAUTH_PACKAGE).unwrap_or(class));
    if !matches!(class, None | Some("OAuthBearerLoginCallbackHandler" | "secured.OAuthBearerLoginCallbackHandler")) {
        let why = format!(
            "{OAUTH_PACKAGE}OAuthBearerLoginCallbackHandler, or nothing: brokers do not make themselves tokens that nobody has \
             signed, and no Java classes are loaded"
        );
        settings.invalid_for(NAME, HANDLER, why);
        return None;
    }
    let entry = login_entry(settings, Mechanism::OauthBearer, "OAuthBearerLoginModule");
    let options = entry.map(|entry| entry.options).unwrap_or_default();
    let own = options.keys().find(|name| name.starts_with("ssl.") || name.starts_with("unsecuredLogin")).cloned();
    if let Some(own) = own {
        let why = format!(
            "no {own}: an https: token endpoint is one whom the system trusts (SSL_CERT_FILE in the node's environment names \
             other certificates), and tokens are signed"
        );
        settings.invalid_for(NAME, JAAS, why);
        return None;
    }
    let (origin, extensions) = (origin(settings, &options)?, extensions(settings, &options)?);
    let millis = |settings: &mut ListenerSettings<'_>, setting: &str| {
        Duration::from_millis(u64::try_from(settings.int_of(NAME, setting)).unwrap_or_default().max(1))
    };
    Some(TokenSource {
        origin,
        subject_claim: settings.text_of(NAME, "sasl.oauthbearer.sub.claim.name").unwrap_or_else(|| "sub".to_owned()),
        extensions,
        refresh: refresh(settings)?,
        backoff: millis(settings, "sasl.login.retry.backoff.ms"),
        max_backoff: millis(settings, "sasl.login.retry.backoff.max.ms"),
    })
}

fn origin(settings: &mut ListenerSettings<'_>, options: &BTreeMap<String, Secret>) -> Option<TokenOrigin> {
    let retriever = settings.text_of(NAME, RETRIEVER).unwrap_or_default();
    let (files, endpoints) = match retriever.strip_prefix(OAUTH_PACKAGE).unwrap_or(&retriever) {
        "DefaultJwtRetriever" => (true, true),
        "FileJwtRetriever" => (true, false),
        "ClientCredentialsJwtRetriever" => (false, true),
        _ => {
            let why = "Kafka's DefaultJwtRetriever, FileJwtRetriever or ClientCredentialsJwtRetriever: assertions \
                       (JwtBearerJwtRetriever) are not served, and no Java classes are loaded";
            settings.invalid_for(NAME, RETRIEVER, why);
            return None;
        }
    };
    let url = settings.text_of(NAME, ENDPOINT).and_then(|url| Url::parse(&url).ok());
    if let Some(url) = &url
        && let Some(path) = url.to_file_path().ok().filter(|_| files && url.scheme() == "file")
    {
        return Some(TokenOrigin::File(path));
    }
    let Some(url) = url.filter(|url| endpoints && ["http", "https"].contains(&url.scheme())) else {
        let why = match (files, endpoints) {
            (true, false) => "a file: URL of a file with a token, as FileJwtRetriever wants",
            (false, true) => "an http: or https: URL, as ClientCredentialsJwtRetriever wants",
            _ => {
                "an https: or http: URL of the identity provider, or a file: URL of a file with a token that is kept up to date"
            }
        };
        settings.invalid_for(NAME, ENDPOINT, why);
        return None;
    };
    for assertion in ["sasl.oauthbearer.assertion.file", "sasl.oauthbearer.assertion.claim.iss"] {
        if settings.text_of(NAME, assertion).is_some() {
            settings
                .invalid(assertion, "unset: assertions are not served, and brokers log in as clients with a secret");
            return None;
        }
    }
    let option = |name: &str| options.get(name).map(|value| value.reveal().trim().to_owned());
    let mut given = |setting: &str, name: &str| {
        let given = settings.text_of(NAME, setting).map(|text| text.trim().to_owned()).or_else(|| option(name));
        given.filter(|text| !text.is_empty())
    };
    let scope = given("sasl.oauthbearer.scope", "scope");
    let (client, secret) = (given(CLIENT, "clientId"), given(SECRET, "clientSecret"));
    let Some(client) = client else {
        settings.invalid_for(NAME, CLIENT, "the id by which the identity provider knows this broker");
        return None;
    };
    let Some(secret) = secret else {
        settings.invalid_for(NAME, SECRET, "the secret by which the identity provider knows this broker");
        return None;
    };
    let mut limit = |setting: &str| {
        u64::try_from(settings.int_of(NAME, setting))
            .ok()
            .filter(|millis| *millis > 0)
            .map_or(LIMIT, Duration::from_millis)
    };
    let connect_limit = limit("sasl.login.connect.timeout.ms");
    let read_limit = limit("sasl.login.read.timeout.ms");
    let secret = Secret::new(secret);
    Some(TokenOrigin::Endpoint(TokenEndpoint { url, client, secret, scope, connect_limit, read_limit }))
}

/// `extension_NAME="VALUE"` of the login configuration (KIP-342).
fn extensions(
    settings: &mut ListenerSettings<'_>,
    options: &BTreeMap<String, Secret>,
) -> Option<Vec<(String, String)>> {
    let named = options.iter().filter_map(|(name, value)| Some((name.strip_prefix("extension_")?, value.reveal())));
    let named: Vec<(String, String)> = named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let is_sound = |(name, value): &(String, String)| {
        let fits = |byte: u8| (0x21..=0x7e).contains(&byte) || b" \t\r\n".contains(&byte);
        !name.is_empty()
            && name != "auth"
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !value.is_empty()
            && value.bytes().all(fits)
    };
    if let Some((name, _)) = named.iter().find(|one| !is_sound(one)) {
        let why = format!(
            "extensions whose names are letters, and not auth, with printable values; extension_{name} is none"
        );
        settings.invalid_for(NAME, JAAS, why);
        return None;
    }
    Some(named)
}

fn refresh(settings: &mut ListenerSettings<'_>) -> Option<Refresh> {
    const FACTOR: &str = "sasl.login.refresh.window.factor";
    const JITTER: &str = "sasl.login.refresh.window.jitter";
    const LEAST: &str = "sasl.login.refresh.min.period.seconds";
    const BUFFER: &str = "sasl.login.refresh.buffer.seconds";
    let (factor, jitter) = (settings.double_of(NAME, FACTOR), settings.double_of(NAME, JITTER));
    let (least, buffer) = (settings.int_of(NAME, LEAST), settings.int_of(NAME, BUFFER));
    // Kafka's limits for its clients.
    for (is_good, setting, allowed) in [
        ((0.5..=1.0).contains(&factor), FACTOR, "a number from 0.5 to 1"),
        ((0.0..=0.25).contains(&jitter), JITTER, "a number from 0 to 0.25"),
        ((0..=900).contains(&least), LEAST, "a number from 0 to 900"),
        ((0..=3600).contains(&buffer), BUFFER, "a number from 0 to 3600"),
    ] {
        if !is_good {
            settings.invalid(setting, allowed);
            return None;
        }
    }
    let seconds = |number: i64| Duration::from_secs(number.unsigned_abs());
    Some(Refresh { factor, jitter, least: seconds(least), buffer: seconds(buffer) })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const URL: &str = "sasl.oauthbearer.token.endpoint.url=https://id.example/token";
    const MODULE: &str = "listener.name.l.oauthbearer.sasl.jaas.config=x.OAuthBearerLoginModule required";

    fn read(lines: &[&str]) -> (Option<Login>, Vec<String>) {
        let all = ["sasl.mechanism.inter.broker.protocol=OAUTHBEARER"].into_iter().chain(lines.iter().copied());
        let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        let texts = all.map(pair).collect();
        let mut settings = ListenerSettings::of(&texts, "L");
        let login = Login::read(&mut settings, &[Mechanism::Plain, Mechanism::OauthBearer]);
        (login, settings.into_errors().iter().map(ToString::to_string).collect())
    }

    fn source(lines: &[&str]) -> TokenSource {
        match read(lines) {
            (Some(Login::Token(source)), errors) if errors.is_empty() => *source,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn client_credentials_are_read_from_settings_before_the_login_configuration() {
        let jaas =
            format!("{MODULE} clientId=\"old\" clientSecret=\" hunter2 \" scope=\"a b\" extension_traceId=\"12 3\";");
        let from_jaas = source(&[URL, &jaas]);
        let TokenOrigin::Endpoint(endpoint) = &from_jaas.origin else { panic!("{from_jaas:?}") };
        assert_eq!((endpoint.client.as_str(), endpoint.secret.reveal()), ("old", "hunter2"));
        assert_eq!((endpoint.scope.as_deref(), endpoint.read_limit), (Some("a b"), LIMIT));
        assert_eq!(from_jaas.extensions, [("traceId".to_owned(), "12 3".to_owned())]);
        assert_eq!(from_jaas.refresh.buffer, Duration::from_secs(300));
        assert!(!format!("{from_jaas:?}").contains("hunter2"), "{from_jaas:?}");

        let own = [
            URL,
            "listener.name.l.oauthbearer.sasl.oauthbearer.client.credentials.client.id=broker",
            "listener.name.l.sasl.oauthbearer.client.credentials.client.secret=other",
            "sasl.oauthbearer.scope=kafka",
            "sasl.login.read.timeout.ms=7",
            "sasl.login.callback.handler.class=\
             org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler",
        ];
        let TokenOrigin::Endpoint(endpoint) = source(&[&own[..], &[&jaas]].concat()).origin else {
            panic!("an endpoint")
        };
        assert_eq!((endpoint.client.as_str(), endpoint.secret.reveal()), ("broker", "other"));
        assert_eq!((endpoint.scope.as_deref(), endpoint.read_limit), (Some("kafka"), Duration::from_millis(7)));
    }

    #[test]
    fn a_file_needs_nothing_else() {
        let file = "sasl.oauthbearer.token.endpoint.url=file:///var/run/token";
        assert_eq!(source(&[file]).origin, TokenOrigin::File(PathBuf::from("/var/run/token")));
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        const CLASS: &str = "org.apache.kafka.common.security.oauthbearer";
        let unsecured = format!("{HANDLER}={CLASS}.internals.unsecured.OAuthBearerUnsecuredLoginCallbackHandler");
        let (bearer, file) =
            (format!("{RETRIEVER}={CLASS}.JwtBearerJwtRetriever"), format!("{RETRIEVER}={CLASS}.FileJwtRetriever"));
        let jaas = |options: &str| format!("{MODULE} clientId=\"id\" clientSecret=\"hunter2\" {options};");
        let good = jaas("");
        for (lines, words) in [
            (vec![], ENDPOINT),
            (vec!["sasl.oauthbearer.token.endpoint.url=ftp://id.example"], ENDPOINT),
            (vec![URL, &file], "as FileJwtRetriever wants"),
            (vec![URL, &bearer, &good], "assertions"),
            (vec![URL, &unsecured, &good], HANDLER),
            (vec![URL], CLIENT),
            (vec![URL, "sasl.oauthbearer.client.credentials.client.id=id"], SECRET),
            (vec![URL, &good, "sasl.oauthbearer.assertion.file=/a"], "sasl.oauthbearer.assertion.file"),
            (vec![URL, &jaas("ssl.truststore.location=\"/a\"")], "SSL_CERT_FILE"),
            (vec![URL, &jaas("unsecuredLoginStringClaim_sub=\"a\"")], "tokens are signed"),
            (vec![URL, &jaas("extension_auth=\"a\"")], "extension_auth"),
            (vec![URL, &good, "sasl.login.refresh.window.factor=0.2"], "from 0.5 to 1"),
            (vec![URL, &good, "sasl.login.refresh.buffer.seconds=3601"], "from 0 to 3600"),
        ] {
            let (login, errors) = read(&lines);
            assert!(login.is_none() && errors.len() == 1 && errors[0].contains(words), "{lines:?}: {errors:?}");
            assert!(!errors[0].contains("hunter2"), "{errors:?}");
        }
    }
}
