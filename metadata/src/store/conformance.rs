//! What every store must do, whatever stands behind it. For tests of this and of other crates.

#![expect(clippy::missing_panics_doc, reason = "a promise that is not kept is a panic")]

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::*;

/// Longest wait for a watch to tell what happened.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the whole suite, each part on a store of its own from `fresh`.
pub async fn check<S: MetadataStore>(fresh: impl AsyncFn() -> S) {
    last_put_wins(&fresh().await).await;
    ranges(&fresh().await).await;
    all_or_nothing(&fresh().await).await;
    one_winner(Arc::new(fresh().await)).await;
    watches(&fresh().await).await;
    compacted(&fresh().await).await;
    closed(fresh().await).await;
    leases(&fresh().await).await;
    lease_that_nobody_renews(&fresh().await).await;
}

fn put(key: &str, value: &str) -> Transaction {
    Transaction::default().put(key, value.to_owned())
}

/// A key has the value and the revision of its last put.
pub async fn last_put_wins(store: &impl MetadataStore) {
    assert_eq!(store.get("a").await.expect("the store answers"), None);
    store.transact(put("a", "1")).await.expect("the store answers");
    let second = store.transact(put("a", "2")).await.expect("the store answers");
    let found = store.get("a").await.expect("the store answers").expect("the store answers");
    assert_eq!((found.value.as_ref(), found.modified), (b"2".as_slice(), second));
    store.transact(Transaction::default().delete("a")).await.expect("the store answers");
    assert_eq!(store.get("a").await.expect("the store answers"), None);
}

/// A range is sorted, complete, and of one revision.
pub async fn ranges(store: &impl MetadataStore) {
    assert_eq!(store.range("").await.expect("the store answers").entries, []);
    let first = store.transact(put("b/2", "x").put("b/1", "y").put("a", "z")).await.expect("the store answers");
    let newest = store.transact(put("c", "w")).await.expect("the store answers");
    let snapshot = store.range("b/").await.expect("the store answers");
    let keys: Vec<_> = snapshot.entries.iter().map(|(key, entry)| (key.as_str(), entry.modified)).collect();
    assert_eq!(keys, [("b/1", first), ("b/2", first)]);
    assert_eq!(snapshot.revision, newest);
}

/// A transaction happens whole or not at all.
pub async fn all_or_nothing(store: &impl MetadataStore) {
    let seen = store.transact(put("a", "1")).await.expect("the store answers");
    let stale = put("a", "2").put("b", "2").expecting("a", Expect::Absent);
    assert!(matches!(store.transact(stale).await, Err(StoreError::Conflict)));
    assert_eq!(store.get("b").await.expect("the store answers"), None);

    let right = put("a", "3").put("b", "3").expecting("a", Expect::At(seen)).expecting("b", Expect::Absent);
    let taken = store.transact(right).await.expect("the store answers");
    assert!(taken > seen);
    let outdated = put("a", "4").expecting("a", Expect::At(seen));
    assert!(matches!(store.transact(outdated).await, Err(StoreError::Conflict)));
    assert_eq!(store.get("a").await.expect("the store answers").expect("the store answers").value, "3");
}

