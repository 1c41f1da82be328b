//! Deleting the logs of partitions that are gone. Blocks on the disk.

use tracing::warn;
use varve_metadata::model::{PartitionIndex, TopicId, TopicName};

use super::{LogDirHealth, Partition};

/// Deletes an open log. The rename makes the name free for a new topic at once, and a crash in between is finished at the
/// next start.
pub(super) fn delete_log(partition: &Partition) {
    // Neither a move nor other work under way must go on in the directory of a new topic of this name. A move sees that the
    // partition is retired, and removes its copy.
    let _no_move = partition.moving().lock();
    partition.log().abandon();
    let dir = partition.log_dir();
    let Some(files) = dir.files() else { return };
    let aside = files.delete_log(partition.topic(), partition.id().index);
    if let Err(error) = aside.and_then(std::fs::remove_dir_all) {
        warn!(topic = %partition.topic(), partition = %partition.id().index, %error, "a deleted partition's files could not be removed");
    }
}

/// Deletes the logs of partitions of the topic `id` that nobody has open here, where they can be reached: those that were
/// offline, or that moved away. What lies in a directory that failed is set aside when that comes back.
pub(super) fn delete_closed(dir: &LogDirHealth, topic: &TopicName, id: TopicId, closed: &[PartitionIndex]) {
    let Some(files) = dir.files() else { return };
    for index in closed {
        if files.find(topic, *index).is_none_or(|found| found.topic_id != Some(id)) {
            continue;
        }
        if let Err(error) = files.delete_log(topic, *index).and_then(std::fs::remove_dir_all) {
            warn!(%topic, partition = %index, %error, "the files of a log that is not here any more could not be removed");
        }
    }
}
