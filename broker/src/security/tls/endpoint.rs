//! One listener's side of TLS, and how it gets new keys while connections go on.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, InconsistentKeys, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
    ext::pkix::SubjectAltName,
};

use super::{
    client,
    store::{self, StoreError},
};
use crate::{
    config::{ClientAuth, TlsConfig},
    security::{mapping::PrincipalMapping, subject_text},
};

/// Why a listener cannot speak TLS as it is told.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key or certificates are not to be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// None of the cipher suites is known.
    #[error("none of ssl.cipher.suites is spoken here; there are {0}")]
    NoCipherSuite(String),
    /// Key and certificate do not belong together, or the settings contradict each other.
    #[error("key, certificate and settings do not fit together: {0}")]
    Unfit(String),
    /// Other brokers, which are set up alike, would not take this one's certificate.
    #[error(
        "brokers would not take this node's own certificate: {0}. Its issuer must be in ssl.truststore, and it must be good \
         for servers and for clients"
    )]
    NotTrusted(rustls::Error),
    /// A new certificate names somebody else (KIP-1119).
    #[error("the new certificate has another subject, which ssl.allow.dn.changes does not allow")]
    OtherSubject,
    /// A new certificate has other alternative names.
    #[error("the new certificate lacks alternative names of the old one, which ssl.allow.san.changes does not allow")]
    OtherNames,
}

/// TLS for a listener's connections. Those that are accepted after [`reload`](TlsEndpoint::reload) get the new keys; the
/// others keep theirs.
#[derive(Debug)]
pub struct TlsEndpoint {
    current: ArcSwap<Loaded>,
    is_between_brokers: bool,
}

#[derive(Debug)]
struct Loaded {
    config: TlsConfig,
    server: Arc<ServerConfig>,
    /// For connections to other brokers.
    client: Option<Arc<ClientConfig>>,
    identity: Identity,
    stamps: Vec<Stamp>,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Identity {
    subject: String,
    alternative_names: BTreeSet<Vec<u8>>,
    not_after: Option<SystemTime>,
}

/// What changes when a file does: a new one in its place has another time or size.
type Stamp = Option<(SystemTime, u64)>;

impl TlsEndpoint {
    /// Opens the stores that `config` names.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(config: TlsConfig) -> Result<TlsEndpoint, TlsError> {
        Ok(TlsEndpoint { current: ArcSwap::from_pointee(Loaded::load(config, false)?), is_between_brokers: false })
    }

    /// The same where this node connects to other brokers with it, too.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load_between_brokers(config: TlsConfig) -> Result<TlsEndpoint, TlsError> {
        Ok(TlsEndpoint { current: ArcSwap::from_pointee(Loaded::load(config, true)?), is_between_brokers: true })
    }

    /// What a handshake that begins now is made with.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// What a connection to another broker that begins now is made with; `None` on a listener that brokers do not use.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.current.load().client.clone()
    }

    /// The user that a certificate stands for; `None` if no rule names one.
    pub fn user(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        let mapping: &PrincipalMapping = &self.current.load().config.mapping;
        mapping.name(&subject_text(certificate).ok()?)
    }

    /// When the listener's own certificate ends; `None` if it does not say.
    pub fn not_after(&self) -> Option<SystemTime> {
        self.current.load().identity.not_after
    }

    /// Whether this node can go on with `config`, read anew now, without doing so.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub fn check(&self, config: TlsConfig) -> Result<(), TlsError> {
        self.successor(config).map(drop)
    }

    /// Opens the stores of `config` and uses them from now on.
    ///
    /// # Errors
    /// [`TlsError`]: everything stays as it was.
    pub fn reload(&self, config: TlsConfig) -> Result<(), TlsError> {
        self.current.store(Arc::new(self.successor(config)?));
        Ok(())
    }

    /// As [`reload`](Self::reload), if a file is not the one that was read. Whether it was.
    ///
    /// # Errors
    /// [`TlsError`]: everything stays as it was; the same files are not tried again.
    pub fn reload_changed_files(&self) -> Result<bool, TlsError> {
        let current = self.current.load_full();
        let now = stamps(&current.config.files());
        if now == current.stamps {
            return Ok(false);
        }
        match self.successor(current.config.clone()) {
            Ok(next) => self.current.store(Arc::new(next)),
            Err(error) => {
                self.current.store(Arc::new(current.with_stamps(now)));
                return Err(error);
            }
        }
        Ok(true)
    }

    fn successor(&self, config: TlsConfig) -> Result<Loaded, TlsError> {
        let (current, next) = (self.current.load(), Loaded::load(config, self.is_between_brokers)?);
        if !next.config.allow_subject_changes && next.identity.subject != current.identity.subject {
            return Err(TlsError::OtherSubject);
        }
        let kept = next.identity.alternative_names.is_superset(&current.identity.alternative_names);
        if !next.config.allow_alternative_name_changes && !kept {
            return Err(TlsError::OtherNames);
        }
        Ok(next)
    }
}

