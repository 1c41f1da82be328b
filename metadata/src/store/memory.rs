//! A store that forgets: for tests, and for nodes that run on `memory://`.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{
    Expect, MetadataStore, Revision, Snapshot, StoreError, StoreFuture, Transaction, Versioned, Watch, Write,
    feed::Feed,
};

/// Keeps everything in memory; never fails.
pub struct MemoryStore {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<String, Versioned>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore { state: Mutex::new(State::default()), feed: Feed::new(Revision(0)) }
    }

    fn take(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let mut state = self.state.lock();
        for (key, expect) in &transaction.expect {
            let found = state.entries.get(key).map_or(Expect::Absent, |entry| Expect::At(entry.modified));
            if found != *expect {
                return Err(StoreError::Conflict);
            }
        }
        let revision = Revision(state.revision.0 + 1);
        state.revision = revision;
        for write in &transaction.writes {
            match write {
                Write::Put(key, value) => {
                    state.entries.insert(key.clone(), Versioned { value: value.clone(), modified: revision });
                }
                Write::Delete(key) => {
                    state.entries.remove(key);
                }
            }
        }
        // Published under the lock, so that watchers see transactions in the order of their revisions.
        self.feed.publish(revision, transaction.writes);
        Ok(revision)
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MetadataStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(async move { Ok(self.state.lock().entries.get(key).cloned()) })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
        Box::pin(async move {
            let state = self.state.lock();
            let from = state.entries.range(prefix.to_owned()..);
            let entries = from
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect();
            Ok(Snapshot { revision: state.revision, entries })
        })
    }

    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        Box::pin(async move { self.take(transaction) })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.feed.watch(prefix, after)
    }
}
