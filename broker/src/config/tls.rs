//! TLS of one listener: where key and certificates are, and who must show one. Files are opened later (`security::tls`).

use std::path::PathBuf;

use super::listener_settings::ListenerSettings;
use crate::security::{Secret, SecurityProtocol, mapping::PrincipalMapping};

/// TLS as a listener is told to speak it.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The node's own key and certificates.
    pub key_store: KeyStoreConfig,
    /// Whom certificates of clients must come from.
    pub trust_store: Option<TrustStoreConfig>,
    /// Whether clients must show a certificate.
    pub client_auth: ClientAuth,
    /// TLS 1.2 is spoken.
    pub tls_1_2: bool,
    /// TLS 1.3 is spoken.
    pub tls_1_3: bool,
    /// Java's names of the cipher suites that are allowed; empty: all there are.
    pub cipher_suites: Vec<String>,
    /// How a certificate's subject becomes a user.
    pub mapping: PrincipalMapping,
    /// A new certificate may have another subject.
    pub allow_subject_changes: bool,
    /// A new certificate may have other alternative names.
    pub allow_alternative_name_changes: bool,
    /// Where this node connects to another broker, the certificate there must name the host.
    pub checks_host: bool,
}

/// `ssl.client.auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nobody is asked for a certificate.
    None,
    /// Who shows one is known by it; who shows none is anonymous.
    Requested,
    /// Who shows none is not let in.
    Required,
}

/// Where key and certificate chain are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyStoreConfig {
    /// In the settings themselves.
    PemText {
        /// `ssl.keystore.key`.
        key: Secret,
        /// `ssl.keystore.certificate.chain`.
        chain: Secret,
        /// `ssl.key.password`, if the key is encrypted.
        key_password: Option<Secret>,
    },
    /// In one PEM file.
    PemFile {
        /// `ssl.keystore.location`.
        path: PathBuf,
        /// `ssl.key.password`, if the key is encrypted.
        key_password: Option<Secret>,
    },
    /// In a PKCS#12 file.
    Pkcs12 {
        /// `ssl.keystore.location`.
        path: PathBuf,
        /// `ssl.keystore.password`.
        password: Secret,
    },
}

/// Where trusted certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustStoreConfig {
    /// `ssl.truststore.certificates`.
    PemText(Secret),
    /// `ssl.truststore.location`, of type PEM.
    PemFile(PathBuf),
    /// `ssl.truststore.location`, of another type.
    Pkcs12 {
        /// The file.
        path: PathBuf,
        /// `ssl.truststore.password`.
        password: Secret,
    },
}

impl TlsConfig {
    /// Reads the settings of one listener, which speaks `protocol`; what is wrong is noted there. `None` if there is no key store
    /// to begin with.
    pub(crate) fn read(settings: &mut ListenerSettings<'_>, protocol: SecurityProtocol) -> Option<TlsConfig> {
        let key_store = key_store(settings);
        let trust_store = trust_store(settings);
        // As in Kafka: what is said of all listeners is not meant for those on which SASL tells who somebody is.
        let client_auth = match protocol.uses_sasl() {
            true => settings.own_text("ssl.client.auth"),
            false => settings.text("ssl.client.auth"),
        };
        let client_auth = match client_auth.as_deref() {
            Some("required") => ClientAuth::Required,
            Some("requested") => ClientAuth::Requested,
            _ => ClientAuth::None,
        };
        if client_auth != ClientAuth::None && trust_store.is_none() {
            let why = "none without ssl.truststore.location or ssl.truststore.certificates: whose certificates would \
                       be good ones?";
            settings.invalid("ssl.client.auth", why);
        }
        let protocols = settings.list("ssl.enabled.protocols");
        if protocols.is_empty() || protocols.iter().any(|name| !["TLSv1.2", "TLSv1.3"].contains(&name.as_str())) {
            settings.invalid("ssl.enabled.protocols", "TLSv1.2, TLSv1.3 or both: older ones are broken");
        }
        let speaks = |version: &str| protocols.iter().any(|name| name == version);
        let rules = settings.text("ssl.principal.mapping.rules").unwrap_or_default();
        let mapping = PrincipalMapping::parse(&rules).unwrap_or_else(|error| {
            settings.invalid("ssl.principal.mapping.rules", error.to_string());
            PrincipalMapping::default()
        });
        let cipher_suites = settings.list("ssl.cipher.suites");
        let checks_host = match settings.text("ssl.endpoint.identification.algorithm") {
            None => false,
            Some(algorithm) if algorithm.eq_ignore_ascii_case("https") => true,
            Some(_) => {
                settings.invalid("ssl.endpoint.identification.algorithm", "https, or nothing for no check of the host");
                true
            }
        };
        Some(TlsConfig {
            key_store: key_store?,
            trust_store,
            client_auth,
            tls_1_2: speaks("TLSv1.2"),
            tls_1_3: speaks("TLSv1.3"),
            cipher_suites,
            mapping,
            allow_subject_changes: settings.flag("ssl.allow.dn.changes"),
            allow_alternative_name_changes: settings.flag("ssl.allow.san.changes"),
            checks_host,
        })
    }

