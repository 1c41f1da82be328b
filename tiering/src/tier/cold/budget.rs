//! How much cold work may be under way at one time, so that it never crowds out the hot path.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{metrics::ColdMetrics, options::ColdOptions};
use crate::tier::pace::Places;

/// Bytes that one permit stands for.
const PERMIT_BYTES: u64 = 64 << 10;

/// Bytes, reads and decoding threads that cold work may take. First come, first served.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    all: u32,
    reads: Arc<Places>,
    decoders: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    metrics: ColdMetrics,
}

/// So many wait for the budget that no other may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// A place in the queue.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    bytes: OwnedSemaphorePermit,
    _read: OwnedSemaphorePermit,
    metrics: ColdMetrics,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.metrics.in_flight(-((self.bytes.num_permits() as u64 * PERMIT_BYTES) as i64));
    }
}

impl Budget {
    pub(super) fn new(options: &ColdOptions, metrics: ColdMetrics) -> Budget {
        let all = (options.in_flight_bytes / PERMIT_BYTES).clamp(1, u64::from(u32::MAX >> 4)) as u32;
        Budget {
            bytes: Arc::new(Semaphore::new(all as usize)),
            all,
            reads: Arc::new(Places::new(options.in_flight_reads)),
            decoders: Arc::new(Semaphore::new(options.decoders.max(1))),
            waiting: Arc::default(),
            most_waiting: options.waiting_reads,
            metrics,
        }
    }

    /// Waits for `bytes` and one read. What is larger than the whole budget takes all of it.
    ///
    /// # Errors
    /// [`TooMany`] wait already.
    pub(super) async fn take(&self, bytes: u64) -> Result<Taken, TooMany> {
        if let Some(taken) = self.try_take(bytes) {
            return Ok(taken);
        }
        let place = Place(Arc::clone(&self.waiting));
        if place.0.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
            return Err(TooMany);
        }
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(bytes)).await;
        let read = Arc::clone(self.reads.free()).acquire_owned().await;
        drop(place);
        Ok(self.taken(bytes.expect("never closed"), read.expect("never closed")))
    }

    /// The same without waiting; `None` if somebody would have to wait for it.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Taken> {
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(self.permits(bytes)).ok()?;
        let read = Arc::clone(self.reads.free()).try_acquire_owned().ok()?;
        Some(self.taken(bytes, read))
    }

    /// So many reads at a time from now on.
    pub(super) fn set_reads(&self, count: usize) {
        self.reads.set(count);
    }

    /// Waits for a thread to decode on.
    pub(super) async fn decoder(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.decoders).acquire_owned().await.expect("never closed")
    }

    fn permits(&self, bytes: u64) -> u32 {
        bytes.div_ceil(PERMIT_BYTES).clamp(1, u64::from(self.all)) as u32
    }

    fn taken(&self, bytes: OwnedSemaphorePermit, read: OwnedSemaphorePermit) -> Taken {
        self.metrics.in_flight((bytes.num_permits() as u64 * PERMIT_BYTES) as i64);
        Taken { bytes, _read: read, metrics: self.metrics.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_the_budget_takes_all_of_it() {
        let options = ColdOptions { in_flight_bytes: 1 << 20, in_flight_reads: 2, ..ColdOptions::default() };
        let budget = Budget::new(&options, ColdMetrics::new());
        let all = budget.take(1 << 40).await.unwrap();
        assert_eq!(budget.metrics.in_flight_bytes(), 1 << 20);
        assert!(budget.try_take(1).is_none());
        drop(all);
        let (first, second) = (budget.try_take(1), budget.try_take(1));
        assert!(first.is_some() && second.is_some() && budget.try_take(1).is_none(), "two reads at a time");
        drop((first, second));
        assert_eq!(budget.metrics.in_flight_bytes(), 0);
    }

    #[tokio::test]
    async fn who_would_wait_behind_too_many_is_told_so() {
        let options = ColdOptions { in_flight_reads: 1, waiting_reads: 1, ..ColdOptions::default() };
        let budget = Budget::new(&options, ColdMetrics::new());
        let first = budget.take(1).await.unwrap();
        let mut second = Box::pin(budget.take(1));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(matches!(budget.take(1).await, Err(TooMany)));
        drop(first);
        let second = second.await.unwrap();
        // One that gave up waiting leaves its place to another.
        let mut third = Box::pin(budget.take(1));
        assert!(futures::poll!(&mut third).is_pending());
        drop(third);
        let mut fourth = Box::pin(budget.take(1));
        assert!(futures::poll!(&mut fourth).is_pending());
        drop(second);
        assert!(fourth.await.is_ok());
    }
}
