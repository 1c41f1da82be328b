//! What is kept of share partitions: rules, records, and batches against a naive map.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use super::*;
use crate::coordinator::{AppendFailure, AppendId, Batch, Entry, LogRecord, Machine, Now, RequestId};

const MINUTE: Duration = Duration::from_secs(60);

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn batch(first: u64, last: u64, state: DeliveryState, deliveries: u16) -> StateBatch {
    StateBatch { first: offset(first), last: offset(last), state, deliveries }
}

fn key() -> ShareKey {
    let topic = TopicId::from_wire(Uuid::from_u128(0x0102_0304_0506_0708_1112_1314_1516_1718)).unwrap();
    ShareKey { group: "g".to_owned(), topic, partition: PartitionIndex(3) }
}

fn change(start: Option<u64>, batches: Vec<StateBatch>) -> StateChange {
    StateChange { state_epoch: None, leader_epoch: None, start: start.map(offset), settled: Some(0), batches }
}

/// A shard on a log that acknowledges at once, unless told to wait.
struct Harness {
    shard: Shard,
    log: Vec<ShareRecord>,
    answers: BTreeMap<RequestId, Answer>,
    held: Vec<(AppendId, Batch<ShareRecord>)>,
    holds_appends: bool,
    now: Duration,
    next_request: u64,
}

impl Harness {
    fn new() -> Harness {
        Harness::loaded(Vec::new(), Duration::ZERO)
    }

    fn loaded(log: Vec<ShareRecord>, now: Duration) -> Harness {
        let config = ShareStateConfig { updates_per_snapshot: 3, ..ShareStateConfig::default() };
        let mut harness = Harness {
            shard: Shard::new(Arc::new(config)),
            log,
            answers: BTreeMap::new(),
            held: Vec::new(),
            holds_appends: false,
            now,
            next_request: 0,
        };
        for (at, record) in (0..).zip(harness.log.clone()) {
            let entry = Entry::Record { offset: offset(at), producer: None, record };
            harness.shard.replay(harness.moment(), entry).unwrap();
        }
        harness.step(|shard, now, effects| shard.finish_load(now, effects));
        harness
    }

    fn restarted(&self) -> Harness {
        Harness::loaded(self.log.clone(), self.now)
    }

    fn moment(&self) -> Now {
        let wall = Timestamp::from_wire(1_700_000_000_000 + self.now.as_millis() as i64).unwrap();
        Now { elapsed: self.now, wall }
    }

    fn step(&mut self, step: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let now = self.moment();
        step(&mut self.shard, now, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { request, answer } => assert_eq!(self.answers.insert(request, answer), None),
                Effect::Append { id, batch } => {
                    self.held.push((id, batch));
                    if !self.holds_appends {
                        self.release_one(None);
                    }
                }
                Effect::Order(order) => match order {},
            }
        }
    }

    fn release_one(&mut self, failure: Option<AppendFailure>) {
        let (id, batch) = self.held.remove(0);
        let base = offset(self.log.len() as u64);
        if failure.is_none() {
            let Batch::Records(records) = batch else { panic!("only plain records are written") };
            // Through bytes, as a real log would have it.
            self.log.extend(records.iter().map(|record| {
                let bytes = record.encode().unwrap();
                ShareRecord::decode(&bytes.key, bytes.value.as_deref()).unwrap()
            }));
        }
        self.step(|shard, now, effects| shard.appended(now, id, failure.map_or(Ok(base), Err), effects));
    }

    fn ask(&mut self, request: StateRequest) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.step(|shard, now, effects| shard.ask(now, id, key(), request, effects));
        id
    }

    fn done(&mut self, request: StateRequest) -> Result<(), ShareStateError> {
        let id = self.ask(request);
        match self.answers.remove(&id) {
            Some(Answer::Done(outcome)) => outcome,
            other => panic!("not done: {other:?}"),
        }
    }

    fn read(&mut self, leader: Option<u32>) -> Result<KeptState, ShareStateError> {
        let id = self.ask(StateRequest::Read { leader_epoch: leader.map(LeaderEpoch) });
        match self.answers.remove(&id) {
            Some(Answer::Read(outcome)) => outcome,
            other => panic!("not read: {other:?}"),
        }
    }

    fn initialize(&mut self, epoch: u32, start: Option<u64>) -> Result<(), ShareStateError> {
        self.done(StateRequest::Initialize { state_epoch: StateEpoch(epoch), start: start.map(offset) })
    }

    fn kept(&self) -> Option<KeptState> {
        self.shard.read(&key()).cloned()
    }
}