    /// The same of the listener over which brokers speak with each other: they need to know whom to trust.
    pub(crate) fn read_between_brokers(
        settings: &mut ListenerSettings<'_>,
        protocol: SecurityProtocol,
    ) -> Option<TlsConfig> {
        let tls = TlsConfig::read(settings, protocol)?;
        if tls.trust_store.is_none() {
            let why = "a file with the certificates that other brokers' come from, since brokers speak with each other over \
                       this listener (or, with ssl.truststore.type=PEM, ssl.truststore.certificates)";
            settings.invalid("ssl.truststore.location", why);
        }
        Some(tls)
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let key_store = match &self.key_store {
            KeyStoreConfig::PemText { .. } => None,
            KeyStoreConfig::PemFile { path, .. } | KeyStoreConfig::Pkcs12 { path, .. } => Some(path.clone()),
        };
        let trust_store = match &self.trust_store {
            None | Some(TrustStoreConfig::PemText(_)) => None,
            Some(TrustStoreConfig::PemFile(path) | TrustStoreConfig::Pkcs12 { path, .. }) => Some(path.clone()),
        };
        key_store.into_iter().chain(trust_store).collect()
    }
}

const TYPES: &str = "PEM, PKCS12 or JKS";

fn key_store(settings: &mut ListenerSettings<'_>) -> Option<KeyStoreConfig> {
    let kind = settings.text("ssl.keystore.type").unwrap_or_default().to_ascii_uppercase();
    let location = settings.path("ssl.keystore.location");
    let (key, chain) = (settings.secret("ssl.keystore.key"), settings.secret("ssl.keystore.certificate.chain"));
    let (password, key_password) = (settings.secret("ssl.keystore.password"), settings.secret("ssl.key.password"));
    if (key.is_some() || chain.is_some()) && kind != "PEM" {
        settings.invalid("ssl.keystore.type", "PEM, where ssl.keystore.key or ssl.keystore.certificate.chain is set");
        return None;
    }
    match (kind.as_str(), location) {
        ("PEM", Some(_)) if key.is_some() || chain.is_some() => {
            settings.invalid("ssl.keystore.location", "unset, where ssl.keystore.key and its chain are set");
            None
        }
        ("PEM", _) if password.is_some() => {
            settings.invalid("ssl.keystore.password", "unset with PEM: a PEM key has ssl.key.password");
            None
        }
        ("PEM", Some(path)) => Some(KeyStoreConfig::PemFile { path, key_password }),
        ("PEM", None) => match (key, chain) {
            (Some(key), Some(chain)) => Some(KeyStoreConfig::PemText { key, chain, key_password }),
            (None, Some(_)) => {
                settings.invalid("ssl.keystore.key", "the private key of ssl.keystore.certificate.chain");
                None
            }
            (Some(_), None) => {
                settings.invalid("ssl.keystore.certificate.chain", "the certificates of ssl.keystore.key");
                None
            }
            (None, None) => {
                needs_key_store(settings);
                None
            }
        },
        // Java reads both formats under both names, and so do we as far as we read them.
        ("PKCS12" | "JKS", Some(path)) => match password {
            Some(password) => Some(KeyStoreConfig::Pkcs12 { path, password }),
            None => {
                settings.invalid("ssl.keystore.password", "the password of ssl.keystore.location");
                None
            }
        },
        ("PKCS12" | "JKS", None) => {
            needs_key_store(settings);
            None
        }
        _ => {
            settings.invalid("ssl.keystore.type", TYPES);
            None
        }
    }
}

fn needs_key_store(settings: &mut ListenerSettings<'_>) {
    let why = "a file with the node's key and certificates, since the listener speaks TLS (or, with \
               ssl.keystore.type=PEM, ssl.keystore.key and ssl.keystore.certificate.chain)";
    settings.invalid("ssl.keystore.location", why);
}

fn trust_store(settings: &mut ListenerSettings<'_>) -> Option<TrustStoreConfig> {
    let kind = settings.text("ssl.truststore.type").unwrap_or_default().to_ascii_uppercase();
    let location = settings.path("ssl.truststore.location");
    let certificates = settings.secret("ssl.truststore.certificates");
    let password = settings.secret("ssl.truststore.password");
    if certificates.is_some() && kind != "PEM" {
        settings.invalid("ssl.truststore.type", "PEM, where ssl.truststore.certificates is set");
        return None;
    }
    match (kind.as_str(), location, certificates) {
        ("PEM", Some(_), Some(_)) => {
            settings.invalid("ssl.truststore.location", "unset, where ssl.truststore.certificates is set");
            None
        }
        ("PEM", _, _) if password.is_some() => {
            settings.invalid("ssl.truststore.password", "unset with PEM: certificates are no secret");
            None
        }
        ("PEM", Some(path), None) => Some(TrustStoreConfig::PemFile(path)),
        ("PEM", None, Some(text)) => Some(TrustStoreConfig::PemText(text)),
        ("PKCS12" | "JKS", Some(path), _) => {
            Some(TrustStoreConfig::Pkcs12 { path, password: password.unwrap_or_else(|| Secret::new("")) })
        }
        ("PEM" | "PKCS12" | "JKS", None, _) => None,
        _ => {
            settings.invalid("ssl.truststore.type", TYPES);
            None
        }
    }
}
