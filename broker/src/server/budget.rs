//! One budget for the bytes of all requests that are being read or answered.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that requests in flight may hold together (`queued.max.request.bytes`). Who does not fit waits, in order, and
/// does not read from its socket meanwhile, so that the client feels it.
#[derive(Debug, Clone)]
pub(super) struct RequestBudget {
    free: Arc<Semaphore>,
    total_units: u32,
}

/// Part of a [`RequestBudget`], given back on drop.
#[derive(Debug)]
pub(super) struct Reservation(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Bytes per permit: permits are counted in 32 bits.
const UNIT_BYTES: usize = 1024;

impl RequestBudget {
    pub(super) fn new(bytes: usize) -> RequestBudget {
        let total_units = u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        RequestBudget { free: Arc::new(Semaphore::new(total_units as usize)), total_units }
    }

    /// Bytes taken at this time.
    pub(super) fn taken_bytes(&self) -> usize {
        (self.total_units as usize).saturating_sub(self.free.available_permits()) * UNIT_BYTES
    }

    /// Waits for `bytes`. A request larger than the whole budget takes all of it: it is served alone, not never.
    /// Cancel-safe: giving up loses the place in the queue and nothing else.
    pub(super) async fn reserve(&self, bytes: usize) -> Reservation {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total_units);
        let permit = self.free.clone().acquire_many_owned(units).await;
        Reservation(permit.expect("the semaphore is never closed"))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_request_waits_until_others_gave_back_and_one_beyond_the_budget_is_served_alone() {
        let budget = RequestBudget::new(64 * 1024);
        let first = budget.reserve(60 * 1024).now_or_never().unwrap();
        assert!(budget.reserve(8 * 1024).now_or_never().is_none());
        drop(first);
        let huge = budget.reserve(usize::MAX).now_or_never().unwrap();
        assert!(budget.reserve(1).now_or_never().is_none());
        drop(huge);
        assert!(budget.reserve(1).now_or_never().is_some());
    }
}
