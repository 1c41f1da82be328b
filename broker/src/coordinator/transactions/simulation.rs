//! Random producers, one coordinator whose log is slow, fails and restarts, and partitions that lose markers; one seed, one
//! run.
//!
//! Producers are believed to behave as client libraries do; what they wrote goes into partitions that know epochs and open
//! transactions as a log does. Held to: a transaction whose commit was acknowledged is visible in every partition, one that
//! was not acknowledged is visible in all or none, an aborted one in none; nothing is ever visible twice; a fenced producer
//! ends nothing; and once the weather clears, no transaction stays open.

use std::collections::{BTreeMap, BTreeSet};

use varve_simulation::seeds;

use super::{TransactionVersion::*, testing::*, *};
use crate::coordinator::{AppendFailure, EndOfTransaction, RequestId, storm::Random};

const PARTITIONS: u32 = 3;
const IDS: usize = 3;

/// A value, and the transaction that it belongs to: unique over the run.
type Value = u64;

/// One partition as its log keeps it: what is open by producer, what is visible.
#[derive(Debug, Default)]
struct Partition {
    epochs: BTreeMap<i64, u16>,
    open: BTreeMap<i64, Vec<Value>>,
    committed: Vec<Value>,
    aborted: BTreeSet<Value>,
}

impl Partition {
    /// As the log appends a batch of a transaction that the coordinator vouches for.
    fn write(&mut self, producer: ProducerIdentity, value: Value) -> bool {
        let epoch = self.epochs.entry(producer.id.to_wire()).or_insert(producer.epoch.0);
        if producer.epoch.0 < *epoch {
            return false;
        }
        *epoch = producer.epoch.0;
        self.open.entry(producer.id.to_wire()).or_default().push(value);
        true
    }

    /// As the log takes a marker.
    fn mark(&mut self, end: &EndOfTransaction) -> MarkerOutcome {
        let id = end.producer.to_wire();
        let known = self.epochs.get(&id).copied();
        let is_open = self.open.contains_key(&id);
        let is_late = known.is_some_and(|known| match end.raises_epoch {
            true => end.epoch.0 < known || (end.epoch.0 == known && is_open),
            false => end.epoch.0 < known,
        });
        if is_late {
            return MarkerOutcome::ProducerFenced;
        }
        self.epochs.insert(id, end.epoch.0);
        let values = self.open.remove(&id).unwrap_or_default();
        if end.committed {
            self.committed.extend(values);
        } else {
            self.aborted.extend(values);
        }
        MarkerOutcome::Written
    }
}

#[derive(Clone, Debug)]
enum Stage {
    Starting(Option<RequestId>),
    Idle,
    Adding(RequestId, u32),
    Writing,
    Ending(RequestId, bool),
    /// The answer to the end was lost: asked again.
    Uncertain(bool),
}

#[derive(Debug)]
struct Producer {
    id: String,
    version: TransactionVersion,
    identity: Option<ProducerIdentity>,
    stage: Stage,
    /// What the transaction under way wrote, and where.
    wrote: Vec<(u32, Value)>,
}

#[derive(Debug, Default)]
struct Promises {
    committed: BTreeSet<Value>,
    aborted: BTreeSet<Value>,
    /// Values of one transaction live and die together.
    transactions: Vec<Vec<(u32, Value)>>,
}

