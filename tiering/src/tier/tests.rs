//! What every bucket must do, and manifests in it. The same suite runs on S3 in the black-box tests.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    memory::InMemory,
    throttle::{ThrottleConfig, ThrottledStore},
};
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset};

use super::{
    bucket::{Bucket, BucketError, BucketMetrics, BucketOptions},
    cluster::{Claim, ClusterError, claim_bucket, read_cluster},
    conformance,
    manifests::ManifestStore,
    partition::{RemotePartition, UpdateError},
};
use crate::{
    layout::{self, Version},
    manifest::{
        Limits, Manifest, ManifestError, Writer,
        tests::{at, empty, millis, object, partition},
    },
};

async fn local() -> (tempfile::TempDir, Bucket) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/bucket", directory.path().display());
    let bucket = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await.unwrap();
    (directory, bucket)
}

#[tokio::test]
async fn memory_keeps_the_promises_of_a_bucket() {
    conformance::check(&Bucket::memory()).await;
}

#[tokio::test]
async fn a_local_directory_keeps_the_promises_of_a_bucket() {
    let (_directory, bucket) = local().await;
    conformance::check(&bucket).await;
}

#[tokio::test]
async fn a_bucket_lies_below_its_prefix() {
    let bucket = Bucket::open("memory:///team/varve", BucketOptions::default(), BucketMetrics::new()).await.unwrap();
    conformance::check(&bucket).await;
}

