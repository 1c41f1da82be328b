//! A rate that several workers keep to together.

use std::time::{Duration, Instant};

/// What was copied, and how much of it the rate has paid for. Whoever copied first goes on first. A rate in bytes per second
/// may be another one at every call; 0: without bound.
#[derive(Debug)]
pub(super) struct Throttle {
    copied: u64,
    paid: f64,
    seen: Instant,
}

/// Up to where must be paid before somebody goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due(u64);

impl Throttle {
    pub(super) fn new(now: Instant) -> Throttle {
        Throttle { copied: 0, paid: 0.0, seen: now }
    }

    /// `bytes` more were copied.
    pub(super) fn note(&mut self, bytes: u64, rate: u64, now: Instant) -> Due {
        self.pay(rate, now);
        self.copied += bytes;
        Due(self.copied)
    }

    /// How long it takes at `rate` until `due` is paid.
    pub(super) fn wait(&mut self, due: Due, rate: u64, now: Instant) -> Duration {
        self.pay(rate, now);
        let owed = due.0 as f64 - self.paid;
        if owed <= 0.0 {
            Duration::ZERO
        } else {
            Duration::try_from_secs_f64(owed / rate as f64).unwrap_or(Duration::MAX)
        }
    }

    /// Time in which nothing was copied pays for nothing that comes.
    fn pay(&mut self, rate: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.seen);
        self.seen += passed;
        let paid = self.paid + passed.as_secs_f64() * rate as f64;
        self.paid = if rate == 0 { self.copied as f64 } else { paid.min(self.copied as f64) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn all_together_keep_to_the_rate_and_who_copied_first_goes_on_first() {
        let start = Instant::now();
        let at = |after| start + seconds(after);
        let mut throttle = Throttle::new(start);
        let (first, second) = (throttle.note(100, 10, at(0)), throttle.note(100, 10, at(0)));
        assert_eq!((throttle.wait(first, 10, at(0)), throttle.wait(second, 10, at(0))), (seconds(10), seconds(20)));
        assert_eq!((throttle.wait(first, 10, at(10)), throttle.wait(second, 10, at(10))), (seconds(0), seconds(10)));
    }

    #[test]
    fn a_slow_rate_is_kept_and_a_new_one_holds_at_once() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let due = throttle.note(1 << 20, 1, start);
        assert_eq!(throttle.wait(due, 1, start), seconds(1 << 20));
        assert_eq!(throttle.wait(due, 1 << 20, start), seconds(1));
        assert_eq!(throttle.wait(due, 0, start), Duration::ZERO);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let later = start + seconds(1000);
        let due = throttle.note(100, 10, later);
        assert_eq!(throttle.wait(due, 10, later), seconds(10));
    }
}
