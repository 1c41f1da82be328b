//! Transactions as the log sees them.

use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence};

use super::*;
use crate::format::ControlRecord;

fn transactional(producer: i64, sequence: i32, value: &str) -> Vec<u8> {
    let producer = ProducerId::from_wire(producer).unwrap();
    let mut builder = BatchBuilder::new(Offset::ZERO)
        .producer(producer, ProducerEpoch(0), Sequence::from_wire(sequence))
        .transactional();
    builder.push(RecordContent { timestamp: Some(ms(NOW)), value: Some(value.as_bytes()), ..Default::default() });
    builder.build().unwrap()
}

fn end(log: &LocalLog, producer: i64, marker: ControlRecord) {
    let bytes = marker.batch(ProducerId::from_wire(producer).unwrap(), ProducerEpoch(0), ms(NOW));
    log.append(&bytes, AppendContext { origin: AppendOrigin::Coordinator, ..client() }).unwrap();
}

const COMMIT: ControlRecord = ControlRecord::Commit { coordinator_epoch: 0 };
const ABORT: ControlRecord = ControlRecord::Abort { coordinator_epoch: 0 };

/// Producer 1 aborts offsets 0 and 3, producer 2 commits 1 and 4, producer 3 leaves 6 open.
fn write_transactions(log: &LocalLog) {
    log.append(&transactional(1, 0, "a"), client()).unwrap();
    log.append(&transactional(2, 0, "b"), client()).unwrap();
    log.append(&batch(&["c"]), client()).unwrap();
    log.append(&transactional(1, 1, "d"), client()).unwrap();
    log.roll().unwrap();
    end(log, 1, ABORT);
    end(log, 2, COMMIT);
    log.append(&transactional(3, 0, "e"), client()).unwrap();
}

fn aborted(log: &LocalLog, from: u64, to: u64) -> Vec<(i64, u64, u64)> {
    let found = log.aborted(at(from), at(to)).unwrap();
    found.iter().map(|txn| (txn.producer.to_wire(), txn.first.get(), txn.last.get())).collect()
}

#[test]
fn an_open_transaction_holds_readers_back_until_its_marker_is_committed() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    write_transactions(&log);
    assert_eq!(log.first_unstable(), Some(at(0)), "the markers are not yet on every replica");
    log.advance_high_watermark(at(5));
    assert_eq!(log.first_unstable(), Some(at(1)));
    log.advance_high_watermark(at(7));
    assert_eq!(log.first_unstable(), Some(at(6)));
    end(&log, 3, ABORT);
    log.advance_high_watermark(at(8));
    assert_eq!(log.first_unstable(), None);
}

#[test]
fn aborted_ranges_are_found_from_any_segment() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    write_transactions(&log);
    assert_eq!(aborted(&log, 0, 3), [(1, 0, 4)]);
    assert_eq!(aborted(&log, 4, 6), [(1, 0, 4)]);
    assert_eq!(aborted(&log, 5, 6), []);
    assert_eq!(log.sealed_segments(at(0)).unwrap()[0].txn_index_path, None, "the marker lies in the next segment");
    log.roll().unwrap();
    assert!(log.sealed_segments(at(4)).unwrap()[0].txn_index_path.is_some());
}

#[test]
fn transactions_survive_a_crash_and_a_clean_restart() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    write_transactions(&log);
    log.advance_high_watermark(log.end().0);
    drop(log);
    let (log, _) = fixture.crashed();
    assert_eq!(log.first_unstable(), Some(at(6)));
    assert_eq!(aborted(&log, 0, 7), [(1, 0, 4)]);
    log.close().unwrap();
    drop(log);
    let (log, recovered) = fixture.open(RecoveryStart { clean: true, recovery_point: at(7), log_start: at(0) });
    assert_eq!(recovered, Recovered::default());
    assert_eq!(log.first_unstable(), Some(at(6)));
    assert_eq!(aborted(&log, 0, 7), [(1, 0, 4)]);
    assert!(log.append(&transactional(3, 0, "e"), client()).unwrap().duplicate, "sequences are remembered");
}

#[test]
fn a_lost_transaction_index_is_made_again_from_the_batches() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    write_transactions(&log);
    drop(log);
    std::fs::remove_file(fixture.path().join("00000000000000000004.txnindex")).unwrap();
    let (log, _) = fixture.crashed();
    assert_eq!(aborted(&log, 0, 7), [(1, 0, 4)]);
}
