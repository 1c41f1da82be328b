//! Histories are made by producers of both generations of the protocol, each with a transactional id of its own, while the
//! node is killed. Every transaction appends its number to some partitions and commits it as a group's offset. Held to: what
//! was committed is there, whole, once and in order, wherever it lies by now; what was aborted is nowhere; what nobody heard
//! the end of is whole or nowhere; the group's offset is that of the last committed transaction; and no reader ever saw
//! anything else. `VARVE_TXN_ROUNDS` and `VARVE_TXN_SEED` change the loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kafka_protocol::error::ResponseError;
use varve_tests::{
    client::{Client, Refusal},
    node::{Node, eventually, stable_address},
    transactions::{CommittedReader, Producer, Refused, Seen, batch},
    workload::Random,
};

const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 4;
/// Topics whose segments are archived, turned into Parquet and compacted by key while transactions go on.
const TOPICS: [(&str, &[(&str, &str)]); 2] = [
    ("kept", &[("internal.segment.bytes", "20000"), ("local.retention.bytes", "30000"), ("retention.ms", "-1")]),
    (
        "compacted",
        &[
            ("cleanup.policy", "compact"),
            ("internal.segment.bytes", "20000"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("local.retention.bytes", "30000"),
            ("retention.ms", "-1"),
        ],
    ),
];
const EAGER: [&str; 9] = [
    "log.retention.check.interval.ms=50",
    "log.cleaner.backoff.ms=50",
    "varve.compactor.interval.ms=50",
    "varve.archive.lag.ms=100",
    "log.segment.delete.delay.ms=0",
    "transaction.state.log.num.partitions=3",
    "offsets.topic.num.partitions=3",
    "transaction.state.log.segment.bytes=1048576",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
];
const GROUP: &str = "readers";

/// Every other round records are visible only once they are on disk, which is another way from the log to its readers.
fn settings(round: u64) -> Vec<&'static str> {
    let flush = (round % 2 == 1).then_some("log.flush.interval.messages=1");
    EAGER.into_iter().chain(flush).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
    /// Nobody heard how it ended.
    Unknown,
}

/// One transaction: what it wrote where, in order.
#[derive(Clone, Debug)]
struct Transaction {
    producer: usize,
    number: i64,
    writes: Vec<(&'static str, i32, String)>,
    outcome: Outcome,
}

type History = Arc<Mutex<Vec<Transaction>>>;

/// A producer's life: transaction after transaction, through every crash of the node, until `stop`.
struct Life {
    number: usize,
    address: SocketAddr,
    random: Random,
    next: i64,
    history: History,
    stop: Arc<AtomicBool>,
}

impl Life {
    fn id(&self) -> String {
        format!("producer-{}", self.number)
    }

    /// Half of them speak the first generation of the protocol.
    fn is_old(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    fn live(mut self) -> Result<i64> {
        while !self.stop.load(Ordering::Relaxed) {
            // The node may be down, or go down at any moment.
            if let Err(error) = self.work() {
                let refused = error.downcast_ref::<Refused>();
                ensure!(refused.is_none(), "producer {}: {error:#}", self.number);
                thread::park_timeout(Duration::from_millis(20));
            }
        }
        Ok(self.next)
    }

    fn work(&mut self) -> Result<()> {
        let mut client = Client::connect(self.address)?;
        let mut producer = client.init_producer(&self.id(), 600_000)?;
        // An old producer's sequences go on from transaction to transaction.
        let mut sequences: BTreeMap<(&str, i32), i32> = BTreeMap::new();
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next;
            self.next += 1;
            let place = {
                let mut history = self.history.lock().expect("nobody panics with it");
                let (writes, outcome) = (Vec::new(), Outcome::Aborted);
                history.push(Transaction { producer: self.number, number, writes, outcome });
                history.len() - 1
            };
            let commit = self.random.below(4) > 0;
            self.write(&mut client, producer, number, place, &mut sequences)?;
            // From here on an answer that is lost leaves the end unknown.
            self.note(place, |transaction| {
                transaction.outcome = if commit { Outcome::Unknown } else { Outcome::Aborted };
            });
            if self.is_old() {
                client.end_old_transaction(&self.id(), producer, commit)?;
            } else {
                producer = client.end_transaction(&self.id(), producer, commit)?;
                sequences.clear();
            }
            self.note(place, |transaction| {
                transaction.outcome = if commit { Outcome::Committed } else { Outcome::Aborted };
            });
        }
        Ok(())
    }

