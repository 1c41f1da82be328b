//! Reads of a bucket that can be counted, held and made to fail.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use object_store::{Result, path::Path};
use tokio::sync::{Notify, Semaphore};

use crate::tier::troubled_store::Trouble;

/// What tests see and steer of a store. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Steering(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reads: AtomicUsize,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
    failures: AtomicUsize,
    gate: Semaphore,
    arrived: Notify,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            reads: AtomicUsize::default(),
            waiting: AtomicUsize::default(),
            most_waiting: AtomicUsize::default(),
            failures: AtomicUsize::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            arrived: Notify::new(),
        }
    }
}

impl Steering {
    /// Reads of objects' bytes so far.
    pub(super) fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    /// Most reads that were under way at one time.
    pub(super) fn most_at_once(&self) -> usize {
        self.0.most_waiting.load(Ordering::SeqCst)
    }

    /// The next `count` reads fail as if the network did.
    pub(super) fn fail_next(&self, count: usize) {
        self.0.failures.store(count, Ordering::SeqCst);
    }

    /// Holds all reads from now on, until [`Steering::release`].
    pub(super) async fn hold(&self) {
        self.0.gate.acquire_many((Semaphore::MAX_PERMITS / 2).min(u32::MAX as usize) as u32).await.unwrap().forget();
        self.0.gate.forget_permits(usize::MAX);
    }

    pub(super) fn release(&self) {
        self.0.gate.add_permits(1 << 20);
    }

    /// Waits until `count` reads are held.
    pub(super) async fn held(&self, count: usize) {
        loop {
            let arrived = self.0.arrived.notified();
            if self.0.waiting.load(Ordering::SeqCst) >= count {
                return;
            }
            arrived.await;
        }
    }

    async fn pass(&self) -> Result<()> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        let waiting = self.0.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_waiting.fetch_max(waiting, Ordering::SeqCst);
        self.0.arrived.notify_waiters();
        // Others get their turn, so that what runs at the same time is seen to.
        tokio::task::yield_now().await;
        drop(self.0.gate.acquire().await.unwrap());
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        let fails = self.0.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match fails {
            Ok(_) => Err(object_store::Error::Generic { store: "test", source: "connection reset".into() }),
            Err(_) => Ok(()),
        }
    }
}

impl Trouble for Steering {
    /// Of an object's bytes; manifests are read as always.
    async fn read<T: Send>(&self, at: &Path, read: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if at.as_ref().starts_with("raw") || at.as_ref().starts_with("tables") {
            self.pass().await?;
        }
        read.await
    }
}
