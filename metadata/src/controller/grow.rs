//! More partitions for a topic.

use super::{
    Decision,
    placement::{self, AssignmentError, ManualPartition, PlacementError},
};
use crate::{
    image::{
        ClusterImage,
        record::{self, Key, PartitionRecord, TopicRecord},
    },
    model::{PartitionId, PartitionIndex},
};

/// One topic to grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowTopic {
    /// Its name.
    pub name: String,
    /// How many partitions it shall have, as asked.
    pub count: i32,
    /// Replicas of each partition to add, in order; `None`: the controller chooses.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Why a topic does not grow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrowError {
    /// There is no such topic.
    #[error("no such topic")]
    UnknownTopic,
    /// It has that many already.
    #[error("Topic already has {0} partition(s).")]
    Already(usize),
    /// Partitions are never taken away.
    #[error("The topic {name} currently has {now} partition(s); {wanted} would not be an increase.")]
    NotAnIncrease {
        /// The topic.
        name: String,
        /// Partitions it has.
        now: usize,
        /// Partitions asked for.
        wanted: i32,
    },
    /// More than the cluster makes in one request (10 000).
    #[error("Excessively large number of partitions per request.")]
    TooMany,
    /// The number of assignments is not that of the new partitions.
    #[error("Attempted to add {added} additional partition(s), but only {assigned} assignment(s) were specified.")]
    Assignments {
        /// Partitions to add.
        added: usize,
        /// Assignments given.
        assigned: usize,
    },
    /// An assignment cannot be.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
    /// There is no place for them.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// Adds partitions to topics; `start` is where placement begins.
pub fn create_partitions(
    image: &ClusterImage,
    topics: &[GrowTopic],
    start: usize,
) -> (Vec<Result<(), GrowError>>, Decision) {
    let mut decision = Decision::default();
    let results = topics.iter().map(|topic| grow(image, topic, start, &mut decision)).collect();
    (results, decision)
}

fn grow(image: &ClusterImage, asked: &GrowTopic, start: usize, decision: &mut Decision) -> Result<(), GrowError> {
    let topic = image.topic(&asked.name).ok_or(GrowError::UnknownTopic)?;
    let now = topic.partitions.len();
    let wanted = usize::try_from(asked.count).unwrap_or(0);
    if wanted == now {
        return Err(GrowError::Already(now));
    }
    let Some(added) = wanted.checked_sub(now) else {
        return Err(GrowError::NotAnIncrease { name: asked.name.clone(), now, wanted: asked.count });
    };
    if added > super::create::MAX_PARTITIONS {
        return Err(GrowError::TooMany);
    }
    let width = topic.replication_factor();
    let placed = match &asked.assignments {
        Some(assigned) if assigned.len() != added => {
            return Err(GrowError::Assignments { added, assigned: assigned.len() });
        }
        Some(assigned) => {
            let check = |(replicas, index): (&Vec<i32>, i32)| {
                let partition = ManualPartition { index, replicas: replicas.clone() };
                placement::check_assignment(image, &partition, Some(width))
            };
            assigned.iter().zip(now as i32..).map(check).collect::<Result<Vec<_>, _>>()?
        }
        None => placement::spread(image, added as u32, width as u16, start.wrapping_add(now))?,
    };
    decision.anchor = Some(Key::Partition(PartitionId { topic: topic.id, index: PartitionIndex(now as u32) }));
    for (partition, index) in placed.iter().zip(now as u32..) {
        let id = PartitionId { topic: topic.id, index: PartitionIndex(index) };
        decision.put(&Key::Partition(id), record::encode(PartitionRecord::of(partition)));
    }
    let record = TopicRecord {
        name: topic.name.clone(),
        overrides: topic.overrides.as_ref().clone(),
        partitions: wanted as u32,
    };
    decision.rewrites.push(Key::Topic(topic.id));
    decision.put(&Key::Topic(topic.id), record::encode(record));
    Ok(())
}
