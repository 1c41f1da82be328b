//! What the bucket's requests cost, seen from outside.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, core::Collector};

/// Kind of a request, as the store bills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Put,
    List,
    Delete,
    Head,
}

impl Operation {
    pub(super) fn label(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::List => "list",
            Operation::Delete => "delete",
            Operation::Head => "head",
        }
    }
}

/// Counters of one bucket; clones count into the same.
#[derive(Clone, Debug)]
pub struct BucketMetrics {
    requests: IntCounterVec,
    bytes: IntCounterVec,
    seconds: HistogramVec,
}

impl BucketMetrics {
    /// Fresh counters, not yet seen by anyone.
    pub fn new() -> BucketMetrics {
        let counter = |name, help, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("name and labels are constant and valid")
        };
        let latency = HistogramOpts::new(
            "varve_object_store_request_seconds",
            "Time of one request to the object store, failed attempts included",
        )
        .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        BucketMetrics {
            requests: counter(
                "varve_object_store_requests_total",
                "Requests to the object store by kind and outcome (ok, missing, exists, error, refused)",
                &["operation", "outcome"],
            ),
            bytes: counter(
                "varve_object_store_bytes_total",
                "Bytes of object content moved, by kind of request (get, put)",
                &["operation"],
            ),
            seconds: HistogramVec::new(latency, &["operation"]).expect("name and labels are constant and valid"),
        }
    }

    /// All of them, for a registry.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.requests.clone()), Box::new(self.bytes.clone()), Box::new(self.seconds.clone())]
    }

    /// Requests of one kind (`get`, `put`, `list`, `delete`, `head`) that ended in one outcome.
    pub fn requests(&self, operation: &str, outcome: &str) -> u64 {
        self.requests.with_label_values(&[operation, outcome]).get()
    }

    pub(super) fn attempt(&self, operation: Operation, outcome: &'static str, took: Duration) {
        self.requests.with_label_values(&[operation.label(), outcome]).inc();
        self.seconds.with_label_values(&[operation.label()]).observe(took.as_secs_f64());
    }

    pub(super) fn moved(&self, operation: Operation, bytes: u64) {
        self.bytes.with_label_values(&[operation.label()]).inc_by(bytes);
    }
}

impl Default for BucketMetrics {
    fn default() -> BucketMetrics {
        BucketMetrics::new()
    }
}
