//! What one listener asks of those who connect, ready for use.

use std::{collections::BTreeMap, sync::Arc};

use varve_metadata::config::ConfigErrors;

use super::{
    SecurityProtocol,
    sasl::SaslEndpoint,
    tls::{TlsEndpoint, TlsError},
};
use crate::config::{ListenerSettings, SaslConfig, TlsConfig};

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
}

impl ListenerSecurity {
    /// Lets everybody in, and knows nobody.
    pub fn plaintext() -> Arc<ListenerSecurity> {
        Arc::new(ListenerSecurity { protocol: SecurityProtocol::Plaintext, tls: None, sasl: None })
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
        let tls = match protocol.uses_tls() {
            true => tls_config(name, texts)?.map(TlsEndpoint::load).transpose()?,
            false => None,
        };
        let sasl = match protocol.uses_sasl() {
            true => Some(SaslEndpoint::new(sasl_config(name, texts)?)),
            false => None,
        };
        Ok(Arc::new(ListenerSecurity { protocol, tls, sasl }))
    }
}

/// TLS as the settings have it.
pub(super) fn tls_config(name: &str, texts: &BTreeMap<String, String>) -> Result<Option<TlsConfig>, ConfigErrors> {
    let mut settings = ListenerSettings::of(texts, name);
    let tls = TlsConfig::read(&mut settings);
    let errors = settings.into_errors();
    if errors.is_empty() { Ok(tls) } else { Err(ConfigErrors(errors)) }
}

/// SASL as the settings have it.
pub(super) fn sasl_config(name: &str, texts: &BTreeMap<String, String>) -> Result<SaslConfig, ConfigErrors> {
    let mut settings = ListenerSettings::of(texts, name);
    let sasl = SaslConfig::read(&mut settings);
    let errors = settings.into_errors();
    if errors.is_empty() { Ok(sasl) } else { Err(ConfigErrors(errors)) }
}
