//! Certificates that tests make for themselves, and a client's side of TLS.

use std::{net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, Tag, Tagged, asn1::AnyRef};

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a host (`names`), or for the user whose subject it is.
    pub(crate) fn issue(&self, subject: &[(DnType, &str)], names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        subject.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.issuer).unwrap(), key }
    }

    /// A server's certificate for `localhost`.
    pub(crate) fn server(&self) -> Identity {
        self.issue(&[(DnType::CommonName, "broker")], &["localhost"])
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }
}

impl Identity {
    /// Key and certificate in one file.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.pem()).unwrap();
    }

    pub(crate) fn pem(&self) -> String {
        format!("{}{}", self.key.serialize_pem(), self.certificate.pem())
    }
}

/// Connects to `localhost` as `who`, trusting `authority`, in one version of TLS.
pub(crate) async fn connect(
    address: SocketAddr,
    authority: &Authority,
    who: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match who {
        Some(identity) => {
            let key = PrivatePkcs8KeyDer::from(identity.key.serialize_der()).into();
            builder.with_client_auth_cert(vec![identity.certificate.der().clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Both versions that are spoken.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The certificate as it would be in version 1 of X.509, which has no extensions. Its signature is that of the other one: who looks
/// at that does not take it.
pub(crate) fn of_version_1(certificate: &rcgen::Certificate) -> Vec<u8> {
    let is_newer = |part: &AnyRef<'_>| part.tag().is_context_specific();
    let whole = parts(AnyRef::from_der(certificate.der()).unwrap().value());
    let named = parts(whole[0].value()).into_iter().filter(|part| !is_newer(part)).map(|part| part.to_der().unwrap());
    let named = sequence(&named.collect::<Vec<_>>().concat());
    sequence(&[named, whole[1].to_der().unwrap(), whole[2].to_der().unwrap()].concat())
}

/// A certificate's bytes as text.
pub(crate) fn certificate_pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

fn parts(content: &[u8]) -> Vec<AnyRef<'_>> {
    let mut reader = SliceReader::new(content).unwrap();
    std::iter::from_fn(|| (!reader.is_finished()).then(|| AnyRef::decode(&mut reader).unwrap())).collect()
}

fn sequence(content: &[u8]) -> Vec<u8> {
    AnyRef::new(Tag::Sequence, content).unwrap().to_der().unwrap()
}

/// Connects as nobody to whoever has the key of any certificate.
pub(crate) async fn connect_to_whoever(
    address: SocketAddr,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever))
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Takes everything: signatures too, which rustls checks with a reader of version 3 alone.
#[derive(Debug)]
struct Whoever;

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
