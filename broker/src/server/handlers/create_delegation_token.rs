//! CreateDelegationToken (KIP-48, KIP-373).

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{CreateDelegationTokenRequest, CreateDelegationTokenResponse},
    protocol::StrBytes,
};
use varve_metadata::{
    controller::TokenChange,
    model::{DelegationToken, Principal, TopicId},
};

use super::{
    admin_errors::metadata_error,
    delegation_tokens::{self, NO_TIME},
};
use crate::server::{
    Broker, RequestContext,
    authentication::token_password,
    authorizer::{Operation, Resource},
    wall_clock,
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: CreateDelegationTokenRequest,
) -> CreateDelegationTokenResponse {
    let requester = &context.principal;
    let named = request.owner_principal_name.as_deref().filter(|name| !name.is_empty());
    let owner = match named {
        Some(name) => delegation_tokens::principal(request.owner_principal_type.as_deref().unwrap_or_default(), name),
        None => Some(requester.clone()),
    };
    // A principal without a type is nobody's, and so never the one who asks.
    let shown = owner.clone().unwrap_or_else(|| Principal::user(named.unwrap_or_default()));
    let response = answer_for(context, &shown);
    let early = |error: ResponseError| {
        let response = response.clone().with_error_code(error.code());
        response.with_issue_timestamp_ms(NO_TIME).with_expiry_timestamp_ms(NO_TIME).with_max_timestamp_ms(NO_TIME)
    };
    if let Err(error) = delegation_tokens::check_allowed(context) {
        return early(error);
    }
    if shown != *requester
        && let Err(error) = broker.access(context).require(Operation::CreateTokens, Resource::User(&shown.to_string()))
    {
        return early(error);
    }
    match create(broker, requester, owner, &request).await {
        Ok((token, password)) => response
            .with_issue_timestamp_ms(token.issued_ms)
            .with_expiry_timestamp_ms(token.expires_ms)
            .with_max_timestamp_ms(token.max_ms)
            .with_token_id(StrBytes::from_string(token.id))
            .with_hmac(password.into()),
        Err(error) => response.with_error_code(error.code()),
    }
}

fn answer_for(context: &RequestContext, owner: &Principal) -> CreateDelegationTokenResponse {
    let (kind, name) = delegation_tokens::words(owner);
    let response = CreateDelegationTokenResponse::default().with_principal_type(kind).with_principal_name(name);
    if context.api_version < 3 {
        return response;
    }
    let (kind, name) = delegation_tokens::words(&context.principal);
    response.with_token_requester_principal_type(kind).with_token_requester_principal_name(name)
}

async fn create(
    broker: &Broker,
    requester: &Principal,
    owner: Option<Principal>,
    request: &CreateDelegationTokenRequest,
) -> Result<(DelegationToken, Vec<u8>), ResponseError> {
    let secret = delegation_tokens::secret(broker)?;
    let owner = owner.ok_or(ResponseError::InvalidPrincipalType)?;
    let renewers = request.renewers.iter().map(|renewer| match renewer.principal_type.as_str() {
        Principal::USER => Ok(Principal::user(&renewer.principal_name)),
        _ => Err(ResponseError::InvalidPrincipalType),
    });
    let renewers = renewers.collect::<Result<Vec<_>, _>>()?;
    let config = &broker.config.delegation_tokens;
    let issued_ms = wall_clock().to_wire();
    let longest = millis(config.max_lifetime);
    let lifetime = if request.max_lifetime_ms > 0 { longest.min(request.max_lifetime_ms) } else { longest };
    let max_ms = issued_ms.saturating_add(lifetime);
    let expires_ms = max_ms.min(issued_ms.saturating_add(millis(config.expiry)));
    // Random, and written as Kafka writes all its ids.
    let id = TopicId::random().to_string();
    let password = token_password(secret, &id);
    let requester = requester.clone();
    let token = DelegationToken { id, owner, requester, renewers, issued_ms, expires_ms, max_ms };
    let made = broker.metadata.alter_delegation_tokens(&[TokenChange::Create(token.clone())]).await;
    made.map_err(|error| metadata_error(&error).0)?;
    Ok((token, password))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
