//! TLS towards other brokers: the same key, trust and versions as for those who connect here.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};

/// Flights of a handshake in one direction; TLS 1.2 has two.
const FLIGHTS: usize = 8;

/// A certificate with those that it was signed by, and its key.
pub(super) type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What connections to other brokers are made of.
pub(super) struct Parts {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) trusted: Arc<RootCertStore>,
}

impl Parts {
    /// With our own certificate, for a server that asks for one. `checks_host`: the other's must name the host.
    ///
    /// # Errors
    /// Key and certificate, or versions and cipher suites, do not fit together.
    pub(super) fn config(&self, (chain, key): Own, checks_host: bool) -> Result<ClientConfig, Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.trusted.clone(), self.provider.clone());
        let inner = verifier.build().map_err(|error| Error::General(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = if checks_host { inner } else { Arc::new(AnyHost { inner }) };
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_protocol_versions(&self.versions)?.dangerous();
        let mut config = builder.with_custom_certificate_verifier(verifier).with_client_auth_cert(chain, key)?;
        // The other side remembers no session either.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Shakes hands with ourselves: brokers are set up alike, so whom we do not trust ourselves they will not trust either, and it is
/// better said at once and here than later and by them.
///
/// # Errors
/// Why one of the two sides does not take the other.
pub(super) fn rehearse(client: ClientConfig, server: &Arc<ServerConfig>) -> Result<(), Error> {
    let host = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), host)?;
    let mut server = ServerConnection::new(server.clone())?;
    let failed = |error: std::io::Error| Error::General(error.to_string());
    for _ in 0..FLIGHTS {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there).map_err(failed)?;
        }
        let mut rest = there.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).map_err(failed)?;
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut back).map_err(failed)?;
        }
        let mut rest = back.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).map_err(failed)?;
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
    }
    Err(Error::HandshakeNotComplete)
}

/// Trusts a certificate of whichever host, if its issuer is trusted (`ssl.endpoint.identification.algorithm=`).
#[derive(Debug)]
struct AnyHost {
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The host is looked at last: who fails there has passed everything else.
        match self.inner.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
