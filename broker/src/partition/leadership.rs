//! One partition of this broker, and appends to it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use varve_log::local::{
    AppendContext, AppendError, AppendOrigin, Appended, LocalLog, LogConfig, TransactionTerms, is_no_space,
};
use varve_metadata::{
    config::TopicConfig,
    model::{
        BrokerId, HighWatermark, LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset, PartitionId,
        Timestamp, TopicName,
    },
};

use varve_replication::AckError;

use super::{
    LogDirHealth, RemoteReader, TrafficTotals, Waiter, Watch, flush::FlushQueue, role::Role, traffic::Traffic,
    waiters::Waiters,
};

/// Why an append was refused.
#[derive(Debug, thiserror::Error)]
pub enum PartitionAppendError {
    /// The log directory failed (KAFKA_STORAGE_ERROR).
    #[error("the partition's log directory is offline")]
    Offline,
    /// Another broker leads, or this one in another epoch than the caller believes (NOT_LEADER_OR_FOLLOWER).
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Too few replicas are in sync (NOT_ENOUGH_REPLICAS).
    #[error("{} replicas are in sync, {} are required", .0.in_sync, .0.required)]
    TooFewInSync(AckError),
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

/// How batches are appended.
#[derive(Clone, Copy, Debug)]
pub struct Appending {
    /// Where they come from.
    pub origin: AppendOrigin,
    /// For those that concern a transaction.
    pub transaction: TransactionTerms,
    /// The epoch of the leadership for which they are meant; `None`: whatever it is.
    pub epoch: Option<LeaderEpoch>,
    /// Refused where fewer than `min.insync.replicas` are in sync (acks=all).
    pub for_all: bool,
}

impl Appending {
    /// Of a coordinator that was loaded in `epoch`.
    pub fn of_coordinator(epoch: LeaderEpoch, transaction: TransactionTerms) -> Appending {
        Appending { origin: AppendOrigin::Coordinator, transaction, epoch: Some(epoch), for_all: true }
    }
}

/// A partition's local log, what this broker is to it, its archive, and those who wait for it to grow.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    topic: TopicName,
    log: LocalLog,
    log_dir: ArcSwap<LogDirHealth>,
    /// Held by who moves the log to another directory.
    moving: Mutex<()>,
    role: RwLock<Role>,
    leader_epoch: AtomicU32,
    high_watermark: AtomicU64,
    /// The topic's `min.insync.replicas`.
    min_in_sync: AtomicUsize,
    /// By the topic's settings, for this broker as the leader and as a follower.
    throttled: (AtomicBool, AtomicBool),
    appended_bytes: AtomicU64,
    traffic: Traffic,
    remote: RwLock<Option<Arc<dyn RemoteReader>>>,
    /// Who waits for records that are committed.
    waiters: Arc<Waiters>,
    /// Who waits for records as such: followers.
    growth: Arc<Waiters>,
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
        Partition::in_role(Role::Alone, end, id, topic, log, log_dir, leader_epoch)
    }

    /// One of several replicas, whose `log` was just opened: what is committed beyond `high_watermark` shows when a leader is
    /// known.
    pub(super) fn replica(
        id: PartitionId,
        topic: TopicName,
        log: LocalLog,
        log_dir: Arc<LogDirHealth>,
        leader_epoch: LeaderEpoch,
        high_watermark: Offset,
    ) -> Arc<Partition> {
        let LogEndOffset(end) = log.end();
        let role = Role::Follower { leader: None };
        Partition::in_role(role, high_watermark.min(end), id, topic, log, log_dir, leader_epoch)
    }

    fn in_role(
        role: Role,
        high_watermark: Offset,
        id: PartitionId,
        topic: TopicName,
        log: LocalLog,
        log_dir: Arc<LogDirHealth>,
        leader_epoch: LeaderEpoch,
    ) -> Arc<Partition> {
        Arc::new(Partition {
            id,
            topic,
            log,
            log_dir: ArcSwap::new(log_dir),
            moving: Mutex::default(),
            role: RwLock::new(role),
            leader_epoch: AtomicU32::new(leader_epoch.0),
            high_watermark: AtomicU64::new(high_watermark.get()),
            min_in_sync: AtomicUsize::new(1),
            throttled: Default::default(),
            appended_bytes: AtomicU64::new(0),
            traffic: Traffic::default(),
            remote: RwLock::new(None),
            waiters: Arc::default(),
            growth: Arc::default(),
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

    pub(super) fn role(&self) -> &RwLock<Role> {
        &self.role
    }

    /// The topic's `min.insync.replicas`.
    pub fn min_in_sync(&self) -> usize {
        self.min_in_sync.load(Ordering::Relaxed)
    }

    /// The topic's `min.insync.replicas` is this from now on.
    pub(super) fn set_min_in_sync(&self, replicas: usize) {
        self.min_in_sync.store(replicas, Ordering::Relaxed);
    }

    /// What the topic says of replicas on `node`, this broker, that are copied at a limited rate.
    pub(super) fn set_throttled(&self, node: BrokerId, config: &TopicConfig) {
        let (leader, follower) = &self.throttled;
        leader.store(config.leader_throttled.contains(self.id.index, node), Ordering::Relaxed);
        follower.store(config.follower_throttled.contains(self.id.index, node), Ordering::Relaxed);
    }

    /// Whether what this broker sends of it as the leader counts for a rate.
    pub fn is_leader_throttled(&self) -> bool {
        self.throttled.0.load(Ordering::Relaxed)
    }

    /// Whether what this broker fetches of it counts for a rate.
    pub fn is_follower_throttled(&self) -> bool {
        self.throttled.1.load(Ordering::Relaxed)
    }

    /// The epoch of the newest leadership known, this broker's or another's.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch.load(Ordering::Acquire))
    }

    /// Leadership is of `epoch` from now on, unless that is older.
    pub(super) fn lead_in(&self, epoch: LeaderEpoch) {
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

    /// Bytes of this partition in the archive if it is led here, and else 0: all its replicas know of the same objects.
    pub fn archived_bytes(&self) -> u64 {
        if self.is_leader() { self.remote().map_or(0, |remote| remote.size()) } else { 0 }
    }

    /// Puts the reader of the archive in place.
    pub fn set_remote(&self, reader: Arc<dyn RemoteReader>) {
        *self.remote.write() = Some(reader);
    }

    /// Bytes appended since the partition was opened: tells a waiter how much came without looking into the log.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    /// What went through it since it was opened.
    pub fn traffic(&self) -> TrafficTotals {
        self.traffic.totals()
    }

    /// A consumer was given so many bytes of it.
    pub fn note_consumed(&self, bytes: usize) {
        self.traffic.note_consumed(bytes);
    }

    /// A follower was given so many bytes of it.
    pub fn note_copied_away(&self, bytes: usize) {
        self.traffic.note_copied_away(bytes);
    }

    /// So many bytes came from the leader.
    pub(super) fn note_copied_here(&self, bytes: usize) {
        self.traffic.note_copied_here(bytes);
    }

    /// Whether the log has records that are not committed yet.
    pub fn has_hidden(&self) -> bool {
        self.must_wait(self.log.end())
    }

    /// Wakes `waiter` whenever records become visible, until the watch is dropped.
    pub fn watch(&self, waiter: &Waiter) -> Watch {
        self.waiters.watch(waiter)
    }

    /// Wakes `waiter` whenever records are appended, committed or not, until the watch is dropped.
    pub fn watch_growth(&self, waiter: &Waiter) -> Watch {
        self.growth.watch(waiter)
    }

    /// Has `waiter` remember this partition whenever a follower may have to be told something, until the watches are dropped. It is woken
    /// by records, and by what becomes of them (`wakes_by_commits`) only if that is asked for: else it hears of it with the next ones.
    pub(crate) fn watch_news(&self, waiter: &Waiter, wakes_by_commits: bool) -> [Watch; 2] {
        let growth = self.growth.watch_by_name(waiter, self.id, true);
        [growth, self.waiters.watch_by_name(waiter, self.id, wakes_by_commits)]
    }

    /// Followers that wait are to hear of something that is no record.
    pub(super) fn wake_followers(&self) {
        self.growth.wake();
    }

    /// What this broker is to the partition has changed: everybody who waits looks again.
    pub(super) fn wake_all(&self) {
        self.growth.wake();
        self.waiters.wake();
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
        transaction: TransactionTerms,
        now: Timestamp,
    ) -> Result<Appended, PartitionAppendError> {
        self.append_as(batches, Appending { origin, transaction, epoch: None, for_all: false }, now)
    }

    /// The same, as `appending` says.
    ///
    /// # Errors
    /// [`PartitionAppendError`]: nothing was written.
    pub fn append_as(
        self: &Arc<Partition>,
        batches: &[u8],
        appending: Appending,
        now: Timestamp,
    ) -> Result<Appended, PartitionAppendError> {
        if self.log_dir.load().is_failed() {
            return Err(PartitionAppendError::Offline);
        }
        // Held until the records count: nobody is deposed in the middle of it.
        let role = self.role.read();
        let leader_epoch = self.leader_epoch();
        if matches!(*role, Role::Follower { .. }) || appending.epoch.is_some_and(|epoch| epoch != leader_epoch) {
            return Err(PartitionAppendError::NotLeader);
        }
        if appending.for_all {
            self.check_in_sync(&role).map_err(PartitionAppendError::TooFewInSync)?;
        }
        let context = AppendContext { leader_epoch, now, origin: appending.origin };
        let appended = self.log.append_in(batches, context, appending.transaction);
        let appended = appended.inspect_err(|refused| self.note_failure(refused))?;
        if !appended.duplicate {
            let config = self.note_appended(batches.len(), &appended);
            if appending.origin == AppendOrigin::Client {
                self.traffic.note_produced(batches.len(), appended.last.since(appended.base) + 1);
            }
            if config.flush_messages.is_none() {
                self.kept_below(&role, appended.end.0);
            }
            if config.flush_interval.is_some() {
                self.note_unflushed();
            }
            self.growth.wake();
        }
        Ok(appended)
    }

    /// What follows every append, of whoever.
    pub(super) fn note_appended(self: &Arc<Partition>, bytes: usize, appended: &Appended) -> Arc<LogConfig> {
        let log_dir = self.log_dir.load();
        if log_dir.is_full() {
            log_dir.note_room();
        }
        if let Some(sealed_below) = appended.sealed_below {
            self.flush_in_background(sealed_below);
        }
        self.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.log.config()
    }

    pub(super) fn note_failure(&self, refused: &AppendError) {
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

    /// The topic was deleted, or the partition moved away: nothing is appended any more, whoever waits learns that this broker
    /// does not lead, and what still works on the files may fail without meaning anything. Waits for an append under way.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        *self.role.write() = Role::Follower { leader: None };
        self.wake_all();
    }

    /// Whether the topic was deleted, or the partition moved away.
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

    /// The log was cut and ends at `end` now.
    pub(super) fn lower_high_watermark(&self, end: Offset) {
        self.high_watermark.fetch_min(end.get(), Ordering::SeqCst);
    }
}
