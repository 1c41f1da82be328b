//! Keys and certificates, from where the settings say they are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use p12_keystore::{KeyStore, KeyStoreEntry, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer},
};

use super::ec;
use crate::{
    config::{KeyStoreConfig, TrustStoreConfig},
    security::{
        Secret,
        pem::{self, PemError},
    },
};

/// What Java's own format begins with.
const JKS_MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];

/// Why a store gives no key or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file in Java's own format.
    #[error(
        "{0} is in Java's old JKS format, which is not read: convert it with `keytool -importkeystore -srckeystore \
         {0} -destkeystore {0}.p12 -deststoretype PKCS12` and name the new file"
    )]
    Jks(PathBuf),
    /// Neither PKCS#12 nor opened by its password.
    #[error("{0} is no PKCS#12 file, or its password is another one")]
    Pkcs12(PathBuf),
    /// PEM that is none.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The private key is encrypted.
    #[error("the private key is encrypted, and ssl.key.password does not open it")]
    KeyPassword,
    /// No private key where one should be.
    #[error("there is no private key in {0}")]
    NoKey(String),
    /// No certificate where one should be.
    #[error("there is no certificate in {0}")]
    NoCertificate(String),
    /// A trusted certificate that cannot be used.
    #[error("a trusted certificate in {0} cannot be read")]
    BadCertificate(String),
}

/// The node's own key, and its certificate with those that it was signed by.
pub(super) struct KeyStoreContent {
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Opens the key store.
///
/// # Errors
/// [`StoreError`].
pub(super) fn open_key_store(config: &KeyStoreConfig) -> Result<KeyStoreContent, StoreError> {
    let KeyStoreContent { key, chain } = read_key_store(config)?;
    Ok(KeyStoreContent { key: ec::whole(key, chain.first()), chain })
}

fn read_key_store(config: &KeyStoreConfig) -> Result<KeyStoreContent, StoreError> {
    match config {
        KeyStoreConfig::PemText { key, chain, key_password } => {
            let key = private_key(key, key_password.as_ref(), "ssl.keystore.key")?;
            Ok(KeyStoreContent { key, chain: certificates(chain, "ssl.keystore.certificate.chain")? })
        }
        KeyStoreConfig::PemFile { path, key_password } => {
            let (text, shown) = (Secret::new(read_text(path)?), path.display().to_string());
            let key = private_key(&text, key_password.as_ref(), &shown)?;
            Ok(KeyStoreContent { key, chain: certificates(&text, &shown)? })
        }
        KeyStoreConfig::Pkcs12 { path, password } => {
            let store = open_pkcs12(path, password)?;
            let shown = path.display().to_string();
            let (_, entry) = store.private_key_chain().ok_or_else(|| StoreError::NoKey(shown.clone()))?;
            let key = PrivatePkcs8KeyDer::from(entry.key().as_der().to_vec()).into();
            let chain: Vec<_> = entry.certs().iter().map(|one| CertificateDer::from(one.as_der().to_vec())).collect();
            if chain.is_empty() {
                return Err(StoreError::NoCertificate(shown));
            }
            Ok(KeyStoreContent { key, chain })
        }
    }
}

/// Opens the trust store.
///
/// # Errors
/// [`StoreError`].
pub(super) fn open_trust_store(config: &TrustStoreConfig) -> Result<RootCertStore, StoreError> {
    let (shown, found) = match config {
        TrustStoreConfig::PemText(text) => {
            let shown = "ssl.truststore.certificates".to_owned();
            let found = certificates(text, &shown)?;
            (shown, found)
        }
        TrustStoreConfig::PemFile(path) => {
            let shown = path.display().to_string();
            let found = certificates(&Secret::new(read_text(path)?), &shown)?;
            (shown, found)
        }
        TrustStoreConfig::Pkcs12 { path, password } => {
            let store = open_pkcs12(path, password)?;
            let found = store.entries().filter_map(|(_, entry)| match entry {
                KeyStoreEntry::Certificate(certificate) => Some(certificate.as_der()),
                // Java trusts the owner of a key, too.
                KeyStoreEntry::PrivateKeyChain(chain) => chain.certs().first().map(|one| one.as_der()),
                KeyStoreEntry::Secret(_) => None,
            });
            (path.display().to_string(), found.map(|der| CertificateDer::from(der.to_vec())).collect())
        }
    };
    if found.is_empty() {
        return Err(StoreError::NoCertificate(shown));
    }
    let mut roots = RootCertStore::empty();
    for certificate in found {
        roots.add(certificate).map_err(|_| StoreError::BadCertificate(shown.clone()))?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|source| StoreError::Read { file: path.to_owned(), source })
}

fn read_text(path: &Path) -> Result<String, StoreError> {
    // What is around the blocks may be in any encoding.
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

fn open_pkcs12(path: &Path, password: &Secret) -> Result<KeyStore, StoreError> {
    let bytes = read(path)?;
    if bytes.starts_with(&JKS_MAGIC) {
        return Err(StoreError::Jks(path.to_owned()));
    }
    KeyStore::from_pkcs12(&bytes, password.reveal(), Pkcs12ImportPolicy::Relaxed)
        .map_err(|_| StoreError::Pkcs12(path.to_owned()))
}

fn certificates(text: &Secret, shown: &str) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let blocks = pem::blocks(text)?.into_iter().filter(|block| block.label.ends_with("CERTIFICATE"));
    let certificates: Vec<_> = blocks.map(|block| CertificateDer::from(block.der)).collect();
    if certificates.is_empty() { Err(StoreError::NoCertificate(shown.to_owned())) } else { Ok(certificates) }
}

fn private_key(text: &Secret, password: Option<&Secret>, shown: &str) -> Result<PrivateKeyDer<'static>, StoreError> {
    for block in pem::blocks(text)? {
        match block.label.as_str() {
            "PRIVATE KEY" => return Ok(PrivatePkcs8KeyDer::from(block.der).into()),
            "RSA PRIVATE KEY" => return Ok(PrivatePkcs1KeyDer::from(block.der).into()),
            "EC PRIVATE KEY" => return Ok(PrivateSec1KeyDer::from(block.der).into()),
            "ENCRYPTED PRIVATE KEY" => {
                let password = password.ok_or(StoreError::KeyPassword)?.reveal();
                let encrypted = EncryptedPrivateKeyInfoRef::try_from(block.der.as_slice())
                    .map_err(|_| StoreError::Pem(PemError::Malformed))?;
                let plain = encrypted.decrypt(password).map_err(|_| StoreError::KeyPassword)?;
                return Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into());
            }
            _ => {}
        }
    }
    Err(StoreError::NoKey(shown.to_owned()))
}
