//! What the node counts, declared once: name, unit, labels, help.
//!
//! Whoever counts something holds the [`Metrics`] (or registers counters of its own: [`Metrics::registry`]). What is
//! cheaper to look up than to keep up to date (sizes, lags) is refreshed right before it is read:
//! [`Metrics::before_scrape`]. Labels are bounded: APIs, kinds, directories, topics; never a client or a partition.

mod cluster;
mod disk;
mod metadata;
mod reference;
mod registry;
mod storage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

pub use cluster::ClusterGauges;
pub use disk::{DiskGauges, TimeToFull};
pub use metadata::MetadataMetrics;
pub use reference::{declared, reference};
pub use registry::{Declared, Registry};
pub use storage::StorageMetrics;

use crate::{config::MetadataUrl, partition::Partitions, server::Broker};

/// The node's counters. Clones count into the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    refreshers: Arc<Mutex<Vec<Refresher>>>,
    sections: Arc<Mutex<Vec<Section>>>,
    /// Requests.
    pub requests: RequestMetrics,
    /// Connections.
    pub connections: ConnectionMetrics,
    /// Logs and archive.
    pub storage: StorageMetrics,
}

type Refresher = Box<dyn Fn() + Send>;
/// Writes metrics whose names are not known beforehand.
type Section = Box<dyn Fn(&mut String) + Send>;

/// Requests by API, under the protocol's name for it (`Produce`, `Fetch`).
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    seconds: HistogramVec,
    under_way: IntGaugeVec,
    failed: IntCounterVec,
    /// Bytes of requests that were read, with their length prefix.
    pub received_bytes: IntCounter,
    /// Bytes of answers that were written, with their length prefix.
    pub sent_bytes: IntCounter,
    /// Memory that requests take from their budget.
    pub memory_bytes: IntGauge,
}

/// Connections of clients.
#[derive(Clone, Debug)]
pub struct ConnectionMetrics {
    /// Open at this time.
    pub open: IntGauge,
    /// Accepted so far.
    pub accepted: IntCounter,
    refused: IntCounterVec,
    throttled: IntCounterVec,
    authentications: IntCounterVec,
    reauthentications: IntCounterVec,
    /// Connections closed because their session was over and they asked for something else than a new one.
    pub sessions_expired: IntCounter,
}

impl Metrics {
    /// Fresh counters in a registry of their own.
    ///
    /// # Panics
    /// Never: the names are distinct and valid, which a test holds.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        Metrics {
            requests: RequestMetrics::new(&registry),
            connections: ConnectionMetrics::new(&registry),
            storage: StorageMetrics::new(&registry),
            registry,
            refreshers: Arc::default(),
            sections: Arc::default(),
        }
    }

    /// Where other rooms register counters of their own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Has `refresh` run each time before the counters are read. It must not block for long: a scrape waits for it.
    pub fn before_scrape(&self, refresh: impl Fn() + Send + 'static) {
        self.refreshers.lock().push(Box::new(refresh));
    }

    /// As [`before_scrape`](Self::before_scrape), with what `source` shows, for as long as somebody else holds it.
    pub fn before_scrape_of<T: Send + Sync + 'static>(&self, source: &Arc<T>, refresh: impl Fn(&T) + Send + 'static) {
        let source = Arc::downgrade(source);
        self.before_scrape(move || {
            if let Some(source) = source.upgrade() {
                refresh(&source);
            }
        });
    }

    /// Has `section` write behind the counters, in Prometheus' text format, under names that no counter has.
    pub fn append(&self, section: impl Fn(&mut String) + Send + 'static) {
        self.sections.lock().push(Box::new(section));
    }

    /// Has the sizes of `partitions`, and the free space of the directories, looked up before each scrape.
    pub fn watch_storage(&self, partitions: Arc<Partitions>, dirs: impl IntoIterator<Item = PathBuf>) {
        let (storage, disks) = (self.storage.clone(), DiskGauges::new(&self.registry, dirs));
        self.before_scrape(move || {
            storage.measure(&partitions);
            disks.refresh();
        });
    }

    /// Has what this node sees of its cluster, and its certificates, looked up before each scrape.
    pub fn watch_cluster(&self, broker: &Arc<Broker>) {
        let (gauges, broker) = (ClusterGauges::new(&self.registry), Arc::downgrade(broker));
        self.before_scrape(move || {
            if let Some(broker) = broker.upgrade() {
                let decides_alone = matches!(broker.config.metadata, MetadataUrl::Embedded(_));
                gauges.show(&broker.metadata.image(), broker.node, decides_alone);
                gauges.show_certificates(&broker.listeners.known());
            }
        });
    }

    /// All counters in Prometheus' text format.
    pub fn text(&self) -> String {
        for refresh in self.refreshers.lock().iter() {
            refresh();
        }
        let mut text = self.registry.text();
        self.sections.lock().iter().for_each(|section| section(&mut text));
        text
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl RequestMetrics {
    fn new(registry: &Registry) -> RequestMetrics {
        // From what a page-cache append takes to what a long poll waits.
        const SECONDS: [f64; 16] =
            [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
        let seconds = HistogramOpts::new(
            "varve_request_seconds",
            "Time from a request's last byte read to its answer ready, long polls included",
        );
        RequestMetrics {
            seconds: keep(registry, HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["api"])),
            under_way: keep(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "varve_requests_under_way",
                        "Requests that are not answered yet, those included that wait for records or for other replicas",
                    ),
                    &["api"],
                ),
            ),
            failed: keep(
                registry,
                IntCounterVec::new(
                    Opts::new("varve_request_failures_total", "Requests that closed their connection, by reason"),
                    &["reason"],
                ),
            ),
            received_bytes: keep(registry, IntCounter::new("varve_received_bytes_total", "Bytes of requests read")),
            sent_bytes: keep(registry, IntCounter::new("varve_sent_bytes_total", "Bytes of answers written")),
            memory_bytes: keep(
                registry,
                IntGauge::new("varve_request_memory_bytes", "Memory taken by requests that are not answered yet"),
            ),
        }
    }

    /// A request was answered after this time.
    pub fn answered(&self, api: &str, took: Duration) {
        self.seconds.with_label_values(&[api]).observe(took.as_secs_f64());
    }

    /// The histogram of one API, for whoever looks it up once and keeps it.
    pub fn seconds_of(&self, api: &str) -> prometheus::Histogram {
        self.seconds.with_label_values(&[api])
    }

    /// The requests of one API that are not answered yet.
    pub fn under_way_of(&self, api: &str) -> IntGauge {
        self.under_way.with_label_values(&[api])
    }

    /// A request could not be answered and closed its connection: `too_large`, `malformed`, `unsupported`, …
    pub fn failed(&self, reason: &str) {
        self.failed.with_label_values(&[reason]).inc();
    }
}

