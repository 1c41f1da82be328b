//! A bucket of tokens that fills with time, for changes of cluster state (KIP-599).

use std::time::Duration;

use super::{Millis, rate::Window, rounded};

/// What one client may still do. Negative: it did more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Tokens, and when they were counted; a fresh bucket is full.
    counted: Option<(f64, Millis)>,
}

/// The most that fits.
fn size(window: Window, quota: f64) -> f64 {
    f64::from(window.samples) * window.sample_millis() as f64 / 1000.0 * quota
}

impl Bucket {
    fn tokens(&self, window: Window, quota: f64, now: Millis) -> f64 {
        let size = size(window, quota);
        let filled = |(tokens, then): (f64, Millis)| tokens + quota * now.since(then) as f64 / 1000.0;
        self.counted.map_or(size, |counted| filled(counted).min(size))
    }

    /// Takes `amount`, whether it is there or not.
    pub(super) fn take(&mut self, window: Window, quota: f64, amount: f64, now: Millis) {
        self.counted = Some((self.tokens(window, quota, now) - amount, now));
    }

    /// How long until the bucket is not overdrawn any more; zero if it is not.
    pub(super) fn throttle(&self, window: Window, quota: f64, now: Millis) -> Duration {
        let tokens = self.tokens(window, quota, now);
        if tokens >= 0.0 { Duration::ZERO } else { rounded(-tokens / quota * 1000.0) }
    }

    /// Whether a fresh one would say the same.
    pub(super) fn is_full(&self, window: Window, quota: f64, now: Millis) -> bool {
        self.tokens(window, quota, now) >= size(window, quota)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_may_be_overdrawn_once_and_is_then_waited_for() {
        let window = Window { samples: 11, size: Duration::from_secs(1) };
        let mut bucket = Bucket::default();
        bucket.take(window, 5.0, 55.0, Millis(1000));
        assert_eq!(bucket.throttle(window, 5.0, Millis(1000)), Duration::ZERO, "empty, not overdrawn");
        bucket.take(window, 5.0, 10.0, Millis(1000));
        assert_eq!(bucket.throttle(window, 5.0, Millis(1000)), Duration::from_secs(2));
        assert_eq!(bucket.throttle(window, 5.0, Millis(3000)), Duration::ZERO);
        assert!(!bucket.is_full(window, 5.0, Millis(13_999)));
        assert!(bucket.is_full(window, 5.0, Millis(14_000)));
    }
}
