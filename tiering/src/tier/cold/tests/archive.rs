//! A log in memory, archived piece by piece as the tests want it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordBatchView, RecordContent, batches, compression, records},
    local::AbortedTxn,
};
use varve_metadata::{
    config::Codec,
    model::{
        LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId,
        TopicName,
    },
};
use varve_table::{EncodeOptions, TableMeta};

use super::store::Steering;
use crate::{
    manifest::{ObjectId, ObjectKind, RemoteObject},
    raw::{Attachments, RawBuilder},
    tier::{
        bucket::{Bucket, BucketOptions},
        manifests::ManifestStore,
        partition::RemotePartition,
        troubled_store::TroubledStore,
    },
};

const EPOCH: LeaderEpoch = LeaderEpoch(0);

pub(super) fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

pub(super) fn millis(raw: i64) -> Timestamp {
    Timestamp::from_wire(raw).unwrap()
}

/// A bucket in memory with impatient requests.
pub(super) fn bucket(steering: &Steering) -> Bucket {
    let options = BucketOptions {
        attempts: 3,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(1),
        ..BucketOptions::default()
    };
    Bucket::over(TroubledStore { inner: Arc::default(), trouble: steering.clone() }, options)
}

pub(super) fn topic() -> TopicName {
    TopicName::parse("web.clicks").unwrap()
}

/// A handle that knows nothing of what others do, as another process has it.
pub(super) fn handle(bucket: &Bucket, partition: PartitionId) -> Arc<RemotePartition> {
    Arc::new(RemotePartition::new(ManifestStore::new(bucket.clone()), partition, topic()))
}

/// A log of batches, and its archive.
pub(super) struct Archive {
    pub(super) bucket: Bucket,
    pub(super) remote: Arc<RemotePartition>,
    pub(super) partition: PartitionId,
    pub(super) batches: Vec<Bytes>,
    pub(super) end: u64,
    pub(super) archived: u64,
    open: HashMap<u64, u64>,
    sequences: HashMap<u64, u32>,
    aborted: Vec<AbortedTxn>,
}

impl Archive {
    pub(super) fn new(bucket: &Bucket) -> Archive {
        let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
        Archive {
            bucket: bucket.clone(),
            remote: handle(bucket, partition),
            partition,
            batches: Vec::new(),
            end: 0,
            archived: 0,
            open: HashMap::new(),
            sequences: HashMap::new(),
            aborted: Vec::new(),
        }
    }

    /// Appends a batch of `count` records with values of about `bytes`; record at offset i has timestamp 1000 + i.
    pub(super) fn append(
        &mut self,
        codec: Codec,
        producer: Option<u64>,
        transactional: bool,
        count: u64,
        bytes: usize,
    ) {
        let mut builder = BatchBuilder::new(offset(self.end)).leader_epoch(EPOCH).compression(codec, None);
        if let Some(id) = producer {
            let sequence = self.sequences.entry(id).or_default();
            let first = Sequence::from_wire(*sequence as i32);
            *sequence += count as u32;
            builder = builder.producer(ProducerId::from_wire(id as i64).unwrap(), ProducerEpoch(0), first);
            if transactional {
                builder = builder.transactional();
                self.open.entry(id).or_insert(self.end);
            }
        }
        for at in self.end..self.end + count {
            let (key, mut value) = (format!("key {}", at % 17), format!("value {at} ").into_bytes());
            value.extend((0..bytes).map(|place| (place as u64 * 31 + at * 7) as u8));
            builder.push(RecordContent {
                timestamp: Some(millis(1000 + at as i64)),
                key: Some(key.as_bytes()),
                value: (at % 13 != 5).then_some(&value),
                headers: &[(b"host", Some(b"a")), (b"empty", None)],
            });
        }
        self.batches.push(builder.build().unwrap().into());
        self.end += count;
    }

    /// Appends a batch of records with these timestamps.
    pub(super) fn append_times(&mut self, times: &[i64]) {
        let mut builder = BatchBuilder::new(offset(self.end)).leader_epoch(EPOCH);
        for time in times {
            builder.push(RecordContent { timestamp: Some(millis(*time)), value: Some(b"v"), ..Default::default() });
        }
        self.batches.push(builder.build().unwrap().into());
        self.end += times.len() as u64;
    }

    /// Ends the producer's transaction, if it has one open.
    pub(super) fn end_transaction(&mut self, id: u64, aborted: bool) {
        let Some(first) = self.open.remove(&id) else { return };
        let producer = ProducerId::from_wire(id as i64).unwrap();
        let marker = match aborted {
            true => ControlRecord::Abort { coordinator_epoch: 0 },
            false => ControlRecord::Commit { coordinator_epoch: 0 },
        };
        let mut bytes = marker.batch(producer, ProducerEpoch(0), millis(1000 + self.end as i64));
        bytes[..8].copy_from_slice(&(self.end as i64).to_be_bytes());
        bytes[12..16].copy_from_slice(&EPOCH.to_wire().to_be_bytes());
        if aborted {
            let stable = self.open.values().min().copied().unwrap_or(self.end + 1);
            self.aborted.push(AbortedTxn {
                producer,
                first: offset(first),
                last: offset(self.end),
                last_stable: offset(stable),
            });
        }
        self.batches.push(bytes.into());
        self.end += 1;
    }

