//! One rule each, with its numbers.

use super::{TransactionVersion::*, testing::*, transaction::EXHAUSTED_EPOCH, *};
use crate::coordinator::{AppendFailure, Batch, LogRecord};

#[test]
fn every_producer_that_introduces_itself_gets_a_higher_epoch() {
    let mut transactions = Harness::new();
    assert_eq!(transactions.producer("a"), identity(1001, 0));
    assert_eq!(transactions.producer("a"), identity(1001, 1));
    assert_eq!(transactions.producer("b"), identity(1002, 0));
}

#[test]
fn an_identity_is_told_only_once_it_is_in_the_log() {
    let mut transactions = Harness::new();
    transactions.holds_appends = true;
    let first = transactions.init("a", None);
    assert!(transactions.is_waiting(first));
    let second = transactions.init("a", None);
    assert_eq!(transactions.initialised(second), Err(TransactionError::ConcurrentTransactions));
    transactions.release_one(None);
    assert_eq!(transactions.initialised(first), Ok(identity(1001, 0)));
}

#[test]
fn an_identity_that_the_log_refused_leaves_nothing_behind() {
    let mut transactions = Harness::new();
    transactions.fails_appends = Some(AppendFailure::Unavailable);
    let refused = transactions.init("a", None);
    assert_eq!(transactions.initialised(refused), Err(TransactionError::CoordinatorNotAvailable));
    assert_eq!(transactions.state("a"), None);
}

#[test]
fn timeouts_are_between_one_and_the_largest() {
    let mut transactions = Harness::new();
    for (timeout_ms, expected) in [(0, false), (-1, false), (900_001, false), (900_000, true), (1, true)] {
        let request = transactions.request();
        let init = InitProducer { transactional_id: format!("t{timeout_ms}"), timeout_ms, expected: None };
        transactions.step(|shard, now, effects| shard.init_producer(now, request, init, effects));
        let outcome = transactions.initialised(request);
        assert_eq!(outcome.is_ok(), expected, "{timeout_ms}");
        assert!(expected || outcome == Err(TransactionError::InvalidTimeout));
    }
}

#[test]
fn without_producer_ids_new_producers_are_told_to_come_again() {
    let mut transactions = Harness::new();
    transactions.has_producer_ids = false;
    let request = transactions.init("a", None);
    assert_eq!(transactions.initialised(request), Err(TransactionError::LoadInProgress));
}

#[test]
fn several_may_wait_for_producer_ids_and_each_gets_its_own() {
    let mut transactions = Harness::new();
    transactions.waits_for_producer_id = true;
    let (first, second) = (transactions.init("a", None), transactions.init("b", None));
    transactions.waits_for_producer_id = false;
    let fetched = Some(transactions.fresh_producer());
    transactions.step(|shard, now, effects| shard.producer_id_fetched(now, fetched, effects));
    assert_eq!(transactions.initialised(first), Ok(identity(1001, 0)));
    assert_eq!(transactions.initialised(second), Ok(identity(1002, 0)));
}

#[test]
fn a_transaction_of_the_first_generation_keeps_its_epoch() {
    let mut transactions = Harness::new();
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Fixed);
    assert_eq!(transactions.state("a"), Some(TransactionState::Ongoing));
    assert_eq!(transactions.ends("a", producer, true, Fixed), Ok(None));
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteCommit));
    let (place, end) = transactions.written.pop().unwrap();
    assert_eq!((place, end.producer, end.epoch), (at(0), producer.id, producer.epoch));
    assert!(end.committed && !end.raises_epoch && end.coordinator_epoch == 7);
    // The same again is done, the other way round is not possible.
    assert_eq!(transactions.ends("a", producer, true, Fixed), Ok(None));
    assert_eq!(transactions.ends("a", producer, false, Fixed), Err(TransactionError::InvalidState));
}

