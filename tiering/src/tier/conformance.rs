//! What every bucket must do, whatever stands behind its URL. For tests of this and of other crates.

use bytes::Bytes;
use futures::TryStreamExt;
use uuid::Uuid;
use varve_metadata::model::{PartitionId, PartitionIndex, TopicId};

use super::bucket::{Bucket, BucketError};
use crate::layout::{self, Key, Version};

/// Runs the whole suite on `bucket`, which may hold other things, under names of its own.
///
/// # Panics
/// At the first promise that is not kept.
pub async fn check(bucket: &Bucket) {
    bucket.reach().await.expect("it is there");
    what_is_created_is_read_back(bucket).await;
    of_racing_creates_one_wins(bucket).await;
    listings_are_whole_and_sorted(bucket).await;
    large_objects_arrive_whole(bucket).await;
    a_dropped_writer_leaves_nothing(bucket).await;
}

fn partition() -> PartitionId {
    PartitionId { topic: TopicId::random(), index: PartitionIndex(0) }
}

fn fresh_key() -> Key {
    layout::shared(Uuid::new_v4())
}

async fn what_is_created_is_read_back(bucket: &Bucket) {
    let key = fresh_key();
    assert!(matches!(bucket.get(&key, 100).await, Err(BucketError::NotFound(_))));
    assert!(matches!(bucket.head(&key).await, Err(BucketError::NotFound(_))));
    bucket.create(&key, Bytes::from_static(b"0123456789")).await.expect("created");
    assert_eq!(bucket.get(&key, 10).await.expect("there"), "0123456789");
    assert!(matches!(bucket.get(&key, 9).await, Err(BucketError::Size { found: 10, .. })));
    assert_eq!(bucket.get_range(&key, 3..7).await.expect("there"), "3456");
    assert_eq!(bucket.get_range(&key, 3..3).await.expect("nothing asked"), "");
    assert!(bucket.get_range(&key, 8..12).await.is_err(), "a range beyond the end is not cut silently");
    let head = bucket.head(&key).await.expect("there");
    assert_eq!((head.key.as_str(), head.bytes), (key.as_str(), 10));
    assert!(head.modified.millis() > 1_600_000_000_000);
    assert!(matches!(bucket.create(&key, Bytes::from_static(b"x")).await, Err(BucketError::AlreadyExists(_))));
    bucket.put(&key, Bytes::from_static(b"over")).await.expect("put");
    assert_eq!(bucket.get(&key, 10).await.expect("there"), "over");
    bucket.delete(&key).await.expect("deleted");
    bucket.delete(&key).await.expect("deleted already");
    assert!(matches!(bucket.get(&key, 100).await, Err(BucketError::NotFound(_))));
}

async fn of_racing_creates_one_wins(bucket: &Bucket) {
    let key = fresh_key();
    let creates = (0..16).map(|writer| bucket.create(&key, Bytes::from(format!("writer {writer}"))));
    let outcomes = futures::future::join_all(creates).await;
    let winners: Vec<usize> = (0..16).filter(|writer| outcomes[*writer].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert_eq!(bucket.get(&key, 100).await.expect("there"), format!("writer {}", winners[0]));
}

async fn listings_are_whole_and_sorted(bucket: &Bucket) {
    let (here, elsewhere) = (partition(), partition());
    for version in [3, 1, 10, 2] {
        bucket
            .create(&layout::manifest(here, Version(version)), Bytes::from(vec![0; version as usize]))
            .await
            .expect("created");
    }
    bucket.create(&layout::manifest(elsewhere, Version(1)), Bytes::new()).await.expect("created");
    let prefix = layout::manifests_of(here);
    let listed = bucket.list(prefix.as_str(), None).await.expect("listed");
    let keys = |versions: &[u64]| -> Vec<String> {
        versions.iter().map(|version| layout::manifest(here, Version(*version)).to_string()).collect()
    };
    assert_eq!(listed.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), keys(&[1, 2, 3, 10]));
    assert_eq!(listed.iter().map(|object| object.bytes).collect::<Vec<_>>(), [1, 2, 3, 10]);
    let after = bucket.list(prefix.as_str(), Some(&layout::manifest(here, Version(2)))).await.expect("listed");
    assert_eq!(after.into_iter().map(|object| object.key).collect::<Vec<_>>(), keys(&[3, 10]));
    assert_eq!(streamed(bucket, prefix.as_str()).await, 4);
    assert_eq!(bucket.list("manifests/nothing", None).await.expect("listed"), []);
    bucket.delete_all((1..=10).map(|version| layout::manifest(here, Version(version)))).await.expect("deleted");
    assert_eq!(bucket.list(prefix.as_str(), None).await.expect("listed"), []);
}

/// Objects below `prefix` as the stream gives them; one that a failure ended is begun again.
async fn streamed(bucket: &Bucket, prefix: &str) -> usize {
    for _ in 0..50 {
        let found: Result<Vec<_>, BucketError> = bucket.list_stream(prefix).try_collect().await;
        match found {
            Ok(objects) => return objects.len(),
            Err(BucketError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no listing of {prefix} ended well");
}

async fn large_objects_arrive_whole(bucket: &Bucket) {
    for size in [0, 1, 3 << 20, 17 << 20] {
        let key = fresh_key();
        let content: Bytes =
            (0..size as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
        let mut writer = bucket.writer(key.clone());
        for piece in content.chunks(700_001) {
            writer.write(content.slice_ref(piece)).await.expect("written");
        }
        assert_eq!(writer.finish().await.expect("finished"), size as u64);
        assert!(bucket.get(&key, 32 << 20).await.expect("there") == content, "{size} bytes came back changed");
    }
}

async fn a_dropped_writer_leaves_nothing(bucket: &Bucket) {
    let key = fresh_key();
    let mut writer = bucket.writer(key.clone());
    writer.write(Bytes::from(vec![7; 9 << 20])).await.expect("written");
    drop(writer);
    assert!(matches!(bucket.head(&key).await, Err(BucketError::NotFound(_))));
}
