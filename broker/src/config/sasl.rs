//! SASL of one listener: which mechanisms, which users, which tokens.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use url::Url;

use super::{listener_settings::ListenerSettings, login::Login, settings::Reader};
use crate::security::{
    Secret,
    sasl::{ClaimRules, JaasEntry, Mechanism, jwks::JwksSource, parse_jaas},
};

/// SASL as a listener is told to speak it.
#[derive(Clone, Debug)]
pub struct SaslConfig {
    /// Mechanisms that clients may use, in the order given; never empty.
    pub mechanisms: Vec<Mechanism>,
    /// The largest request before a client is known, in bytes.
    pub max_request_bytes: usize,
    /// Users of PLAIN.
    pub plain_users: BTreeMap<String, Secret>,
    /// Tokens of OAUTHBEARER.
    pub oauth: Option<OauthConfig>,
    /// After how long a client must say again who it is; not at all if absent.
    pub max_session: BTreeMap<Mechanism, Duration>,
    /// Whom this node says that it is to other brokers; absent where brokers do not use the listener.
    pub login: Option<Login>,
}

/// Which tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OauthConfig {
    /// Those that an identity provider has signed.
    Signed {
        /// Its keys.
        source: JwksSource,
        /// Audiences of which a token must name one; any if empty.
        audiences: BTreeSet<String>,
        /// The issuer that a token must name.
        issuer: Option<String>,
        /// How claims are read.
        claims: ClaimRules,
    },
    /// Those that nobody has signed.
    Unsecured {
        /// How claims are read.
        claims: ClaimRules,
    },
}

/// Delegation tokens (KIP-48).
#[derive(Clone, Debug)]
pub struct DelegationTokenConfig {
    /// What their passwords are derived from; without one there are no tokens.
    pub secret: Option<Secret>,
    /// The longest life.
    pub max_lifetime: Duration,
    /// Life until it is renewed.
    pub expiry: Duration,
    /// How often expired ones are removed.
    pub check_interval: Duration,
}

impl DelegationTokenConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> DelegationTokenConfig {
        DelegationTokenConfig {
            secret: reader.text("delegation.token.secret.key").map(Secret::new),
            max_lifetime: reader.millis("delegation.token.max.lifetime.ms"),
            expiry: reader.millis("delegation.token.expiry.time.ms"),
            check_interval: reader.millis("delegation.token.expiry.check.interval.ms"),
        }
    }
}

const MECHANISMS: &str = "sasl.enabled.mechanisms";
const HANDLER: &str = "sasl.server.callback.handler.class";
const KEYS: &str = "sasl.oauthbearer.jwks.endpoint.url";
/// Where Kafka has its classes for tokens.
pub(super) const OAUTH_PACKAGE: &str = "org.apache.kafka.common.security.oauthbearer.";

impl SaslConfig {
    /// Reads the settings of one listener; what is wrong is noted there.
    pub(crate) fn read(settings: &mut ListenerSettings<'_>) -> SaslConfig {
        let mechanisms = mechanisms(settings);
        let has = |mechanism: Mechanism| mechanisms.contains(&mechanism);
        for mechanism in mechanisms.iter().filter(|mechanism| **mechanism != Mechanism::OauthBearer) {
            if settings.own_text_of(mechanism.name(), HANDLER).is_some() {
                let why = "unset: no Java classes are loaded, and users come from the login configuration (PLAIN) and \
                           from the cluster (SCRAM)";
                settings.invalid_for(mechanism.name(), HANDLER, why);
            }
        }
        let max_session = mechanisms.iter().filter_map(|mechanism| {
            let millis = settings.int_of(mechanism.name(), "connections.max.reauth.ms");
            u64::try_from(millis)
                .ok()
                .filter(|millis| *millis > 0)
                .map(|millis| (*mechanism, Duration::from_millis(millis)))
        });
        let max_session = max_session.collect();
        SaslConfig {
            max_request_bytes: usize::try_from(settings.int("sasl.server.max.receive.size")).unwrap_or(0),
            plain_users: if has(Mechanism::Plain) { plain_users(settings) } else { BTreeMap::new() },
            oauth: if has(Mechanism::OauthBearer) { oauth(settings) } else { None },
            mechanisms,
            max_session,
            login: None,
        }
    }

    /// The same of the listener over which brokers speak with each other: they need to know as whom.
    pub(crate) fn read_between_brokers(settings: &mut ListenerSettings<'_>) -> SaslConfig {
        let sasl = SaslConfig::read(settings);
        let login = Login::read(settings, &sasl.mechanisms);
        SaslConfig { login, ..sasl }
    }
}

fn mechanisms(settings: &mut ListenerSettings<'_>) -> Vec<Mechanism> {
    let mut mechanisms = Vec::new();
    for name in settings.list(MECHANISMS) {
        match Mechanism::parse(&name) {
            Some(mechanism) if !mechanisms.contains(&mechanism) => mechanisms.push(mechanism),
            Some(_) => {}
            None if name == "GSSAPI" => {
                let why = "some of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER: GSSAPI (Kerberos), Kafka's \
                           default, is not served";
                settings.invalid(MECHANISMS, why);
            }
            None => {
                let known = Mechanism::ALL.map(Mechanism::name).join(", ");
                settings.invalid(MECHANISMS, format!("some of {known}; {name} is none of them"));
            }
        }
    }
    if mechanisms.is_empty() && settings.list(MECHANISMS).is_empty() {
        settings.invalid(MECHANISMS, "at least one mechanism");
    }
    mechanisms
}

