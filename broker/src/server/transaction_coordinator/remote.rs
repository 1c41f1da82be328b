//! What coordinators of transactions and leaders of partitions ask of each other where they are different brokers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddPartitionsToTxnRequest, ApiKey, TopicName, WriteTxnMarkersResponse,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    },
    protocol::{Decodable, StrBytes},
};
use varve_metadata::model::{BrokerId, PartitionIndex};

use super::{Admission, admission::Verified};
use crate::{
    coordinator::{
        EndOfTransaction,
        transactions::{MarkerOutcome, TopicPartition, TransactionError},
    },
    links::{LinkError, Links},
    wire::later::write_txn_markers,
};

/// The version in which brokers ask to add partitions, or to verify them (KIP-890).
const ADD_VERSION: i16 = 5;
/// The version of markers that tells the generation of a transaction (KIP-1228), and its word for "raises the epoch".
const MARKERS_VERSION: i16 = 2;
const RAISING: i8 = 2;

/// Asks the coordinator `to` about partitions: to add them to the transaction, or only whether they are part of it.
pub(super) async fn ask_coordinator(
    links: &Links,
    to: BrokerId,
    admission: Admission<'_>,
    partitions: &BTreeSet<TopicPartition>,
    verify_only: bool,
) -> Result<Verified, TransactionError> {
    let topics = by_topic(partitions)
        .into_iter()
        .map(|(name, partitions)| AddPartitionsToTxnTopic::default().with_name(name).with_partitions(partitions));
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(StrBytes::from_string(admission.transactional_id.to_owned()).into())
        .with_producer_id(admission.producer.to_wire().into())
        .with_producer_epoch(admission.epoch.to_wire())
        .with_verify_only(verify_only)
        .with_topics(topics.collect());
    let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
    let response = links.ask(to, ADD_VERSION, &request).await.map_err(|error| {
        tracing::warn!(coordinator = %to, %error, "a coordinator of transactions cannot be asked");
        TransactionError::CoordinatorNotAvailable
    })?;
    if response.error_code == ResponseError::ClusterAuthorizationFailed.code() {
        let error = &LinkError::NotAllowed as &dyn std::error::Error;
        tracing::warn!(coordinator = %to, error, "a coordinator of transactions does not answer");
        return Err(TransactionError::CoordinatorNotAvailable);
    }
    if response.error_code != 0 {
        return Err(transaction_error(response.error_code));
    }
    let topics = response.results_by_transaction.into_iter().flat_map(|result| result.topic_results);
    let each = topics.flat_map(|topic| {
        let name = topic.name.to_string();
        topic.results_by_partition.into_iter().filter_map(move |result| {
            let partition = PartitionIndex::from_wire(result.partition_index)?;
            let verdict = match result.partition_error_code {
                0 => Ok(()),
                code => Err(transaction_error(code)),
            };
            Some((TopicPartition { topic: name.clone(), partition }, verdict))
        })
    });
    let answered: BTreeMap<TopicPartition, _> = each.collect();
    // Of which nothing was said is not allowed.
    let verdict = |at: &TopicPartition| answered.get(at).copied().unwrap_or(Err(TransactionError::Unexpected));
    Ok(partitions.iter().map(|at| (at.clone(), verdict(at))).collect())
}

/// Has the leader `to` write the markers of its partitions.
pub(super) async fn write_markers(
    links: &Links,
    to: BrokerId,
    end: &EndOfTransaction,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, MarkerOutcome>, LinkError> {
    let topics = by_topic(partitions)
        .into_iter()
        .map(|(name, partitions)| WritableTxnMarkerTopic::default().with_name(name).with_partition_indexes(partitions));
    let marker = WritableTxnMarker::default()
        .with_producer_id(end.producer.to_wire().into())
        .with_producer_epoch(end.epoch.to_wire())
        .with_transaction_result(end.committed)
        .with_topics(topics.collect())
        .with_coordinator_epoch(end.coordinator_epoch);
    let mut body = BytesMut::new();
    let version = if end.raises_epoch { RAISING } else { 0 };
    let malformed = |error: anyhow::Error| LinkError::Malformed(error.to_string());
    write_txn_markers::encode_request(&mut body, &marker, version).map_err(malformed)?;
    let mut answer = links.ask_raw(to, ApiKey::WriteTxnMarkers, MARKERS_VERSION, &body).await?;
    // The answer of version 2 is that of version 1.
    let response = WriteTxnMarkersResponse::decode(&mut answer, 1).map_err(malformed)?;
    let not_allowed = ResponseError::ClusterAuthorizationFailed.code();
    let results = response.markers.iter().flat_map(|marker| &marker.topics).flat_map(|topic| &topic.partitions);
    if results.into_iter().any(|result| result.error_code == not_allowed) {
        return Err(LinkError::NotAllowed);
    }
    let topics = response.markers.into_iter().flat_map(|marker| marker.topics);
    let each = topics.flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().filter_map(move |result| {
            let partition = PartitionIndex::from_wire(result.partition_index)?;
            Some((TopicPartition { topic: name.clone(), partition }, marker_outcome(result.error_code)))
        })
    });
    Ok(each.collect())
}

fn by_topic(partitions: &BTreeSet<TopicPartition>) -> BTreeMap<TopicName, Vec<i32>> {
    let mut topics: BTreeMap<TopicName, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        let name = TopicName(StrBytes::from_string(at.topic.clone()));
        topics.entry(name).or_default().push(at.partition.to_wire());
    }
    topics
}

fn marker_outcome(code: i16) -> MarkerOutcome {
    match ResponseError::try_from_code(code) {
        None => MarkerOutcome::Written,
        Some(ResponseError::InvalidProducerEpoch | ResponseError::ProducerFenced) => MarkerOutcome::ProducerFenced,
        Some(ResponseError::TransactionCoordinatorFenced) => MarkerOutcome::CoordinatorFenced,
        // Among them a partition that is not there (yet): the image tells when it is gone for good.
        Some(_) => MarkerOutcome::Unavailable,
    }
}

/// What another broker said in Kafka's codes.
fn transaction_error(code: i16) -> TransactionError {
    match ResponseError::try_from_code(code) {
        Some(ResponseError::InvalidRequest) => TransactionError::InvalidRequest,
        Some(ResponseError::CoordinatorNotAvailable) => TransactionError::CoordinatorNotAvailable,
        Some(ResponseError::NotCoordinator) => TransactionError::NotCoordinator,
        Some(ResponseError::CoordinatorLoadInProgress) => TransactionError::LoadInProgress,
        Some(ResponseError::ConcurrentTransactions) => TransactionError::ConcurrentTransactions,
        Some(ResponseError::ProducerFenced | ResponseError::InvalidProducerEpoch) => TransactionError::ProducerFenced,
        Some(ResponseError::InvalidProducerIdMapping) => TransactionError::InvalidProducerIdMapping,
        Some(ResponseError::InvalidTxnState) => TransactionError::InvalidState,
        Some(ResponseError::TransactionAbortable) => TransactionError::Abortable,
        Some(ResponseError::TransactionalIdNotFound) => TransactionError::NotFound,
        // It has not heard of the topic yet.
        Some(ResponseError::UnknownTopicOrPartition | ResponseError::OperationNotAttempted) => {
            TransactionError::CoordinatorNotAvailable
        }
        Some(_) | None => TransactionError::Unexpected,
    }
}
