//! Who is throttled, for Prometheus.

use std::time::Duration;

use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts};
use varve_metadata::model::QuotaKey;

use crate::metrics::{Registry, keep};

/// Clients that are shown by name, per kind of quota: those that were told to wait longest.
const SHOWN: usize = 50;

/// What quotas count. Labels are bounded: kinds of quotas, and of clients the `SHOWN` most throttled.
#[derive(Clone, Debug)]
pub struct QuotaMetrics {
    throttled: IntCounterVec,
    seconds: CounterVec,
    clients: GaugeVec,
}

impl QuotaMetrics {
    /// Counters in `registry`.
    pub fn new(registry: &Registry) -> QuotaMetrics {
        let throttled = Opts::new("varve_throttled_total", "Answers that told a client to wait, by kind of quota");
        let seconds =
            Opts::new("varve_throttled_seconds_total", "How long clients were told to wait, by kind of quota");
        let clients = Opts::new(
            "varve_client_throttled_seconds",
            "How long a client was told to wait since it was last idle, for those who were told most",
        );
        QuotaMetrics {
            throttled: keep(registry, IntCounterVec::new(throttled, &["quota"])),
            seconds: keep(registry, CounterVec::new(seconds, &["quota"])),
            clients: keep(registry, GaugeVec::new(clients, &["quota", "user", "client_id"])),
        }
    }

    /// Counts one answer that told a client to wait; nothing if it did not.
    pub fn note(&self, key: QuotaKey, wait: Duration) {
        if !wait.is_zero() {
            self.throttled.with_label_values(&[key.name()]).inc();
            self.seconds.with_label_values(&[key.name()]).inc_by(wait.as_secs_f64());
        }
    }

    /// Forgets whom it showed.
    pub(super) fn begin(&self) {
        self.clients.reset();
    }

    /// Shows the most throttled of these clients.
    pub(super) fn show<'a>(&self, key: QuotaKey, clients: impl Iterator<Item = (&'a str, &'a str, Duration)>) {
        let mut throttled: Vec<_> = clients.filter(|(_, _, throttled)| !throttled.is_zero()).collect();
        throttled.sort_by_key(|(_, _, throttled)| std::cmp::Reverse(*throttled));
        for (user, client, throttled) in throttled.into_iter().take(SHOWN) {
            self.clients.with_label_values(&[key.name(), user, client]).set(throttled.as_secs_f64());
        }
    }
}
