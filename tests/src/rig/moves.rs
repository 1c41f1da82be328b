//! Partitions that move to a broker more than there are otherwise, and brokers that are drained onto it: as operators and Kafka's
//! tools ask for it. In the end everything is where it was, and the broker more has stopped.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, BrokerId, TopicName,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    },
    protocol::StrBytes,
};

use super::{BROKER, MEMBERS, Rig, SPARE, fault::last};
use crate::{
    client::Refusal,
    cluster::broker_command::{is_there, told, varve_broker},
    history::Place,
    node::{eventually, until},
    running::Running,
    workload::Random,
};

/// Longest time in which a drain gets through, seconds.
const DRAIN_LIMIT: &str = "600";
/// What is copied at once where a drain is to take a while.
const FEW: &str = "3";
/// What it is given that a broker's end may hold up, seconds. It then is given up, and taken up again.
const DISTURBED_DRAIN_LIMIT: &str = "60";

/// Who holds partitions, and who shall.
struct Moves(Vec<Move>);

struct Move {
    place: Place,
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Moves {
    /// Whatever `from` holds of these topics, to the spare broker.
    fn of(rig: &Rig, topics: &[&str], from: usize) -> Result<Moves> {
        let mut moves = Vec::new();
        for &topic in topics {
            for (one, partition) in rig.cluster.describe(topic)?.into_iter().zip(0..) {
                let place = Place { topic: topic.to_owned(), partition };
                let after = one.replicas.iter().map(|&at| if at == from { SPARE } else { at }).collect();
                moves.push(Move { place, before: one.replicas, after });
            }
        }
        Ok(Moves(moves))
    }

    /// Asks for them, or for their way back.
    fn ask(&self, rig: &Rig, wanted: impl Fn(&Move) -> &[usize]) -> Result<()> {
        self.alter(rig, |one| Some(wanted(one)), |_| false)
    }

    /// Calls them back. An attempt whose answer was lost leaves nothing to call back.
    fn cancel(&self, rig: &Rig) -> Result<()> {
        self.alter(rig, |_| None, |code| code == ResponseError::NoReassignmentInProgress.code())
    }

    fn alter<'a>(
        &'a self,
        rig: &Rig,
        wanted: impl Fn(&'a Move) -> Option<&'a [usize]>,
        is_fine: impl Fn(i16) -> bool,
    ) -> Result<()> {
        let topics = self.0.iter().map(|one| {
            let replicas = wanted(one).map(|ids| ids.iter().map(|&id| BrokerId(id as i32)).collect());
            let partition = ReassignablePartition::default().with_partition_index(one.place.partition);
            ReassignableTopic::default()
                .with_name(TopicName(StrBytes::from_string(one.place.topic.clone())))
                .with_partitions(vec![partition.with_replicas(replicas)])
        });
        let request =
            AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(topics.collect());
        until("partitions are reassigned", || {
            let answer = rig.routes.ask_any(0, &request)?;
            Refusal::check("AlterPartitionReassignments", answer.error_code, answer.error_message)?;
            for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
                if !is_fine(partition.error_code) {
                    let (code, message) = (partition.error_code, partition.error_message);
                    Refusal::check("AlterPartitionReassignments", code, message)?;
                }
            }
            Ok(())
        })
    }

    /// Waits until each partition has the replicas `wanted`, and no others, all of them in sync, and one of them leads.
    fn await_end(&self, rig: &Rig, wanted: impl Fn(&Move) -> &[usize]) -> Result<()> {
        let set = |ids: &[usize]| ids.iter().copied().collect::<BTreeSet<_>>();
        for one in &self.0 {
            let (place, wanted) = (&one.place, wanted(one));
            let mut seen = None;
            eventually(&format!("{place} is whole on brokers {wanted:?}"), || {
                seen = rig.cluster.look(&place.topic).get(place.partition as usize).cloned();
                let is_so = seen.as_ref().is_some_and(|now| {
                    let is_held = set(&now.replicas) == set(wanted) && set(&now.isr) == set(wanted);
                    is_held && now.leader.is_some_and(|leader| wanted.contains(&leader))
                });
                Ok(is_so.then_some(()))
            })
            .with_context(|| format!("at last {seen:?}"))?;
        }
        Ok(())
    }

    /// Everything back to where it was, and the spare broker out.
    fn back(&self, rig: &mut Rig) -> Result<()> {
        self.ask(rig, |one| &one.before)?;
        self.await_end(rig, |one| &one.before)?;
        rig.cluster.stop(SPARE).context("the broker more stops")
    }
}

/// Begins to move what a broker holds to the spare one, which some brokers keep waiting: they do not reach each other. It may be
/// the leader that is left, or one of the others.
fn begun(rig: &mut Rig, topics: &[&str], keeping: &[usize], random: &mut Random) -> Result<Moves> {
    rig.cluster.start_all(&[SPARE])?;
    let moves = Moves::of(rig, topics, random.below(MEMBERS as u64) as usize)?;
    for at in keeping {
        rig.network.router.cut(BROKER + at, BROKER + SPARE);
    }
    moves.ask(rig, |one| &one.after)?;
    // What the others lead comes to the spare broker meanwhile, or some of it.
    thread::park_timeout(Duration::from_millis(random.below(1_000)));
    Ok(moves)
}

