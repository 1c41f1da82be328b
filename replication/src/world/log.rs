//! A replica's log, as far as replication and archive look at it.

use varve_log::local::EpochCache;
use varve_metadata::model::{LeaderEpoch, Offset};

use crate::follower::ReplicaLog;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) epoch: LeaderEpoch,
    pub(super) value: u16,
}

/// A replica's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Log {
    /// The first record that is here. What was before it is in the archive, or deleted.
    pub(super) start: Offset,
    /// Where the log starts in whatever tier: what lies before is deleted.
    pub(super) log_start: Offset,
    /// The same after a restart.
    pub(super) kept_start: Offset,
    pub(super) records: Vec<Record>,
    epochs: Vec<(LeaderEpoch, Offset)>,
}

pub(super) fn offset(place: usize) -> Offset {
    Offset::new(place as u64).expect("a small number")
}

impl Log {
    /// An empty one that goes on at `start`, and knows the epochs of what lies before, from `log_start` on.
    pub(super) fn starting_at(start: Offset, log_start: Offset, before: &[(LeaderEpoch, Offset)]) -> Log {
        let log_start = log_start.min(start);
        let before = before.iter().copied().filter(|(_, first)| *first < start);
        let mut epochs = before.collect::<EpochCache>();
        epochs.truncate_from_start(log_start);
        let epochs = epochs.entries().to_vec();
        Log { start, log_start, kept_start: log_start, records: Vec::new(), epochs }
    }

    /// What a process finds that opens it.
    pub(super) fn reopened(&mut self) {
        let start = self.kept_start;
        if self.end() < start {
            // Records that were deleted are lost, and no offset may come back.
            *self = Log::starting_at(start, start, &[]);
        }
        self.log_start = start;
        self.forget_epochs();
    }

    /// The first record that can be read here.
    pub(super) fn local_start(&self) -> Offset {
        self.start.max(self.log_start)
    }

    /// What lies before `start` is deleted. Files stay, and a restart forgets it.
    pub(super) fn advance_log_start(&mut self, start: Offset) {
        if start <= self.log_start || start > self.end() {
            return;
        }
        self.log_start = start;
    }

    /// It is written down where the log starts.
    pub(super) fn keep_start(&mut self) {
        self.kept_start = self.log_start;
        self.forget_epochs();
    }

    /// Epochs before the log's start are forgotten.
    pub(super) fn forget_epochs(&mut self) {
        let mut epochs = self.epochs();
        epochs.truncate_from_start(self.log_start);
        self.epochs = epochs.entries().to_vec();
    }

    pub(super) fn epochs(&self) -> EpochCache {
        self.epochs.iter().copied().collect()
    }

    /// The record at an offset, if it is here.
    pub(super) fn get(&self, at: Offset) -> Option<&Record> {
        self.records.get(at.get().checked_sub(self.start.get())? as usize)
    }

    /// All records from an offset on that is here.
    pub(super) fn from(&self, at: Offset) -> &[Record] {
        let place = at.get().checked_sub(self.start.get());
        place.and_then(|place| self.records.get(place as usize..)).unwrap_or(&[])
    }

    /// Notes where `epoch` begins, as a new leader does before its first record.
    pub(super) fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        let mut cache = self.epochs();
        cache.assign(epoch, start);
        self.epochs = cache.entries().to_vec();
    }

    pub(super) fn append(&mut self, record: Record) {
        self.begin_epoch(record.epoch, self.end());
        self.records.push(record);
    }

    pub(super) fn truncate(&mut self, end: Offset) {
        if end < self.local_start() {
            *self = Log::starting_at(end, self.log_start, &[]);
            return;
        }
        self.records.truncate((end.get() - self.start.get()) as usize);
        // No log starts behind its end. That is written down before anything is appended.
        self.log_start = self.log_start.min(self.end());
        self.kept_start = self.kept_start.min(self.log_start);
        let mut cache = self.epochs();
        // Also where the log ends there already: an epoch without records may stand at its end.
        cache.truncate_from_end(end);
        self.epochs = cache.entries().to_vec();
    }

    /// The last records are gone, so many of those that are here, with the epochs that began behind what is left. Nothing was written
    /// down about that: where the log starts is known as before, though that may be behind its end now.
    pub(super) fn lose(&mut self, lost: usize) {
        if lost == 0 {
            return;
        }
        self.records.truncate(self.records.len().saturating_sub(lost));
        let mut cache = self.epochs();
        cache.truncate_from_end(self.end());
        self.epochs = cache.entries().to_vec();
    }

    /// What lies before `start` leaves the disk. The log goes on answering for its epochs.
    pub(super) fn drop_below(&mut self, start: Offset) {
        let gone = self.end().min(start).get().saturating_sub(self.start.get()) as usize;
        self.records.drain(..gone);
        self.start = offset(self.start.get() as usize + gone);
    }

    /// Where segments begin and end that have a base every `width` offsets. The last one may grow.
    pub(super) fn segments(&self, width: u64) -> Vec<(Offset, Offset)> {
        let (mut segments, mut base) = (Vec::new(), self.start);
        while base < self.end() {
            let next = offset(((base.get() / width + 1) * width) as usize).min(self.end());
            segments.push((base, next));
            base = next;
        }
        segments
    }
}

impl ReplicaLog for Log {
    fn end(&self) -> Offset {
        offset(self.start.get() as usize + self.records.len())
    }
    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }
    fn earliest_epoch(&self) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.first().copied()
    }
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs().end_offset_for(epoch, self.end())
    }
}
