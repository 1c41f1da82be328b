//! Properties that bind views, records and the builder together.

use proptest::{collection::vec, prelude::*, sample::Index};
use varve_metadata::{
    config::{Codec, TimestampType},
    model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use super::*;

type Bytes = Vec<u8>;

#[derive(Clone, Debug)]
struct Record {
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(Bytes, Option<Bytes>)>,
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..80)
}

fn any_record() -> impl Strategy<Value = Record> {
    let headers = vec((any_bytes(), proptest::option::of(any_bytes())), 0..4);
    (-1i64..1 << 50, proptest::option::of(any_bytes()), proptest::option::of(any_bytes()), headers)
        .prop_map(|(timestamp, key, value, headers)| Record { timestamp, key, value, headers })
}

fn build(records: &[Record], codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(Offset::new(42).expect("small"))
        .leader_epoch(LeaderEpoch(7))
        .producer(
            ProducerId::from_wire(9).expect("positive"),
            ProducerEpoch(3),
            Some(Sequence::from_wire(11).expect("positive")),
        )
        .compression(codec, None);
    for record in records {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        builder.push(RecordContent {
            timestamp: Timestamp::from_wire(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
    }
    builder.build().expect("small batch")
}

fn any_codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_was_built_is_what_is_read(records in vec(any_record(), 1..20), codec in any_codec()) {
        let bytes = build(&records, codec);
        let (batch, rest) = RecordBatchView::parse(&bytes).expect("valid");
        prop_assert!(rest.is_empty());
        let header = *batch.header();
        prop_assert_eq!(header.record_count as usize, records.len());
        prop_assert_eq!(header.last_offset().get(), 41 + records.len() as u64);
        prop_assert_eq!(header.max_timestamp_ms, records.iter().map(|record| record.timestamp).max().expect("not empty"));
        let payload = compression::decompress(codec, batch.payload(), 1 << 20).expect("just compressed");
        let views: Vec<_> = super::records(&payload, header.record_count).collect::<Result<_, _>>().expect("well-formed");
        for (place, (view, record)) in views.iter().zip(&records).enumerate() {
            prop_assert_eq!(view.offset_delta as usize, place);
            prop_assert_eq!(header.base_timestamp_ms + view.timestamp_delta, record.timestamp);
            prop_assert_eq!(view.key, record.key.as_deref());
            prop_assert_eq!(view.value, record.value.as_deref());
            let headers: Vec<_> = view.headers().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(&headers, &record.headers);
        }
        let rejoined: Bytes = views.iter().flat_map(|view| view.as_bytes()).copied().collect();
        prop_assert_eq!(&rejoined[..], &payload[..]);
    }

    #[test]
    fn a_batch_cut_anywhere_is_truncated_never_corrupt(records in vec(any_record(), 1..4), cut in any::<Index>()) {
        let bytes = build(&records, Codec::None);
        let cut = &bytes[..cut.index(bytes.len())];
        prop_assert_eq!(RecordBatchView::parse(cut).err(), Some(BatchError::Truncated));
    }

    #[test]
    fn a_flipped_bit_behind_the_crc_is_seen(records in vec(any_record(), 1..4), at in any::<Index>(), bit in 0u8..8) {
        let mut bytes = build(&records, Codec::None);
        let at = 17 + at.index(bytes.len() - 17);
        bytes[at] ^= 1u8 << bit;
        let refused = matches!(RecordBatchView::parse(&bytes), Err(BatchError::Corrupt { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in vec(any::<u8>(), 0..200), count in any::<u32>()) {
        let _ = RecordBatchView::parse(&bytes);
        for record in super::records(&bytes, count).flatten() {
            record.headers().for_each(drop);
            let _ = ControlRecord::parse(&record);
        }
    }

    #[test]
    fn a_header_survives_its_bytes(records in vec(any_record(), 1..3)) {
        let bytes = build(&records, Codec::Zstd);
        let (batch, _) = RecordBatchView::parse(&bytes).expect("valid");
        prop_assert_eq!(&batch.header().encode()[..], &bytes[..HEADER_BYTES]);
        prop_assert_eq!(batch.header().encode_batch(batch.payload()), bytes);
    }

    #[test]
    fn a_record_moved_to_another_batch_keeps_everything(records in vec(any_record(), 1..8)) {
        let bytes = build(&records, Codec::None);
        let (batch, _) = RecordBatchView::parse(&bytes).expect("valid");
        let mut builder = BatchBuilder::like(batch.header());
        for view in super::records(batch.payload(), batch.header().record_count) {
            let view = view.expect("well-formed");
            builder.push_view(view.offset_delta, batch.header().base_timestamp_ms, &view);
        }
        prop_assert_eq!(builder.build().expect("small"), bytes);
    }
}

/// Recorded from `MemoryRecords.withRecords` and `withEndTransactionMarker` of kafka-clients 4.3.0.
#[test]
fn the_bytes_are_those_of_kafka() {
    let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut builder = BatchBuilder::new(Offset::ZERO);
    builder.push(RecordContent {
        timestamp: Timestamp::from_wire(1000),
        key: Some(b"k"),
        value: Some(b"v"),
        headers: &[(b"h", Some(b"x"))],
    });
    builder.push(RecordContent { timestamp: Timestamp::from_wire(999), ..RecordContent::default() });
    assert_eq!(
        hex(builder.build().expect("small")),
        "000000000000000000000045ffffffff029244a6ea00000000000100000000000003e800000000000003e8\
         ffffffffffffffffffffffffffff0000000218000000026b027602026802780c000102010100"
    );
    let producer = ProducerId::from_wire(5).expect("positive");
    let now = Timestamp::from_wire(77).expect("positive");
    assert_eq!(
        hex(ControlRecord::Abort { coordinator_epoch: 4 }.batch(producer, ProducerEpoch(2), now)),
        "000000000000000000000042ffffffff02feec2544003000000000000000000000004d000000000000004d\
         00000000000000050002ffffffff000000012000000008000000000c00000000000400"
    );
}

#[test]
fn a_marker_says_how_its_transaction_ended() {
    let producer = ProducerId::from_wire(5).expect("positive");
    for marker in [ControlRecord::Commit { coordinator_epoch: 3 }, ControlRecord::Abort { coordinator_epoch: 4 }] {
        let bytes = marker.batch(producer, ProducerEpoch(2), Timestamp::from_wire(77).expect("positive"));
        let (batch, _) = RecordBatchView::parse(&bytes).expect("valid");
        assert!(batch.header().attributes.is_control() && batch.header().attributes.is_transactional());
        assert_eq!(batch.header().base_sequence, None);
        let record = records(batch.payload(), 1).next().expect("one").expect("well-formed");
        assert_eq!(ControlRecord::parse(&record), Ok(Some(marker)));
    }
}

#[test]
fn more_records_than_counted_are_an_error_and_so_are_fewer() {
    let record = Record { timestamp: 1, key: None, value: None, headers: Vec::new() };
    let bytes = build(&[record.clone(), record], Codec::None);
    let payload = &bytes[HEADER_BYTES..];
    assert_eq!(records(payload, 1).last(), Some(Err(RecordError::Trailing)));
    assert_eq!(records(payload, 3).last(), Some(Err(RecordError::Truncated)));
    assert_eq!(records(payload, 2).filter(Result::is_ok).count(), 2);
}

#[test]
fn log_append_time_becomes_the_largest_timestamp() {
    let now = Timestamp::from_wire(5_000).expect("positive");
    let mut builder = BatchBuilder::new(Offset::ZERO).log_append_time(now);
    builder.push(RecordContent { timestamp: Timestamp::from_wire(9_000), ..RecordContent::default() });
    let bytes = builder.build().expect("small");
    let (batch, _) = RecordBatchView::parse(&bytes).expect("valid");
    assert_eq!(batch.header().max_timestamp(), Some(now));
    assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
}

#[test]
fn a_varint_of_six_bytes_or_beyond_32_bits_is_refused() {
    for length in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..], &[0xff, 0xff, 0xff, 0xff, 0x1f][..]] {
        assert_eq!(RecordView::parse(length).err(), Some(RecordError::Varint));
    }
}
