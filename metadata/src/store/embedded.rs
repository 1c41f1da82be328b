//! The store of one node: a redb file, fsynced by every transaction.
//!
//! Tables: `entries` (key → revision that wrote it, value), `store` (`format`, `revision`), and `leased` (keys that a
//! lease holds: no lease outlives the process, so they are removed when the file is opened). A write whose commit failed
//! leaves the file in an unknown state, so it is opened again, and what it then says decides the outcome.

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{
    Cause, Expect, LeaseId, MetadataStore, Revision, Snapshot, StoreError, StoreFuture, Transaction, Versioned, Watch,
    Write, feed::Feed, lease::Leases,
};

const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
const STORE: TableDefinition<'_, &str, u64> = TableDefinition::new("store");
const LEASED: TableDefinition<'_, &str, ()> = TableDefinition::new("leased");
const FORMAT: u64 = 1;

/// Pause before the keys of a lease that ended are removed again, if the file did not take it.
const EXPIRY_RETRY: Duration = Duration::from_millis(100);

/// Requests never read the store, so redb's default cache (1 GiB) would be lent for nothing.
const CACHE_BYTES: usize = 8 << 20;

/// Why a store file does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the metadata store is in use by another process")]
    InUse,
    /// A later version of Varve wrote it.
    #[error("the metadata store has format {0}, this version knows only {FORMAT}")]
    Format(u64),
    /// The file cannot be read, or is damaged.
    #[error("the metadata store cannot be opened")]
    Storage(#[source] Cause),
}

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A durable store in one file, for one process.
pub struct EmbeddedStore(Arc<Inner>);

struct Inner {
    open: Opener,
    /// `None` after a failed commit, until it could be opened again.
    database: RwLock<Option<Database>>,
    /// Orders transactions; holds the newest revision that was published.
    published: Mutex<Revision>,
    leases: Mutex<Leases>,
    feed: Feed,
}

impl EmbeddedStore {
    /// Opens the file at `path`, or makes it. Blocks on the disk; after an unclean end redb repairs the file first.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<EmbeddedStore, OpenError> {
        let path = path.to_owned();
        EmbeddedStore::open_with(Box::new(move || Database::builder().set_cache_size(CACHE_BYTES).create(&path)))
    }

    fn open_with(open: Opener) -> Result<EmbeddedStore, OpenError> {
        let (database, revision) = open_checked(&open)?;
        let revision = end_old_leases(&database, revision).map_err(|error| OpenError::Storage(Box::new(error)))?;
        Ok(EmbeddedStore(Arc::new(Inner {
            open,
            database: RwLock::new(Some(database)),
            published: Mutex::new(revision),
            leases: Mutex::default(),
            feed: Feed::new(revision),
        })))
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match spawn_blocking(move || work(&inner)).await {
                Ok(answer) => answer,
                // The runtime is shutting down, or redb panicked: either way nobody saw the end of it.
                Err(failed) => Err(StoreError::Unknown(Box::new(failed))),
            }
        })
    }
}

impl MetadataStore for EmbeddedStore {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.read(|database| read_one(database, &key)))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| inner.read(|database| read_range(database, &prefix)))
    }

    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        self.blocking(move |inner| inner.transact(transaction))
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        Box::pin(async move {
            let lease = self.0.leases.lock().grant(ttl, Instant::now());
            tokio::spawn(end_in_time(Arc::downgrade(&self.0), lease));
            Ok(lease)
        })
    }

    fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool> {
        Box::pin(async move { Ok(self.0.leases.lock().renew(lease, Instant::now())) })
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        self.blocking(move |inner| inner.end_lease(lease))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.0.feed.watch(prefix, after)
    }
}

/// Ends a lease once it was not renewed in time.
async fn end_in_time(store: Weak<Inner>, lease: LeaseId) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        let Some(ends) = inner.leases.lock().ends(lease) else { return };
        if ends <= Instant::now() {
            let ended = spawn_blocking(move || inner.end_lease_if_due(lease)).await;
            match ended {
                Ok(Ok(())) => {}
                // Its keys are removed when the file is opened next, if not by an attempt before.
                Ok(Err(error)) => tracing::warn!(%error, "the keys of a lease that ended are removed later"),
                Err(_) => return,
            }
            tokio::time::sleep(EXPIRY_RETRY).await;
        } else {
            drop(inner);
            sleep_until(ends).await;
        }
    }
}