impl Loaded {
    fn load(config: TlsConfig, is_between_brokers: bool) -> Result<Loaded, TlsError> {
        // Before the files are read: one that changes meanwhile is read again.
        let stamps = stamps(&config.files());
        let own = store::open_key_store(&config.key_store)?;
        let provider = Arc::new(provider(&config.cipher_suites)?);
        let versions: Vec<_> =
            [(config.tls_1_3, &TLS13), (config.tls_1_2, &TLS12)].into_iter().filter(|(on, _)| *on).collect();
        let versions: Vec<_> = versions.into_iter().map(|(_, version)| version).collect();
        let unfit = |error: rustls::Error| TlsError::Unfit(error.to_string());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions).map_err(unfit)?;
        let client = match &config.trust_store {
            Some(trust_store) if is_between_brokers => {
                let trusted = Arc::new(store::open_trust_store(trust_store)?);
                Some(client::Parts { provider: provider.clone(), versions: versions.clone(), trusted })
            }
            Some(_) | None => None,
        };
        let builder = match client_verifier(&config, provider.clone())? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let identity = identity(own.chain.first());
        let own_again = || (own.chain.clone(), own.key.clone_key());
        let client = match client {
            Some(parts) => {
                let client = parts.config(own_again(), config.checks_host).map_err(unfit)?;
                Some((Arc::new(client), parts.config(own_again(), false).map_err(unfit)?))
            }
            None => None,
        };
        let shown = certified(own.chain, own.key, &provider).map_err(unfit)?;
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
        // A resumed session would be let in by a certificate that was looked at long ago; clients keep connections anyway.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let server = Arc::new(server);
        let client = match client {
            // Others know this node under names that it need not know itself.
            Some((client, of_any_host)) => {
                client::rehearse(of_any_host, &server).map_err(TlsError::NotTrusted)?;
                Some(client)
            }
            None => None,
        };
        Ok(Loaded { config, server, client, identity, stamps })
    }

    fn with_stamps(&self, stamps: Vec<Stamp>) -> Loaded {
        let (config, identity) = (self.config.clone(), self.identity.clone());
        Loaded { config, server: self.server.clone(), client: self.client.clone(), identity, stamps }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| fs::metadata(file).and_then(|found| Ok((found.modified()?, found.len()))).ok();
    files.iter().map(stamp).collect()
}

/// The cryptography, with the cipher suites that Java's names allow.
fn provider(allowed: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if allowed.is_empty() {
        return Ok(provider);
    }
    // rustls calls those of TLS 1.3 TLS13_…, everybody else TLS_….
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1);
    let all = provider.cipher_suites.iter().map(name).collect::<Vec<_>>().join(", ");
    provider.cipher_suites.retain(|suite| allowed.contains(&name(suite)));
    if provider.cipher_suites.is_empty() { Err(TlsError::NoCipherSuite(all)) } else { Ok(provider) }
}

/// What a listener shows to those who connect. rustls compares a key with its certificate by a reader that knows version 3 of
/// X.509 alone. Those of version 1, which openssl made for years where nobody asked for extensions, are shown in Kafka, and it is
/// for clients to say whether they take them.
///
/// # Errors
/// The key is not the certificate's, or of no kind that signs here.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, rustls::Error> {
    let key = provider.key_provider.load_private_key(key)?;
    let named = chain.first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let named = Certificate::from_der(named)
        .and_then(|certificate| certificate.tbs_certificate().subject_public_key_info().to_der())
        .map_err(|error| rustls::Error::General(format!("the certificate cannot be read: {error}")))?;
    match key.public_key() {
        Some(public) if public.as_ref() != named => Err(InconsistentKeys::KeyMismatch.into()),
        Some(_) | None => Ok(CertifiedKey::new(chain, key)),
    }
}

fn client_verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(trust_store) = config.trust_store.as_ref().filter(|_| config.client_auth != ClientAuth::None) else {
        return Ok(None);
    };
    let roots = Arc::new(store::open_trust_store(trust_store)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = match config.client_auth {
        ClientAuth::Requested => builder.allow_unauthenticated(),
        ClientAuth::Required | ClientAuth::None => builder,
    };
    builder.build().map(Some).map_err(|error| TlsError::Unfit(error.to_string()))
}

fn identity(certificate: Option<&CertificateDer<'_>>) -> Identity {
    let read = |der: &CertificateDer<'_>| {
        let certificate = Certificate::from_der(der).ok()?;
        let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok().flatten();
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let alternative_names = names.iter().filter_map(|name| name.to_der().ok()).collect();
        let not_after = Some(certificate.tbs_certificate().validity().not_after.to_system_time());
        Some(Identity { subject: subject_text(der).ok()?, alternative_names, not_after })
    };
    certificate.and_then(read).unwrap_or_default()
}
