//! Whole partitions through the compactor, one seed each, with a crash before and after every write.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory};
use tokio::sync::mpsc;
use varve_log::{
    format::{BatchBuilder, BatchHeader, ControlRecord, RecordContent, compression, records},
    local::AbortedTxn,
};
use varve_metadata::{
    config::{ArchiveFormat, CleanupPolicy, Codec, TopicConfig},
    model::{
        LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId,
        TopicName,
    },
};
use varve_table::EncodeOptions;
use varve_tiering::{
    layout,
    manifest::{ObjectId, ObjectKind, RemoteObject},
    raw::{Attachments, RawBuilder},
    tier::{
        bucket::{Bucket, BucketOptions},
        manifests::ManifestStore,
        partition::{RemotePartition, RemotePartitions},
    },
};

use crate::{
    crash_store::{CrashStore, Fuse},
    metrics::CompactorMetrics,
    plan::Limits,
    rewrite::Workshop,
    source::Run,
    worker::{Compactor, CompactorOptions, Done, wall_clock},
};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// A cheap source of numbers that look random and are the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// One partition in a bucket, as its leader left it.
struct World {
    inner: Arc<InMemory>,
    partition: PartitionId,
    topic: TopicName,
    config: TopicConfig,
    numbers: Numbers,
    next: Offset,
    open: BTreeMap<u64, Offset>,
    aborted: Vec<AbortedTxn>,
    /// First of the keys in use. Without tombstones, transactions and null keys if set.
    plain_keys: Option<u64>,
}

/// A process that works on the partition.
struct Process {
    compactor: Compactor,
    handle: Arc<RemotePartition>,
    fuse: Arc<Fuse>,
}

type Batch = (BatchHeader, Vec<u8>);
type Record = (Option<Vec<u8>>, Option<Vec<u8>>);

impl World {
    async fn new(seed: u64, cleanup: CleanupPolicy) -> World {
        let config = TopicConfig {
            cleanup,
            archive_format: ArchiveFormat::Parquet,
            min_cleanable_dirty_ratio: 0.01,
            retention_time: None,
            ..TopicConfig::default()
        };
        let world = World {
            inner: Arc::new(InMemory::new()),
            partition: PartitionId { topic: TopicId::random(), index: PartitionIndex(1) },
            topic: TopicName::parse("simulated").unwrap(),
            config,
            numbers: Numbers(seed),
            next: Offset::ZERO,
            open: BTreeMap::new(),
            aborted: Vec::new(),
            plain_keys: None,
        };
        let leader = world.process(Fuse::never());
        leader.handle.update(|manifest| manifest.claimed_by(EPOCH)).await.unwrap();
        world
    }

    fn process(&self, fuse: Arc<Fuse>) -> Process {
        let store = CrashStore { inner: Arc::clone(&self.inner), fuse: Arc::clone(&fuse) };
        let bucket = Bucket::over(store, BucketOptions { attempts: 1, ..BucketOptions::default() });
        let partitions = Arc::new(RemotePartitions::new(ManifestStore::new(bucket)));
        let handle = partitions.get(self.partition, &self.topic);
        let options = CompactorOptions {
            limits: Limits { small: 3_000, target: 9_000, fan_in: 4 },
            encode: EncodeOptions {
                group_bytes: 700,
                page_bytes: 200,
                tag_filter_max_bytes: 256,
                ..EncodeOptions::default()
            },
            grace: Duration::from_secs(3600),
            ..CompactorOptions::default()
        };
        Process { compactor: Compactor::new(partitions, options, CompactorMetrics::new()), handle, fuse }
    }

