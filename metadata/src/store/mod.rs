//! Where brokers agree: a small ordered key-value store with revisions, transactions and watches.
//!
//! [`MetadataStore`] asks for no more than etcd gives (ranges, compare on modification revision, watch from a
//! revision, leases), so that the file of one node ([`EmbeddedStore`]) and a cluster's etcd ([`EtcdStore`]) keep the same
//! promise. Requests never read it: they read the image that follows it ([`crate::image`]).

pub mod conformance;
mod embedded;
mod etcd;
mod feed;
mod lease;
mod memory;
mod put_back;
mod settle;
pub mod steered;

use std::{collections::HashSet, error::Error, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;

pub use embedded::{EmbeddedStore, OpenError};
pub use etcd::{ConnectError, EtcdCredentials, EtcdOptions, EtcdStore, EtcdTls};
pub use feed::{Change, ChangeBatch, Watch, WatchError};
pub use memory::MemoryStore;
pub use put_back::PutBack;
pub use settle::transact_settled;

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

/// A promise of life: keys put under it are removed once it was not renewed in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key, whether it exists or not. It is bound to no lease from then on.
    Put(String, Bytes),
    /// Sets a key that lives as long as the lease. If the lease has ended, nothing of the transaction happens.
    PutLeased(String, Bytes, LeaseId),
    /// Removes a key; removing what is absent is no error.
    Delete(String),
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Write::Put(key, _) | Write::PutLeased(key, ..) | Write::Delete(key) => key,
        }
    }

    /// What the key is set to; `None` if it is removed.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Write::Put(_, value) | Write::PutLeased(_, value, _) => Some(value),
            Write::Delete(_) => None,
        }
    }
}

/// The largest transaction that a store takes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionLimits {
    /// Most expectations, and most writes.
    pub operations: usize,
    /// Most bytes of keys and values.
    pub bytes: usize,
}

impl TransactionLimits {
    /// Of a store that has none.
    pub const NONE: TransactionLimits = TransactionLimits { operations: usize::MAX, bytes: usize::MAX };

