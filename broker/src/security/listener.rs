//! What one listener asks of those who connect, ready for use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_metadata::config::ConfigErrors;

use super::{
    SecurityProtocol,
    sasl::SaslEndpoint,
    tls::{TlsEndpoint, TlsError},
};
use crate::config::{ListenerSettings, SaslConfig, TlsConfig, broker_table, listener_prefix, listener_setting};

/// Why a listener cannot be protected as its settings say.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Settings that are wrong on their own.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A listener's protection.
#[derive(Debug)]
pub struct ListenerSecurity {
    /// Kafka's word for it.
    pub protocol: SecurityProtocol,
    /// TLS, where it is spoken.
    pub tls: Option<TlsEndpoint>,
    /// SASL, where it is spoken.
    pub sasl: Option<SaslEndpoint>,
    /// Brokers speak with each other over it: this node connects to such listeners of others, too.
    is_between_brokers: bool,
}

impl ListenerSecurity {
    /// Lets everybody in, and knows nobody.
    pub fn plaintext() -> Arc<ListenerSecurity> {
        let protocol = SecurityProtocol::Plaintext;
        Arc::new(ListenerSecurity { protocol, tls: None, sasl: None, is_between_brokers: false })
    }

    /// The protection of the listener `name`, which speaks `protocol`, from the settings of the node.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn open(
        name: &str,
        protocol: SecurityProtocol,
        texts: &BTreeMap<String, String>,
    ) -> Result<Arc<ListenerSecurity>, SecurityError> {
        ListenerSecurity::open_as(name, protocol, texts, false)
    }

    /// The same of the listener over which brokers speak with each other.
    ///
    /// # Errors
    /// [`SecurityError`]; one is that this node would not let itself in.
    pub fn open_between_brokers(
        name: &str,
        protocol: SecurityProtocol,
        texts: &BTreeMap<String, String>,
    ) -> Result<Arc<ListenerSecurity>, SecurityError> {
        ListenerSecurity::open_as(name, protocol, texts, true)
    }

    fn open_as(
        name: &str,
        protocol: SecurityProtocol,
        texts: &BTreeMap<String, String>,
        is_between_brokers: bool,
    ) -> Result<Arc<ListenerSecurity>, SecurityError> {
        let tls = match protocol.uses_tls() {
            true => tls_config(name, protocol, texts, is_between_brokers)?
                .map(|config| match is_between_brokers {
                    true => TlsEndpoint::load_between_brokers(config),
                    false => TlsEndpoint::load(config),
                })
                .transpose()?,
            false => None,
        };
        let sasl = match protocol.uses_sasl() {
            true => Some(SaslEndpoint::new(sasl_config(name, texts, is_between_brokers)?)),
            false => None,
        };
        Ok(Arc::new(ListenerSecurity { protocol, tls, sasl, is_between_brokers }))
    }

    /// Whether this one, of the listener `name`, can go on with `texts`, of which `new` are the names that changed, without doing so.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub fn check(
        &self,
        name: &str,
        texts: &BTreeMap<String, String>,
        new: &BTreeSet<&str>,
    ) -> Result<(), SecurityError> {
        let prefix = listener_prefix(name);
        let setting = |name: &&str| match name.starts_with(&prefix) {
            true => listener_setting(name),
            // One for all listeners that have none of their own.
            false if name.starts_with("ssl.") || name.starts_with("sasl.") => broker_table().get(name),
            false => None,
        };
        let own = || new.iter().filter_map(setting);
        if let Some(tls) = &self.tls
            && own().any(|setting| setting.name.starts_with("ssl."))
            && let Some(config) = tls_config(name, self.protocol, texts, self.is_between_brokers)?
        {
            tls.check(config)?;
        }
        if self.sasl.is_some() && own().any(|setting| !setting.name.starts_with("ssl.")) {
            sasl_config(name, texts, self.is_between_brokers)?;
        }
        Ok(())
    }

    /// Goes by `texts` from now on, the settings of the node, as the listener `name`. What is wrong with TLS does not hold up
    /// SASL, nor the other way round.
    pub(crate) fn follow(&self, name: &str, texts: &BTreeMap<String, String>) -> Vec<SecurityError> {
        let tls = || match &self.tls {
            Some(tls) => {
                let config = tls_config(name, self.protocol, texts, self.is_between_brokers)?;
                config.map_or(Ok(()), |config| Ok(tls.reload(config)?))
            }
            None => Ok(()),
        };
        let sasl = || {
            if let Some(sasl) = &self.sasl {
                sasl.follow(sasl_config(name, texts, self.is_between_brokers)?);
            }
            Ok(())
        };
        [tls(), sasl()].into_iter().filter_map(Result::err).collect()
    }
}

