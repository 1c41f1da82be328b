//! A worker's place, which who waits for others gives back meanwhile.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One of a fixed number of places.
#[derive(Debug, Default)]
pub(super) struct Slot {
    places: Option<Arc<Semaphore>>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Slot {
    /// The place that `permit` of `places` stands for.
    pub(super) fn new(places: Arc<Semaphore>, permit: OwnedSemaphorePermit) -> Slot {
        Slot { places: Some(places), held: Mutex::new(Some(permit)) }
    }

    /// Waits for `work` without the place, and then for a place.
    pub(super) async fn without<T>(&self, work: impl Future<Output = T>) -> T {
        drop(self.held.lock().take());
        let outcome = work.await;
        if let Some(places) = &self.places {
            let permit = Arc::clone(places).acquire_owned().await.expect("never closed");
            *self.held.lock() = Some(permit);
        }
        outcome
    }
}
