use proptest::prelude::*;

use super::*;

const PRODUCER: u64 = 1;

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

fn producer(raw: u64) -> ProducerId {
    ProducerId::from_wire(raw as i64).unwrap()
}

fn batch(epoch: u16, sequence: i32, first: u64, count: u64) -> ProducerBatch {
    ProducerBatch {
        producer: producer(PRODUCER),
        epoch: ProducerEpoch(epoch),
        base_sequence: Sequence::from_wire(sequence),
        first: offset(first),
        last: offset(first + count - 1),
        timestamp_ms: 1000,
        transactional: false,
    }
}

fn transactional(batch: ProducerBatch) -> ProducerBatch {
    ProducerBatch { transactional: true, ..batch }
}

fn marker(id: u64, epoch: u16, at: u64, aborted: bool) -> EndMarker {
    EndMarker {
        producer: producer(id),
        epoch: ProducerEpoch(epoch),
        offset: offset(at),
        timestamp_ms: 1000,
        coordinator_epoch: 0,
        aborted,
        raises_epoch: false,
    }
}

/// A state, driven one append at a time.
#[derive(Default)]
struct Log(ProducerState);

impl Log {
    fn append(&mut self, batch: ProducerBatch) -> Result<Verdict, ProducerError> {
        self.append_from(AppendOrigin::Client, batch)
    }

    fn append_from(&mut self, origin: AppendOrigin, batch: ProducerBatch) -> Result<Verdict, ProducerError> {
        let mut update = self.0.update(origin);
        let verdict = update.data(&self.0, &batch)?;
        assert!(self.0.apply(update).is_empty());
        Ok(verdict)
    }

    fn end(&mut self, marker: EndMarker) -> Result<Vec<(CompletedTxn, Offset)>, ProducerError> {
        let mut update = self.0.update(AppendOrigin::Coordinator);
        update.marker(&self.0, &marker)?;
        let completed = self.0.apply(update);
        Ok(completed
            .into_iter()
            .map(|completed| {
                let stable = self.0.last_stable_offset(&completed);
                self.0.complete(&completed);
                (completed, stable)
            })
            .collect())
    }

    fn entry(&self) -> &ProducerEntry {
        self.0.get(producer(PRODUCER)).unwrap()
    }
}

fn is_gap(outcome: Result<Verdict, ProducerError>) -> bool {
    matches!(outcome, Err(ProducerError::OutOfOrderSequence { .. }))
}

#[test]
fn sequences_must_follow_without_a_gap() {
    let mut log = Log::default();
    assert_eq!(log.append(batch(0, 0, 0, 10)), Ok(Verdict::Fresh));
    assert_eq!(log.append(batch(0, 10, 10, 1)), Ok(Verdict::Fresh));
    assert!(is_gap(log.append(batch(0, 12, 11, 1))));
    assert!(is_gap(log.append(batch(0, 5, 11, 1))), "a part of a known batch is no repetition");
    assert_eq!(log.append(batch(0, 11, 11, 1)), Ok(Verdict::Fresh));
}

#[test]
fn a_producer_that_is_not_known_may_start_anywhere() {
    let mut log = Log::default();
    assert_eq!(log.append(batch(5, 77, 0, 1)), Ok(Verdict::Fresh));
}

#[test]
fn a_new_epoch_starts_at_sequence_zero_and_fences_the_old_one() {
    let mut log = Log::default();
    log.append(batch(0, 0, 0, 5)).unwrap();
    assert!(is_gap(log.append(batch(1, 5, 5, 1))));
    assert_eq!(log.append(batch(1, 0, 5, 1)), Ok(Verdict::Fresh));
    assert!(matches!(log.append(batch(0, 5, 6, 1)), Err(ProducerError::InvalidEpoch { found: 0, current: 1, .. })));
    assert_eq!(log.entry().batches().count(), 1, "batches of the old epoch are forgotten");
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let mut log = Log::default();
    log.append(batch(0, i32::MAX - 1, 0, 4)).unwrap();
    assert_eq!(log.entry().last_batch().unwrap().last_sequence, Sequence::from_wire(1));
    assert_eq!(log.entry().last_batch().unwrap().base_sequence(), Sequence::from_wire(i32::MAX - 1));
    assert!(matches!(log.append(batch(0, i32::MAX - 1, 4, 4)), Ok(Verdict::Duplicate(_))));
    assert_eq!(log.append(batch(0, 2, 4, 1)), Ok(Verdict::Fresh));
}

#[test]
fn the_last_five_batches_are_recognised_when_repeated() {
    let mut log = Log::default();
    for index in 0..6 {
        log.append(batch(0, index * 2, index as u64 * 2, 2)).unwrap();
    }
    assert!(is_gap(log.append(batch(0, 0, 12, 2))), "the sixth-last is forgotten");
    for index in 1..6 {
        let Ok(Verdict::Duplicate(known)) = log.append(batch(0, index * 2, 12, 2)) else { panic!("batch {index}") };
        assert_eq!((known.first(), known.last), (offset(index as u64 * 2), offset(index as u64 * 2 + 1)));
    }
    assert_eq!(log.append(batch(0, 12, 12, 1)), Ok(Verdict::Fresh), "a repetition changed nothing");
}

