//! A link says who this node is: at its start, and again before its session ends (KIP-368).

use std::time::{Duration, SystemTime};

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
        sasl::{Mechanism, MechanismClient, SaslEndpoint},
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
/// Where to look when the other broker does not take name and password.
const PASSWORDS: &str = "username and password in sasl.jaas.config of the listener that brokers use, \
                         sasl.mechanism.inter.broker.protocol, and that the other broker knows the user";
/// The same of a token.
const TOKENS: &str = "sasl.oauthbearer.jwks.endpoint.url, sasl.oauthbearer.expected.audience and …expected.issuer of the \
                      listener that brokers use, by which the other broker judges tokens, and \
                      sasl.mechanism.inter.broker.protocol";

/// Logs in as the listener's settings say now; gives the time at which to do so again, if the session ends.
///
/// # Errors
/// [`LinkError`]: the link is of no use any more.
pub(super) async fn log_in(link: &mut Link, sasl: &SaslEndpoint) -> Result<Option<Instant>, LinkError> {
    let state = sasl.state();
    let (mechanism, begun) = match state.config.login.as_ref().ok_or(LinkError::NoLogin)? {
        Login::Password(login) => {
            let (mechanism, who) = (login.mechanism.in_general(), login.user.clone());
            (mechanism, Attempt { who, see: PASSWORDS, begun: MechanismClient::begin(login, nonce()) })
        }
        Login::Token(source) => {
            // Before a word is said: it may take a while, where none is good.
            let token = sasl.own_tokens().current(source, now_ms).await?;
            let begun = MechanismClient::begin_with_token(&token, &source.extensions);
            let attempt = Attempt { who: token.subject.clone(), see: TOKENS, begun };
            let ended = attempt.carry_through(link, Mechanism::OauthBearer).await;
            if let Err(LinkError::Refused { .. }) = ended {
                sasl.own_tokens().doubt(&token, source);
            }
            return ended;
        }
    };
    begun.carry_through(link, mechanism).await
}

/// A login that has begun.
struct Attempt {
    /// Whom this node says that it is.
    who: String,
    /// Where to look when it is refused.
    see: &'static str,
    /// The first message, and who knows the others.
    begun: (MechanismClient, Vec<u8>),
}

impl Attempt {
    async fn carry_through(self, link: &mut Link, mechanism: Mechanism) -> Result<Option<Instant>, LinkError> {
        let Attempt { who, see, begun: (mut client, mut message) } = self;
        let refused =
            |reason: String| LinkError::Refused { user: who.clone(), mechanism: mechanism.name(), reason, see };
        let asked = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism.name()));
        let answer = link.exchange(HANDSHAKE_VERSION, &asked).await?;
        if answer.error_code != 0 {
            let enabled = answer.mechanisms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(refused(format!("it takes {enabled}")));
        }
        let began = Instant::now();
        for _ in 0..MESSAGES {
            let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
            let answer = link.exchange(AUTHENTICATE_VERSION, &request).await?;
            if answer.error_code != 0 {
                let told = answer.error_message.map(|text| text.to_string());
                return Err(refused(told.unwrap_or_else(|| format!("error {}", answer.error_code))));
            }
            match client.answer(&answer.auth_bytes).map_err(|error| refused(error.to_string()))? {
                Some(next) => message = next,
                None => return Ok(renewal(began, answer.session_lifetime_ms)),
            }
        }
        Err(refused("the exchange does not end".to_owned()))
    }
}

fn renewal(began: Instant, lifetime_ms: i64) -> Option<Instant> {
    let lifetime = u64::try_from(lifetime_ms).ok().filter(|millis| *millis > 0).map(Duration::from_millis)?;
    began.checked_add(lifetime / 100 * RENEWED_AFTER)
}

/// Milliseconds since 1970, as tokens count.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
