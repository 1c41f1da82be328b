//! What can go wrong, and how it is made to.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{BROKER, CLIENT, ETCD, MEMBERS, Rig, STORE, directories, moves};
use crate::{history::Place, network::Path, node::eventually, workload::Random};

/// What a network loses that is in trouble, and how slow it is.
const WEATHER: Path =
    Path { is_cut: false, lost_of_1000: 20, delay: Duration::from_millis(20), jitter: Duration::from_millis(20) };

/// A partition that takes nothing for so many times as long as something goes wrong, and this time, is stuck. Leases, laggards and
/// a coordinator's patience end within less, also on a machine with much else to do.
const STUCK_TIMES: u32 = 3;
const STUCK_AFTER: Duration = Duration::from_secs(40);

/// One thing that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader of a partition is killed; it is started again when others lead.
    LeaderKilled,
    /// A follower is killed.
    FollowerKilled,
    /// The controller is killed.
    ControllerKilled,
    /// The leader hangs for longer than its lease, and goes on then.
    LeaderFrozen,
    /// A follower does.
    FollowerFrozen,
    /// The controller does.
    ControllerFrozen,
    /// Each broker is stopped in order and started again.
    RollingRestart,
    /// Two brokers do not reach each other.
    BrokersCut,
    /// Packets of a leader do not reach a follower, but the other way round they do.
    BrokersCutOneWay,
    /// A leader reaches neither the other brokers nor etcd, but clients do reach it.
    LeaderAlone,
    /// A leader does not reach etcd.
    EtcdCutFromLeader,
    /// The answers of etcd do not reach a leader.
    EtcdCutOneWay,
    /// Two members of etcd do not reach each other.
    EtcdMembersCut,
    /// No broker reaches the object store.
    StoreCut,
    /// A leader does not reach the object store.
    StoreCutFromLeader,
    /// Clients do not reach a leader.
    ClientsCut,
    /// A leader's answers do not reach clients.
    ClientsCutOneWay,
    /// Everything loses packets and is slow.
    LossAndDelay,
    /// The leader of etcd is killed.
    EtcdLeaderKilled,
    /// The leader of etcd hangs.
    EtcdLeaderFrozen,
    /// Two of three members of etcd are killed.
    EtcdQuorumLost,
    /// The object store hangs.
    StoreFrozen,
    /// The disk of a leader is full.
    LeaderDiskFull,
    /// The disk of a follower is full.
    FollowerDiskFull,
    /// One of a leader's two log directories fails; it is there again when the broker is started anew.
    LogDirFails,
    /// The same, and the broker cannot write down what its next life has to know: its data directory hangs.
    DataDirHangs,
    /// A leader is killed, and another broker takes its place, with its number and empty disks.
    LeaderReplaced,
    /// What a broker holds moves to another one, and a leader is killed in the middle.
    MoveLeaderKilled,
    /// The same, and it is the broker to which everything moves that is killed.
    MoveTargetKilled,
    /// A leader is killed, and the move is cancelled.
    MoveCancelled,
    /// A leader is drained, stopped, and gets back what it held.
    LeaderDrained,
    /// A leader is drained, and another broker is killed meanwhile.
    LeaderDrainedBesideKill,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 32] = [
        Fault::LeaderKilled,
        Fault::FollowerKilled,
        Fault::ControllerKilled,
        Fault::LeaderFrozen,
        Fault::FollowerFrozen,
        Fault::ControllerFrozen,
        Fault::RollingRestart,
        Fault::BrokersCut,
        Fault::BrokersCutOneWay,
        Fault::LeaderAlone,
        Fault::EtcdCutFromLeader,
        Fault::EtcdCutOneWay,
        Fault::EtcdMembersCut,
        Fault::StoreCut,
        Fault::StoreCutFromLeader,
        Fault::ClientsCut,
        Fault::ClientsCutOneWay,
        Fault::LossAndDelay,
        Fault::EtcdLeaderKilled,
        Fault::EtcdLeaderFrozen,
        Fault::EtcdQuorumLost,
        Fault::StoreFrozen,
        Fault::LeaderDiskFull,
        Fault::FollowerDiskFull,
        Fault::LogDirFails,
        Fault::DataDirHangs,
        Fault::LeaderReplaced,
        Fault::MoveLeaderKilled,
        Fault::MoveTargetKilled,
        Fault::MoveCancelled,
        Fault::LeaderDrained,
        Fault::LeaderDrainedBesideKill,
    ];

    fn text(self) -> &'static str {
        match self {
            Fault::LeaderKilled => "a leader is killed",
            Fault::FollowerKilled => "a follower is killed",
            Fault::ControllerKilled => "the controller is killed",
            Fault::LeaderFrozen => "a leader hangs",
            Fault::FollowerFrozen => "a follower hangs",
            Fault::ControllerFrozen => "the controller hangs",
            Fault::RollingRestart => "one broker after the other is restarted in order",
            Fault::BrokersCut => "two brokers do not reach each other",
            Fault::BrokersCutOneWay => "a leader's packets do not reach a follower",
            Fault::LeaderAlone => "a leader reaches clients only",
            Fault::EtcdCutFromLeader => "a leader does not reach etcd",
            Fault::EtcdCutOneWay => "etcd's packets do not reach a leader",
            Fault::EtcdMembersCut => "two members of etcd do not reach each other",
            Fault::StoreCut => "no broker reaches the bucket",
            Fault::StoreCutFromLeader => "a leader does not reach the bucket",
            Fault::ClientsCut => "clients do not reach a leader",
            Fault::ClientsCutOneWay => "a leader's packets do not reach clients",
            Fault::LossAndDelay => "2 % of all packets are lost, the others take 20 to 40 ms",
            Fault::EtcdLeaderKilled => "etcd's leader is killed",
            Fault::EtcdLeaderFrozen => "etcd's leader hangs",
            Fault::EtcdQuorumLost => "two of etcd's three members are killed",
            Fault::StoreFrozen => "the bucket hangs",
            Fault::LeaderDiskFull => "a leader's disk is full",
            Fault::FollowerDiskFull => "a follower's disk is full",
            Fault::LogDirFails => "one of a leader's log directories fails",
            Fault::DataDirHangs => "one of a leader's log directories fails while its data directory hangs",
            Fault::LeaderReplaced => "a leader is killed, and comes back with empty disks",
            Fault::MoveLeaderKilled => "partitions move to another broker, and a leader is killed meanwhile",
            Fault::MoveTargetKilled => "partitions move to another broker, which is killed meanwhile",
            Fault::MoveCancelled => "partitions move to another broker, a leader is killed, and the move is cancelled",
            Fault::LeaderDrained => "a leader is drained, stopped, and gets back what it held",
            Fault::LeaderDrainedBesideKill => "a leader is drained, and another broker is killed meanwhile",
        }
    }

    /// Makes it happen to whom it may concern of the first topic's partitions, and ends it. What moves is of all these topics.
    pub(super) fn happen(self, rig: &mut Rig, topics: &[&str], random: &mut Random) -> Result<()> {
        let topic = *topics.first().context("a topic")?;
        let partitions = rig.cluster.describe(topic)?.len() as u64;
        let place = Place { topic: topic.to_owned(), partition: random.below(partitions) as i32 };
        let leader = rig.leader(&place)?;
        let follower = (leader + 1 + random.below(MEMBERS as u64 - 1) as usize) % MEMBERS;
        match self {
            Fault::LeaderKilled => killed(rig, leader),
            Fault::FollowerKilled => killed(rig, follower),
            Fault::ControllerKilled => killed(rig, rig.controller()?),
            Fault::LeaderFrozen => frozen(rig, leader),
            Fault::FollowerFrozen => frozen(rig, follower),
            Fault::ControllerFrozen => frozen(rig, rig.controller()?),
            Fault::RollingRestart => restarted(rig, topic),
            Fault::BrokersCut => cut(rig, &[(BROKER + leader, BROKER + follower)], true),
            Fault::BrokersCutOneWay => cut(rig, &[(BROKER + leader, BROKER + follower)], false),
            Fault::LeaderAlone => {
                let others = (BROKER..BROKER + MEMBERS).filter(|at| *at != BROKER + leader);
                let all: Vec<_> = others.chain(ETCD..ETCD + MEMBERS).map(|at| (BROKER + leader, at)).collect();
                cut(rig, &all, true)
            }
            Fault::EtcdCutFromLeader => cut(rig, &from_etcd(leader), true),
            Fault::EtcdCutOneWay => cut(rig, &from_etcd(leader), false),
            Fault::EtcdMembersCut => {
                let one = rig.etcd_leader()?;
                cut(rig, &[(ETCD + one, ETCD + (one + 1) % MEMBERS)], true)
            }
            Fault::StoreCut => {
                let all: Vec<_> = (BROKER..BROKER + MEMBERS).map(|at| (at, STORE)).collect();
                cut(rig, &all, true)
            }
            Fault::StoreCutFromLeader => cut(rig, &[(BROKER + leader, STORE)], true),
            Fault::ClientsCut => cut(rig, &[(CLIENT, BROKER + leader)], true),
            Fault::ClientsCutOneWay => cut(rig, &[(BROKER + leader, CLIENT)], false),
            Fault::LossAndDelay => {
                for one in 0..=STORE {
                    (one + 1..=STORE).for_each(|other| rig.network.router.set_between(one, other, WEATHER));
                }
                last(rig);
                rig.network.router.heal();
                Ok(())
            }
            Fault::EtcdLeaderKilled => etcd_killed(rig, 1),
            Fault::EtcdLeaderFrozen => {
                let at = rig.etcd_leader()?;
                rig.cluster.etcd[at].freeze()?;
                last(rig);
                rig.cluster.etcd[at].thaw()
            }
            Fault::EtcdQuorumLost => etcd_killed(rig, 2),
            Fault::StoreFrozen => {
                rig.store.freeze(true)?;
                last(rig);
                rig.store.freeze(false)
            }
            Fault::LeaderDiskFull => filled(rig, leader, &place),
            Fault::FollowerDiskFull => filled(rig, follower, &place),
            Fault::LogDirFails => directories::fails(rig, leader, &place),
            Fault::DataDirHangs => directories::fails_beside_one_that_hangs(rig, leader, &place),
            Fault::LeaderReplaced => directories::replaced(rig, leader),
            Fault::MoveLeaderKilled => moves::leader_killed(rig, topics, leader, random),
            Fault::MoveTargetKilled => moves::target_killed(rig, topics, leader, random),
            Fault::MoveCancelled => moves::cancelled(rig, topics, leader, random),
            Fault::LeaderDrained => moves::drained(rig, leader),
            Fault::LeaderDrainedBesideKill => moves::drained_while_another_is_killed(rig, leader, random),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.text())
    }
}

