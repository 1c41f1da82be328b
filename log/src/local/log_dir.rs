//! One of `log.dirs`: whose it is, which partitions it has, and what is known about them from the last time.
//!
//! ```text
//! meta.properties                     version=1, node.id, cluster.id, directory.id
//! .lock                               held while a process has the directory
//! .kafka_cleanshutdown                there if the last process closed every log
//! recovery-point-offset-checkpoint    topic partition offset: flushed below
//! log-start-offset-checkpoint         topic partition offset: first readable
//! replication-offset-checkpoint       topic partition offset: high watermark
//! cleaner-offset-checkpoint           topic partition offset: compacted below
//! <topic>-<partition>/                a log, with its topic's id in partition.metadata
//! <topic>-<partition>.<id>-delete/    a deleted one, until its files are gone
//! <topic>-<partition>.<id>-stray/     one that the cluster did not know, for somebody to look at
//! <topic>-<partition>.<id>-future/    the copy of a log of another directory that is moving here
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use uuid::Uuid;
use varve_metadata::model::{BrokerId, Offset, PartitionIndex, Timestamp, TopicId, TopicName};

use super::{
    LocalLog, LogConfig, OpenError, Recovered, RecoveryStart,
    checkpoint::{self, CheckpointError},
    error::LogDirError,
    ownership::{lock, read_moved_to, read_topic_id, storage, take_ownership, write_topic_id},
};

mod moving;

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEANED_BELOW: &str = "cleaner-offset-checkpoint";
const DELETE_SUFFIX: &str = "-delete";
const STRAY_SUFFIX: &str = "-stray";
const FUTURE_SUFFIX: &str = "-future";
/// Longest name that a directory may have.
const MAX_NAME_BYTES: usize = 255;

/// A partition by the name of its directory.
type Key = (TopicName, PartitionIndex);

/// Whose log directories these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirOwner {
    /// Id of the cluster.
    pub cluster_id: String,
    /// `node.id` of this broker.
    pub node: BrokerId,
}

/// A log directory, locked against other processes for as long as the value lives.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    directory_id: String,
    was_new: bool,
    clean: bool,
    known: Mutex<Known>,
    interrupted: Mutex<Vec<(TopicName, PartitionIndex)>>,
    cleaned_below: Mutex<BTreeMap<Key, Offset>>,
    _lock: File,
}

/// What the checkpoints say: changed only once it is written to them.
#[derive(Debug)]
struct Known {
    recovery_points: BTreeMap<Key, Offset>,
    log_starts: BTreeMap<Key, Offset>,
    high_watermarks: BTreeMap<Key, Offset>,
    /// Something was taken out of the maps and may still be in the files.
    forgot: bool,
    /// Logs that the process before closed and that nobody has opened since.
    untouched: HashSet<Key>,
}

/// A partition's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDir {
    /// The topic's name.
    pub topic: TopicName,
    /// Number within the topic.
    pub index: PartitionIndex,
    /// The topic's id; `None` if the directory does not say.
    pub topic_id: Option<TopicId>,
    /// Where it is.
    pub path: PathBuf,
    /// Id of the directory that the log was about to move to when the process ended, or moved to.
    pub moved_to: Option<String>,
}

/// What a checkpoint tells about one log.
#[derive(Clone, Debug)]
pub struct Checkpointed<'a> {
    /// The topic's name.
    pub topic: &'a TopicName,
    /// Number within the topic.
    pub index: PartitionIndex,
    /// The log.
    pub log: &'a LocalLog,
    /// First offset not yet on every in-sync replica.
    pub high_watermark: Offset,
}