impl Inner {
    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        if self.database.read().is_none() {
            self.reopen(&mut self.published.lock())?;
        }
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(closed)?;
        read(database).map_err(|error| StoreError::Unavailable(Box::new(error)))
    }

    fn end_lease_if_due(&self, lease: LeaseId) -> Result<(), StoreError> {
        let writes = {
            let mut leases = self.leases.lock();
            // Renewed since whoever calls looked.
            if leases.ends(lease).is_none_or(|ends| ends > Instant::now()) {
                return Ok(());
            }
            leases.end(lease)
        };
        self.remove_leased(lease, writes)
    }

    fn end_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let writes = self.leases.lock().end(lease);
        self.remove_leased(lease, writes)
    }

    fn remove_leased(&self, lease: LeaseId, writes: Vec<Write>) -> Result<(), StoreError> {
        if !writes.is_empty() {
            self.transact(Transaction { expect: Vec::new(), writes })?;
        }
        self.leases.lock().forget(lease);
        Ok(())
    }

    fn transact(&self, transaction: Transaction) -> Result<Revision, StoreError> {
        let mut published = self.published.lock();
        if !self.leases.lock().cover(&transaction.writes) {
            return Err(StoreError::Unavailable("the lease has ended".into()));
        }
        if self.database.read().is_none() {
            self.reopen(&mut published)?;
        }
        let next = Revision(published.0 + 1);
        let outcome = {
            let database = self.database.read();
            commit(database.as_ref().ok_or_else(closed)?, &transaction, next)
        };
        if let Err(CommitError::Torn(error)) = outcome {
            self.resolve(&mut published, next, error)?;
        } else {
            outcome.map_err(StoreError::from)?;
        }
        *published = next;
        self.leases.lock().note(&transaction.writes);
        self.feed.publish(next, transaction.writes);
        Ok(next)
    }

    /// Opens the file again after a commit that failed half-way: its revision tells whether `attempted` happened.
    fn resolve(&self, published: &mut Revision, attempted: Revision, error: redb::Error) -> Result<(), StoreError> {
        *self.database.write() = None;
        match open_checked(&self.open) {
            Ok((database, found)) => {
                *self.database.write() = Some(database);
                if found == attempted { Ok(()) } else { Err(StoreError::Unavailable(Box::new(error))) }
            }
            Err(still_closed) => {
                tracing::error!(error = %still_closed, revision = published.0, "metadata store lost after a failed write");
                Err(StoreError::Unknown(Box::new(error)))
            }
        }
    }

    fn reopen(&self, published: &mut Revision) -> Result<(), StoreError> {
        let (database, found) = open_checked(&self.open).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
        *self.database.write() = Some(database);
        if found != *published {
            *published = found;
            self.feed.reset(found);
        }
        Ok(())
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the metadata store could not be opened again".into())
}