/// What a fault did to clients.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Which.
    pub fault: Fault,
    /// The longest time in which some partition took nothing.
    pub unavailable: Duration,
    /// How long the fault lasted.
    pub lasted: Duration,
    /// How long after that all was as before.
    pub whole_after: Duration,
}

impl Outage {
    /// Whether partitions took records again when they could: no measure of speed, for which machines are too different. What takes
    /// longer than this has waited for something that did not come.
    ///
    /// # Errors
    /// One was stuck.
    pub(super) fn judge(&self) -> Result<()> {
        // A broker that is drained goes on serving.
        let wrong = if self.fault == Fault::LeaderDrained { Duration::ZERO } else { self.lasted };
        let most = STUCK_AFTER + STUCK_TIMES * wrong;
        ensure!(self.unavailable <= most, "a partition was stuck, which is more than {most:?}: {self}");
        Ok(())
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outage { fault, unavailable, lasted, whole_after } = self;
        write!(
            out,
            "{fault}: for {:.1} s; not writable for {:.2} s at most; whole {:.1} s after its end",
            lasted.as_secs_f64(),
            unavailable.as_secs_f64(),
            whole_after.as_secs_f64()
        )
    }
}

/// Lets what goes wrong last.
pub(super) fn last(rig: &Rig) {
    let until = Instant::now() + rig.lasting;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

fn killed(rig: &mut Rig, at: usize) -> Result<()> {
    rig.cluster.kill(at);
    last(rig);
    rig.cluster.start_all(&[at])
}

fn frozen(rig: &mut Rig, at: usize) -> Result<()> {
    rig.cluster.node(at).freeze(true)?;
    last(rig);
    rig.cluster.node(at).freeze(false)
}

fn restarted(rig: &mut Rig, topic: &str) -> Result<()> {
    for at in 0..MEMBERS {
        rig.cluster.stop(at).with_context(|| format!("broker {at} stops"))?;
        rig.cluster.start_all(&[at])?;
        rig.cluster.await_isr(topic, MEMBERS)?;
    }
    Ok(())
}

/// What etcd sends to a broker.
fn from_etcd(broker: usize) -> Vec<(usize, usize)> {
    (ETCD..ETCD + MEMBERS).map(|member| (member, BROKER + broker)).collect()
}

/// From one host to another, or both ways.
fn cut(rig: &Rig, pairs: &[(usize, usize)], both_ways: bool) -> Result<()> {
    let path = Path { is_cut: true, ..Path::default() };
    for &(from, to) in pairs {
        rig.network.router.set(from, to, path);
        if both_ways {
            rig.network.router.set(to, from, path);
        }
    }
    last(rig);
    rig.network.router.heal();
    Ok(())
}

fn etcd_killed(rig: &mut Rig, count: usize) -> Result<()> {
    let first = rig.etcd_leader()?;
    let members: Vec<usize> = (0..count).map(|at| (first + at) % MEMBERS).collect();
    members.iter().for_each(|&at| rig.cluster.etcd[at].kill());
    last(rig);
    for at in members {
        rig.cluster.etcd[at].relaunch()?;
    }
    rig.etcd_leader().map(drop)
}

/// The disk with the partition has no room until others lead what that broker led.
fn filled(rig: &Rig, at: usize, place: &Place) -> Result<()> {
    let (disk, _) = rig.disks[at].of(place)?;
    disk.fill()?;
    last(rig);
    eventually(&format!("others lead than broker {at}, whose disk is full"), || {
        let described = rig.cluster.look(&place.topic);
        let is_led = !described.is_empty() && described.iter().all(|one| one.leader.is_some_and(|leader| leader != at));
        Ok(is_led.then_some(()))
    })?;
    disk.free()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_much_longer_than_anything_is_wrong_is_stuck() {
        let judged = |fault, unavailable, lasted| {
            let [unavailable, lasted] = [unavailable, lasted].map(Duration::from_secs);
            Outage { fault, unavailable, lasted, whole_after: Duration::ZERO }.judge().is_ok()
        };
        assert!(judged(Fault::LeaderKilled, 52, 4));
        assert!(!judged(Fault::LeaderKilled, 53, 4));
        assert!(!judged(Fault::LeaderDrained, 41, 600), "it serves all the time");
    }
}
