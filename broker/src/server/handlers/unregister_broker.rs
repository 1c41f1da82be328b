//! UnregisterBroker: a broker that is gone for good is forgotten.

use kafka_protocol::{
    error::ResponseError,
    messages::{UnregisterBrokerRequest, UnregisterBrokerResponse},
    protocol::StrBytes,
};
use varve_metadata::controller::UnregisterError;

use super::admin_errors::{metadata_error, plain};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let refusal = match broker.access(context).require(Operation::Alter, Resource::Cluster) {
        Err(error) => Some(plain(error)),
        Ok(()) => unregister(broker, request.broker_id.0).await,
    };
    let answer = UnregisterBrokerResponse::default().with_error_message(None);
    match refusal {
        None => answer,
        Some((error, message)) => {
            answer.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)))
        }
    }
}

async fn unregister(broker: &Broker, id: i32) -> Option<(ResponseError, String)> {
    match broker.metadata.unregister_broker(id).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some((code(&error), error.to_string())),
        Err(error) => Some(metadata_error(&error)),
    }
}

fn code(error: &UnregisterError) -> ResponseError {
    match error {
        UnregisterError::NotRegistered(_) => ResponseError::BrokerIdNotRegistered,
        UnregisterError::Running(_) => ResponseError::InvalidRequest,
    }
}
