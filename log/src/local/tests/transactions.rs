//! Transactions as the log sees them.

use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence, VerificationGuard};

use super::*;
use crate::format::ControlRecord;

fn transactional(producer: i64, sequence: i32, value: &str) -> Vec<u8> {
    transactional_in(ProducerEpoch(0), producer, sequence, value)
}

fn transactional_in(epoch: ProducerEpoch, producer: i64, sequence: i32, value: &str) -> Vec<u8> {
    let producer = ProducerId::from_wire(producer).unwrap();
    let mut builder =
        BatchBuilder::new(Offset::ZERO).producer(producer, epoch, Sequence::from_wire(sequence)).transactional();
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
pub(super) fn write_transactions(log: &LocalLog) {
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

#[test]
fn records_and_the_aborted_transactions_among_them_are_of_one_state_of_the_log() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    write_transactions(&log);
    log.roll().unwrap();
    let mut reads = 0;
    // The first read still finds the records; their segments and indexes go before the index is asked.
    let read = log.read_committed_with(at(0), |log| {
        let slice = log.read(at(0), at(6), 1 << 20, true);
        reads += 1;
        if reads == 1 {
            assert!(slice.as_ref().unwrap().len > 0);
            log.advance_log_start(at(7)).unwrap();
            log.delete_local_below(at(7)).unwrap().purge().unwrap();
            assert_eq!(log.aborted(at(0), at(6)).unwrap(), []);
        }
        slice
    });
    assert!(matches!(read, Err(ReadError::OutOfRange { .. })), "{read:?}");
    assert_eq!(reads, 2);
}

#[test]
fn a_committed_read_tells_the_aborted_transactions_of_its_records() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    write_transactions(&log);
    let (slice, aborted) = log.read_committed(at(0), at(6), 1 << 20, true).unwrap();
    assert_eq!((slice.first, aborted.len()), (at(0), 1));
    assert_eq!(log.read_committed(at(5), at(5), 1 << 20, true).unwrap().1, []);
}

/// Takes away the room for the active segment's transaction index, and gives it back.
fn without_room_for_the_index<T>(log: &LocalLog, work: impl FnOnce() -> T) -> T {
    let (base, ..) = log.active();
    let path = log.dir().join(format!("{:020}.txnindex", base.get()));
    std::fs::create_dir(&path).unwrap();
    let done = work();
    std::fs::remove_dir(&path).unwrap();
    done
}

#[test]
fn no_snapshot_is_taken_behind_an_aborted_transaction_that_is_not_indexed() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&transactional(1, 0, "a"), client()).unwrap();
    without_room_for_the_index(&log, || {
        end(&log, 1, ABORT);
        assert!(log.roll().is_err(), "a start would not read its marker again");
        assert!(log.close().is_err());
    });
    log.advance_high_watermark(at(2));
    assert_eq!(log.first_unstable(), Some(at(0)), "readers wait for the index");
    drop(log);
    let (log, _) = fixture.crashed();
    assert_eq!(aborted(&log, 0, 2), [(1, 0, 1)]);

    log.append(&transactional(1, 1, "b"), client()).unwrap();
    end(&log, 1, ABORT);
    log.roll().unwrap();
    assert_eq!(aborted(&log, 0, 4), [(1, 0, 1), (1, 2, 3)]);
}

/// A log in which a transaction begins only if its coordinator vouches for it.
fn guarded() -> (Fixture, LocalLog) {
    let fixture = Fixture::new().with(|config| config.verify_transactions = true);
    let log = fixture.new_log();
    (fixture, log)
}

/// Producer 1 in `epoch` wants to begin a transaction with the record `sequence`.
fn begin(log: &LocalLog, epoch: u16, sequence: i32, raises_epoch: bool) -> Option<VerificationGuard> {
    log.begin_transaction(&beginning(epoch, sequence, raises_epoch)).unwrap()
}

fn beginning(epoch: u16, sequence: i32, raises_epoch: bool) -> TransactionBegin {
    let (producer, base_sequence) = (ProducerId::from_wire(1).unwrap(), Sequence::from_wire(sequence));
    TransactionBegin { producer, epoch: ProducerEpoch(epoch), base_sequence, raises_epoch, now: ms(NOW) }
}

