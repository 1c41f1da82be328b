//! Three brokers, three members of etcd, an S3 server and clients, each on a host of its own: whatever goes wrong with one of
//! them or between two, nothing that was acknowledged is lost, twice there or out of order, transactions are whole or nowhere,
//! and clients go on.
//!
//! `cargo xtask faults` runs `every_fault_by_chance` for as long as it is told.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    cluster::load::UNHURRIED,
    history::{Place, Recorder},
    network::alone,
    rig::{Fault, MEMBERS, Outage, Rig, RigOptions},
    workload::{Crew, Probe, Random, Stop, Transactions, Transactor},
};

const CREW: Crew = Crew { topic: "ledger", partitions: 3, writers: 3, groups: &["audit", "balance"], members: 2 };
/// Where transactions go.
const MOVES: &str = "moves";
const TRANSACTORS: u32 = 2;
/// Where nothing happens but what is measured.
const PROBED: &str = "probed";
const PARTITIONS: i32 = 3;
/// Small segments, so that they roll, move to the archive and leave the local disk.
const CONFIGS: [(&str, &str); 4] = [
    ("min.insync.replicas", "2"),
    ("internal.segment.bytes", "200000"),
    ("local.retention.bytes", "400000"),
    ("retention.ms", "-1"),
];
/// The shortest lease that etcd grants.
const SHORT_LEASE: &str = "broker.session.timeout.ms=2000";
/// How long one cluster suffers, at most. The S3 server looks at all that it holds when it lists some of it, and ever more is there.
const ROUND_MINUTES: u64 = 15;
/// Longer than that, and than a replica may lag.
const SHORT: Duration = Duration::from_secs(4);

fn places(topic: &str) -> Vec<Place> {
    (0..PARTITIONS).map(|partition| Place { topic: topic.to_owned(), partition }).collect()
}

