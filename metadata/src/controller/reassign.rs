//! Other brokers for a partition (KIP-455, KIP-860), with the rules and texts of Kafka's `ReplicationControlManager`.
//!
//! ```text
//! replicas [1,2] ─ asked for [2,3] ─► replicas [2,3,1] adding [3] removing [1] ─ 3 in the ISR ─► replicas [2,3]
//!                                        │ cancelled                                        (`completed`)
//!                                        └─► replicas [2,1]
//! ```
//! A change for which nobody has to catch up is complete at once; the others are recorded here and carried through by whoever
//! watches the ISR.

use super::{
    Decision,
    in_sync::forget_emptied,
    placement::{AssignmentError, check_replicas},
};
use crate::{
    image::{
        ClusterImage, PartitionImage, TopicImage,
        record::{self, Key, PartitionRecord},
    },
    model::{BrokerId, LeaderEpoch, PartitionIndex},
};

/// What shall become of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic's name, as asked.
    pub topic: String,
    /// The partition, as asked.
    pub index: i32,
    /// The brokers that shall hold it; `None` cancels what is under way.
    pub replicas: Option<Vec<i32>>,
}

/// Why a partition stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReassignError {
    /// There is no such topic.
    #[error("Unable to find a topic named {0}.")]
    UnknownTopic(String),
    /// It has no such partition.
    #[error("Unable to find partition {topic}:{index}.")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
    },
    /// There is nothing to cancel.
    #[error("No partition reassignment is in progress.")]
    NothingInProgress,
    /// The brokers cannot hold it.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// Another number of replicas, though the request forbids it (KIP-860).
    #[error("The replication factor is changed from {from} to {to}")]
    ReplicationFactor {
        /// Replicas that it has.
        from: usize,
        /// Replicas asked for.
        to: usize,
    },
    /// Cancelling would leave no replica that has all records.
    #[error(
        "Unable to revert partition assignment for {topic}:{index} because it would require an unclean leader election."
    )]
    Unclean {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
    },
}

/// Reassigns partitions: one result for each, in order. `keep_factor` refuses another number of replicas.
pub fn reassign_partitions(
    image: &ClusterImage,
    asked: &[Reassignment],
    keep_factor: bool,
) -> (Vec<Result<(), ReassignError>>, Decision) {
    let mut decision = Decision::default();
    let results = asked.iter().map(|asked| reassign(image, asked, keep_factor, &mut decision)).collect();
    (results, decision)
}

fn reassign(
    image: &ClusterImage,
    asked: &Reassignment,
    keep_factor: bool,
    decision: &mut Decision,
) -> Result<(), ReassignError> {
    let topic = image.topic(&asked.topic).ok_or_else(|| ReassignError::UnknownTopic(asked.topic.clone()))?;
    let unknown = || ReassignError::UnknownPartition { topic: asked.topic.clone(), index: asked.index };
    let index = PartitionIndex::from_wire(asked.index).ok_or_else(unknown)?;
    let (id, now) = topic.partition(index).ok_or_else(unknown)?;
    let next = match &asked.replicas {
        None => cancelled(topic, asked, now)?,
        Some(replicas) => {
            let target = check_replicas(image, replicas)?;
            let from = now.replicas.len() - now.removing.len();
            if keep_factor && from != target.len() {
                return Err(ReassignError::ReplicationFactor { from, to: target.len() });
            }
            let moving = towards(now, target);
            completed(&moving).unwrap_or(moving)
        }
    };
    // Asked for twice in one request, the last counts.
    let key = Key::Partition(id);
    let text = key.text();
    decision.transaction.writes.retain(|write| write.key() != text);
    decision.rewrites.retain(|rewritten| *rewritten != key);
    let next = led(image, now, next);
    if next != *now {
        decision.put(&key, record::encode(PartitionRecord::of(&next)));
        decision.rewrites.push(key);
    }
    Ok(())
}

