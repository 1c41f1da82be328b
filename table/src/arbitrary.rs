//! Partitions for tests: runs of batches as producers, transactions and compaction leave them.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use varve_log::{
    format::{Attributes, BatchHeader, ControlRecord, HEADER_BYTES, RecordBatchView, batches, compression},
    local::AbortedTxn,
};
use varve_metadata::{
    config::Codec,
    model::{
        LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId,
    },
};

use crate::{options::TableMeta, varint::put_signed};

/// A stretch of one partition's log.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) log: Bytes,
    pub(crate) meta: TableMeta,
    /// Records that a read_committed consumer sees.
    pub(crate) committed: u64,
}

impl Stretch {
    pub(crate) fn batches(&self) -> Vec<RecordBatchView<'_>> {
        batches(&self.log).map(|batch| batch.expect("made whole")).collect()
    }
}

type Bytestring = Option<Vec<u8>>;

#[derive(Clone, Debug)]
struct ARecord {
    gap: u8,
    timestamp: i64,
    key: Bytestring,
    value: Bytestring,
    headers: Vec<(Vec<u8>, Bytestring)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Oddity {
    None,
    LongVarint,
    RecordAttributes,
    Garbage,
    TrailingBytes,
    StrangeProducer,
    DescendingOffsets,
}

#[derive(Clone, Debug)]
struct ABatch {
    gap: u8,
    tail_gap: u8,
    codec: Codec,
    base_timestamp: i64,
    log_append_time: bool,
    delete_horizon: bool,
    producer: Option<u8>,
    /// Ends a transaction of the producer: committed or aborted. Its batches before were transactional.
    transactional: bool,
    marker: Option<bool>,
    oddity: Oddity,
    records: Vec<ARecord>,
}

fn bytestring() -> impl Strategy<Value = Bytestring> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        3 => "[a-c]{1,3}".prop_map(|text| Some(text.into_bytes())),
        2 => vec(any::<u8>(), 0..60).prop_map(Some),
    ]
}

fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![
        20 => 1_600_000_000_000i64..1_600_000_100_000,
        2 => Just(-1i64),
        1 => Just(-5i64),
        1 => Just(i64::MAX),
        1 => Just(i64::MAX / 1000),
        1 => Just(i64::MAX / 1000 + 1),
        1 => Just(0i64),
    ]
}

fn record() -> impl Strategy<Value = ARecord> {
    let gap = prop_oneof![9 => Just(0u8), 1 => 1u8..4];
    let header = ("[h-j]{0,2}".prop_map(String::into_bytes), bytestring());
    (gap, timestamp(), bytestring(), bytestring(), vec(header, 0..4))
        .prop_map(|(gap, timestamp, key, value, headers)| ARecord { gap, timestamp, key, value, headers })
}

fn batch() -> impl Strategy<Value = ABatch> {
    let oddity = prop_oneof![
        40 => Just(Oddity::None),
        1 => Just(Oddity::LongVarint),
        1 => Just(Oddity::RecordAttributes),
        1 => Just(Oddity::Garbage),
        1 => Just(Oddity::TrailingBytes),
        1 => Just(Oddity::StrangeProducer),
        1 => Just(Oddity::DescendingOffsets),
    ];
    let gap = || prop_oneof![6 => Just(0u8), 1 => 1u8..5];
    let codec = prop::sample::select(Codec::ALL.to_vec());
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.4));
    let marker = prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let content = (oddity, prop_oneof![1 => Just(vec![]), 12 => vec(record(), 1..12)]);
    (gap(), gap(), codec, timestamp(), flags, option::of(0u8..3), marker, content).prop_map(
        |(gap, tail_gap, codec, base_timestamp, flags, producer, marker, (oddity, records))| ABatch {
            gap,
            tail_gap,
            codec,
            base_timestamp,
            log_append_time: flags.0,
            delete_horizon: flags.1,
            producer,
            transactional: flags.2 && producer.is_some(),
            marker,
            oddity,
            records,
        },
    )
}

/// Any stretch of a log: gaps, all codecs, transactions, odd timestamps, empty batches, records that do not rebuild.
pub(crate) fn any_stretch() -> impl Strategy<Value = Stretch> {
    (0u64..1000, vec(batch(), 1..30)).prop_map(|(base, batches)| build(base, &batches))
}

#[derive(Default)]
struct Open {
    first: Option<Offset>,
    records: u64,
}

