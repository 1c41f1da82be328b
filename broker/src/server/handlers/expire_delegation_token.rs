//! ExpireDelegationToken (KIP-48): another end, or, with a negative time, the end now.

use kafka_protocol::{
    error::ResponseError,
    messages::{ExpireDelegationTokenRequest, ExpireDelegationTokenResponse},
};
use varve_metadata::controller::TokenChange;

use super::{
    admin_errors::metadata_error,
    delegation_tokens::{self, NO_TIME},
};
use crate::server::{Broker, RequestContext, wall_clock};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ExpireDelegationTokenRequest,
) -> ExpireDelegationTokenResponse {
    let response = ExpireDelegationTokenResponse::default();
    if let Err(error) = delegation_tokens::check_allowed(context) {
        return response.with_error_code(error.code()).with_expiry_timestamp_ms(NO_TIME);
    }
    match expire(broker, context, &request).await {
        Ok(expires_ms) => response.with_expiry_timestamp_ms(expires_ms),
        Err(error) => response.with_error_code(error.code()),
    }
}

async fn expire(
    broker: &Broker,
    context: &RequestContext,
    request: &ExpireDelegationTokenRequest,
) -> Result<i64, ResponseError> {
    let secret = delegation_tokens::secret(broker)?;
    let (image, now_ms) = (broker.metadata.image(), wall_clock().to_wire());
    let token = delegation_tokens::find(&image, secret, &request.hmac);
    let token = token.ok_or(ResponseError::DelegationTokenNotFound)?;
    if !token.may_be_renewed_by(&context.principal) {
        return Err(ResponseError::DelegationTokenOwnerMismatch);
    }
    let id = token.id.clone();
    let (at_ms, change) = if request.expiry_time_period_ms < 0 {
        (now_ms, TokenChange::Remove { id })
    } else if token.is_expired(now_ms) {
        return Err(ResponseError::DelegationTokenExpired);
    } else {
        let at_ms = token.max_ms.min(now_ms.saturating_add(request.expiry_time_period_ms));
        (at_ms, TokenChange::Expire { id, at_ms })
    };
    match broker.metadata.alter_delegation_tokens(&[change]).await {
        Ok(made) if made.first().is_some_and(|made| *made) => Ok(at_ms),
        Ok(_) => Err(ResponseError::DelegationTokenNotFound),
        Err(error) => Err(metadata_error(&error).0),
    }
}