/// The partition on its way to `target`.
fn towards(now: &PartitionImage, target: Vec<BrokerId>) -> PartitionImage {
    let mut removing: Vec<BrokerId> = now.replicas.iter().copied().filter(|id| !target.contains(id)).collect();
    let mut adding: Vec<BrokerId> = target.iter().copied().filter(|id| !now.replicas.contains(id)).collect();
    removing.sort_unstable();
    adding.sort_unstable();
    let mut replicas = target;
    replicas.extend(&removing);
    PartitionImage { replicas, adding, removing, ..now.clone() }
}

/// The partition behind its reassignment, if the in-sync replicas allow it to end.
pub fn completed(partition: &PartitionImage) -> Option<PartitionImage> {
    let PartitionImage { replicas, isr, adding, removing, .. } = partition;
    if adding.is_empty() && removing.is_empty() {
        return None;
    }
    let stays = |id: &&BrokerId| !removing.contains(id);
    let replicas: Vec<BrokerId> = replicas.iter().filter(stays).copied().collect();
    let isr: Vec<BrokerId> = isr.iter().filter(stays).copied().collect();
    let has_all = |wanted: &[BrokerId]| wanted.iter().all(|id| isr.contains(id));
    // With fewer replicas than before, none of those that stay may be missing: the ISR must not shrink by the move.
    let is_ready = !isr.is_empty() && has_all(adding) && (adding.len() >= removing.len() || has_all(&replicas));
    let elr: Vec<BrokerId> = partition.elr.iter().filter(stays).copied().collect();
    let offline: Vec<BrokerId> = partition.offline.iter().filter(stays).copied().collect();
    is_ready.then(|| PartitionImage {
        replicas,
        isr,
        elr,
        offline,
        adding: Vec::new(),
        removing: Vec::new(),
        ..partition.clone()
    })
}

fn cancelled(topic: &TopicImage, asked: &Reassignment, now: &PartitionImage) -> Result<PartitionImage, ReassignError> {
    if now.adding.is_empty() && now.removing.is_empty() {
        return Err(ReassignError::NothingInProgress);
    }
    let was_there = |id: &&BrokerId| !now.adding.contains(id);
    let replicas: Vec<BrokerId> = now.replicas.iter().filter(was_there).copied().collect();
    let mut isr: Vec<BrokerId> = now.isr.iter().filter(was_there).copied().collect();
    if isr.is_empty() {
        if !topic.config.unclean_leader_election {
            return Err(ReassignError::Unclean { topic: asked.topic.clone(), index: asked.index });
        }
        isr.extend(replicas.iter().find(|id| !now.offline.contains(id)));
    }
    let elr = now.elr.iter().filter(was_there).copied().collect();
    let offline = now.offline.iter().filter(was_there).copied().collect();
    Ok(PartitionImage { replicas, isr, elr, offline, adding: Vec::new(), removing: Vec::new(), ..now.clone() })
}

/// `next` with a leader out of its ISR, and epochs that tell it from `now`.
pub(super) fn led(image: &ClusterImage, now: &PartitionImage, mut next: PartitionImage) -> PartitionImage {
    if next == *now {
        return next;
    }
    let is_alive = |id: &&BrokerId| image.brokers().get(*id).is_some_and(|broker| !broker.fenced);
    if next.leader.is_none_or(|leader| !next.isr.contains(&leader)) {
        next.leader = next.replicas.iter().filter(|id| next.isr.contains(id)).find(is_alive).copied();
    }
    // A replica that left must not go on as a follower of the same epoch.
    let has_left = now.replicas.iter().any(|id| !next.replicas.contains(id));
    if next.leader != now.leader || has_left {
        next.leader_epoch = LeaderEpoch(now.leader_epoch.0 + 1);
    }
    forget_emptied(&mut next);
    next.partition_epoch = now.partition_epoch + 1;
    next
}
