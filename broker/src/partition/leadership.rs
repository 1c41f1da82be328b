//! One partition that this broker leads.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use varve_log::local::{AppendContext, AppendError, AppendOrigin, Appended, LocalLog, TransactionTerms, is_no_space};
use varve_metadata::model::{
    HighWatermark, LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset, PartitionId, Timestamp,
    TopicName,
};

use super::{LogDirHealth, RemoteReader, Waiter, Watch, flush::FlushQueue, waiters::Waiters};

/// Why an append was refused.
#[derive(Debug, thiserror::Error)]
pub enum PartitionAppendError {
    /// The log directory failed (KAFKA_STORAGE_ERROR).
    #[error("the partition's log directory is offline")]
    Offline,
    /// The log refused the batches; nothing was written.
    #[error(transparent)]
    Refused(#[from] AppendError),
}

/// The caller's leader epoch is not ours (KIP-320).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StaleEpoch {
    /// The caller's is older (FENCED_LEADER_EPOCH).
    #[error("the leader epoch is older than {0}")]
    Fenced(LeaderEpoch),
    /// The caller's is newer than what this broker knows (UNKNOWN_LEADER_EPOCH).
    #[error("the leader epoch is newer than {0}")]
    Unknown(LeaderEpoch),
}

/// A partition's local log, this broker's leadership of it, its archive, and those who wait for it to grow.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    topic: TopicName,
    log: LocalLog,
    log_dir: ArcSwap<LogDirHealth>,
    /// Held by who moves the log to another directory.
    moving: Mutex<()>,
    leader_epoch: AtomicU32,
    high_watermark: AtomicU64,
    appended_bytes: AtomicU64,
    remote: RwLock<Option<Arc<dyn RemoteReader>>>,
    waiters: Arc<Waiters>,
    flush_queue: FlushQueue,
    retired: AtomicBool,
}

impl Partition {
    /// Leads the partition whose `log` was just opened: all it holds is committed.
    pub fn new(
        id: PartitionId,
        topic: TopicName,
        log: LocalLog,
        log_dir: Arc<LogDirHealth>,
        leader_epoch: LeaderEpoch,
    ) -> Arc<Partition> {
        let LogEndOffset(end) = log.end();
        Arc::new(Partition {
            id,
            topic,
            log,
            log_dir: ArcSwap::new(log_dir),
            moving: Mutex::default(),
            leader_epoch: AtomicU32::new(leader_epoch.0),
            high_watermark: AtomicU64::new(end.get()),
            appended_bytes: AtomicU64::new(0),
            remote: RwLock::new(None),
            waiters: Arc::default(),
            flush_queue: FlushQueue::default(),
            retired: AtomicBool::new(false),
        })
    }

    /// The partition's id.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The local log. Appends go through [`append`](Self::append), which wakes those who wait.
    pub fn log(&self) -> &LocalLog {
        &self.log
    }

    /// The log directory that holds it now.
    pub fn log_dir(&self) -> Arc<LogDirHealth> {
        self.log_dir.load_full()
    }

    /// The log is in that directory from now on.
    pub(super) fn set_log_dir(&self, dir: Arc<LogDirHealth>) {
        self.log_dir.store(dir);
    }

    pub(super) fn moving(&self) -> &Mutex<()> {
        &self.moving
    }

    pub(super) fn flush_queue(&self) -> &FlushQueue {
        &self.flush_queue
    }

