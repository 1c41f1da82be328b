//! How much hot data there may be, and what producers feel before the disk is full.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

/// Share of the limit from which archived records leave the local disk before their time.
const EVICT_FROM: f64 = 0.7;
/// Share of the limit from which producers are slowed down.
const THROTTLE_FROM: f64 = 0.8;
/// How long a producer pauses right below the limit.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Weight of the newest measurement of growth.
const NEWEST: f64 = 0.3;

/// What a producer has to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pressure {
    /// Nothing.
    Fine,
    /// To slow down: 0 just above the threshold, 1 at the limit.
    Throttle(f64),
    /// No: the hot tier is full.
    Refuse,
}

impl Pressure {
    /// How long the producer's next request is to wait.
    pub fn pause(self) -> Duration {
        match self {
            Pressure::Fine => Duration::ZERO,
            Pressure::Throttle(share) => LONGEST_PAUSE.mul_f64(share.clamp(0.0, 1.0)),
            Pressure::Refuse => LONGEST_PAUSE,
        }
    }
}

/// The local bytes of all partitions against the limit that the operator set.
#[derive(Debug)]
pub struct HotPressure {
    limit: Option<u64>,
    bytes: AtomicU64,
    growth: Mutex<Growth>,
}

#[derive(Debug, Default)]
struct Growth {
    last: Option<(Duration, u64)>,
    /// Bytes per second, smoothed.
    rate: f64,
}

impl HotPressure {
    /// `limit`: bytes of local log that all partitions together may have; `None`: as much as the disk takes.
    pub fn new(limit: Option<u64>) -> HotPressure {
        HotPressure { limit, bytes: AtomicU64::new(0), growth: Mutex::default() }
    }

    /// Notes that all partitions have `bytes` of local log at `now` (monotonic).
    pub fn measure(&self, bytes: u64, now: Duration) {
        self.bytes.store(bytes, Ordering::Relaxed);
        let mut growth = self.growth.lock();
        if let Some((then, before)) = growth.last
            && now > then
        {
            let rate = (bytes as f64 - before as f64) / (now - then).as_secs_f64();
            growth.rate += NEWEST * (rate - growth.rate);
        }
        growth.last = Some((now, bytes));
    }

    /// Notes that `bytes` left the local disk since the last measurement.
    pub fn released(&self, bytes: u64) {
        let left = |measured: u64| Some(measured.saturating_sub(bytes));
        // The closure always gives a value.
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    /// Whether archived records have to leave the local disk now, so that producers need not feel the limit.
    pub fn needs_room(&self) -> bool {
        self.limit.is_some_and(|limit| self.bytes() as f64 > EVICT_FROM * limit as f64)
    }

    /// Local bytes as last measured.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The limit.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// What producers have to be told now. Costs one atomic load.
    pub fn now(&self) -> Pressure {
        let Some(limit) = self.limit else { return Pressure::Fine };
        let used = self.bytes() as f64 / limit.max(1) as f64;
        if used >= 1.0 {
            Pressure::Refuse
        } else if used > THROTTLE_FROM {
            Pressure::Throttle((used - THROTTLE_FROM) / (1.0 - THROTTLE_FROM))
        } else {
            Pressure::Fine
        }
    }

    /// Time until the limit is reached at the present growth; `None` without a limit or while hot data does not grow.
    pub fn time_to_full(&self) -> Option<Duration> {
        let left = self.limit?.saturating_sub(self.bytes());
        let rate = self.growth.lock().rate;
        if left == 0 {
            return Some(Duration::ZERO);
        }
        (rate >= 1.0).then(|| Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_are_slowed_down_before_they_are_refused() {
        let hot = HotPressure::new(Some(1000));
        let at = |bytes| {
            hot.measure(bytes, Duration::ZERO);
            hot.now()
        };
        assert_eq!(at(800), Pressure::Fine);
        assert!(matches!(at(900), Pressure::Throttle(half) if (half - 0.5).abs() < 1e-9));
        assert_eq!(at(1000), Pressure::Refuse);
        assert_eq!(at(100), Pressure::Fine);
        assert!(Pressure::Throttle(0.5).pause() < Pressure::Refuse.pause());
    }

    #[test]
    fn archived_records_leave_before_producers_feel_anything() {
        let hot = HotPressure::new(Some(1000));
        hot.measure(750, Duration::ZERO);
        assert_eq!((hot.needs_room(), hot.now()), (true, Pressure::Fine));
        hot.released(100);
        assert!(!hot.needs_room());
        assert!(!HotPressure::new(None).needs_room());
    }

    #[test]
    fn time_to_full_follows_growth() {
        let hot = HotPressure::new(Some(100_000));
        assert_eq!(hot.time_to_full(), None);
        for second in 0..60 {
            hot.measure(second * 1000, Duration::from_secs(second));
        }
        let left = hot.time_to_full().unwrap().as_secs_f64();
        assert!((40.0..43.0).contains(&left), "{left}");
        assert_eq!(HotPressure::new(None).time_to_full(), None);
    }
}
