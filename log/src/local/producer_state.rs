//! What a log remembers of its idempotent and transactional producers (KIP-98): enough to refuse a gap, to recognise a
//! repetition, and to know which transactions are open.
//!
//! An append is checked against the state first ([`ProducerUpdate::data`], [`ProducerUpdate::marker`]), then written, then
//! applied ([`ProducerState::apply`]): a refused or failed append leaves no trace. Pure; the files are in
//! [`producer_snapshot`](super::ProducerSnapshots).

mod update;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence};

use update::Change;
pub use update::ProducerUpdate;

use super::AppendOrigin;

/// Batches of one producer that are remembered: as many as a client may have in flight, so that each can be repeated.
pub const BATCHES_REMEMBERED: usize = 5;

/// The data batch of an idempotent or transactional producer, as producer state sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Who wrote it.
    pub producer: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; `None` from coordinators, who number nothing.
    pub base_sequence: Option<Sequence>,
    /// Offset that the first record got.
    pub first: Offset,
    /// Offset that the last record got.
    pub last: Offset,
    /// Largest timestamp in milliseconds; -1 for none.
    pub timestamp_ms: i64,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
}

/// A transaction marker, as producer state sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    /// Whose transaction ends.
    pub producer: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// Offset that the marker got.
    pub offset: Offset,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: i64,
    /// Epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
    /// Abort, not commit.
    pub aborted: bool,
    /// The coordinator raises the epoch with every marker (KIP-890, transaction version 2), so that one which does not is
    /// late. False for replicated markers: their leader has checked.
    pub raises_epoch: bool,
}

/// What is remembered of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMetadata {
    /// Sequence of its last record; `None` if it had none.
    pub last_sequence: Option<Sequence>,
    /// Offset of its last record.
    pub last: Offset,
    /// Last offset minus first.
    pub offset_delta: u32,
    /// Its largest timestamp in milliseconds; -1 for none.
    pub timestamp_ms: i64,
}

impl BatchMetadata {
    /// Sequence of its first record.
    pub fn base_sequence(&self) -> Option<Sequence> {
        // Sequences wrap at 2^31; adding the 32-bit complement subtracts.
        self.last_sequence.map(|last| last.plus(self.offset_delta.wrapping_neg()))
    }

    /// Offset of its first record.
    pub fn first(&self) -> Offset {
        Offset::new(self.last.get().saturating_sub(u64::from(self.offset_delta))).unwrap_or_default()
    }
}

/// What is remembered of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerEntry {
    /// The newest epoch seen.
    pub epoch: ProducerEpoch,
    /// Epoch of the coordinator that wrote the newest marker; `None` before the first.
    pub coordinator_epoch: Option<i32>,
    /// Timestamp of the newest batch or marker in milliseconds, or of the moment in which it was written if that was old by
    /// then; -1 for none. Decides when the entry expires.
    pub last_timestamp_ms: i64,
    /// First offset of the open transaction.
    pub open_since: Option<Offset>,
    batches: [Option<BatchMetadata>; BATCHES_REMEMBERED],
}

impl ProducerEntry {
    /// An entry without batches.
    pub const fn new(epoch: ProducerEpoch) -> ProducerEntry {
        ProducerEntry {
            epoch,
            coordinator_epoch: None,
            last_timestamp_ms: -1,
            open_since: None,
            batches: [None; BATCHES_REMEMBERED],
        }
    }

    /// The remembered batches of the newest epoch, oldest first.
    pub fn batches(&self) -> impl Iterator<Item = &BatchMetadata> {
        self.batches.iter().flatten()
    }

    /// The newest batch of the newest epoch.
    pub fn last_batch(&self) -> Option<&BatchMetadata> {
        self.batches.iter().flatten().next_back()
    }

    /// Remembers `batch`, and forgets the oldest if there are too many.
    pub fn push(&mut self, batch: BatchMetadata) {
        match self.batches.iter_mut().find(|slot| slot.is_none()) {
            Some(free) => *free = Some(batch),
            None => {
                self.batches.rotate_left(1);
                self.batches[BATCHES_REMEMBERED - 1] = Some(batch);
            }
        }
        self.last_timestamp_ms = batch.timestamp_ms;
    }

    fn enter_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches = [None; BATCHES_REMEMBERED];
        }
    }

    /// The remembered batch with exactly this range of sequences, if `batch` repeats one.
    fn find_duplicate(&self, batch: &ProducerBatch) -> Option<BatchMetadata> {
        let base = batch.base_sequence?;
        let last = base.plus(batch.last.since(batch.first) as u32);
        let same = |known: &&BatchMetadata| known.last_sequence == Some(last) && known.base_sequence() == Some(base);
        if self.epoch == batch.epoch { self.batches().find(same).copied() } else { None }
    }

    fn is_expired(&self, now_ms: i64, after: Duration) -> bool {
        let silent = u128::try_from(now_ms.saturating_sub(self.last_timestamp_ms)).unwrap_or(0);
        self.open_since.is_none() && silent >= after.as_millis()
    }
}

