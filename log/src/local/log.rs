//! The log of one partition.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use varve_metadata::model::{
    LeaderEpoch, LogEndOffset, LogStartOffset, Offset, ProducerId, Timestamp, VerificationGuard,
};

use super::{
    active::ActiveSegment,
    config::LogConfig,
    leader_epochs::EpochCache,
    producer_snapshot::ProducerSnapshots,
    producer_state::{CompletedTxn, ProducerEntry, ProducerError, ProducerState},
    sealed::Sealed,
    txn_index::TxnIndex,
    verification::{TransactionBegin, Verifications},
    write::Quota,
};

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: everything is checked, offsets are assigned.
    Client,
    /// A coordinator of this broker: offsets are assigned, control batches are allowed, records are trusted.
    Coordinator,
    /// A leader elsewhere: the batches come with their offsets and epochs, and are kept so.
    Replication,
}

/// The circumstances of an append.
#[derive(Clone, Copy, Debug)]
pub struct AppendContext {
    /// Epoch in which this broker leads the partition; stamped on each batch.
    pub leader_epoch: LeaderEpoch,
    /// The wall clock.
    pub now: Timestamp,
    /// Who appends.
    pub origin: AppendOrigin,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base: Offset,
    /// Offset of the last record.
    pub last: Offset,
    /// The timestamp all records got, if the topic's timestamp type is LogAppendTime.
    pub log_append_time: Option<Timestamp>,
    /// The batch was appended before (KIP-98): `base` and `last` are those of then, and nothing was written.
    pub duplicate: bool,
    /// The log's start offset.
    pub log_start: LogStartOffset,
    /// The log's end offset after this append.
    pub end: LogEndOffset,
    /// The append sealed a segment: time to [flush](LocalLog::flush) up to this offset, and to look for uploads.
    pub sealed_below: Option<Offset>,
}

/// What was known about a log when it was last open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryStart {
    /// The log directory was shut down cleanly: nothing needs to be checked.
    pub clean: bool,
    /// All below was flushed to disk; segments above are checked after an unclean shutdown.
    pub recovery_point: Offset,
    /// The log's start offset.
    pub log_start: Offset,
}

impl RecoveryStart {
    /// For a partition that never had a log here.
    pub const NEW: RecoveryStart = RecoveryStart { clean: true, recovery_point: Offset::ZERO, log_start: Offset::ZERO };
}

/// What opening a log found and repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments whose batches were checked.
    pub segments_checked: u32,
    /// Bytes cut off because they were no whole batches, or lay behind such bytes.
    pub bytes_cut: u64,
}

/// An offset with its record's timestamp, as ListOffsets answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp.
    pub timestamp: Timestamp,
    /// The leader epoch of its batch.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// The local log of one partition. One writer at a time holds its lock; readers do not wait for writes.
///
/// ```text
/// writer lock:  producer state, transaction index of the active segment, snapshots; held over an append's write
/// view lock:    what readers see: segments, end, epochs; taken for writing only to publish what is done
/// ```
#[derive(Debug)]
pub struct LocalLog {
    pub(super) dir: RwLock<Arc<Path>>,
    pub(super) config: RwLock<Arc<LogConfig>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) view: RwLock<View>,
    /// One flush at a time; who waits for it usually finds its own work done.
    pub(super) flushing: Mutex<()>,
    /// One round of compaction at a time.
    pub(super) cleaning: Mutex<()>,
    pub(super) cleaning_ended: AtomicBool,
    /// The log is being moved.
    pub(super) cleaning_paused: AtomicBool,
    pub(super) recovery_point: AtomicU64,
    /// The log start that was written down last.
    pub(super) kept_start: AtomicU64,
    /// Whether the directory's own name is known to be on disk.
    pub(super) is_linked: AtomicBool,
    pub(super) on_seal: SealListener,
}

/// Who wants to know that a segment was sealed.
#[derive(Default)]
pub(super) struct SealListener(RwLock<Option<Arc<dyn Fn() + Send + Sync>>>);

impl SealListener {
    pub(super) fn call(&self) {
        let listener = self.0.read().clone();
        if let Some(listener) = listener {
            listener();
        }
    }
}