fn build(base: u64, description: &[ABatch]) -> Stretch {
    let mut log = Vec::new();
    let base = Offset::new(base).expect("small");
    let mut next = base;
    let mut open: [Open; 3] = Default::default();
    let mut sequences = [0u32; 3];
    let (mut aborted, mut committed) = (Vec::new(), 0);
    // What is still open at the end is committed by markers: only what lies below the last stable offset is archived.
    let closing = (0..3u8).map(|producer| ABatch { producer: Some(producer), marker: Some(true), ..EMPTY });
    for batch in description.iter().cloned().chain(closing) {
        let producer_id = batch.producer.map(|id| ProducerId::from_wire(i64::from(id) + 7000).expect("positive"));
        if let (Some(producer), Some(commit), Some(producer_id)) = (batch.producer, batch.marker, producer_id) {
            let state = std::mem::take(&mut open[usize::from(producer)]);
            let Some(first) = state.first else { continue };
            let marker = match commit {
                true => ControlRecord::Commit { coordinator_epoch: 1 },
                false => ControlRecord::Abort { coordinator_epoch: 1 },
            };
            let now = Timestamp::from_wire(1_600_000_000_000).expect("positive");
            let mut bytes = marker.batch(producer_id, ProducerEpoch(1), now);
            bytes[..8].copy_from_slice(&next.to_wire().to_be_bytes());
            log.extend_from_slice(&bytes);
            if commit {
                committed += state.records;
            } else {
                aborted.push(AbortedTxn { producer: producer_id, first, last: next, last_stable: next });
            }
            next = next.plus(1);
            continue;
        }
        if batch.records.is_empty() && batch.producer.is_none() && batch.gap == 0 && batch.tail_gap == 0 {
            continue;
        }
        let start = next.plus(u64::from(batch.gap));
        let (bytes, last_delta, rows) = one_batch(&batch, start, producer_id, &mut sequences);
        log.extend_from_slice(&bytes);
        next = start.plus(u64::from(last_delta) + 1);
        match batch.producer {
            Some(producer) if batch.transactional => {
                let state = &mut open[usize::from(producer)];
                state.first.get_or_insert(start);
                state.records += rows;
            }
            _ => committed += rows,
        }
    }
    if log.is_empty() {
        return build(base.get(), &[ABatch { tail_gap: 1, ..EMPTY }]);
    }
    let topic = TopicId::from_wire(uuid_of_tests()).expect("not reserved");
    let meta = TableMeta {
        partition: PartitionId { topic, index: PartitionIndex(3) },
        base,
        end: next.plus(2),
        leader_epochs: vec![(LeaderEpoch(0), Offset::ZERO), (LeaderEpoch(4), base)],
        aborted,
        producers: Some(Bytes::from_static(b"snapshot")),
    };
    Stretch { log: log.into(), meta, committed }
}

fn uuid_of_tests() -> uuid::Uuid {
    uuid::Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0)
}

const EMPTY: ABatch = ABatch {
    gap: 0,
    tail_gap: 0,
    codec: Codec::None,
    base_timestamp: 5,
    log_append_time: false,
    delete_horizon: false,
    producer: None,
    transactional: false,
    marker: None,
    oddity: Oddity::None,
    records: Vec::new(),
};

/// The batch's bytes, its last offset delta, and how many records become rows once committed.
fn one_batch(
    batch: &ABatch,
    base_offset: Offset,
    producer_id: Option<ProducerId>,
    sequences: &mut [u32; 3],
) -> (Vec<u8>, u32, u64) {
    let mut records = Vec::new();
    let mut delta = 0u32;
    for (index, record) in batch.records.iter().enumerate() {
        delta += u32::from(record.gap) + u32::from(index > 0);
        let at =
            if batch.oddity == Oddity::DescendingOffsets { batch.records.len() as u32 - index as u32 } else { delta };
        put_record(&mut records, record, record.timestamp.wrapping_sub(batch.base_timestamp), at, batch.oddity);
    }
    match batch.oddity {
        Oddity::Garbage => records = vec![0x80; records.len() + 1],
        Oddity::TrailingBytes => records.push(0),
        _ => {}
    }
    let last_offset_delta = delta.max(batch.records.len() as u32) + u32::from(batch.tail_gap);
    let attributes = Attributes::from_wire(
        i16::from(batch.codec.to_wire())
            | i16::from(batch.log_append_time) << 3
            | i16::from(batch.transactional) << 4
            | i16::from(batch.delete_horizon) << 6,
    );
    let header = BatchHeader {
        base_offset,
        bytes: 0,
        leader_epoch: LeaderEpoch::from_wire(4),
        crc: 0,
        attributes: attributes.expect("a codec"),
        last_offset_delta,
        base_timestamp_ms: batch.base_timestamp,
        max_timestamp_ms: batch.records.iter().map(|record| record.timestamp).max().unwrap_or(-1),
        producer_id,
        producer_epoch: producer_id.map(|_| ProducerEpoch(1)),
        base_sequence: batch.producer.map(|id| {
            let sequence = &mut sequences[usize::from(id)];
            let first = *sequence;
            *sequence += last_offset_delta + 1;
            Sequence::from_wire(first as i32).expect("small")
        }),
        record_count: batch.records.len() as u32,
    };
    let payload = compression::compress(batch.codec, None, &records).expect("compresses");
    let mut bytes = header.encode_batch(&payload);
    if batch.oddity == Oddity::StrangeProducer && producer_id.is_none() {
        bytes[51..53].copy_from_slice(&(-7i16).to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let has_rows = match batch.oddity {
        Oddity::Garbage | Oddity::TrailingBytes => false,
        Oddity::DescendingOffsets => batch.records.len() < 2,
        _ => true,
    };
    debug_assert!(bytes.len() >= HEADER_BYTES);
    (bytes, last_offset_delta, if has_rows { batch.records.len() as u64 } else { 0 })
}

fn put_record(out: &mut Vec<u8>, record: &ARecord, timestamp_delta: i64, offset_delta: u32, oddity: Oddity) {
    let mut body = vec![u8::from(oddity == Oddity::RecordAttributes)];
    put_signed(&mut body, timestamp_delta);
    put_signed(&mut body, i64::from(offset_delta));
    if oddity == Oddity::LongVarint {
        // The same number in one byte more than it needs.
        let last = body.last_mut().expect("just written");
        *last |= 0x80;
        body.push(0);
    }
    let nullable = |body: &mut Vec<u8>, value: Option<&[u8]>| {
        put_signed(body, value.map_or(-1, |value| value.len() as i64));
        body.extend_from_slice(value.unwrap_or_default());
    };
    nullable(&mut body, record.key.as_deref());
    nullable(&mut body, record.value.as_deref());
    put_signed(&mut body, record.headers.len() as i64);
    for (key, value) in &record.headers {
        nullable(&mut body, Some(key));
        nullable(&mut body, value.as_deref());
    }
    put_signed(out, body.len() as i64);
    out.extend_from_slice(&body);
}