    fn write(
        &mut self,
        client: &mut Client,
        producer: Producer,
        number: i64,
        place: usize,
        sequences: &mut BTreeMap<(&'static str, i32), i32>,
    ) -> Result<()> {
        let version = if self.is_old() { 9 } else { 12 };
        let id = self.id();
        for record in 0..2 + self.random.below(3) {
            let (topic, _) = TOPICS[self.random.below(TOPICS.len() as u64) as usize];
            let partition = self.random.below(PARTITIONS as u64) as i32;
            let key = format!("{}-{}", self.number, self.random.below(5));
            let value = format!("{} {number} {record} {}", self.number, "x".repeat(self.random.below(700) as usize));
            if self.is_old() {
                client.add_partition(&id, producer, topic, partition)?;
            }
            let sequence = sequences.entry((topic, partition)).or_default();
            let batch = batch(producer, *sequence, Some(&key), &value)?;
            *sequence += 1;
            self.note(place, |transaction| transaction.writes.push((topic, partition, format!("{key}={value}"))));
            client.produce_in_transaction(topic, partition, version, &id, batch)?;
        }
        let offset_of = (GROUP, "kept", self.number as i32 % PARTITIONS);
        // Each has a group of its own; the partition does not matter.
        let group = format!("{GROUP}-{}", self.number);
        client.commit_in_transaction(&id, producer, self.is_old(), (&group, offset_of.1, offset_of.2), number)
    }

    fn note(&self, place: usize, change: impl FnOnce(&mut Transaction)) {
        change(&mut self.history.lock().expect("nobody panics with it")[place]);
    }
}

/// Reads committed records of one partition over and over, from wherever they lie, and remembers what it was given.
fn watch(address: SocketAddr, topic: &str, partition: i32, stop: &AtomicBool) -> Result<Vec<Seen>> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut reader: Option<CommittedReader> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut read = || -> Result<Vec<Seen>> {
            let mut client = Client::connect(address)?;
            if reader.is_none() {
                reader = Some(CommittedReader::start(&mut client, topic, partition)?);
            }
            let reader = reader.as_mut().context("just made")?;
            let mut all = Vec::new();
            loop {
                let some = reader.read(&mut client)?;
                if some.is_empty() {
                    return Ok(all);
                }
                all.extend(some);
            }
        };
        match read() {
            Ok(some) => seen.extend(some),
            // What a crash cut short may have been read half: begin anew.
            Err(error) if is_of_a_crash(&error) => reader = None,
            Err(error) => return Err(error.context(format!("a reader of {topic}-{partition}"))),
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(seen)
}

/// Whether it is what a reader meets while its node is killed and started again.
fn is_of_a_crash(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>().map(|refused| refused.0);
    let refused = refused.or_else(|| Refusal::of(error).map(Refusal::name));
    let is_starting =
        matches!(refused, Some(ResponseError::NotLeaderOrFollower | ResponseError::UnknownTopicOrPartition));
    is_starting || error.downcast_ref::<std::io::Error>().is_some()
}

fn checked_value(seen: &Seen) -> String {
    format!("{}={}", seen.key.as_deref().unwrap_or_default(), seen.value)
}

/// Everything that is committed, by topic and partition.
fn read_all(address: SocketAddr) -> Result<BTreeMap<(&'static str, i32), Vec<Seen>>> {
    let mut client = Client::connect(address)?;
    let mut all = BTreeMap::new();
    for (topic, _) in TOPICS {
        for partition in 0..PARTITIONS {
            let end = client.list_offset(topic, partition, -1)?;
            let mut reader = CommittedReader::start(&mut client, topic, partition)?;
            all.insert((topic, partition), reader.read_to(&mut client, end)?);
        }
    }
    Ok(all)
}

fn check_history(history: &[Transaction], found: &BTreeMap<(&'static str, i32), Vec<Seen>>) -> Result<usize> {
    let mut places: BTreeMap<(&str, i32, String), i64> = BTreeMap::new();
    for ((topic, partition), seen) in found {
        let mut before = -1;
        for one in seen {
            ensure!(one.offset > before, "{topic}-{partition}: offset {} comes after {before}", one.offset);
            before = one.offset;
            let value = checked_value(one);
            let twice = places.insert((topic, *partition, value.clone()), one.offset);
            ensure!(twice.is_none(), "{topic}-{partition} has {value} twice");
        }
    }
    let written: BTreeSet<&str> =
        history.iter().flat_map(|transaction| &transaction.writes).map(|(_, _, value)| value.as_str()).collect();
    for (topic, partition, value) in places.keys() {
        ensure!(written.contains(value.as_str()), "{topic}-{partition} has {value}, which nobody wrote");
    }
    let mut committed = 0;
    let mut last_of: BTreeMap<(usize, &str, i32), i64> = BTreeMap::new();
    for transaction in history {
        // Compaction takes what was written again later: it is looked at in the topic that keeps everything.
        let kept: Vec<_> = transaction.writes.iter().filter(|(topic, _, _)| *topic == "kept").collect();
        let place_of = |(topic, partition, value): &(&'static str, i32, String)| {
            places.get(&(*topic, *partition, value.clone())).copied()
        };
        let there: Vec<i64> = kept.iter().filter_map(|write| place_of(write)).collect();
        match transaction.outcome {
            Outcome::Committed => {
                ensure!(
                    there.len() == kept.len(),
                    "committed, and {} of {} are there: {transaction:?}",
                    there.len(),
                    kept.len()
                );
                committed += 1;
            }
            Outcome::Aborted => {
                for write in &transaction.writes {
                    ensure!(place_of(write).is_none(), "aborted, and visible: {transaction:?}");
                }
            }
            Outcome::Unknown => {
                ensure!(there.is_empty() || there.len() == kept.len(), "half of it is there: {transaction:?}");
            }
        }
        for write in kept {
            let (topic, partition, _) = write;
            let Some(offset) = place_of(write) else { continue };
            let last = last_of.entry((transaction.producer, topic, *partition)).or_insert(-1);
            ensure!(offset > *last, "out of order: {transaction:?}");
            *last = offset;
        }
    }
    Ok(committed)
}

/// In a compacted topic the last committed record of every key is there.
fn check_compacted(history: &[Transaction], found: &BTreeMap<(&'static str, i32), Vec<Seen>>) -> Result<()> {
    let mut last: BTreeMap<(i32, String), (String, bool)> = BTreeMap::new();
    for transaction in history.iter().filter(|transaction| transaction.outcome != Outcome::Aborted) {
        for (_, partition, value) in transaction.writes.iter().filter(|(topic, _, _)| *topic == "compacted") {
            let key = value.split('=').next().unwrap_or_default().to_owned();
            let is_certain = transaction.outcome == Outcome::Committed;
            last.insert((*partition, key), (value.clone(), is_certain));
        }
    }
    for ((partition, key), (value, is_certain)) in last {
        let seen = &found[&("compacted", partition)];
        let newest = seen.iter().rfind(|one| one.key.as_deref() == Some(key.as_str()));
        if is_certain {
            ensure!(newest.map(checked_value).as_deref() == Some(value.as_str()), "{key} is {newest:?}, not {value}");
        }
    }
    Ok(())
}

fn check_offsets(address: SocketAddr, history: &[Transaction]) -> Result<()> {
    let mut client = Client::connect(address)?;
    for producer in 0..PRODUCERS {
        let group = format!("{GROUP}-{producer}");
        let own = history.iter().filter(|transaction| transaction.producer == producer);
        let numbers = |wanted: fn(Outcome) -> bool| {
            own.clone().filter(move |transaction| wanted(transaction.outcome)).map(|transaction| transaction.number)
        };
        let last_certain = numbers(|outcome| outcome == Outcome::Committed).max();
        let possible: BTreeSet<i64> = numbers(|outcome| outcome == Outcome::Unknown).collect();
        client.find_coordinators(&group)?;
        let partition = producer as i32 % PARTITIONS;
        let found = eventually("the group's offset", || Ok(client.committed(&group, "kept", partition).ok()))?;
        let is_right =
            found == last_certain || found.is_some_and(|found| possible.contains(&found) && Some(found) > last_certain);
        ensure!(is_right, "{group} is at {found:?}, the last transaction was {last_certain:?}");
    }
    Ok(())
}

#[test]
fn histories_are_whole_whatever_is_killed() -> Result<()> {
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let (rounds, seed) = (number("VARVE_TXN_ROUNDS", 6), number("VARVE_TXN_SEED", 7));
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let mut random = Random(seed);
    let mut node = Node::start_at(folder.path(), address, &settings(0))?;
    for (topic, configs) in TOPICS {
        Client::connect(address)?.create_topic(topic, PARTITIONS, configs)?;
    }
    let history: History = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let mut lives: Vec<_> = (0..PRODUCERS)
        .map(|number| {
            let random = Random(seed.wrapping_add(1000 + number as u64));
            let life = Life { number, address, random, next: 1, history: history.clone(), stop: stop.clone() };
            thread::spawn(move || life.live())
        })
        .collect();
    let watched: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let stop = stop.clone();
            thread::spawn(move || watch(address, "kept", partition, &stop))
        })
        .collect();
    for round in 0..rounds {
        let enough = |history: &History| history.lock().expect("nobody panics with it").len();
        let before = enough(&history);
        // Work first, or there is nothing to lose.
        eventually(&format!("round {round}: transactions go on"), || {
            // Who was refused has ended: the reason is the news, not that nothing goes on.
            if let Some(ended) = lives.iter().position(thread::JoinHandle::is_finished) {
                lives.swap_remove(ended).join().expect("a producer does not panic")?;
            }
            Ok((enough(&history) > before + 20 + random.below(40) as usize).then_some(()))
        })?;
        node.kill();
        node = Node::start_at(folder.path(), address, &settings(round + 1))?;
    }
    stop.store(true, Ordering::Relaxed);
    for life in lives {
        life.join().expect("a producer does not panic")?;
    }
    // Whatever was left open is aborted by the next producer of that name.
    let mut client = Client::connect(address)?;
    for producer in 0..PRODUCERS {
        client.init_producer(&format!("producer-{producer}"), 60_000)?;
    }
    let history = history.lock().expect("nobody panics with it").clone();
    let found = read_all(address)?;
    let committed = check_history(&history, &found)?;
    check_compacted(&history, &found)?;
    check_offsets(address, &history)?;
    ensure!(committed > 10 * rounds as usize, "{committed} of {} transactions committed", history.len());
    for (partition, watched) in (0..).zip(watched) {
        let seen = watched.join().expect("a reader does not panic")?;
        ensure!(!seen.is_empty(), "a reader of kept-{partition} was given nothing");
        let there: BTreeMap<i64, String> =
            found[&("kept", partition)].iter().map(|one| (one.offset, checked_value(one))).collect();
        for one in &seen {
            let kept = there.get(&one.offset).map(String::as_str);
            ensure!(kept == Some(checked_value(one).as_str()), "a reader saw {one:?}, kept is {kept:?}");
        }
    }
    node.stop()?;
    // The same after a clean restart, from whatever tier it lies in by then.
    let node = Node::start_at(folder.path(), address, &EAGER)?;
    check_history(&history, &read_all(address)?)?;
    check_offsets(address, &history)?;
    node.stop()
}
