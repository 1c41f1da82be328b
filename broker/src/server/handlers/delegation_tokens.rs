//! What the four requests about delegation tokens (KIP-48, KIP-373) share.

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use subtle::ConstantTimeEq;
use varve_metadata::{
    image::ClusterImage,
    model::{DelegationToken, Principal},
};

use crate::{
    security::{Secret, SecurityProtocol},
    server::{Broker, RequestContext, authentication::token_password},
};

/// The time in answers that have none.
pub(super) const NO_TIME: i64 = -1;

/// Whether whoever asks may ask about tokens at all: somebody who is known, and by something better than a token.
///
/// # Errors
/// DELEGATION_TOKEN_REQUEST_NOT_ALLOWED.
pub(super) fn check_allowed(context: &RequestContext) -> Result<(), ResponseError> {
    let unknown = match context.protocol {
        SecurityProtocol::Plaintext => true,
        SecurityProtocol::Ssl => context.principal == Principal::anonymous(),
        SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl => false,
    };
    if context.by_token || unknown { Err(ResponseError::DelegationTokenRequestNotAllowed) } else { Ok(()) }
}

/// The secret that passwords of tokens are derived from.
///
/// # Errors
/// DELEGATION_TOKEN_AUTH_DISABLED without one.
pub(super) fn secret(broker: &Broker) -> Result<&Secret, ResponseError> {
    broker.config.delegation_tokens.secret.as_ref().ok_or(ResponseError::DelegationTokenAuthDisabled)
}

/// The token that has this password.
pub(super) fn find<'a>(image: &'a ClusterImage, secret: &Secret, password: &[u8]) -> Option<&'a DelegationToken> {
    let has = |token: &&DelegationToken| bool::from(token_password(secret, &token.id).ct_eq(password));
    image.delegation_tokens().values().find(has)
}

/// A principal of the wire.
pub(super) fn principal(kind: &str, name: &str) -> Option<Principal> {
    Principal::parse(&format!("{kind}:{name}"))
}

/// Kind and name, for the wire.
pub(super) fn words(principal: &Principal) -> (StrBytes, StrBytes) {
    (StrBytes::from_string(principal.kind().to_owned()), StrBytes::from_string(principal.name().to_owned()))
}
