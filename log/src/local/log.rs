//! The log of one partition.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use varve_metadata::model::{LeaderEpoch, LogEndOffset, LogStartOffset, Offset, Timestamp};

use super::{config::LogConfig, sealed::SealedSegment, txn_index::AbortedTxn};
use crate::format::BatchError;

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: everything is checked, offsets are assigned.
    Client,
    /// A coordinator of this broker: offsets are assigned, control batches are allowed, batch size is not limited.
    Coordinator,
    /// A leader elsewhere: the batches come with their offsets and epochs, and are kept so.
    Replication,
}

/// The circumstances of an append.
#[derive(Clone, Copy, Debug)]
pub struct AppendContext {
    /// Epoch in which this broker leads the partition; stamped on each batch.
    pub leader_epoch: LeaderEpoch,
    /// The wall clock.
    pub now: Timestamp,
    /// Who appends.
    pub origin: AppendOrigin,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base: Offset,
    /// Offset of the last record.
    pub last: Offset,
    /// The timestamp all records got, if the topic's timestamp type is LogAppendTime.
    pub log_append_time: Option<Timestamp>,
    /// The batch was appended before (KIP-98): `base` and `last` are those of then, and nothing was written.
    pub duplicate: bool,
    /// The log's start offset.
    pub log_start: LogStartOffset,
    /// The log's end offset after this append.
    pub end: LogEndOffset,
}

/// What is wrong with one record of a refused batch (KIP-467).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A compacted topic keeps the last record per key, so a record needs one.
    #[error("Compacted topic cannot accept message without key")]
    MissingKey,
    /// The CreateTime is too far from the broker's clock.
    #[error(
        "Timestamp {timestamp_ms} of message is out of range. The timestamp should be within [{earliest_ms}, {latest_ms}]"
    )]
    TimestampOutOfRange {
        /// The record's timestamp in milliseconds.
        timestamp_ms: i64,
        /// Earliest accepted, in milliseconds.
        earliest_ms: i64,
        /// Latest accepted, in milliseconds.
        latest_ms: i64,
    },
    /// The producer claims that its timestamps are the broker's.
    #[error("Producer should not set timestamp type to LogAppendTime")]
    TimestampType,
}

/// A refused record: its place within the batch, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordProblem {
    /// Index within the batch, from 0.
    pub index: u32,
    /// What is wrong with it.
    pub fault: RecordFault,
}