/// The login configuration of one mechanism, and where it was given.
pub(super) fn login_entry(settings: &mut ListenerSettings<'_>, mechanism: Mechanism, class: &str) -> Option<JaasEntry> {
    const JAAS: &str = "sasl.jaas.config";
    let own = settings.own_text_of(mechanism.name(), JAAS);
    let is_own = own.is_some();
    let text = own.or_else(|| settings.text(JAAS))?;
    match parse_jaas(&text) {
        Ok(entries) => entries.into_iter().find(|entry| entry.class() == class),
        Err(error) if is_own => {
            settings.invalid_for(mechanism.name(), JAAS, format!("a login configuration of Java: {error}"));
            None
        }
        Err(error) => {
            settings.invalid(JAAS, format!("a login configuration of Java: {error}"));
            None
        }
    }
}

fn plain_users(settings: &mut ListenerSettings<'_>) -> BTreeMap<String, Secret> {
    let users =
        login_entry(settings, Mechanism::Plain, "PlainLoginModule").map(|entry| entry.users()).unwrap_or_default();
    if users.is_empty() {
        let why = "org.apache.kafka.common.security.plain.PlainLoginModule required user_NAME=\"PASSWORD\" …; with at \
                   least one user, since PLAIN is enabled";
        settings.invalid_for(Mechanism::Plain.name(), "sasl.jaas.config", why);
    }
    users
}

fn oauth(settings: &mut ListenerSettings<'_>) -> Option<OauthConfig> {
    let name = Mechanism::OauthBearer.name();
    let handler = settings.text_of(name, HANDLER);
    let class = handler.as_deref().map(|class| class.strip_prefix(OAUTH_PACKAGE).unwrap_or(class));
    match class {
        None | Some("OAuthBearerValidatorCallbackHandler" | "secured.OAuthBearerValidatorCallbackHandler") => {
            signed(settings)
        }
        Some("internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler") => Some(unsecured(settings)),
        Some(_) => {
            let allowed = format!(
                "{OAUTH_PACKAGE}OAuthBearerValidatorCallbackHandler, or, for tokens that anybody can make, \
                 {OAUTH_PACKAGE}internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
            );
            settings.invalid_for(name, HANDLER, allowed);
            None
        }
    }
}

fn signed(settings: &mut ListenerSettings<'_>) -> Option<OauthConfig> {
    let name = Mechanism::OauthBearer.name();
    let validator = settings.text_of(name, "sasl.oauthbearer.jwt.validator.class").unwrap_or_default();
    if !["DefaultJwtValidator", "BrokerJwtValidator"].contains(&validator.rsplit('.').next().unwrap_or_default()) {
        settings.invalid("sasl.oauthbearer.jwt.validator.class", "Kafka's own: no Java classes are loaded");
    }
    let url = settings.text_of(name, KEYS);
    let url = url.and_then(|url| Url::parse(&url).ok()).filter(|url| ["file", "http", "https"].contains(&url.scheme()));
    let Some(url) = url else {
        let why = "a file:, http: or https: URL with the keys of the identity provider. (Kafka takes unsigned tokens if \
                   nothing is said; here they must be asked for by the name of their class)";
        settings.invalid_for(name, KEYS, why);
        return None;
    };
    let mut millis =
        |setting: &str| Duration::from_millis(u64::try_from(settings.int_of(name, setting)).unwrap_or_default().max(1));
    let source = JwksSource {
        url,
        refresh: millis("sasl.oauthbearer.jwks.endpoint.refresh.ms"),
        backoff: millis("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms"),
        max_backoff: millis("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms"),
    };
    let audiences = settings.text_of(name, "sasl.oauthbearer.expected.audience");
    let audiences = match audiences {
        Some(text) => text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        None => settings.list("sasl.oauthbearer.expected.audience").into_iter().collect(),
    };
    let issuer = settings.text_of(name, "sasl.oauthbearer.expected.issuer");
    let mut text = |setting: &str, usual: &str| settings.text_of(name, setting).unwrap_or_else(|| usual.to_owned());
    let claims = ClaimRules {
        subject: text("sasl.oauthbearer.sub.claim.name", "sub"),
        scope: text("sasl.oauthbearer.scope.claim.name", "scope"),
        required_scopes: BTreeSet::new(),
        clock_skew_ms: settings.int_of(name, "sasl.oauthbearer.clock.skew.seconds").clamp(0, 1 << 31) * 1000,
    };
    Some(OauthConfig::Signed { source, audiences, issuer, claims })
}

/// Kafka's options of its unsecured tokens stand in the login configuration.
fn unsecured(settings: &mut ListenerSettings<'_>) -> OauthConfig {
    let entry = login_entry(settings, Mechanism::OauthBearer, "OAuthBearerLoginModule");
    let option = |name: &str| {
        let value = entry.as_ref().and_then(|entry| entry.options.get(name));
        value.map(|value| value.reveal().trim().to_owned()).filter(|value| !value.is_empty())
    };
    let skew = option("unsecuredValidatorAllowableClockSkewMs").and_then(|text| text.parse().ok()).unwrap_or(0);
    let scopes = option("unsecuredValidatorRequiredScope").unwrap_or_default();
    let claims = ClaimRules {
        subject: option("unsecuredValidatorPrincipalClaimName").unwrap_or_else(|| "sub".into()),
        scope: option("unsecuredValidatorScopeClaimName").unwrap_or_else(|| "scope".into()),
        required_scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        clock_skew_ms: i64::clamp(skew, 0, 1 << 41),
    };
    OauthConfig::Unsecured { claims }
}
