//! What the canary measures.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::metrics::{Registry, keep};

/// A step of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Produce,
    Consume,
    Archive,
    Query,
}

impl Step {
    const ALL: [Step; 4] = [Step::Produce, Step::Consume, Step::Archive, Step::Query];

    pub(super) fn name(self) -> &'static str {
        match self {
            Step::Produce => "produce",
            Step::Consume => "consume",
            Step::Archive => "archive",
            Step::Query => "query",
        }
    }
}

/// Counters by step.
#[derive(Debug)]
pub(super) struct CanaryMetrics {
    seconds: HistogramVec,
    failures: IntCounterVec,
    last_success: GaugeVec,
}

/// Declares what the canary measures, for the reference of metrics.
pub(crate) fn canary_metrics(registry: &Registry) {
    CanaryMetrics::new(registry);
}

impl CanaryMetrics {
    pub(super) fn new(registry: &Registry) -> CanaryMetrics {
        // From a produce within one machine to an archive lag of an hour.
        const SECONDS: [f64; 14] =
            [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0];
        let seconds = HistogramOpts::new(
            "varve_canary_step_seconds",
            "Time of a step that succeeded, over all partitions (produce, consume, archive, query)",
        );
        let failures = Opts::new("varve_canary_failures_total", "Rounds that ended with the failure of this step");
        let last = Opts::new(
            "varve_canary_last_success_timestamp_seconds",
            "When this step last succeeded, in seconds since 1970",
        );
        let metrics = CanaryMetrics {
            seconds: keep(registry, HistogramVec::new(seconds.buckets(SECONDS.to_vec()), &["step"])),
            failures: keep(registry, IntCounterVec::new(failures, &["step"])),
            last_success: keep(registry, GaugeVec::new(last, &["step"])),
        };
        // A rate of failures is 0, and not unknown, before the first.
        for step in Step::ALL {
            metrics.failures.with_label_values(&[step.name()]);
        }
        metrics
    }

    pub(super) fn succeeded(&self, step: Step, took: Duration) {
        self.seconds.with_label_values(&[step.name()]).observe(took.as_secs_f64());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.with_label_values(&[step.name()]).set(now.as_secs_f64());
    }

    pub(super) fn failed(&self, step: Step) {
        self.failures.with_label_values(&[step.name()]).inc();
    }
}
