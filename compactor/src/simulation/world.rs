//! One simulated partition: its log, its bucket, and the processes that work on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::ready,
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
        pace::ByteRate,
        partition::{RemotePartition, RemotePartitions},
    },
};

use crate::{
    metrics::CompactorMetrics,
    options::CompactorOptions,
    plan::Limits,
    rewrite::Workshop,
    source::{Reader, Run},
    troubled_store::{Fuse, TroubledStore},
    worker::{Compactor, Done},
};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// A cheap source of numbers that look random and are the same for the same seed.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
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
pub(super) struct World {
    pub(super) inner: Arc<InMemory>,
    pub(super) partition: PartitionId,
    pub(super) topic: TopicName,
    pub(super) config: TopicConfig,
    numbers: Numbers,
    next: Offset,
    open: BTreeMap<u64, Offset>,
    aborted: Vec<AbortedTxn>,
    /// First of the keys in use. Without tombstones, transactions and null keys if set.
    pub(super) plain_keys: Option<u64>,
    /// Bytes behind each value, all the same.
    pub(super) padding: usize,
}

/// A process that works on the partition.
pub(super) struct Process {
    pub(super) compactor: Compactor,
    pub(super) handle: Arc<RemotePartition>,
    fuse: Arc<Fuse>,
}

pub(super) type Batch = (BatchHeader, Vec<u8>);
pub(super) type Record = (Option<Vec<u8>>, Option<Vec<u8>>);

impl World {
    pub(super) async fn new(seed: u64, cleanup: CleanupPolicy) -> World {
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
            padding: 0,
        };
        let leader = world.process(Fuse::never());
        leader.handle.update(|manifest| manifest.claimed_by(EPOCH)).await.unwrap();
        world
    }

    /// Another partition in the same bucket.
    pub(super) async fn beside(&self, seed: u64) -> World {
        let mut other = World::new(seed, self.config.cleanup).await;
        other.inner = Arc::clone(&self.inner);
        let leader = other.process(Fuse::never());
        leader.handle.update(|manifest| manifest.claimed_by(EPOCH)).await.unwrap();
        other
    }

    pub(super) fn process(&self, fuse: Arc<Fuse>) -> Process {
        self.process_with(fuse, Duration::from_secs(3600))
    }

    pub(super) fn process_with(&self, fuse: Arc<Fuse>, grace: Duration) -> Process {
        let store = TroubledStore { inner: Arc::clone(&self.inner), trouble: Arc::clone(&fuse) };
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
            grace,
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
            let mut value = format!("value of {} at {}", place, base.get()).into_bytes();
            value.resize(value.len() + self.padding, b'.');
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
    pub(super) async fn grow(&mut self, segments: usize) {
        let leader = self.process(Fuse::never());
        let logs: Vec<_> = (0..segments).map(|nth| self.log_of_segment(nth + 1 == segments)).collect();
        for log in logs {
            let (bytes, object) = self.part(log);
            let key = layout::raw(self.partition, object.base, EPOCH, object.id.0);
            leader.handle.bucket().put(&key, Bytes::from(bytes)).await.unwrap();
            leader.handle.update(|manifest| manifest.with(EPOCH, object.clone())).await.unwrap();
        }
    }

    /// Batches of one more segment, and its offsets.
    fn log_of_segment(&mut self, is_last: bool) -> (Offset, Offset, Vec<u8>) {
        let base = self.next;
        let mut log = Vec::new();
        for _ in 0..1 + self.numbers.below(12) {
            log.extend(self.batch());
        }
        if is_last {
            for (producer, first) in std::mem::take(&mut self.open) {
                let id = ProducerId::from_wire(producer as i64 + 100).unwrap();
                log.extend(self.marker(self.next, id, first));
            }
        }
        (base, self.next, log)
    }

    /// A segment as it goes into the bucket, and its entry.
    fn part(&self, (base, end, log): (Offset, Offset, Vec<u8>)) -> (Vec<u8>, RemoteObject) {
        let overlaps = |txn: &&AbortedTxn| txn.first < end && txn.last >= base;
        let aborted = self.aborted.iter().filter(overlaps).copied().collect();
        let mut builder = RawBuilder::new(base, end);
        builder.push(&log).unwrap();
        let (tail, summary) = builder.finish(Attachments { aborted, producer_snapshot: Bytes::new() }).unwrap();
        let object = RemoteObject::raw(ObjectId::random(), EPOCH, summary);
        ([log, tail].concat(), object)
    }

    /// Every batch that the newest manifest leads to, uncompressed, and the aborted transactions listed beside them.
    pub(super) async fn read(&self) -> (Vec<Batch>, Vec<AbortedTxn>, Vec<RemoteObject>) {
        let reader = self.process(Fuse::never());
        let manifest = reader.handle.refresh().await.unwrap();
        let objects = reader.handle.objects(&manifest, Offset::ZERO, Offset::MAX).await.unwrap();
        let workshop = Workshop {
            bucket: reader.handle.bucket().clone(),
            reader: Reader { bucket: reader.handle.bucket().clone(), rate: Arc::new(ByteRate::new(None)) },
            kind: ObjectKind::Parquet,
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
            source.send_runs(&workshop.reader, &runs).await.unwrap();
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
    pub(super) async fn committed(&self) -> BTreeMap<Offset, Record> {
        let (batches, aborted, _) = self.read().await;
        visible(&batches, &aborted)
    }

    /// Keys in the bucket that hold data or leaves.
    pub(super) async fn stored(&self) -> BTreeSet<String> {
        let listed: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        let keys = listed.into_iter().map(|object| object.location.to_string());
        keys.filter(|key| !key.starts_with("manifests/")).collect()
    }
}

/// One more segment of each partition, uploaded as one object. The process dies after some of the publishes, each time, and the
/// next one uploads what is left anew.
pub(super) async fn grow_shared(worlds: &mut [World]) {
    let mut pending: Vec<_> = (0..worlds.len()).collect();
    let logs: Vec<_> = worlds.iter_mut().map(|world| world.log_of_segment(true)).collect();
    let parts: Vec<_> = worlds.iter().zip(logs).map(|(world, log)| world.part(log)).collect();
    while !pending.is_empty() {
        let id = ObjectId::random();
        let (mut bytes, mut objects) = (Vec::new(), Vec::new());
        for &nth in &pending {
            let (part, object) = &parts[nth];
            objects.push(RemoteObject { id, shared_at: Some(bytes.len() as u64), ..object.clone() });
            bytes.extend_from_slice(part);
        }
        worlds[0].process(Fuse::never()).handle.bucket().put(&layout::shared(id.0), Bytes::from(bytes)).await.unwrap();
        let published = 1 + worlds[0].numbers.below(pending.len() as u64) as usize;
        for (nth, object) in pending.drain(..published).zip(objects) {
            let leader = worlds[nth].process(Fuse::never());
            leader.handle.update(|manifest| manifest.with(EPOCH, object.clone())).await.unwrap();
        }
    }
}

pub(super) fn visible(batches: &[Batch], aborted: &[AbortedTxn]) -> BTreeMap<Offset, Record> {
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
    pub(super) async fn work(&self, config: &TopicConfig, now: Timestamp) -> bool {
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

    pub(super) async fn sweep(&self, now: Timestamp) -> bool {
        tokio::select! {
            swept = self.compactor.sweep(now, || ready(None)) => {
                swept.unwrap();
                true
            }
            () = self.fuse.burnt.notified() => false,
        }
    }
}
