//! Batches of transactions in a Produce (KIP-98, KIP-890): who may write them, and where.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::{
    error::ResponseError,
    messages::produce_request::{ProduceRequest, TopicProduceData},
};
use tokio::time::Instant;
use varve_log::format::Attributes;
use varve_metadata::{
    image::{ClusterImage, is_internal},
    model::{PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicId, VerificationGuard},
};

use super::{
    produce_errors::Refusal,
    transaction_support::{Denied, denied},
};
use crate::{
    coordinator::transactions::{TopicPartition, TransactionError},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        transaction_coordinator::{Admission, Candidate, Denial, Generation, Verdict},
    },
};

/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_SINCE: i16 = 11;
/// First version that adds partitions to the transaction by itself.
const ADDING_SINCE: i16 = 12;
/// First version that names topics by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;
/// How long a partition is tried to be added, at most, whatever is configured (Kafka's `request.timeout.ms`).
const RETRY_LIMIT: Duration = Duration::from_secs(30);

const SEVERAL_PRODUCERS: &str = "Transactional records contained more than one producer ID";

/// The producer's part of a batch's header (magic 2).
const MAGIC: usize = 16;
const ATTRIBUTES: usize = 21;
const PRODUCER: usize = 43;
const EPOCH: usize = 51;
const SEQUENCE: usize = 53;

/// What the transaction's coordinator said of the partitions that a request writes to.
#[derive(Debug, Default)]
pub(super) struct Admissions(BTreeMap<TopicPartition, Verdict>, bool);

impl Admissions {
    /// What an append to the partition has to show.
    ///
    /// # Errors
    /// What the producer is told.
    pub(super) fn guard(&self, topic: &str, index: i32) -> Result<Option<VerificationGuard>, Refusal> {
        // Most requests have none.
        if self.0.is_empty() {
            return Ok(None);
        }
        let Some(partition) = PartitionIndex::from_wire(index) else { return Ok(None) };
        match self.0.get(&TopicPartition { topic: topic.to_owned(), partition }) {
            None | Some(Ok(None)) => Ok(None),
            Some(Ok(guard)) => Ok(*guard),
            Some(Err(denial)) => Err(refusal(*denial, self.1)),
        }
    }
}

/// The head of a batch that says that it is part of a transaction.
struct TransactionalHead {
    producer: Option<ProducerId>,
    epoch: Option<ProducerEpoch>,
    base_sequence: Option<Sequence>,
}

impl TransactionalHead {
    fn read(records: &[u8]) -> Option<TransactionalHead> {
        let attributes = i16::from_be_bytes(*records.get(ATTRIBUTES..)?.first_chunk()?);
        let is_transactional = Attributes::from_wire(attributes).is_some_and(Attributes::is_transactional);
        if records.get(MAGIC) != Some(&2) || !is_transactional {
            return None;
        }
        Some(TransactionalHead {
            producer: ProducerId::from_wire(i64::from_be_bytes(*records.get(PRODUCER..)?.first_chunk()?)),
            epoch: ProducerEpoch::from_wire(i16::from_be_bytes(*records.get(EPOCH..)?.first_chunk()?)),
            base_sequence: Sequence::from_wire(i32::from_be_bytes(*records.get(SEQUENCE..)?.first_chunk()?)),
        })
    }
}

/// Whether a batch of the request says that it is part of a transaction.
fn has_transactional(topics: &[TopicProduceData]) -> bool {
    let mut records = topics.iter().flat_map(|topic| &topic.partition_data).filter_map(|data| data.records.as_deref());
    records.any(|records| TransactionalHead::read(records).is_some())
}