#[test]
fn a_transaction_of_the_second_generation_ends_in_a_higher_epoch() {
    let mut transactions = Harness::new();
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Raising);
    let next = identity(1001, 1);
    assert_eq!(transactions.ends("a", producer, false, Raising), Ok(Some(next)));
    let (_, end) = transactions.written.pop().unwrap();
    assert_eq!((end.epoch, end.committed, end.raises_epoch), (next.epoch, false, true));
    // Who did not hear the answer asks again.
    assert_eq!(transactions.ends("a", producer, false, Raising), Ok(Some(next)));
    assert_eq!(transactions.ends("a", producer, true, Raising), Err(TransactionError::InvalidState));
    let late = transactions.add("a", producer, &[at(1)], Raising);
    assert_eq!(transactions.added(late), Err(TransactionError::ProducerFenced));
}

#[test]
fn what_the_second_generation_may_end_where_nothing_is_under_way() {
    use TransactionError::{InvalidState, ProducerFenced};
    let start = |complete: Option<bool>| {
        let mut transactions = Harness::new();
        let mut producer = transactions.producer("a");
        let before = producer;
        if let Some(commit) = complete {
            transactions.begin("a", producer, Raising);
            producer = transactions.ends("a", producer, commit, Raising).unwrap().unwrap();
        }
        (transactions, before, producer)
    };
    // The table of the module `end`: state, commit, again, outcome (`None`: the epoch is raised).
    let raised = |now: ProducerIdentity| identity(now.id.to_wire(), now.epoch.0 + 1);
    let done = |now: ProducerIdentity| now;
    type Expected = Result<fn(ProducerIdentity) -> ProducerIdentity, TransactionError>;
    let table: [(Option<bool>, bool, bool, Expected); 10] = [
        (None, false, false, Ok(raised)),
        (None, true, false, Err(InvalidState)),
        (Some(false), false, true, Ok(done)),
        (Some(false), false, false, Ok(raised)),
        (Some(false), true, true, Err(InvalidState)),
        (Some(false), true, false, Err(InvalidState)),
        (Some(true), false, true, Err(InvalidState)),
        (Some(true), false, false, Ok(raised)),
        (Some(true), true, true, Ok(done)),
        (Some(true), true, false, Err(InvalidState)),
    ];
    for (complete, commit, again, expected) in table {
        let (mut transactions, before, now) = start(complete);
        let producer = if again { before } else { now };
        let outcome = transactions.ends("a", producer, commit, Raising);
        let expected = expected.map(|identity| Some(identity(now)));
        assert_eq!(outcome, expected, "complete {complete:?}, commit {commit}, again {again}");
    }
    // In Empty the epoch before is another producer's.
    let mut transactions = Harness::new();
    let before = transactions.producer("a");
    transactions.producer("a");
    for commit in [true, false] {
        assert_eq!(transactions.ends("a", before, commit, Raising), Err(ProducerFenced));
    }
}

#[test]
fn an_end_of_one_generation_is_not_taken_for_that_of_another() {
    let mut transactions = Harness::new();
    let raising = transactions.producer("a");
    transactions.begin("a", raising, Raising);
    // It is undone, and what follows it ends with the epoch that this one's own end would have given.
    let fenced = transactions.init("a", None);
    assert_eq!(transactions.initialised(fenced), Err(TransactionError::ConcurrentTransactions));
    let fixed = transactions.producer("a");
    transactions.begin("a", fixed, Fixed);
    assert_eq!(transactions.ends("a", fixed, true, Fixed), Ok(None));
    for late in [raising, identity(fixed.id.to_wire(), fixed.epoch.0 - 1)] {
        assert_eq!(transactions.ends("a", late, true, Raising), Err(TransactionError::ProducerFenced), "{late:?}");
    }
}

#[test]
fn the_producer_goes_on_before_its_markers_are_written_and_waits_to_add() {
    let mut transactions = Harness::new();
    transactions.holds_markers = true;
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Raising);
    let next = transactions.ends("a", producer, true, Raising).unwrap().unwrap();
    assert_eq!(transactions.state("a"), Some(TransactionState::PrepareCommit));
    let early = transactions.add("a", next, &[at(1)], Raising);
    assert_eq!(transactions.added(early), Err(TransactionError::ConcurrentTransactions));
    transactions.write_markers(|_| MarkerOutcome::Written);
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteCommit));
    transactions.begin("a", next, Raising);
}

