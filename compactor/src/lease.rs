//! One worker per partition at a time within this process. Between processes the manifest's compare-and-set decides; a
//! lease there only saves work done twice.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use varve_metadata::model::PartitionId;

/// Which partitions are being worked on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Arc<Mutex<HashSet<PartitionId>>>);

/// The right to work on one partition, until dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    partition: PartitionId,
    leases: Leases,
}

impl Leases {
    /// `None` if somebody works on it already.
    pub(crate) fn take(&self, partition: PartitionId) -> Option<Lease> {
        self.0.lock().insert(partition).then(|| Lease { partition, leases: self.clone() })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.0.lock().remove(&self.partition);
    }
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::{PartitionIndex, TopicId};

    use super::*;

    #[test]
    fn a_partition_is_worked_on_once_at_a_time() {
        let leases = Leases::default();
        let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
        let held = leases.take(partition).expect("free");
        assert!(leases.take(partition).is_none());
        drop(held);
        assert!(leases.take(partition).is_some());
    }
}
