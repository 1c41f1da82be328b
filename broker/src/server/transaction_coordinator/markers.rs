//! Markers on their way into partitions, wherever those are led.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future;
use varve_log::local::TransactionTerms;
use varve_metadata::{cluster::ClusterMetadata, image::ClusterImage, model::BrokerId};

use super::remote::write_markers;
use crate::{
    coordinator::{
        Answer, AppendFailure, EndOfTransaction, GroupError, OFFSETS_TOPIC,
        transactions::{MarkerOutcome, Markers, TopicPartition},
    },
    links::Links,
    partition::{Appending, CommitError, LookupError, Partitions},
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
    pub(super) links: Arc<Links>,
    pub(super) partitions: Arc<Partitions>,
    pub(super) metadata: Arc<ClusterMetadata>,
    pub(super) groups: Arc<GroupCoordinator>,
}

impl MarkerWriter {
    /// Has the markers written by the leaders of their partitions, all side by side.
    pub(super) async fn write_all(&self, markers: &Markers) -> Vec<(TopicPartition, MarkerOutcome)> {
        let mut outcomes = Vec::with_capacity(markers.partitions.len());
        let (mut here, mut elsewhere) = (Vec::new(), BTreeMap::<BrokerId, BTreeSet<TopicPartition>>::new());
        for at in &markers.partitions {
            match self.leader(at) {
                Leader::Gone => outcomes.push((at.clone(), MarkerOutcome::Written)),
                Leader::Nobody => outcomes.push((at.clone(), MarkerOutcome::Unavailable)),
                Leader::Here => here.push(at),
                Leader::Elsewhere(leader) => drop(elsewhere.entry(leader).or_default().insert(at.clone())),
            }
        }
        let here = here.into_iter().map(|at| async move { (at.clone(), outcome(self.write(at, &markers.end).await)) });
        let asked = elsewhere.into_iter().map(|(leader, partitions)| self.ask(leader, &markers.end, partitions));
        let (here, elsewhere) = future::join(future::join_all(here), future::join_all(asked)).await;
        outcomes.extend(here);
        outcomes.extend(elsewhere.into_iter().flatten());
        outcomes
    }

    async fn ask(
        &self,
        leader: BrokerId,
        end: &EndOfTransaction,
        partitions: BTreeSet<TopicPartition>,
    ) -> Vec<(TopicPartition, MarkerOutcome)> {
        let written = tokio::select! {
            written = write_markers(&self.links, leader, end, &partitions) => written.unwrap_or_else(|error| {
                tracing::warn!(%leader, %error, "markers cannot be written by another broker yet");
                BTreeMap::new()
            }),
            // Whoever leads now is asked at once, and not after all the time that an answer may take.
            () = until_deposed(&self.metadata, leader, &partitions) => BTreeMap::new(),
        };
        let outcome = |at: &TopicPartition| written.get(at).copied().unwrap_or(MarkerOutcome::Unavailable);
        partitions.iter().map(|at| (at.clone(), outcome(at))).collect()
    }

    fn leader(&self, at: &TopicPartition) -> Leader {
        let image = self.metadata.image();
        let partition = image.topic(&at.topic).and_then(|topic| topic.partition(at.partition));
        match partition {
            // The topic was deleted, and its records with it.
            None => Leader::Gone,
            Some((_, partition)) if partition.leader == Some(self.node) => Leader::Here,
            Some((_, partition)) => partition.leader.map_or(Leader::Nobody, Leader::Elsewhere),
        }
    }

    /// Writes the marker to a partition that is led here, and returns once it is committed.
    ///
    /// # Errors
    /// [`MarkerError`]: it may be written again.
    pub(crate) async fn write(&self, at: &TopicPartition, end: &EndOfTransaction) -> Result<(), MarkerError> {
        let partition = self.partitions.led(&at.topic, at.partition).map_err(|error| match error {
            LookupError::NotLeader => MarkerError::NotLeader,
            LookupError::UnknownTopic | LookupError::UnknownPartition | LookupError::Offline => {
                MarkerError::UnknownPartition
            }
        })?;
        if at.topic == OFFSETS_TOPIC {
            return self.write_to_groups(at, end).await;
        }
        let now = wall_clock();
        let terms = TransactionTerms { guard: None, raises_epoch: end.raises_epoch };
        let epoch = partition.leader_epoch();
        let appended = partition
            .append_as(&marker_bytes(end, now), Appending::of_coordinator(epoch, terms), now)
            .map_err(|error| marker_error(append_failure(&error)))?;
        partition.committed_in(epoch, appended.end).await.map_err(|error| match error {
            CommitError::NotLeader => MarkerError::NotLeader,
            CommitError::Flush(_) => MarkerError::Storage,
        })
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

/// Returns once `leader` is fenced, or does not lead one of these partitions any more. Cancel-safe.
async fn until_deposed(metadata: &ClusterMetadata, leader: BrokerId, partitions: &BTreeSet<TopicPartition>) {
    let is_led = |image: &ClusterImage, at: &TopicPartition| {
        let partition = image.topic(&at.topic).and_then(|topic| topic.partition(at.partition));
        partition.is_some_and(|(_, partition)| partition.leader == Some(leader))
    };
    let is_over =
        |image: &Arc<ClusterImage>| !image.is_active(leader) || partitions.iter().any(|at| !is_led(image, at));
    // The sender lives as long as `metadata`, so waiting cannot fail.
    let _ = metadata.subscribe().wait_for(is_over).await;
}

impl std::fmt::Debug for MarkerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MarkerWriter").field("node", &self.node).finish_non_exhaustive()
    }
}

enum Leader {
    Gone,
    Here,
    Elsewhere(BrokerId),
    Nobody,
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
        AppendFailure::Unavailable => MarkerError::Storage,
        AppendFailure::NotLeader => MarkerError::NotLeader,
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use uuid::Uuid;
    use varve_metadata::{
        controller::{CreationDefaults, ManualPartition, NewTopic, Placement},
        image::BrokerImage,
        model::PartitionIndex,
        store::MemoryStore,
    };

    use super::*;

    #[tokio::test]
    async fn a_leader_is_waited_for_only_as_long_as_it_leads_and_is_not_fenced() {
        let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), BrokerId(1), BTreeMap::new());
        let metadata = metadata.await.unwrap();
        let leader = BrokerId(2);
        let endpoints = BTreeMap::new();
        let mut frozen = BrokerImage {
            id: leader,
            incarnation: Uuid::new_v4(),
            endpoints,
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        metadata.register(frozen.clone()).await.unwrap();
        let placement = Ok(Placement::Manual(vec![ManualPartition { index: 0, replicas: vec![2] }]));
        let topic = NewTopic { name: "t".to_owned(), placement, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
        let partitions = BTreeSet::from([TopicPartition { topic: "t".to_owned(), partition: PartitionIndex(0) }]);
        let mut deposed = Box::pin(until_deposed(&metadata, leader, &partitions));
        assert!(deposed.as_mut().now_or_never().is_none());
        assert!(until_deposed(&metadata, BrokerId(1), &partitions).now_or_never().is_some());
        frozen.fenced = true;
        metadata.register(frozen).await.unwrap();
        assert!(deposed.now_or_never().is_some());
    }
}
