//! Whose a directory is: `meta.properties` and `.lock` of a log directory, `partition.metadata` of a partition's.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

use rustix::fs::FlockOperation::NonBlockingLockExclusive;
use varve_metadata::model::TopicId;

use super::{
    checkpoint::{self, CheckpointError},
    error::LogDirError,
    log_dir::LogDirOwner,
};

pub(super) const META_PROPERTIES: &str = "meta.properties";
const LOCK: &str = ".lock";
pub(super) const PARTITION_METADATA: &str = "partition.metadata";
/// Tells of a log whose move to another directory was about to be complete. If that directory has the log, this is what was
/// left behind; if not, the move was not complete.
const MOVED_TO: &str = "moved-to";

/// Locks the directory against a process of ours (`flock`) and against one of Kafka's (`fcntl`).
pub(super) fn lock(dir: &Path) -> Result<File, LogDirError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(LOCK))?;
    let held = rustix::fs::flock(&file, NonBlockingLockExclusive)
        .and_then(|()| rustix::fs::fcntl_lock(&file, NonBlockingLockExclusive));
    match held {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Err(LogDirError::Locked(dir.to_owned())),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Checks that the directory is `owner`'s, or makes it so if it is nobody's. Returns its id, and whether it was nobody's.
pub(super) fn take_ownership(dir: &Path, owner: &LogDirOwner) -> Result<(String, bool), LogDirError> {
    let path = dir.join(META_PROPERTIES);
    let text = checkpoint::read(&path).map_err(storage)?;
    let known = parse_properties(&text);
    let node = owner.node.to_string();
    let foreign = |name, found: &str, expected: &str| LogDirError::Foreign {
        path: path.clone(),
        name,
        found: found.to_owned(),
        expected: expected.to_owned(),
    };
    for (name, expected) in [("version", "1"), ("cluster.id", owner.cluster_id.as_str()), ("node.id", &node)] {
        match known.get(name) {
            Some(found) if *found != expected => return Err(foreign(name, found, expected)),
            Some(_) => {}
            None if known.is_empty() => {}
            None => return Err(foreign(name, "", expected)),
        }
    }
    if let Some(id) = known.get("directory.id") {
        return Ok(((*id).to_owned(), false));
    }
    // Kafka's ids are all of one kind: random, in 22 characters of base64url.
    let id = TopicId::random().to_string();
    let text = format!("#\ncluster.id={}\ndirectory.id={id}\nnode.id={node}\nversion=1\n", owner.cluster_id);
    let was_new = known.is_empty();
    checkpoint::replace(&path, &text).map_err(storage)?;
    Ok((id, was_new))
}

/// The cluster whose logs are in the log directory `dir`; `None` if it is nobody's yet, or not there.
///
/// # Errors
/// The file that says so cannot be read.
pub fn cluster_of(dir: &Path) -> io::Result<Option<String>> {
    let text = checkpoint::read(&dir.join(META_PROPERTIES)).map_err(CheckpointError::into_io)?;
    Ok(parse_properties(&text).get("cluster.id").map(|id| (*id).to_owned()))
}

pub(super) fn storage(error: CheckpointError) -> LogDirError {
    match error {
        CheckpointError::Io(error) => error.into(),
        error @ CheckpointError::Malformed(_) => io::Error::new(io::ErrorKind::InvalidData, error).into(),
    }
}

/// Names and values of a properties file that needs no escapes.
fn parse_properties(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', '!']))
        .filter_map(|line| line.split_once(['=', ':']))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect()
}

/// `None` if the directory does not say whose it is, or not legibly.
pub(super) fn read_topic_id(dir: &Path) -> Option<TopicId> {
    let text = fs::read_to_string(dir.join(PARTITION_METADATA)).ok()?;
    let known = parse_properties(&text);
    if known.get("version") != Some(&"0") {
        return None;
    }
    known.get("topic_id")?.parse().ok()
}

/// Id of the directory that the log in `dir` is moving to; `None` if it is not.
pub(super) fn read_moved_to(dir: &Path) -> Option<String> {
    fs::read_to_string(dir.join(MOVED_TO)).ok().map(|text| text.trim().to_owned())
}

/// Writes down that the log in `dir` moves to the directory called `target`, on disk before this returns.
pub(super) fn write_moved_to(dir: &Path, target: &str) -> io::Result<()> {
    // Never empty, also after a kill: a mark that names no directory would keep the partition offline for good.
    checkpoint::replace(&dir.join(MOVED_TO), &format!("{target}\n")).map_err(CheckpointError::into_io)
}

/// Forgets it.
pub(super) fn remove_moved_to(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(MOVED_TO)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}

pub(super) fn write_topic_id(dir: &Path, id: TopicId) -> io::Result<()> {
    let temporary = dir.join(format!("{PARTITION_METADATA}.tmp"));
    fs::write(&temporary, format!("version: 0\ntopic_id: {id}\n"))?;
    fs::rename(temporary, dir.join(PARTITION_METADATA))
}