/// Of racing creations one wins.
pub async fn one_winner(store: Arc<impl MetadataStore>) {
    let racers: Vec<_> = (0..8)
        .map(|racer| {
            let store = Arc::clone(&store);
            let create = put("only", &racer.to_string()).expecting("only", Expect::Absent);
            tokio::spawn(async move { store.transact(create).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        winners += usize::from(racer.await.expect("the store answers"));
    }
    assert_eq!(winners, 1);
}

/// A watch sees every change once and in order.
pub async fn watches(store: &impl MetadataStore) {
    let before = store.transact(put("t/0", "0")).await.expect("the store answers");
    let mut watch = store.watch("t/", before);
    let first = store.transact(put("t/1", "1").put("other", "x")).await.expect("the store answers");
    store.transact(put("other", "y")).await.expect("the store answers");
    let second = store.transact(Transaction::default().delete("t/1")).await.expect("the store answers");

    let change = |key: &str, value: Option<&'static str>| Change { key: key.to_owned(), value: value.map(Bytes::from) };
    let batch = next(&mut watch).await.expect("the store answers");
    assert_eq!(batch, ChangeBatch { revision: first, changes: vec![change("t/1", Some("1"))] });
    let batch = next(&mut watch).await.expect("the store answers");
    assert_eq!(batch, ChangeBatch { revision: second, changes: vec![change("t/1", None)] });

    // A change that comes while we wait.
    let (third, batch) = tokio::join!(store.transact(put("t/2", "2")), next(&mut watch));
    assert_eq!(batch.expect("the store answers").revision, third.expect("the store answers"));
}

/// A watch from too long ago says so.
pub async fn compacted(store: &impl MetadataStore) {
    let mut watch = store.watch("", Revision(0));
    for round in 0..1100 {
        store.transact(put("k", &round.to_string())).await.expect("the store answers");
    }
    assert_eq!(next(&mut watch).await, Err(WatchError::Compacted));
    let now = store.range("").await.expect("the store answers").revision;
    let mut watch = store.watch("", now);
    let (revision, batch) = tokio::join!(store.transact(put("k", "last")), next(&mut watch));
    assert_eq!(batch.expect("the store answers").revision, revision.expect("the store answers"));
}

/// A watch ends with its store.
pub async fn closed(store: impl MetadataStore) {
    let now = store.range("").await.expect("the store answers").revision;
    let mut watch = store.watch("", now);
    drop(store);
    assert_eq!(next(&mut watch).await, Err(WatchError::Closed));
}

/// Keys go with their lease, which lives as long as it is renewed.
pub async fn leases(store: &impl MetadataStore) {
    let ttl = Duration::from_secs(600);
    let lease = store.grant(ttl).await.expect("the store answers");
    let other = store.grant(ttl).await.expect("the store answers");
    assert_ne!(lease, other);
    let alive = Transaction::default().put_leased("alive/1", "a", lease).put_leased("alive/2", "b", lease);
    store.transact(alive.put("kept", "c")).await.expect("the store answers");
    // Put again without a lease, or under another one, a key is no longer bound to the first.
    let unbind = Transaction::default().put("alive/2", "d").put_leased("alive/3", "e", other);
    let before = store.transact(unbind).await.expect("the store answers");
    assert!(store.renew(lease).await.expect("the store answers"));
    let mut watch = store.watch("alive/", before);
    store.revoke(lease).await.expect("the store answers");
    let batch = next(&mut watch).await.expect("the store is open");
    assert_eq!(batch.changes, [Change { key: "alive/1".to_owned(), value: None }]);
    let left = store.range("").await.expect("the store answers");
    let keys: Vec<&str> = left.entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["alive/2", "alive/3", "kept"]);
    assert!(!store.renew(lease).await.expect("the store answers"), "it has ended");
    store.revoke(lease).await.expect("ended already");

    let late = Transaction::default().put("with it", "x").put_leased("alive/4", "x", lease);
    assert!(
        matches!(store.transact(late).await, Err(StoreError::Unavailable(_))),
        "a lease that has ended holds nothing"
    );
    assert_eq!(store.get("with it").await.expect("the store answers"), None);
}

/// A lease that nobody renews ends.
pub async fn lease_that_nobody_renews(store: &impl MetadataStore) {
    let lease = store.grant(Duration::from_secs(1)).await.expect("the store answers");
    let put = Transaction::default().put_leased("alive", "a", lease);
    let before = store.transact(put).await.expect("the store answers");
    let batch = next(&mut store.watch("", before)).await.expect("the store is open");
    assert_eq!(batch.changes, [Change { key: "alive".to_owned(), value: None }]);
    assert!(!store.renew(lease).await.expect("the store answers"));
}

async fn next(watch: &mut Watch) -> Result<ChangeBatch, WatchError> {
    timeout(PATIENCE, watch.next()).await.expect("a watch tells of changes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_store_in_memory_keeps_every_promise() {
        check(async || MemoryStore::new()).await;
    }

    #[tokio::test]
    async fn the_store_in_a_file_keeps_every_promise() {
        let directory = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        check(async || {
            count.set(count.get() + 1);
            EmbeddedStore::open(&directory.path().join(format!("{}.redb", count.get()))).unwrap()
        })
        .await;
    }
}
