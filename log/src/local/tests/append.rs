//! What an append takes, refuses and changes.

use std::time::Duration;

use varve_metadata::{
    config::{TimestampType, TopicCompression},
    model::{ProducerEpoch, ProducerId, Sequence},
};

use super::*;
use crate::format::{BatchError, BatchHeader, CRC_START};

fn first_header(log: &LocalLog) -> BatchHeader {
    let bytes = log.read(log.local_start(), log.end().0, 1, true).unwrap().read().unwrap();
    *RecordBatchView::parse(&bytes).unwrap().0.header()
}

#[test]
fn an_append_assigns_offset_and_epoch_and_keeps_every_other_byte() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&batch(&["a", "b"]), in_epoch(3)).unwrap();
    let sent = compressed(Codec::Lz4, NOW, &["c"]);
    let appended = log.append(&sent, in_epoch(3)).unwrap();
    assert_eq!((appended.base, appended.last, appended.end.0), (at(2), at(2), at(3)));
    let stored = log.read(at(2), at(3), 1 << 20, true).unwrap().read().unwrap();
    let (view, _) = RecordBatchView::parse(&stored).unwrap();
    assert_eq!((view.header().base_offset, view.header().leader_epoch), (at(2), Some(LeaderEpoch(3))));
    assert_eq!(stored[16..], sent[16..]);
    assert_eq!(all(&log), values(&[(0, "a"), (1, "b"), (2, "c")]));
}

#[test]
fn several_batches_are_appended_together_or_not_at_all() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    let mut bytes = [batch(&["a"]), batch(&["b", "c"])].concat();
    let appended = log.append(&bytes, client()).unwrap();
    assert_eq!((appended.base, appended.last), (at(0), at(2)));
    *bytes.last_mut().unwrap() ^= 1;
    let refused = log.append(&bytes, client()).unwrap_err();
    assert!(matches!(refused, AppendError::Batch(BatchError::Corrupt { field: "crc" })));
    assert_eq!(log.end().0, at(3));
}

#[test]
fn a_batch_that_ends_early_or_is_too_large_is_refused() {
    let fixture = Fixture::new().with(|config| config.max_message_bytes = 100);
    let log = fixture.new_log();
    let bytes = batch(&["a"]);
    let refused = log.append(&bytes[..bytes.len() - 1], client()).unwrap_err();
    assert!(matches!(refused, AppendError::Batch(BatchError::Truncated)));
    assert!(matches!(log.append(&[], client()), Err(AppendError::Batch(BatchError::Truncated))));
    let large = batch(&[&"x".repeat(100)]);
    assert!(matches!(log.append(&large, client()), Err(AppendError::TooLarge { limit: 100, .. })));
}

#[test]
fn a_client_must_state_what_its_batch_holds() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    let bytes = batch(&["a", "b"]);
    let (view, _) = RecordBatchView::parse(&bytes).unwrap();
    let header = *view.header();
    let refuse = |header: BatchHeader| {
        let refused = log.append(&header.encode_batch(view.payload()), client()).unwrap_err();
        assert!(matches!(refused, AppendError::InvalidBatch { .. }), "{refused:?}");
    };
    refuse(BatchHeader { base_offset: at(1), ..header });
    refuse(BatchHeader { record_count: 0, ..header });
    refuse(BatchHeader { record_count: 3, ..header });
    refuse(BatchHeader { attributes: header.attributes.with_control(true), ..header });
    refuse(BatchHeader { producer_id: ProducerId::from_wire(1), ..header });
    let stamped = header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
    let bytes = BatchHeader { attributes: stamped, ..header }.encode_batch(view.payload());
    assert!(matches!(log.append(&bytes, client()), Err(AppendError::InvalidRecords { .. })));
    assert_eq!(log.end().0, at(0));
}

#[test]
fn log_append_time_stamps_the_batch_and_keeps_the_crc_true() {
    let fixture = Fixture::new().with(|config| config.timestamp_type = TimestampType::LogAppendTime);
    let log = fixture.new_log();
    let appended = log.append(&compressed(Codec::Zstd, 5, &["a", "b"]), client()).unwrap();
    assert_eq!(appended.log_append_time, Some(ms(NOW)));
    let header = first_header(&log);
    assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.max_timestamp(), Some(ms(NOW)));
    let found = log.offset_for_timestamp(ms(NOW), at(0)).unwrap().unwrap();
    assert_eq!((found.offset, found.timestamp), (at(0), ms(NOW)));
}

