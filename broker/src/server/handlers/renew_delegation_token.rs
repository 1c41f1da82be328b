//! RenewDelegationToken (KIP-48).

use kafka_protocol::{
    error::ResponseError,
    messages::{RenewDelegationTokenRequest, RenewDelegationTokenResponse},
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
    request: RenewDelegationTokenRequest,
) -> RenewDelegationTokenResponse {
    let response = RenewDelegationTokenResponse::default();
    if let Err(error) = delegation_tokens::check_allowed(context) {
        return response.with_error_code(error.code()).with_expiry_timestamp_ms(NO_TIME);
    }
    match renew(broker, context, &request).await {
        Ok(expires_ms) => response.with_expiry_timestamp_ms(expires_ms),
        Err(error) => response.with_error_code(error.code()),
    }
}

async fn renew(
    broker: &Broker,
    context: &RequestContext,
    request: &RenewDelegationTokenRequest,
) -> Result<i64, ResponseError> {
    let secret = delegation_tokens::secret(broker)?;
    let (image, now_ms) = (broker.metadata.image(), wall_clock().to_wire());
    let token = delegation_tokens::find(&image, secret, &request.hmac);
    let token = token.ok_or(ResponseError::DelegationTokenNotFound)?;
    if token.is_expired(now_ms) {
        return Err(ResponseError::DelegationTokenExpired);
    }
    if !token.may_be_renewed_by(&context.principal) {
        return Err(ResponseError::DelegationTokenOwnerMismatch);
    }
    let usual = i64::try_from(broker.config.delegation_tokens.expiry.as_millis()).unwrap_or(i64::MAX);
    let period = if request.renew_period_ms > 0 { usual.min(request.renew_period_ms) } else { usual };
    let at_ms = token.max_ms.min(now_ms.saturating_add(period));
    let change = TokenChange::Expire { id: token.id.clone(), at_ms };
    match broker.metadata.alter_delegation_tokens(&[change]).await {
        Ok(made) if made.first().is_some_and(|made| *made) => Ok(at_ms),
        Ok(_) => Err(ResponseError::DelegationTokenNotFound),
        Err(error) => Err(metadata_error(&error).0),
    }
}