/// Asks the transaction's coordinator about the partitions that `request` writes to; waits a little where a transaction before
/// this one is just ending.
///
/// # Errors
/// What every partition is told.
pub(super) async fn admit(
    broker: &Broker,
    context: &RequestContext,
    request: &ProduceRequest,
    topics: &[TopicProduceData],
) -> Result<Admissions, Refusal> {
    if !has_transactional(topics) {
        return Ok(Admissions::default());
    }
    // Nobody may write in the name of no transactional id.
    let forbidden = ResponseError::TransactionalIdAuthorizationFailed;
    let transactional_id = request.transactional_id.as_deref().ok_or(forbidden)?;
    let access = broker.access(context);
    access.require(Operation::Write, Resource::TransactionalId(transactional_id))?;
    let version = context.api_version;
    let image = broker.metadata.image();
    let mut writer: Option<(ProducerId, ProducerEpoch)> = None;
    let mut candidates = Vec::new();
    for topic in topics {
        // The cluster's own are refused later, and so is who may not write there.
        let is_open =
            |name: &String| !is_internal(name) && access.require(Operation::Write, Resource::Topic(name)).is_ok();
        let Some(name) = name_of(&image, version, topic).filter(is_open) else { continue };
        for data in &topic.partition_data {
            let head = data.records.as_deref().and_then(TransactionalHead::read);
            let Some((head, partition)) = head.zip(PartitionIndex::from_wire(data.index)) else { continue };
            // The log refuses a batch without a producer.
            let Some(identity) = head.producer.zip(head.epoch) else { continue };
            if *writer.get_or_insert(identity) != identity {
                let message = Some(SEVERAL_PRODUCERS.to_owned());
                return Err(Refusal { message, ..ResponseError::InvalidProducerIdMapping.into() });
            }
            let at = TopicPartition { topic: name.clone(), partition };
            candidates.push(Candidate { at, base_sequence: head.base_sequence });
        }
    }
    let Some((producer, epoch)) = writer else { return Ok(Admissions::default()) };
    let generation = match version {
        ADDING_SINCE.. => Generation::Adding,
        ABORTABLE_SINCE.. => Generation::Abortable,
        _ => Generation::First,
    };
    let admission = Admission { transactional_id, producer, epoch, generation };
    let is_adding = generation == Generation::Adding;
    let settings = &broker.transactions.settings;
    let deadline = Instant::now() + settings.add_retry_max.min(RETRY_LIMIT);
    loop {
        let verdicts = broker.transactions.admit(broker, admission, candidates.clone()).await;
        let concurrent = Err(Denial::Coordinator(TransactionError::ConcurrentTransactions));
        let is_ending = verdicts.values().any(|verdict| *verdict == concurrent);
        if !(is_adding && is_ending && Instant::now() < deadline) {
            return Ok(Admissions(verdicts, is_adding));
        }
        // Cheaper than to have the client send its records again.
        tokio::time::sleep(settings.add_retry_pause).await;
    }
}

fn name_of(image: &ClusterImage, version: i16, topic: &TopicProduceData) -> Option<String> {
    if version < TOPIC_IDS_SINCE {
        return Some(topic.name.to_string());
    }
    Some(image.topic_by_id(TopicId::from_wire(topic.topic_id)?)?.name.to_string())
}

/// What producers are told, in words that older ones retry.
fn refusal(denial: Denial, is_adding: bool) -> Refusal {
    let error = match denied(denial) {
        Denied::NotHere => ResponseError::NotLeaderOrFollower,
        Denied::Offline => ResponseError::KafkaStorageError,
        Denied::Code(error) => error,
    };
    let unverified = |name: &str| {
        let why = format!("Unable to verify the partition has been added to the transaction. Underlying error: {name}");
        Refusal { message: Some(why), ..ResponseError::NotEnoughReplicas.into() }
    };
    match error {
        ResponseError::InvalidTxnState => {
            Refusal { message: Some("Partition was not added to the transaction".to_owned()), ..error.into() }
        }
        ResponseError::CoordinatorLoadInProgress => unverified("COORDINATOR_LOAD_IN_PROGRESS"),
        ResponseError::CoordinatorNotAvailable => unverified("COORDINATOR_NOT_AVAILABLE"),
        ResponseError::NotCoordinator => unverified("NOT_COORDINATOR"),
        ResponseError::ConcurrentTransactions if !is_adding => unverified("CONCURRENT_TRANSACTIONS"),
        error => error.into(),
    }
}
