//! The exchange between a connection's first byte and its first request, and again when the session ends (KIP-43, KIP-152,
//! KIP-368). Without IO: frames go in, answers and the session come out.
//!
//! ```text
//!             ApiVersions                SaslHandshake v0            raw token …
//!  ┌───────┐ ──────────► ┌───────────┐ ──────────────────► ┌───────────────────────┐
//!  │ Start │             │ Handshake │                     │ Messages (framed: no) │ ──► session
//!  └───────┘ ──────────────────────────SaslHandshake v1──► │ Messages (framed: yes)│
//!                                                          └───────────────────────┘  SaslAuthenticate …
//! ```
//! What is not foreseen closes the connection, as in Kafka: after an answer where there is one that says why.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
        SaslHandshakeResponse,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use varve_metadata::{image::ClusterImage, model::Principal};

use super::{Found, Session};
use crate::{
    security::sasl::{Authenticated, Challenge, Mechanism, MechanismServer, Rejection, SaslState, Surroundings},
    server::{handlers::api_versions, telemetry::Peer},
    wire::{
        frame::{self, Header},
        key::ApiKey,
    },
};

/// One exchange.
#[derive(Debug)]
pub(in crate::server) struct Exchange {
    state: State,
    /// Who the client was before, if it says it again.
    before: Option<(Mechanism, Principal)>,
}

#[derive(Debug)]
enum State {
    /// ApiVersions or SaslHandshake may come.
    Start,
    /// Only SaslHandshake may come.
    Handshake,
    /// Messages of a mechanism come; inside of SaslAuthenticate if `framed`.
    Messages { server: MechanismServer, mechanism: Mechanism, framed: bool },
    /// The next message is refused in these words.
    Doomed(String),
}

/// What follows from one frame.
#[derive(Debug, Default)]
pub(in crate::server) struct Turn {
    /// What the client is told.
    pub(in crate::server) reply: Option<BytesMut>,
    /// Whom it is; the exchange is over.
    pub(in crate::server) found: Option<Found>,
}

/// Why the connection ends.
#[derive(Debug)]
pub(in crate::server) struct Refusal {
    /// What the client is told, after a while.
    pub(in crate::server) reply: Option<BytesMut>,
    /// What the log says. Nothing that the client sent is in it but the mechanism.
    pub(in crate::server) reason: String,
}

impl Refusal {
    fn silent(reason: impl Into<String>) -> Refusal {
        Refusal { reply: None, reason: reason.into() }
    }
}

impl Exchange {
    /// The first one of a connection.
    pub(in crate::server) fn new() -> Exchange {
        Exchange { state: State::Start, before: None }
    }

    /// One more, by a client that is known as in `session`.
    pub(in crate::server) fn again(session: &Session) -> Exchange {
        let before = session.mechanism.map(|mechanism| (mechanism, session.principal.clone()));
        Exchange { state: State::Handshake, before }
    }

