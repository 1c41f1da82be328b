//! What every backend promises, once. A backend adds one line to [`conformance`].

use super::*;

macro_rules! conformance {
    ($($backend:ident => $make:expr;)*) => {$(
        mod $backend {
            use super::*;

            #[tokio::test]
            async fn a_key_has_the_value_and_the_revision_of_its_last_put() {
                let (_keep, store) = $make;
                last_put_wins(&store).await;
            }
            #[tokio::test]
            async fn a_range_is_sorted_complete_and_of_one_revision() {
                let (_keep, store) = $make;
                ranges(&store).await;
            }
            #[tokio::test]
            async fn a_transaction_happens_whole_or_not_at_all() {
                let (_keep, store) = $make;
                all_or_nothing(&store).await;
            }
            #[tokio::test]
            async fn of_racing_creations_one_wins() {
                let (_keep, store) = $make;
                one_winner(std::sync::Arc::new(store)).await;
            }
            #[tokio::test]
            async fn a_watch_sees_every_change_once_and_in_order() {
                let (_keep, store) = $make;
                watches(&store).await;
            }
            #[tokio::test]
            async fn a_watch_from_too_long_ago_says_so() {
                let (_keep, store) = $make;
                compacted(&store).await;
            }
            #[tokio::test]
            async fn a_watch_ends_with_its_store() {
                let (_keep, store) = $make;
                let mut watch = store.watch("", Revision(0));
                drop(store);
                assert_eq!(watch.next().await, Err(WatchError::Closed));
            }
        }
    )*};
}

conformance! {
    memory => ((), MemoryStore::new());
    embedded => {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("metadata.redb")).unwrap();
        (directory, store)
    };
}

fn put(key: &str, value: &str) -> Transaction {
    Transaction::default().put(key, value.to_owned())
}

async fn last_put_wins(store: &impl MetadataStore) {
    assert_eq!(store.get("a").await.unwrap(), None);
    store.transact(put("a", "1")).await.unwrap();
    let second = store.transact(put("a", "2")).await.unwrap();
    let found = store.get("a").await.unwrap().unwrap();
    assert_eq!((found.value.as_ref(), found.modified), (b"2".as_slice(), second));
    store.transact(Transaction::default().delete("a")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
}

async fn ranges(store: &impl MetadataStore) {
    assert_eq!(store.range("").await.unwrap(), Snapshot::default());
    let first = store.transact(put("b/2", "x").put("b/1", "y").put("a", "z")).await.unwrap();
    let newest = store.transact(put("c", "w")).await.unwrap();
    let snapshot = store.range("b/").await.unwrap();
    let keys: Vec<_> = snapshot.entries.iter().map(|(key, entry)| (key.as_str(), entry.modified)).collect();
    assert_eq!(keys, [("b/1", first), ("b/2", first)]);
    assert_eq!(snapshot.revision, newest);
}

async fn all_or_nothing(store: &impl MetadataStore) {
    let seen = store.transact(put("a", "1")).await.unwrap();
    let stale = put("a", "2").put("b", "2").expecting("a", Expect::Absent);
    assert!(matches!(store.transact(stale).await, Err(StoreError::Conflict)));
    assert_eq!(store.get("b").await.unwrap(), None);

    let right = put("a", "3").put("b", "3").expecting("a", Expect::At(seen)).expecting("b", Expect::Absent);
    let taken = store.transact(right).await.unwrap();
    assert!(taken > seen);
    let outdated = put("a", "4").expecting("a", Expect::At(seen));
    assert!(matches!(store.transact(outdated).await, Err(StoreError::Conflict)));
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "3");
}

async fn one_winner(store: std::sync::Arc<impl MetadataStore>) {
    let racers: Vec<_> = (0..8)
        .map(|racer| {
            let store = std::sync::Arc::clone(&store);
            let create = put("only", &racer.to_string()).expecting("only", Expect::Absent);
            tokio::spawn(async move { store.transact(create).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        winners += usize::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
}

async fn watches(store: &impl MetadataStore) {
    let before = store.transact(put("t/0", "0")).await.unwrap();
    let mut watch = store.watch("t/", before);
    let first = store.transact(put("t/1", "1").put("other", "x")).await.unwrap();
    store.transact(put("other", "y")).await.unwrap();
    let second = store.transact(Transaction::default().delete("t/1")).await.unwrap();

    let change = |key: &str, value: Option<&'static str>| Change { key: key.to_owned(), value: value.map(Bytes::from) };
    let batch = watch.next().await.unwrap();
    assert_eq!(batch, ChangeBatch { revision: first, changes: vec![change("t/1", Some("1"))] });
    let batch = watch.next().await.unwrap();
    assert_eq!(batch, ChangeBatch { revision: second, changes: vec![change("t/1", None)] });

    // A change that comes while we wait.
    let (third, batch) = tokio::join!(store.transact(put("t/2", "2")), watch.next());
    assert_eq!(batch.unwrap().revision, third.unwrap());
}

async fn compacted(store: &impl MetadataStore) {
    let mut watch = store.watch("", Revision(0));
    for round in 0..1100 {
        store.transact(put("k", &round.to_string())).await.unwrap();
    }
    assert_eq!(watch.next().await, Err(WatchError::Compacted));
    let now = store.range("").await.unwrap().revision;
    let mut watch = store.watch("", now);
    let (revision, batch) = tokio::join!(store.transact(put("k", "last")), watch.next());
    assert_eq!(batch.unwrap().revision, revision.unwrap());
}
