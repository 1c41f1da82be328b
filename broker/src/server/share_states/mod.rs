//! The keepers of share partitions (KIP-932): one [`Shard`] per partition of `__share_group_state` that this node leads, and
//! the way to ask whichever broker leads the one that is meant.

mod prune;
mod remote;

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::future;
use tokio::time::sleep;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::{ClusterImage, TopicChange},
    model::{BrokerId, PartitionIndex, TopicId, TopicName},
};

use super::{
    Broker,
    auto_create::create_missing,
    seats::{self, Office, SeatError, Seats, TopicTerms},
};
use crate::{
    config::ShareStateTopicConfig,
    coordinator::share_state::{
        Answer, KeptState, SHARE_STATE_TOPIC, Shard, ShareKey, ShareStateConfig, ShareStateError, StateRequest,
    },
    links::Links,
    partition::{Partition, Partitions},
};

/// Pauses before a keeper that is not there, or not there yet, is asked again.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// A partition of `__share_group_state` that this node leads, and the share partitions in it.
pub(crate) type Seat = seats::Seat<ShareStateOffice>;

/// The share partitions that this node keeps.
#[derive(Debug)]
pub struct ShareStates {
    node: BrokerId,
    seats: Arc<Seats<ShareStateOffice>>,
    links: Arc<Links>,
    prune_interval: Duration,
}

/// What makes a keeper of a seat.
pub(crate) struct ShareStateOffice {
    rules: Arc<ShareStateConfig>,
    metadata: Arc<ClusterMetadata>,
}

impl Office for ShareStateOffice {
    type Machine = Shard;

    fn machine(&self, _partition: &Partition) -> Shard {
        Shard::new(self.rules.clone())
    }

    fn refresh(&self, machine: &mut Shard) {
        // Whoever kept them before had heard of their topics, and so has this node, which leads since.
        let image = self.metadata.image();
        machine.forget_topics(&|topic| image.topic_by_id(topic).is_none());
    }

    fn perform(self: &Arc<Self>, _seat: &Arc<Seat>, order: Infallible) {
        match order {}
    }

    fn loaded(&self, partition: PartitionIndex, machine: &Shard) {
        if !machine.is_empty() {
            tracing::info!(%partition, share_partitions = machine.len(), "loaded the state of share partitions");
        }
    }
}

impl From<SeatError> for ShareStateError {
    fn from(error: SeatError) -> ShareStateError {
        match error {
            SeatError::Loading => ShareStateError::LoadInProgress,
            SeatError::NotHere => ShareStateError::NotCoordinator,
        }
    }
}

impl ShareStates {
    /// Keeps the share partitions whose partitions of `__share_group_state` are led here.
    pub(crate) fn new(
        settings: ShareStateTopicConfig,
        node: BrokerId,
        metadata: Arc<ClusterMetadata>,
        partitions: Arc<Partitions>,
        links: Arc<Links>,
    ) -> Arc<ShareStates> {
        let rules =
            ShareStateConfig { updates_per_snapshot: settings.updates_per_snapshot, cold_after: settings.cold_after };
        let terms = TopicTerms {
            name: SHARE_STATE_TOPIC,
            partitions: settings.partitions,
            codec: settings.codec,
            load_bytes: settings.load_bytes,
        };
        let office = Arc::new(ShareStateOffice { rules: Arc::new(rules), metadata });
        let seats = Arc::new(Seats::new(terms, office, partitions));
        Arc::new(ShareStates { node, seats, links, prune_interval: settings.prune_interval })
    }

    /// The partition of `__share_group_state` that holds the share partition: of the topic as it is, or as it will be made.
    pub(crate) fn partition_of(&self, image: &ClusterImage, key: &str) -> PartitionIndex {
        self.seats.partition_of(image, key)
    }

    /// The seat that keeps the share partition. One that is not loaded yet is found, and says so itself.
    ///
    /// # Errors
    /// [`ShareStateError::NotCoordinator`] if this node does not lead its partition.
    pub(crate) fn seat(&self, broker: &Broker, key: &ShareKey) -> Result<Arc<Seat>, ShareStateError> {
        Ok(self.seats.find(&broker.metadata.image(), &key.text())?)
    }

    /// Asks the keeper of a share partition, wherever it is, until it is there. What is kept is the answer to
    /// [`StateRequest::Read`] alone.
    ///
    /// # Errors
    /// What the keeper says against it, or that there is none.
    pub(crate) async fn ask(
        &self,
        broker: &Broker,
        key: &ShareKey,
        request: StateRequest,
    ) -> Result<Option<KeptState>, ShareStateError> {
        for pause in PAUSES {
            match self.ask_once(broker, key, request.clone()).await {
                Err(error) if error.may_pass() && !broker.shutdown.is_cancelled() => sleep(pause).await,
                answer => return answer,
            }
        }
        self.ask_once(broker, key, request).await
    }

