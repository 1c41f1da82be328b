//! A store in front of another one that does with single requests what a test wants. For tests of this and of other crates.

use std::{ops::Deref, time::Duration};

use super::{
    LeaseId, MetadataStore, Revision, Snapshot, StoreFuture, Transaction, TransactionLimits, Versioned, Watch,
};

/// What becomes of requests to a [`Steered`] store. Those that a test says nothing of go to the store behind.
pub trait Steering: Send + Sync + 'static {
    /// The store behind.
    fn behind(&self) -> &dyn MetadataStore;

    /// In place of [`MetadataStore::get`].
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        self.behind().get(key)
    }

    /// In place of [`MetadataStore::transact`].
    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        self.behind().transact(transaction)
    }

    /// In place of [`MetadataStore::watch`].
    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.behind().watch(prefix, after)
    }
}

/// A store whose requests go where its [`Steering`] has them go.
#[derive(Debug)]
pub struct Steered<T>(pub T);

/// What a test steers by.
impl<T> Deref for Steered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Steering> MetadataStore for Steered<T> {
    fn identity(&self) -> Option<String> {
        self.behind().identity()
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        self.0.get(key)
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
        self.behind().range(prefix)
    }

    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        self.0.transact(transaction)
    }

    fn limits(&self) -> TransactionLimits {
        self.behind().limits()
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        self.behind().grant(ttl)
    }

    fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool> {
        self.behind().renew(lease)
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.behind().revoke(lease)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.0.watch(prefix, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, conformance};

    struct Idle(MemoryStore);

    impl Steering for Idle {
        fn behind(&self) -> &dyn MetadataStore {
            &self.0
        }
    }

    #[tokio::test]
    async fn a_store_that_nobody_steers_keeps_every_promise() {
        conformance::check(async || Steered(Idle(MemoryStore::new()))).await;
    }
}
