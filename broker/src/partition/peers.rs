//! The other brokers, as far as a partition needs them.

use std::{sync::Arc, time::Duration};

use varve_metadata::{
    image::ClusterImage,
    model::{BrokerId, LeaderEpoch, PartitionId},
};
use varve_replication::{Incarnation, Proposal};

use super::Partition;

/// What partitions with replicas on several brokers ask for.
pub trait Peers: Send + Sync {
    /// Monotonic time since the node started.
    fn now(&self) -> Duration;
    /// The life of a broker that is registered, not fenced and not about to stop.
    fn active(&self, broker: BrokerId) -> Option<Incarnation>;
    /// The life of a broker that is registered, fenced or about to stop or not.
    fn registered(&self, broker: BrokerId) -> Option<Incarnation>;
    /// `replica.lag.time.max.ms`.
    fn lag_max(&self) -> Duration;
    /// Whether an image that shows this broker as a leader means this life of it.
    fn may_lead(&self, image: &ClusterImage) -> bool;
    /// Puts the proposal to the store, in the background, and tells the partition by [`Partition::answered`]. Called with locks
    /// of the partition held.
    fn propose(&self, partition: &Arc<Partition>, proposal: Proposal);
    /// The partition is to be fetched from `leader`, in `epoch`, until something else is said of it.
    fn follow(&self, partition: &Arc<Partition>, leader: BrokerId, epoch: LeaderEpoch);
    /// It is not to be fetched (any more).
    fn forget(&self, id: PartitionId);
    /// So many connections to each leader are fetched over from now on (`num.replica.fetchers`).
    fn set_fetchers(&self, fetchers: u32);
}

/// For a node that agrees with itself: every partition has one replica.
#[derive(Clone, Copy, Debug)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
    fn active(&self, _: BrokerId) -> Option<Incarnation> {
        None
    }
    fn registered(&self, _: BrokerId) -> Option<Incarnation> {
        None
    }
    fn lag_max(&self) -> Duration {
        Duration::MAX
    }
    fn may_lead(&self, _: &ClusterImage) -> bool {
        true
    }
    fn propose(&self, _: &Arc<Partition>, _: Proposal) {}
    fn follow(&self, _: &Arc<Partition>, _: BrokerId, _: LeaderEpoch) {}
    fn forget(&self, _: PartitionId) {}
    fn set_fetchers(&self, _: u32) {}
}