#[test]
fn a_new_producer_aborts_what_the_one_before_left_open() {
    let mut transactions = Harness::new();
    let old = transactions.producer("a");
    transactions.begin("a", old, Fixed);
    let first_try = transactions.init("a", None);
    assert_eq!(transactions.initialised(first_try), Err(TransactionError::ConcurrentTransactions));
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteAbort));
    let (_, end) = transactions.written.pop().unwrap();
    assert!(!end.committed && end.epoch > old.epoch, "nothing of the old producer may come after the marker");
    let new = transactions.producer("a");
    assert!(new.epoch > end.epoch);
    assert_eq!(transactions.ends("a", old, true, Fixed), Err(TransactionError::ProducerFenced));
}

#[test]
fn a_fence_that_the_log_refused_is_tried_again_in_the_same_epoch() {
    let mut transactions = Harness::new();
    let old = transactions.producer("a");
    transactions.begin("a", old, Fixed);
    transactions.fails_appends = Some(AppendFailure::Unavailable);
    for _ in 0..3 {
        let request = transactions.init("a", None);
        assert_eq!(transactions.initialised(request), Err(TransactionError::CoordinatorNotAvailable));
    }
    transactions.fails_appends = None;
    let request = transactions.init("a", None);
    assert_eq!(transactions.initialised(request), Err(TransactionError::ConcurrentTransactions));
    assert_eq!(transactions.producer("a"), identity(1001, old.epoch.0 + 2));
}

#[test]
fn a_producer_may_go_on_after_an_error_unless_another_came() {
    let mut transactions = Harness::new();
    let first = transactions.producer("a");
    let request = transactions.init("a", Some(first));
    let second = transactions.initialised(request).unwrap();
    assert_eq!(second, identity(1001, 1));
    // The answer was lost.
    let request = transactions.init("a", Some(first));
    assert_eq!(transactions.initialised(request), Ok(second));
    let third = transactions.producer("a");
    let request = transactions.init("a", Some(second));
    assert_eq!(transactions.initialised(request), Err(TransactionError::ProducerFenced));
    let request = transactions.init("a", Some(identity(5, 0)));
    assert_eq!(transactions.initialised(request), Err(TransactionError::ProducerFenced), "another's id");
    assert_eq!(third, identity(1001, 2));
}

#[test]
fn a_producer_whose_epochs_are_used_up_gets_a_new_id() {
    let mut transactions = Harness::new();
    let producer = transactions.producer("a");
    transactions.set_epoch("a", EXHAUSTED_EPOCH);
    let last = ProducerIdentity { epoch: EXHAUSTED_EPOCH, ..producer };
    let request = transactions.init("a", Some(last));
    let renewed = transactions.initialised(request).unwrap();
    assert_eq!(renewed, identity(1002, 0));
    // It did not hear of it.
    let request = transactions.init("a", Some(last));
    assert_eq!(transactions.initialised(request), Ok(renewed));
}

#[test]
fn the_last_epoch_ends_a_transaction_and_the_next_begins_under_a_new_id() {
    let mut transactions = Harness::new();
    transactions.producer("a");
    transactions.set_epoch("a", EXHAUSTED_EPOCH);
    let last = identity(1001, EXHAUSTED_EPOCH.0);
    transactions.begin("a", last, Raising);
    let next = identity(1002, 0);
    assert_eq!(transactions.ends("a", last, true, Raising), Ok(Some(next)));
    let (_, end) = transactions.written.pop().unwrap();
    assert_eq!((end.producer, end.epoch), (last.id, transaction::LAST_EPOCH));
    assert_eq!(transactions.ends("a", last, true, Raising), Ok(Some(next)), "asked again");
    transactions.begin("a", next, Raising);
}