impl ConnectionMetrics {
    fn new(registry: &Registry) -> ConnectionMetrics {
        ConnectionMetrics {
            open: keep(registry, IntGauge::new("varve_connections", "Connections open")),
            accepted: keep(registry, IntCounter::new("varve_connections_accepted_total", "Connections accepted")),
            refused: keep(
                registry,
                IntCounterVec::new(
                    Opts::new("varve_connections_refused_total", "Connections closed at once, by the limit they met"),
                    &["limit"],
                ),
            ),
            throttled: keep(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "varve_connections_throttled_total",
                        "Connections that waited for max.connection.creation.rate, by listener",
                    ),
                    &["listener"],
                ),
            ),
            authentications: keep(
                registry,
                IntCounterVec::new(
                    Opts::new("varve_authentications_total", "TLS handshakes and SASL logins, by listener and result"),
                    &["listener", "result"],
                ),
            ),
            reauthentications: keep(
                registry,
                IntCounterVec::new(
                    Opts::new("varve_reauthentications_total", "Sessions renewed by SASL, by listener and result"),
                    &["listener", "result"],
                ),
            ),
            sessions_expired: keep(
                registry,
                IntCounter::new("varve_sessions_expired_total", "Connections closed because their session was over"),
            ),
        }
    }

    /// Somebody got in on `listener`, by a certificate or by SASL, or did not.
    pub fn authenticated(&self, listener: &str, success: bool) {
        self.authentications.with_label_values(&[listener, outcome(success)]).inc();
    }

    /// Somebody was asked again who he is.
    pub fn reauthenticated(&self, listener: &str, success: bool) {
        self.reauthentications.with_label_values(&[listener, outcome(success)]).inc();
    }

    /// A connection was closed at once because of a limit: `total`, `address`.
    pub fn refused(&self, limit: &str) {
        self.refused.with_label_values(&[limit]).inc();
    }

    /// A connection had to wait for `max.connection.creation.rate`.
    pub fn throttled(&self, listener: &str) {
        self.throttled.with_label_values(&[listener]).inc();
    }
}

fn outcome(success: bool) -> &'static str {
    if success { "successful" } else { "failed" }
}

/// A declared metric, in the registry.
pub(crate) fn keep<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("name and labels are constant and valid");
    registry.register(Box::new(metric.clone())).expect("each name is declared once");
    metric
}

/// A gauge by directory, in the registry.
fn by_directory(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    keep(registry, GaugeVec::new(Opts::new(name, help), &["dir"]))
}

/// `varve_build_info`: always 1, with the version as a label; when the process started, which is now; and what every process
/// says of itself to Prometheus (`process_…`).
pub fn register_build_info(registry: &Registry) {
    let opts = Opts::new("varve_build_info", "Always 1; the label says which version runs")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    keep(registry, Gauge::with_opts(opts)).set(1.0);
    let started = Gauge::new("varve_start_timestamp_seconds", "When the process started, in seconds since 1970");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    keep(registry, started).set(now.as_secs_f64());
    registry.register(Box::new(ProcessCollector::for_self())).expect("each name is declared once");
}

/// `varve_clock_timestamp_seconds`: what the machine's clock says when somebody looks, to be held beside his own.
pub fn show_clock(metrics: &Metrics) {
    let clock = clock(metrics.registry());
    metrics.before_scrape(move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        clock.set(now.as_secs_f64());
    });
}

fn clock(registry: &Registry) -> Gauge {
    let help = "What the clock of this machine says, in seconds since 1970";
    keep(registry, Gauge::new("varve_clock_timestamp_seconds", help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_declared_once_and_printed_with_its_help() {
        let metrics = Metrics::new();
        register_build_info(metrics.registry());
        metrics.requests.answered("Produce", Duration::from_micros(70));
        metrics.connections.refused("address");
        let text = metrics.text();
        for line in [
            "# HELP varve_request_seconds Time from",
            "varve_request_seconds_bucket{api=\"Produce\",le=\"0.0001\"} 1",
            "varve_connections_refused_total{limit=\"address\"} 1",
            "varve_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn sizes_are_refreshed_right_before_they_are_read() {
        let metrics = Metrics::new();
        let open = metrics.connections.open.clone();
        metrics.before_scrape(move || open.inc());
        assert!(metrics.text().contains("varve_connections 1"));
        assert!(metrics.text().contains("varve_connections 2"));
    }
}
