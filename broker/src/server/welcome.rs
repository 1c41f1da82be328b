//! What comes before the first request: TLS, if the listener speaks it, and whom the other end is taken for.

use std::{io, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use varve_metadata::model::Principal;

use super::{listener::Entrance, transport::Transport};
use crate::security::tls::TlsEndpoint;

/// A handshake that is not done that long after the connection was made is given up: whoever is that slow holds a place that others
/// want.
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

/// Takes in whoever is behind `stream`; `None` if that says nothing: other brokers that watch this one do not (docs/adr/0022), nor do
/// the probes of load balancers. That is no handshake that failed.
pub(super) async fn welcome(
    entrance: &Entrance,
    stream: TcpStream,
) -> Result<Option<(Transport, Principal)>, Unwelcome> {
    let Some(tls) = &entrance.security.tls else { return Ok(Some((Transport::Plain(stream), Principal::anonymous()))) };
    let end = Instant::now() + HANDSHAKE;
    if !timeout_at(end, begins_to_speak(&stream)).await.unwrap_or(false) {
        return Ok(None);
    }
    // Boxed: what a handshake needs is gone when it is over.
    let handshake = Box::pin(timeout_at(end, TlsAcceptor::from(tls.server()).accept(stream)));
    let stream = handshake.await.map_err(|_| Unwelcome::HandshakeTime)?.map_err(Unwelcome::Handshake)?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let principal = match certificate {
        Some(certificate) if entrance.security.sasl.is_none() => user_of(tls, certificate)?,
        // With SASL after it, a certificate opens the door and names nobody.
        Some(_) | None => Principal::anonymous(),
    };
    Ok(Some((Transport::Tls(Box::new(stream)), principal)))
}

/// Waits for the first byte, which is left where it is; `false` if the other end leaves without one.
async fn begins_to_speak(stream: &TcpStream) -> bool {
    stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0)
}

fn user_of(tls: &TlsEndpoint, certificate: &rustls::pki_types::CertificateDer<'_>) -> Result<Principal, Unwelcome> {
    tls.user(certificate).map(|name| Principal::user(&name)).ok_or(Unwelcome::NoName)
}
