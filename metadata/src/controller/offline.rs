//! Replicas whose log directory failed, in a broker that lives on with its other directories (KIP-112, KIP-858).
//!
//! ```text
//! in sync ─ its directory fails ─► offline: in neither ISR nor ELR, leads nothing ─ its broker has the log again ─► follows, catches up
//! ```
//! The broker itself decides by these rules, as its own requests do by others, and puts the outcome to the store: nobody else knows
//! which of its directories has what. With the mark the replica leaves ISR and leadership in one change, so that there is no moment
//! in which it is known to be gone and believed to have records.

use uuid::Uuid;

use super::{
    Decision,
    in_sync::{with_offline, with_online},
    tend::{Batches, circumstances, expect},
};
use crate::{
    image::{ClusterImage, record::Key},
    model::{BrokerId, PartitionId, PartitionIndex},
};

/// What a broker knows of its replica of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Its log is open.
    Online,
    /// It cannot be reached before this broker is started again.
    Offline,
    /// It is about to be opened: nothing is to be said of it yet.
    Undecided,
}

/// What the cluster is to be told of one broker's replicas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OfflineReplicas {
    /// Each is independent of the others.
    pub decisions: Vec<Decision>,
    /// Every replica is online and known to be: nothing will be to do before another directory fails.
    pub is_settled: bool,
}

/// What there is to tell of the replicas of `node` in its present `life`. Nothing, if another life has registered. What failed is
/// told at any time. That a replica is there again is told once this life was let in: from then on nobody counts what an earlier
/// life had fetched for it.
pub fn offline_replicas(
    image: &ClusterImage,
    (node, life): (BrokerId, Uuid),
    state: &dyn Fn(PartitionId) -> ReplicaState,
) -> OfflineReplicas {
    let Some(broker) = image.brokers().get(&node).filter(|broker| broker.incarnation == life) else {
        return OfflineReplicas::default();
    };
    let in_service = |id: BrokerId| image.in_service(id).is_some();
    let (mut batches, mut is_settled) = (Batches::default(), true);
    for topic in image.topics().values() {
        let circumstances = circumstances(topic, &in_service);
        for (partition, index) in topic.partitions.iter().zip(0..) {
            if !partition.replicas.contains(&node) {
                continue;
            }
            let next = match state(PartitionId { topic: topic.id, index: PartitionIndex(index) }) {
                ReplicaState::Online if !partition.offline.contains(&node) => continue,
                ReplicaState::Online => with_online(partition, node).filter(|_| !broker.fenced),
                ReplicaState::Offline => with_offline(partition, node, &circumstances),
                ReplicaState::Undecided => None,
            };
            is_settled = false;
            if let Some(next) = next {
                batches.put(topic, index, &next);
            }
        }
    }
    let mut decisions = batches.done();
    for decision in &mut decisions {
        // Of this life, and as it was let in or not when that was decided.
        expect(decision, &Key::Broker(node), image.membership().registered(node));
    }
    OfflineReplicas { decisions, is_settled }
}
