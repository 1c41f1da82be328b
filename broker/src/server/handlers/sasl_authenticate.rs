//! SaslAuthenticate (KIP-152) where it has no place: behind a successful exchange, or on a listener without SASL.

use kafka_protocol::{
    error::ResponseError,
    messages::{SaslAuthenticateRequest, SaslAuthenticateResponse},
    protocol::StrBytes,
};

use crate::server::{Broker, RequestContext};

pub(crate) async fn handle(
    _broker: &Broker,
    _context: &RequestContext,
    _request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let text = "SaslAuthenticate request received after successful authentication";
    SaslAuthenticateResponse::default()
        .with_error_code(ResponseError::IllegalSaslState.code())
        .with_error_message(Some(StrBytes::from_static_str(text)))
}
