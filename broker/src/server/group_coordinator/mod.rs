//! Consumer groups on this node: one [`Shard`] per partition of `__consumer_offsets` that it leads.

mod metrics;

use std::{convert::Infallible, sync::Arc};

use varve_metadata::{
    image::{ClusterImage, TopicChange},
    model::{PartitionIndex, TopicId},
};

use super::{
    Broker,
    seats::{self, Office, SeatError, Seats, TopicTerms},
};
use crate::{
    config::GroupConfig as Settings,
    coordinator::{GroupConfig, GroupError, OFFSETS_TOPIC, Shard},
    partition::{Partition, Partitions},
};

/// A partition of `__consumer_offsets` that this node leads, and the groups in it.
pub(crate) type Seat = seats::Seat<GroupOffice>;

/// The groups that this node coordinates.
#[derive(Debug)]
pub struct GroupCoordinator {
    seats: Arc<Seats<GroupOffice>>,
}

/// What makes a coordinator of groups of a seat.
#[derive(Debug)]
pub(crate) struct GroupOffice {
    rules: Arc<GroupConfig>,
}

impl Office for GroupOffice {
    type Machine = Shard;

    fn machine(&self, _partition: &Partition) -> Shard {
        Shard::new(self.rules.clone())
    }

    fn perform(&self, _seat: &Arc<Seat>, order: Infallible) {
        match order {}
    }

    fn loaded(&self, partition: PartitionIndex, machine: &Shard) {
        let stats = machine.stats();
        if stats.groups > 0 {
            tracing::info!(%partition, groups = stats.groups, offsets = stats.offsets, "loaded groups");
        }
    }
}

impl From<SeatError> for GroupError {
    fn from(error: SeatError) -> GroupError {
        match error {
            SeatError::Loading => GroupError::LoadInProgress,
            SeatError::NotHere => GroupError::NotCoordinator,
        }
    }
}

impl GroupCoordinator {
    /// Coordinates the groups whose partitions of `__consumer_offsets` are among `partitions`.
    pub fn new(settings: Settings, partitions: Arc<Partitions>) -> Arc<GroupCoordinator> {
        let rules = GroupConfig {
            min_session_timeout: settings.min_session_timeout,
            max_session_timeout: settings.max_session_timeout,
            initial_rebalance_delay: settings.initial_rebalance_delay,
            max_size: settings.max_size as usize,
            offset_metadata_max: settings.offset_metadata_max_bytes as usize,
            offsets_retention: settings.offsets_retention,
            offsets_retention_check_interval: settings.offsets_retention_check_interval,
        };
        let terms = TopicTerms {
            name: OFFSETS_TOPIC,
            partitions: settings.offsets_partitions,
            codec: settings.offsets_codec,
            load_bytes: settings.offsets_load_bytes,
        };
        let office = Arc::new(GroupOffice { rules: Arc::new(rules) });
        Arc::new(GroupCoordinator { seats: Arc::new(Seats::new(terms, office, partitions)) })
    }

    /// The partition of `__consumer_offsets` that holds the group: of the topic as it is, or as it will be made.
    pub(crate) fn partition_of(&self, image: &ClusterImage, group_id: &str) -> PartitionIndex {
        self.seats.partition_of(image, group_id)
    }

    /// The seat that coordinates the group. One that is not loaded yet is found, and says so itself.
    ///
    /// # Errors
    /// [`GroupError::NotCoordinator`] if this node does not lead the group's partition.
    pub(crate) fn seat(&self, broker: &Broker, group_id: &str) -> Result<Arc<Seat>, GroupError> {
        Ok(self.seats.find(&broker.metadata.image(), group_id)?)
    }

    /// The seat of that partition of `__consumer_offsets`.
    ///
    /// # Errors
    /// [`GroupError::NotCoordinator`] if this node does not lead it.
    pub(crate) fn seat_at(&self, partition: PartitionIndex) -> Result<Arc<Seat>, GroupError> {
        Ok(self.seats.at(partition)?)
    }

    /// Every seat of this node; those that were not asked for yet start to load.
    pub(crate) fn all_seats(&self) -> Vec<Arc<Seat>> {
        self.seats.all()
    }

    /// Follows the cluster until `broker` stops: loads what this node comes to lead, forgets the offsets of topics that
    /// are deleted, and answers everyone who still waits when the node stops.
    pub async fn follow(self: Arc<Self>, broker: Arc<Broker>) {
        let (metadata, stop, seats) = (broker.metadata.clone(), broker.shutdown.clone(), self.seats.clone());
        drop((broker, self));
        seats.follow(metadata, stop, forget_topics).await;
    }
}

fn forget_topics(seats: &Seats<GroupOffice>, changes: &[TopicChange]) {
    let deleted: Vec<(String, TopicId)> = changes
        .iter()
        .filter_map(|change| match change {
            TopicChange::Deleted(topic) => Some((topic.name.to_string(), topic.id)),
            TopicChange::Created(_) | TopicChange::Altered { .. } => None,
        })
        .collect();
    if deleted.is_empty() {
        return;
    }
    for seat in seats.all() {
        // A shard that is loading shows offsets of topics that are gone until they expire.
        let _ = seat.step(|shard, now, effects| shard.topics_deleted(now, &deleted, effects));
    }
}