impl std::fmt::Debug for SealListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealListener")
    }
}

/// What only appends and upkeep touch.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) producers: ProducerState,
    pub(super) verifications: Verifications,
    pub(super) snapshots: ProducerSnapshots,
    /// Of the active segment.
    pub(super) txn_index: TxnIndex,
    /// Ended transactions that the transaction index had no room for yet: readers are held back before them.
    pub(super) unindexed: Vec<CompletedTxn>,
    /// A failed write may have left bytes behind the last batch.
    pub(super) torn: bool,
    /// The directory may be another log's by now: no file is touched any more.
    pub(super) abandoned: bool,
    pub(super) quota: Quota,
}

/// What readers see.
#[derive(Debug)]
pub(super) struct View {
    /// Ordered by base offset.
    pub(super) sealed: Vec<Arc<Sealed>>,
    pub(super) active: ActiveSegment,
    pub(super) log_start: Offset,
    pub(super) end: Offset,
    pub(super) epochs: EpochCache,
    /// Base offsets of the segments that have a transaction index.
    pub(super) txn_bases: BTreeSet<Offset>,
    pub(super) first_unstable: Option<Offset>,
    /// Counts how often files were taken out of the log or replaced: what was read from several of them belongs together if
    /// it is the same before and after.
    pub(super) replacements: u64,
    /// Counts how often the log's end was cut: what was copied of it before may have been replaced.
    pub(super) cuts: u64,
}

impl View {
    pub(super) fn first_base(&self) -> Offset {
        self.sealed.first().map_or(self.active.base(), |first| first.base())
    }

    pub(super) fn local_start(&self) -> Offset {
        self.first_base().max(self.log_start)
    }

    /// Place among the sealed segments of the one that holds `offset`; their number for the active one.
    pub(super) fn floor(&self, offset: Offset) -> usize {
        if offset >= self.active.base() {
            return self.sealed.len();
        }
        self.sealed.partition_point(|segment| segment.base() <= offset).saturating_sub(1)
    }

    /// Base offset of the segment behind the sealed one at `place`.
    pub(super) fn end_of(&self, place: usize) -> Offset {
        self.sealed.get(place + 1).map_or(self.active.base(), |next| next.base())
    }
}

impl LocalLog {
    /// First offset readable in any tier.
    pub fn start(&self) -> LogStartOffset {
        LogStartOffset(self.view.read().log_start)
    }

    /// The log start that a crash leaves: at most [`start`](Self::start), and less while that is not written down.
    pub fn kept_start(&self) -> LogStartOffset {
        self.start().min(LogStartOffset(self.written_start()))
    }

    /// Whether the log start is written down.
    pub fn is_start_kept(&self) -> bool {
        self.start().0 == self.written_start()
    }

    fn written_start(&self) -> Offset {
        Offset::new(self.kept_start.load(Ordering::Acquire)).expect("was an offset when stored")
    }

    /// It is written down that the log starts at `start`. Only now the epochs before it may be forgotten: by them a log is compared with
    /// others that starts earlier again after a crash.
    pub(super) fn note_start_kept(&self, start: Offset) {
        self.kept_start.store(start.get(), Ordering::Release);
        // A stale file only knows epochs that the start then cuts off again.
        self.view.write().epochs.truncate_from_start(start);
    }

    /// First offset on the local disk, or the log start if that is larger.
    pub fn local_start(&self) -> Offset {
        self.view.read().local_start()
    }

    /// The offset the next record will get.
    pub fn end(&self) -> LogEndOffset {
        LogEndOffset(self.view.read().end)
    }

    /// First offset of the oldest transaction that is open, or whose marker is not yet below the high watermark that
    /// [`advance_high_watermark`](Self::advance_high_watermark) was told of. read_committed must not pass it.
    pub fn first_unstable(&self) -> Option<Offset> {
        self.view.read().first_unstable
    }

