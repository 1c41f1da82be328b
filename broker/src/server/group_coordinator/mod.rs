//! Consumer groups on this node: one [`Shard`] per partition of `__consumer_offsets` that it leads.

mod lag;
mod metrics;
mod picture;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, Weak},
};

use varve_metadata::{
    cluster::ClusterMetadata,
    image::{ClusterImage, TopicChange},
    model::{BrokerId, PartitionIndex},
};

pub(crate) use lag::LagMetrics;
pub(crate) use metrics::GroupMetrics;
use picture::{Surroundings, topics_change};

use super::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
    seats::{self, Office, SeatError, Seats, TopicTerms},
    wall_clock,
};
use crate::{
    config::GroupConfig as Settings,
    coordinator::{
        Asker, BeginShares, GroupConfig, GroupError, GroupOrder, OFFSETS_TOPIC, RegexJob, Shard, find_topics,
        records::ResolvedRegex,
        share_state::{ShareKey, ShareStateError, StateRequest},
    },
    partition::{Partition, Partitions},
};

/// A partition of `__consumer_offsets` that this node leads, and the groups in it.
pub(crate) type Seat = seats::Seat<GroupOffice>;

/// The groups that this node coordinates.
#[derive(Debug)]
pub struct GroupCoordinator {
    seats: Arc<Seats<GroupOffice>>,
    lags: lag::LastLags,
}

/// What makes a coordinator of groups of a seat.
#[derive(Debug)]
pub(crate) struct GroupOffice {
    rules: Arc<GroupConfig>,
    surroundings: Arc<Surroundings>,
    /// Who may see which topics; unknown until the coordinator follows the broker.
    broker: OnceLock<Weak<Broker>>,
}

impl Office for GroupOffice {
    type Machine = Shard;

    fn machine(&self, _partition: &Partition) -> Shard {
        Shard::new(self.rules.clone(), self.surroundings.picture())
    }

    fn refresh(&self, machine: &mut Shard) {
        machine.see(self.surroundings.picture());
    }

    fn perform(self: &Arc<Self>, seat: &Arc<Seat>, order: GroupOrder) {
        let (office, seat) = (self.clone(), seat.clone());
        match order {
            // Beside the path of requests: there may be many topics.
            GroupOrder::Resolve(RegexJob { group_id, patterns, asker }) => drop(tokio::spawn(async move {
                let found = office.find_topics(patterns, asker).await;
                let _ = seat.step(|shard, now, effects| shard.regexes_resolved(now, &group_id, found, effects));
            })),
            GroupOrder::BeginShares(job) => drop(tokio::spawn(async move {
                let Some(broker) = office.broker.get().and_then(Weak::upgrade) else { return };
                let all = begin_shares(&broker, &job).await.is_ok();
                let (group, partitions) = (&job.group_id, job.set());
                let _ = seat.step(|shard, now, effects| {
                    shard.shares_begun(now, None, group, partitions, all, effects);
                });
            })),
        }
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
    pub fn new(
        settings: Settings,
        node: BrokerId,
        metadata: Arc<ClusterMetadata>,
        partitions: Arc<Partitions>,
    ) -> Arc<GroupCoordinator> {
        let rules = GroupConfig {
            min_session_timeout: settings.min_session_timeout,
            max_session_timeout: settings.max_session_timeout,
            initial_rebalance_delay: settings.initial_rebalance_delay,
            max_size: settings.max_size as usize,
            offset_metadata_max: settings.offset_metadata_max_bytes as usize,
            offsets_retention: settings.offsets_retention,
            offsets_retention_check_interval: settings.offsets_retention_check_interval,
            consumer_max_size: settings.consumer.max_size as usize,
            consumer_assignors: settings.consumer.assignors.clone(),
            migration: settings.consumer.migration,
            regex_refresh_interval: settings.consumer.regex_refresh_interval,
            share_max_size: settings.share.max_size as usize,
            share_begin_retry: settings.share.begin_retry,
            streams_max_size: settings.streams.max_size as usize,
        };
        let terms = TopicTerms {
            name: OFFSETS_TOPIC,
            partitions: settings.offsets_partitions,
            codec: settings.offsets_codec,
            load_bytes: settings.offsets_load_bytes,
        };
        let surroundings = Arc::new(Surroundings { node, metadata, settings });
        let office = Arc::new(GroupOffice { rules: Arc::new(rules), surroundings, broker: OnceLock::new() });
        Arc::new(GroupCoordinator { seats: Arc::new(Seats::new(terms, office, partitions)), lags: Arc::default() })
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

    /// The broker that this coordinator follows, for what is done in a client's name after its answer. `None` before it follows
    /// one, and when the node has stopped.
    pub(crate) fn broker(&self) -> Option<Arc<Broker>> {
        self.seats.office().broker.get().and_then(Weak::upgrade)
    }

    /// Every seat of this node; those that were not asked for yet start to load.
    pub(crate) fn all_seats(&self) -> Vec<Arc<Seat>> {
        self.seats.all()
    }

    /// Follows the cluster until `broker` stops: loads what this node comes to lead, tells groups of topics that change,
    /// and answers everyone who still waits when the node stops.
    pub async fn follow(self: Arc<Self>, broker: Arc<Broker>) {
        let (metadata, stop, seats) = (broker.metadata.clone(), broker.shutdown.clone(), self.seats.clone());
        let office = seats.office().clone();
        // Set once: a coordinator follows one broker.
        let _ = office.broker.set(Arc::downgrade(&broker));
        drop((broker, self));
        seats.follow(metadata, stop, |seats, changes| office.show(seats, changes)).await;
    }
}

/// Has the keepers of share partitions begin, each as it is told.
///
/// # Errors
/// The first that did not; others may have.
pub(crate) async fn begin_shares(broker: &Broker, job: &BeginShares) -> Result<(), ShareStateError> {
    let each = job.partitions.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|(partition, start)| {
            let key = ShareKey { group: job.group_id.clone(), topic: *topic, partition: *partition };
            (key, StateRequest::Initialize { state_epoch: job.state_epoch, start: *start })
        })
    });
    let outcomes = broker.share_states.ask_each(broker, each.collect()).await;
    outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))
}

impl GroupOffice {
    fn show(&self, seats: &Seats<GroupOffice>, changes: &[TopicChange]) {
        let (picture, change) = (self.surroundings.picture(), topics_change(changes));
        for seat in seats.all() {
            // A shard that is loading shows offsets of topics that are gone until they expire.
            let picture = picture.clone();
            let _ = seat.step(|shard, now, effects| shard.cluster_changed(now, picture, &change, effects));
        }
    }

    /// Matches all topics that the asker may see against patterns. `None` if that came to no end.
    async fn find_topics(&self, patterns: BTreeSet<String>, asker: Asker) -> Option<BTreeMap<String, ResolvedRegex>> {
        let (picture, at) = (self.surroundings.picture(), wall_clock());
        let broker = self.broker.get().and_then(Weak::upgrade)?;
        let looking = tokio::task::spawn_blocking(move || {
            let context = RequestContext::of_background(asker.principal, asker.peer);
            let access = broker.access(&context);
            let sees = |topic: &str| access.shows(Operation::Describe, Resource::Topic(topic));
            find_topics(&patterns, picture.as_ref(), at, &sees)
        });
        looking.await.ok()
    }
}

#[cfg(test)]
mod tests;
