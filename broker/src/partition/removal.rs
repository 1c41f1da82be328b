//! Deleting the logs of partitions that are gone.
//!
//! ```text
//! t-0 ─ renamed, at once ─► t-0.…-delete ─ by and by, in the background ─► gone
//! ```
//! With its new name a log is deleted: the old one is free for a new topic, and a crash from there on is finished at the next
//! start. That its files take long to go holds nobody up.

use std::{collections::VecDeque, fs, io, path::PathBuf, sync::Arc, thread};

use parking_lot::Mutex;
use tracing::warn;
use varve_metadata::model::{PartitionIndex, TopicId, TopicName};

use super::{LogDirHealth, Partition};

/// Deletes logs of the topic `id`: those of partitions that were `open` here and are retired, and those of the `closed` ones. Waits
/// for moves and rounds of compaction that are under way, which end soon when their partition is retired.
pub(super) fn delete_logs(
    dirs: &[Arc<LogDirHealth>],
    topic: &TopicName,
    id: TopicId,
    open: &[Arc<Partition>],
    closed: &[PartitionIndex],
) {
    for partition in open {
        // Neither a move nor other work under way must go on in the directory of a new topic of this name. A move sees that the
        // partition is retired, and puts its copy aside; a later one does not begin.
        drop(partition.moving().lock());
        partition.log().abandon();
    }
    for dir in dirs {
        let here = open.iter().filter(|partition| Arc::ptr_eq(&partition.log_dir(), dir));
        let here: Vec<PartitionIndex> = here.map(|partition| partition.id().index).collect();
        delete(dir, topic, &here);
        delete_closed(dir, topic, id, closed);
    }
}

/// Deletes the logs of partitions of the topic `id` that nobody has open here, where they can be reached: those that were
/// offline, or that moved away. What lies in a directory that failed is set aside when that comes back.
pub(super) fn delete_closed(dir: &LogDirHealth, topic: &TopicName, id: TopicId, closed: &[PartitionIndex]) {
    let Some(files) = dir.files() else { return };
    let is_its = |index: &&PartitionIndex| files.find(topic, **index).is_some_and(|found| found.topic_id == Some(id));
    let here: Vec<PartitionIndex> = closed.iter().filter(is_its).copied().collect();
    delete(dir, topic, &here);
}

fn delete(dir: &LogDirHealth, topic: &TopicName, indexes: &[PartitionIndex]) {
    let Some(files) = dir.files().filter(|_| !indexes.is_empty()) else { return };
    for (index, aside) in indexes.iter().zip(files.delete_logs(topic, indexes)) {
        match aside {
            Ok(aside) => dir.remover().remove(aside),
            Err(error) => warn!(%topic, partition = %index, %error, "a log could not be deleted"),
        }
    }
}

/// Removes directories that nobody uses any more, one after the other, so that the disk is left to others. A thread of its own
/// does it for as long as there are any: neither the node's stop nor its end waits for that.
#[derive(Debug, Default, Clone)]
pub(super) struct Remover(Arc<Mutex<Removals>>);

#[derive(Debug, Default)]
struct Removals {
    /// As many at most as there are logs that were deleted.
    waiting: VecDeque<PathBuf>,
    is_at_work: bool,
}

impl Remover {
    /// Has a directory removed that was set aside. What cannot be removed now goes at the next start.
    pub(super) fn remove(&self, aside: PathBuf) {
        let mut removals = self.0.lock();
        removals.waiting.push_back(aside);
        if !removals.is_at_work {
            self.begin(&mut removals);
        }
    }

    fn begin(&self, removals: &mut Removals) {
        let remover = self.clone();
        match thread::Builder::new().name("remover".to_owned()).spawn(move || remover.work()) {
            Ok(_) => removals.is_at_work = true,
            // The next deletion tries again.
            Err(error) => warn!(%error, "the files of deleted logs are not removed yet"),
        }
    }

    fn work(&self) {
        while let Some(aside) = self.next() {
            match fs::remove_dir_all(&aside) {
                Ok(()) => {}
                // The next life of the node was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => warn!(dir = %aside.display(), %error, "the files of a deleted log stay until a restart"),
            }
        }
    }

    fn next(&self) -> Option<PathBuf> {
        let mut removals = self.0.lock();
        let next = removals.waiting.pop_front();
        removals.is_at_work = next.is_some();
        next
    }
}

#[cfg(test)]
impl Remover {
    /// From now on nothing is removed, as if the disk took for ever.
    pub(super) fn hold(&self) {
        let mut removals = self.0.lock();
        assert!(!removals.is_at_work, "something is being removed");
        removals.is_at_work = true;
    }

    /// It goes on.
    pub(super) fn go_on(&self) {
        self.begin(&mut self.0.lock());
    }

    /// Whether there is nothing to be removed.
    pub(super) fn is_idle(&self) -> bool {
        !self.0.lock().is_at_work
    }
}
