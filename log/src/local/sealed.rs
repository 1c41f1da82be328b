//! A segment that never changes again.

use std::path::PathBuf;

use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

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
    /// Leader epochs of the offsets within, each with the first of its offsets here; the first entry starts at `base`.
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