#[tokio::test]
async fn urls_that_name_no_bucket_are_refused_with_a_reason() {
    for (url, why) in [
        ("not a url", "relative URL"),
        ("s3://", "names no bucket"),
        ("http://host/x", "is none of"),
        ("memory://?region=x", "means nothing here"),
    ] {
        let error = Bucket::open(url, BucketOptions::default(), BucketMetrics::new()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_bucket_belongs_to_one_cluster() {
    let bucket = Bucket::memory();
    assert_eq!(read_cluster(&bucket).await.unwrap(), None);
    claim_bucket(&bucket, "one").await.unwrap();
    assert_eq!(claim_bucket(&bucket, "one").await.unwrap().cluster_id, "one");
    assert!(matches!(claim_bucket(&bucket, "two").await, Err(ClusterError::Foreign { .. })));
}

#[tokio::test]
async fn a_claim_is_settled_once_and_a_foreign_bucket_stays_foreign() {
    let bucket = Bucket::memory();
    let (mine, theirs) = (Claim::new(bucket.clone(), "one"), Claim::new(bucket.clone(), "two"));
    assert!(!mine.is_ours());
    mine.ours().await.unwrap();
    let refused = theirs.ours().await.unwrap_err();
    assert!(mine.is_ours() && !theirs.is_ours() && !refused.is_weather());
}

#[tokio::test]
async fn requests_are_counted_by_kind_and_outcome() {
    let bucket = Bucket::memory();
    let key = layout::cluster();
    let _ = bucket.get(&key, 10).await;
    bucket.create(&key, Bytes::from_static(b"x")).await.unwrap();
    bucket.delete(&key).await.unwrap();
    let counted = |operation, outcome| bucket.metrics().requests(operation, outcome);
    assert_eq!((counted("get", "missing"), counted("put", "ok"), counted("delete", "ok")), (1, 1, 1));
}

const SMALL: Limits = Limits { inline: 6, keep: 2, leaf: 5 };

fn handle(bucket: &Bucket) -> RemotePartition {
    let manifest = empty();
    RemotePartition::new(
        ManifestStore::with_limits(bucket.clone(), SMALL),
        manifest.partition(),
        manifest.topic().clone(),
    )
}

fn second(first: &RemotePartition) -> RemotePartition {
    RemotePartition::new(first.store().clone(), first.partition(), first.topic().clone())
}

async fn upload(remote: &RemotePartition, epoch: u32) -> Result<Arc<Manifest>, UpdateError> {
    remote
        .update(|manifest| {
            let base = manifest.end().get();
            manifest.with(LeaderEpoch(epoch), object(base, base + 10))
        })
        .await
}

#[tokio::test]
async fn a_partition_is_found_again_with_all_its_leaves() {
    let (_directory, bucket) = local().await;
    let writer = handle(&bucket);
    for _ in 0..40 {
        upload(&writer, 0).await.unwrap();
    }
    let reader = second(&writer);
    let manifest = reader.refresh().await.unwrap();
    assert_eq!((manifest.end(), manifest.object_count(), manifest.version()), (at(400), 40, Version(40)));
    assert!(manifest.leaves().count() >= 6);
    for offset in [0, 99, 100, 399] {
        assert_eq!(reader.find(at(offset)).await.unwrap().unwrap().base, at(offset / 10 * 10));
    }
    assert_eq!(reader.find(at(400)).await.unwrap(), None);
    let found = reader.find_timestamp(millis(1_000 + 115), Offset::ZERO).await.unwrap().unwrap();
    assert_eq!(found.base, at(110));
    let stretch = reader.objects(&manifest, at(95), at(131)).await.unwrap();
    assert_eq!(stretch.iter().map(|object| object.base.get()).collect::<Vec<_>>(), [90, 100, 110, 120, 130]);
    let listed = reader.store().partitions().await.unwrap();
    assert_eq!(listed.into_iter().collect::<Vec<_>>(), [(reader.partition(), Version(40))]);
    // What lies deep in a leaf can be rewritten and expired.
    let sources = reader.objects(&manifest, at(50), at(80)).await.unwrap();
    let rewritten = object(50, 80);
    reader.update(|manifest| manifest.replace(&sources, vec![rewritten.clone()], millis(5))).await.unwrap();
    writer.refresh().await.unwrap();
    assert_eq!(writer.find(at(61)).await.unwrap(), Some(rewritten));
    let expired = writer.update(|manifest| manifest.expire(Writer::Compactor, at(125), millis(6))).await.unwrap();
    assert_eq!((expired.log_start().0, writer.find(at(124)).await.unwrap()), (at(125), None));
    assert_eq!(writer.find(at(125)).await.unwrap().unwrap().base, at(120));
}

#[tokio::test]
async fn writers_that_race_lose_no_update() {
    let bucket = Bucket::memory();
    let handles = [handle(&bucket)];
    let handles: Vec<_> = (0..4).map(|_| Arc::new(second(&handles[0]))).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for remote in &handles {
        let remote = Arc::clone(remote);
        tasks.spawn(async move {
            for _ in 0..10 {
                upload(&remote, 0).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let manifest = handles[0].refresh().await.unwrap();
    assert_eq!((manifest.end(), manifest.object_count(), manifest.version()), (at(400), 40, Version(40)));
}

#[tokio::test]
async fn a_deposed_leader_cannot_publish() {
    let bucket = Bucket::memory();
    let old = handle(&bucket);
    upload(&old, 0).await.unwrap();
    let new = second(&old);
    new.update(|manifest| manifest.claimed_by(LeaderEpoch(1))).await.unwrap();
    let fenced = upload(&old, 0).await.unwrap_err();
    assert!(matches!(fenced, UpdateError::Refused(ManifestError::Fenced { current: LeaderEpoch(1), .. })), "{fenced}");
    upload(&new, 1).await.unwrap();
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_not_published() {
    let bucket = Bucket::memory();
    let remote = handle(&bucket);
    let claim = |manifest: &Manifest| manifest.claimed_by(LeaderEpoch(0));
    assert_eq!(remote.update(claim).await.unwrap().version(), Version(1));
    assert_eq!(remote.update(claim).await.unwrap().version(), Version(1));
}

#[tokio::test]
async fn pruned_versions_go_and_the_newest_stays() {
    let bucket = Bucket::memory();
    let remote = handle(&bucket);
    for _ in 0..5 {
        upload(&remote, 0).await.unwrap();
    }
    let newest = remote.update(|manifest| Ok(manifest.pruned_below(Version(4)))).await.unwrap();
    assert_eq!(remote.store().prune(&newest).await.unwrap(), 3);
    let left: Vec<_> = remote.store().versions(remote.partition(), Version::NONE).await.unwrap();
    assert_eq!(left.iter().map(|(version, _)| version.0).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(second(&remote).refresh().await.unwrap().version(), Version(6));
}

#[tokio::test]
async fn a_foreign_object_in_a_manifests_place_is_refused() {
    let bucket = Bucket::memory();
    let at = partition();
    bucket.put(&layout::manifest(at, Version(1)), Bytes::from_static(b"not a manifest")).await.unwrap();
    let remote = RemotePartition::new(ManifestStore::new(bucket), at, empty().topic().clone());
    assert!(remote.refresh().await.is_err());
    assert!(!remote.is_loaded());
}

#[tokio::test]
async fn a_create_that_is_already_there_with_the_same_content_is_ours() {
    let bucket = Bucket::memory();
    let key = layout::leaf(partition(), Uuid::new_v4());
    bucket.create(&key, Bytes::from_static(b"mine")).await.unwrap();
    bucket.create(&key, Bytes::from_static(b"mine")).await.unwrap();
    let other = bucket.create(&key, Bytes::from_static(b"other")).await.unwrap_err();
    assert!(matches!(other, BucketError::AlreadyExists(_)), "{other}");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_through_the_pruning_of_its_version_does_not_fork_the_history() {
    let store = Arc::new(ThrottledStore::new(InMemory::new(), ThrottleConfig::default()));
    let long = Duration::from_secs(7200);
    let patient = BucketOptions { attempt_timeout: 2 * long, ..BucketOptions::default() };
    let bucket = Bucket::over_shared(Arc::clone(&store), patient);
    let sleepy = Arc::new(handle(&bucket));
    upload(&sleepy, 0).await.unwrap();

    // Its write of version 2 takes two hours on the way.
    store.config_mut(|config| config.wait_put_per_call = long);
    let sleeping = tokio::spawn({
        let sleepy = Arc::clone(&sleepy);
        async move { upload(&sleepy, 0).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
    let awake = second(&sleepy);
    for _ in 0..4 {
        upload(&awake, 0).await.unwrap();
    }
    let newest = awake.update(|manifest| Ok(manifest.pruned_below(Version(5)))).await.unwrap();
    assert_eq!(awake.store().prune(&newest).await.unwrap(), 4);

    // Nothing is in its way when it arrives; but it learns that this means nothing, and starts anew.
    let published = sleeping.await.unwrap().unwrap();
    assert_eq!((published.version(), published.end()), (Version(7), at(60)));
    assert_eq!(awake.refresh().await.unwrap().version(), Version(7));
    assert_eq!(second(&awake).refresh().await.unwrap().object_count(), 6);
}