impl LogDir {
    /// Takes the directory, which is made if missing: locks it, checks whose it is, reads and removes the mark of a clean
    /// shutdown, and deletes what was left of deleted partitions.
    ///
    /// # Errors
    /// [`LogDirError::Locked`] if another process has it, [`LogDirError::Foreign`] if it belongs to another broker or
    /// cluster, [`LogDirError::Storage`] if the file system fails.
    pub fn open(path: &Path, owner: &LogDirOwner) -> Result<LogDir, LogDirError> {
        fs::create_dir_all(path)?;
        let lock = lock(path)?;
        let (directory_id, was_new) = take_ownership(path, owner)?;
        // From here on only an orderly end makes the directory clean again.
        let clean = match fs::remove_file(path.join(CLEAN_SHUTDOWN)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        let interrupted = remove_unfinished(path)?;
        let recovery_points = read_offsets(&path.join(RECOVERY_POINTS))?;
        let known = Known {
            // A log that the last checkpoint does not name was not closed with the others.
            untouched: recovery_points.keys().filter(|_| clean).cloned().collect(),
            recovery_points,
            log_starts: read_offsets(&path.join(LOG_STARTS))?,
            high_watermarks: read_offsets(&path.join(HIGH_WATERMARKS))?,
            forgot: false,
        };
        Ok(LogDir {
            directory_id,
            was_new,
            clean,
            known: Mutex::new(known),
            interrupted: Mutex::new(interrupted),
            cleaned_below: Mutex::new(read_offsets(&path.join(CLEANED_BELOW))?),
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its own id (KIP-858), as `meta.properties` has it.
    pub fn directory_id(&self) -> &str {
        &self.directory_id
    }

    /// Whether it was nobody's before this process took it.
    pub const fn was_new(&self) -> bool {
        self.was_new
    }

    /// Whether the process before closed every log.
    pub const fn was_clean(&self) -> bool {
        self.clean
    }

    /// The partitions with a directory here, in no order.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn partitions(&self) -> io::Result<Vec<PartitionDir>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let parsed = name.to_str().and_then(parse_partition).filter(|_| entry.path().is_dir());
            let Some((topic, index)) = parsed else { continue };
            let (topic_id, moved_to) = (read_topic_id(&entry.path()), read_moved_to(&entry.path()));
            found.push(PartitionDir { topic, index, topic_id, path: entry.path(), moved_to });
        }
        Ok(found)
    }

    /// The partition's directory, if it has one here.
    pub fn find(&self, topic: &TopicName, index: PartitionIndex) -> Option<PartitionDir> {
        let path = self.partition_path(topic, index);
        let topic_id = read_topic_id(&path);
        let exists = topic_id.is_some() || path.is_dir();
        let moved_to = if exists { read_moved_to(&path) } else { None };
        exists.then(|| PartitionDir { topic: topic.clone(), index, topic_id, path, moved_to })
    }

    /// Where the partition's log is, or would be.
    pub fn partition_path(&self, topic: &TopicName, index: PartitionIndex) -> PathBuf {
        self.path.join(format!("{topic}-{index}"))
    }

    /// Opens the partition's log, or makes it. A directory left by another topic of the same name is set aside for
    /// deletion first. May be called from several threads at once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_log(
        &self,
        topic: &TopicName,
        id: TopicId,
        index: PartitionIndex,
        config: Arc<LogConfig>,
        now: Timestamp,
    ) -> Result<(LocalLog, Recovered), OpenError> {
        let path = self.partition_path(topic, index);
        let known = read_topic_id(&path);
        if known.is_some_and(|known| known != id) {
            fs::remove_dir_all(self.set_aside(&path, topic, index, DELETE_SUFFIX)?)?;
        }
        let start = if path.is_dir() {
            self.start_of(topic, index)
        } else {
            // Of a log that is made now the checkpoints can only know an earlier one of the same name.
            self.forget(&[(topic.clone(), index)]).map_err(CheckpointError::into_io)?;
            RecoveryStart::NEW
        };
        fs::create_dir_all(&path)?;
        if known != Some(id) {
            write_topic_id(&path, id)?;
        }
        LocalLog::open(&path, config, start, now)
    }

    fn start_of(&self, topic: &TopicName, index: PartitionIndex) -> RecoveryStart {
        let mut known = self.known.lock();
        let key = (topic.clone(), index);
        RecoveryStart {
            clean: known.untouched.remove(&key),
            recovery_point: known.recovery_points.get(&key).copied().unwrap_or_default(),
            log_start: known.log_starts.get(&key).copied().unwrap_or_default(),
        }
    }

    /// The partition's high watermark at the last checkpoint.
    pub fn high_watermark(&self, topic: &TopicName, index: PartitionIndex) -> Option<Offset> {
        self.known.lock().high_watermarks.get(&(topic.clone(), index)).copied()
    }

    /// Where the last round of compaction ended, for [`CleanRequest::checkpoint`](super::CleanRequest).
    pub fn cleaned_below(&self, topic: &TopicName, index: PartitionIndex) -> Option<Offset> {
        self.cleaned_below.lock().get(&(topic.clone(), index)).copied()
    }

    /// Writes down where a round of compaction ended; `None` forgets the partition.
    ///
    /// # Errors
    /// [`CheckpointError`]: after a restart the next round then begins further back, which costs time only.
    pub fn set_cleaned_below(
        &self,
        topic: &TopicName,
        index: PartitionIndex,
        offset: Option<Offset>,
    ) -> Result<(), CheckpointError> {
        let mut known = self.cleaned_below.lock();
        let key = (topic.clone(), index);
        let changed = match offset {
            Some(offset) => known.insert(key, offset) != Some(offset),
            None => known.remove(&key).is_some(),
        };
        if !changed {
            return Ok(());
        }
        self.write_offsets(CLEANED_BELOW, &known)
    }

    /// Takes the log's directory out of the way of a new topic of the same name. Returns where it is now, for the caller to
    /// remove with all it holds; what a crash leaves goes at the next start.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn delete_log(&self, topic: &TopicName, index: PartitionIndex) -> io::Result<PathBuf> {
        self.set_aside(&self.partition_path(topic, index), topic, index, DELETE_SUFFIX)
    }