/// A transaction that a marker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTxn {
    /// Whose.
    pub producer: ProducerId,
    /// Offset of its first record.
    pub first: Offset,
    /// Offset of its marker.
    pub last: Offset,
    /// Aborted, not committed.
    pub aborted: bool,
}

/// What the last record of a producer is, for the cleaner: it must stay, even empty, so that the state can be rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRecord {
    /// Offset of its last data record; `None` if its last word was a marker.
    pub last_data: Option<Offset>,
    /// Its newest epoch.
    pub epoch: ProducerEpoch,
}

/// Whether a batch that passed is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Fresh,
    /// It was appended before, as the client cannot know: answer with the offsets of then, and append nothing.
    Duplicate(BatchMetadata),
}

/// Why a batch or marker is refused. The texts are those that clients' users search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A sequence number was left out (OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error(
        "Out of order sequence number for producer {producer} at offset {offset}: {found} (incoming seq. number), \
         {last} (current end sequence number)"
    )]
    OutOfOrderSequence {
        /// Who wrote.
        producer: ProducerId,
        /// Offset that the batch would have got.
        offset: Offset,
        /// Its first sequence; -1 for none.
        found: i32,
        /// The last sequence known; -1 for none.
        last: i32,
    },
    /// A newer epoch of this producer is known (INVALID_PRODUCER_EPOCH).
    #[error(
        "Epoch of producer {producer} at offset {offset} is {found}, which is smaller than the last seen epoch {current}"
    )]
    InvalidEpoch {
        /// Who wrote.
        producer: ProducerId,
        /// Offset that the batch would have got.
        offset: Offset,
        /// Its epoch.
        found: i16,
        /// The epoch known.
        current: i16,
    },
    /// A record outside of the producer's open transaction (INVALID_TXN_STATE).
    #[error("Expected transactional write from producer {producer} at offset {offset}")]
    NotTransactional {
        /// Who wrote.
        producer: ProducerId,
        /// Offset that the batch would have got.
        offset: Offset,
    },
    /// The first record of a transaction that its coordinator does not vouch for (INVALID_TXN_STATE).
    #[error("Record was not part of an ongoing transaction")]
    NoTransaction {
        /// Who wrote.
        producer: ProducerId,
        /// Offset that the batch would have got.
        offset: Offset,
    },
    /// A marker of a coordinator that has been replaced (TRANSACTION_COORDINATOR_FENCED).
    #[error(
        "Invalid coordinator epoch for producer {producer} at offset {offset}: {found} (zombie), {current} (current)"
    )]
    CoordinatorFenced {
        /// Whose transaction it was to end.
        producer: ProducerId,
        /// Offset that the marker would have got.
        offset: Offset,
        /// The coordinator's epoch.
        found: i32,
        /// The epoch known.
        current: i32,
    },
}

/// The producers of one log.
#[derive(Clone, Debug, Default)]
pub struct ProducerState {
    producers: HashMap<ProducerId, ProducerEntry>,
    /// Open transactions by first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// Ended transactions by first offset, with the offset of the marker, until the high watermark has passed that.
    unreplicated: BTreeMap<Offset, Offset>,
    end: Offset,
    told: Option<Told>,
}

/// What time it is, and after which silence producers expire; in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Told {
    now_ms: i64,
    expiry_ms: u128,
}

impl Told {
    /// The time at which a producer was heard that just wrote something of `timestamp_ms`: that, as Kafka has it, unless half of
    /// its time would be over already.
    fn newer(self, timestamp_ms: i64) -> i64 {
        let age = u128::try_from(self.now_ms.saturating_sub(timestamp_ms)).unwrap_or(0);
        if age > self.expiry_ms / 2 { self.now_ms } else { timestamp_ms }
    }
}

impl ProducerState {
    /// The state of a log that knows no producer and ends at `end`.
    pub fn starting_at(end: Offset) -> ProducerState {
        ProducerState { end, ..ProducerState::default() }
    }

    /// The state of a snapshot taken at `end`, without the producers that have expired since.
    pub fn load(
        entries: impl IntoIterator<Item = (ProducerId, ProducerEntry)>,
        end: Offset,
        now_ms: i64,
        expiry: Duration,
    ) -> ProducerState {
        let mut state = ProducerState::starting_at(end);
        for (producer, entry) in entries.into_iter().filter(|(_, entry)| !entry.is_expired(now_ms, expiry)) {
            state.open.extend(entry.open_since.map(|first| (first, producer)));
            state.producers.insert(producer, entry);
        }
        state
    }