    /// Whether a store with these limits takes `transaction` whole.
    pub fn allow(&self, transaction: &Transaction) -> bool {
        let written = |write: &Write| write.key().len() + write.value().map_or(0, Bytes::len);
        let bytes: usize = transaction.writes.iter().map(written).sum();
        let expected: usize = transaction.expect.iter().map(|(key, _)| key.len()).sum();
        transaction.expect.len().max(transaction.writes.len()) <= self.operations && bytes + expected <= self.bytes
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

    /// Sets `key` for as long as `lease` lives.
    #[must_use]
    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Transaction {
        self.writes.push(Write::PutLeased(key.into(), value.into(), lease));
        self
    }

    /// The writes of both, if what both expect holds.
    #[must_use]
    pub fn and(mut self, other: Transaction) -> Transaction {
        let new = other.expect.into_iter().filter(|expected| !self.expect.contains(expected));
        let new: Vec<_> = new.collect();
        self.expect.extend(new);
        self.writes.extend(other.writes);
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Transaction {
        self.writes.push(Write::Delete(key.into()));
        self
    }
}

impl Transaction {
    /// The same as several transactions that a store with `limits` takes one after the other. Each holds what the whole
    /// expected of the keys that it writes and of those that nobody writes, and, unless that is more than the store compares
    /// at once, of those that later ones write. Writes keep their order: it is for the caller to put first what nobody sees
    /// before the last has happened, or the other way round.
    pub fn split(self, limits: TransactionLimits) -> Vec<Transaction> {
        if limits.allow(&self) {
            return vec![self];
        }
        let Transaction { expect, writes } = self;
        let written: HashSet<&str> = writes.iter().map(Write::key).collect();
        let (mut ahead, always): (Vec<_>, Vec<_>) =
            expect.into_iter().partition(|(key, _)| written.contains(key.as_str()));
        let mut parts = Vec::new();
        let (mut part, mut holds_all) = begun(&always, &ahead, limits);
        for write in writes {
            let place = part.expect.len();
            part.take_up(write, &ahead, holds_all);
            if !limits.allow(&part)
                && part.writes.len() > 1
                && let Some(first_of_next) = part.writes.pop()
            {
                part.expect.truncate(place);
                let done: HashSet<&str> = part.writes.iter().map(Write::key).collect();
                ahead.retain(|(key, _)| !done.contains(key.as_str()));
                let (next, next_holds_all) = begun(&always, &ahead, limits);
                parts.push(std::mem::replace(&mut part, next));
                holds_all = next_holds_all;
                part.take_up(first_of_next, &ahead, holds_all);
            }
        }
        parts.push(part);
        parts
    }

    /// Writes as well, and expects what `ahead` says of that key.
    fn take_up(&mut self, write: Write, ahead: &[(String, Expect)], holds_all: bool) {
        if !holds_all {
            self.expect.extend(ahead.iter().filter(|(key, _)| key == write.key()).cloned());
        }
        self.writes.push(write);
    }
}

/// A part without writes, and whether it expects everything that is `ahead`: if that leaves room for writes.
fn begun(always: &[(String, Expect)], ahead: &[(String, Expect)], limits: TransactionLimits) -> (Transaction, bool) {
    let with_all = Transaction { expect: [always, ahead].concat(), writes: Vec::new() };
    let half = TransactionLimits { bytes: limits.bytes / 2, ..limits };
    match half.allow(&with_all) {
        true => (with_all, true),
        false => (Transaction { expect: always.to_vec(), writes: Vec::new() }, false),
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
    /// Its name for itself, which is another one where a backup of it was restored; `None`: it has none.
    fn identity(&self) -> Option<String> {
        None
    }

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

    /// What [`transact`](Self::transact) takes at once. A larger transaction is [`StoreError::Unavailable`].
    fn limits(&self) -> TransactionLimits {
        TransactionLimits::NONE
    }

    /// Makes a lease that ends `ttl` after it was granted or last renewed (at the earliest: a store may round up).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; a lease that was granted without an answer ends by itself.
    fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId>;

    /// Lets a lease live for another `ttl`. `false`: it has ended, and its keys are gone or about to go.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: not known to be renewed.
    fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool>;

    /// Ends a lease and removes its keys; one that has ended is no error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it ends by itself, later.
    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()>;

    /// Follows the changes to keys that start with `prefix`, in order, without gaps, from the first one after `after`. A store
    /// that was put back to an older state says so, as far as it can ([`WatchError::PutBack`]), or has its watchers read anew.
    fn watch(&self, prefix: &str, after: Revision) -> Watch;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_transaction_is_split_in_its_order_and_stays_guarded_to_its_end() {
        let limits = TransactionLimits { operations: 3, bytes: 1000 };
        let whole = (0..7).fold(Transaction::default(), |all, number| all.put(format!("p{number}"), "v"));
        let whole = whole.put("topic", "t").expecting("topic", Expect::At(Revision(4))).expecting("p0", Expect::Absent);
        let parts = whole.clone().split(limits);
        assert!(parts.iter().all(|part| limits.allow(part)));
        let writes: Vec<Write> = parts.iter().flat_map(|part| part.writes.clone()).collect();
        assert_eq!(writes, whole.writes);
        let expected: Vec<usize> = parts.iter().map(|part| part.expect.len()).collect();
        assert_eq!(expected, [2, 1, 1], "p0 was written by the first, the topic is by the last");
        assert_eq!(whole.clone().split(TransactionLimits::NONE), [whole]);
    }

    #[test]
    fn with_as_many_expectations_as_writes_each_part_holds_those_of_its_own_keys() {
        let limits = TransactionLimits { operations: 3, bytes: 1000 };
        let put = |all: Transaction, number: u64| {
            let key = format!("p{number}");
            all.put(key.clone(), "v").expecting(key, Expect::At(Revision(number)))
        };
        let whole = (0..8).fold(Transaction::default(), put).expecting("broker", Expect::At(Revision(9)));
        let parts = whole.clone().split(limits);
        assert!(parts.iter().all(|part| limits.allow(part)), "{parts:?}");
        let writes: Vec<Write> = parts.iter().flat_map(|part| part.writes.clone()).collect();
        assert_eq!(writes, whole.writes);
        for part in parts {
            let is_held = |key: &str| part.expect.iter().any(|(held, _)| held == key);
            assert!(is_held("broker") && part.writes.iter().all(|write| is_held(write.key())), "{part:?}");
        }
    }

    #[test]
    fn what_was_deleted_first_is_not_expected_afterwards() {
        let limits = TransactionLimits { operations: 2, bytes: 1000 };
        let whole = Transaction::default().delete("topic").delete("p0").delete("p1");
        let parts = whole.expecting("topic", Expect::At(Revision(4))).split(limits);
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].expect.len(), parts[1].expect.len()), (1, 0));
    }
}
