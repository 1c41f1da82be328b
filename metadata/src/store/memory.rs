//! A store that forgets: for tests, and for nodes that run on `memory://`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{
    Expect, LeaseId, MetadataStore, Revision, Snapshot, StoreError, StoreFuture, Transaction, TransactionLimits,
    Versioned, Watch, Write, feed::Feed, lease::Leases,
};

/// Keeps everything in memory; never fails.
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    feed: Feed,
    limits: TransactionLimits,
}

#[derive(Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<String, Versioned>,
    leases: Leases,
    identity: Option<String>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::with_limits(TransactionLimits::NONE)
    }

    /// An empty store that refuses larger transactions, as etcd does.
    pub fn with_limits(limits: TransactionLimits) -> MemoryStore {
        let (state, feed) = (Mutex::new(State::default()), Feed::new(Revision(0)));
        MemoryStore(Arc::new(Inner { state, feed, limits }))
    }

    /// Has it hold what `state` holds and nothing else, at that revision, as an etcd that was restored from a backup: for tests of
    /// those who follow it.
    pub fn restore(&self, state: Snapshot) {
        let mut held = self.0.state.lock();
        held.revision = state.revision;
        held.entries = state.entries.into_iter().collect();
        held.leases = Leases::default();
        self.0.feed.reset(state.revision);
    }

    /// Has it another name for itself, as an etcd that was made anew.
    pub fn rename(&self, identity: &str) {
        self.0.state.lock().identity = Some(identity.to_owned());
    }
}

impl Inner {
    fn take(&self, state: &mut State, transaction: Transaction) -> Result<Revision, StoreError> {
        for (key, expect) in &transaction.expect {
            let found = state.entries.get(key).map_or(Expect::Absent, |entry| Expect::At(entry.modified));
            if found != *expect {
                return Err(StoreError::Conflict);
            }
        }
        if !state.leases.cover(&transaction.writes) {
            return Err(StoreError::Unavailable("the lease has ended".into()));
        }
        let revision = Revision(state.revision.0 + 1);
        state.revision = revision;
        for write in &transaction.writes {
            match write {
                Write::Put(key, value) | Write::PutLeased(key, value, _) => {
                    state.entries.insert(key.clone(), Versioned { value: value.clone(), modified: revision });
                }
                Write::Delete(key) => {
                    state.entries.remove(key);
                }
            }
        }
        state.leases.note(&transaction.writes);
        // Published under the lock, so that watchers see transactions in the order of their revisions.
        self.feed.publish(revision, transaction.writes);
        Ok(revision)
    }

    fn end_lease(&self, state: &mut State, lease: LeaseId) {
        let writes = state.leases.end(lease);
        if !writes.is_empty() {
            let removal = self.take(state, Transaction { expect: Vec::new(), writes });
            removal.expect("a transaction that expects nothing and puts nothing is always taken");
        }
        state.leases.forget(lease);
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MetadataStore for MemoryStore {
    fn identity(&self) -> Option<String> {
        self.0.state.lock().identity.clone()
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(async move { Ok(self.0.state.lock().entries.get(key).cloned()) })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
        Box::pin(async move {
            let state = self.0.state.lock();
            let from = state.entries.range(prefix.to_owned()..);
            let entries = from
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect();
            Ok(Snapshot { revision: state.revision, entries })
        })
    }

    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        Box::pin(async move {
            if !self.0.limits.allow(&transaction) {
                return Err(StoreError::Unavailable("the transaction is too large".into()));
            }
            self.0.take(&mut self.0.state.lock(), transaction)
        })
    }

    fn limits(&self) -> TransactionLimits {
        self.0.limits
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        Box::pin(async move {
            let lease = self.0.state.lock().leases.grant(ttl, Instant::now());
            let store = Arc::downgrade(&self.0);
            tokio::spawn(async move {
                loop {
                    let Some(inner) = store.upgrade() else { return };
                    let ends = {
                        let mut state = inner.state.lock();
                        let Some(ends) = state.leases.ends(lease) else { return };
                        if ends <= Instant::now() {
                            return inner.end_lease(&mut state, lease);
                        }
                        ends
                    };
                    drop(inner);
                    sleep_until(ends).await;
                }
            });
            Ok(lease)
        })
    }

    fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool> {
        Box::pin(async move { Ok(self.0.state.lock().leases.renew(lease, Instant::now())) })
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.0.end_lease(&mut self.0.state.lock(), lease);
            Ok(())
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.0.feed.watch(prefix, after)
    }
}
