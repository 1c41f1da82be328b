//! From the log to committed: forced to disk, with one fsync for everybody who waits, and on the other replicas.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::error;
use varve_metadata::model::{LeaderEpoch, LogEndOffset, Offset};

use super::{Partition, Partitions, Waiter};

/// The disk did not take what the page cache holds. Nothing is known about what reached it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("records could not be forced to disk: {0}")]
pub struct FlushError(pub(super) String);

/// Why records are not known to be committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// They may or may not survive a loss of power.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// Leadership ended first: another leader may have them or not.
    #[error("this broker does not lead the partition any more")]
    NotLeader,
}

/// Partitions with `flush.ms` that took records since they were last flushed: nobody looks at the others.
#[derive(Debug, Default)]
pub(super) struct Unflushed(Mutex<Vec<Arc<Partition>>>);

impl Unflushed {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Serialises the flushes of one partition.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    turn: tokio::sync::Mutex<()>,
    /// Milliseconds of [`flush_when_due`]'s clock at which it first saw records that are not on disk; 0 if there are none.
    dirty_since: AtomicU64,
    /// The node's list; absent until the partition is in the node's table.
    unflushed: OnceLock<Arc<Unflushed>>,
    /// Whether this partition is in it, or in the hands of [`flush_when_due`].
    is_listed: AtomicBool,
}

#[cfg(test)]
impl FlushQueue {
    /// Keeps everybody else from flushing.
    pub(super) async fn take_turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Partition {
    /// Whether an append that ended at `end` has to be followed by [`committed_in`](Self::committed_in) before it is
    /// acknowledged: its records are not visible yet, since `flush.messages` is set or was when it began, or since other
    /// replicas lack them.
    pub fn must_wait(&self, end: LogEndOffset) -> bool {
        self.high_watermark().0 < end.0
    }

    /// Whether what was appended in `epoch` and ended at `end` is committed: if not, [`committed_in`](Self::committed_in) waits
    /// for that, or says that it will not come from here.
    pub fn is_committed_in(&self, epoch: LeaderEpoch, end: LogEndOffset) -> bool {
        // In this order: what another leader commits is not what was appended here.
        !self.must_wait(end) && self.leads_in(epoch)
    }

    /// Returns once everything below `end` is committed, as [`committed_in`](Self::committed_in) does in the present epoch.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn committed(self: &Arc<Partition>, end: LogEndOffset) -> Result<(), CommitError> {
        self.committed_in(self.leader_epoch(), end).await
    }

    /// Returns once everything below `end`, which was appended in `epoch`, is committed: kept here, and on every replica in
    /// sync. Cancel-safe as [`kept`](Self::kept) is.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn committed_in(self: &Arc<Partition>, epoch: LeaderEpoch, end: LogEndOffset) -> Result<(), CommitError> {
        self.kept(end).await?;
        if self.must_wait(end) {
            let waiter = Waiter::default();
            let _watch = self.watch(&waiter);
            // In this order: what another leader commits is not what was appended here.
            while self.must_wait(end) && self.leads_in(epoch) {
                waiter.woken().await;
            }
        }
        if self.leads_in(epoch) { Ok(()) } else { Err(CommitError::NotLeader) }
    }

    /// Returns once everything below `end` is kept here: at once, unless `flush.messages` asks for a flush.
    ///
    /// Whoever comes while a flush runs waits for the next one, which covers all of them. Cancel-safe: the records are flushed
    /// and become visible also when nobody waits for it any more.
    ///
    /// # Errors
    /// [`FlushError`]: the records are in the log, and may or may not survive a loss of power.
    pub async fn kept(self: &Arc<Partition>, end: LogEndOffset) -> Result<(), FlushError> {
        let LogEndOffset(end) = end;
        let Some(most) = self.log().config().flush_messages else {
            // Set when it was appended, maybe.
            if self.must_wait(LogEndOffset(end)) {
                self.kept_below(&self.role().read(), end);
            }
            return Ok(());
        };
        if end.since(self.log().recovery_point()) < most.max(1) {
            self.kept_below(&self.role().read(), end);
            return Ok(());
        }
        let partition = self.clone();
        let flush = tokio::spawn(async move { partition.flushed(end).await });
        flush.await.map_err(|panic| FlushError(panic.to_string()))?
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
            partition.log().flush(upto).map(|()| {
                // Less, if it was cut meanwhile.
                let upto = upto.min(partition.log().recovery_point());
                partition.kept_below(&partition.role().read(), upto);
            })
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

    /// From now on the partition's `flush.ms` is kept by way of `unflushed`.
    pub(super) fn list_unflushed_in(self: &Arc<Partition>, unflushed: Arc<Unflushed>) {
        let _ = self.flush_queue().unflushed.set(unflushed);
        self.note_unflushed();
    }

    /// Has the partition looked at for `flush.ms` if it has any and holds what is not on disk.
    pub(super) fn note_unflushed(self: &Arc<Partition>) {
        let queue = self.flush_queue();
        let waits = self.log().config().flush_interval.is_some() && self.log().end().0 > self.log().recovery_point();
        if let Some(list) = queue.unflushed.get().filter(|_| waits)
            && !queue.is_listed.swap(true, Ordering::SeqCst)
        {
            list.0.lock().push(Arc::clone(self));
        }
    }

    /// Flushes if records have waited for as long as `flush.ms` allows. Returns whether there are some that have to wait
    /// longer. `now` in milliseconds, above 0.
    async fn flush_if_due(self: &Arc<Partition>, now: u64) -> bool {
        let Some(interval) = self.log().config().flush_interval.filter(|_| !self.is_retired()) else { return false };
        let since = &self.flush_queue().dirty_since;
        let LogEndOffset(end) = self.log().end();
        if end > self.log().recovery_point() && !self.log_dir().is_failed() {
            let first = match since.load(Ordering::Relaxed) {
                0 => now,
                first => first,
            };
            since.store(first, Ordering::Relaxed);
            if u128::from(now.saturating_sub(first)) < interval.as_millis() {
                return true;
            }
            self.flush_or_log(end).await;
        }
        since.store(0, Ordering::Relaxed);
        false
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
        flush_due(partitions.unflushed(), start.elapsed().as_millis() as u64 + 1).await;
    }
}

/// One look. `now` in milliseconds, above 0.
pub(super) async fn flush_due(unflushed: &Unflushed, now: u64) {
    let listed = std::mem::take(&mut *unflushed.0.lock());
    for partition in listed {
        if partition.flush_if_due(now).await {
            unflushed.0.lock().push(partition);
            continue;
        }
        partition.flush_queue().is_listed.store(false, Ordering::SeqCst);
        // Appended since, when it was still listed.
        if !partition.is_retired() && !partition.log_dir().is_failed() {
            partition.note_unflushed();
        }
    }
}
