//! Recent changes, kept for those who watch: one bounded ring, read by every watcher at its own pace.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{PutBack, Revision, Write};

/// Batches that the ring keeps. A watcher that falls further behind reads the store anew, as after etcd's compaction.
const RING_BATCHES: usize = 1024;

/// One key's new state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value, or `None` if it was removed.
    pub value: Option<Bytes>,
}

/// What one transaction changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeBatch {
    /// The transaction's revision.
    pub revision: Revision,
    /// In the order of the transaction's writes.
    pub changes: Vec<Change>,
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The changes after the watcher's revision are no longer kept: take a new range and watch after its revision.
    #[error("the changes that were asked for are no longer kept")]
    Compacted,
    /// What was seen of the store says nothing about what it holds now, nor the other way round.
    #[error("the metadata store was put back to an older state, or is another one: {0}")]
    PutBack(PutBack),
    /// The store was closed.
    #[error("the metadata store was closed")]
    Closed,
}

struct Ring {
    batches: VecDeque<Arc<ChangeBatch>>,
    /// Everything after this revision is in `batches`.
    complete_after: Revision,
    /// Counts [`Feed::reset`]s: who watched before one has to read anew, wherever it stood.
    resets: u64,
    put_back: Option<PutBack>,
}

/// The writing end: a store publishes what it took.
pub(super) struct Feed {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<Revision>,
}

impl Feed {
    /// A feed for a store that stands at `revision`.
    pub(super) fn new(revision: Revision) -> Feed {
        let ring = Ring { batches: VecDeque::new(), complete_after: revision, resets: 0, put_back: None };
        Feed { ring: Arc::new(Mutex::new(ring)), newest: watch::Sender::new(revision) }
    }

    /// Announces a transaction that was taken. The caller holds the lock that orders its transactions.
    pub(super) fn publish(&self, revision: Revision, writes: Vec<Write>) {
        let changes = writes
            .into_iter()
            .map(|write| match write {
                Write::Put(key, value) | Write::PutLeased(key, value, _) => Change { key, value: Some(value) },
                Write::Delete(key) => Change { key, value: None },
            })
            .collect();
        self.publish_changes(revision, changes);
    }

    /// As [`publish`](Self::publish), for a store that hears of changes.
    pub(super) fn publish_changes(&self, revision: Revision, changes: Vec<Change>) {
        let mut ring = self.ring.lock();
        if ring.batches.len() == RING_BATCHES
            && let Some(oldest) = ring.batches.pop_front()
        {
            ring.complete_after = oldest.revision;
        }
        ring.batches.push_back(Arc::new(ChangeBatch { revision, changes }));
        drop(ring);
        self.newest.send_replace(revision);
    }

    /// Forgets everything: the store moved to `revision` in a way nobody saw (a write whose outcome was unknown, changes
    /// that etcd keeps no more). Every watcher reads anew.
    pub(super) fn reset(&self, revision: Revision) {
        let mut ring = self.ring.lock();
        ring.resets += 1;
        ring.batches.clear();
        ring.complete_after = revision;
        drop(ring);
        self.newest.send_replace(revision);
    }

    /// Tells every watcher that the store is not the one any more that it watched, and nothing after that.
    pub(super) fn put_back(&self, how: PutBack) {
        self.ring.lock().put_back = Some(how);
        self.newest.send_modify(|_| {});
    }

    /// The newest revision that was published.
    pub(super) fn newest(&self) -> Revision {
        *self.newest.borrow()
    }

    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Watch {
        Watch {
            prefix: prefix.to_owned(),
            seen: after,
            resets: self.ring.lock().resets,
            ring: Arc::downgrade(&self.ring),
            newest: self.newest.subscribe(),
        }
    }
}

/// A reader of changes. Costs nothing while it waits.
pub struct Watch {
    prefix: String,
    seen: Revision,
    resets: u64,
    ring: Weak<Mutex<Ring>>,
    newest: watch::Receiver<Revision>,
}

impl Watch {
    /// The next transaction that touched a key under the prefix, with the other keys left out. Cancel-safe.
    ///
    /// # Errors
    /// [`WatchError::Compacted`]: read anew; [`WatchError::PutBack`]: what was read before is not of this store;
    /// [`WatchError::Closed`]: the store is gone.
    pub async fn next(&mut self) -> Result<ChangeBatch, WatchError> {
        loop {
            // Marked before the ring is read: what is published in between wakes us again.
            self.newest.borrow_and_update();
            if let Some(batch) = self.take_ready()? {
                return Ok(batch);
            }
            self.newest.changed().await.map_err(|_| WatchError::Closed)?;
        }
    }

    fn take_ready(&mut self) -> Result<Option<ChangeBatch>, WatchError> {
        let ring = self.ring.upgrade().ok_or(WatchError::Closed)?;
        let ring = ring.lock();
        if let Some(how) = ring.put_back {
            return Err(WatchError::PutBack(how));
        }
        if self.seen < ring.complete_after || self.resets != ring.resets {
            return Err(WatchError::Compacted);
        }
        let first = ring.batches.partition_point(|batch| batch.revision <= self.seen);
        for batch in ring.batches.range(first..) {
            self.seen = batch.revision;
            let ours = |change: &&Change| change.key.starts_with(&self.prefix);
            let changes: Vec<Change> = batch.changes.iter().filter(ours).cloned().collect();
            if !changes.is_empty() {
                return Ok(Some(ChangeBatch { revision: batch.revision, changes }));
            }
        }
        Ok(None)
    }
}
