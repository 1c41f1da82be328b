//! Where brokers agree: a small ordered key-value store with revisions, transactions and watches.
//!
//! [`MetadataStore`] asks for no more than etcd gives (ranges, compare on modification revision, watch from a
//! revision), so that the file of one node ([`EmbeddedStore`]) and a cluster's etcd keep the same promise. Requests never read
//! it: they read the image that follows it ([`crate::image`]).
//!
//! Leases are not part of the trait: nothing on one node expires.

mod embedded;
mod feed;
mod memory;

#[cfg(test)]
mod conformance;

use std::{error::Error, future::Future, pin::Pin};

use bytes::Bytes;

pub use embedded::{EmbeddedStore, OpenError};
pub use feed::{Change, ChangeBatch, Watch, WatchError};
pub use memory::MemoryStore;

/// Place of a change in the one order in which a store took its transactions. 0 is the empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A key's value and the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes as they were put.
    pub value: Bytes,
    /// Revision of the transaction that put them; compare with it to replace them ([`Expect::At`]).
    pub modified: Revision,
}

/// Every key under a prefix at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision at that moment: watch after it to miss nothing.
    pub revision: Revision,
    /// Keys in ascending byte order.
    pub entries: Vec<(String, Versioned)>,
}

/// What a transaction requires of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last written by this revision.
    At(Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key, whether it exists or not.
    Put(String, Bytes),
    /// Removes a key; removing what is absent is no error.
    Delete(String),
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Write::Put(key, _) | Write::Delete(key) => key,
        }
    }
}

/// All writes, if every expectation holds; otherwise none. No key may be written twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Checked against the state before the first write.
    pub expect: Vec<(String, Expect)>,
    /// Applied together, under one revision.
    pub writes: Vec<Write>,
}

impl Transaction {
    /// Requires something of `key`.
    #[must_use]
    pub fn expecting(mut self, key: impl Into<String>, expect: Expect) -> Transaction {
        self.expect.push((key.into(), expect));
        self
    }

    /// Sets `key`.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Transaction {
        self.writes.push(Write::Put(key.into(), value.into()));
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Transaction {
        self.writes.push(Write::Delete(key.into()));
        self
    }
}

/// Why the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An expectation did not hold: read, decide anew, never retry blindly.
    #[error("another writer was first")]
    Conflict,
    /// The write may have happened or not; only a read can tell.
    #[error("the outcome of the metadata write is unknown")]
    Unknown(#[source] Cause),
    /// Nothing was written; trying later may help.
    #[error("the metadata store is not available")]
    Unavailable(#[source] Cause),
}

/// What a backend says about its own failure.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Answer of a store that may have to wait for a disk or a network.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Agreement between brokers. Every backend passes the one conformance suite beside this trait.
///
/// Reads are linearizable: they see every transaction that was answered before they began. Dropping a future of
/// [`transact`](MetadataStore::transact) leaves the outcome unknown.
pub trait MetadataStore: Send + Sync + 'static {
    /// The value of `key`, if it exists.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>>;

    /// Every key that starts with `prefix`, at one revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot>;

    /// Takes `transaction` whole or not at all, and durably; returns its revision, which is larger than every earlier one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if an expectation does not hold, [`StoreError::Unknown`] if only a read can tell what
    /// happened, [`StoreError::Unavailable`] if nothing did.
    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision>;

    /// Follows the changes to keys that start with `prefix`, in order, without gaps, from the first one after `after`.
    fn watch(&self, prefix: &str, after: Revision) -> Watch;
}
