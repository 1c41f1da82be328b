//! The metadata store as this node finds it: how long it takes to answer, and how long it has not.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tokio::time::Instant;
use varve_metadata::store::{
    LeaseId, MetadataStore, Revision, Snapshot, StoreError, StoreFuture, Transaction, TransactionLimits, Versioned,
    Watch,
};

use super::{Metrics, Registry, keep};

/// Requests to the metadata store.
#[derive(Clone, Debug)]
pub struct MetadataMetrics {
    seconds: HistogramVec,
    requests: IntCounterVec,
    silence: Gauge,
    last_answer: Arc<Mutex<Instant>>,
}

impl MetadataMetrics {
    /// Counters in `registry`.
    pub fn new(registry: &Registry) -> MetadataMetrics {
        // From a member of etcd beside us to one that is about to be given up.
        const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let seconds = HistogramOpts::new(
            "varve_metadata_request_seconds",
            "Time of one request to the metadata store (etcd), whatever its outcome",
        );
        let requests = Opts::new(
            "varve_metadata_requests_total",
            "Requests to the metadata store by kind and outcome (ok, conflict, unavailable, unknown; given_up: no answer in time)",
        );
        MetadataMetrics {
            seconds: keep(registry, HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["operation"])),
            requests: keep(registry, IntCounterVec::new(requests, &["operation", "outcome"])),
            silence: keep(
                registry,
                Gauge::new(
                    "varve_metadata_silence_seconds",
                    "Seconds since etcd last answered this node, which asks it at least three times in broker.session.timeout.ms; 0 without etcd",
                ),
            ),
            last_answer: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Has the silence of an etcd looked up before each scrape. The file of a single node is asked only when something changes.
    pub fn watch_silence(&self, metrics: &Metrics) {
        let (silence, last_answer) = (self.silence.clone(), self.last_answer.clone());
        metrics.before_scrape(move || silence.set(last_answer.lock().elapsed().as_secs_f64()));
    }

    /// The same store, with its answers counted.
    pub fn measured(&self, store: Arc<dyn MetadataStore>) -> Arc<dyn MetadataStore> {
        Arc::new(Measured { store, metrics: self.clone() })
    }

    async fn note<T>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut asking = Asking { metrics: self, operation, began: Instant::now(), outcome: "given_up" };
        let answer = asked.await;
        asking.outcome = match &answer {
            Ok(_) => "ok",
            Err(StoreError::Conflict) => "conflict",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Unknown(_)) => "unknown",
        };
        answer
    }
}

/// A request, counted when it ends or when whoever asked does not wait any more.
struct Asking<'a> {
    metrics: &'a MetadataMetrics,
    operation: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let MetadataMetrics { seconds, requests, last_answer, .. } = self.metrics;
        seconds.with_label_values(&[self.operation]).observe(self.began.elapsed().as_secs_f64());
        requests.with_label_values(&[self.operation, self.outcome]).inc();
        if matches!(self.outcome, "ok" | "conflict") {
            *last_answer.lock() = Instant::now();
        }
    }
}

struct Measured {
    store: Arc<dyn MetadataStore>,
    metrics: MetadataMetrics,
}

impl MetadataStore for Measured {
    fn identity(&self) -> Option<String> {
        self.store.identity()
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(self.metrics.note("get", self.store.get(key)))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
        Box::pin(self.metrics.note("range", self.store.range(prefix)))
    }

    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        Box::pin(self.metrics.note("transact", self.store.transact(transaction)))
    }

    fn limits(&self) -> TransactionLimits {
        self.store.limits()
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        Box::pin(self.metrics.note("grant", self.store.grant(ttl)))
    }

    fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool> {
        Box::pin(self.metrics.note("renew", self.store.renew(lease)))
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(self.metrics.note("revoke", self.store.revoke(lease)))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.store.watch(prefix, after)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};
    use varve_metadata::store::{Expect, MemoryStore, conformance};

    use super::*;

    /// A store that never answers.
    struct Hangs;

    impl MetadataStore for Hangs {
        fn get<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Option<Versioned>> {
            Box::pin(std::future::pending())
        }
        fn range<'a>(&'a self, _: &'a str) -> StoreFuture<'a, Snapshot> {
            Box::pin(std::future::pending())
        }
        fn transact(&self, _: Transaction) -> StoreFuture<'_, Revision> {
            Box::pin(std::future::pending())
        }
        fn grant(&self, _: Duration) -> StoreFuture<'_, LeaseId> {
            Box::pin(std::future::pending())
        }
        fn renew(&self, _: LeaseId) -> StoreFuture<'_, bool> {
            Box::pin(std::future::pending())
        }
        fn revoke(&self, _: LeaseId) -> StoreFuture<'_, ()> {
            Box::pin(std::future::pending())
        }
        fn watch(&self, prefix: &str, after: Revision) -> Watch {
            MemoryStore::default().watch(prefix, after)
        }
    }

    fn shows(metrics: &Metrics, line: &str) {
        let text = metrics.text();
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    fn silence(metrics: &Metrics) -> f64 {
        let text = metrics.text();
        let value = text.lines().find_map(|line| line.strip_prefix("varve_metadata_silence_seconds "));
        value.unwrap().parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_counted_by_kind_and_outcome_and_those_that_nobody_waits_for_too() {
        let metrics = Metrics::new();
        let counted = MetadataMetrics::new(metrics.registry());
        counted.watch_silence(&metrics);
        let store = counted.measured(Arc::new(MemoryStore::default()));
        store.transact(Transaction::default().put("a", "1")).await.unwrap();
        let taken = Transaction::default().put("a", "2").expecting("a", Expect::Absent);
        assert!(matches!(store.transact(taken).await, Err(StoreError::Conflict)));
        for line in [
            "varve_metadata_requests_total{operation=\"transact\",outcome=\"ok\"} 1\n",
            "varve_metadata_requests_total{operation=\"transact\",outcome=\"conflict\"} 1\n",
            "varve_metadata_request_seconds_count{operation=\"transact\"} 2\n",
        ] {
            shows(&metrics, line);
        }
        assert!(silence(&metrics) < 1.0);
        sleep(Duration::from_secs(7)).await;
        let silent = counted.measured(Arc::new(Hangs));
        assert!(timeout(Duration::from_secs(2), silent.renew(LeaseId(1))).await.is_err());
        shows(&metrics, "varve_metadata_requests_total{operation=\"renew\",outcome=\"given_up\"} 1\n");
        assert!(silence(&metrics) >= 9.0);
        store.get("a").await.unwrap();
        assert!(silence(&metrics) < 1.0);
    }

    #[tokio::test]
    async fn a_store_that_is_measured_keeps_every_promise() {
        let metrics = MetadataMetrics::new(&Registry::new());
        conformance::check(async || Measured { store: Arc::new(MemoryStore::new()), metrics: metrics.clone() }).await;
    }
}
