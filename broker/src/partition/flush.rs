//! Forcing appended records to disk: one fsync for everybody who waits.

use std::sync::Arc;

use varve_metadata::model::{LogEndOffset, Offset};

use super::Partition;

/// The disk did not take what the page cache holds. Nothing is known about what reached it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("records could not be forced to disk: {0}")]
pub struct FlushError(pub(super) String);

/// Serialises the flushes of one partition.
#[derive(Debug, Default)]
pub(super) struct FlushQueue(tokio::sync::Mutex<()>);

impl Partition {
    /// Whether an append has to be followed by [`committed`](Self::committed): `flush.messages` is set.
    pub fn must_flush(&self) -> bool {
        self.log().config().flush_messages.is_some()
    }

    /// Returns once everything below `end` is committed: at once, unless `flush.messages` asks for a flush.
    ///
    /// Whoever comes while a flush runs waits for the next one, which covers all of them. Cancel-safe: a flush that
    /// began runs to its end.
    ///
    /// # Errors
    /// [`FlushError`]: the records are in the log, and may or may not survive a loss of power.
    pub async fn committed(self: &Arc<Partition>, end: LogEndOffset) -> Result<(), FlushError> {
        let Some(records) = self.log().config().flush_messages else { return Ok(()) };
        let LogEndOffset(end) = end;
        if end.since(self.log().recovery_point()) < records.max(1) {
            self.advance_high_watermark(end);
            return Ok(());
        }
        self.flushed(end).await
    }

    /// Forces everything below `end` to disk, together with whatever was appended since.
    ///
    /// # Errors
    /// [`FlushError`].
    pub async fn flushed(self: &Arc<Partition>, end: Offset) -> Result<(), FlushError> {
        if self.log().recovery_point() >= end {
            return Ok(());
        }
        let _turn = self.flush_queue().0.lock().await;
        if self.log().recovery_point() >= end {
            return Ok(());
        }
        let partition = self.clone();
        let flush = tokio::task::spawn_blocking(move || {
            let LogEndOffset(upto) = partition.log().end();
            partition.log().flush(upto).map(|()| partition.advance_high_watermark(upto))
        });
        let outcome = flush.await.map_err(|panic| FlushError(panic.to_string()))?;
        outcome.map_err(|error| {
            // After a failed fsync the kernel may have dropped the pages: nothing of this directory is trusted any more.
            self.log_dir().fail(&error);
            FlushError(error.to_string())
        })
    }
}
