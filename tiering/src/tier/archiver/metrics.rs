//! What the archiver does and how far behind it is, seen from outside.

use prometheus::{IntCounter, IntGauge, Opts, core::Collector};

/// Counters of one archiver; clones count into the same.
#[derive(Clone, Debug)]
pub struct ArchiverMetrics {
    /// Segments uploaded and published.
    pub uploaded_segments: IntCounter,
    /// Their bytes.
    pub uploaded_bytes: IntCounter,
    /// Objects uploaded that hold segments of several partitions.
    pub shared_objects: IntCounter,
    /// Looks at a partition that ended in a failure and will be repeated.
    pub failures: IntCounter,
    /// Segments found damaged on the local disk, which do not go up.
    pub damaged: IntCounter,
    /// Local segments deleted because of retention.
    pub deleted_local_segments: IntCounter,
    /// Partitions in the archiver's care.
    pub partitions: IntGauge,
    /// Sealed bytes that are not in the archive yet.
    pub pending_bytes: IntGauge,
    /// Age of the longest waiting sealed segment, in seconds.
    pub lag_seconds: IntGauge,
    /// Local bytes of all partitions.
    pub hot_bytes: IntGauge,
    /// The limit for them; 0 if there is none.
    pub hot_limit_bytes: IntGauge,
    /// Produce requests that were slowed down because of it.
    pub throttled_requests: IntCounter,
    /// Produce requests that were refused because of it.
    pub refused_requests: IntCounter,
    /// Seconds until that limit at the present growth; -1 if it does not grow or there is none.
    pub time_to_full_seconds: IntGauge,
}

impl ArchiverMetrics {
    /// Fresh counters, not yet seen by anyone.
    pub fn new() -> ArchiverMetrics {
        let counter = |name, help| IntCounter::with_opts(Opts::new(name, help)).expect("constant and valid");
        let gauge = |name, help| IntGauge::with_opts(Opts::new(name, help)).expect("constant and valid");
        ArchiverMetrics {
            uploaded_segments: counter("varve_archive_uploaded_segments_total", "Segments uploaded and published"),
            uploaded_bytes: counter("varve_archive_uploaded_bytes_total", "Bytes of segments uploaded and published"),
            shared_objects: counter(
                "varve_archive_shared_objects_total",
                "Objects uploaded that hold segments of several partitions",
            ),
            failures: counter("varve_archive_failures_total", "Archive work that failed and will be repeated"),
            damaged: counter("varve_archive_damaged_segments_total", "Local segments too damaged to archive"),
            deleted_local_segments: counter(
                "varve_archive_deleted_local_segments_total",
                "Local segments deleted by retention",
            ),
            partitions: gauge("varve_archive_partitions", "Partitions in the archiver's care"),
            pending_bytes: gauge("varve_archive_pending_bytes", "Sealed bytes that are not in the archive yet"),
            lag_seconds: gauge(
                "varve_archive_lag_seconds",
                "Seconds that the oldest sealed segment waits for the archive",
            ),
            hot_bytes: gauge("varve_hot_bytes", "Bytes of local log of all partitions"),
            hot_limit_bytes: gauge("varve_hot_limit_bytes", "Limit of the bytes of local log; 0 if there is none"),
            throttled_requests: counter(
                "varve_hot_throttled_requests_total",
                "Produce requests slowed down because the hot tier is nearly full",
            ),
            refused_requests: counter(
                "varve_hot_refused_requests_total",
                "Produce requests refused because the hot tier is full",
            ),
            time_to_full_seconds: gauge(
                "varve_hot_time_to_full_seconds",
                "Seconds until the hot limit at the present growth; -1 if it is not in sight",
            ),
        }
    }

    /// All of them, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let counters = [
            &self.uploaded_segments,
            &self.uploaded_bytes,
            &self.shared_objects,
            &self.failures,
            &self.damaged,
            &self.deleted_local_segments,
            &self.throttled_requests,
            &self.refused_requests,
        ];
        let gauges = [
            &self.partitions,
            &self.pending_bytes,
            &self.lag_seconds,
            &self.hot_bytes,
            &self.hot_limit_bytes,
            &self.time_to_full_seconds,
        ];
        let counters = counters.into_iter().map(|counter| Box::new(counter.clone()) as Box<dyn Collector>);
        let gauges = gauges.into_iter().map(|gauge| Box::new(gauge.clone()) as Box<dyn Collector>);
        counters.chain(gauges).collect()
    }
}

impl Default for ArchiverMetrics {
    fn default() -> ArchiverMetrics {
        ArchiverMetrics::new()
    }
}