#[test]
fn another_codec_is_replaced_by_that_of_the_topic() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd, Codec::None] {
        for stamped in [false, true] {
            let fixture = Fixture::new().with(|config| {
                config.compression = TopicCompression::Codec(codec, None);
                if stamped {
                    config.timestamp_type = TimestampType::LogAppendTime;
                }
            });
            let log = fixture.new_log();
            log.append(&compressed(Codec::Lz4, NOW - 5, &["a", "b"]), client()).unwrap();
            log.append(&batch(&["c"]), client()).unwrap();
            assert_eq!(first_header(&log).attributes.compression(), codec);
            assert_eq!(all(&log), values(&[(0, "a"), (1, "b"), (2, "c")]));
        }
    }
}

#[test]
fn compacted_topics_name_the_records_without_a_key() {
    let fixture = Fixture::new().with(|config| config.compacted = true);
    let log = fixture.new_log();
    let mut builder = BatchBuilder::new(Offset::ZERO).compression(Codec::Gzip, None);
    for key in [Some(&b"k"[..]), None, Some(b""), None] {
        builder.push(RecordContent { timestamp: Some(ms(NOW)), key, value: None, headers: &[] });
    }
    let Err(AppendError::InvalidRecords { problems }) = log.append(&builder.build().unwrap(), client()) else {
        panic!("refused")
    };
    let fault = RecordFault::MissingKey;
    assert_eq!(problems, [RecordProblem { index: 1, fault }, RecordProblem { index: 3, fault }]);
    log.append(&batch(&["a"]), client()).unwrap();
}

#[test]
fn create_times_must_lie_near_the_brokers_clock() {
    let hour = Duration::from_secs(3600);
    let fixture = Fixture::new().with(|config| {
        (config.timestamp_before_max, config.timestamp_after_max) = (Some(hour), Some(hour));
    });
    let log = fixture.new_log();
    let span = hour.as_millis() as i64;
    for timestamp in [NOW - span, NOW + span, -1] {
        log.append(&batch_at(timestamp, &["a"]), client()).unwrap();
    }
    for timestamp in [NOW - span - 1, NOW + span + 1] {
        let Err(AppendError::InvalidRecords { problems }) = log.append(&batch_at(timestamp, &["a"]), client()) else {
            panic!("refused")
        };
        assert!(matches!(problems[..], [RecordProblem { index: 0, fault: RecordFault::TimestampOutOfRange { .. } }]));
    }
}

#[test]
fn a_snapshot_that_is_damaged_costs_a_clean_start_time_and_no_sequence() {
    let fixture = Fixture::new();
    let (log, _) = fixture.open(RecoveryStart::NEW);
    log.append(&from_producer(0, &["a", "b"]), client()).unwrap();
    log.close().unwrap();
    drop(log);
    std::fs::write(fixture.path().join("00000000000000000002.snapshot"), b"rubbish").unwrap();
    let (log, _) = fixture.open(RecoveryStart { clean: true, recovery_point: at(2), log_start: at(0) });
    assert!(log.append(&from_producer(0, &["a", "b"]), client()).unwrap().duplicate);
}

fn from_producer(sequence: i32, values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Offset::ZERO).producer(
        ProducerId::from_wire(7).unwrap(),
        ProducerEpoch(0),
        Sequence::from_wire(sequence),
    );
    for value in values {
        builder.push(RecordContent { timestamp: Some(ms(NOW)), value: Some(value.as_bytes()), ..Default::default() });
    }
    builder.build().unwrap()
}

#[test]
fn a_repeated_batch_is_answered_and_not_written_again() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&batch(&["x"]), client()).unwrap();
    log.append(&from_producer(0, &["a", "b"]), client()).unwrap();
    log.append(&from_producer(2, &["c"]), client()).unwrap();
    let repeated = log.append(&from_producer(0, &["a", "b"]), client()).unwrap();
    assert!(repeated.duplicate);
    assert_eq!((repeated.base, repeated.last, repeated.end.0), (at(1), at(2), at(4)));
    let gap = log.append(&from_producer(9, &["d"]), client()).unwrap_err();
    assert!(matches!(gap, AppendError::Producer(ProducerError::OutOfOrderSequence { .. })));
    assert_eq!(all(&log).len(), 4);
}

#[test]
fn a_full_disk_refuses_the_append_and_takes_the_next_when_there_is_room() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&batch(&["a"]), client()).unwrap();
    let size = log.size();
    for room in [0, 1, 40, 70] {
        log.writer.lock().quota = super::super::write::Quota::of(Some(room));
        let refused = log.append(&from_producer(0, &["lost"]), client()).unwrap_err();
        assert!(matches!(refused, AppendError::Storage { no_space: true, .. }), "{refused:?}");
        assert_eq!((log.end().0, log.size()), (at(1), size));
        assert_eq!(std::fs::metadata(fixture.path().join("00000000000000000000.log")).unwrap().len(), size);
    }
    log.writer.lock().quota = super::super::write::Quota::of(None);
    let appended = log.append(&from_producer(0, &["b"]), client()).unwrap();
    assert!(!appended.duplicate, "a refused batch leaves no sequence behind");
    assert_eq!(all(&log), values(&[(0, "a"), (1, "b")]));
    drop(log);
    let (log, recovered) = fixture.crashed();
    assert_eq!(recovered.bytes_cut, 0);
    assert_eq!(all(&log), values(&[(0, "a"), (1, "b")]));
}