enum CommitError {
    Conflict,
    /// Failed before the commit: nothing was written.
    Nothing(redb::Error),
    /// Failed within the commit: unknown.
    Torn(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for CommitError {
    fn from(error: E) -> CommitError {
        CommitError::Nothing(error.into())
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> StoreError {
        match error {
            CommitError::Conflict => StoreError::Conflict,
            CommitError::Nothing(error) => StoreError::Unavailable(Box::new(error)),
            CommitError::Torn(error) => StoreError::Unknown(Box::new(error)),
        }
    }
}

fn commit(database: &Database, transaction: &Transaction, revision: Revision) -> Result<(), CommitError> {
    let write = database.begin_write()?;
    {
        let mut entries = write.open_table(ENTRIES)?;
        for (key, expect) in &transaction.expect {
            let found = match entries.get(key.as_str())? {
                Some(entry) => Expect::At(Revision(entry.value().0)),
                None => Expect::Absent,
            };
            if found != *expect {
                return Err(CommitError::Conflict);
            }
        }
        for change in &transaction.writes {
            match change {
                Write::Put(key, value) | Write::PutLeased(key, value, _) => {
                    drop(entries.insert(key.as_str(), (revision.0, value.as_ref()))?);
                }
                Write::Delete(key) => drop(entries.remove(key.as_str())?),
            }
        }
        note_leased(&write, &transaction.writes)?;
        write.open_table(STORE)?.insert("revision", revision.0)?;
    }
    write.commit().map_err(|error| CommitError::Torn(error.into()))
}

/// Remembers which keys a lease holds. Costs a node that has no leases nothing.
fn note_leased(write: &redb::WriteTransaction, writes: &[Write]) -> Result<(), redb::Error> {
    let names_leases = writes.iter().any(|write| matches!(write, Write::PutLeased(..)));
    if !names_leases && !write.list_tables()?.any(|table| table.name() == LEASED.name()) {
        return Ok(());
    }
    let mut leased = write.open_table(LEASED)?;
    for change in writes {
        match change {
            Write::PutLeased(key, ..) => drop(leased.insert(key.as_str(), ())?),
            Write::Put(key, _) | Write::Delete(key) => drop(leased.remove(key.as_str())?),
        }
    }
    Ok(())
}

/// Removes the keys of leases of the process that had the file before; returns the store's revision.
fn end_old_leases(database: &Database, revision: Revision) -> Result<Revision, redb::Error> {
    let keys: Vec<String> = match database.begin_read()?.open_table(LEASED) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(revision),
        other => other?.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect::<Result<_, redb::Error>>()?,
    };
    if keys.is_empty() {
        return Ok(revision);
    }
    let write = database.begin_write()?;
    for key in keys {
        write.open_table(ENTRIES)?.remove(key.as_str())?;
        write.open_table(LEASED)?.remove(key.as_str())?;
    }
    let revision = Revision(revision.0 + 1);
    write.open_table(STORE)?.insert("revision", revision.0)?;
    write.commit()?;
    Ok(revision)
}

fn read_one(database: &Database, key: &str) -> Result<Option<Versioned>, redb::Error> {
    let entries = database.begin_read()?.open_table(ENTRIES)?;
    Ok(entries.get(key)?.map(|entry| versioned(entry.value())))
}

fn read_range(database: &Database, prefix: &str) -> Result<Snapshot, redb::Error> {
    let read = database.begin_read()?;
    let revision = read.open_table(STORE)?.get("revision")?.map_or(0, |revision| revision.value());
    let mut found = Vec::new();
    for entry in read.open_table(ENTRIES)?.range(prefix..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((key.value().to_owned(), versioned(value.value())));
    }
    Ok(Snapshot { revision: Revision(revision), entries: found })
}

fn versioned((modified, value): (u64, &[u8])) -> Versioned {
    Versioned { value: Bytes::copy_from_slice(value), modified: Revision(modified) }
}

/// Opens, makes the tables of a new file, and checks the format of an old one.
fn open_checked(open: &Opener) -> Result<(Database, Revision), OpenError> {
    let database = open().map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse,
        other => OpenError::Storage(Box::new(other)),
    })?;
    let storage = |error: redb::Error| OpenError::Storage(Box::new(error));
    let (format, revision) = read_header(&database).map_err(storage)?;
    match format {
        Some(FORMAT) => Ok((database, Revision(revision))),
        Some(other) => Err(OpenError::Format(other)),
        None => {
            create_tables(&database).map_err(storage)?;
            Ok((database, Revision(0)))
        }
    }
}

fn read_header(database: &Database) -> Result<(Option<u64>, u64), redb::Error> {
    let read = database.begin_read()?;
    let store = match read.open_table(STORE) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok((None, 0)),
        other => other?,
    };
    let number = |name: &str| Ok::<_, redb::Error>(store.get(name)?.map(|value| value.value()));
    Ok((number("format")?, number("revision")?.unwrap_or(0)))
}

fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(ENTRIES)?;
    write.open_table(STORE)?.insert("format", FORMAT)?;
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
