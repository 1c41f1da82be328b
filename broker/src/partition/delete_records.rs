//! DeleteRecords: the log start moves forward, over both tiers.

use std::{io, sync::Arc, time::Duration};

use tokio::time::timeout;
use varve_log::local::{ReadError, checkpoint::CheckpointError};
use varve_metadata::model::{HighWatermark, LeaderEpoch, LogStartOffset, Offset};

use super::{Partition, Waiter};

/// How often is looked which brokers are in service: nothing of the partition changes when a follower outside of the ISR ends.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why records are not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// The log directory failed.
    #[error("the partition's log directory is offline")]
    Offline,
    /// Only committed records can be deleted.
    #[error("offset {offset} is beyond the high watermark {high_watermark}")]
    BeyondHighWatermark {
        /// The offset asked for.
        offset: Offset,
        /// What could be asked for at most.
        high_watermark: Offset,
    },
    /// The log cannot be changed.
    #[error("the local log cannot be changed")]
    Failed(#[source] ReadError),
}

impl Partition {
    /// Makes everything before `before` unreadable, or everything committed if it is `None`. Files and objects go later, in
    /// the course of retention. Returns the first offset that is not deleted by this: the log may start later. It survives a crash
    /// once [`save_log_starts`] wrote it down, and another leader once [`deleted_below`](Self::deleted_below) returned.
    ///
    /// # Errors
    /// [`DeleteRecordsError`]: nothing changed.
    pub fn delete_records(&self, before: Option<Offset>) -> Result<Offset, DeleteRecordsError> {
        if self.log_dir().is_failed() {
            return Err(DeleteRecordsError::Offline);
        }
        let HighWatermark(high_watermark) = self.high_watermark();
        let offset = before.unwrap_or(high_watermark);
        if offset > high_watermark {
            return Err(DeleteRecordsError::BeyondHighWatermark { offset, high_watermark });
        }
        self.log().advance_log_start(offset).map_err(DeleteRecordsError::Failed)?;
        self.wake_followers();
        Ok(offset)
    }

    /// Returns once every replica that may come to lead starts at `offset` or later: with the smallest of their log starts, or
    /// `None` if this broker does not lead in `epoch` any more. Cancel-safe.
    pub async fn deleted_below(&self, epoch: LeaderEpoch, offset: Offset) -> Option<LogStartOffset> {
        let waiter = Waiter::default();
        let _watch = self.watch(&waiter);
        loop {
            let start = self.low_watermark(epoch)?;
            if start.0 >= offset {
                return Some(start);
            }
            // In both cases it looks.
            let _ = timeout(LOOK_AGAIN, waiter.woken()).await;
        }
    }
}

/// Writes down where these partitions start, with one write for all that share a directory. Blocks on the disk. Returns those
/// for which it failed: their records cannot be read, and may be back after a crash.
pub fn save_log_starts(partitions: &[Arc<Partition>]) -> Vec<Arc<Partition>> {
    let mut rest: Vec<_> = partitions.iter().collect();
    let mut failed = Vec::new();
    while let Some(dir) = rest.first().map(|partition| partition.log_dir()) {
        let here: Vec<_> = rest.extract_if(.., |partition| Arc::ptr_eq(&partition.log_dir(), &dir)).collect();
        let logs: Vec<_> =
            here.iter().map(|partition| (partition.topic(), partition.id().index, partition.log())).collect();
        let saved = dir.files().ok_or_else(|| io::Error::other("the log directory is offline").into());
        if let Err(error) = saved.and_then(|files| files.save_log_starts(&logs)) {
            if let CheckpointError::Io(error) = &error {
                here[0].storage_failed(error);
            }
            failed.extend(here.into_iter().cloned());
        }
    }
    failed
}
