//! Certificates that tests make for themselves, in PEM files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// Who signs certificates; its files lie in one folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub certificate: PathBuf,
}

/// A key and its certificate, each in a file, and both in one.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The key, PKCS#8.
    pub key: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Both.
    pub both: PathBuf,
}

impl Authority {
    /// A new one, whose certificate is `<folder>/<name>.pem`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(folder: &Path, name: &str) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = folder.join(format!("{name}.pem"));
        fs::write(&certificate, params.self_signed(&key)?.pem())?;
        Ok(Authority { folder: folder.to_owned(), issuer: Issuer::new(params, key), certificate })
    }

    /// A certificate of `CN=<name>`, for these host names and addresses. One that is `expired` was good until 2001.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn issue(&self, name: &str, hosts: &[&str], expired: bool) -> Result<Identity> {
        let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}"));
        let identity = Identity { key: file("key"), certificate: file("crt"), both: file("both.pem") };
        fs::write(&identity.key, key.serialize_pem())?;
        fs::write(&identity.certificate, &certificate)?;
        fs::write(&identity.both, format!("{}{certificate}", key.serialize_pem()))?;
        Ok(identity)
    }
}
