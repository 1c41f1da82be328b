//! Forcing appended records to disk: one fsync for everybody who waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::error;
use varve_metadata::model::{LogEndOffset, Offset};

use super::{Partition, Partitions};

/// The disk did not take what the page cache holds. Nothing is known about what reached it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("records could not be forced to disk: {0}")]
pub struct FlushError(pub(super) String);

/// Serialises the flushes of one partition.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    turn: tokio::sync::Mutex<()>,
    /// Milliseconds of [`flush_when_due`]'s clock at which it first saw records that are not on disk; 0 if there are none.
    dirty_since: AtomicU64,
}

impl Partition {
    /// Whether an append that ended at `end` has to be followed by [`committed`](Self::committed): its records are not
    /// visible yet, since `flush.messages` is set or was when it began.
    pub fn must_wait(&self, end: LogEndOffset) -> bool {
        self.high_watermark().0 < end.0
    }

    /// Returns once everything below `end` is committed: at once, unless `flush.messages` asks for a flush.
    ///
    /// Whoever comes while a flush runs waits for the next one, which covers all of them. Cancel-safe: a flush that
    /// began runs to its end.
    ///
    /// # Errors
    /// [`FlushError`]: the records are in the log, and may or may not survive a loss of power.
    pub async fn committed(self: &Arc<Partition>, end: LogEndOffset) -> Result<(), FlushError> {
        let LogEndOffset(end) = end;
        let pending = end.since(self.log().recovery_point());
        if self.log().config().flush_messages.is_none_or(|records| pending < records.max(1)) {
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
        let _turn = self.flush_queue().turn.lock().await;
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
            // After a failed fsync the kernel may have dropped the pages: nothing of this directory is trusted any more,
            // unless the topic was deleted meanwhile, and its directory with it.
            if !self.is_retired() {
                self.log_dir().fail(&error);
            }
            FlushError(error.to_string())
        })
    }

    /// Forces a sealed segment to disk when there is time: nobody waits for it, and a crash before it costs a check of
    /// the segment.
    pub(super) fn flush_in_background(self: &Arc<Partition>, upto: Offset) {
        let partition = self.clone();
        // Outside of a runtime there is no background; the log's own close flushes then.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { partition.flush_or_log(upto).await });
        }
    }

    async fn flush_or_log(self: &Arc<Partition>, upto: Offset) {
        if let Err(error) = self.flushed(upto).await
            && !self.is_retired()
        {
            error!(topic = %self.topic(), partition = %self.id().index, %error, "flush failed");
        }
    }

    /// Whether records have waited for the disk for as long as `flush.ms` allows. `now` in milliseconds, above 0.
    fn is_flush_due(&self, now: u64) -> bool {
        let Some(interval) = self.log().config().flush_interval else { return false };
        let since = &self.flush_queue().dirty_since;
        let LogEndOffset(end) = self.log().end();
        if end <= self.log().recovery_point() {
            since.store(0, Ordering::Relaxed);
            return false;
        }
        match since.load(Ordering::Relaxed) {
            0 => {
                since.store(now, Ordering::Relaxed);
                interval.is_zero()
            }
            first => u128::from(now.saturating_sub(first)) >= interval.as_millis(),
        }
    }
}

/// Forces each log to disk that has waited for `flush.ms`; looks every `tick`, until `stop` is cancelled.
pub async fn flush_when_due(partitions: Arc<Partitions>, tick: Duration, stop: CancellationToken) {
    let start = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(tick) => {}
        }
        let now = start.elapsed().as_millis() as u64 + 1;
        for partition in partitions.all().into_iter().filter(|partition| partition.is_flush_due(now)) {
            partition.flush_or_log(partition.log().end().0).await;
            partition.flush_queue().dirty_since.store(0, Ordering::Relaxed);
        }
    }
}