    /// The offset up to which the state has seen the log.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Says what time it is: who writes old records, as when data of the past is copied, is not silent for that. Kafka forgets
    /// such a producer with the next snapshot that it loads, and then takes its batches twice.
    pub fn tell_time(&mut self, now_ms: i64, expiry: Duration) {
        self.told = Some(Told { now_ms, expiry_ms: expiry.as_millis() });
    }

    /// Notes that the log has been seen up to `end`, whoever wrote there.
    pub fn advance_to(&mut self, end: Offset) {
        self.end = end;
    }

    /// Starts the check of one append from `origin`.
    pub fn update(&self, origin: AppendOrigin) -> ProducerUpdate {
        ProducerUpdate { origin, changed: Vec::new(), started: Vec::new(), completed: Vec::new() }
    }

    /// Makes the changes of an append that has been written. Each transaction it ended is returned: compute its
    /// [`last_stable_offset`](Self::last_stable_offset), put it into the transaction index if it was aborted, and only then
    /// [`complete`](Self::complete) it, so that a failing index never lets a reader past.
    pub fn apply(&mut self, update: ProducerUpdate) -> Vec<CompletedTxn> {
        for Change { producer, mut entry, .. } in update.changed {
            if let Some(told) = self.told {
                entry.last_timestamp_ms = told.newer(entry.last_timestamp_ms);
            }
            self.producers.insert(producer, entry);
        }
        self.open.extend(update.started);
        update.completed
    }

    /// The log's last stable offset once `completed` is: the first offset of the oldest other open transaction, or what
    /// follows the marker.
    pub fn last_stable_offset(&self, completed: &CompletedTxn) -> Offset {
        let other = self.open.iter().find(|(_, producer)| **producer != completed.producer);
        other.map_or(completed.last.plus(1), |(first, _)| *first)
    }

    /// Ends a transaction. It goes on holding back [`first_unstable`](Self::first_unstable) until the high watermark has
    /// passed its marker.
    pub fn complete(&mut self, completed: &CompletedTxn) {
        if self.open.remove(&completed.first).is_some() {
            self.unreplicated.insert(completed.first, completed.last);
        }
    }

    /// Lets go of the transactions whose marker lies below `high_watermark` (or the log start, if that moved further).
    pub fn advance_high_watermark(&mut self, high_watermark: Offset) {
        self.unreplicated.retain(|_, last| *last >= high_watermark);
    }

    /// First offset that read_committed must not pass: of the oldest transaction that is open, or whose end is not known to
    /// be on every replica.
    pub fn first_unstable(&self) -> Option<Offset> {
        let unreplicated = self.unreplicated.keys().next().copied();
        self.first_undecided().into_iter().chain(unreplicated).min()
    }

    /// First offset of the oldest open transaction.
    pub fn first_undecided(&self) -> Option<Offset> {
        self.open.keys().next().copied()
    }

    /// The oldest open transaction: whose it is, its first offset, and the timestamp of its producer's last batch in
    /// milliseconds. Tells a transaction that was left hanging.
    pub fn oldest_open(&self) -> Option<(ProducerId, Offset, i64)> {
        let (first, producer) = self.open.iter().next()?;
        Some((*producer, *first, self.producers.get(producer).map_or(-1, |entry| entry.last_timestamp_ms)))
    }

    /// Whether `producer` has a transaction open in `epoch`.
    pub fn has_open_transaction(&self, producer: ProducerId, epoch: ProducerEpoch) -> bool {
        self.producers.get(&producer).is_some_and(|entry| entry.open_since.is_some() && entry.epoch == epoch)
    }

    /// Forgets the producers that were silent for `after`, unless they have a transaction open. Returns how many.
    pub fn expire(&mut self, now_ms: i64, after: Duration) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, entry| !entry.is_expired(now_ms, after));
        before - self.producers.len()
    }

    /// The log start moved to `start`. Producers stay known: the disk forgets them with the snapshots below.
    pub fn advance_log_start(&mut self, start: Offset) {
        self.advance_high_watermark(start);
        self.end = self.end.max(start);
    }

    /// What is known of `producer`.
    pub fn get(&self, producer: ProducerId) -> Option<&ProducerEntry> {
        self.producers.get(&producer)
    }

    /// Every producer, in no order.
    pub fn producers(&self) -> impl Iterator<Item = (ProducerId, &ProducerEntry)> {
        self.producers.iter().map(|(producer, entry)| (*producer, entry))
    }

    /// Number of producers known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known and no transaction holds readers back.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty() && self.unreplicated.is_empty()
    }

    /// The last record of every producer, which the cleaner must keep.
    pub fn last_records(&self) -> HashMap<ProducerId, LastRecord> {
        let last = |entry: &ProducerEntry| LastRecord {
            last_data: entry.last_batch().map(|batch| batch.last),
            epoch: entry.epoch,
        };
        self.producers.iter().map(|(producer, entry)| (*producer, last(entry))).collect()
    }
}

#[cfg(test)]
mod tests;