    /// One batch or marker at the end of the log.
    fn batch(&mut self) -> Vec<u8> {
        let base = self.next.plus(if self.numbers.one_in(12) { self.numbers.below(3) } else { 0 });
        let producer = self.numbers.below(4);
        let id = ProducerId::from_wire(producer as i64 + 100).unwrap();
        if let Some(first) = self.open.get(&producer).copied().filter(|_| self.numbers.one_in(2)) {
            self.open.remove(&producer);
            return self.marker(base, id, first);
        }
        let codec = Codec::ALL[self.numbers.below(5) as usize];
        let mut builder = BatchBuilder::new(base).leader_epoch(EPOCH).compression(codec, None);
        let plain = self.plain_keys.is_some();
        let transactional = !plain && (self.open.contains_key(&producer) || self.numbers.one_in(4));
        if transactional || self.numbers.one_in(2) {
            builder = builder.producer(id, ProducerEpoch(0), Sequence::from_wire(base.to_wire() as i32));
        }
        if transactional {
            builder = builder.transactional();
            self.open.entry(producer).or_insert(base);
        }
        let count = 1 + self.numbers.below(6);
        for place in 0..count {
            let key = format!("key-{}", self.plain_keys.unwrap_or(0) + self.numbers.below(12)).into_bytes();
            let value = format!("value of {} at {}", place, base.get()).into_bytes();
            let (keyed, live) = (plain || !self.numbers.one_in(15), plain || !self.numbers.one_in(5));
            builder.push(RecordContent {
                timestamp: Timestamp::from_wire(1_600_000_000_000 + base.to_wire()),
                key: keyed.then_some(&key[..]),
                value: live.then_some(&value[..]),
                headers: &[(b"source", Some(b"simulation"))],
            });
        }
        self.next = base.plus(count);
        builder.build().unwrap()
    }

    fn marker(&mut self, base: Offset, producer: ProducerId, first: Offset) -> Vec<u8> {
        let commit = self.numbers.one_in(2);
        let marker = match commit {
            true => ControlRecord::Commit { coordinator_epoch: 0 },
            false => ControlRecord::Abort { coordinator_epoch: 0 },
        };
        let now = Timestamp::from_wire(1_600_000_000_000 + base.to_wire()).unwrap();
        let mut bytes = marker.batch(producer, ProducerEpoch(0), now);
        bytes[..8].copy_from_slice(&base.to_wire().to_be_bytes());
        if !commit {
            self.aborted.push(AbortedTxn { producer, first, last: base, last_stable: base });
        }
        self.next = base.plus(1);
        bytes
    }

    /// Uploads `segments` more raw objects, of some batches each. Transactions end before the last one does.
    async fn grow(&mut self, segments: usize) {
        let leader = self.process(Fuse::never());
        let mut parts = Vec::new();
        for nth in 0..segments {
            let base = self.next;
            let mut log = Vec::new();
            for _ in 0..1 + self.numbers.below(12) {
                log.extend(self.batch());
            }
            if nth + 1 == segments {
                for (producer, first) in std::mem::take(&mut self.open) {
                    let id = ProducerId::from_wire(producer as i64 + 100).unwrap();
                    log.extend(self.marker(self.next, id, first));
                }
            }
            parts.push((base, self.next, log));
        }
        for (base, end, log) in parts {
            let overlaps = |txn: &&AbortedTxn| txn.first < end && txn.last >= base;
            let aborted = self.aborted.iter().filter(overlaps).copied().collect();
            let mut builder = RawBuilder::new(base, end);
            builder.push(&log).unwrap();
            let (tail, summary) = builder.finish(Attachments { aborted, producer_snapshot: Bytes::new() }).unwrap();
            let id = ObjectId::random();
            let object = RemoteObject {
                id,
                kind: ObjectKind::Raw,
                base,
                end,
                bytes: summary.bytes,
                log_bytes: summary.log_bytes,
                records: summary.records,
                max_timestamp: summary.max_timestamp,
                writer_epoch: EPOCH,
                leader_epochs: summary.leader_epochs,
                crc32c: summary.crc32c,
                shared_at: None,
            };
            let key = layout::raw(self.partition, base, EPOCH, id.0);
            leader.handle.bucket().put(&key, Bytes::from([log, tail].concat())).await.unwrap();
            leader.handle.update(|manifest| manifest.with(EPOCH, object.clone())).await.unwrap();
        }
    }

