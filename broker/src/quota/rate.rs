//! A rate over a sliding window, as Kafka's `Rate` of sampled sums computes it.
//!
//! ```text
//! samples   │ 0.0-1.0 s │ 1.0-2.0 s │ ... │ now, not full │     `samples` of them, each `size` long, and one that overlaps
//! rate = sum of all / (time since the oldest began, but at least `samples` - 1 whole ones)
//! ```
//! So a client that was quiet has the whole window's worth to spend at once, and one that spends more pays it off.

use std::{collections::VecDeque, time::Duration};

use super::{Millis, rounded};

/// The window over which rates are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// `quota.window.num`; at least 1.
    pub samples: u32,
    /// `quota.window.size.seconds`.
    pub size: Duration,
}

impl Default for Window {
    /// Kafka's: ten whole seconds and the one that runs.
    fn default() -> Window {
        Window { samples: 11, size: Duration::from_secs(1) }
    }
}

impl Window {
    pub(super) fn sample_millis(self) -> u64 {
        (self.size.as_millis() as u64).max(1)
    }

    /// How long what was done is remembered, in milliseconds.
    pub(super) fn memory_millis(self) -> u64 {
        u64::from(self.samples.max(1)) * self.sample_millis()
    }

    /// What may be done at once under `quota` by who did nothing before: the window without its running sample.
    pub(super) fn burst(self, quota: f64) -> f64 {
        quota * f64::from(self.samples.saturating_sub(1)) * self.sample_millis() as f64 / 1000.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    begun: Millis,
    last: Millis,
    sum: f64,
}

impl Sample {
    fn at(now: Millis) -> Sample {
        Sample { begun: now, last: now, sum: 0.0 }
    }
}

/// What one client did, by sample; the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate(VecDeque<Sample>);

impl Rate {
    /// Notes `amount`, which may be negative to take something back.
    pub(super) fn record(&mut self, window: Window, amount: f64, now: Millis) {
        let is_full = |sample: &Sample| now.since(sample.begun) >= window.sample_millis();
        if self.0.back().is_none_or(is_full) {
            // One more than the window has: the oldest overlaps its beginning.
            if self.0.len() > window.samples as usize {
                self.0.pop_front();
            }
            self.0.push_back(Sample::at(now));
        }
        if let Some(sample) = self.0.back_mut() {
            sample.sum += amount;
            sample.last = now;
        }
    }

    /// The time that the rate is averaged over, in milliseconds; at least 1.
    fn span(&mut self, window: Window, now: Millis) -> u64 {
        let memory = window.memory_millis();
        self.0.retain(|sample| now.since(sample.last) < memory);
        let elapsed = self.0.front().map_or(0, |oldest| now.since(oldest.begun));
        let whole = elapsed / window.sample_millis();
        let wanted = u64::from(window.samples.saturating_sub(1));
        (elapsed + wanted.saturating_sub(whole) * window.sample_millis()).max(1)
    }

    /// Per second.
    pub(super) fn measure(&mut self, window: Window, now: Millis) -> f64 {
        let span = self.span(window, now) as f64 / 1000.0;
        self.0.iter().map(|sample| sample.sum).sum::<f64>() / span
    }

    /// How long whoever did this has to wait until its rate is `quota` again; zero if it is not above.
    pub(super) fn throttle(&mut self, window: Window, quota: f64, now: Millis) -> Duration {
        let rate = self.measure(window, now);
        if rate <= quota {
            return Duration::ZERO;
        }
        rounded((rate - quota) / quota * self.span(window, now) as f64)
    }

    /// Whether a fresh one would say the same.
    pub(super) fn is_idle(&self, window: Window, now: Millis) -> bool {
        self.0.iter().all(|sample| now.since(sample.last) >= window.memory_millis())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Window = Window { samples: 11, size: Duration::from_secs(1) };

    #[test]
    fn a_client_that_was_quiet_may_spend_the_window_at_once() {
        let mut rate = Rate::default();
        rate.record(WINDOW, 10_000.0, Millis(5000));
        assert_eq!(rate.throttle(WINDOW, 1000.0, Millis(5000)), Duration::ZERO, "10 s of 1000 per second");
        rate.record(WINDOW, 2000.0, Millis(5000));
        // (1200 - 1000) / 1000 of ten seconds.
        assert_eq!(rate.throttle(WINDOW, 1000.0, Millis(5000)), Duration::from_secs(2));
        // Kafka's own example (ClientQuotaManagerTest): a full window of half samples, then one spike.
        let mut rate = Rate::default();
        for second in 0..10 {
            rate.record(WINDOW, 400.0, Millis(second * 1000));
        }
        rate.record(WINDOW, 2300.0, Millis(10_500));
        assert_eq!(rate.throttle(WINDOW, 500.0, Millis(10_500)), Duration::from_millis(2100));
    }

    #[test]
    fn what_is_past_the_window_is_forgotten() {
        let mut rate = Rate::default();
        rate.record(WINDOW, 1e9, Millis(0));
        assert!(!rate.throttle(WINDOW, 1.0, Millis(10_999)).is_zero());
        assert!(!rate.is_idle(WINDOW, Millis(10_999)));
        assert_eq!(rate.throttle(WINDOW, 1.0, Millis(11_000)), Duration::ZERO);
        assert!(rate.is_idle(WINDOW, Millis(11_000)));
    }

    proptest! {
        #[test]
        fn samples_are_bounded_and_no_wait_outlasts_the_window(
            steps in proptest::collection::vec((0_u64..3000, 0.0..5000.0_f64), 1..200),
        ) {
            let (mut rate, mut now) = (Rate::default(), Millis(0));
            for (step, amount) in steps {
                now.0 += step;
                rate.record(WINDOW, amount, now);
                prop_assert!(rate.0.len() <= WINDOW.samples as usize + 1);
                rate.throttle(WINDOW, 1000.0, now);
                let mut after = rate.clone();
                let later = Millis(now.0 + WINDOW.memory_millis());
                prop_assert_eq!(after.throttle(WINDOW, 1000.0, later), Duration::ZERO);
                prop_assert!(after.is_idle(WINDOW, later));
            }
        }
    }
}
