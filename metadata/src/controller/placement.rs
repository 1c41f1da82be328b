//! Which brokers hold a new partition.

use std::collections::BTreeMap;

use super::stripes::Stripes;
use crate::{
    image::{ClusterImage, PartitionImage},
    model::BrokerId,
};

/// Where the partitions of a topic shall go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The controller chooses.
    Spread {
        /// `None`: the default (`num.partitions`).
        partitions: Option<u32>,
        /// `None`: the default (`default.replication.factor`).
        replication_factor: Option<u16>,
    },
    /// The request says.
    Manual(Vec<ManualPartition>),
}

/// One partition of a manual assignment. Numbers are as asked: a negative one is refused here, by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualPartition {
    /// Partition index.
    pub index: i32,
    /// Broker ids; the first is the preferred leader.
    pub replicas: Vec<i32>,
}

/// Why partitions cannot be placed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// An assignment and a replication factor.
    #[error("A manual partition assignment was specified, but replication factor was not set to -1.")]
    ManualWithReplicationFactor,
    /// An assignment and a number of partitions.
    #[error("A manual partition assignment was specified, but numPartitions was not set to -1.")]
    ManualWithPartitions,
    /// 0, or below -1.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    ReplicationFactor,
    /// 0, or below -1.
    #[error("Number of partitions was set to an invalid non-positive value.")]
    Partitions,
    /// More replicas than brokers that are not cordoned.
    #[error(
        "The target replication factor of {wanted} cannot be reached because only {registered} broker(s) are \
         registered or some brokers have all their log directories cordoned."
    )]
    TooFewBrokers {
        /// Replicas asked for.
        wanted: u16,
        /// Such brokers.
        registered: usize,
    },
    /// No broker could lead.
    #[error("All brokers are currently fenced, or have all their log directories cordoned.")]
    AllFenced,
    /// An assignment that names one partition twice.
    #[error("Found multiple manual partition assignments for partition {0}")]
    Repeated(i32),
    /// An assignment with gaps.
    #[error("partitions should be a consecutive 0-based integer sequence")]
    NotConsecutive,
    /// An assignment that does not fit the brokers there are.
    #[error(transparent)]
    Assignment(#[from] AssignmentError),
}

/// What is wrong with the replicas that were assigned to one partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// No replicas.
    #[error("The manual partition assignment includes an empty replica list.")]
    Empty,
    /// A broker that does not exist.
    #[error("The manual partition assignment includes broker {0}, but no such broker is registered.")]
    NoSuchBroker(i32),
    /// A broker named twice.
    #[error("The manual partition assignment includes the broker {0} more than once.")]
    BrokerRepeated(i32),
    /// Another number of replicas than the partitions before.
    #[error(
        "The manual partition assignment includes a partition with {found} replica(s), but this is not consistent \
         with previous partitions, which have {expected} replica(s)."
    )]
    Uneven {
        /// Replicas of this partition.
        found: usize,
        /// Replicas of those before.
        expected: usize,
    },
    /// Nobody could lead it.
    #[error(
        "All brokers specified in the manual partition assignment for partition {0} are fenced or in controlled \
         shutdown."
    )]
    AllFenced(i32),
}

/// `partitions` partitions of `replication_factor` replicas each, [striped](super::stripes) over racks and brokers; `start` is
/// best a random number.
pub(super) fn spread(
    image: &ClusterImage,
    partitions: u32,
    replication_factor: u16,
    start: usize,
) -> Result<Vec<PartitionImage>, PlacementError> {
    let usable = image.brokers().values().filter(|broker| !image.is_cordoned(broker.id));
    if usable.clone().all(|broker| broker.fenced) {
        return Err(PlacementError::AllFenced);
    }
    let registered = usable.count();
    if usize::from(replication_factor) > registered {
        return Err(PlacementError::TooFewBrokers { wanted: replication_factor, registered });
    }
    let mut stripes = Stripes::new(image, start);
    Ok((0..partitions).map(|_| created(image, stripes.next(replication_factor.into()))).collect())
}

/// A whole topic's manual assignment.
pub(super) fn manual(
    image: &ClusterImage,
    assigned: &[ManualPartition],
) -> Result<Vec<PartitionImage>, PlacementError> {
    let mut by_index = BTreeMap::new();
    let mut width = None;
    for partition in assigned {
        if by_index.contains_key(&partition.index) {
            return Err(PlacementError::Repeated(partition.index));
        }
        let placed = check_assignment(image, partition, width)?;
        width = Some(placed.replicas.len());
        by_index.insert(partition.index, placed);
    }
    if by_index.keys().zip(0..).any(|(index, expected)| *index != expected) {
        return Err(PlacementError::NotConsecutive);
    }
    Ok(by_index.into_values().collect())
}

/// One partition's manual assignment; `width` is the replication factor that it must have.
pub(super) fn check_assignment(
    image: &ClusterImage,
    assigned: &ManualPartition,
    width: Option<usize>,
) -> Result<PartitionImage, AssignmentError> {
    let replicas = check_replicas(image, &assigned.replicas)?;
    if let Some(expected) = width
        && expected != replicas.len()
    {
        return Err(AssignmentError::Uneven { found: replicas.len(), expected });
    }
    let partition = created(image, replicas);
    if partition.isr.is_empty() { Err(AssignmentError::AllFenced(assigned.index)) } else { Ok(partition) }
}

/// Brokers that shall hold a partition: at least one, each registered, none twice.
pub(super) fn check_replicas(image: &ClusterImage, replicas: &[i32]) -> Result<Vec<BrokerId>, AssignmentError> {
    if replicas.is_empty() {
        return Err(AssignmentError::Empty);
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    for (place, &raw) in sorted.iter().enumerate() {
        if !BrokerId::from_wire(raw).is_some_and(|id| image.brokers().contains_key(&id)) {
            return Err(AssignmentError::NoSuchBroker(raw));
        }
        if place > 0 && sorted[place - 1] == raw {
            return Err(AssignmentError::BrokerRepeated(raw));
        }
    }
    Ok(replicas.iter().copied().filter_map(BrokerId::from_wire).collect())
}

fn created(image: &ClusterImage, replicas: Vec<BrokerId>) -> PartitionImage {
    let active = |id: &BrokerId| image.brokers().get(id).is_some_and(|broker| !broker.fenced);
    let isr: Vec<BrokerId> = replicas.iter().copied().filter(active).collect();
    PartitionImage { leader: isr.first().copied(), replicas, isr, ..PartitionImage::default() }
}