#[test]
fn a_refused_append_leaves_no_trace() {
    let mut log = Log::default();
    log.append(batch(0, 0, 0, 1)).unwrap();
    let before = log.entry().clone();
    let mut update = log.0.update(AppendOrigin::Client);
    update.data(&log.0, &transactional(batch(0, 1, 1, 1))).unwrap();
    assert!(update.data(&log.0, &transactional(batch(0, 3, 2, 1))).is_err());
    drop(update);
    assert_eq!((log.entry(), log.0.first_undecided()), (&before, None));
}

#[test]
fn batches_of_one_append_follow_each_other() {
    let mut log = Log::default();
    log.append(batch(0, 0, 0, 1)).unwrap();
    let mut update = log.0.update(AppendOrigin::Client);
    update.data(&log.0, &batch(0, 1, 1, 1)).unwrap();
    update.data(&log.0, &batch(0, 2, 2, 1)).unwrap();
    log.0.apply(update);
    assert_eq!(log.entry().batches().count(), 3);
}

#[test]
fn replicated_batches_are_not_checked_and_coordinators_need_no_sequence() {
    let mut log = Log::default();
    log.append(batch(3, 0, 0, 1)).unwrap();
    assert_eq!(log.append_from(AppendOrigin::Replication, batch(3, 9, 1, 1)), Ok(Verdict::Fresh));
    assert_eq!(log.append_from(AppendOrigin::Coordinator, batch(3, -1, 2, 1)), Ok(Verdict::Fresh));
    assert!(log.append_from(AppendOrigin::Coordinator, batch(2, -1, 3, 1)).is_err(), "their epoch counts");
}

#[test]
fn an_open_transaction_holds_readers_until_its_end_is_replicated() {
    let mut log = Log::default();
    log.append(transactional(batch(0, 0, 10, 5))).unwrap();
    assert_eq!(log.0.first_unstable(), Some(offset(10)));
    assert!(log.0.has_open_transaction(producer(PRODUCER), ProducerEpoch(0)));
    assert!(matches!(log.append(batch(0, 5, 15, 1)), Err(ProducerError::NotTransactional { .. })));

    let ended = log.end(marker(PRODUCER, 0, 20, true)).unwrap();
    let expected = CompletedTxn { producer: producer(PRODUCER), first: offset(10), last: offset(20), aborted: true };
    assert_eq!(ended, [(expected, offset(21))]);
    assert_eq!((log.0.first_undecided(), log.0.first_unstable()), (None, Some(offset(10))));
    log.0.advance_high_watermark(offset(20));
    assert_eq!(log.0.first_unstable(), Some(offset(10)), "the marker itself is not replicated");
    log.0.advance_high_watermark(offset(21));
    assert_eq!(log.0.first_unstable(), None);
}

#[test]
fn the_last_stable_offset_of_an_abort_is_that_of_the_oldest_other_transaction() {
    let mut log = Log::default();
    log.append(transactional(ProducerBatch { producer: producer(2), ..batch(0, 0, 3, 1) })).unwrap();
    log.append(transactional(batch(0, 0, 10, 5))).unwrap();
    assert_eq!(log.end(marker(PRODUCER, 0, 20, true)).unwrap()[0].1, offset(3));
    assert_eq!(log.end(marker(2, 0, 21, true)).unwrap()[0].1, offset(22));
}

#[test]
fn a_marker_without_a_transaction_ends_nothing_but_moves_the_epoch() {
    let mut log = Log::default();
    assert_eq!(log.end(marker(PRODUCER, 4, 0, true)), Ok(Vec::new()));
    assert_eq!(log.entry().epoch, ProducerEpoch(4));
    assert!(matches!(log.end(marker(PRODUCER, 3, 1, true)), Err(ProducerError::InvalidEpoch { .. })));
    assert!(is_gap(log.append(batch(4, 1, 2, 1))), "the epoch has no batch: it starts at zero");
    assert_eq!(log.append(batch(4, 0, 2, 1)), Ok(Verdict::Fresh));
}

#[test]
fn a_coordinator_that_was_replaced_is_fenced() {
    let mut log = Log::default();
    log.end(EndMarker { coordinator_epoch: 7, ..marker(PRODUCER, 0, 0, false) }).unwrap();
    assert!(matches!(
        log.end(EndMarker { coordinator_epoch: 6, ..marker(PRODUCER, 0, 1, false) }),
        Err(ProducerError::CoordinatorFenced { found: 6, current: 7, .. })
    ));
}

