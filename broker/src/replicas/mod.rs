//! Replication between brokers: what this node follows is fetched from its leaders, and what it leads has its ISR kept.
//!
//! ```text
//!  image ─► Storage ─ follow, forget ─► Replicas ─► one fetch task for each leader and number ─► Partition::replicate
//!                                          │                                │
//!  Partition ─ propose ────────────────────┴─► etcd, compare-and-set        └─ Fetch over a link, with a session (KIP-227)
//! ```
//! The rules are `varve_replication`'s; here are clocks, tasks and sockets.

#[cfg(test)]
mod arrange_test;
mod fetch_task;
mod metrics;
mod proposals;
mod throttle;
mod wire;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;
use uuid::Uuid;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::ClusterImage,
    model::{BrokerId, LeaderEpoch, PartitionId},
};
use varve_replication::{Incarnation, Proposal};

use crate::{
    config::ReplicationConfig,
    links::Links,
    partition::{Partition, Partitions, Peers},
};
use fetch_task::FetchTask;
use proposals::Proposals;

pub(crate) use metrics::IsrMetrics;
pub(crate) use throttle::{ThrottleMetrics, Throttles};

/// How often leaders look whether a follower lags, at least.
const TICK: Duration = Duration::from_millis(500);

/// A broker's life as fetches name it (KIP-903): a number that fits where Kafka has its broker epoch.
pub(crate) fn incarnation_of(life: Uuid) -> Incarnation {
    Incarnation((life.as_u128() as u64) >> 1)
}

/// What this node replicates.
pub(crate) struct Replicas {
    node: BrokerId,
    /// This life of it.
    life: Uuid,
    metadata: Arc<ClusterMetadata>,
    config: ReplicationConfig,
    links: Arc<Links>,
    throttles: Arc<Throttles>,
    changes: IsrMetrics,
    started: Instant,
    followed: Mutex<Followed>,
    /// How often `fetchers` has changed: each task then gives away what is another one's.
    arrangement: AtomicU64,
    proposals: Proposals,
    tasks: TaskTracker,
    stop: CancellationToken,
    this: Weak<Replicas>,
}

/// Which task fetches what.
struct Followed {
    /// Over how many connections to each leader.
    fetchers: u32,
    tasks: HashMap<Lane, Arc<FetchTask>>,
    places: HashMap<PartitionId, (Lane, LeaderEpoch)>,
}

/// A leader, and the number of one of the connections to it (`num.replica.fetchers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lane {
    leader: BrokerId,
    number: u64,
}