    /// Lets readers pass the transactions whose marker lies below `high_watermark`.
    pub fn advance_high_watermark(&self, high_watermark: Offset) {
        if self.first_unstable().is_none_or(|first| first >= high_watermark) {
            return;
        }
        let mut writer = self.writer.lock();
        writer.producers.advance_high_watermark(high_watermark);
        self.view.write().first_unstable = writer.producers.first_unstable();
    }

    /// Bytes of all local segments.
    pub fn size(&self) -> u64 {
        let view = self.view.read();
        view.sealed.iter().map(|segment| u64::from(segment.bytes)).sum::<u64>() + u64::from(view.active.bytes)
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.read().clone()
    }

    /// Puts new settings in force.
    pub fn update_config(&self, config: Arc<LogConfig>) {
        *self.config.write() = config;
    }

    /// Calls `listener` whenever a segment was sealed, in place of the one set before. It is called in the middle of an
    /// append, so it only leaves word for somebody else.
    pub fn on_seal(&self, listener: impl Fn() + Send + Sync + 'static) {
        *self.on_seal.0.write() = Some(Arc::new(listener));
    }

    /// The partition's directory; another one once the log was [moved](Self::relocate).
    pub fn dir(&self) -> Arc<Path> {
        Arc::clone(&self.dir.read())
    }

    /// The largest known epoch not above `epoch`, and the offset behind its last record (KIP-279).
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let view = self.view.read();
        view.epochs.end_offset_for(epoch, view.end)
    }

    /// The oldest epoch known, and its first offset.
    pub fn earliest_epoch(&self) -> Option<(LeaderEpoch, Offset)> {
        self.view.read().epochs.earliest()
    }

    /// Epoch of the last record, if any epoch is known.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.view.read().epochs.latest().map(|(epoch, _)| epoch)
    }

    /// Epoch of the record at `offset`, if known.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.view.read().epochs.epoch_for(offset)
    }

    /// The known epochs with their first offsets, oldest first.
    pub fn leader_epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.view.read().epochs.entries().to_vec()
    }

    /// Base offset and size in bytes of the active segment, and when its first record was appended.
    pub fn active(&self) -> (Offset, u64, Option<Timestamp>) {
        let view = self.view.read();
        (view.active.base(), view.active.bytes.into(), view.active.first_append)
    }

    /// All below was forced to disk.
    pub fn recovery_point(&self) -> Offset {
        Offset::new(self.recovery_point.load(Ordering::Acquire)).expect("was an offset when stored")
    }

    /// Number of producers whose sequences are remembered.
    pub fn producer_count(&self) -> usize {
        self.writer.lock().producers.len()
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`. To be called now and then.
    pub fn expire_producers(&self, now: Timestamp) -> usize {
        let expiry = self.config().producer_expiry;
        let mut writer = self.writer.lock();
        writer.verifications.expire(now, expiry);
        writer.producers.expire(now.to_wire(), expiry)
    }

    /// What is known of every producer, by id: a copy.
    pub fn producers(&self) -> Vec<(ProducerId, ProducerEntry)> {
        let writer = self.writer.lock();
        let mut producers: Vec<_> = writer.producers.producers().map(|(id, entry)| (id, entry.clone())).collect();
        drop(writer);
        producers.sort_unstable_by_key(|(id, _)| *id);
        producers
    }

    /// A producer wants to begin a transaction here: what it has to show when it appends, or `None` if the transaction is
    /// open already.
    ///
    /// # Errors
    /// [`ProducerError::InvalidEpoch`] if a newer epoch of the producer is known.
    pub fn begin_transaction(&self, begin: &TransactionBegin) -> Result<Option<VerificationGuard>, ProducerError> {
        let mut writer = self.writer.lock();
        if let Some(entry) = writer.producers.get(begin.producer).filter(|entry| begin.epoch < entry.epoch) {
            return Err(ProducerError::InvalidEpoch {
                producer: begin.producer,
                offset: writer.producers.end(),
                found: begin.epoch.to_wire(),
                current: entry.epoch.to_wire(),
            });
        }
        if writer.producers.has_open_transaction(begin.producer, begin.epoch) {
            return Ok(None);
        }
        Ok(Some(writer.verifications.begin(begin)))
    }
}