/// TLS as the settings have it.
fn tls_config(
    name: &str,
    protocol: SecurityProtocol,
    texts: &BTreeMap<String, String>,
    is_between_brokers: bool,
) -> Result<Option<TlsConfig>, ConfigErrors> {
    let mut settings = ListenerSettings::of(texts, name);
    let tls = match is_between_brokers {
        true => TlsConfig::read_between_brokers(&mut settings, protocol),
        false => TlsConfig::read(&mut settings, protocol),
    };
    let errors = settings.into_errors();
    if errors.is_empty() { Ok(tls) } else { Err(ConfigErrors(errors)) }
}

/// SASL as the settings have it.
fn sasl_config(
    name: &str,
    texts: &BTreeMap<String, String>,
    is_between_brokers: bool,
) -> Result<SaslConfig, ConfigErrors> {
    let mut settings = ListenerSettings::of(texts, name);
    let sasl = match is_between_brokers {
        true => SaslConfig::read_between_brokers(&mut settings),
        false => SaslConfig::read(&mut settings),
    };
    let errors = settings.into_errors();
    if errors.is_empty() { Ok(sasl) } else { Err(ConfigErrors(errors)) }
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::*;
    use crate::security::testing::Authority;

    const KEY_STORE: &str = "ssl.keystore.location";
    const USERS: &str = "listener.name.l.plain.sasl.jaas.config";

    fn users(name: &str) -> String {
        format!("x.PlainLoginModule required user_{name}=\"secret\";")
    }

    #[test]
    fn what_is_wrong_with_tls_does_not_hold_up_sasl_nor_the_other_way_round() {
        let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
        let file = |name: &str| folder.path().join(name).display().to_string();
        authority.server().write(file("broker.pem").as_ref());
        authority.issue(&[(DnType::CommonName, "somebody else")], &["localhost"]).write(file("other.pem").as_ref());
        authority.server().write(file("renewed.pem").as_ref());
        let mut texts: BTreeMap<String, String> = [
            ("ssl.keystore.type", "PEM".to_owned()),
            (KEY_STORE, file("broker.pem")),
            ("sasl.enabled.mechanisms", "PLAIN".to_owned()),
            (USERS, users("alice")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let listener = ListenerSecurity::open("L", SecurityProtocol::SaslSsl, &texts).unwrap();
        let (tls, sasl) = (listener.tls.as_ref().unwrap(), listener.sasl.as_ref().unwrap());

        texts.extend([(KEY_STORE.to_owned(), file("other.pem")), (USERS.to_owned(), users("bob"))]);
        let errors = listener.follow("L", &texts);
        assert!(matches!(errors.as_slice(), [SecurityError::Tls(TlsError::OtherSubject)]), "{errors:?}");
        assert!(sasl.state().users.plain.contains_key("bob"), "users change all the same");

        let before = tls.server();
        texts.extend([(KEY_STORE.to_owned(), file("renewed.pem")), (USERS.to_owned(), "nobody".to_owned())]);
        let errors = listener.follow("L", &texts);
        assert!(matches!(errors.as_slice(), [SecurityError::Config(_)]), "{errors:?}");
        assert!(!Arc::ptr_eq(&before, &tls.server()), "keys change all the same");
        assert!(sasl.state().users.plain.contains_key("bob"), "and users are those of before");
    }
}