#[test]
fn what_was_written_is_read_again_also_after_a_restart() {
    let mut keeper = Harness::new();
    keeper.initialize(1, Some(5)).unwrap();
    let acknowledged = batch(5, 7, DeliveryState::Acknowledged, 1);
    keeper.done(StateRequest::Write(change(None, vec![acknowledged]))).unwrap();
    let released = batch(8, 9, DeliveryState::Available, 1);
    keeper.done(StateRequest::Write(change(Some(6), vec![released]))).unwrap();
    let kept = keeper.read(Some(0)).unwrap();
    assert_eq!((kept.state_epoch, kept.start), (StateEpoch(1), Some(offset(6))));
    assert_eq!(kept.batches, [batch(6, 7, DeliveryState::Acknowledged, 1), released]);
    assert_eq!(keeper.restarted().kept(), keeper.kept());
}

#[test]
fn nothing_is_known_of_what_no_group_began_to_read() {
    let mut keeper = Harness::new();
    assert_eq!(keeper.read(Some(1)), Err(ShareStateError::NotInitialized));
    assert_eq!(keeper.done(StateRequest::Write(change(None, vec![]))), Err(ShareStateError::NotInitialized));
    assert_eq!(keeper.done(StateRequest::Delete), Ok(()));
    assert_eq!(keeper.log, []);
}

#[test]
fn leaders_and_groups_of_before_are_fenced() {
    let mut keeper = Harness::new();
    keeper.initialize(2, None).unwrap();
    keeper.read(Some(7)).unwrap();
    assert_eq!(keeper.read(Some(6)), Err(ShareStateError::FencedLeaderEpoch));
    let as_of = |leader: u32, epoch: u32| {
        let (leader_epoch, state_epoch) = (Some(LeaderEpoch(leader)), Some(StateEpoch(epoch)));
        StateRequest::Write(StateChange { leader_epoch, state_epoch, ..change(Some(1), vec![]) })
    };
    assert_eq!(keeper.done(as_of(6, 2)), Err(ShareStateError::FencedLeaderEpoch));
    assert_eq!(keeper.done(as_of(7, 1)), Err(ShareStateError::FencedStateEpoch));
    assert_eq!(keeper.done(as_of(7, 2)), Ok(()));
    assert_eq!(keeper.initialize(1, None), Err(ShareStateError::FencedStateEpoch));
    let mut restarted = keeper.restarted();
    assert_eq!(restarted.done(as_of(6, 2)), Err(ShareStateError::FencedLeaderEpoch));
}

#[test]
fn a_group_that_begins_anew_forgets_what_was() {
    let mut keeper = Harness::new();
    keeper.initialize(1, Some(5)).unwrap();
    keeper.done(StateRequest::Write(change(None, vec![batch(5, 7, DeliveryState::Acknowledged, 1)]))).unwrap();
    keeper.initialize(2, Some(0)).unwrap();
    let kept = keeper.kept().unwrap();
    assert_eq!((kept.start, kept.batches), (Some(offset(0)), vec![]));
    keeper.done(StateRequest::Delete).unwrap();
    assert_eq!((keeper.kept(), keeper.restarted().kept()), (None, None));
}

#[test]
fn after_some_changes_everything_is_written_again_and_what_lies_before_is_redundant() {
    let mut keeper = Harness::new();
    keeper.initialize(1, Some(0)).unwrap();
    for number in 0..4 {
        keeper
            .done(StateRequest::Write(change(None, vec![batch(number, number, DeliveryState::Archived, 1)])))
            .unwrap();
    }
    let is_snapshot = |record: &ShareRecord| matches!(record, ShareRecord::Snapshot(..));
    assert_eq!(keeper.log.iter().map(is_snapshot).collect::<Vec<_>>(), [true, false, false, false, true]);
    assert_eq!(keeper.shard.redundant_before(), offset(4));
    let from_there = Harness::loaded(keeper.log[4..].to_vec(), keeper.now);
    assert_eq!(from_there.kept(), keeper.kept());
    assert_eq!(keeper.kept().unwrap().batches, [batch(0, 3, DeliveryState::Archived, 1)]);
}

#[test]
fn what_is_quiet_does_not_hold_the_log_up() {
    let mut keeper = Harness::new();
    keeper.initialize(1, Some(0)).unwrap();
    keeper.now += MINUTE * 6;
    keeper.step(Shard::tick);
    assert_eq!((keeper.log.len(), keeper.shard.redundant_before()), (2, offset(1)));
    let kept = keeper.kept();
    keeper.now += MINUTE * 6;
    keeper.step(Shard::tick);
    assert_eq!(keeper.log.len(), 2, "once is enough");
    assert_eq!((keeper.kept(), keeper.restarted().kept()), (kept.clone(), kept));
}

