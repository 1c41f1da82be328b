//! Other brokers for partitions, as an administrator asks for them (KIP-455, KIP-860), with the rules and texts of Kafka's
//! `ReplicationControlManager`; what becomes of one partition is in [`moving`](super::moving).
//!
//! A change for which nobody has to catch up is complete at once; the others are recorded here and carried through by whoever
//! watches the ISR.

use super::{
    Decision,
    moving::{CancelError, cancelled, towards},
    placement::{AssignmentError, check_replicas},
    tend::circumstances,
};
use crate::{
    image::{
        ClusterImage,
        record::{self, Key, PartitionRecord},
    },
    model::{BrokerId, PartitionIndex},
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
    /// Cancelling would leave records on fewer replicas than they were acknowledged by.
    #[error(
        "Unable to revert partition assignment for {topic}:{index} because fewer than min.insync.replicas would be in sync."
    )]
    TooFewInSync {
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
    let in_service = |id: BrokerId| image.in_service(id).is_some();
    let circumstances = circumstances(topic, &in_service);
    let next = match &asked.replicas {
        None => Some(cancelled(now, &circumstances).map_err(|why| not_cancelled(asked, why))?),
        Some(replicas) => {
            let target = check_replicas(image, replicas)?;
            let from = now.replicas.len() - now.removing.len();
            if keep_factor && from != target.len() {
                return Err(ReassignError::ReplicationFactor { from, to: target.len() });
            }
            towards(now, &target, &circumstances)
        }
    };
    // Asked for twice in one request, the last counts.
    let key = Key::Partition(id);
    let text = key.text();
    decision.transaction.writes.retain(|write| write.key() != text);
    decision.rewrites.retain(|rewritten| *rewritten != key);
    if let Some(next) = next {
        decision.put(&key, record::encode(PartitionRecord::of(&next)));
        decision.rewrites.push(key);
    }
    Ok(())
}

fn not_cancelled(asked: &Reassignment, why: CancelError) -> ReassignError {
    let (topic, index) = (asked.topic.clone(), asked.index);
    match why {
        CancelError::NothingInProgress => ReassignError::NothingInProgress,
        CancelError::Unclean => ReassignError::Unclean { topic, index },
        CancelError::TooFewInSync => ReassignError::TooFewInSync { topic, index },
    }
}
