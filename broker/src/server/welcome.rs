//! What comes before the first request: TLS, if the listener speaks it, and whom the other end is taken for.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;
use varve_metadata::model::Principal;

use super::{listener::Entrance, transport::Transport};
use crate::security::tls::TlsEndpoint;

/// A handshake that takes longer is given up: whoever is that slow holds a place that others want.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the TLS handshake was not done in time")]
    HandshakeTime,
    #[error("no rule of ssl.principal.mapping.rules names a user for the client's certificate")]
    NoName,
    #[error("the authentication failed: {0}")]
    Sasl(String),
}

/// Takes in whoever is behind `stream`.
pub(super) async fn welcome(entrance: &Entrance, stream: TcpStream) -> Result<(Transport, Principal), Unwelcome> {
    let Some(tls) = &entrance.security.tls else { return Ok((Transport::Plain(stream), Principal::anonymous())) };
    // Boxed: what a handshake needs is gone when it is over.
    let handshake = Box::pin(timeout(HANDSHAKE, TlsAcceptor::from(tls.server()).accept(stream)));
    let stream = handshake.await.map_err(|_| Unwelcome::HandshakeTime)?.map_err(Unwelcome::Handshake)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let principal = match certificate {
        Some(certificate) if entrance.security.sasl.is_none() => user_of(tls, certificate)?,
        // With SASL after it, a certificate opens the door and names nobody.
        Some(_) | None => Principal::anonymous(),
    };
    Ok((Transport::Tls(Box::new(stream)), principal))
}

fn user_of(tls: &TlsEndpoint, certificate: &rustls::pki_types::CertificateDer<'_>) -> Result<Principal, Unwelcome> {
    tls.user(certificate).map(|name| Principal::user(&name)).ok_or(Unwelcome::NoName)
}