    /// Asks many, side by side; answers are in the order of the questions.
    pub(crate) async fn ask_each(
        &self,
        broker: &Broker,
        questions: Vec<(ShareKey, StateRequest)>,
    ) -> Vec<Result<Option<KeptState>, ShareStateError>> {
        let asked = questions.into_iter().map(|(key, request)| async move { self.ask(broker, &key, request).await });
        future::join_all(asked).await
    }

    async fn ask_once(
        &self,
        broker: &Broker,
        key: &ShareKey,
        request: StateRequest,
    ) -> Result<Option<KeptState>, ShareStateError> {
        match self.keeper(broker, key).await? {
            keeper if keeper == self.node => self.ask_here(broker, key, request).await,
            keeper => remote::ask(&self.links, keeper, key, request).await,
        }
    }

    /// Asks the keeper of a share partition, which is to be this node.
    ///
    /// # Errors
    /// What the keeper says against it; [`ShareStateError::NotCoordinator`] if it is another.
    pub(crate) async fn ask_here(
        &self,
        broker: &Broker,
        key: &ShareKey,
        request: StateRequest,
    ) -> Result<Option<KeptState>, ShareStateError> {
        let seat = self.seat(broker, key)?;
        let key = key.clone();
        match seat.ask(|shard, now, id, effects| shard.ask(now, id, key, request, effects)).await? {
            Answer::Read(kept) => kept.map(Some),
            Answer::Done(done) => done.map(|()| None),
        }
    }

    /// What is kept of a share partition; `None` if nothing is.
    ///
    /// # Errors
    /// There is no keeper now.
    pub(crate) async fn summary(&self, broker: &Broker, key: &ShareKey) -> Result<Option<KeptState>, ShareStateError> {
        match self.keeper(broker, key).await? {
            keeper if keeper == self.node => self.summary_here(broker, key),
            keeper => remote::summary(&self.links, keeper, key).await,
        }
    }

    /// The same, if this node is the keeper.
    ///
    /// # Errors
    /// It is not, or not yet.
    pub(crate) fn summary_here(&self, broker: &Broker, key: &ShareKey) -> Result<Option<KeptState>, ShareStateError> {
        Ok(self.seat(broker, key)?.read(|shard| shard.read(key).cloned())?)
    }

    /// The broker that keeps a share partition. The topic is made if it is missing.
    async fn keeper(&self, broker: &Broker, key: &ShareKey) -> Result<BrokerId, ShareStateError> {
        if broker.metadata.image().topic(SHARE_STATE_TOPIC).is_none()
            && let Ok(name) = TopicName::parse(SHARE_STATE_TOPIC)
        {
            create_missing(broker, &[name]).await;
        }
        let image = broker.metadata.image();
        let topic = image.topic(SHARE_STATE_TOPIC).ok_or(ShareStateError::CoordinatorNotAvailable)?;
        let (_, partition) =
            topic.partition(self.partition_of(&image, &key.text())).ok_or(ShareStateError::CoordinatorNotAvailable)?;
        partition.leader.ok_or(ShareStateError::CoordinatorNotAvailable)
    }

    /// Follows the cluster until `broker` stops: loads what this node comes to lead, forgets topics that are deleted, and
    /// deletes what says nothing any more.
    pub async fn follow(self: Arc<Self>, broker: Arc<Broker>) {
        let (metadata, stop, seats) = (broker.metadata.clone(), broker.shutdown.clone(), self.seats.clone());
        let pruning = prune::prune(Arc::downgrade(&broker), self.prune_interval, stop.clone());
        drop((broker, self));
        let following = seats.follow(metadata, stop, |seats, changes| {
            let deleted = changes.iter().filter_map(|change| match change {
                TopicChange::Deleted(topic) => Some(topic.id),
                TopicChange::Created(_) | TopicChange::Altered { .. } => None,
            });
            let deleted: std::collections::BTreeSet<TopicId> = deleted.collect();
            if deleted.is_empty() {
                return;
            }
            for seat in seats.all() {
                // One that loads forgets them when it is done.
                let _ = seat.step(|shard, now, effects| shard.topics_deleted(now, &deleted, effects));
            }
        });
        future::join(following, pruning).await;
    }

    /// Every seat of this node; those that were not asked for yet start to load.
    pub(super) fn all_seats(&self) -> Vec<Arc<Seat>> {
        self.seats.all()
    }
}

impl std::fmt::Debug for ShareStateOffice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShareStateOffice").field("rules", &self.rules).finish_non_exhaustive()
    }
}