    /// Every batch that the newest manifest leads to, uncompressed, and the aborted transactions listed beside them.
    async fn read(&self) -> (Vec<Batch>, Vec<AbortedTxn>, Vec<RemoteObject>) {
        let reader = self.process(Fuse::never());
        let manifest = reader.handle.refresh().await.unwrap();
        let objects = reader.handle.objects(&manifest, Offset::ZERO, Offset::MAX).await.unwrap();
        let workshop = Workshop {
            bucket: reader.handle.bucket().clone(),
            partition: self.partition,
            topic: self.topic.clone(),
            encode: EncodeOptions::default(),
            metrics: CompactorMetrics::new(),
            patience: Duration::from_secs(1),
        };
        let sources = workshop.open(&objects).await.unwrap();
        let (mut batches, mut aborted) = (Vec::new(), Vec::new());
        for source in &sources {
            aborted.extend_from_slice(source.aborted());
            let (runs, mut taken) = mpsc::channel::<Run>(100_000);
            source.send_runs(&workshop.bucket, &runs).await.unwrap();
            drop(runs);
            while let Some(run) = taken.recv().await {
                run.each(|header, batch, rebuilt| {
                    let codec = if rebuilt { Codec::None } else { header.attributes.compression() };
                    let records = compression::decompress(codec, batch.payload(), 1 << 20).unwrap().into_owned();
                    batches.push((BatchHeader { bytes: 0, crc: 0, ..*header }, records));
                    Ok::<(), varve_log::format::BatchError>(())
                })
                .unwrap();
            }
        }
        (batches, aborted, objects)
    }

    /// What a read_committed consumer sees: offset to key and value.
    async fn committed(&self) -> BTreeMap<Offset, Record> {
        let (batches, aborted, _) = self.read().await;
        visible(&batches, &aborted)
    }

    /// Keys in the bucket that hold data or leaves.
    async fn stored(&self) -> BTreeSet<String> {
        let listed: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        let keys = listed.into_iter().map(|object| object.location.to_string());
        keys.filter(|key| !key.starts_with("manifests/")).collect()
    }
}

fn visible(batches: &[Batch], aborted: &[AbortedTxn]) -> BTreeMap<Offset, Record> {
    let mut seen = BTreeMap::new();
    for (header, payload) in batches {
        let hidden = header.attributes.is_transactional()
            && aborted.iter().any(|txn| {
                Some(txn.producer) == header.producer_id && (txn.first..=txn.last).contains(&header.base_offset)
            });
        if header.attributes.is_control() || hidden {
            continue;
        }
        for record in records(payload, header.record_count) {
            let record = record.unwrap();
            let offset = header.base_offset.plus(record.offset_delta as u64);
            let content = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            assert!(seen.insert(offset, content).is_none(), "offset {offset} twice");
        }
    }
    seen
}

impl Process {
    /// Works until nothing is left to do, or the process dies. Returns whether it lived.
    async fn work(&self, config: &TopicConfig, now: Timestamp) -> bool {
        let work = async {
            for _ in 0..50 {
                let done = self.compactor.work_on(&self.handle, config, 0, now).await.unwrap();
                if done == (Done { backlog_bytes: done.backlog_bytes, ..Done::default() }) {
                    return true;
                }
                assert_eq!(done.overtaken, 0, "nobody else is here");
            }
            panic!("work without end");
        };
        tokio::select! {
            lived = work => lived,
            () = self.fuse.burnt.notified() => false,
        }
    }

    async fn sweep(&self, now: Timestamp) -> bool {
        tokio::select! {
            swept = self.compactor.sweep(now) => {
                swept.unwrap();
                true
            }
            () = self.fuse.burnt.notified() => false,
        }
    }
}

fn later(hours: i64) -> Timestamp {
    Timestamp::from_wire(wall_clock().to_wire() + hours * 3_600_000).unwrap()
}

const DELETE: CleanupPolicy = CleanupPolicy { delete: true, compact: false };
const COMPACT: CleanupPolicy = CleanupPolicy { delete: false, compact: true };

#[tokio::test]
async fn conversion_and_merging_change_nothing_that_a_consumer_reads_however_often_they_crash() {
    for seed in 0..6 {
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
    for seed in 10..13 {
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
    for seed in 20..26 {
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
    for seed in 30..36 {
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
    for seed in 40..43 {
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