#[test]
fn replicated_batches_keep_their_offsets_and_epochs() {
    let (leader_at, follower_at) = (Fixture::new(), Fixture::new());
    let (leader, follower) = (leader_at.new_log(), follower_at.new_log());
    leader.append(&batch(&["a", "b"]), in_epoch(1)).unwrap();
    leader.append(&batch(&["c"]), in_epoch(4)).unwrap();
    let mut bytes = leader.read(at(0), at(3), 1 << 20, true).unwrap().read().unwrap();
    let replicate = AppendContext { origin: AppendOrigin::Replication, ..in_epoch(4) };
    let cut = bytes.len() - 3;
    let appended = follower.append(&bytes[..cut], replicate).unwrap();
    assert_eq!(appended.end.0, at(2), "the torn batch comes with the next fetch");
    let old = follower.append(&bytes, replicate).unwrap_err();
    assert!(matches!(old, AppendError::OutOfOrderOffsets { .. }));
    bytes.drain(..cut - (batch(&["c"]).len() - 3));
    let unaware = AppendContext { leader_epoch: LeaderEpoch(3), ..replicate };
    assert_eq!(follower.append(&bytes, unaware).unwrap().end.0, at(2), "epoch 4 is not known here yet");
    follower.append(&bytes, replicate).unwrap();
    assert_eq!(all(&follower), all(&leader));
    assert_eq!(follower.leader_epochs(), [(LeaderEpoch(1), at(0)), (LeaderEpoch(4), at(2))]);
    assert_eq!(follower.end_of_epoch(LeaderEpoch(2)), Some((LeaderEpoch(1), at(2))));
}

/// Changes bytes of a batch and makes its CRC fit: what a faulty client might send.
fn forged(mut batch: Vec<u8>, changes: &[(usize, &[u8])]) -> Vec<u8> {
    for (at, bytes) in changes {
        batch[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    batch
}

const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;
const RECORD_COUNT: usize = 57;

#[test]
fn a_batch_that_counts_other_records_than_it_holds_is_refused() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    for counted in [1u32, 3] {
        let last = (counted - 1).to_be_bytes();
        let counted = counted.to_be_bytes();
        let lie = forged(batch(&["a", "b"]), &[(LAST_OFFSET_DELTA, &last), (RECORD_COUNT, &counted)]);
        assert!(matches!(log.append(&lie, client()), Err(AppendError::InvalidBatch { .. })));
    }
    assert_eq!(log.end().0, at(0));
    assert_eq!(log.append(&forged(batch(&["a", "b"]), &[]), client()).unwrap().last, at(1));
}

#[test]
fn a_largest_timestamp_that_no_record_has_is_set_right_and_hides_no_record_of_the_future() {
    let fixture = Fixture::new().with(|config| config.timestamp_after_max = Some(Duration::from_secs(60)));
    let log = fixture.new_log();
    let (early, late) = ((NOW - 5).to_be_bytes(), (NOW + 5).to_be_bytes());
    for lie in [early, late] {
        log.append(&forged(batch(&["a"]), &[(MAX_TIMESTAMP, &lie)]), client()).unwrap();
    }
    let stored = log.read(at(0), at(2), 1 << 20, true).unwrap().read().unwrap();
    let newest: Vec<i64> = batches(&stored).map(|batch| batch.unwrap().header().max_timestamp_ms).collect();
    assert_eq!(newest, [NOW, NOW], "and the CRC holds");
    let future = forged(batch_at(NOW + 60_001, &["a"]), &[(MAX_TIMESTAMP, &early)]);
    assert!(matches!(log.append(&future, client()), Err(AppendError::InvalidRecords { .. })));
}

#[test]
fn records_whose_offsets_are_not_consecutive_are_numbered_anew() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    let sent = batch(&["a", "b"]);
    let records_of = |batch: &[u8]| {
        let (view, _) = RecordBatchView::parse(batch).unwrap();
        records(view.payload(), 2).map(|record| record.unwrap().as_bytes().to_vec()).collect::<Vec<_>>()
    };
    // Length, attributes and timestamp delta take a byte each; the offset delta follows, zigzag.
    let second = sent.len() - records_of(&sent)[1].len();
    log.append(&forged(sent, &[(second + 3, &[14])]), client()).unwrap();
    assert_eq!(all(&log), values(&[(0, "a"), (1, "b")]));
}
