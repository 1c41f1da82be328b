//! What the requests of transactions share: errors in Kafka's codes, producers and partitions as our own.

use std::collections::BTreeSet;

use kafka_protocol::{error::ResponseError, messages::TopicName};
use varve_metadata::model::{PartitionIndex, ProducerEpoch, ProducerId};

use crate::{
    coordinator::transactions::{TopicPartition, TransactionError},
    server::transaction_coordinator::Denial,
};

/// The only place where a [`TransactionError`] becomes Kafka's.
pub(super) fn transaction_error(error: TransactionError) -> ResponseError {
    match error {
        TransactionError::InvalidRequest => ResponseError::InvalidRequest,
        TransactionError::InvalidTimeout => ResponseError::InvalidTransactionTimeout,
        TransactionError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        TransactionError::NotCoordinator => ResponseError::NotCoordinator,
        TransactionError::LoadInProgress => ResponseError::CoordinatorLoadInProgress,
        TransactionError::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
        TransactionError::ProducerFenced => ResponseError::ProducerFenced,
        TransactionError::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
        TransactionError::InvalidState => ResponseError::InvalidTxnState,
        TransactionError::Abortable => ResponseError::TransactionAbortable,
        TransactionError::NotFound => ResponseError::TransactionalIdNotFound,
        TransactionError::Unexpected => ResponseError::UnknownServerError,
    }
}

/// The same for a client that does not know PRODUCER_FENCED before `fenced_since`.
pub(super) fn versioned_error(error: TransactionError, version: i16, fenced_since: i16) -> ResponseError {
    match transaction_error(error) {
        ResponseError::ProducerFenced if version < fenced_since => ResponseError::InvalidProducerEpoch,
        error => error,
    }
}

/// Why a partition may not be written to in a transaction, where the request has words of its own for some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The partition is not led here.
    NotHere,
    /// Its log directory failed.
    Offline,
    /// Kafka's code.
    Code(ResponseError),
}

pub(super) fn denied(denial: Denial) -> Denied {
    match denial {
        Denial::NotHere => Denied::NotHere,
        Denial::Offline => Denied::Offline,
        Denial::InvalidEpoch => Denied::Code(ResponseError::InvalidProducerEpoch),
        Denial::Coordinator(error) => Denied::Code(transaction_error(error)),
    }
}

/// A producer's identity as requests have it; `None` for -1, which is nobody's.
pub(super) fn producer(id: i64, epoch: i16) -> (Option<ProducerId>, Option<ProducerEpoch>) {
    (ProducerId::from_wire(id), ProducerEpoch::from_wire(epoch))
}

/// Every partition that is named, once; numbers that no partition has are left out.
pub(super) fn named<'a>(topics: impl IntoIterator<Item = (&'a TopicName, &'a [i32])>) -> BTreeSet<TopicPartition> {
    let each = topics.into_iter().flat_map(|(topic, partitions)| {
        let numbers = partitions.iter().filter_map(|number| PartitionIndex::from_wire(*number));
        numbers.map(move |partition| TopicPartition { topic: topic.to_string(), partition })
    });
    each.collect()
}