/// A leader is killed in the middle. The move ends, with it or without it, and so does the one back.
pub(super) fn leader_killed(rig: &mut Rig, topics: &[&str], leader: usize, random: &mut Random) -> Result<()> {
    let moves = begun(rig, topics, &[leader], random)?;
    rig.cluster.kill(leader);
    rig.network.router.heal();
    last(rig);
    rig.cluster.start_all(&[leader])?;
    moves.await_end(rig, |one| &one.after)?;
    moves.back(rig)
}

/// The broker to which partitions move is killed in the middle.
pub(super) fn target_killed(rig: &mut Rig, topics: &[&str], leader: usize, random: &mut Random) -> Result<()> {
    let moves = begun(rig, topics, &[leader], random)?;
    rig.cluster.kill(SPARE);
    rig.network.router.heal();
    last(rig);
    rig.cluster.start_all(&[SPARE])?;
    moves.await_end(rig, |one| &one.after)?;
    moves.back(rig)
}

/// A leader is killed in the middle, and nothing comes of the move.
pub(super) fn cancelled(rig: &mut Rig, topics: &[&str], leader: usize, random: &mut Random) -> Result<()> {
    let all: Vec<usize> = (0..MEMBERS).collect();
    let moves = begun(rig, topics, &all, random)?;
    rig.cluster.kill(leader);
    last(rig);
    moves.cancel(rig)?;
    rig.network.router.heal();
    rig.cluster.start_all(&[leader])?;
    moves.await_end(rig, |one| &one.before)?;
    rig.cluster.stop(SPARE).context("the broker more stops")
}

/// A broker is emptied, stopped as for a repair, and gets back what it held. No client notices that anything moves.
pub(super) fn drained(rig: &mut Rig, at: usize) -> Result<()> {
    rig.cluster.start_all(&[SPARE])?;
    unnoticed(rig, || drain(rig, at)).with_context(|| format!("broker {at} is drained"))?;
    eventually(&format!("broker {at} has no log any more"), || Ok(rig.disks[at].held()?.is_empty().then_some(())))?;
    // Whoever asks it who leads sees it go.
    rig.cluster.stop(at).with_context(|| format!("broker {at}, which is drained, stops"))?;
    last(rig);
    rig.cluster.start_all(&[at])?;
    unnoticed(rig, || filled_again(rig, at)).with_context(|| format!("broker {at} gets back what it held"))?;
    rig.cluster.stop(SPARE).context("the broker more stops")
}

/// A broker is emptied while another one is killed, which may be the one that gets what it had.
pub(super) fn drained_while_another_is_killed(rig: &mut Rig, at: usize, random: &mut Random) -> Result<()> {
    let other = (at + 1 + random.below(MEMBERS as u64) as usize) % (MEMBERS + 1);
    rig.cluster.start_all(&[SPARE])?;
    let log = rig.cluster.folder(at).join("drain.log");
    let id = at.to_string();
    let mut draining = until("a drain begins", || {
        let asked = ["drain", &id, "--json", "--parallel", FEW, "--timeout", DISTURBED_DRAIN_LIMIT];
        let mut draining = Running::start(varve_broker(&rig.cluster, &asked)?, &log)?;
        draining.until_it_says("\"moving\"").map(|()| draining)
    })?;
    rig.cluster.kill(other);
    last(rig);
    rig.cluster.start_all(&[other])?;
    // Whether it got through or was given up: the same command takes it up.
    eventually("the drain ends", || draining.ended())?;
    drain(rig, at)?;
    filled_again(rig, at)?;
    rig.cluster.stop(SPARE).context("the broker more stops")
}

/// What the spare broker holds goes to `at`, the only one that does not hold it.
fn filled_again(rig: &Rig, at: usize) -> Result<()> {
    undrain(rig, at)?;
    drain(rig, SPARE)?;
    undrain(rig, SPARE)
}

/// It is refused while a replica lags, as it may on a machine with much else to do.
fn drain(rig: &Rig, at: usize) -> Result<()> {
    until(&format!("broker {at} is drained"), || {
        let asked = ["drain", &at.to_string(), "--json", "--parallel", "100", "--timeout", DRAIN_LIMIT];
        let (is_done, lines) = told(&rig.cluster, &asked)?;
        ensure!(is_done && is_there(&lines, "drained"), "{lines:?}");
        Ok(())
    })
}

fn undrain(rig: &Rig, at: usize) -> Result<()> {
    let output = varve_broker(&rig.cluster, &["undrain", &at.to_string()])?.output()?;
    ensure!(output.status.success(), "undrain of broker {at}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Does it, which gives no client a reason to complain.
fn unnoticed(rig: &Rig, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let complaints = rig.routes.complaints();
    complaints.forget();
    act()?;
    complaints.judge()
}
