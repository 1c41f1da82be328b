//! What goes through one partition, counted for whoever watches the node.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the partition was opened.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    produced_bytes: AtomicU64,
    produced_records: AtomicU64,
    consumed_bytes: AtomicU64,
    copied_here_bytes: AtomicU64,
    copied_away_bytes: AtomicU64,
}

/// The same at one moment. Bytes are those of record batches as they lie in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    /// Taken from producers.
    pub produced_bytes: u64,
    /// Their records.
    pub produced_records: u64,
    /// Given to consumers, from any tier.
    pub consumed_bytes: u64,
    /// Copied from the leader.
    pub copied_here_bytes: u64,
    /// Given to followers.
    pub copied_away_bytes: u64,
}

impl Traffic {
    pub(super) fn note_produced(&self, bytes: usize, records: u64) {
        add(&self.produced_bytes, bytes as u64);
        add(&self.produced_records, records);
    }

    pub(super) fn note_consumed(&self, bytes: usize) {
        add(&self.consumed_bytes, bytes as u64);
    }

    pub(super) fn note_copied_here(&self, bytes: usize) {
        add(&self.copied_here_bytes, bytes as u64);
    }

    pub(super) fn note_copied_away(&self, bytes: usize) {
        add(&self.copied_away_bytes, bytes as u64);
    }

    pub(super) fn totals(&self) -> TrafficTotals {
        TrafficTotals {
            produced_bytes: self.produced_bytes.load(Ordering::Relaxed),
            produced_records: self.produced_records.load(Ordering::Relaxed),
            consumed_bytes: self.consumed_bytes.load(Ordering::Relaxed),
            copied_here_bytes: self.copied_here_bytes.load(Ordering::Relaxed),
            copied_away_bytes: self.copied_away_bytes.load(Ordering::Relaxed),
        }
    }
}

impl TrafficTotals {
    /// What came since `before`; all of it, if the partition was opened anew meanwhile and counts from nothing.
    #[must_use]
    pub fn since(self, before: TrafficTotals) -> TrafficTotals {
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        TrafficTotals {
            produced_bytes: since(self.produced_bytes, before.produced_bytes),
            produced_records: since(self.produced_records, before.produced_records),
            consumed_bytes: since(self.consumed_bytes, before.consumed_bytes),
            copied_here_bytes: since(self.copied_here_bytes, before.copied_here_bytes),
            copied_away_bytes: since(self.copied_away_bytes, before.copied_away_bytes),
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