#[test]
fn a_change_waits_for_the_one_before_and_one_that_fails_leaves_nothing() {
    let mut keeper = Harness::new();
    keeper.initialize(1, Some(0)).unwrap();
    keeper.holds_appends = true;
    let one = keeper.ask(StateRequest::Write(change(None, vec![batch(0, 0, DeliveryState::Acknowledged, 1)])));
    let two = keeper.ask(StateRequest::Write(change(None, vec![batch(1, 1, DeliveryState::Acknowledged, 1)])));
    let read = keeper.ask(StateRequest::Read { leader_epoch: None });
    assert_eq!(keeper.held.len(), 1);
    keeper.release_one(Some(AppendFailure::Unavailable));
    assert_eq!(keeper.answers.remove(&one), Some(Answer::Done(Err(ShareStateError::CoordinatorNotAvailable))));
    assert!(!keeper.answers.contains_key(&read), "it would not see what is on its way");
    keeper.release_one(None);
    assert_eq!(keeper.answers.remove(&two), Some(Answer::Done(Ok(()))));
    let Some(Answer::Read(Ok(kept))) = keeper.answers.remove(&read) else { panic!("it is read") };
    assert_eq!(kept.batches, [batch(1, 1, DeliveryState::Acknowledged, 1)]);
}

#[test]
fn records_are_those_of_kafka() {
    let state = KeptState {
        state_epoch: StateEpoch(2),
        leader_epoch: Some(LeaderEpoch(5)),
        start: Some(offset(10)),
        settled: Some(1),
        batches: vec![batch(10, 11, DeliveryState::Acknowledged, 3)],
    };
    let at = |millis| Timestamp::from_wire(millis).unwrap();
    let snapshot = Snapshot { epoch: 4, state, made_at: at(6), written_at: at(7) };
    let record = ShareRecord::Snapshot(key(), Some(snapshot));
    let bytes = record.encode().unwrap();
    let head = [&[0, 0, 0, 1, b'g'][..], key().topic.to_wire().as_bytes(), &[0, 0, 0, 3]].concat();
    assert_eq!(bytes.key, head);
    let batches = [&[2][..], &[0, 0, 0, 0, 0, 0, 0, 10], &[0, 0, 0, 0, 0, 0, 0, 11], &[2, 0, 3, 0]].concat();
    let tag = [1, 0, 4, 0, 0, 0, 1];
    let (four, two, five) = ([0, 0, 0, 4], [0, 0, 0, 2], [0, 0, 0, 5]);
    let long = |number: u8| [0, 0, 0, 0, 0, 0, 0, number];
    let value = [&[0, 0][..], &four, &two, &five, &long(10), &long(6), &long(7), &batches, &tag].concat();
    assert_eq!(bytes.value, Some(value));
    assert_eq!(ShareRecord::decode(&bytes.key, bytes.value.as_deref()), Ok(record));

    let update = Update { snapshot_epoch: 4, leader_epoch: None, start: None, settled: None, batches: vec![] };
    let record = ShareRecord::Update(key(), update);
    let bytes = record.encode().unwrap();
    assert_eq!(bytes.key[..2], [0, 1]);
    let none = [0xff; 4];
    assert_eq!(bytes.value, Some([&[0, 0][..], &four, &none, &[0xff; 8], &[1, 0]].concat()));
    assert_eq!(ShareRecord::decode(&bytes.key, bytes.value.as_deref()), Ok(record));
}

#[test]
fn a_share_partition_is_named_as_kafka_names_it() {
    assert_eq!(key().text(), "g:AQIDBAUGBwgREhMUFRYXGA:3");
}

fn any_batch() -> impl Strategy<Value = StateBatch> {
    let state =
        prop_oneof![Just(DeliveryState::Available), Just(DeliveryState::Acknowledged), Just(DeliveryState::Archived)];
    (0u64..30, 0u64..8, state, 1u16..4)
        .prop_map(|(first, more, state, deliveries)| batch(first, first + more, state, deliveries))
}

proptest! {
    #[test]
    fn combined_batches_say_of_every_record_the_furthest_that_was_said(
        older in prop::collection::vec(any_batch(), 0..8),
        newer in prop::collection::vec(any_batch(), 0..8),
        start in 0u64..20,
    ) {
        let mut naive: BTreeMap<u64, (u16, DeliveryState)> = BTreeMap::new();
        for batch in older.iter().chain(&newer) {
            for at in batch.first.get().max(start)..=batch.last.get() {
                let furthest = naive.entry(at).or_insert((batch.deliveries, batch.state));
                *furthest = (*furthest).max((batch.deliveries, batch.state));
            }
        }
        let combined = combine(&older, &newer, offset(start));
        let mut found = BTreeMap::new();
        for batch in &combined {
            for at in batch.first.get()..=batch.last.get() {
                prop_assert_eq!(found.insert(at, (batch.deliveries, batch.state)), None);
            }
        }
        prop_assert_eq!(found, naive);
        let is_minimal = combined.windows(2).all(|pair| {
            let touch = pair[0].last.plus(1) == pair[1].first;
            !touch || (pair[0].deliveries, pair[0].state) != (pair[1].deliveries, pair[1].state)
        });
        prop_assert!(is_minimal && combined.is_sorted_by_key(|batch| batch.first));
    }
}
