//! Idempotent writers and groups on a node that is killed again and again: what they did and were told is written down,
//! and a checker looks for anything that a log which keeps its promises cannot have said (varve_tests::history).
//!
//! `VARVE_HISTORY_ROUNDS` and `VARVE_HISTORY_SEED` change the loop.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use varve_tests::{
    client::Client,
    history::Recorder,
    node::{Node, stable_address},
    workload::{Crew, Faults, Random, Routes},
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
const CREW: Crew = Crew { topic: "ledger", partitions: 3, writers: 3, groups: &["audit", "balance"], members: 2 };

fn setting(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// Kills the node and starts it again; the last one goes on. Ends early when a client has found a fault.
fn kill_in_a_loop(folder: &Path, node: Node, rounds: u64, random: &mut Random, faults: &Faults) -> Result<Node> {
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

#[test]
fn no_history_of_writers_and_groups_on_a_node_that_is_killed_breaks_a_promise() -> Result<()> {
    let rounds = setting("VARVE_HISTORY_ROUNDS", 25)?;
    let seed = setting("VARVE_HISTORY_SEED", 1)?;
    let mut random = Random(seed);
    let folder = tempfile::tempdir()?;
    let node = Node::start_at(folder.path(), stable_address()?, &EAGER)?;
    let configs = [("internal.segment.bytes", "20000"), ("local.retention.bytes", "40000"), ("retention.ms", "-1")];
    Client::connect(node.address)?.create_topic(CREW.topic, CREW.partitions, &configs)?;
    let (routes, recorder) = (Routes::new(vec![node.address]), Recorder::default());
    CREW.work(&routes, &recorder, &mut random, |random, faults| {
        kill_in_a_loop(folder.path(), node, rounds, random, faults)
    })
    .and_then(|node| CREW.judge(&routes, &recorder).map(|()| node))
    .with_context(|| format!("VARVE_HISTORY_SEED={seed}, {rounds} rounds"))?
    .stop()
}
