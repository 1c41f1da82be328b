//! How fast, and how much at once: bounds that all work of one kind shares, and that may change under it.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

/// A budget of bytes per second. Unused time gives no credit beyond one second.
#[derive(Debug)]
pub struct ByteRate(Mutex<Pace>);

#[derive(Debug)]
struct Pace {
    per_second: Option<NonZeroU64>,
    /// When all that was taken so far will have been paid for.
    paid: Option<Instant>,
}

impl ByteRate {
    /// At most `per_second` bytes in the long run; `None`: as fast as it goes.
    pub fn new(per_second: Option<NonZeroU64>) -> ByteRate {
        ByteRate(Mutex::new(Pace { per_second, paid: None }))
    }

    /// The same from now on, with nothing owed. Who waits already waits as long as it was told.
    pub fn set(&self, per_second: Option<NonZeroU64>) {
        let mut pace = self.0.lock();
        if pace.per_second != per_second {
            *pace = Pace { per_second, paid: None };
        }
    }

    /// Takes `bytes` from the budget; waits until they are paid for.
    pub async fn take(&self, bytes: u64) {
        let now = Instant::now();
        let until = {
            let mut pace = self.0.lock();
            let Some(per_second) = pace.per_second else { return };
            let credit = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
            let from = pace.paid.map_or(credit, |paid| paid.max(credit));
            let until = from + Duration::from_secs_f64(bytes as f64 / per_second.get() as f64);
            pace.paid = Some(until);
            until
        };
        if until > now {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Places for work that is done at the same time.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    count: Mutex<usize>,
}

impl Places {
    /// `count` places, one at least.
    pub fn new(count: usize) -> Places {
        let count = count.max(1);
        Places { free: Arc::new(Semaphore::new(count)), count: Mutex::new(count) }
    }

    /// Where a place is to be had. Never closed.
    pub fn free(&self) -> &Arc<Semaphore> {
        &self.free
    }

    /// As many from now on, one at least. Those that are taken and too many go once they are given back. Inside of a runtime.
    pub fn set(&self, count: usize) {
        let mut before = self.count.lock();
        let count = count.max(1);
        if count > *before {
            self.free.add_permits(count - *before);
        }
        let too_many = before.saturating_sub(count);
        for _ in self.free.forget_permits(too_many)..too_many {
            let free = Arc::clone(&self.free);
            tokio::spawn(async move { free.acquire_owned().await.map(|place| place.forget()) });
        }
        *before = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_keeps_to_its_byte_rate() {
        let rate = ByteRate::new(NonZeroU64::new(1000));
        let start = Instant::now();
        for _ in 0..50 {
            rate.take(100).await;
        }
        let took = start.elapsed().as_secs_f64();
        assert!((3.9..5.1).contains(&took), "5000 bytes took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_holds_for_what_comes_next() {
        let rate = ByteRate::new(NonZeroU64::new(1));
        rate.take(1).await;
        let start = Instant::now();
        rate.set(NonZeroU64::new(1000));
        for _ in 0..30 {
            rate.take(100).await;
        }
        let took = start.elapsed().as_secs_f64();
        assert!((1.9..3.1).contains(&took), "3000 bytes took {took} s");
        rate.set(None);
        rate.take(u64::MAX).await;
        assert!(start.elapsed().as_secs_f64() < took + 0.1);
    }

    #[tokio::test]
    async fn places_come_at_once_and_go_when_they_are_given_back() {
        let places = Places::new(2);
        let take = || Arc::clone(places.free()).try_acquire_owned().ok();
        let held = [take().unwrap(), take().unwrap()];
        assert!(take().is_none());
        places.set(3);
        let third = take().unwrap();
        places.set(1);
        drop(third);
        tokio::task::yield_now().await;
        let [first, second] = held;
        drop(first);
        tokio::task::yield_now().await;
        assert!(take().is_none(), "one place, and it is taken");
        drop(second);
        tokio::task::yield_now().await;
        let last = take();
        assert!(last.is_some() && take().is_none());
        places.set(0);
        drop(last);
        assert!(take().is_some(), "there is always one");
    }
}
