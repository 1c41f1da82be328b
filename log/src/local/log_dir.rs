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
    ownership::{lock, read_topic_id, storage, take_ownership, write_topic_id},
};

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEANED_BELOW: &str = "cleaner-offset-checkpoint";
const DELETE_SUFFIX: &str = "-delete";
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
    clean: bool,
    known: Mutex<Known>,
    cleaned_below: Mutex<BTreeMap<Key, Offset>>,
    _lock: File,
}

/// What the checkpoints say, kept up with what is written to them.
#[derive(Debug)]
struct Known {
    recovery_points: BTreeMap<Key, Offset>,
    log_starts: BTreeMap<Key, Offset>,
    high_watermarks: BTreeMap<Key, Offset>,
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
        let directory_id = take_ownership(path, owner)?;
        // From here on only an orderly end makes the directory clean again.
        let clean = match fs::remove_file(path.join(CLEAN_SHUTDOWN)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        remove_deleted(path)?;
        let recovery_points = read_offsets(&path.join(RECOVERY_POINTS))?;
        let known = Known {
            // A log that the last checkpoint does not name was not closed with the others.
            untouched: recovery_points.keys().filter(|_| clean).cloned().collect(),
            recovery_points,
            log_starts: read_offsets(&path.join(LOG_STARTS))?,
            high_watermarks: read_offsets(&path.join(HIGH_WATERMARKS))?,
        };
        Ok(LogDir {
            directory_id,
            clean,
            known: Mutex::new(known),
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
            found.push(PartitionDir { topic, index, topic_id: read_topic_id(&entry.path()), path: entry.path() });
        }
        Ok(found)
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
            fs::remove_dir_all(self.set_aside(&path, topic, index)?)?;
        }
        // Of a log that is made now the checkpoints can only know an earlier one of the same name.
        let start = if path.is_dir() { self.start_of(topic, index) } else { RecoveryStart::NEW };
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
        self.set_aside(&self.partition_path(topic, index), topic, index)
    }

    fn set_aside(&self, path: &Path, topic: &TopicName, index: PartitionIndex) -> io::Result<PathBuf> {
        let suffix = format!("-{index}.{}{DELETE_SUFFIX}", Uuid::new_v4().simple());
        let kept = topic.as_str().len().min(MAX_NAME_BYTES - suffix.len());
        let aside = self.path.join(format!("{}{suffix}", &topic.as_str()[..kept]));
        fs::rename(path, &aside)?;
        // Kept, it would only hide the next log's oldest records from its first rounds of compaction.
        if let Err(error) = self.set_cleaned_below(topic, index, None) {
            tracing::warn!(%error, dir = %self.path.display(), "cleaner checkpoint not written");
        }
        Ok(aside)
    }

