//! Why the local log refuses, or could not.

use std::{io, path::PathBuf};

use varve_metadata::model::Offset;

use super::{
    producer_snapshot::SnapshotError, producer_state::ProducerError, scan::ScanError, txn_index::TxnIndexError,
    write::is_no_space,
};
use crate::format::BatchError;

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
    /// The producer's sequence, epoch or transaction does not allow it (KIP-98).
    #[error(transparent)]
    Producer(#[from] ProducerError),
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

impl AppendError {
    pub(super) fn storage(source: io::Error) -> AppendError {
        AppendError::Storage { no_space: is_no_space(&source), source }
    }
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

/// Why a log directory cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LogDirError {
    /// Another process has it.
    #[error("log directory {0} is in use by another process")]
    Locked(PathBuf),
    /// It belongs to another broker or cluster, or is of a version that we do not know.
    #[error("{path} says {name}={found}, where {expected} was expected")]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// What differs.
        name: &'static str,
        /// Whose it is; empty if it does not say.
        found: String,
        /// Whose it should be.
        expected: String,
    },
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

impl From<RollError> for io::Error {
    fn from(error: RollError) -> io::Error {
        let RollError::Storage(error) = error;
        error
    }
}

impl From<RollError> for OpenError {
    fn from(error: RollError) -> OpenError {
        OpenError::Storage(error.into())
    }
}

impl From<SnapshotError> for RollError {
    fn from(error: SnapshotError) -> RollError {
        RollError::Storage(match error {
            SnapshotError::Io(error) => error,
            error @ SnapshotError::Corrupt(_) => io::Error::new(io::ErrorKind::InvalidData, error),
        })
    }
}

impl From<TxnIndexError> for RollError {
    fn from(error: TxnIndexError) -> RollError {
        RollError::Storage(match error {
            TxnIndexError::Io { source, .. } => source,
            error @ TxnIndexError::Corrupt(_) => io::Error::new(io::ErrorKind::InvalidData, error),
        })
    }
}

impl From<ScanError> for ReadError {
    fn from(error: ScanError) -> ReadError {
        match error {
            ScanError::Io(error) => error.into(),
            ScanError::Batch(error) => error.into(),
        }
    }
}
