//! Log directories that fail while others go on (KIP-112).

use std::{path::PathBuf, sync::Arc};

use varve_metadata::{controller::ReplicaState, image::TopicImage, model::PartitionId};

use super::Storage;
use crate::partition::Partition;

impl Storage {
    /// Directories that failed, in the order of the configuration.
    pub fn failed_dirs(&self) -> Vec<PathBuf> {
        self.dirs.iter().filter(|dir| dir.is_failed()).map(|dir| dir.path.clone()).collect()
    }

    /// Whether nothing can be served any more.
    pub fn has_failed(&self) -> bool {
        self.dirs.iter().all(|dir| dir.is_failed())
    }

    /// Returns once more than `known` directories have failed. Cancel-safe.
    pub async fn more_failed(&self, known: usize) {
        while self.failed_dirs().len() <= known {
            let working = self.dirs.iter().filter(|dir| !dir.is_failed());
            let failing: Vec<_> = working.map(|dir| Box::pin(dir.failed())).collect();
            if failing.is_empty() {
                return std::future::pending().await;
            }
            futures::future::select_all(failing).await;
        }
    }

    /// What there is to say of this node's replica of a partition.
    pub fn replica_state(&self, id: PartitionId) -> ReplicaState {
        self.partitions.replica_state(id)
    }

    /// Nothing is fetched, uploaded or cleaned up any more of partitions in directories that failed.
    pub fn let_go_of_failed(&self) {
        for partition in self.partitions.all().iter().filter(|partition| partition.log_dir().is_failed()) {
            self.peers.forget(partition.id());
            self.keeper.left(partition.id());
        }
    }

    /// The topic's settings or leaders changed. The archive has nothing to do with what lies in a directory that failed.
    pub(super) fn tell_keeper(&self, partition: &Arc<Partition>, topic: &TopicImage) {
        if !partition.log_dir().is_failed() {
            self.keeper.altered(partition, topic);
        }
    }
}
