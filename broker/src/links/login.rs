//! A link says who this node is: at its start, and again before its session ends (KIP-368).

use std::time::Duration;

use kafka_protocol::{
    messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::StrBytes,
};
use tokio::time::Instant;

use super::link::{Link, LinkError};
use crate::{
    config::Login,
    security::{
        nonce,
        sasl::{MechanismClient, SaslEndpoint},
    },
};

/// The version whose messages come inside of SaslAuthenticate.
const HANDSHAKE_VERSION: i16 = 1;
/// The newest one.
const AUTHENTICATE_VERSION: i16 = 2;
/// No mechanism has more messages.
const MESSAGES: usize = 4;
/// The part of a session after which it is renewed, in percent: the rest is for slow networks, as in Kafka's clients.
const RENEWED_AFTER: u32 = 85;

/// Logs in as the listener's settings say now; gives the time at which to do so again, if the session ends.
///
/// # Errors
/// [`LinkError`]: the link is of no use any more.
pub(super) async fn log_in(link: &mut Link, sasl: &SaslEndpoint) -> Result<Option<Instant>, LinkError> {
    let state = sasl.state();
    let login = state.config.login.as_ref().ok_or(LinkError::NoLogin)?;
    let asked = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(login.mechanism.name()));
    let answer = link.exchange(HANDSHAKE_VERSION, &asked).await?;
    if answer.error_code != 0 {
        let enabled = answer.mechanisms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(refused(login, format!("it takes {enabled}")));
    }
    let began = Instant::now();
    let ours = |error: crate::security::sasl::ClientError| refused(login, error.to_string());
    let (mut client, mut message) = MechanismClient::begin(login, nonce()).map_err(ours)?;
    for _ in 0..MESSAGES {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        let answer = link.exchange(AUTHENTICATE_VERSION, &request).await?;
        if answer.error_code != 0 {
            let told = answer.error_message.map(|text| text.to_string());
            return Err(refused(login, told.unwrap_or_else(|| format!("error {}", answer.error_code))));
        }
        match client.answer(&answer.auth_bytes).map_err(ours)? {
            Some(next) => message = next,
            None => return Ok(renewal(began, answer.session_lifetime_ms)),
        }
    }
    Err(refused(login, "the exchange does not end".to_owned()))
}

fn renewal(began: Instant, lifetime_ms: i64) -> Option<Instant> {
    let lifetime = u64::try_from(lifetime_ms).ok().filter(|millis| *millis > 0).map(Duration::from_millis)?;
    began.checked_add(lifetime / 100 * RENEWED_AFTER)
}

fn refused(login: &Login, reason: String) -> LinkError {
    LinkError::Refused { user: login.user.clone(), mechanism: login.mechanism.name(), reason }
}
