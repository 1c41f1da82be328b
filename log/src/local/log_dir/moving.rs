//! What a log directory does when a log moves into it or out of it (KIP-113).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;
use varve_metadata::model::{Offset, PartitionIndex, TopicName};

use super::{
    super::{
        checkpoint::CheckpointError,
        ownership::{remove_moved_to, write_moved_to},
    },
    DELETE_SUFFIX, FUTURE_SUFFIX, Known, LOG_STARTS, LogDir, MAX_NAME_BYTES, RECOVERY_POINTS,
};

impl LogDir {
    /// Where the copy of a log goes that moves here; `None` if a directory cannot have so long a name.
    pub fn future_path(&self, topic: &TopicName, index: PartitionIndex) -> Option<PathBuf> {
        let name = format!("{topic}-{index}.{}{FUTURE_SUFFIX}", Uuid::new_v4().simple());
        (name.len() <= MAX_NAME_BYTES).then(|| self.path.join(name))
    }

    /// Takes a copy that shall not be finished out of the way. Returns where it is now, for the caller to remove with all it
    /// holds; what a crash leaves goes at the next start, and no move is begun again for it.
    ///
    /// # Errors
    /// If the file system fails; [`io::ErrorKind::NotFound`] if there is no such copy.
    pub fn set_copy_aside(&self, copy: &Path) -> io::Result<PathBuf> {
        let name = copy.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('.'));
        let (partition, _) = name.ok_or(io::ErrorKind::NotFound)?;
        let aside = self.path.join(format!("{partition}.{}{DELETE_SUFFIX}", Uuid::new_v4().simple()));
        fs::rename(copy, &aside)?;
        Ok(aside)
    }

    /// Writes down that a partition's log here is about to be in `target` instead, on disk before this returns; `None` takes
    /// that back.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn mark_moved(&self, topic: &TopicName, index: PartitionIndex, target: Option<&LogDir>) -> io::Result<()> {
        let path = self.partition_path(topic, index);
        match target {
            Some(target) => write_moved_to(&path, &target.directory_id),
            None => remove_moved_to(&path),
        }
    }

    /// Gives the finished copy in `future` the name of its partition: from then on it is the partition's log. Where it starts
    /// and that it is flushed is written down first. Returns its path.
    ///
    /// # Errors
    /// If the file system fails: the copy is not the partition's log then.
    pub fn promote(
        &self,
        future: &Path,
        topic: &TopicName,
        index: PartitionIndex,
        (log_start, end): (Offset, Offset),
    ) -> io::Result<PathBuf> {
        self.promote_and(future, topic, index, (log_start, end), File::sync_all)
    }

    /// [`promote`](Self::promote), with `sync` to force the new name to disk.
    pub(super) fn promote_and(
        &self,
        future: &Path,
        topic: &TopicName,
        index: PartitionIndex,
        (log_start, end): (Offset, Offset),
        sync: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let path = self.partition_path(topic, index);
        // Held over the renaming: a checkpoint in between would forget a log that has no directory yet.
        let mut known = self.known.lock();
        let key = (topic.clone(), index);
        known.untouched.remove(&key);
        let Known { log_starts, recovery_points, .. } = &mut *known;
        for (name, offsets, offset) in [(LOG_STARTS, log_starts, log_start), (RECOVERY_POINTS, recovery_points, end)] {
            offsets.insert(key.clone(), offset);
            self.write_offsets(name, offsets).map_err(CheckpointError::into_io)?;
        }
        // Opened first: once the copy has its name, as little as possible may fail.
        let dir = File::open(&self.path)?;
        fs::rename(future, &path)?;
        if let Err(error) = sync(&dir) {
            // The caller goes on in the old place, and there must not be two logs.
            fs::rename(&path, future)?;
            return Err(error);
        }
        Ok(path)
    }

    /// The moves into this directory that the end of the process before cut short, once.
    pub fn take_interrupted(&self) -> Vec<(TopicName, PartitionIndex)> {
        std::mem::take(&mut self.interrupted.lock())
    }
}