#[test]
fn epochs_that_are_used_up_survive_a_crash_between_decision_and_end() {
    let mut transactions = Harness::new();
    transactions.producer("a");
    transactions.set_epoch("a", EXHAUSTED_EPOCH);
    let last = identity(1001, EXHAUSTED_EPOCH.0);
    transactions.begin("a", last, Raising);
    transactions.holds_markers = true;
    let next = transactions.ends("a", last, true, Raising).unwrap();
    let mut restarted = transactions.restarted();
    restarted.finish_load();
    assert_eq!(restarted.state("a"), Some(TransactionState::CompleteCommit));
    assert_eq!(restarted.ends("a", last, true, Raising), Ok(next));
}

#[test]
fn transactions_that_take_too_long_are_aborted() {
    let mut transactions = Harness::new();
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Fixed);
    transactions.pass(SECOND * 60);
    assert_eq!(transactions.state("a"), Some(TransactionState::Ongoing));
    transactions.pass(SECOND * 11);
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteAbort));
    assert_eq!(transactions.ends("a", producer, true, Fixed), Err(TransactionError::ProducerFenced));
    assert_eq!(transactions.shard.stats().overdue, 1);
}

#[test]
fn unused_transactional_ids_are_forgotten_and_open_ones_are_not() {
    let mut transactions = Harness::new();
    let day = SECOND * 24 * 3600;
    transactions.producer("idle");
    transactions.pass(day * 6);
    let request = transactions.request();
    let init = InitProducer { transactional_id: "open".to_owned(), timeout_ms: 900_000, expected: None };
    transactions.step(|shard, now, effects| shard.init_producer(now, request, init, effects));
    transactions.pass(day + SECOND * 3600);
    assert_eq!((transactions.state("idle"), transactions.log.last().unwrap().metadata.as_ref()), (None, None));
    assert_eq!(transactions.state("open"), Some(TransactionState::Empty));
    assert_eq!(transactions.restarted().state("idle"), None);
}

#[test]
fn markers_that_cannot_be_written_are_tried_again_and_the_others_are_not() {
    let mut transactions = Harness::new();
    transactions.holds_markers = true;
    let producer = transactions.producer("a");
    let request = transactions.add("a", producer, &[at(0), at(1)], Raising);
    assert_eq!(transactions.added(request), Ok(()));
    transactions.ends("a", producer, true, Raising).unwrap();
    transactions.write_markers(
        |place| {
            if *place == at(0) { MarkerOutcome::Written } else { MarkerOutcome::Unavailable }
        },
    );
    assert_eq!(transactions.state("a"), Some(TransactionState::PrepareCommit));
    assert!(transactions.markers.is_empty(), "not at once");
    transactions.pass(SECOND);
    assert_eq!(transactions.markers[0].partitions, [at(1)]);
    transactions.write_markers(|_| MarkerOutcome::Written);
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteCommit));
}

#[test]
fn a_coordinator_that_was_replaced_completes_nothing() {
    let mut transactions = Harness::new();
    transactions.holds_markers = true;
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Raising);
    transactions.ends("a", producer, true, Raising).unwrap();
    transactions.write_markers(|_| MarkerOutcome::CoordinatorFenced);
    transactions.pass(SECOND * 60);
    assert_eq!((transactions.state("a"), transactions.markers.len()), (Some(TransactionState::PrepareCommit), 0));
}

#[test]
fn the_end_of_a_transaction_is_written_again_until_the_log_takes_it() {
    let mut transactions = Harness::new();
    transactions.holds_markers = true;
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Raising);
    transactions.ends("a", producer, false, Raising).unwrap();
    transactions.fails_appends = Some(AppendFailure::Unavailable);
    transactions.write_markers(|_| MarkerOutcome::Written);
    transactions.pass(SECOND);
    assert_eq!(transactions.state("a"), Some(TransactionState::PrepareAbort));
    transactions.fails_appends = None;
    transactions.pass(SECOND);
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteAbort));
}

#[test]
fn a_decision_is_carried_out_by_whoever_loads_it() {
    for commit in [true, false] {
        let mut transactions = Harness::new();
        transactions.holds_markers = true;
        let producer = transactions.producer("a");
        transactions.begin("a", producer, Raising);
        transactions.ends("a", producer, commit, Raising).unwrap();
        let mut restarted = transactions.restarted();
        restarted.finish_load();
        let complete = if commit { TransactionState::CompleteCommit } else { TransactionState::CompleteAbort };
        assert_eq!(restarted.state("a"), Some(complete));
        assert_eq!(restarted.written[0].1.committed, commit);
    }
}