/// The connection over which a partition of `leader` is fetched, where there are `fetchers`.
fn lane_of(leader: BrokerId, id: PartitionId, fetchers: u32) -> Lane {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    Lane { leader, number: hasher.finish() % u64::from(fetchers.max(1)) }
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicas").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Replicas {
    /// For the broker `node` in its `life`. Tasks end when `stop` is cancelled.
    pub(crate) fn new(
        (node, life): (BrokerId, Uuid),
        metadata: Arc<ClusterMetadata>,
        config: ReplicationConfig,
        (links, throttles, changes): (Arc<Links>, Arc<Throttles>, IsrMetrics),
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Replicas> {
        let started = Instant::now();
        let followed = Followed { fetchers: config.fetchers, tasks: HashMap::new(), places: HashMap::new() };
        Arc::new_cyclic(|this| Replicas {
            node,
            life,
            metadata,
            config,
            links,
            throttles,
            changes,
            started,
            followed: Mutex::new(followed),
            arrangement: AtomicU64::new(0),
            proposals: Proposals::default(),
            tasks,
            stop,
            this: this.clone(),
        })
    }

    /// Lets leaders look at their followers until the node stops.
    pub(crate) async fn tick(self: Arc<Replicas>, partitions: Arc<Partitions>) {
        let every = (self.config.lag_max / 2).min(TICK).max(Duration::from_millis(10));
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            partitions.all().iter().for_each(|partition| partition.tick());
        }
    }

    /// Has `task`, between two exchanges, hand what another one is to fetch by now over to that, but for what it is still busy
    /// with. `false`: there is no such task any more.
    fn arrange(&self, task: &FetchTask) -> bool {
        let arrangement = self.arrangement.load(Ordering::Acquire);
        if task.is_arranged_for(arrangement) {
            return true;
        }
        let mut followed = self.followed.lock();
        let lane = task.lane;
        let fetchers = followed.fetchers;
        let (strays, is_whole) = task.give_away(|id| lane_of(lane.leader, id, fetchers) != lane);
        for (partition, epoch) in strays {
            let place = lane_of(lane.leader, partition.id(), fetchers);
            followed.places.insert(partition.id(), (place, epoch));
            self.task(&mut followed, place).follow(&partition, epoch);
        }
        if lane.number >= u64::from(fetchers.max(1)) {
            let goes_on = !task.is_empty();
            if !goes_on {
                followed.tasks.remove(&lane);
            }
            return goes_on;
        }
        if is_whole {
            // A later number of fetchers is a later arrangement.
            task.arranged_for(arrangement);
        }
        true
    }

    /// The task of `lane`, begun if there is none.
    fn task(&self, followed: &mut Followed, lane: Lane) -> Arc<FetchTask> {
        let task = followed.tasks.entry(lane).or_insert_with(|| {
            let task = Arc::new(FetchTask::new(lane, self.config.fetch_backoff));
            if let Some(this) = self.this.upgrade() {
                self.tasks.spawn(task.clone().run(this));
            }
            task
        });
        task.clone()
    }

    /// Whether this node is in the ISR of the partition, by what is known here.
    fn is_in_sync(&self, id: PartitionId) -> bool {
        let image = self.metadata.image();
        let partition = image.topic_by_id(id.topic).and_then(|topic| topic.partition(id.index));
        partition.is_some_and(|(_, partition)| partition.isr.contains(&self.node))
    }
}

impl Peers for Replicas {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn active(&self, broker: BrokerId) -> Option<Incarnation> {
        self.metadata.image().in_service(broker).map(incarnation_of)
    }

    fn registered(&self, broker: BrokerId) -> Option<Incarnation> {
        self.metadata.image().brokers().get(&broker).map(|broker| incarnation_of(broker.incarnation))
    }

    fn lag_max(&self) -> Duration {
        self.config.lag_max
    }

    fn may_lead(&self, image: &ClusterImage) -> bool {
        image.brokers().get(&self.node).is_some_and(|us| us.incarnation == self.life && !us.fenced)
    }

    fn propose(&self, partition: &Arc<Partition>, proposal: Proposal) {
        let Some(this) = self.this.upgrade() else { return };
        if self.proposals.add((partition.clone(), proposal)) {
            self.tasks.spawn(this.carry());
        }
    }

    fn follow(&self, partition: &Arc<Partition>, leader: BrokerId, epoch: LeaderEpoch) {
        let id = partition.id();
        let mut followed = self.followed.lock();
        let lane = lane_of(leader, id, followed.fetchers);
        match followed.places.get(&id).copied() {
            // Whichever connection it is: `arrange` changes that, when nothing is under way there.
            Some((known, of)) if known.leader == leader && of == epoch => return,
            Some((before, _)) if before != lane => {
                if let Some(task) = followed.tasks.get(&before) {
                    task.forget(id);
                }
            }
            Some(_) | None => {}
        }
        followed.places.insert(id, (lane, epoch));
        self.task(&mut followed, lane).follow(partition, epoch);
    }

    fn set_fetchers(&self, fetchers: u32) {
        let mut followed = self.followed.lock();
        if followed.fetchers == fetchers {
            return;
        }
        info!(fetchers, "what is followed goes to another number of connections");
        followed.fetchers = fetchers;
        self.arrangement.fetch_add(1, Ordering::Release);
        followed.tasks.values().for_each(|task| task.wake());
    }

    fn forget(&self, id: PartitionId) {
        let mut followed = self.followed.lock();
        if let Some((lane, _)) = followed.places.remove(&id)
            && let Some(task) = followed.tasks.get(&lane)
        {
            task.forget(id);
        }
    }
}
