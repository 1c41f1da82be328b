//! What upkeep counts.

use prometheus::{Gauge, IntCounter, IntCounterVec, Opts};

use crate::metrics::{Registry, keep};

/// Work on local logs.
#[derive(Clone, Debug)]
pub struct UpkeepMetrics {
    /// Segments of topics without archive that retention removed.
    pub expired_segments: IntCounter,
    /// Bytes of those.
    pub expired_bytes: IntCounter,
    /// Producers forgotten.
    pub expired_producers: IntCounter,
    /// Rounds of compaction.
    pub cleaned_logs: IntCounter,
    /// Bytes that those met, and what they kept.
    pub cleaned_bytes: IntCounterVec,
    /// The dirtiest log's share of dirty bytes, at the last look.
    pub max_dirty_ratio: Gauge,
    /// Logs found too damaged to be compacted.
    pub uncleanable_logs: IntCounter,
}

impl UpkeepMetrics {
    /// Fresh counters in `registry`.
    ///
    /// # Panics
    /// If they are declared there already.
    pub fn new(registry: &Registry) -> UpkeepMetrics {
        let counter = |name, help| keep(registry, IntCounter::new(name, help));
        UpkeepMetrics {
            expired_segments: counter(
                "varve_expired_local_segments_total",
                "Segments of topics without archive that retention removed",
            ),
            expired_bytes: counter(
                "varve_expired_local_bytes_total",
                "Bytes of segments of topics without archive that retention removed",
            ),
            expired_producers: counter("varve_expired_producers_total", "Silent idempotent producers forgotten"),
            cleaned_logs: counter("varve_cleaner_rounds_total", "Rounds of compaction over local logs"),
            cleaned_bytes: keep(
                registry,
                IntCounterVec::new(
                    Opts::new("varve_cleaner_bytes_total", "Bytes that compaction of local logs read, and kept"),
                    &["what"],
                ),
            ),
            max_dirty_ratio: keep(
                registry,
                Gauge::new("varve_cleaner_max_dirty_ratio", "Dirty share of the dirtiest compacted local log"),
            ),
            uncleanable_logs: counter(
                "varve_cleaner_damaged_logs_total",
                "Local logs found too damaged to be compacted",
            ),
        }
    }
}
