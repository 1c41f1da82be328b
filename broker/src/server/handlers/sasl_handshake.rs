//! SaslHandshake (KIP-43) where it has no place: on a listener without SASL, or in a session that does not end. Where it has
//! one, `server::authentication` takes it.

use kafka_protocol::{
    error::ResponseError,
    messages::{SaslHandshakeRequest, SaslHandshakeResponse},
};

use crate::server::{Broker, RequestContext};

pub(crate) async fn handle(
    _broker: &Broker,
    _context: &RequestContext,
    _request: SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ResponseError::IllegalSaslState.code())
}
