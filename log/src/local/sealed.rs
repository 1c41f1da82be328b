//! A segment that never changes again.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    time::UNIX_EPOCH,
};

use parking_lot::Mutex;
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

use super::{
    active::Newest,
    files::{LOG, SegmentFiles, TIME_INDEX},
    index::{IndexFile, TimeEntry},
};

/// A sealed segment of a local log: what can be uploaded, archived and deleted. Its files never change again; they may
/// disappear once the log deletes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// First offset that the segment may hold, which names its files.
    pub base: Offset,
    /// The next segment's base offset: one past the last offset that this one may hold.
    pub end: Offset,
    /// Size of the `.log` file.
    pub bytes: u64,
    /// Largest record timestamp; `None` if no record has one.
    pub max_timestamp: Option<Timestamp>,
    /// Leader epochs of the offsets within, each with the first of its offsets here.
    pub leader_epochs: Vec<(LeaderEpoch, Offset)>,
    /// The record batches.
    pub log_path: PathBuf,
    /// Offset index: relative offset and position, big-endian u32 each.
    pub offset_index_path: PathBuf,
    /// Time index: timestamp i64 and relative offset u32.
    pub time_index_path: PathBuf,
    /// Aborted transactions that ended in this segment; `None` if there are none.
    pub txn_index_path: Option<PathBuf>,
    /// Producer state as of `end`; `None` if it was not kept.
    pub producer_snapshot_path: Option<PathBuf>,
}

/// What the log keeps in memory of a sealed segment. Files are opened when read and closed when the last reader is done.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) files: SegmentFiles,
    pub(super) bytes: u32,
    newest: OnceLock<Option<Newest>>,
    file: Mutex<Weak<File>>,
    /// Set once another file is about to have this one's name.
    replaced: OnceLock<Arc<File>>,
}

impl Sealed {
    pub(super) fn known(files: SegmentFiles, bytes: u32, newest: Option<Newest>, file: &Arc<File>) -> Sealed {
        Sealed {
            files,
            bytes,
            newest: newest.into(),
            file: Mutex::new(Arc::downgrade(file)),
            replaced: OnceLock::new(),
        }
    }

    /// A segment found on disk, whose size is `bytes`.
    pub(super) const fn found(files: SegmentFiles, bytes: u32) -> Sealed {
        Sealed { files, bytes, newest: OnceLock::new(), file: Mutex::new(Weak::new()), replaced: OnceLock::new() }
    }

    pub(super) const fn base(&self) -> Offset {
        self.files.base()
    }

    /// The `.log` file, shared with whoever else reads it.
    pub(super) fn open(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.replaced.get() {
            return Ok(Arc::clone(file));
        }
        let mut slot = self.file.lock();
        if let Some(file) = slot.upgrade() {
            return Ok(file);
        }
        let file = Arc::new(File::open(self.files.path(LOG))?);
        *slot = Arc::downgrade(&file);
        Ok(file)
    }

    /// Keeps the present file for those who found this segment in the log and have not opened it yet: what takes its name
    /// is another segment's.
    pub(super) fn keep_file(&self) -> io::Result<()> {
        let file = self.open()?;
        self.replaced.get_or_init(|| file);
        Ok(())
    }

    /// Largest timestamp and its offset, out of the time index's last entry.
    pub(super) fn newest(&self) -> io::Result<Option<Newest>> {
        if let Some(newest) = self.newest.get() {
            return Ok(*newest);
        }
        let last = match IndexFile::<TimeEntry>::open(&self.files.path(TIME_INDEX))? {
            Some(index) if index.len() > 0 => Some(index.get(index.len() - 1)?),
            _ => None,
        };
        let newest = last.filter(|last| last.timestamp_ms >= 0).map(|last| Newest {
            timestamp_ms: last.timestamp_ms,
            offset: self.base().plus(last.relative_offset.into()),
        });
        Ok(*self.newest.get_or_init(|| newest))
    }

    pub(super) fn max_timestamp(&self) -> io::Result<Option<Timestamp>> {
        Ok(self.newest()?.and_then(|newest| Timestamp::from_wire(newest.timestamp_ms)))
    }

    /// The time that retention counts from: the largest timestamp, or else when the file was last written.
    pub(super) fn retention_timestamp(&self) -> io::Result<Timestamp> {
        if let Some(max) = self.max_timestamp()? {
            return Ok(max);
        }
        let modified = fs::metadata(self.files.path(LOG))?.modified()?;
        let millis = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Ok(i64::try_from(millis).ok().and_then(Timestamp::from_wire).unwrap_or_default())
    }
}
