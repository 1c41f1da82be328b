//! InitProducerId (KIP-98, KIP-360): an identity for an idempotent or transactional producer.

use kafka_protocol::{
    error::ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId},
};
use tracing::warn;

use super::transaction_support::{producer, versioned_error};
use crate::{
    coordinator::transactions::{Answer, InitProducer, ProducerIdentity, TransactionError},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource, ResourceType},
    },
};

/// First version whose clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 4;

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
    if request.transactional_id.is_some() {
        return match introduce(broker, &request).await {
            Ok(ProducerIdentity { id, epoch }) => InitProducerIdResponse::default()
                .with_producer_id(WireProducerId(id.to_wire()))
                .with_producer_epoch(epoch.to_wire()),
            Err(error) => refused(versioned_error(error, context.api_version, FENCED_SINCE)),
        };
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

/// A transactional producer goes to its coordinator.
async fn introduce(broker: &Broker, request: &InitProducerIdRequest) -> Result<ProducerIdentity, TransactionError> {
    let transactional_id = request.transactional_id.as_ref().map(|id| id.to_string()).unwrap_or_default();
    if transactional_id.is_empty() {
        return Err(TransactionError::InvalidRequest);
    }
    let expected = match producer(request.producer_id.0, request.producer_epoch) {
        _ if request.producer_id.0 == -1 => None,
        (Some(id), Some(epoch)) => Some(ProducerIdentity { id, epoch }),
        // Nobody ever had such an identity.
        _ => return Err(TransactionError::ProducerFenced),
    };
    let seat = broker.transactions.seat(broker, &transactional_id)?;
    let init = InitProducer { transactional_id, timeout_ms: request.transaction_timeout_ms, expected };
    match seat.ask(|shard, now, id, effects| shard.init_producer(now, id, init, effects)).await? {
        Answer::Producer(outcome) => outcome,
        _ => Err(TransactionError::Unexpected),
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
