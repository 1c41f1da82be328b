//! AddPartitionsToTxn (KIP-98, KIP-890): what a transaction will write to; from version 4 on other brokers ask, for several
//! transactions at once, to add or only to verify.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        add_partitions_to_txn_response::{
            AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
        },
    },
};
use varve_metadata::{
    image::{ClusterImage, is_internal},
    model::PartitionIndex,
};

use super::transaction_support::{named, producer, transaction_error, versioned_error};
use crate::{
    coordinator::transactions::{AddPartitions, TopicPartition, TransactionError, TransactionVersion},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version that asks for several transactions.
const BATCHES_SINCE: i16 = 4;
/// First version whose clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let version = context.api_version;
    // Newer versions are for brokers among themselves.
    if version >= BATCHES_SINCE
        && let Err(refused) = broker.access(context).require(Operation::ClusterAction, Resource::Cluster)
    {
        return AddPartitionsToTxnResponse::default().with_error_code(refused.code());
    }
    if version < BATCHES_SINCE {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let results = one_transaction(broker, context, transaction).await.topic_results;
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results.push(one_transaction(broker, context, transaction).await);
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
}

async fn one_transaction(
    broker: &Broker,
    context: &RequestContext,
    transaction: AddPartitionsToTxnTransaction,
) -> AddPartitionsToTxnResult {
    let version = context.api_version;
    let topics = &transaction.topics;
    let faults = Faults::find(broker, context, &transaction);
    let results = if let Some(refused) = faults.transaction {
        echo(topics, refused.code())
    } else if topics.iter().any(|topic| topic.partitions.iter().any(|index| faults.of(topic, *index).is_some())) {
        // One that cannot be added keeps all from being added.
        results(topics, |topic, index| faults.of(topic, index).unwrap_or(ResponseError::OperationNotAttempted).code())
    } else if transaction.verify_only {
        verify(broker, &transaction)
    } else {
        let added = add(broker, version, &transaction).await;
        let code = added.map_or_else(|error| versioned_error(error, version, FENCED_SINCE).code(), |()| 0);
        echo(topics, code)
    };
    AddPartitionsToTxnResult::default().with_transactional_id(transaction.transactional_id).with_topic_results(results)
}

/// What keeps partitions from being added before their coordinator is asked.
struct Faults {
    image: Arc<ClusterImage>,
    /// The caller may not use the transactional id.
    transaction: Option<ResponseError>,
    /// The caller may not write to these.
    forbidden: BTreeSet<String>,
}

impl Faults {
    fn find(broker: &Broker, context: &RequestContext, transaction: &AddPartitionsToTxnTransaction) -> Faults {
        let mut faults = Faults { image: broker.metadata.image(), transaction: None, forbidden: BTreeSet::new() };
        // Of brokers more was asked before.
        if context.api_version < BATCHES_SINCE {
            let access = broker.access(context);
            let id = Resource::TransactionalId(&transaction.transactional_id);
            faults.transaction = access.require(Operation::Write, id).err();
            let names = transaction.topics.iter().map(|topic| topic.name.as_str());
            let names: BTreeSet<&str> = names.filter(|_| faults.transaction.is_none()).collect();
            let is_forbidden = |name: &&str| !access.allows(Operation::Write, Resource::Topic(name));
            // Offsets are added by a request of their own; nobody asks who may write the cluster's own topics.
            let asked = names.into_iter().filter(|name| !is_internal(name));
            faults.forbidden = asked.filter(is_forbidden).map(str::to_owned).collect();
            // Kafka names them as forbidden all the same.
            let internal = transaction.topics.iter().filter(|topic| is_internal(&topic.name));
            faults.forbidden.extend(internal.map(|topic| topic.name.to_string()));
        }
        faults
    }

    fn of(&self, topic: &AddPartitionsToTxnTopic, index: i32) -> Option<ResponseError> {
        if self.forbidden.contains(topic.name.as_str()) {
            return Some(ResponseError::TopicAuthorizationFailed);
        }
        let known = PartitionIndex::from_wire(index).and_then(|index| self.image.topic(&topic.name)?.partition(index));
        known.is_none().then_some(ResponseError::UnknownTopicOrPartition)
    }
}

async fn add(
    broker: &Broker,
    version: i16,
    transaction: &AddPartitionsToTxnTransaction,
) -> Result<(), TransactionError> {
    let (producer, epoch) = producer(transaction.producer_id.0, transaction.producer_epoch);
    let request = AddPartitions {
        transactional_id: transaction.transactional_id.to_string(),
        producer,
        epoch,
        partitions: partitions(transaction),
        // Brokers ask in the name of producers of the second generation.
        version: if version < BATCHES_SINCE { TransactionVersion::Fixed } else { TransactionVersion::Raising },
    };
    broker.transactions.add(broker, request).await
}

fn verify(broker: &Broker, transaction: &AddPartitionsToTxnTransaction) -> Vec<AddPartitionsToTxnTopicResult> {
    let (producer, epoch) = producer(transaction.producer_id.0, transaction.producer_epoch);
    let id = transaction.transactional_id.as_str();
    let verdicts = || {
        if id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let seat = broker.transactions.seat(broker, id)?;
        seat.read(|shard| shard.verify(id, producer, epoch, partitions(transaction)))?
    };
    match verdicts() {
        Err(error) => {
            let code = transaction_error(error).code();
            results(&transaction.topics, |_, _| code)
        }
        Ok(verdicts) => {
            let verdicts: BTreeMap<TopicPartition, _> = verdicts.into_iter().collect();
            results(&transaction.topics, |topic, index| {
                let at = PartitionIndex::from_wire(index)
                    .map(|partition| TopicPartition { topic: topic.name.to_string(), partition });
                let verdict = at.and_then(|at| verdicts.get(&at).copied()).unwrap_or(Ok(()));
                verdict.map_or_else(|error| transaction_error(error).code(), |()| 0)
            })
        }
    }
}

fn partitions(transaction: &AddPartitionsToTxnTransaction) -> BTreeSet<TopicPartition> {
    named(transaction.topics.iter().map(|topic| (&topic.name, topic.partitions.as_slice())))
}

/// The same code for every partition, as often as it is named.
fn echo(topics: &[AddPartitionsToTxnTopic], code: i16) -> Vec<AddPartitionsToTxnTopicResult> {
    let of_topic = |topic: &AddPartitionsToTxnTopic| {
        let each = topic.partitions.iter().map(|&index| {
            AddPartitionsToTxnPartitionResult::default().with_partition_index(index).with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(each.collect())
    };
    topics.iter().map(of_topic).collect()
}

/// A code for every partition named, each once.
fn results(
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&AddPartitionsToTxnTopic, i32) -> i16,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let of_topic = |topic: &AddPartitionsToTxnTopic| {
        let mut seen = BTreeSet::new();
        let each = topic.partitions.iter().filter(|index| seen.insert(**index));
        let each = each.map(|&index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code(topic, index))
        });
        let each = each.collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name.clone()).with_results_by_partition(each)
    };
    topics.iter().map(of_topic).collect()
}
