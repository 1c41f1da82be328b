//! Markers on their way into partitions, wherever those are led.

use std::sync::Arc;

use futures::future;
use varve_log::local::{AppendOrigin, TransactionTerms};
use varve_metadata::{cluster::ClusterMetadata, model::BrokerId};

use crate::{
    coordinator::{
        Answer, AppendFailure, EndOfTransaction, GroupError, OFFSETS_TOPIC,
        transactions::{MarkerOutcome, Markers, TopicPartition},
    },
    partition::{LookupError, Partitions},
    server::{
        GroupCoordinator,
        seats::{append_failure, marker_bytes},
        wall_clock,
    },
};

/// Why a marker was not written to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MarkerError {
    /// The partition is not here (UNKNOWN_TOPIC_OR_PARTITION).
    #[error("the partition is not here")]
    UnknownPartition,
    /// The partition's groups are not loaded yet, or no longer coordinated here (NOT_LEADER_OR_FOLLOWER).
    #[error("the partition is not led here")]
    NotLeader,
    /// Its disk failed, or is full (KAFKA_STORAGE_ERROR).
    #[error("the partition's log cannot be written")]
    Storage,
    /// It knows a newer epoch of the producer (INVALID_PRODUCER_EPOCH).
    #[error("the producer's epoch is not the newest")]
    ProducerFenced,
    /// It knows a newer coordinator (TRANSACTION_COORDINATOR_FENCED).
    #[error("the coordinator has been replaced")]
    CoordinatorFenced,
    /// The log will never take it (UNKNOWN_SERVER_ERROR).
    #[error("the marker is refused")]
    Refused,
}

/// Writes markers.
pub(crate) struct MarkerWriter {
    pub(super) node: BrokerId,
    pub(super) partitions: Arc<Partitions>,
    pub(super) metadata: Arc<ClusterMetadata>,
    pub(super) groups: Arc<GroupCoordinator>,
}

impl MarkerWriter {
    /// Has the markers written by the leaders of their partitions, all side by side.
    pub(super) async fn write_all(&self, markers: &Markers) -> Vec<(TopicPartition, MarkerOutcome)> {
        let writes = markers.partitions.iter().map(|at| async move {
            let outcome = match self.leader(at) {
                Leader::Gone => MarkerOutcome::Written,
                Leader::Here => outcome(self.write(at, &markers.end).await),
                // There is no way to reach it (yet).
                Leader::Elsewhere => MarkerOutcome::Unavailable,
            };
            (at.clone(), outcome)
        });
        future::join_all(writes).await
    }

    fn leader(&self, at: &TopicPartition) -> Leader {
        let image = self.metadata.image();
        let partition = image.topic(&at.topic).and_then(|topic| topic.partition(at.partition));
        match partition {
            // The topic was deleted, and its records with it.
            None => Leader::Gone,
            Some((_, partition)) if partition.leader == Some(self.node) => Leader::Here,
            Some(_) => Leader::Elsewhere,
        }
    }

    /// Writes the marker to a partition that is led here, and returns once it is committed.
    ///
    /// # Errors
    /// [`MarkerError`]: it may be written again.
    pub(crate) async fn write(&self, at: &TopicPartition, end: &EndOfTransaction) -> Result<(), MarkerError> {
        let partition = self.partitions.find(&at.topic, at.partition).map_err(|error| match error {
            LookupError::UnknownTopic | LookupError::UnknownPartition | LookupError::Offline => {
                MarkerError::UnknownPartition
            }
        })?;
        if at.topic == OFFSETS_TOPIC {
            return self.write_to_groups(at, end).await;
        }
        let now = wall_clock();
        let terms = TransactionTerms { guard: None, raises_epoch: end.raises_epoch };
        let appended = partition
            .append_in(&marker_bytes(end, now), AppendOrigin::Coordinator, terms, now)
            .map_err(|error| marker_error(append_failure(&error)))?;
        partition.committed(appended.end).await.map_err(|_| MarkerError::Storage)
    }

    /// Offsets committed in the transaction become visible, or are forgotten, with the marker.
    async fn write_to_groups(&self, at: &TopicPartition, end: &EndOfTransaction) -> Result<(), MarkerError> {
        let seat = self.groups.seat_at(at.partition).map_err(group_error)?;
        let end = *end;
        let answer = seat.ask(|shard, now, id, effects| shard.end_transaction(now, id, end, effects)).await;
        match answer.map_err(GroupError::from) {
            Ok(Answer::TransactionEnded(outcome)) => outcome.map_err(group_error),
            Ok(_) => Err(MarkerError::Refused),
            Err(error) => Err(group_error(error)),
        }
    }
}

impl std::fmt::Debug for MarkerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkerWriter").field("node", &self.node).finish_non_exhaustive()
    }
}

enum Leader {
    Gone,
    Here,
    Elsewhere,
}

fn outcome(written: Result<(), MarkerError>) -> MarkerOutcome {
    match written {
        Ok(()) => MarkerOutcome::Written,
        Err(MarkerError::ProducerFenced) => MarkerOutcome::ProducerFenced,
        Err(MarkerError::CoordinatorFenced) => MarkerOutcome::CoordinatorFenced,
        Err(MarkerError::UnknownPartition | MarkerError::NotLeader | MarkerError::Storage | MarkerError::Refused) => {
            MarkerOutcome::Unavailable
        }
    }
}

fn marker_error(failure: AppendFailure) -> MarkerError {
    match failure {
        AppendFailure::Unavailable | AppendFailure::NotLeader => MarkerError::Storage,
        AppendFailure::ProducerFenced => MarkerError::ProducerFenced,
        AppendFailure::CoordinatorFenced => MarkerError::CoordinatorFenced,
        AppendFailure::NoTransaction | AppendFailure::Refused => MarkerError::Refused,
    }
}

fn group_error(error: GroupError) -> MarkerError {
    match error {
        GroupError::InvalidProducerEpoch => MarkerError::ProducerFenced,
        GroupError::TransactionCoordinatorFenced => MarkerError::CoordinatorFenced,
        GroupError::CoordinatorNotAvailable | GroupError::LoadInProgress | GroupError::NotCoordinator => {
            MarkerError::NotLeader
        }
        _ => MarkerError::Refused,
    }
}
