//! Consumer groups on this node: which shards it serves, where their log is, when they look at the clock.
//!
//! ```text
//!   handler ─► GroupCoordinator::seat(group) ─► Seat ─► Shard (pure) ─► Effect::Append ─► Partition ─► Shard::appended
//!      ▲                                                                                                   │
//!      └───────────────────────────────── oneshot ◄──────────────── Effect::Answer ◄────────────────────────┘
//! ```
//!
//! A [`Seat`] is one partition of `__consumer_offsets` that this node leads. It is loaded from its log before it serves;
//! meanwhile its groups answer that the coordinator is loading.

mod load;
mod metrics;
mod seat;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::Instant,
};

use parking_lot::RwLock;
use tokio::sync::Semaphore;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::{ClusterImage, TopicChange},
    model::{PartitionId, PartitionIndex, TopicId},
};

pub(crate) use seat::Seat;

use super::Broker;
use crate::{
    config::GroupConfig as Settings,
    coordinator::{GroupConfig, GroupError, OFFSETS_TOPIC, partition_for},
    partition::{Partition, Partitions},
};

/// Partitions loaded at the same time: each holds a buffer of `offsets.load.buffer.size`.
const PARALLEL_LOADS: usize = 4;

/// The groups that this node coordinates.
pub struct GroupCoordinator {
    settings: Settings,
    rules: Arc<GroupConfig>,
    partitions: Arc<Partitions>,
    /// `None` once the node stops: nobody takes a seat again.
    seats: RwLock<Option<HashMap<PartitionId, Arc<Seat>>>>,
    loads: Arc<Semaphore>,
    /// Where every shard's clock starts.
    started: Instant,
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
        Arc::new(GroupCoordinator {
            settings,
            rules: Arc::new(rules),
            partitions,
            seats: RwLock::new(Some(HashMap::new())),
            loads: Arc::new(Semaphore::new(PARALLEL_LOADS)),
            started: Instant::now(),
        })
    }

    /// The partition of `__consumer_offsets` that holds the group: of the topic as it is, or as it will be made.
    pub(crate) fn partition_of(&self, image: &ClusterImage, group_id: &str) -> PartitionIndex {
        let made = image.topic(OFFSETS_TOPIC).map(|topic| topic.partitions.len() as u32);
        let count = made.unwrap_or(self.settings.offsets_partitions);
        partition_for(group_id, NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
    }

    /// The seat that coordinates the group.
    ///
    /// # Errors
    /// [`GroupError::NotCoordinator`] if this node does not lead the group's partition. A seat that is not loaded yet is
    /// found, and says so itself.
    pub(crate) fn seat(self: &Arc<Self>, broker: &Broker, group_id: &str) -> Result<Arc<Seat>, GroupError> {
        let index = self.partition_of(&broker.metadata.image(), group_id);
        let partition = self.partitions.find(OFFSETS_TOPIC, index).map_err(|_| GroupError::NotCoordinator)?;
        self.take_seat(partition).ok_or(GroupError::NotCoordinator)
    }

    /// Every seat of this node; those that were not asked for yet start to load.
    pub(crate) fn all_seats(self: &Arc<Self>) -> Vec<Arc<Seat>> {
        let Ok(topic) = self.partitions.topic_named(OFFSETS_TOPIC) else { return Vec::new() };
        topic.partitions().into_iter().filter_map(|partition| self.take_seat(partition)).collect()
    }

    fn take_seat(self: &Arc<Self>, partition: Arc<Partition>) -> Option<Arc<Seat>> {
        let id = partition.id();
        if let Some(seat) = self.seats.read().as_ref()?.get(&id) {
            return Some(seat.clone());
        }
        let mut seats = self.seats.write();
        let new = || {
            let seat = Seat::new(partition, self.rules.clone(), self.settings.offsets_codec, self.started);
            let (loads, load_bytes) = (self.loads.clone(), self.settings.offsets_load_bytes);
            tokio::spawn(load::load(seat.clone(), loads, load_bytes));
            seat
        };
        Some(seats.as_mut()?.entry(id).or_insert_with(new).clone())
    }

    /// Follows the cluster until `broker` stops: loads what this node comes to lead, forgets the offsets of topics that
    /// are deleted, and answers everyone who still waits when the node stops.
    pub async fn follow(self: Arc<Self>, broker: Arc<Broker>) {
        let stop = broker.shutdown.clone();
        let (metadata, groups) = (broker.metadata.clone(), Arc::downgrade(&self));
        drop((broker, self));
        let following = follow(groups.clone(), metadata);
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
        }
        if let Some(groups) = groups.upgrade() {
            for seat in groups.seats.write().take().unwrap_or_default().values() {
                seat.close();
            }
        }
    }

    async fn show(self: &Arc<Self>, image: &ClusterImage, before: Option<&ClusterImage>) {
        self.partitions.caught_up(image.revision()).await;
        let changes = before.map(|before| image.changes_since(before)).unwrap_or_default();
        let deleted: Vec<(String, TopicId)> = changes
            .into_iter()
            .filter_map(|change| match change {
                TopicChange::Deleted(topic) => Some((topic.name.to_string(), topic.id)),
                TopicChange::Created(_) | TopicChange::Altered { .. } => None,
            })
            .collect();
        if let Some(seats) = self.seats.write().as_mut() {
            seats.retain(|id, seat| {
                let is_ours = self.partitions.get(*id).is_ok();
                if !is_ours {
                    seat.close();
                }
                is_ours
            });
        }
        for seat in self.all_seats() {
            if !deleted.is_empty() {
                seat.topics_deleted(&deleted);
            }
        }
    }
}

async fn follow(groups: Weak<GroupCoordinator>, metadata: Arc<ClusterMetadata>) {
    let mut images = metadata.subscribe();
    let mut before: Option<Arc<ClusterImage>> = None;
    loop {
        let image = images.borrow_and_update().clone();
        let Some(groups) = groups.upgrade() else { return };
        groups.show(&image, before.as_deref()).await;
        before = Some(image);
        drop(groups);
        if images.changed().await.is_err() {
            return;
        }
    }
}

impl std::fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCoordinator")
            .field("seats", &self.seats.read().as_ref().map(HashMap::len))
            .finish_non_exhaustive()
    }
}