    /// The same for several logs of a topic, of which the checkpoints are told once: one result for each, in order.
    pub fn delete_logs(&self, topic: &TopicName, indexes: &[PartitionIndex]) -> Vec<io::Result<PathBuf>> {
        let rename = |&index: &PartitionIndex| {
            self.rename_aside(&self.partition_path(topic, index), topic, index, DELETE_SUFFIX)
        };
        let renamed: Vec<io::Result<PathBuf>> = indexes.iter().map(rename).collect();
        let gone = indexes.iter().zip(&renamed).filter(|(_, aside)| aside.is_ok());
        self.forget_or_warn(&gone.map(|(index, _)| (topic.clone(), *index)).collect::<Vec<_>>());
        renamed
    }

    /// Takes a directory that belongs to no partition of the cluster out of the way, and keeps it. Returns where it is now.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn set_stray_aside(&self, stray: &PartitionDir) -> io::Result<PathBuf> {
        self.set_aside(&stray.path, &stray.topic, stray.index, STRAY_SUFFIX)
    }

    fn set_aside(&self, path: &Path, topic: &TopicName, index: PartitionIndex, kind: &str) -> io::Result<PathBuf> {
        let aside = self.rename_aside(path, topic, index, kind)?;
        self.forget_or_warn(&[(topic.clone(), index)]);
        Ok(aside)
    }

    fn rename_aside(&self, path: &Path, topic: &TopicName, index: PartitionIndex, kind: &str) -> io::Result<PathBuf> {
        let suffix = format!("-{index}.{}{kind}", Uuid::new_v4().simple());
        let kept = topic.as_str().len().min(MAX_NAME_BYTES - suffix.len());
        let aside = self.path.join(format!("{}{suffix}", &topic.as_str()[..kept]));
        fs::rename(path, &aside)?;
        Ok(aside)
    }

    fn forget_or_warn(&self, gone: &[Key]) {
        // What cannot be written now is tried again before another log of this name is made.
        if let Err(error) = self.forget(gone) {
            tracing::warn!(%error, dir = %self.path.display(), "checkpoints not written");
        }
    }

    /// Takes logs that are gone out of the checkpoints. Left there, their log starts would be taken for those of the next logs
    /// of their names after a crash, and every record below them for deleted.
    fn forget(&self, gone: &[Key]) -> Result<(), CheckpointError> {
        let mut known = self.known.lock();
        known.forgot |= !gone.is_empty();
        for key in gone {
            known.untouched.remove(key);
            known.high_watermarks.remove(key);
        }
        let Known { log_starts, recovery_points, .. } = &mut *known;
        for (name, offsets) in [(LOG_STARTS, log_starts), (RECOVERY_POINTS, recovery_points)] {
            let taken: Vec<(Key, Offset)> = gone.iter().filter_map(|key| offsets.remove_entry(key)).collect();
            // 0 is what a file that does not name the log says, too.
            if taken.iter().any(|(_, offset)| *offset > Offset::ZERO)
                && let Err(error) = self.write_offsets(name, offsets)
            {
                offsets.extend(taken);
                return Err(error);
            }
        }
        drop(known);
        let mut cleaned = self.cleaned_below.lock();
        let count = cleaned.len();
        for key in gone {
            cleaned.remove(key);
        }
        if cleaned.len() == count { Ok(()) } else { self.write_offsets(CLEANED_BELOW, &cleaned) }
    }

    /// Writes recovery points, log starts and high watermarks of all logs that are open in this directory. What is known of
    /// others that are still there stays: records must not come back because their log was offline for a while.
    ///
    /// # Errors
    /// [`CheckpointError`]; each file then has its old text or its new one.
    pub fn checkpoint(&self, logs: &[Checkpointed<'_>]) -> Result<(), CheckpointError> {
        let mut known = self.known.lock();
        let key = |log: &Checkpointed<'_>| (log.topic.clone(), log.index);
        // One that was deleted since the caller looked must not speak for the next of its name.
        let logs: Vec<_> = logs.iter().filter(|log| !log.log.has_ended_cleaning()).collect();
        let open: HashSet<Key> = logs.iter().copied().map(key).collect();
        let is_there = |(topic, index): &Key| {
            open.contains(&(topic.clone(), *index)) || self.partition_path(topic, *index).is_dir()
        };
        let Known { log_starts, recovery_points, high_watermarks, forgot, .. } = &mut *known;
        let (mut starts, mut committed) = (log_starts.clone(), high_watermarks.clone());
        starts.retain(|key, _| is_there(key));
        committed.retain(|key, _| is_there(key));
        let kept: Vec<Offset> = logs.iter().map(|log| log.log.start().0).collect();
        starts.extend(logs.iter().zip(&kept).map(|(log, start)| (key(log), *start)));
        committed.extend(logs.iter().map(|log| (key(log), log.high_watermark)));
        // A log that is not open is checked from its beginning when it comes back: nobody can say what reached the disk.
        let flushed = logs.iter().map(|log| (key(log), log.log.recovery_point())).collect();
        // The log start first: a log must not come back with records that were deleted.
        for (name, known, next) in [
            (LOG_STARTS, log_starts, starts),
            (RECOVERY_POINTS, recovery_points, flushed),
            (HIGH_WATERMARKS, high_watermarks, committed),
        ] {
            // Logs that nothing happens to cost no write.
            if *forgot || *known != next {
                self.write_offsets(name, &next)?;
                *known = next;
            }
            if name == LOG_STARTS {
                logs.iter().zip(&kept).for_each(|(log, start)| log.log.note_start_kept(*start));
            }
        }
        *forgot = false;
        Ok(())
    }

    /// Writes down where these logs start now, on disk before this returns: records that a client was told are deleted must
    /// not come back. All other logs stay as the last checkpoint has them.
    ///
    /// # Errors
    /// [`CheckpointError`]; the file then has its old text.
    pub fn save_log_starts(&self, logs: &[(&TopicName, PartitionIndex, &LocalLog)]) -> Result<(), CheckpointError> {
        let mut known = self.known.lock();
        let logs = logs.iter().filter(|(.., log)| !log.has_ended_cleaning());
        let kept: Vec<_> = logs.map(|log| (log, log.2.start().0)).collect();
        let mut starts = known.log_starts.clone();
        starts.extend(kept.iter().map(|((topic, index, _), start)| (((*topic).clone(), *index), *start)));
        self.write_offsets(LOG_STARTS, &starts)?;
        known.log_starts = starts;
        kept.iter().for_each(|((.., log), start)| log.note_start_kept(*start));
        Ok(())
    }

    /// Writes down how far these logs are flushed, on disk before this returns: for logs that were cut, before anything is
    /// appended to them again.
    ///
    /// # Errors
    /// [`CheckpointError`]; the file then has its old text.
    pub fn save_recovery_points(
        &self,
        logs: &[(&TopicName, PartitionIndex, &LocalLog)],
    ) -> Result<(), CheckpointError> {
        let mut known = self.known.lock();
        let logs = logs.iter().filter(|(.., log)| !log.has_ended_cleaning());
        let mut flushed = known.recovery_points.clone();
        flushed.extend(logs.map(|(topic, index, log)| (((*topic).clone(), *index), log.recovery_point())));
        self.write_offsets(RECOVERY_POINTS, &flushed)?;
        known.recovery_points = flushed;
        Ok(())
    }

    fn write_offsets(&self, name: &str, offsets: &BTreeMap<Key, Offset>) -> Result<(), CheckpointError> {
        let lines = offsets.iter().map(|((topic, index), offset)| format!("{topic} {index} {offset}"));
        checkpoint::replace(&self.path.join(name), &checkpoint::render(lines))
    }

    /// Marks the directory as cleanly shut down: the next start reads no batches. Every log must have been
    /// [closed](LocalLog::close) and is checkpointed here.
    ///
    /// # Errors
    /// [`CheckpointError`]: the next start then checks the logs.
    pub fn mark_clean(&self, logs: &[Checkpointed<'_>]) -> Result<(), CheckpointError> {
        self.checkpoint(logs)?;
        checkpoint::replace(&self.path.join(CLEAN_SHUTDOWN), "{\"version\":0,\"brokerEpoch\":-1}")
    }
}

fn read_offsets(path: &Path) -> Result<BTreeMap<Key, Offset>, LogDirError> {
    let text = checkpoint::read(path).map_err(storage)?;
    let entries = checkpoint::parse(&text, |line| {
        let mut words = line.split_ascii_whitespace();
        let topic = TopicName::parse(words.next()?).ok()?;
        let index = PartitionIndex::from_wire(words.next()?.parse().ok()?)?;
        let offset = Offset::from_wire(words.next()?.parse().ok()?)?;
        words.next().is_none().then_some(((topic, index), offset))
    });
    entries.map(BTreeMap::from_iter).map_err(storage)
}

/// Topic and partition of a directory's name; `None` for other names, those of deleted partitions among them.
fn parse_partition(name: &str) -> Option<Key> {
    let (topic, index) = name.rsplit_once('-')?;
    let index = index.parse().ok().filter(|_| index.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some((TopicName::parse(topic).ok()?, PartitionIndex::from_wire(index)?))
}

/// Removes what was deleted, and copies of logs that were not finished; returns whose copies those were.
fn remove_unfinished(dir: &Path) -> io::Result<Vec<Key>> {
    let mut interrupted = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ends_in = |suffix: &str| name.as_encoded_bytes().ends_with(suffix.as_bytes());
        if !(ends_in(DELETE_SUFFIX) || ends_in(FUTURE_SUFFIX)) || !entry.path().is_dir() {
            continue;
        }
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => {}
            // Whoever deleted it may still be at it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if ends_in(FUTURE_SUFFIX) {
            interrupted.extend(name.to_str().and_then(parse_future));
        }
    }
    Ok(interrupted)
}

/// Topic and partition of `<topic>-<partition>.<id>-future`.
fn parse_future(name: &str) -> Option<Key> {
    let (partition, _) = name.strip_suffix(FUTURE_SUFFIX)?.rsplit_once('.')?;
    parse_partition(partition)
}

#[cfg(test)]
mod tests;