#[test]
fn partitions_are_verified_without_being_added() {
    let mut transactions = Harness::new();
    let producer = transactions.producer("a");
    transactions.begin("a", producer, Fixed);
    let verify = |transactions: &Harness, producer: ProducerIdentity| {
        let partitions = [at(0), at(1)].into();
        transactions.shard.verify("a", Some(producer.id), Some(producer.epoch), partitions)
    };
    let verdicts = verify(&transactions, producer).unwrap();
    assert_eq!(verdicts, [(at(0), Ok(())), (at(1), Err(TransactionError::Abortable))]);
    let fenced = identity(producer.id.to_wire(), producer.epoch.0 + 1);
    assert_eq!(verify(&transactions, fenced), Err(TransactionError::ProducerFenced));
    assert_eq!(verify(&transactions, identity(9, 0)), Err(TransactionError::InvalidProducerIdMapping));
}

#[test]
fn transactions_are_listed_by_state_producer_and_age() {
    let mut transactions = Harness::new();
    let a = transactions.producer("a");
    transactions.begin("a", a, Fixed);
    transactions.pass(SECOND * 5);
    let b = transactions.producer("b");
    transactions.begin("b", b, Fixed);
    transactions.producer("c");
    let list = |filter: TransactionFilter| -> Vec<String> {
        let listed = transactions.shard.list(transactions.moment(), &filter);
        listed.into_iter().map(|transaction| transaction.transactional_id).collect()
    };
    assert_eq!(list(TransactionFilter::default()), ["a", "b", "c"]);
    let states = vec![TransactionState::Ongoing];
    assert_eq!(list(TransactionFilter { states, ..TransactionFilter::default() }), ["a", "b"]);
    assert_eq!(list(TransactionFilter { has_unknown_states: true, ..TransactionFilter::default() }), [""; 0]);
    let producers = vec![b.id.to_wire()];
    assert_eq!(list(TransactionFilter { producers, ..TransactionFilter::default() }), ["b"]);
    // One that has not begun is as old as time.
    let longer_than = Some(SECOND);
    assert_eq!(list(TransactionFilter { longer_than, ..TransactionFilter::default() }), ["a", "c"]);
}

#[test]
fn a_transaction_that_waits_for_a_producer_id_to_be_aborted_is_overdue_once() {
    let mut transactions = Harness::new();
    transactions.producer("a");
    transactions.set_epoch("a", EXHAUSTED_EPOCH);
    transactions.begin("a", identity(1001, EXHAUSTED_EPOCH.0), Fixed);
    transactions.waits_for_producer_id = true;
    transactions.pass(SECOND * 100);
    assert_eq!((transactions.state("a"), transactions.shard.stats().overdue), (Some(TransactionState::Ongoing), 0));
    let fetched = transactions.fresh_producer();
    transactions.step(|shard, now, effects| shard.producer_id_fetched(now, Some(fetched), effects));
    assert_eq!(transactions.state("a"), Some(TransactionState::CompleteAbort));
    assert_eq!(transactions.shard.stats().overdue, 1);
}

#[test]
fn very_long_transactional_ids_are_forgotten_in_batches_that_the_log_takes() {
    let mut transactions = Harness::new();
    for number in 0..50 {
        transactions.producer(&format!("{number}-{}", "x".repeat(30_000)));
    }
    transactions.holds_appends = true;
    transactions.pass(SECOND * 24 * 3600 * 8);
    for (_, batch) in &transactions.held {
        let Batch::Records(records) = batch else { panic!("only plain records are written") };
        let bytes: usize = records.iter().map(|record| record.encode().unwrap().key.len()).sum();
        assert!(bytes < 1_000_000, "{bytes}");
    }
    while !transactions.held.is_empty() {
        transactions.release_one(None);
    }
    assert_eq!(transactions.shard.stats().transactional_ids, 0);
}
