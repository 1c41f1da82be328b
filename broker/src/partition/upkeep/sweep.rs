//! One look at one quiet log: sealed by `segment.ms`, and without an archive also shortened by retention. Blocks on the disk.

use std::io;

use tracing::{debug, warn};
use varve_log::local::{LocalLog, ReadError, RemovedFiles};
use varve_metadata::{
    config::TopicConfig,
    model::{HighWatermark, LogStartOffset, Timestamp},
};

use super::plan::{Retention, start_after};
use crate::partition::Partition;

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    /// The file system failed.
    #[error("storage failed")]
    Storage(#[from] io::Error),
    /// The log is damaged where retention had to look.
    #[error(transparent)]
    Damaged(ReadError),
}

impl From<ReadError> for SweepError {
    fn from(error: ReadError) -> SweepError {
        match error {
            ReadError::Storage(error) => SweepError::Storage(error),
            error @ (ReadError::Corrupt(_) | ReadError::OutOfRange { .. }) => SweepError::Damaged(error),
        }
    }
}

/// Looks at `partition`; returns what retention removed, to be purged after `file.delete.delay.ms`.
pub(super) fn sweep(partition: &Partition, config: &TopicConfig, is_archived: bool, now: Timestamp) -> RemovedFiles {
    let swept = seal(partition, now).and_then(|()| match is_archived {
        true => Ok(RemovedFiles::default()),
        false => retain(partition, Retention::of(config), now),
    });
    swept.unwrap_or_else(|error| {
        let (topic, index) = (partition.topic(), partition.id().index);
        if !partition.is_retired() {
            warn!(%topic, partition = %index, error = &error as &dyn std::error::Error, "upkeep of a log failed");
        }
        if let SweepError::Storage(error) = &error {
            partition.storage_failed(error);
        }
        RemovedFiles::default()
    })
}

/// Also flushes what the archiver sealed: it is this thread's turn, so a thousand logs that are sealed together are flushed one
/// after the other.
fn seal(partition: &Partition, now: Timestamp) -> Result<(), SweepError> {
    let log = partition.log();
    log.roll_if_due(now, None).map_err(io::Error::from)?;
    let (active, ..) = log.active();
    if log.recovery_point() < active {
        log.flush(active).map_err(|error| {
            // What the page cache held may be lost: not a full disk's weather.
            if !partition.is_retired() {
                partition.log_dir().fail(&error);
            }
            io::Error::from(error)
        })?;
    }
    Ok(())
}

/// The log start first, then the files: records must not seem to be there when they are not.
fn retain(partition: &Partition, retention: Retention, now: Timestamp) -> Result<RemovedFiles, SweepError> {
    let log = partition.log();
    if !retention.is_for_ever() {
        let HighWatermark(committed) = partition.high_watermark();
        let local_start = log.local_start();
        let expired = log.expired_below(now, retention.time, retention.bytes, committed)?;
        if let Some(start) = start_after(local_start, expired) {
            log.advance_log_start(start)?;
        }
    }
    let LogStartOffset(start) = log.start();
    let removed = log.delete_local_below(start).map_err(io::Error::from)?;
    if removed.segments > 0 {
        debug_removed(partition, log, &removed);
    }
    Ok(removed)
}

fn debug_removed(partition: &Partition, log: &LocalLog, removed: &RemovedFiles) {
    debug!(
        topic = %partition.topic(), partition = %partition.id().index, start = %log.start().0,
        segments = removed.segments, bytes = removed.bytes, "segments expired"
    );
}
