//! The file on a disk that breaks, and whose it is.

use std::{
    fs::OpenOptions,
    io,
    sync::atomic::{AtomicU32, Ordering},
};

use redb::{StorageBackend, backends::FileBackend};

use super::*;
use crate::store::{WatchError, feed::Change};

/// A disk that can break: `syncs_left` more syncs succeed, after which everything that writes fails.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    syncs_left: Arc<AtomicU32>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        match self.syncs_left.load(Ordering::SeqCst) {
            0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.syncs_left.fetch_sub(1, Ordering::SeqCst);
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

const WORKING: u32 = 1 << 30;

fn store_on_a_disk_that_can_break(directory: &Path) -> (EmbeddedStore, Arc<AtomicU32>) {
    let path = directory.join("metadata.redb");
    let syncs_left = Arc::new(AtomicU32::new(WORKING));
    let disk = Arc::clone(&syncs_left);
    let open = move || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = FileBackend::new(file.map_err(redb::StorageError::from)?)?;
        Database::builder().create_with_backend(Disk { file, syncs_left: Arc::clone(&disk) })
    };
    (EmbeddedStore::open_with(Box::new(open)).unwrap(), syncs_left)
}

#[tokio::test]
async fn a_write_that_fails_half_way_is_answered_by_what_the_file_says_then() {
    for syncs_left in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let (store, disk) = store_on_a_disk_that_can_break(directory.path());
        let before = store.transact(Transaction::default().put("a", "1")).await.unwrap();
        let mut watch = store.watch("", before);
        disk.store(syncs_left, Ordering::SeqCst);
        let outcome = store.transact(Transaction::default().put("b", "2")).await;
        disk.store(WORKING, Ordering::SeqCst);

        // The disk works again, and so does the store; what was there still is.
        assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
        let found = store.get("b").await.unwrap();
        match outcome {
            Ok(revision) => assert_eq!(found.unwrap().modified, revision),
            Err(StoreError::Unavailable(_)) => assert_eq!(found, None, "{syncs_left}"),
            // Whether it happened is told by the file alone.
            Err(StoreError::Unknown(_)) => {}
            Err(StoreError::Conflict) => panic!("nobody else wrote"),
        }
        let after = store.transact(Transaction::default().put("c", "3")).await.unwrap();
        assert!(after > before);
        // A watcher sees every change, or is told to read anew; it never misses one.
        let mut seen: Vec<Change> = Vec::new();
        loop {
            match watch.next().await {
                Ok(batch) => seen.extend(batch.changes),
                Err(WatchError::Compacted) => {
                    let snapshot = store.range("").await.unwrap();
                    let keys: Vec<_> = snapshot.entries.iter().map(|(key, _)| key.as_str()).collect();
                    assert!(keys.contains(&"c"));
                    break;
                }
                Err(error @ (WatchError::PutBack(_) | WatchError::Closed)) => panic!("{error}"),
            }
            if seen.iter().any(|change| change.key == "c") {
                let has_b = seen.iter().any(|change| change.key == "b");
                assert_eq!(has_b, store.get("b").await.unwrap().is_some());
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_was_taken_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let revision = store.transact(Transaction::default().put("a", "1")).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    let found = store.get("a").await.unwrap().unwrap();
    assert_eq!((found.value.as_ref(), found.modified), (b"1".as_slice(), revision));
    let later = store.transact(Transaction::default().put("b", "2")).await.unwrap();
    assert!(later > revision);
}

#[tokio::test]
async fn no_lease_outlives_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let before = store.transact(Transaction::default().put_leased("a", "1", lease).put("b", "2")).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert!(store.get("b").await.unwrap().is_some() && store.range("").await.unwrap().revision > before);
}

#[test]
fn a_file_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    let _store = EmbeddedStore::open(&path).unwrap();
    assert!(matches!(EmbeddedStore::open(&path), Err(OpenError::InUse)));
}

#[test]
fn a_file_that_is_not_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metadata.redb");
    std::fs::write(&path, b"not a database at all, but long enough to look at".repeat(100)).unwrap();
    assert!(matches!(EmbeddedStore::open(&path), Err(OpenError::Storage(_))));
}