#[test]
fn a_marker_that_must_raise_the_epoch_is_late_if_it_does_not() {
    let raising = |epoch, at| EndMarker { raises_epoch: true, ..marker(PRODUCER, epoch, at, false) };
    let mut log = Log::default();
    log.append(transactional(batch(3, 0, 0, 1))).unwrap();
    assert!(matches!(log.end(raising(3, 1)), Err(ProducerError::InvalidEpoch { .. })));
    assert_eq!(log.end(raising(4, 1)).unwrap().len(), 1);
    assert_eq!(log.end(raising(4, 2)), Ok(Vec::new()), "repeated by a coordinator that lost the answer");
}

#[test]
fn silent_producers_expire_unless_a_transaction_is_open() {
    let mut log = Log::default();
    log.append(batch(0, 0, 0, 1)).unwrap();
    log.append(transactional(ProducerBatch { producer: producer(2), ..batch(0, 0, 1, 1) })).unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(log.0.expire(1000 + 86_399_999, day), 0);
    assert_eq!(log.0.expire(1000 + 86_400_000, day), 1);
    assert_eq!(log.0.oldest_open(), Some((producer(2), offset(1), 1000)));
    let entries: Vec<_> = log.0.producers().map(|(id, entry)| (id, entry.clone())).collect();
    let mut with_expired = entries.clone();
    with_expired.push((producer(1), ProducerEntry::new(ProducerEpoch(0))));
    let loaded = ProducerState::load(with_expired, offset(9), i64::MAX, day);
    assert_eq!((loaded.len(), loaded.first_undecided(), loaded.end()), (1, Some(offset(1)), offset(9)));
}

#[derive(Clone, Debug)]
enum Step {
    Data { id: u64, count: u64, transactional: bool },
    End { id: u64, aborted: bool },
    Replicate,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..4, 1_u64..4, any::<bool>()).prop_map(|(id, count, transactional)| Step::Data { id, count, transactional }),
        2 => (0_u64..4, any::<bool>()).prop_map(|(id, aborted)| Step::End { id, aborted }),
        1 => Just(Step::Replicate),
    ]
}

proptest! {
    /// Against a model that only remembers each producer's open transaction and next sequence.
    #[test]
    fn the_state_agrees_with_a_naive_model(steps in proptest::collection::vec(any_step(), 0..80)) {
        let mut log = Log::default();
        let mut sequences = [0_i32; 4];
        let mut open = [None::<u64>; 4];
        let mut held: Vec<(u64, u64)> = Vec::new();
        let mut end = 0;
        for step in steps {
            match step {
                Step::Data { id, count, transactional } => {
                    let index = id as usize;
                    let batch =
                        ProducerBatch { producer: producer(id), transactional, ..batch(0, sequences[index], end, count) };
                    let refused = open[index].is_some() && !transactional;
                    prop_assert_eq!(log.append(batch).is_err(), refused);
                    if !refused {
                        if transactional && open[index].is_none() {
                            open[index] = Some(end);
                        }
                        sequences[index] += count as i32;
                        end += count;
                    }
                }
                Step::End { id, aborted } => {
                    let ended = log.end(marker(id, 0, end, aborted)).unwrap();
                    let first = open[id as usize].take();
                    prop_assert_eq!(ended.first().map(|(completed, _)| completed.first.get()), first);
                    if let Some((_, stable)) = ended.first() {
                        let oldest = open.iter().flatten().min().copied();
                        prop_assert_eq!(stable.get(), oldest.unwrap_or(end + 1));
                    }
                    held.extend(first.map(|first| (first, end)));
                    end += 1;
                }
                Step::Replicate => {
                    log.0.advance_high_watermark(offset(end));
                    held.clear();
                }
            }
            let unstable = open.iter().flatten().chain(held.iter().map(|(first, _)| first)).min().copied();
            prop_assert_eq!(log.0.first_unstable().map(Offset::get), unstable);
        }
    }
}

#[test]
fn who_writes_old_records_is_not_taken_for_silent() {
    const EXPIRY: Duration = Duration::from_millis(10_000);
    let mut log = Log::default();
    log.0.tell_time(100_000, EXPIRY);
    log.append(ProducerBatch { timestamp_ms: 97_000, ..batch(0, 0, 0, 1) }).unwrap();
    assert_eq!(log.entry().last_timestamp_ms, 97_000, "as Kafka has it");
    log.append(ProducerBatch { timestamp_ms: 1_000, ..batch(0, 1, 1, 1) }).unwrap();
    assert_eq!(log.0.expire(100_001, EXPIRY), 0, "it has just written");
    let entries: Vec<_> = log.0.producers().map(|(id, entry)| (id, entry.clone())).collect();
    let mut loaded = Log(ProducerState::load(entries, offset(2), 105_000, EXPIRY));
    let again = loaded.append(ProducerBatch { timestamp_ms: 1_000, ..batch(0, 1, 2, 1) });
    assert!(matches!(again, Ok(Verdict::Duplicate(_))), "{again:?}");
    assert_eq!(log.0.expire(110_000, EXPIRY), 1, "now it is silent");
}