fn setting(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// A rig with clients at work, which suffers what `next` says until it says nothing. Then everything is judged.
fn suffered(
    seed: u64,
    options: RigOptions<'_>,
    wide: i32,
    mut next: impl FnMut(&mut Random) -> Option<Fault>,
) -> Result<Vec<Outage>> {
    let folder = tempfile::tempdir()?;
    let mut rig = Rig::start(folder.path(), options)?;
    for topic in [CREW.topic, MOVES] {
        rig.cluster.create(topic, PARTITIONS, MEMBERS as i16, &CONFIGS)?;
    }
    let short = [("min.insync.replicas", "2"), ("segment.bytes", "1048576"), ("retention.bytes", "1048576")];
    rig.cluster.create(PROBED, PARTITIONS, MEMBERS as i16, &short)?;
    if wide > 0 {
        rig.cluster.create("wide", wide, MEMBERS as i16, &[("min.insync.replicas", "2")])?;
        rig.cluster.await_isr("wide", MEMBERS)?;
    }
    let (routes, recorder, mut random) = (rig.routes(), Recorder::default(), Random(seed));
    let (done, stop) = (Transactions::default(), Stop::default());
    let outages = thread::scope(|scope| -> Result<Vec<Outage>> {
        let mut transactors = Vec::new();
        for id in 0..TRANSACTORS {
            let (routes, done, stop) = (routes.clone(), done.clone(), stop.clone());
            let transactor = Transactor { id, places: places(MOVES), routes, done, stop };
            let seed = random.below(u64::MAX);
            transactors.push(scope.spawn(move || transactor.run(seed)));
        }
        let worked = CREW.work(&routes, &recorder, &mut random, |random, faults| {
            let probe = Probe::start(&routes, places(PROBED));
            let mut outages = Vec::new();
            while let Some(fault) = next(random) {
                ensure!(faults.recv_timeout(Duration::from_millis(500)).is_err(), "a client has found a fault");
                let topics = [PROBED, CREW.topic, MOVES, "__consumer_offsets", "__transaction_state"];
                let outage = rig.suffer(fault, &probe, &topics, random)?;
                println!("{outage}");
                outages.push(outage);
            }
            Ok(outages)
        });
        stop.now();
        let ended = transactors.into_iter().try_for_each(|client| client.join().expect("no panic"));
        let worked = worked?;
        ended.map(|()| worked)
    });
    let judged = outages.and_then(|outages| {
        CREW.judge(&routes, &recorder)?;
        done.judge(&routes, &places(MOVES))?;
        println!("{} transactions committed", done.committed());
        ensure!(done.committed() > 0, "a transaction was committed");
        Ok(outages)
    });
    judged.with_context(|| format!("seed {seed}")).inspect_err(|_| {
        println!("{}", rig.printed());
    })
}

fn one_after_the_other(faults: &[Fault]) -> Result<()> {
    with_settings(&[SHORT_LEASE], faults)
}

fn with_settings(settings: &[&str], faults: &[Fault]) -> Result<()> {
    let mut faults = faults.iter().copied();
    let options = RigOptions { settings, disk_mib: 128, lasting: SHORT, seed: 1 };
    suffered(1, options, 0, |_| faults.next()).map(drop)
}

#[test]
fn brokers_that_hang_for_longer_than_their_lease_do_no_harm_when_they_go_on() -> Result<()> {
    alone("brokers_that_hang_for_longer_than_their_lease_do_no_harm_when_they_go_on", || {
        one_after_the_other(&[Fault::LeaderFrozen, Fault::ControllerFrozen, Fault::FollowerFrozen])
    })
}

#[test]
fn no_cut_between_any_two_loses_anything() -> Result<()> {
    alone("no_cut_between_any_two_loses_anything", || {
        one_after_the_other(&[
            Fault::BrokersCut,
            Fault::BrokersCutOneWay,
            Fault::LeaderAlone,
            Fault::EtcdCutFromLeader,
            Fault::EtcdCutOneWay,
            Fault::StoreCutFromLeader,
            Fault::ClientsCut,
            Fault::ClientsCutOneWay,
            Fault::LossAndDelay,
        ])
    })
}

#[test]
fn etcd_the_bucket_and_disks_may_fail_and_brokers_restart_while_clients_go_on() -> Result<()> {
    alone("etcd_the_bucket_and_disks_may_fail_and_brokers_restart_while_clients_go_on", || {
        one_after_the_other(&[
            Fault::EtcdLeaderKilled,
            Fault::EtcdQuorumLost,
            Fault::StoreFrozen,
            Fault::LeaderDiskFull,
            Fault::RollingRestart,
            Fault::ControllerKilled,
        ])
    })
}

#[test]
fn one_of_two_disks_of_a_broker_may_fail_and_both_be_lost_while_clients_go_on() -> Result<()> {
    alone("one_of_two_disks_of_a_broker_may_fail_and_both_be_lost_while_clients_go_on", || {
        one_after_the_other(&[
            Fault::LogDirFails,
            Fault::LeaderReplaced,
            Fault::DataDirHangs,
            // What was lost and is there again serves, too.
            Fault::RollingRestart,
        ])
    })
}

#[test]
fn partitions_move_while_brokers_are_killed_and_are_where_they_were_asked_to_be() -> Result<()> {
    alone("partitions_move_while_brokers_are_killed_and_are_where_they_were_asked_to_be", || {
        one_after_the_other(&[
            Fault::MoveLeaderKilled,
            Fault::MoveTargetKilled,
            Fault::MoveCancelled,
            Fault::LeaderDrainedBesideKill,
        ])
    })
}

#[test]
fn a_broker_is_drained_and_comes_back_and_no_client_is_told_anything_but_who_leads() -> Result<()> {
    alone("a_broker_is_drained_and_comes_back_and_no_client_is_told_anything_but_who_leads", || {
        with_settings(&UNHURRIED, &[Fault::LeaderDrained])
    })
}

/// Faults by chance for `VARVE_FAULTS_MINUTES` (or each of them once if that is 0), from `VARVE_FAULTS_SEED`, a new cluster from time to
/// time, with the default lease, and with another topic of `VARVE_FAULTS_PARTITIONS` partitions. Ends with the longest outage of each kind.
#[test]
#[ignore = "minutes: cargo xtask faults"]
fn every_fault_by_chance() -> Result<()> {
    alone("every_fault_by_chance", || {
        let seed = setting("VARVE_FAULTS_SEED", 1)?;
        let minutes = setting("VARVE_FAULTS_MINUTES", 0)?;
        let wide = i32::try_from(setting("VARVE_FAULTS_PARTITIONS", 0)?)?;
        let only = std::env::var("VARVE_FAULTS_ONLY").unwrap_or_default();
        let chosen: Vec<Fault> =
            Fault::ALL.into_iter().filter(|fault| only.is_empty() || format!("{fault:?}").contains(&only)).collect();
        ensure!(!chosen.is_empty(), "no fault is called {only}");
        let options = |seed| RigOptions { settings: &[], disk_mib: 1024, lasting: Duration::from_secs(12), seed };
        let outages = match minutes {
            0 => {
                let mut each = chosen.into_iter();
                suffered(seed, options(seed), wide, |_| each.next())?
            }
            _ => {
                let mut outages = Vec::new();
                let whole = Duration::from_secs(60 * minutes);
                let (began, rounds) = (Instant::now(), 1 + (minutes - 1) / ROUND_MINUTES);
                for (seed, round) in (seed..).zip(1..=rounds) {
                    let end = whole * round as u32 / rounds as u32;
                    println!("cluster {round} of {rounds}, seed {seed}");
                    outages.extend(suffered(seed, options(seed), wide, |random| {
                        let any = chosen[random.below(chosen.len() as u64) as usize];
                        (began.elapsed() < end).then_some(any)
                    })?);
                }
                outages
            }
        };
        let mut longest: BTreeMap<Fault, (usize, Outage)> = BTreeMap::new();
        for outage in outages {
            let (times, known) = longest.entry(outage.fault).or_insert((0, outage));
            *times += 1;
            if outage.unavailable > known.unavailable {
                *known = outage;
            }
        }
        println!("| What goes wrong | times | not writable for at most |\n|---|---|---|");
        for (fault, (times, outage)) in longest {
            println!("| {fault} | {times} | {:.1} s |", outage.unavailable.as_secs_f64());
        }
        Ok(())
    })
}
