//! Whole partitions through the compactor, one seed each, with a crash before and after every write.

mod shared;
mod spilled;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::ready,
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use varve_log::format::{HEADER_BYTES, compression};
use varve_metadata::{
    config::{ArchiveFormat, CleanupPolicy, Codec, TopicConfig},
    model::{KnownTopics, LeaderEpoch, Offset, Timestamp},
};
use varve_simulation::seeds;
use varve_tiering::{
    layout::{self, Version},
    manifest::{ObjectKind, RemoteObject},
};

use self::world::{Batch, Record, World, visible};
use crate::{
    troubled_store::Fuse,
    worker::{Assigned, wall_clock},
};

fn later(hours: i64) -> Timestamp {
    Timestamp::from_wire(wall_clock().to_wire() + hours * 3_600_000).unwrap()
}

fn settings(config: &TopicConfig) -> Arc<RwLock<Arc<TopicConfig>>> {
    Arc::new(RwLock::new(Arc::new(config.clone())))
}

const DELETE: CleanupPolicy = CleanupPolicy { delete: true, compact: false };
const COMPACT: CleanupPolicy = CleanupPolicy { delete: false, compact: true };

#[tokio::test]
async fn conversion_and_merging_change_nothing_that_a_consumer_reads_however_often_they_crash() {
    for seed in seeds(0..6) {
        let mut world = World::new(seed, DELETE).await;
        for _ in 0..3 {
            world.grow(4).await;
            let (before, aborted, _) = world.read().await;
            let committed = visible(&before, &aborted);
            for crash in 0.. {
                let lived = world.process(Fuse::at(crash / 2, crash % 2 == 0)).work(&world.config, later(0)).await;
                assert_eq!(world.read().await.0, before, "seed {seed}, crash {crash}");
                if lived {
                    break;
                }
            }
            let (after, aborted, objects) = world.read().await;
            assert_eq!(visible(&after, &aborted), committed, "seed {seed}");
            assert!(objects.iter().all(|object| object.kind == ObjectKind::Parquet), "seed {seed}");
            let records: u64 = objects.iter().map(|object| object.records).sum();
            assert_eq!(records, after.iter().map(|(header, _)| u64::from(header.record_count)).sum::<u64>());
        }
    }
}

#[tokio::test]
async fn the_sweep_deletes_what_nobody_names_and_nothing_else_however_often_it_crashes() {
    for seed in seeds(10..13) {
        let mut world = World::new(seed, DELETE).await;
        world.grow(4).await;
        // Orphans of every kind of crash.
        for crash in 0..12 {
            world.process(Fuse::at(crash / 2, crash % 2 == 0)).work(&world.config, later(0)).await;
        }
        world.process(Fuse::never()).work(&world.config, later(0)).await;
        let before = world.read().await.0;
        assert!(world.process(Fuse::never()).sweep(later(0)).await);
        let (_, _, objects) = world.read().await;
        assert!(world.stored().await.len() > objects.len(), "young orphans and what was just replaced stay");
        for crash in 0.. {
            let lived = world.process(Fuse::at(crash / 2, crash % 2 == 0)).sweep(later(3)).await;
            assert_eq!(world.read().await.0, before, "seed {seed}, crash {crash}");
            if lived {
                break;
            }
        }
        let (_, _, objects) = world.read().await;
        let named = |object: &RemoteObject| object.key(world.partition, &world.topic).as_str().to_owned();
        assert_eq!(world.stored().await, objects.iter().map(named).collect::<BTreeSet<_>>(), "seed {seed}");
    }
}

/// What Kafka's cleaner promises about a compacted log, given all that was ever committed.
fn check_compacted(original: &BTreeMap<Offset, Record>, found: &BTreeMap<Offset, Record>, tombstones_stay: bool) {
    let mut latest: HashMap<&[u8], Offset> = HashMap::new();
    for (offset, (key, _)) in original {
        latest.extend(key.as_deref().map(|key| (key, *offset)));
    }
    for (offset, record) in found {
        assert_eq!(original.get(offset), Some(record), "a record that was never written at {offset}");
    }
    for (key, offset) in latest {
        let stays = tombstones_stay || original[&offset].1.is_some();
        assert!(!stays || found.contains_key(&offset), "the last record of {key:?} at {offset} is gone");
    }
}

/// One record per key below the checkpoint, and none without a key.
fn check_clean_part(found: &BTreeMap<Offset, Record>, checkpoint: Offset) {
    let mut keys = BTreeSet::new();
    for (offset, (key, _)) in found.range(..checkpoint) {
        let key = key.as_ref().unwrap_or_else(|| panic!("a record without key at {offset}"));
        assert!(keys.insert(key), "{key:?} again at {offset}");
    }
}

