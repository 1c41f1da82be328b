//! Idempotent writers and groups on a node that is killed again and again: what they did and were told is written down,
//! and a checker looks for anything that a log which keeps its promises cannot have said (varve_tests::history).
//!
//! `VARVE_HISTORY_ROUNDS` and `VARVE_HISTORY_SEED` change the loop.

use std::{
    net::SocketAddr,
    path::Path,
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    client::Client,
    history::{Event, History, Place, Recorder, check},
    node::{Node, eventually, stable_address},
    workload::{Member, Random, Routes, Stop, Writer, read_all},
};

/// Segments roll, move to the archive and become Parquet while they are written and read.
const EAGER: [&str; 8] = [
    "log.retention.check.interval.ms=100",
    "log.cleaner.backoff.ms=100",
    "varve.compactor.interval.ms=200",
    "varve.archive.lag.ms=200",
    "log.segment.delete.delay.ms=0",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=1000",
    "offsets.topic.num.partitions=2",
];
const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;
const WRITERS: u32 = 3;
const GROUPS: [&str; 2] = ["audit", "balance"];
const MEMBERS: usize = 2;

fn setting(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// Kills the node and starts it again; the last one goes on. Ends early when a client has found a fault.
fn kill_in_a_loop(folder: &Path, node: Node, rounds: u64, random: &mut Random, faults: &Receiver<()>) -> Result<Node> {
    let address = node.address;
    let mut node = node;
    for round in 0..rounds {
        // Most lives are too short for a group to form: it waits for members of the life before. Every fifth is not.
        let life = Duration::from_millis(random.below(500) + if round % 5 == 0 { 2_500 } else { 0 });
        if faults.recv_timeout(life).is_ok() {
            break;
        }
        node.kill();
        node = Node::start_at(folder, address, &EAGER).with_context(|| format!("round {round} of {rounds}"))?;
    }
    Ok(node)
}

/// Waits until each group has committed the end of each partition.
fn await_groups(address: SocketAddr, places: &[Place], faults: &Receiver<()>) -> Result<()> {
    let mut client = Client::connect(address)?;
    for (group, place) in GROUPS.iter().flat_map(|group| places.iter().map(move |place| (group, place))) {
        let end = client.list_offset(&place.topic, place.partition, -1)?;
        eventually(&format!("{group} has read {place} up to {end}"), || {
            ensure!(faults.try_recv().is_err(), "a client has found a fault");
            let committed = client.committed(group, &place.topic, place.partition)?;
            Ok((committed.unwrap_or(0) == end).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn no_history_of_writers_and_groups_on_a_node_that_is_killed_breaks_a_promise() -> Result<()> {
    let rounds = setting("VARVE_HISTORY_ROUNDS", 25)?;
    let seed = setting("VARVE_HISTORY_SEED", 1)?;
    let mut random = Random(seed);
    let folder = tempfile::tempdir()?;
    let node = Node::start_at(folder.path(), stable_address()?, &EAGER)?;
    let configs = [("internal.segment.bytes", "20000"), ("local.retention.bytes", "40000"), ("retention.ms", "-1")];
    Client::connect(node.address)?.create_topic(TOPIC, PARTITIONS, &configs)?;
    let places: Vec<Place> = (0..PARTITIONS).map(|partition| Place { topic: TOPIC.to_owned(), partition }).collect();
    let routes = Routes::new(vec![node.address]);
    let recorder = Recorder::default();
    let (writing, reading) = (Stop::default(), Stop::default());
    let (fault, faults) = mpsc::channel::<()>();
    let node = std::thread::scope(|scope| -> Result<Node> {
        let mut clients = Vec::new();
        // A client that ends with an error tells the others' end.
        let mut spawn = |client: Box<dyn FnOnce() -> Result<()> + Send>| {
            let fault = fault.clone();
            clients.push(scope.spawn(move || {
                let result = client();
                if result.is_err() {
                    let _ = fault.send(());
                }
                result
            }));
        };
        for id in 0..WRITERS {
            let (places, routes, recorder) = (places.clone(), routes.clone(), recorder.clone());
            let writer = Writer { id, places, routes, recorder, stop: writing.clone() };
            let seed = random.below(u64::MAX);
            spawn(Box::new(move || writer.run(seed)));
        }
        for group in GROUPS.iter().flat_map(|group| [*group; MEMBERS]) {
            let (group, topic) = (group.to_owned(), TOPIC.to_owned());
            let (routes, recorder) = (routes.clone(), recorder.clone());
            let member = Member { group, topic, partitions: PARTITIONS, routes, recorder, stop: reading.clone() };
            let seed = random.below(u64::MAX);
            spawn(Box::new(move || member.run(seed)));
        }
        let readers = clients.split_off(WRITERS as usize);
        let killed = kill_in_a_loop(folder.path(), node, rounds, &mut random, &faults);
        writing.now();
        let mut ended: Vec<Result<()>> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        let caught_up = killed.and_then(|node| await_groups(node.address, &places, &faults).map(|()| node));
        reading.now();
        ended.extend(readers.into_iter().map(|client| client.join().expect("no panic")));
        // A client's fault comes of the node's end, or the other way round: both are told.
        match (ended.into_iter().collect::<Result<()>>(), caught_up) {
            (Ok(()), caught_up) => caught_up,
            (Err(fault), Ok(_)) => Err(fault),
            (Err(fault), Err(after)) => Err(fault.context(format!("{after:#}"))),
        }
    })
    .with_context(|| format!("VARVE_HISTORY_SEED={seed}"))?;
    let log = places.iter().map(|place| Ok((place.clone(), read_all(&routes, place)?)));
    let history = History { events: recorder.events(), log: log.collect::<Result<_>>()? };
    let records: usize = history.log.values().map(|contents| contents.records.len()).sum();
    println!("{records} records, {} events over {rounds} kills, seed {seed}", history.events.len());
    let faults = check(&history);
    ensure!(faults.is_empty(), "seed {seed}: {} faults, the first {:#?}", faults.len(), &faults[..faults.len().min(5)]);
    ensure!(
        records > 0 && history.events.iter().any(|event| matches!(event, Event::Commit { .. })),
        "something happened"
    );
    node.stop()
}