struct World {
    seed: u64,
    random: Random,
    coordinator: Harness,
    partitions: Vec<Partition>,
    producers: Vec<Producer>,
    promises: Promises,
    next_value: Value,
    is_stormy: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut coordinator = Harness::new();
        coordinator.holds_markers = true;
        let producer = |number: usize| Producer {
            id: format!("id-{}", number % IDS),
            // Both generations, also on one transactional id.
            version: if number.is_multiple_of(2) { Raising } else { Fixed },
            identity: None,
            stage: Stage::Starting(None),
            wrote: Vec::new(),
        };
        World {
            seed,
            random: Random(seed),
            coordinator,
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            producers: (0..2 * IDS).map(producer).collect(),
            promises: Promises::default(),
            next_value: 0,
            is_stormy: true,
        }
    }

    fn step(&mut self) {
        let pause = self.random.below(if self.is_stormy { 4000 } else { 500 });
        self.coordinator.pass(std::time::Duration::from_millis(pause));
        self.coordinator.holds_appends = self.is_stormy && self.random.one_in(2);
        while !self.coordinator.held.is_empty() && (!self.is_stormy || self.random.one_in(2)) {
            let failure = (self.is_stormy && self.random.one_in(10)).then_some(AppendFailure::Unavailable);
            self.coordinator.release_one(failure);
        }
        while !self.coordinator.markers.is_empty() && (!self.is_stormy || self.random.one_in(2)) {
            self.write_markers();
        }
        if self.is_stormy && self.random.one_in(60) {
            self.restart_coordinator();
        }
        for number in 0..self.producers.len() {
            // Of two producers with one transactional id only one is meant to run once the weather is fine.
            if (self.is_stormy || number < IDS) && self.random.one_in(2) {
                self.act(number);
            }
        }
    }

    fn write_markers(&mut self) {
        let markers = self.coordinator.markers[0].clone();
        let mut outcomes = BTreeMap::new();
        for place in &markers.partitions {
            let is_reached = !self.is_stormy || !self.random.one_in(4);
            let partition = &mut self.partitions[place.partition.0 as usize];
            let mut outcome = MarkerOutcome::Unavailable;
            if is_reached {
                outcome = partition.mark(&markers.end);
                // Written, and nobody heard of it.
                if self.is_stormy && self.random.one_in(6) {
                    outcome = MarkerOutcome::Unavailable;
                }
            }
            outcomes.insert(place.clone(), outcome);
        }
        self.coordinator.write_markers(|place| outcomes[place]);
    }

    /// The coordinator dies: what was not in the log is gone, and nobody is answered.
    fn restart_coordinator(&mut self) {
        let mut restarted = self.coordinator.restarted();
        restarted.holds_markers = true;
        restarted.finish_load();
        self.coordinator = restarted;
        for producer in &mut self.producers {
            producer.stage = match producer.stage.clone() {
                Stage::Starting(_) => Stage::Starting(None),
                // What was asked may have happened; the client asks again.
                Stage::Adding(..) => Stage::Writing,
                Stage::Ending(_, commit) => Stage::Uncertain(commit),
                stage => stage,
            };
        }
    }

    fn act(&mut self, number: usize) {
        if self.is_stormy && self.random.one_in(80) {
            return self.crash(number);
        }
        match self.producers[number].stage.clone() {
            Stage::Starting(None) => {
                let id = self.producers[number].id.clone();
                let request = self.coordinator.init(&id, None);
                self.producers[number].stage = Stage::Starting(Some(request));
            }
            Stage::Starting(Some(request)) => self.read_start(number, request),
            Stage::Idle if self.is_stormy => self.add(number),
            Stage::Idle => {}
            Stage::Adding(request, partition) => self.read_add(number, request, partition),
            Stage::Writing => {
                if self.is_stormy && self.random.one_in(2) {
                    self.add(number);
                } else {
                    let commit = self.random.below(3) > 0;
                    self.end(number, commit);
                }
            }
            Stage::Ending(request, commit) => self.read_end(number, request, commit),
            Stage::Uncertain(commit) => self.end(number, commit),
        }
    }

    /// The process dies and starts again: its transaction is nobody's.
    fn crash(&mut self, number: usize) {
        let wrote = std::mem::take(&mut self.producers[number].wrote);
        self.promises.transactions.push(wrote);
        self.producers[number].identity = None;
        self.producers[number].stage = Stage::Starting(None);
    }

    fn read_start(&mut self, number: usize, request: RequestId) {
        if self.coordinator.is_waiting(request) {
            return;
        }
        match self.coordinator.initialised(request) {
            Ok(identity) => {
                self.producers[number].identity = Some(identity);
                self.producers[number].stage = Stage::Idle;
            }
            Err(_) => self.producers[number].stage = Stage::Starting(None),
        }
    }

    fn add(&mut self, number: usize) {
        let partition = self.random.below(u64::from(PARTITIONS)) as u32;
        let Producer { id, identity, version, .. } = &self.producers[number];
        let (id, identity, version) = (id.clone(), identity.unwrap(), *version);
        let request = self.coordinator.add(&id, identity, &[at(partition)], version);
        self.producers[number].stage = Stage::Adding(request, partition);
    }

    fn read_add(&mut self, number: usize, request: RequestId, partition: u32) {
        if self.coordinator.is_waiting(request) {
            return;
        }
        match self.coordinator.added(request) {
            Ok(()) => {
                let identity = self.producers[number].identity.unwrap();
                self.next_value += 1;
                let value = self.next_value;
                if self.partitions[partition as usize].write(identity, value) {
                    self.producers[number].wrote.push((partition, value));
                    self.producers[number].stage = Stage::Writing;
                } else {
                    self.crash(number);
                }
            }
            Err(TransactionError::ConcurrentTransactions | TransactionError::CoordinatorNotAvailable) => {
                let is_begun = !self.producers[number].wrote.is_empty();
                self.producers[number].stage = if is_begun { Stage::Writing } else { Stage::Idle };
            }
            Err(_) => self.crash(number),
        }
    }

    fn end(&mut self, number: usize, commit: bool) {
        let Producer { id, identity, version, .. } = &self.producers[number];
        let (id, identity, version) = (id.clone(), identity.unwrap(), *version);
        let request = self.coordinator.end(&id, identity, commit, version);
        self.producers[number].stage = Stage::Ending(request, commit);
    }

    fn read_end(&mut self, number: usize, request: RequestId, commit: bool) {
        if self.coordinator.is_waiting(request) {
            return;
        }
        match self.coordinator.ended(request) {
            Ok(goes_on) => {
                let wrote = std::mem::take(&mut self.producers[number].wrote);
                let values = wrote.iter().map(|(_, value)| *value);
                if commit {
                    self.promises.committed.extend(values);
                } else {
                    self.promises.aborted.extend(values);
                }
                self.promises.transactions.push(wrote);
                let producer = &mut self.producers[number];
                producer.identity = goes_on.or(producer.identity);
                producer.stage = Stage::Idle;
            }
            Err(TransactionError::ConcurrentTransactions | TransactionError::CoordinatorNotAvailable) => {
                self.producers[number].stage = Stage::Uncertain(commit);
            }
            Err(_) => self.crash(number),
        }
    }

    fn check(&self) {
        let seed = self.seed;
        let mut visible: BTreeSet<Value> = BTreeSet::new();
        for partition in &self.partitions {
            for value in &partition.committed {
                assert!(visible.insert(*value), "seed {seed}: {value} is visible twice");
                assert!(!partition.aborted.contains(value), "seed {seed}: {value} is both");
            }
        }
        for transaction in &self.promises.transactions {
            for partition in &self.partitions {
                let places = |value: &Value| partition.committed.iter().position(|one| one == value);
                let places: Vec<usize> = transaction.iter().filter_map(|(_, value)| places(value)).collect();
                assert!(places.is_sorted(), "seed {seed}: {transaction:?} is out of order");
            }
        }
        for value in &self.promises.aborted {
            assert!(!visible.contains(value), "seed {seed}: {value} was aborted and is visible");
        }
    }

    fn check_at_the_end(&self) {
        let seed = self.seed;
        self.check();
        let visible: BTreeSet<Value> =
            self.partitions.iter().flat_map(|partition| &partition.committed).copied().collect();
        for value in &self.promises.committed {
            assert!(visible.contains(value), "seed {seed}: {value} was committed and is lost");
        }
        for transaction in &self.promises.transactions {
            let seen = transaction.iter().filter(|(_, value)| visible.contains(value)).count();
            assert!(seen == 0 || seen == transaction.len(), "seed {seed}: half of {transaction:?}");
        }
        for partition in &self.partitions {
            assert!(partition.open.is_empty(), "seed {seed}: a transaction hangs: {partition:?}");
        }
    }

    fn is_settled(&self) -> bool {
        let coordinator = self.coordinator.shard.stats();
        coordinator.ongoing == 0
            && coordinator.completing == 0
            && self.producers[..IDS].iter().all(|producer| matches!(producer.stage, Stage::Idle))
    }
}

fn run(seed: u64) -> (usize, Promises) {
    let mut world = World::new(seed);
    for step in 0..600 {
        world.step();
        if step % 20 == 0 {
            world.check();
        }
    }
    world.is_stormy = false;
    let settled = (0..3000).any(|_| {
        world.step();
        world.is_settled()
    });
    assert!(settled, "seed {seed}: every transaction ends: {:?}", world.producers);
    world.check_at_the_end();
    (world.coordinator.log.len(), world.promises)
}

#[test]
fn transactions_are_whole_whatever_crashes() {
    let mut committed = 0;
    // The named seed failed once.
    for seed in seeds(0..120).chain([1_000_403]) {
        committed += run(seed).1.committed.len();
    }
    assert!(committed > 1000, "{committed} values committed: the storm leaves no room for work");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (one, other) = (run(4242), run(4242));
    assert_eq!((one.0, one.1.committed), (other.0, other.1.committed));
}