    /// Takes the next frame of `client`, without its length.
    ///
    /// # Errors
    /// [`Refusal`]: the client is not let in, or does what it may not.
    pub(in crate::server) fn take(
        &mut self,
        mut frame: Bytes,
        sasl: &SaslState,
        around: &Surroundings<'_>,
        (image, client): (&ClusterImage, &Peer),
    ) -> Result<Turn, Refusal> {
        match &mut self.state {
            State::Start | State::Handshake => {
                let header = frame::parse_header(&mut frame).map_err(|error| Refusal::silent(error.to_string()))?;
                match header.api.key {
                    ApiKey::ApiVersions if matches!(self.state, State::Start) => {
                        self.versions(&header, frame, image, client)
                    }
                    ApiKey::SaslHandshake => self.handshake(&header, frame, sasl),
                    other => Err(Refusal::silent(format!("{other:?} came before the client was known"))),
                }
            }
            State::Doomed(reason) => Err(Refusal::silent(std::mem::take(reason))),
            State::Messages { server, mechanism, framed: false } => {
                let evaluated = server.evaluate(&frame, &sasl.users, around);
                let Challenge { message, authenticated } =
                    evaluated.map_err(|rejection| Refusal::silent(logged(*mechanism, &rejection)))?;
                let found = found(*mechanism, authenticated, &self.before, sasl, around);
                let mut reply = BytesMut::with_capacity(frame::LENGTH_BYTES + message.len());
                reply.put_u32(message.len() as u32);
                reply.put_slice(&message);
                Ok(Turn { reply: Some(reply), found: found.map_err(Refusal::silent)? })
            }
            State::Messages { server, mechanism, framed: true } => {
                let header = frame::parse_header(&mut frame).map_err(|error| Refusal::silent(error.to_string()))?;
                if header.api.key != ApiKey::SaslAuthenticate {
                    return Err(unexpected(&header));
                }
                let request: SaslAuthenticateRequest = decode(&header, frame)?;
                let told = |text: String| {
                    let response = SaslAuthenticateResponse::default()
                        .with_error_code(ResponseError::SaslAuthenticationFailed.code())
                        .with_error_message(Some(StrBytes::from_string(text)));
                    encode(&header, header.version, &response).ok()
                };
                let challenge = server.evaluate(&request.auth_bytes, &sasl.users, around).map_err(|rejection| {
                    let text = match &rejection {
                        Rejection::Told(text) => text.clone(),
                        // Not why: that could tell whether the user exists.
                        Rejection::Kept(_) => {
                            let again = if self.before.is_some() { "re-authentication" } else { "authentication" };
                            let mechanism = mechanism.name();
                            format!(
                                "Authentication failed during {again} due to invalid credentials with SASL mechanism \
                                 {mechanism}"
                            )
                        }
                    };
                    Refusal { reply: told(text), reason: logged(*mechanism, &rejection) }
                })?;
                let found = found(*mechanism, challenge.authenticated, &self.before, sasl, around);
                let found = found.map_err(|text| Refusal { reply: told(text.clone()), reason: text })?;
                let lifetime = found.as_ref().and_then(|found| found.lifetime).unwrap_or_default();
                let response = SaslAuthenticateResponse::default()
                    .with_auth_bytes(challenge.message.into())
                    .with_session_lifetime_ms(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
                Ok(Turn { reply: Some(encode(&header, header.version, &response)?), found })
            }
        }
    }

    fn versions(&mut self, header: &Header, body: Bytes, image: &ClusterImage, client: &Peer) -> Result<Turn, Refusal> {
        if !header.api.serves(header.version) {
            let reply = encode(header, 0, &api_versions::refusal(ResponseError::UnsupportedVersion))?;
            return Ok(Turn { reply: Some(reply), found: None });
        }
        let request: ApiVersionsRequest = decode(header, body)?;
        api_versions::note_software(client, header.version, &request);
        let response = api_versions::answer(image, header.version, &request);
        if response.error_code == 0 {
            self.state = State::Handshake;
        }
        Ok(Turn { reply: Some(encode(header, header.version, &response)?), found: None })
    }

    fn handshake(&mut self, header: &Header, body: Bytes, sasl: &SaslState) -> Result<Turn, Refusal> {
        let request: SaslHandshakeRequest = decode(header, body)?;
        let names = sasl.config.mechanisms.iter().map(|mechanism| StrBytes::from_static_str(mechanism.name()));
        let response = SaslHandshakeResponse::default().with_mechanisms(names.collect());
        let wanted = Mechanism::parse(&request.mechanism).filter(|wanted| sasl.config.mechanisms.contains(wanted));
        let Some(mechanism) = wanted else {
            let response = response.with_error_code(ResponseError::UnsupportedSaslMechanism.code());
            let reply = Some(encode(header, header.version, &response)?);
            return Err(Refusal { reply, reason: "the client wants a mechanism that is not enabled".into() });
        };
        self.state = match &self.before {
            Some((before, _)) if *before != mechanism => State::Doomed(format!(
                "SASL mechanism '{}' requested by client is not supported for re-authentication of mechanism '{}'",
                mechanism.name(),
                before.name()
            )),
            _ => State::Messages { server: MechanismServer::new(mechanism), mechanism, framed: header.version >= 1 },
        };
        Ok(Turn { reply: Some(encode(header, header.version, &response)?), found: None })
    }
}

/// The session that a mechanism has found out, if it has.
///
/// # Errors
/// In words for the client: it is somebody else than before.
fn found(
    mechanism: Mechanism,
    authenticated: Option<Authenticated>,
    before: &Option<(Mechanism, Principal)>,
    sasl: &SaslState,
    around: &Surroundings<'_>,
) -> Result<Option<Found>, String> {
    let Some(Authenticated { principal, by_token, expires_ms }) = authenticated else { return Ok(None) };
    if let Some((_, before)) = before
        && *before != principal
    {
        return Err(format!(
            "Cannot change principals during re-authentication from {}.{}: {}.{}",
            before.kind(),
            before.name(),
            principal.kind(),
            principal.name()
        ));
    }
    let of_credential = expires_ms.map(|end| Duration::from_millis(u64::try_from(end - around.now_ms).unwrap_or(0)));
    let of_listener = sasl.config.max_session.get(&mechanism).copied();
    let lifetime = match (of_credential, of_listener) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    Ok(Some(Found { principal, by_token, mechanism, lifetime }))
}

fn logged(mechanism: Mechanism, rejection: &Rejection) -> String {
    format!("{}: {rejection}", mechanism.name())
}

/// Another request where SaslAuthenticate belongs. Those that say in every version what is wrong are told so.
fn unexpected(header: &Header) -> Refusal {
    let code = ResponseError::IllegalSaslState.code();
    let reply = match header.api.key {
        ApiKey::SaslHandshake => {
            encode(header, header.version, &SaslHandshakeResponse::default().with_error_code(code)).ok()
        }
        ApiKey::ApiVersions if header.api.serves(header.version) => {
            let response = api_versions::refusal(ResponseError::IllegalSaslState);
            encode(header, header.version, &response).ok()
        }
        _ => None,
    };
    Refusal { reply, reason: format!("{:?} came in the middle of an authentication", header.api.key) }
}

fn decode<R: Decodable>(header: &Header, mut body: Bytes) -> Result<R, Refusal> {
    let (api, version) = (header.api, header.version);
    let malformed = || Refusal::silent(format!("{:?} version {version} cannot be read", api.key));
    if !api.serves(version) || api.shape.check(version, &body).is_err() {
        return Err(malformed());
    }
    R::decode(&mut body, version).map_err(|_| malformed())
}

fn encode<R: Encodable>(header: &Header, version: i16, response: &R) -> Result<BytesMut, Refusal> {
    let mut out = BytesMut::with_capacity(256);
    frame::encode_response(&mut out, header.api.key, version, header.correlation_id, response)
        .map_err(|error| Refusal::silent(error.to_string()))?;
    Ok(out)
}
