//! How fast replicas that are not in sync may be copied (KIP-73), so that an operator's reassignment leaves room for clients.
//!
//! A leader that is above its rate answers such a replica without records, a follower that is above its own does not ask. What is
//! in sync goes on: it is what clients wait for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::{
    config::ReplicationConfig,
    metrics::{Metrics, Registry, keep},
};

/// A rate may have become larger before then.
const LONGEST: Duration = Duration::from_secs(1);

/// The two rates of a node.
#[derive(Debug)]
pub(crate) struct Throttles {
    /// Of what it sends as a leader.
    pub(crate) leader: Throttle,
    /// Of what it fetches as a follower.
    pub(crate) follower: Throttle,
}

/// What is shown of throttles, by side.
#[derive(Debug)]
pub(crate) struct ThrottleMetrics {
    bytes: IntCounterVec,
    held: IntCounterVec,
    rates: IntGaugeVec,
}

impl ThrottleMetrics {
    /// Declares them in `registry`.
    pub(crate) fn new(registry: &Registry) -> ThrottleMetrics {
        let counter = |name: &str, help: &str| keep(registry, IntCounterVec::new(Opts::new(name, help), &["side"]));
        let help = "Bytes of throttled replicas, by side, while a rate is set";
        let bytes = counter("varve_replication_throttled_bytes_total", help);
        let help = "Times that a replica had to wait for its rate, by side";
        let held = counter("varve_replication_held_back_total", help);
        let help = "Bytes per second of throttled replicas, by side; -1: no bound";
        let rates =
            keep(registry, IntGaugeVec::new(Opts::new("varve_replication_throttle_rate_bytes", help), &["side"]));
        ThrottleMetrics { bytes, held, rates }
    }
}

impl Throttles {
    pub(crate) fn new(config: &ReplicationConfig) -> Throttles {
        let now = Instant::now();
        Throttles { leader: Throttle::new(config.leader_rate, now), follower: Throttle::new(config.follower_rate, now) }
    }

    /// These hold from now on.
    pub(crate) fn set_rates(&self, config: &ReplicationConfig) {
        let now = Instant::now();
        self.leader.set_rate(config.leader_rate, now);
        self.follower.set_rate(config.follower_rate, now);
    }

    /// Shows them in `metrics`.
    pub(crate) fn register(self: &Arc<Self>, metrics: &Metrics) {
        let ThrottleMetrics { bytes, held, rates } = ThrottleMetrics::new(metrics.registry());
        let throttles = self.clone();
        metrics.before_scrape(move || {
            for (side, throttle) in [("leader", &throttles.leader), ("follower", &throttles.follower)] {
                let (bytes, held) = (bytes.with_label_values(&[side]), held.with_label_values(&[side]));
                bytes.inc_by(throttle.bytes.load(Ordering::Relaxed).saturating_sub(bytes.get()));
                held.inc_by(throttle.held_back.load(Ordering::Relaxed).saturating_sub(held.get()));
                let rate = throttle.bucket.lock().rate.map_or(-1, |rate| i64::try_from(rate).unwrap_or(i64::MAX));
                rates.with_label_values(&[side]).set(rate);
            }
        });
    }
}

/// One rate.
#[derive(Debug)]
pub(crate) struct Throttle {
    bucket: Mutex<Bucket>,
    bytes: AtomicU64,
    held_back: AtomicU64,
}

/// Bytes that may go now; negative: more went than might. It holds those of one second.
#[derive(Debug)]
struct Bucket {
    rate: Option<u64>,
    bytes: f64,
    counted: Instant,
}

impl Bucket {
    fn full(rate: Option<u64>, now: Instant) -> Bucket {
        Bucket { rate, bytes: rate.map_or(0.0, |rate| rate as f64), counted: now }
    }

    fn fill(&mut self, rate: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.counted);
        self.counted += passed;
        self.bytes = (self.bytes + rate * passed.as_secs_f64()).min(rate);
    }
}

impl Throttle {
    fn new(rate: Option<u64>, now: Instant) -> Throttle {
        let bucket = Mutex::new(Bucket::full(rate, now));
        Throttle { bucket, bytes: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    fn set_rate(&self, rate: Option<u64>, now: Instant) {
        let mut bucket = self.bucket.lock();
        if bucket.rate != rate {
            // What went too fast is not made up for under another rate.
            *bucket = Bucket::full(rate, now);
        }
    }

    /// How long nobody may go on; zero: now. Looked at again after that, in case that the rate has changed.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let mut bucket = self.bucket.lock();
        let Some(rate) = bucket.rate else { return Duration::ZERO };
        let rate = rate as f64;
        bucket.fill(rate, now);
        if bucket.bytes > 0.0 {
            return Duration::ZERO;
        }
        let wait = Duration::try_from_secs_f64(-bucket.bytes / rate).unwrap_or(LONGEST);
        wait.clamp(Duration::from_millis(1), LONGEST)
    }

    /// So many bytes of throttled replicas went.
    pub(crate) fn note(&self, bytes: usize, now: Instant) {
        let mut bucket = self.bucket.lock();
        let Some(rate) = bucket.rate else { return };
        bucket.fill(rate as f64, now);
        bucket.bytes -= bytes as f64;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many replicas have to wait.
    pub(crate) fn note_held_back(&self, replicas: usize) {
        self.held_back.fetch_add(replicas as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_seconds_bytes_are_waited_for_and_a_new_rate_holds_at_once() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let throttle = Throttle::new(Some(1000), start);
        assert_eq!(throttle.wait(at(0)), Duration::ZERO);
        throttle.note(900, at(0));
        assert_eq!(throttle.wait(at(0)), Duration::ZERO, "of the first second");
        throttle.note(400, at(0));
        assert_eq!(throttle.wait(at(0)), Duration::from_millis(300));
        assert_eq!(throttle.wait(at(301)), Duration::ZERO);
        throttle.note(1_000_000, at(301));
        assert_eq!(throttle.wait(at(301)), LONGEST, "it looks again");
        throttle.set_rate(Some(2000), at(302));
        assert_eq!(throttle.wait(at(302)), Duration::ZERO);
        throttle.note(5000, at(60_000));
        assert_eq!(throttle.wait(at(60_000)), LONGEST, "idle time is not saved up");
        throttle.set_rate(None, at(60_000));
        throttle.note(1_000_000, at(60_000));
        assert_eq!(throttle.wait(at(60_000)), Duration::ZERO);
        throttle.set_rate(Some(0), at(60_000));
        assert_eq!(throttle.wait(at(90_000)), LONGEST, "nothing at all");
    }
}
