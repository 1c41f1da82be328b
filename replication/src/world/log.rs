//! A replica's log, as far as replication looks at it.

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
    pub(super) records: Vec<Record>,
    epochs: Vec<(LeaderEpoch, Offset)>,
}

pub(super) fn offset(place: usize) -> Offset {
    Offset::new(place as u64).expect("a small number")
}

impl Log {
    fn cache(&self) -> EpochCache {
        self.epochs.iter().copied().collect()
    }

    /// Notes where `epoch` begins, as a new leader does before its first record.
    pub(super) fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        let mut cache = self.cache();
        cache.assign(epoch, start);
        self.epochs = cache.entries().to_vec();
    }

    pub(super) fn append(&mut self, record: Record) {
        self.begin_epoch(record.epoch, self.end());
        self.records.push(record);
    }

    pub(super) fn truncate(&mut self, end: Offset) {
        self.records.truncate(end.get() as usize);
        let mut cache = self.cache();
        // Also where the log ends there already: an epoch without records may stand at its end.
        cache.truncate_from_end(end);
        self.epochs = cache.entries().to_vec();
    }
}

impl ReplicaLog for Log {
    fn end(&self) -> Offset {
        offset(self.records.len())
    }
    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.cache().end_offset_for(epoch, self.end())
    }
}