fn append_with(log: &LocalLog, guard: Option<VerificationGuard>, batch: &[u8]) -> Result<Appended, AppendError> {
    log.append_in(batch, client(), TransactionTerms { guard, ..TransactionTerms::default() })
}

fn is_refused(appended: &Result<Appended, AppendError>) -> bool {
    matches!(appended, Err(AppendError::Producer(ProducerError::NoTransaction { .. })))
}

#[test]
fn a_transaction_begins_only_with_the_guard_that_was_given_out_for_it() {
    let (_fixture, log) = guarded();
    assert!(is_refused(&append_with(&log, None, &transactional(1, 0, "a"))), "nobody asked");
    let guard = begin(&log, 0, 0, false).unwrap();
    assert_eq!(begin(&log, 0, 0, false), Some(guard), "asked again, for the same transaction");
    assert!(is_refused(&append_with(&log, None, &transactional(1, 0, "a"))), "not shown");
    assert!(is_refused(&append_with(&log, Some(VerificationGuard(guard.0 + 1)), &transactional(1, 0, "a"))));
    assert!(is_refused(&append_with(&log, Some(guard), &transactional(2, 0, "a"))), "another producer's");
    assert_eq!(log.end().0, at(0));
    append_with(&log, Some(guard), &transactional(1, 0, "a")).unwrap();
    assert_eq!(begin(&log, 0, 1, false), None, "it is open");
    append_with(&log, None, &transactional(1, 1, "b")).unwrap();
    end(&log, 1, COMMIT);
    assert!(is_refused(&append_with(&log, Some(guard), &transactional(1, 2, "c"))), "that was the one before");
}

#[test]
fn a_marker_takes_the_guard_away_from_a_batch_that_comes_too_late() {
    let (_fixture, log) = guarded();
    let guard = begin(&log, 0, 0, false);
    end(&log, 1, ABORT);
    assert!(is_refused(&append_with(&log, guard, &transactional(1, 0, "late"))));
    assert_ne!(begin(&log, 0, 0, false), guard, "the next one has a guard of its own");

    let (_fixture, log) = guarded();
    let guard = begin(&log, 1, 0, true);
    let marker = ABORT.batch(ProducerId::from_wire(1).unwrap(), ProducerEpoch(1), ms(NOW));
    let terms = TransactionTerms { raises_epoch: true, ..TransactionTerms::default() };
    log.append_in(&marker, AppendContext { origin: AppendOrigin::Coordinator, ..client() }, terms).unwrap();
    append_with(&log, guard, &transactional_in(ProducerEpoch(1), 1, 0, "a")).unwrap();
    assert_eq!(log.first_unstable(), Some(at(1)), "the marker that raised the epoch was of the transaction before");
}

#[test]
fn the_batch_that_asked_first_comes_first_and_only_in_the_newest_epoch() {
    let (_fixture, log) = guarded();
    let guard = begin(&log, 0, 5, false);
    assert_eq!(begin(&log, 0, 3, false), guard);
    assert_eq!(begin(&log, 0, 8, false), guard);
    for (sequence, allowed) in [(8, false), (5, false), (3, true)] {
        let appended = append_with(&log, guard, &transactional(1, sequence, "a"));
        let is_early = matches!(appended, Err(AppendError::Producer(ProducerError::OutOfOrderSequence { .. })));
        assert_eq!((appended.is_ok(), is_early), (allowed, !allowed), "{sequence}");
    }
    let (_fixture, log) = guarded();
    let guard = begin(&log, 2, 4, true);
    let appended = append_with(&log, guard, &transactional_in(ProducerEpoch(2), 1, 4, "a"));
    let found = matches!(appended, Err(AppendError::Producer(ProducerError::OutOfOrderSequence { last: -1, .. })));
    assert!(found, "whose epoch rises begins each transaction at 0: {appended:?}");
    begin(&log, 2, 0, true);
    append_with(&log, guard, &transactional_in(ProducerEpoch(2), 1, 0, "a")).unwrap();
    let old = log.begin_transaction(&beginning(1, 0, true));
    assert!(matches!(old, Err(ProducerError::InvalidEpoch { found: 1, current: 2, .. })), "{old:?}");
}
