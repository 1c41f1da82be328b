//! DescribeTransactions (KIP-664): transactions in full.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TransactionalId,
    describe_transactions_response::{TopicData, TransactionState},
};
use varve_metadata::model::{ProducerEpoch, Timestamp};

use super::{group_support::text, transaction_support::transaction_error};
use crate::{
    coordinator::transactions::{DescribedTransaction, TransactionError},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let access = broker.access(context);
    let states = request.transactional_ids.into_iter().map(|id| {
        let required = access.require(Operation::Describe, Resource::TransactionalId(&id));
        match required.and_then(|()| describe(broker, &id).map_err(transaction_error)) {
            Ok(transaction) => described(&access, id, transaction),
            Err(error) => TransactionState::default().with_transactional_id(id).with_error_code(error.code()),
        }
    });
    let states = states.collect();
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn describe(broker: &Broker, transactional_id: &str) -> Result<DescribedTransaction, TransactionError> {
    if transactional_id.is_empty() {
        return Err(TransactionError::InvalidRequest);
    }
    let seat = broker.transactions.seat(broker, transactional_id)?;
    seat.read(|shard| shard.describe(transactional_id))?.ok_or(TransactionError::NotFound)
}

fn described(access: &Access<'_>, id: TransactionalId, transaction: DescribedTransaction) -> TransactionState {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for at in transaction.partitions {
        topics.entry(at.topic).or_default().push(at.partition.to_wire());
    }
    topics.retain(|topic, _| access.shows(Operation::Describe, Resource::Topic(topic)));
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| TopicData::default().with_topic(text(topic).into()).with_partitions(partitions));
    TransactionState::default()
        .with_transactional_id(id)
        .with_transaction_state(text(transaction.state.name()))
        .with_transaction_timeout_ms(transaction.timeout_ms)
        .with_transaction_start_time_ms(transaction.started.map_or(-1, Timestamp::to_wire))
        .with_producer_id(transaction.producer.to_wire().into())
        .with_producer_epoch(transaction.epoch.map_or(-1, ProducerEpoch::to_wire))
        .with_topics(topics.collect())
}
