//! Which logs there are when a node starts: what the others count on may be gone with a disk.

use varve_metadata::{
    controller::{FoundLogs, ReplicaState, recovery::Extent},
    image::{ClusterImage, LogExtent},
    model::PartitionId,
};

use super::Storage;

impl Storage {
    /// The logs of each directory, before any is opened or made. Blocks on the disks; a directory that cannot be listed has failed.
    pub fn found_logs(&self, image: &ClusterImage) -> FoundLogs {
        let mut found = FoundLogs::default();
        for dir in &self.dirs {
            let Some(files) = dir.files() else { continue };
            let partitions = match files.partitions() {
                Ok(partitions) => partitions,
                Err(error) => {
                    dir.fail(&error);
                    continue;
                }
            };
            let dir_id = files.directory_id().to_owned();
            if files.was_new() {
                found.new_dirs.insert(dir_id.clone());
            }
            for log in partitions {
                let named = || image.topic(log.topic.as_str()).map(|topic| topic.id);
                let Some(topic) = log.topic_id.or_else(named) else { continue };
                let id = PartitionId { topic, index: log.index };
                found.logs.entry(id).or_default().push(dir_id.clone());
            }
            found.dirs.insert(dir_id);
        }
        found.some_failed = !self.failed_dirs().is_empty();
        found
    }

    /// What there is to say of a partition's log, where this node began with those that were `found`.
    pub fn extent(&self, id: PartitionId, found: &FoundLogs) -> Extent {
        match (self.replica_state(id), self.partitions.get(id)) {
            (ReplicaState::Online, Ok(_)) if !found.logs.contains_key(&id) => Extent::NoLog,
            (ReplicaState::Online, Ok(partition)) => {
                let log = partition.log();
                Extent::Log(LogExtent { epoch: log.latest_epoch(), end: log.end().0 })
            }
            _ => Extent::Unknown,
        }
    }
}