    /// Writes recovery points, log starts and high watermarks of all logs that are open in this directory. What is known of
    /// others that are still there stays: records must not come back because their log was offline for a while.
    ///
    /// # Errors
    /// [`CheckpointError`]; each file then has its old text or its new one.
    pub fn checkpoint(&self, logs: &[Checkpointed<'_>]) -> Result<(), CheckpointError> {
        let mut known = self.known.lock();
        let key = |log: &Checkpointed<'_>| (log.topic.clone(), log.index);
        let open: HashSet<Key> = logs.iter().map(key).collect();
        let is_there = |(topic, index): &Key| {
            open.contains(&(topic.clone(), *index)) || self.partition_path(topic, *index).is_dir()
        };
        known.log_starts.retain(|key, _| is_there(key));
        known.high_watermarks.retain(|key, _| is_there(key));
        for log in logs {
            known.log_starts.insert(key(log), log.log.start().0);
            known.high_watermarks.insert(key(log), log.high_watermark);
        }
        // A log that is not open is checked from its beginning when it comes back: nobody can say what reached the disk.
        known.recovery_points = logs.iter().map(|log| (key(log), log.log.recovery_point())).collect();
        // The log start first: a log must not come back with records that were deleted.
        self.write_offsets(LOG_STARTS, &known.log_starts)?;
        self.write_offsets(RECOVERY_POINTS, &known.recovery_points)?;
        self.write_offsets(HIGH_WATERMARKS, &known.high_watermarks)
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

fn remove_deleted(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().ends_with(DELETE_SUFFIX.as_bytes()) && entry.path().is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::ownership::META_PROPERTIES;
    use crate::local::tests::{all, at, batch, client, ms, values};

    fn owner() -> LogDirOwner {
        LogDirOwner { cluster_id: "abc".into(), node: BrokerId(3) }
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    fn open_log(dir: &LogDir, name: &str, id: TopicId) -> (LocalLog, Recovered) {
        dir.open_log(&topic(name), id, PartitionIndex(0), Arc::default(), ms(1)).unwrap()
    }

    #[test]
    fn a_directory_belongs_to_one_broker_of_one_cluster_and_one_process() {
        let at = tempfile::tempdir().unwrap();
        let dir = LogDir::open(at.path(), &owner()).unwrap();
        assert!(matches!(LogDir::open(at.path(), &owner()), Err(LogDirError::Locked(_))));
        let id = dir.directory_id().to_owned();
        drop(dir);
        let text = fs::read_to_string(at.path().join(META_PROPERTIES)).unwrap();
        assert_eq!(text, format!("#\ncluster.id=abc\ndirectory.id={id}\nnode.id=3\nversion=1\n"));
        for stranger in
            [LogDirOwner { cluster_id: "x".into(), ..owner() }, LogDirOwner { node: BrokerId(4), ..owner() }]
        {
            assert!(matches!(LogDir::open(at.path(), &stranger), Err(LogDirError::Foreign { .. })));
        }
        assert_eq!(LogDir::open(at.path(), &owner()).unwrap().directory_id(), id);
    }

    #[test]
    fn a_clean_shutdown_saves_the_next_start_from_reading() {
        let at_path = tempfile::tempdir().unwrap();
        let (dir, id) = (LogDir::open(at_path.path(), &owner()).unwrap(), TopicId::random());
        assert!(!dir.was_clean());
        let (log, _) = open_log(&dir, "web.clicks-2", id);
        log.append(&batch(&["a", "b"]), client()).unwrap();
        log.close().unwrap();
        let name = topic("web.clicks-2");
        dir.set_cleaned_below(&name, PartitionIndex(0), Some(at(1))).unwrap();
        dir.mark_clean(&[Checkpointed { topic: &name, index: PartitionIndex(0), log: &log, high_watermark: at(2) }])
            .unwrap();
        drop((dir, log));
        let text = fs::read_to_string(at_path.path().join(RECOVERY_POINTS)).unwrap();
        assert_eq!(text, "0\n1\nweb.clicks-2 0 2\n");
        let dir = LogDir::open(at_path.path(), &owner()).unwrap();
        assert!(dir.was_clean());
        let partitions = dir.partitions().unwrap();
        assert_eq!((&partitions[0].topic, partitions[0].topic_id), (&name, Some(id)));
        assert_eq!(dir.high_watermark(&name, PartitionIndex(0)), Some(at(2)));
        assert_eq!(dir.cleaned_below(&name, PartitionIndex(0)), Some(at(1)));
        let (log, recovered) = open_log(&dir, "web.clicks-2", id);
        assert_eq!((all(&log), recovered), (values(&[(0, "a"), (1, "b")]), Recovered::default()));
        drop((dir, log));
        let dir = LogDir::open(at_path.path(), &owner()).unwrap();
        assert!(!dir.was_clean(), "the mark is good for one start");
        assert_eq!(open_log(&dir, "web.clicks-2", id).1.segments_checked, 1);
    }

    #[test]
    fn a_topic_made_again_under_its_name_starts_empty() {
        let at_path = tempfile::tempdir().unwrap();
        let dir = LogDir::open(at_path.path(), &owner()).unwrap();
        let (log, _) = open_log(&dir, "a", TopicId::random());
        log.append(&batch(&["old"]), client()).unwrap();
        let name = topic("a");
        dir.checkpoint(&[Checkpointed { topic: &name, index: PartitionIndex(0), log: &log, high_watermark: at(1) }])
            .unwrap();
        let (log, _) = open_log(&dir, "a", TopicId::random());
        assert_eq!(log.end().0, at(0));
        let aside = dir.delete_log(&name, PartitionIndex(0)).unwrap();
        assert!(aside.is_dir() && dir.partitions().unwrap().is_empty());
        drop(dir);
        LogDir::open(at_path.path(), &owner()).unwrap();
        assert!(!aside.exists(), "a deletion that a crash interrupts is finished at the next start");
    }

    #[test]
    fn a_log_that_was_offline_keeps_its_start_and_is_checked_when_it_comes_back() {
        let at_path = tempfile::tempdir().unwrap();
        let (a, b) = (TopicId::random(), TopicId::random());
        let (name_a, name_b) = (topic("a"), topic("b"));
        let of = |log, topic| Checkpointed { topic, index: PartitionIndex(0), log, high_watermark: at(1) };
        let dir = LogDir::open(at_path.path(), &owner()).unwrap();
        let (log_a, log_b) = (open_log(&dir, "a", a).0, open_log(&dir, "b", b).0);
        for log in [&log_a, &log_b] {
            log.append(&batch(&["x", "y"]), client()).unwrap();
            log.advance_log_start(at(1)).unwrap();
            log.close().unwrap();
        }
        dir.checkpoint(&[of(&log_a, &name_a), of(&log_b, &name_b)]).unwrap();
        dir.mark_clean(&[of(&log_a, &name_a)]).unwrap();
        drop((dir, log_a, log_b));
        let dir = LogDir::open(at_path.path(), &owner()).unwrap();
        let checked = |name, id| {
            let (log, recovered) = open_log(&dir, name, id);
            (log.start().0, recovered.segments_checked)
        };
        assert_eq!(checked("b", b), (at(1), 1), "the mark does not speak for it");
        assert_eq!(checked("a", a), (at(1), 0));
        assert_eq!(checked("a", a), (at(1), 1), "the mark is good for one open");
    }

    #[test]
    fn only_names_of_partitions_are_partitions() {
        for (name, parsed) in
            [("a-0", true), ("a-b-12", true), ("a", false), ("a-", false), ("-0", false), ("a-+1", false)]
        {
            assert_eq!(parse_partition(name).is_some(), parsed, "{name}");
        }
        assert_eq!(parse_partition("a-0.0123456789abcdef0123456789abcdef-delete"), None);
        let long = topic(&"x".repeat(249));
        let at_path = tempfile::tempdir().unwrap();
        let dir = LogDir::open(at_path.path(), &owner()).unwrap();
        fs::create_dir(dir.partition_path(&long, PartitionIndex(7))).unwrap();
        let aside = dir.delete_log(&long, PartitionIndex(7)).unwrap();
        assert_eq!(aside.file_name().unwrap().len(), 255);
    }
}