    /// The batches with offsets in `from..to`, in one run.
    pub(super) fn bytes(&self, from: u64, to: u64) -> Bytes {
        let within = |batch: &&Bytes| {
            let header = *RecordBatchView::parse(batch).unwrap().0.header();
            header.base_offset >= offset(from) && header.next_offset() <= offset(to)
        };
        self.batches.iter().filter(within).flat_map(|batch| batch.to_vec()).collect::<Vec<u8>>().into()
    }

    /// Uploads what is not archived yet and ends at or below `to`, and publishes it.
    pub(super) async fn upload(&mut self, to: u64) -> RemoteObject {
        let object = self.make(ObjectKind::Raw, self.archived, to).await;
        self.archived = to;
        let published = object.clone();
        self.remote.update(move |manifest| manifest.claimed_by(EPOCH)?.with(EPOCH, published.clone())).await.unwrap();
        object
    }

    /// Puts a Parquet object in the place of these objects, and publishes it.
    pub(super) async fn convert(&self, sources: &[RemoteObject]) -> RemoteObject {
        let (first, last) = (sources.first().unwrap(), sources.last().unwrap());
        let object = self.make(ObjectKind::Parquet, first.base.get(), last.end.get()).await;
        let replaced = object.clone();
        self.remote.update(move |manifest| manifest.replace(sources, vec![replaced.clone()], millis(1))).await.unwrap();
        object
    }

    /// An object in the bucket that no manifest lists.
    async fn make(&self, kind: ObjectKind, from: u64, to: u64) -> RemoteObject {
        let (base, end, log) = (offset(from), offset(to), self.bytes(from, to));
        let aborted: Vec<_> = self.aborted.iter().copied().filter(|txn| txn.overlaps(base, end)).collect();
        let epochs = vec![(EPOCH, base)];
        let mut object = RemoteObject {
            id: ObjectId::random(),
            kind,
            base,
            end,
            bytes: 0,
            log_bytes: log.len() as u64,
            records: to - from,
            max_timestamp: batches(&log).filter_map(|batch| batch.unwrap().header().max_timestamp()).max(),
            writer_epoch: EPOCH,
            leader_epochs: epochs.clone(),
            crc32c: 0,
            shared_at: None,
        };
        let content = match kind {
            ObjectKind::Raw => {
                let mut builder = RawBuilder::new(base, end);
                builder.push(&log).unwrap();
                let attachments = Attachments { aborted, ..Attachments::default() };
                let (tail, _) = builder.finish(attachments).unwrap();
                Bytes::from([&log[..], &tail].concat())
            }
            ObjectKind::Parquet => {
                let meta =
                    TableMeta { partition: self.partition, base, end, leader_epochs: epochs, aborted, producers: None };
                let options = EncodeOptions { group_bytes: 64 << 10, page_bytes: 8 << 10, ..EncodeOptions::default() };
                varve_table::encode(batches(&log).map(Result::unwrap), meta, options).unwrap().bytes
            }
        };
        (object.bytes, object.crc32c) = (content.len() as u64, crc32c::crc32c(&content));
        self.bucket.put(&object.key(self.partition, &topic()), content).await.unwrap();
        object
    }
}

/// Header fields that survive every tier, and the uncompressed records, of each batch of a run.
pub(super) fn contents(run: &[u8]) -> Vec<(String, Vec<u8>)> {
    let content = |batch: RecordBatchView<'_>| {
        let header = *batch.header();
        let records = compression::decompress(header.attributes.compression(), batch.payload(), 1 << 30).unwrap();
        let attributes = header.attributes.with_compression(Codec::None);
        let place = (header.base_offset, header.last_offset_delta, header.leader_epoch, header.record_count);
        let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        let times = (header.base_timestamp_ms, header.max_timestamp_ms);
        (format!("{place:?} {producer:?} {times:?} {attributes:?}"), records.into_owned())
    };
    batches(run).map(|batch| content(batch.unwrap())).collect()
}

/// Offsets of the records that a read_committed consumer takes from `run`, told these aborted transactions.
pub(super) fn committed(run: &[u8], from: u64, aborted: &[AbortedTxn]) -> Vec<u64> {
    let mut ahead: Vec<_> = aborted.to_vec();
    ahead.sort_by_key(|txn| txn.first);
    let (mut skipped, mut taken) = (Vec::new(), Vec::new());
    for batch in batches(run) {
        let batch = batch.unwrap();
        let header = batch.header();
        while ahead.first().is_some_and(|txn| txn.first <= header.last_offset()) {
            skipped.push(ahead.remove(0).producer);
        }
        let payload = compression::decompress(header.attributes.compression(), batch.payload(), 1 << 30).unwrap();
        for record in records(&payload, header.record_count) {
            let record = record.unwrap();
            if header.attributes.is_control() {
                if matches!(ControlRecord::parse(&record).unwrap(), Some(ControlRecord::Abort { .. })) {
                    skipped.retain(|producer| Some(*producer) != header.producer_id);
                }
                continue;
            }
            let skips = header.attributes.is_transactional()
                && header.producer_id.is_some_and(|producer| skipped.contains(&producer));
            let at = header.base_offset.get() + record.offset_delta as u64;
            if !skips && at >= from {
                taken.push(at);
            }
        }
    }
    taken
}
