//! DeleteRecords: the log start moves forward, over both tiers.

use varve_log::local::ReadError;
use varve_metadata::model::{HighWatermark, LogStartOffset, Offset};

use super::Partition;

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
    /// the course of retention. Returns the log start, which is larger if it was before.
    ///
    /// # Errors
    /// [`DeleteRecordsError`]: nothing changed.
    pub fn delete_records(&self, before: Option<Offset>) -> Result<LogStartOffset, DeleteRecordsError> {
        if self.log_dir().is_failed() {
            return Err(DeleteRecordsError::Offline);
        }
        let HighWatermark(high_watermark) = self.high_watermark();
        let offset = before.unwrap_or(high_watermark);
        if offset > high_watermark {
            return Err(DeleteRecordsError::BeyondHighWatermark { offset, high_watermark });
        }
        self.log().advance_log_start(offset).map_err(DeleteRecordsError::Failed)?;
        Ok(self.log_start())
    }
}
