//! What cold reads cost, seen from outside.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, core::Collector};

/// Where the first batch of a read came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Memory,
    Disk,
    Bucket,
}

impl Source {
    fn label(self) -> &'static str {
        match self {
            Source::Memory => "memory",
            Source::Disk => "disk",
            Source::Bucket => "bucket",
        }
    }
}

/// Why bytes were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Demand,
    Ahead,
    Index,
}

impl Reason {
    fn label(self) -> &'static str {
        match self {
            Reason::Demand => "demand",
            Reason::Ahead => "ahead",
            Reason::Index => "index",
        }
    }
}

/// Counters of cold reads; clones count into the same.
#[derive(Clone, Debug)]
pub struct ColdMetrics {
    lookups: IntCounterVec,
    seconds: HistogramVec,
    fetches: IntCounterVec,
    fetched_bytes: IntCounterVec,
    served_bytes: IntCounter,
    in_flight: IntGauge,
    skipped: IntCounter,
    reloads: IntCounter,
}

impl ColdMetrics {
    /// Fresh counters, not yet seen by anyone.
    pub fn new() -> ColdMetrics {
        let counters = |name, help, label| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("name and label are constant and valid")
        };
        let counter = |name, help| IntCounter::new(name, help).expect("the name is constant and valid");
        let seconds = HistogramOpts::new(
            "varve_cold_first_batch_seconds",
            "Time from a cold read to its first record batch, by where that came from (memory, disk, bucket)",
        )
        .buckets(vec![0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        ColdMetrics {
            lookups: counters(
                "varve_cold_cache_lookups_total",
                "Lookups of archived batches by where they were found (memory, disk, bucket = missed)",
                "found",
            ),
            seconds: HistogramVec::new(seconds, &["source"]).expect("name and label are constant and valid"),
            fetches: counters(
                "varve_cold_fetches_total",
                "Ranges of objects fetched, by reason (demand, ahead, index)",
                "reason",
            ),
            fetched_bytes: counters(
                "varve_cold_fetched_bytes_total",
                "Stored bytes fetched, by reason (demand, ahead, index)",
                "reason",
            ),
            served_bytes: counter("varve_cold_served_bytes_total", "Bytes of record batches given to readers"),
            in_flight: IntGauge::new("varve_cold_in_flight_bytes", "Bytes being fetched or rebuilt now")
                .expect("the name is constant and valid"),
            skipped: counter(
                "varve_cold_read_ahead_skipped_total",
                "Units not read ahead because the budget was taken by readers who wait",
            ),
            reloads: counter(
                "varve_cold_manifest_reloads_total",
                "Manifests loaded anew because an object they list was gone",
            ),
        }
    }

    /// All of them, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.lookups.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.fetches.clone()),
            Box::new(self.fetched_bytes.clone()),
            Box::new(self.served_bytes.clone()),
            Box::new(self.in_flight.clone()),
            Box::new(self.skipped.clone()),
            Box::new(self.reloads.clone()),
        ]
    }

    /// Lookups that were answered from `memory`, from `disk`, or had to go to the `bucket`.
    pub fn lookups(&self, found: &str) -> u64 {
        self.lookups.with_label_values(&[found]).get()
    }

    /// Ranges fetched for a `reason` (`demand`, `ahead`, `index`).
    pub fn fetches(&self, reason: &str) -> u64 {
        self.fetches.with_label_values(&[reason]).get()
    }

    /// Stored bytes fetched for a `reason`.
    pub fn fetched_bytes(&self, reason: &str) -> u64 {
        self.fetched_bytes.with_label_values(&[reason]).get()
    }

    /// Bytes being fetched or rebuilt now.
    pub fn in_flight_bytes(&self) -> i64 {
        self.in_flight.get()
    }

    pub(super) fn found(&self, source: Source) {
        self.lookups.with_label_values(&[source.label()]).inc();
    }

    pub(super) fn first_batch(&self, source: Source, took: Duration) {
        self.seconds.with_label_values(&[source.label()]).observe(took.as_secs_f64());
    }

    pub(super) fn fetched(&self, reason: Reason, bytes: u64) {
        self.fetches.with_label_values(&[reason.label()]).inc();
        self.fetched_bytes.with_label_values(&[reason.label()]).inc_by(bytes);
    }

    pub(super) fn served(&self, bytes: u64) {
        self.served_bytes.inc_by(bytes);
    }

    pub(super) fn in_flight(&self, change: i64) {
        self.in_flight.add(change);
    }

    pub(super) fn skipped(&self) {
        self.skipped.inc();
    }

    pub(super) fn reloaded(&self) {
        self.reloads.inc();
    }
}

impl Default for ColdMetrics {
    fn default() -> ColdMetrics {
        ColdMetrics::new()
    }
}