#[tokio::test]
async fn key_compaction_leaves_the_last_record_of_each_key_however_often_it_crashes() {
    for seed in seeds(20..26) {
        let mut world = World::new(seed, COMPACT).await;
        let mut original = BTreeMap::new();
        for round in 0..3 {
            world.grow(4).await;
            original.extend(world.committed().await);
            for crash in 0.. {
                let lived = world.process(Fuse::at(crash / 2, crash % 2 == 0)).work(&world.config, later(0)).await;
                check_compacted(&original, &world.committed().await, true);
                if lived {
                    break;
                }
            }
            let process = world.process(Fuse::never());
            let manifest = process.handle.refresh().await.unwrap();
            assert_eq!(manifest.clean_until(), manifest.end(), "seed {seed}, round {round}");
            let found = world.committed().await;
            check_clean_part(&found, manifest.clean_until());
            // Aborted data is gone for read_uncommitted, too, as in Kafka.
            let (batches, aborted, _) = world.read().await;
            assert_eq!((visible(&batches, &[]), aborted), (found, Vec::new()), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn tombstones_go_after_their_time_and_no_older_value_comes_back() {
    let mut met = 0;
    for seed in seeds(30..36) {
        let mut world = World::new(seed, COMPACT).await;
        world.grow(6).await;
        let mut original = world.committed().await;
        assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
        let tombstones = |found: &BTreeMap<Offset, Record>| found.values().filter(|(_, value)| value.is_none()).count();
        met += tombstones(&world.committed().await);
        // Another round comes with new data only, after delete.retention.ms.
        world.grow(1).await;
        let newest = world.committed().await;
        let fresh: Vec<Offset> = newest.keys().filter(|offset| !original.contains_key(*offset)).copied().collect();
        original.extend(newest);
        for crash in 0.. {
            let lived = world.process(Fuse::at(crash / 2, crash % 2 == 0)).work(&world.config, later(48)).await;
            let found = world.committed().await;
            check_compacted(&original, &found, false);
            // A key whose last word was a tombstone must not speak again.
            let mut last: HashMap<&Vec<u8>, &Record> = HashMap::new();
            for record in original.values() {
                last.extend(record.0.as_ref().map(|key| (key, record)));
            }
            for (key, value) in found.values() {
                let silent = key.as_ref().is_some_and(|key| last[key].1.is_none());
                assert!(!silent || value.is_none() || !lived, "seed {seed}: {key:?} came back");
            }
            if lived {
                break;
            }
        }
        let old = world.committed().await.into_iter().filter(|(offset, _)| !fresh.contains(offset)).collect();
        assert_eq!(tombstones(&old), 0, "seed {seed}");
    }
    assert!(met > 5, "{met} tombstones in all");
}

#[tokio::test]
async fn a_topic_that_stays_raw_is_compacted_by_key_all_the_same() {
    for seed in seeds(70..73) {
        let mut world = World::new(seed, COMPACT).await;
        let mut original = BTreeMap::new();
        world.grow(2).await;
        original.extend(world.committed().await);
        // Some of it became Parquet while the topic was set so.
        assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
        world.config.archive_format = ArchiveFormat::Raw;
        world.grow(3).await;
        original.extend(world.committed().await);
        assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
        let found = world.committed().await;
        let (_, aborted, objects) = world.read().await;
        check_compacted(&original, &found, true);
        check_clean_part(&found, objects.last().unwrap().end);
        assert!(aborted.is_empty() && objects.iter().any(|object| object.kind == ObjectKind::Raw), "seed {seed}");
    }
}

#[tokio::test]
async fn a_partition_with_nothing_to_do_costs_no_requests() {
    let mut world = World::new(80, DELETE).await;
    world.grow(3).await;
    let process = world.process(Fuse::never());
    let (partition, topic, config) = (world.partition, world.topic.clone(), settings(&world.config));
    let assigned = || vec![Assigned { partition, topic: topic.clone(), config: Arc::clone(&config), local_bytes: 0 }];
    let asked = || ["get", "list", "head"].map(|kind| process.handle.bucket().metrics().requests(kind, "ok"));
    process.compactor.look_after(assigned()).await;
    process.compactor.look_after(assigned()).await;
    let before = asked();
    process.compactor.look_after(assigned()).await;
    assert_eq!(asked(), before);
    world.grow(1).await;
    process.handle.refresh().await.unwrap();
    process.compactor.look_after(assigned()).await;
    assert!(world.read().await.2.iter().all(|object| object.kind == ObjectKind::Parquet));
}

#[tokio::test(start_paused = true)]
async fn a_partition_in_which_nothing_happens_costs_a_listing_of_the_bucket_by_the_sweep_alone() {
    let mut world = World::new(82, DELETE).await;
    world.grow(3).await;
    let process = world.process(Fuse::never());
    let (partition, topic, config) = (world.partition, world.topic.clone(), settings(&world.config));
    let assigned = || vec![Assigned { partition, topic: topic.clone(), config: Arc::clone(&config), local_bytes: 0 }];
    let kinds = ["get", "list", "head", "put", "create", "delete"];
    let asked = || kinds.map(|kind| process.handle.bucket().metrics().requests(kind, "ok"));
    for _ in 0..3 {
        process.compactor.look_after(assigned()).await;
    }
    assert!(process.sweep(later(3)).await);
    process.compactor.look_after(assigned()).await;
    let before = asked();
    for hour in 4..8 {
        tokio::time::advance(Duration::from_secs(3600)).await;
        process.compactor.look_after(assigned()).await;
        assert!(process.sweep(later(hour)).await);
    }
    assert_eq!(asked(), before, "{kinds:?}; pages of listings are not counted");
    // What another process published is learned by the sweep.
    world.grow(1).await;
    assert!(process.sweep(later(8)).await);
    process.compactor.look_after(assigned()).await;
    assert!(world.read().await.2.iter().all(|object| object.kind == ObjectKind::Parquet));
}

#[tokio::test]
async fn an_upload_that_takes_longer_than_the_grace_period_is_no_orphan_until_another_takes_its_place() {
    let mut world = World::new(83, DELETE).await;
    world.grow(1).await;
    let process = world.process(Fuse::never());
    let end = process.handle.refresh().await.unwrap().end();
    let key = layout::raw(world.partition, end, LeaderEpoch(3), uuid::Uuid::from_u128(1));
    process.handle.bucket().put(&key, bytes::Bytes::from_static(b"on its way")).await.unwrap();
    assert!(process.sweep(later(3)).await);
    assert!(world.stored().await.contains(key.as_str()), "its leader may publish it any moment");
    world.grow(1).await;
    assert!(process.sweep(later(3)).await);
    assert!(!world.stored().await.contains(key.as_str()));
}

#[tokio::test]
async fn old_manifest_versions_go_and_a_few_are_left_alone() {
    let mut world = World::new(84, DELETE).await;
    world.grow(20).await;
    let process = world.process(Fuse::never());
    assert!(process.sweep(later(3)).await);
    let versions = || process.handle.store().versions(world.partition, Version::NONE);
    let left = versions().await.unwrap();
    assert_eq!(left.len(), 2, "the newest, and the leave to delete what lay before");
    assert!(process.sweep(later(6)).await);
    assert_eq!(versions().await.unwrap(), left);
}

#[tokio::test(start_paused = true)]
async fn work_that_takes_longer_than_it_may_leaves_no_orphan_and_is_tried_less_and_less_often() {
    let mut world = World::new(81, DELETE).await;
    world.grow(3).await;
    let process = world.process_with(Fuse::never(), Duration::ZERO);
    let (partition, topic, config) = (world.partition, world.topic.clone(), settings(&world.config));
    let assigned = || vec![Assigned { partition, topic: topic.clone(), config: Arc::clone(&config), local_bytes: 0 }];
    let before = world.stored().await;
    let mut tries = 0;
    for _ in 0..720 {
        let asked = || process.handle.bucket().metrics().requests("get", "ok");
        let before_look = asked();
        process.compactor.look_after(assigned()).await;
        assert_eq!(world.stored().await, before);
        tries += usize::from(asked() > before_look);
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert!((8..16).contains(&tries), "{tries} tries in an hour");
}

#[tokio::test]
async fn retention_that_was_raised_before_the_partitions_turn_holds() {
    let mut world = World::new(86, DELETE).await;
    world.config.retention_bytes = Some(0);
    world.grow(3).await;
    let process = world.process(Fuse::never());
    let (partition, topic, config) = (world.partition, world.topic.clone(), settings(&world.config));
    let assigned = vec![Assigned { partition, topic, config: Arc::clone(&config), local_bytes: 0 }];
    world.config.retention_bytes = None;
    *config.write() = Arc::new(world.config.clone());
    let before = world.committed().await;
    process.compactor.look_after(assigned).await;
    assert!(!before.is_empty());
    assert_eq!(world.committed().await, before);
}

#[tokio::test]
async fn objects_in_which_nothing_died_are_not_rewritten() {
    let mut world = World::new(60, COMPACT).await;
    world.plain_keys = Some(0);
    world.grow(3).await;
    assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
    let (_, _, clean) = world.read().await;
    world.plain_keys = Some(100);
    world.grow(3).await;
    let original = world.committed().await;
    assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
    let (_, _, objects) = world.read().await;
    assert_eq!(objects[..clean.len()], clean);
    assert!(objects.len() > clean.len() && objects.iter().all(|object| object.kind == ObjectKind::Parquet));
    check_compacted(&original, &world.committed().await, true);
    check_clean_part(&world.committed().await, objects.last().unwrap().end);
}

#[tokio::test]
async fn two_compactors_at_once_do_no_harm() {
    for seed in seeds(40..43) {
        let mut world = World::new(seed, DELETE).await;
        world.grow(8).await;
        let before = world.read().await.0;
        let (one, two) = (world.process(Fuse::never()), world.process(Fuse::never()));
        let (first, second) = tokio::join!(
            one.compactor.work_on(&one.handle, &world.config, 0, later(0)),
            two.compactor.work_on(&two.handle, &world.config, 0, later(0)),
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(world.read().await.0, before, "seed {seed}");
        assert!(first.published + second.published > 0 && first.overtaken + second.overtaken > 0);
        let (_, _, objects) = world.read().await;
        assert_eq!(world.stored().await.iter().filter(|key| key.ends_with(".parquet")).count(), objects.len());
    }
}

#[tokio::test]
async fn retention_moves_the_log_start_and_the_sweep_takes_the_objects() {
    let mut world = World::new(50, DELETE).await;
    world.grow(6).await;
    world.config.retention_bytes = Some(0);
    assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
    let process = world.process(Fuse::never());
    let manifest = process.handle.refresh().await.unwrap();
    assert_eq!((manifest.log_start().0, manifest.object_count()), (manifest.end(), 0));
    assert!(process.sweep(later(3)).await);
    assert_eq!(world.stored().await, BTreeSet::new());
}

#[tokio::test]
async fn an_archive_is_buried_when_somebody_deleted_its_topic_and_kept_when_nobody_knows_it() {
    let mut world = World::new(51, DELETE).await;
    world.grow(3).await;
    let process = world.process(Fuse::never());
    let id = world.partition.topic;
    let sweep = async |hours, known: Option<KnownTopics>| {
        process.compactor.sweep(later(hours), || ready(known.clone())).await.unwrap()
    };
    let alive = KnownTopics { alive: [id].into(), deleted: [id].into() };
    let deleted = KnownTopics { deleted: [id].into(), ..KnownTopics::default() };
    for known in [None, Some(alive), Some(KnownTopics::default())] {
        assert_eq!(sweep(0, known).await.settled, []);
        assert_eq!(process.handle.refresh().await.unwrap().deleted_at(), None);
    }
    assert_eq!(process.compactor.metrics.unknown_topics.get(), 1);
    // However long nobody knows it.
    sweep(100, Some(KnownTopics::default())).await;
    assert!(!world.stored().await.is_empty());

    assert_eq!(sweep(0, Some(deleted.clone())).await.settled, [], "it was not buried before");
    assert!(process.handle.refresh().await.unwrap().deleted_at().is_some());
    assert_eq!(sweep(3, Some(deleted.clone())).await.settled, [], "somebody may have published meanwhile");
    assert_eq!(world.stored().await, BTreeSet::new());
    assert_eq!(sweep(3, Some(deleted.clone())).await.settled, [id]);
    assert_eq!(process.compactor.metrics.unknown_topics.get(), 0);
    // Nor does the word that it is gone stay for ever.
    sweep(6, Some(KnownTopics::default())).await;
    assert_eq!(process.handle.store().versions(world.partition, Version::NONE).await.unwrap(), []);
}

#[tokio::test]
async fn what_compaction_leaves_counts_for_retention_as_it_did_before_however_well_it_compressed() {
    for seed in seeds(60..64) {
        let mut world = World::new(seed, COMPACT).await;
        world.padding = 1000;
        for _ in 0..3 {
            world.grow(4).await;
            assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
        }
        let (batches, _, objects) = world.read().await;
        let in_the_log = |(header, records): &Batch| match header.attributes.compression() {
            Codec::None => HEADER_BYTES + records.len(),
            codec => HEADER_BYTES + compression::compress(codec, None, records).unwrap().len(),
        };
        let (expected, told): (usize, u64) =
            (batches.iter().map(in_the_log).sum(), objects.iter().map(|object| object.log_bytes).sum());
        let (expected, told) = (expected as f64, told as f64);
        assert!((0.8 * expected..1.2 * expected).contains(&told), "seed {seed}: {told} of {expected}");
    }
}
