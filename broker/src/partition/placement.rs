//! Which log directory has a partition's log, or gets it.
//!
//! | directories that are online           | new partition         | one that was here before               |
//! |---------------------------------------|-----------------------|----------------------------------------|
//! | one has a log of the partition's topic | that one              | that one                               |
//! | several have                          | offline               | offline                                |
//! | one has a log that names no topic     | that one              | that one                               |
//! | none has, and all are online          | the one with fewest   | the one with fewest: its disk was lost |
//! | none has, and another is offline      | the one with fewest   | offline: its log may be there          |
//! | one has, and it may have moved on      | offline               | offline: to a directory that is gone   |
//!
//! Among those with fewest, cordoned ones (KIP-1066) come last.
//!
//! Nothing about this is written down when a partition is created: the directory itself says whose it is. A partition that
//! the node shows at its start is taken for one that has a log somewhere, also if a crash came before the log was made; all
//! that costs is that it waits for the failed directory.

use std::sync::Arc;

use tracing::warn;
use varve_metadata::{
    image::ClusterImage,
    model::{BrokerId, PartitionId, TopicName},
};

use super::LogDirHealth;

/// Why a partition has no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nowhere {
    /// No new log can be made.
    #[error("no log directory is online")]
    NoneOnline,
    /// An empty log in place of one that cannot be reached would give its offsets out again.
    #[error("its log may be in a log directory that failed")]
    Unreachable,
    /// Nobody can say which one has the records that were acknowledged.
    #[error("more than one log directory has a log of it")]
    Twice,
}

/// The directory for the log of partition `id` of `topic`. `is_new`: it was created since the node started.
pub(super) fn place(
    dirs: &[Arc<LogDirHealth>],
    topic: &TopicName,
    id: PartitionId,
    is_new: bool,
) -> Result<Arc<LogDirHealth>, Nowhere> {
    let (mut own, mut unnamed) = (Vec::new(), Vec::new());
    for dir in dirs {
        let found = dir.files().and_then(|files| files.find(topic, id.index));
        // Marks that could be followed are gone by now (`finish_moves`).
        if found.as_ref().is_some_and(|found| found.topic_id == Some(id.topic) && found.moved_to.is_some()) {
            return Err(Nowhere::Unreachable);
        }
        match found.map(|found| found.topic_id) {
            Some(Some(found)) if found == id.topic => own.push(dir),
            Some(None) => unnamed.push(dir),
            // Of another topic of this name, which is gone.
            Some(Some(_)) | None => {}
        }
    }
    match (own.as_slice(), unnamed.first()) {
        ([_, _, ..], _) => return Err(Nowhere::Twice),
        ([dir], _) | ([], Some(dir)) => return Ok(Arc::clone(dir)),
        ([], None) => {}
    }
    if !is_new && dirs.iter().any(|dir| dir.is_failed()) {
        return Err(Nowhere::Unreachable);
    }
    // Every partition in a directory holds a reference to it. A cordoned one is the last resort: the replica was given to this
    // node before all of them were.
    let online = dirs.iter().filter(|dir| dir.files().is_some());
    online.min_by_key(|dir| (dir.is_cordoned(), Arc::strong_count(dir))).cloned().ok_or(Nowhere::NoneOnline)
}

/// Takes the logs in `dir` of partitions that `node` does not have out of the way: of topics that were deleted while the node,
/// or this directory, was down. They are kept, as Kafka keeps them.
pub(super) fn set_strays_aside(dir: &LogDirHealth, image: &ClusterImage, node: BrokerId) {
    let Some(files) = dir.files() else { return };
    let found = match files.partitions() {
        Ok(found) => found,
        Err(error) => return dir.fail(&error),
    };
    for partition in found {
        let topic = match partition.topic_id {
            Some(id) => image.topic_by_id(id).filter(|topic| topic.name == partition.topic),
            None => image.topic(partition.topic.as_str()),
        };
        let known = topic.and_then(|topic| topic.partition(partition.index));
        if known.is_some_and(|(_, known)| known.replicas.contains(&node)) {
            continue;
        }
        match files.set_stray_aside(&partition) {
            Ok(aside) => warn!(from = %partition.path.display(), to = %aside.display(), "no such partition: set aside"),
            Err(error) => warn!(dir = %partition.path.display(), %error, "a stray log stays where it is"),
        }
    }
}