    /// The epoch in which this broker leads.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.load(Ordering::Acquire))
    }

    /// Leads in `epoch` from now on, unless it is older.
    pub fn lead_in(&self, epoch: LeaderEpoch) {
        self.leader_epoch.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Compares the epoch that a client believes in with ours; `None` skips the comparison, as the protocol's -1 does.
    ///
    /// # Errors
    /// [`StaleEpoch`] if they differ.
    pub fn check_epoch(&self, theirs: Option<LeaderEpoch>) -> Result<(), StaleEpoch> {
        let ours = self.leader_epoch();
        match theirs {
            Some(theirs) if theirs < ours => Err(StaleEpoch::Fenced(ours)),
            Some(theirs) if theirs > ours => Err(StaleEpoch::Unknown(ours)),
            _ => Ok(()),
        }
    }

    /// The same for an epoch off the wire, where -1 says that the asker knows none; other negative ones are old.
    ///
    /// # Errors
    /// [`StaleEpoch`] if they differ.
    pub fn check_wire_epoch(&self, theirs: i32) -> Result<(), StaleEpoch> {
        if theirs < -1 {
            return Err(StaleEpoch::Fenced(self.leader_epoch()));
        }
        self.check_epoch(LeaderEpoch::from_wire(theirs))
    }

    /// First offset not yet committed; consumers stop before it.
    pub fn high_watermark(&self) -> HighWatermark {
        HighWatermark(Offset::new(self.high_watermark.load(Ordering::SeqCst)).unwrap_or(Offset::MAX))
    }

    /// Where read_committed stops (KIP-98).
    pub fn last_stable_offset(&self) -> LastStableOffset {
        let HighWatermark(high_watermark) = self.high_watermark();
        LastStableOffset(self.log.first_unstable().map_or(high_watermark, |first| first.min(high_watermark)))
    }

    /// First offset readable in any tier. Without an archive that is the first on the disk: after a crash the log start known
    /// may be older than the segments that retention has left, and a reader sent there would come back for ever.
    pub fn log_start(&self) -> LogStartOffset {
        let LogEndOffset(end) = self.log.end();
        match self.remote.read().as_ref() {
            Some(remote) => self.log.start().max(LogStartOffset(remote.log_start().min(end))),
            None => LogStartOffset(self.log.local_start()),
        }
    }

    /// The archive of this partition, if it has one.
    pub fn remote(&self) -> Option<Arc<dyn RemoteReader>> {
        self.remote.read().clone()
    }

    /// Puts the reader of the archive in place.
    pub fn set_remote(&self, reader: Arc<dyn RemoteReader>) {
        *self.remote.write() = Some(reader);
    }

    /// Bytes appended since the partition was opened: tells a waiter how much came without looking into the log.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Whether the log has records that are not committed yet.
    pub fn has_hidden(&self) -> bool {
        self.must_wait(self.log.end())
    }

    /// Wakes `waiter` whenever records become visible, until the watch is dropped.
    pub fn watch(&self, waiter: &Waiter) -> Watch {
        self.waiters.watch(waiter)
    }

    #[cfg(test)]
    pub(crate) fn is_watched(&self) -> bool {
        self.waiters.is_watched()
    }

    /// Appends whole batches. They are visible at once, unless `flush.messages` is set: then
    /// [`committed`](Self::committed) makes them so, and every append is followed by it.
    ///
    /// # Errors
    /// [`PartitionAppendError`]: nothing was written.
    pub fn append(
        self: &Arc<Partition>,
        batches: &[u8],
        origin: AppendOrigin,
        now: Timestamp,
    ) -> Result<Appended, PartitionAppendError> {
        self.append_in(batches, origin, TransactionTerms::default(), now)
    }

    /// The same for batches that concern a transaction.
    ///
    /// # Errors
    /// [`PartitionAppendError`]: nothing was written.
    pub fn append_in(
        self: &Arc<Partition>,
        batches: &[u8],
        origin: AppendOrigin,
        terms: TransactionTerms,
        now: Timestamp,
    ) -> Result<Appended, PartitionAppendError> {
        if self.log_dir.load().is_failed() {
            return Err(PartitionAppendError::Offline);
        }
        let context = AppendContext { leader_epoch: self.leader_epoch(), now, origin };
        let appended = self.log.append_in(batches, context, terms).inspect_err(|refused| self.note_failure(refused))?;
        let log_dir = self.log_dir.load();
        if log_dir.is_full() && !appended.duplicate {
            log_dir.note_room();
        }
        if let Some(sealed_below) = appended.sealed_below {
            self.flush_in_background(sealed_below);
        }
        if !appended.duplicate {
            self.appended_bytes.fetch_add(batches.len() as u64, Ordering::Relaxed);
            let config = self.log.config();
            if config.flush_messages.is_none() {
                self.advance_high_watermark(appended.end.0);
            }
            if config.flush_interval.is_some() {
                self.note_unflushed();
            }
        }
        Ok(appended)
    }

    fn note_failure(&self, refused: &AppendError) {
        if let AppendError::Storage { source, .. } = refused {
            self.storage_failed(source);
        }
    }

    /// A file of this partition could not be changed; everything that was there before still is. A full disk is weather:
    /// later attempts succeed. Anything else means that the directory cannot be trusted.
    pub(super) fn storage_failed(&self, error: &io::Error) {
        if self.is_retired() {
            return;
        }
        let log_dir = self.log_dir.load();
        if is_no_space(error) { log_dir.note_full(error) } else { log_dir.fail(error) }
    }

    /// The topic was deleted: what still works on its files may fail without meaning anything.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether the topic was deleted.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Everything below `offset` is committed; wakes those who wait for it. Never moves back.
    pub(super) fn advance_high_watermark(&self, offset: Offset) {
        if self.high_watermark.fetch_max(offset.get(), Ordering::SeqCst) < offset.get() {
            self.log.advance_high_watermark(offset);
            self.waiters.wake();
        }
    }
}
