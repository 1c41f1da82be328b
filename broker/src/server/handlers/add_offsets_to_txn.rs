//! AddOffsetsToTxn (KIP-98): a transaction will commit offsets of a group.

use std::collections::BTreeSet;

use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::transaction_support::{producer, versioned_error};
use crate::{
    coordinator::{
        OFFSETS_TOPIC,
        transactions::{AddPartitions, TopicPartition, TransactionError, TransactionVersion},
    },
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version whose clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let access = broker.access(context);
    let required = access
        .require(Operation::Write, Resource::TransactionalId(&request.transactional_id))
        .and_then(|()| access.require(Operation::Read, Resource::Group(&request.group_id)));
    if let Err(refused) = required {
        return AddOffsetsToTxnResponse::default().with_error_code(refused.code());
    }
    let code = match add(broker, request).await {
        Ok(()) => 0,
        Err(error) => versioned_error(error, context.api_version, FENCED_SINCE).code(),
    };
    AddOffsetsToTxnResponse::default().with_error_code(code)
}

async fn add(broker: &Broker, request: AddOffsetsToTxnRequest) -> Result<(), TransactionError> {
    let transactional_id = request.transactional_id.to_string();
    let (producer, epoch) = producer(request.producer_id.0, request.producer_epoch);
    let partition = broker.groups.partition_of(&broker.metadata.image(), &request.group_id);
    let partitions = BTreeSet::from([TopicPartition { topic: OFFSETS_TOPIC.to_owned(), partition }]);
    // Producers of the second generation commit offsets without asking first.
    let version = TransactionVersion::Fixed;
    broker.transactions.add(broker, AddPartitions { transactional_id, producer, epoch, partitions, version }).await
}
