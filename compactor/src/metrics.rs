//! What the compactor does, seen from outside.

use prometheus::{Counter, IntCounter, IntCounterVec, IntGauge, Opts, core::Collector};

/// Counters of one compactor; clones count into the same.
#[derive(Clone, Debug)]
pub struct CompactorMetrics {
    pub(crate) backlog_bytes: IntGauge,
    pub(crate) work: IntCounterVec,
    pub(crate) read_bytes: IntCounter,
    pub(crate) written_bytes: IntCounter,
    pub(crate) carried_batches: IntCounter,
    pub(crate) unreadable_batches: IntCounter,
    pub(crate) encode_seconds: Counter,
    pub(crate) swept_objects: IntCounter,
    pub(crate) unknown_topics: IntGauge,
}

impl CompactorMetrics {
    /// Fresh counters, not yet seen by anyone.
    pub fn new() -> CompactorMetrics {
        let counter = |name, help| IntCounter::new(name, help).expect("name and help are constant and valid");
        CompactorMetrics {
            backlog_bytes: IntGauge::new(
                "varve_compactor_backlog_bytes",
                "Bytes of record batches in raw objects that are to become Parquet",
            )
            .expect("name and help are constant and valid"),
            work: IntCounterVec::new(
                Opts::new(
                    "varve_compactor_work_total",
                    "Work done, by kind (expire, compact, rewrite) and outcome (done, overtaken, failed)",
                ),
                &["kind", "outcome"],
            )
            .expect("name and labels are constant and valid"),
            read_bytes: counter("varve_compactor_read_bytes_total", "Bytes of record batches read to be rewritten"),
            written_bytes: counter("varve_compactor_written_bytes_total", "Bytes of objects written"),
            carried_batches: counter(
                "varve_compactor_carried_batches_total",
                "Batches that did not rebuild from columns byte for byte and were carried beside them",
            ),
            unreadable_batches: counter(
                "varve_compactor_unreadable_batches_total",
                "Batches whose records could not be read and were carried as they are",
            ),
            encode_seconds: Counter::new(
                "varve_compactor_encode_seconds_total",
                "Time spent encoding and verifying, waiting for the upload included",
            )
            .expect("name and help are constant and valid"),
            swept_objects: counter("varve_compactor_swept_objects_total", "Objects deleted from the bucket"),
            unknown_topics: IntGauge::new(
                "varve_compactor_unknown_topics",
                "Topics that have an archive, are not the cluster's, and that nobody is known to have deleted: it is kept",
            )
            .expect("name and help are constant and valid"),
        }
    }

    /// All of them, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.backlog_bytes.clone()),
            Box::new(self.work.clone()),
            Box::new(self.read_bytes.clone()),
            Box::new(self.written_bytes.clone()),
            Box::new(self.carried_batches.clone()),
            Box::new(self.unreadable_batches.clone()),
            Box::new(self.encode_seconds.clone()),
            Box::new(self.swept_objects.clone()),
            Box::new(self.unknown_topics.clone()),
        ]
    }
}

impl Default for CompactorMetrics {
    fn default() -> CompactorMetrics {
        CompactorMetrics::new()
    }
}
