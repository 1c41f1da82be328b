//! InitProducerId (KIP-98, KIP-360): an identity for an idempotent producer.

use kafka_protocol::{
    error::ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId},
};
use tracing::warn;

use crate::server::{
    Broker, RequestContext,
    authorizer::{Access, Operation, Resource, ResourceType},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Err(error) = authorize(&broker.access(context), &request) {
        return refused(error);
    }
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return refused(ResponseError::InvalidRequest);
    }
    match request.transactional_id.as_ref().map(|id| id.as_str()) {
        Some("") => return refused(ResponseError::InvalidRequest),
        // There is no transaction coordinator. Anything that a client retries would make it wait for one; this ends
        // the producer at once, with the name of what is missing.
        Some(_) => return refused(ResponseError::UnsupportedVersion),
        None => {}
    }
    // An identity that the producer had before is not looked at, as in Kafka: it gets a new one, with epoch 0.
    match broker.producer_ids.next(&broker.metadata).await {
        Ok(id) => {
            InitProducerIdResponse::default().with_producer_id(WireProducerId(id.to_wire())).with_producer_epoch(0)
        }
        Err(error) => {
            warn!(%error, "no producer id to hand out");
            refused(ResponseError::CoordinatorLoadInProgress)
        }
    }
}

/// A transactional producer must be allowed to be the one that it says it is; any other to write something somewhere.
fn authorize(access: &Access<'_>, request: &InitProducerIdRequest) -> Result<(), ResponseError> {
    if let Some(id) = &request.transactional_id {
        return access.require(Operation::Write, Resource::TransactionalId(id));
    }
    if access.allows_on_some(Operation::Write, ResourceType::Topic) {
        return Ok(());
    }
    access.require(Operation::IdempotentWrite, Resource::Cluster)
}

fn refused(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(WireProducerId(-1))
        .with_producer_epoch(-1)
}
