//! DescribeDelegationToken (KIP-48, KIP-373): tokens of those who ask, and those that they may see.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
        describe_delegation_token_request::DescribeDelegationTokenOwner,
        describe_delegation_token_response::{DescribedDelegationToken, DescribedDelegationTokenRenewer},
    },
    protocol::StrBytes,
};
use varve_metadata::model::{DelegationToken, Principal};

use super::delegation_tokens;
use crate::{
    security::Secret,
    server::{
        Broker, RequestContext,
        authentication::token_password,
        authorizer::{Operation, Resource},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeDelegationTokenRequest,
) -> DescribeDelegationTokenResponse {
    match describe(broker, context, request) {
        Ok(tokens) => DescribeDelegationTokenResponse::default().with_tokens(tokens),
        Err(error) => DescribeDelegationTokenResponse::default().with_error_code(error.code()),
    }
}

fn describe(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeDelegationTokenRequest,
) -> Result<Vec<DescribedDelegationToken>, ResponseError> {
    delegation_tokens::check_allowed(context)?;
    let secret = delegation_tokens::secret(broker)?;
    let named = |owner: &DescribeDelegationTokenOwner| {
        delegation_tokens::principal(&owner.principal_type, &owner.principal_name)
    };
    let owners: Option<Vec<Principal>> = request.owners.map(|owners| owners.iter().filter_map(named).collect());
    let access = broker.access(context);
    let shows = |token: &&DelegationToken| {
        let asked = owners.as_ref().is_none_or(|owners| owners.iter().any(|one| token.may_be_renewed_by(one)));
        let own = || token.may_be_renewed_by(&context.principal);
        let allowed = || {
            access.shows(Operation::Describe, Resource::DelegationToken(&token.id))
                || access.shows(Operation::DescribeTokens, Resource::User(&token.owner.to_string()))
        };
        asked && (own() || allowed())
    };
    let image = broker.metadata.image();
    Ok(image.delegation_tokens().values().filter(shows).map(|token| shown(token, secret, context)).collect())
}

fn shown(token: &DelegationToken, secret: &Secret, context: &RequestContext) -> DescribedDelegationToken {
    let (kind, name) = delegation_tokens::words(&token.owner);
    let renewers = token.renewers.iter().map(|renewer| {
        let (kind, name) = delegation_tokens::words(renewer);
        DescribedDelegationTokenRenewer::default().with_principal_type(kind).with_principal_name(name)
    });
    let shown = DescribedDelegationToken::default()
        .with_principal_type(kind)
        .with_principal_name(name)
        .with_issue_timestamp(token.issued_ms)
        .with_expiry_timestamp(token.expires_ms)
        .with_max_timestamp(token.max_ms)
        .with_token_id(StrBytes::from_string(token.id.clone()))
        .with_hmac(token_password(secret, &token.id).into())
        .with_renewers(renewers.collect());
    if context.api_version < 3 {
        return shown;
    }
    let (kind, name) = delegation_tokens::words(&token.requester);
    shown.with_token_requester_principal_type(kind).with_token_requester_principal_name(name)
}
