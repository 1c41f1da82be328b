//! Who waits for a partition to grow.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One long poll, over any number of partitions.
#[derive(Debug, Default, Clone)]
pub struct Waiter(Arc<Notify>);

impl Waiter {
    /// Returns once any watched partition grew since the last return. Cancel-safe.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

/// The waiters of one partition, or of what is read of it. An append that nobody waits for costs one relaxed load.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    list: Mutex<Vec<Arc<Notify>>>,
}

impl Waiters {
    /// Adds `waiter` until the returned watch is dropped. The caller looks at the partition *after* this: what comes
    /// later wakes it, so nothing falls in between.
    pub(crate) fn watch(self: &Arc<Waiters>, waiter: &Waiter) -> Watch {
        let mut list = self.list.lock();
        list.push(waiter.0.clone());
        self.count.store(list.len(), Ordering::SeqCst);
        Watch { waiters: self.clone(), waiter: waiter.0.clone() }
    }

    #[cfg(test)]
    pub(super) fn is_watched(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Wakes all who watch.
    pub(crate) fn wake(&self) {
        // Sequentially consistent on both sides: either this load sees the watcher, or the watcher's look at the
        // partition, which comes after its store, sees the records.
        if self.count.load(Ordering::SeqCst) > 0 {
            for waiter in self.list.lock().iter() {
                waiter.notify_one();
            }
        }
    }
}

/// A waiter's place in one partition's list; leaves it on drop.
#[derive(Debug)]
pub struct Watch {
    waiters: Arc<Waiters>,
    waiter: Arc<Notify>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut list = self.waiters.list.lock();
        if let Some(place) = list.iter().position(|other| Arc::ptr_eq(other, &self.waiter)) {
            list.swap_remove(place);
        }
        self.waiters.count.store(list.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn only_watchers_are_woken_and_a_wake_before_the_wait_is_kept() {
        let (watched, other) = (Arc::new(Waiters::default()), Arc::new(Waiters::default()));
        let waiter = Waiter::default();
        let watch = watched.watch(&waiter);
        other.wake();
        assert!(waiter.woken().now_or_never().is_none());
        watched.wake();
        assert!(waiter.woken().now_or_never().is_some());
        drop(watch);
        watched.wake();
        assert!(waiter.woken().now_or_never().is_none());
    }
}