/// Why an append was refused. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are no record batches (CORRUPT_MESSAGE, or UNSUPPORTED_FOR_MESSAGE_FORMAT for old magic).
    #[error("record batch refused")]
    Batch(#[from] BatchError),
    /// A batch is larger than `max.message.bytes` (MESSAGE_TOO_LARGE).
    #[error("record batch of {bytes} bytes, where {limit} are allowed")]
    TooLarge {
        /// Size of the batch.
        bytes: u32,
        /// `max.message.bytes`.
        limit: u32,
    },
    /// All batches of one append together do not fit a segment (RECORD_LIST_TOO_LARGE).
    #[error("append of {bytes} bytes, where a segment holds {limit}")]
    LargerThanSegment {
        /// Size of the append.
        bytes: u64,
        /// `segment.bytes`.
        limit: u32,
    },
    /// The batch contradicts itself or may not come from a client (INVALID_RECORD).
    #[error("invalid record batch: {reason}")]
    InvalidBatch {
        /// What does not hold.
        reason: &'static str,
    },
    /// Single records are refused: INVALID_TIMESTAMP if any has a [timestamp fault](RecordFault), else INVALID_RECORD.
    #[error("{} records refused", problems.len())]
    InvalidRecords {
        /// The refused records in order.
        problems: Vec<RecordProblem>,
    },
    /// Replicated batches do not ascend, or start before the log's end.
    #[error("batch at offset {found}, where the log ends at {expected}")]
    OutOfOrderOffsets {
        /// The log's end, or the offset behind the batch before.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// The file system failed (KAFKA_STORAGE_ERROR). The log is as it was before.
    #[error("storage failed")]
    Storage {
        /// The disk or quota is full: later appends succeed once there is space again.
        no_space: bool,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a read found nothing to give.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the local log: below `local_start` it may be in the archive.
    #[error("offset is outside of {local_start} to {end}")]
    OutOfRange {
        /// First offset on the local disk.
        local_start: Offset,
        /// The log's end.
        end: Offset,
    },
    /// The file system failed.
    #[error("storage failed")]
    Storage(#[from] io::Error),
    /// Bytes on the disk are not what was written.
    #[error("local log is damaged")]
    Corrupt(#[from] BatchError),
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system failed.
    #[error("storage failed")]
    Storage(#[from] io::Error),
}

/// Why a segment could not be rolled, flushed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum RollError {
    /// The file system failed.
    #[error("storage failed")]
    Storage(#[from] io::Error),
}

/// A run of whole batches within one segment file, readable as long as the value lives, even if the log deletes it.
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// The segment's `.log` file.
    pub file: Arc<File>,
    /// Where the run starts, in bytes.
    pub position: u64,
    /// Its length in bytes; 0 if there is nothing to read yet.
    pub len: u32,
    /// Base offset of its first batch, which may lie below the offset asked for; the offset asked for if empty.
    pub first: Offset,
}

impl LogSlice {
    /// The bytes of the run.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; self.len as usize];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes)
    }
}

/// What was known about a log when it was last open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryStart {
    /// The log directory was shut down cleanly: nothing needs to be checked.
    pub clean: bool,
    /// All below was flushed to disk; segments above are checked after an unclean shutdown.
    pub recovery_point: Offset,
    /// The log's start offset.
    pub log_start: Offset,
}

impl RecoveryStart {
    /// For a partition that never had a log here.
    pub const NEW: RecoveryStart = RecoveryStart { clean: true, recovery_point: Offset::ZERO, log_start: Offset::ZERO };
}

/// What opening a log found and repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments whose batches were checked.
    pub segments_checked: u32,
    /// Bytes cut off because they were no whole batches, or lay behind such bytes.
    pub bytes_cut: u64,
}

/// An offset with its record's timestamp, as ListOffsets answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp.
    pub timestamp: Timestamp,
    /// The leader epoch of its batch.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Files that a log no longer uses, renamed to `.deleted`. They stay until [`purge`](Self::purge) so that a slow reader
/// that knows only their path can finish (`file.delete.delay.ms`); what a crash leaves goes at the next open.
#[derive(Debug, Default)]
#[must_use = "files stay until purged"]
pub struct RemovedFiles {
    /// The renamed files.
    pub paths: Vec<PathBuf>,
    /// Sum of the `.log` files' sizes.
    pub bytes: u64,
    /// Number of segments.
    pub segments: u32,
}

impl RemovedFiles {
    /// Deletes the files. Those that are gone already are no error.
    ///
    /// # Errors
    /// The first failure of the file system, after trying all.
    pub fn purge(self) -> io::Result<()> {
        todo!()
    }
}

/// The local log of one partition. One writer at a time holds its lock; readers do not wait for writes.
#[derive(Debug)]
pub struct LocalLog {
    _dir: PathBuf,
}

impl LocalLog {
    /// Opens the log in directory `dir`, which is made if missing. After an unclean shutdown the segments above the
    /// recovery point are checked and a torn tail is cut.
    ///
    /// # Errors
    /// [`OpenError::Storage`] if the file system fails.
    pub fn open(
        _dir: &Path,
        _config: Arc<LogConfig>,
        _start: RecoveryStart,
        _now: Timestamp,
    ) -> Result<(LocalLog, Recovered), OpenError> {
        todo!()
    }

    /// Appends whole batches: checked, offsets and leader epoch assigned, all or nothing. Copies no batch.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was written.
    pub fn append(&self, _batches: &[u8], _context: AppendContext) -> Result<Appended, AppendError> {
        todo!()
    }

    /// Finds whole batches from the one that holds `from`, within one segment, of at most `max_bytes`, all of whose
    /// offsets lie below `bound`. With `at_least_one` the first batch comes even if it exceeds `max_bytes`.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `from` is below [`local_start`](Self::local_start) or beyond [`end`](Self::end).
    pub fn read(
        &self,
        _from: Offset,
        _bound: Offset,
        _max_bytes: u32,
        _at_least_one: bool,
    ) -> Result<LogSlice, ReadError> {
        todo!()
    }

    /// First offset readable in any tier.
    pub fn start(&self) -> LogStartOffset {
        todo!()
    }

    /// First offset on the local disk, or the log start if that is larger.
    pub fn local_start(&self) -> Offset {
        todo!()
    }

    /// The offset the next record will get.
    pub fn end(&self) -> LogEndOffset {
        todo!()
    }

    /// First offset of the oldest transaction that is open, or whose end is not yet below `high_watermark`'s reach.
    pub fn first_unstable(&self) -> Option<Offset> {
        todo!()
    }

    /// Bytes of all local segments.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        todo!()
    }

    /// Puts new settings in force.
    pub fn update_config(&self, _config: Arc<LogConfig>) {
        todo!()
    }

    /// The partition's directory.
    pub fn dir(&self) -> &Path {
        todo!()
    }

    /// First record at or after `from` with a timestamp of `target` or later, among local segments.
    ///
    /// # Errors
    /// [`ReadError`] of the file system.
    pub fn offset_for_timestamp(
        &self,
        _target: Timestamp,
        _from: Offset,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        todo!()
    }

    /// The first record that has the largest timestamp among local segments (KIP-734).
    ///
    /// # Errors
    /// [`ReadError`] of the file system.
    pub fn max_timestamp_offset(&self) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        todo!()
    }

    /// The largest known epoch not above `epoch`, and the offset behind its last record (KIP-279).
    pub fn end_of_epoch(&self, _epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        todo!()
    }

    /// Epoch of the last record, if any epoch is known.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        todo!()
    }

    /// Epoch of the record at `offset`, if known.
    pub fn epoch_at(&self, _offset: Offset) -> Option<LeaderEpoch> {
        todo!()
    }

    /// The aborted transactions that a reader of `from..to` meets.
    ///
    /// # Errors
    /// [`ReadError`] of the file system.
    pub fn aborted(&self, _from: Offset, _to: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        todo!()
    }

    /// Seals the active segment if `segment.ms` (against the wall clock) or `lag` has passed since its first record, and
    /// starts a new one. Returns the new base offset if it did.
    ///
    /// # Errors
    /// [`RollError::Storage`]; the log stays as it was.
    pub fn roll_if_due(&self, _now: Timestamp, _lag: Option<Duration>) -> Result<Option<Offset>, RollError> {
        todo!()
    }

    /// Seals the active segment and starts a new one, unless it is empty. Returns the base of the active segment.
    ///
    /// # Errors
    /// [`RollError::Storage`]; the log stays as it was.
    pub fn roll(&self, _now: Timestamp) -> Result<Offset, RollError> {
        todo!()
    }

    /// Forces everything below `upto` to disk and moves the recovery point there.
    ///
    /// # Errors
    /// [`RollError::Storage`]: nothing is known about what reached the disk.
    pub fn flush(&self, _upto: Offset) -> Result<(), RollError> {
        todo!()
    }

    /// All below was forced to disk.
    pub fn recovery_point(&self) -> Offset {
        todo!()
    }

    /// Moves the log start forward; files stay (see [`delete_local_below`](Self::delete_local_below)). Returns whether
    /// it moved. The caller persists it through the log directory's checkpoint.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `offset` is beyond the end.
    pub fn advance_log_start(&self, _offset: Offset) -> Result<bool, ReadError> {
        todo!()
    }

    /// Removes the sealed segments that end at or below `offset`. If that is the log's end, the active segment is sealed
    /// first and goes too.
    ///
    /// # Errors
    /// [`RollError::Storage`].
    pub fn delete_local_below(&self, _offset: Offset) -> Result<RemovedFiles, RollError> {
        todo!()
    }

    /// The offset below which local segments have outlived `time` or lie in front of the newest `bytes`; the local start
    /// if none has. Never beyond `limit` (what is committed, or archived).
    pub fn expired_below(
        &self,
        _now: Timestamp,
        _time: Option<Duration>,
        _bytes: Option<u64>,
        _limit: Offset,
    ) -> Offset {
        todo!()
    }

    /// Cuts the log so that it ends at `offset` (or at the start of the batch that holds it).
    ///
    /// # Errors
    /// [`RollError::Storage`].
    pub fn truncate_to(&self, _offset: Offset) -> Result<RemovedFiles, RollError> {
        todo!()
    }

    /// Empties the log; the next record gets `offset`, which becomes the local start. The log start becomes `log_start`.
    ///
    /// # Errors
    /// [`RollError::Storage`].
    pub fn truncate_fully(&self, _offset: Offset, _log_start: Offset) -> Result<RemovedFiles, RollError> {
        todo!()
    }

    /// The sealed segments that end above `from`, in order.
    ///
    /// # Errors
    /// [`RollError::Storage`].
    pub fn sealed_segments(&self, _from: Offset) -> Result<Vec<SealedSegment>, RollError> {
        todo!()
    }

    /// Base offset, size in bytes and first record's timestamp of the active segment.
    pub fn active(&self) -> (Offset, u64, Option<Timestamp>) {
        todo!()
    }

    /// Flushes everything and writes the producer snapshot: after this and a clean-shutdown mark nothing needs recovery.
    ///
    /// # Errors
    /// [`RollError::Storage`].
    pub fn close(&self) -> Result<(), RollError> {
        todo!()
    }
}
