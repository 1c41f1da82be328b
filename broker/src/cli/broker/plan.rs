//! Where the replicas of brokers go that are drained, or why they cannot. Pure: a look at the cluster goes in.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{PartitionView, View};

/// One partition's next replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) topic: String,
    pub(super) index: i32,
    /// Who shall hold it; the first is its preferred leader.
    pub(super) replicas: Vec<i32>,
    /// Those of the leaving brokers that hold it.
    pub(super) from: Vec<i32>,
}

/// What is to be done about the brokers that leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of topics and numbers.
    pub(super) moves: Vec<Move>,
    /// Partitions that leave all of them already.
    pub(super) under_way: usize,
    /// Partitions that one of them leads, and the replica that may lead in its place is in sync.
    pub(super) elections: Vec<(String, i32)>,
    pub(super) refused: Vec<Refusal>,
}

/// A partition that cannot leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{partition} {why}")]
pub(super) struct Refusal {
    pub(super) partition: String,
    /// Those of the leaving brokers that hold it.
    pub(super) held_by: Vec<i32>,
    pub(super) why: Why,
}

/// Why it cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    #[error(
        "has {replicas} replicas, and only {left} brokers are left that serve and take new replicas{}",
        listed(out)
    )]
    TooFewBrokers {
        replicas: usize,
        left: usize,
        /// Brokers that do not leave and get no replicas all the same.
        out: Vec<LeftOut>,
    },
    #[error(
        "is held in the racks {before:?}, and the brokers that are left would hold it in {after:?} alone{} (to move it all \
         the same: --allow-fewer-racks)",
        listed(out)
    )]
    FewerRacks { before: Vec<String>, after: Vec<String>, out: Vec<LeftOut> },
    #[error("would have {in_sync} replicas in sync, and min.insync.replicas is {min}")]
    TooFewInSync { in_sync: usize, min: usize },
    #[error("is under-replicated: {lagging:?} of its replicas are not in sync")]
    UnderReplicated { lagging: Vec<i32> },
    #[error("has no leader to copy from")]
    NoLeader,
    #[error("is being moved to broker {0}, which leaves: cancel that reassignment first")]
    MovesHere(i32),
}

impl Why {
    /// Whether it would not be so if another broker took new replicas.
    pub(super) fn is_for_want_of_brokers(&self) -> bool {
        match self {
            Why::TooFewBrokers { .. } | Why::FewerRacks { .. } => true,
            Why::TooFewInSync { .. } | Why::UnderReplicated { .. } | Why::NoLeader | Why::MovesHere(_) => false,
        }
    }
}

/// A broker that gets no replicas although it does not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeftOut {
    #[error("broker {0} does not serve")]
    Fenced(i32),
    #[error("broker {0} does not answer")]
    Silent(i32),
    #[error(
        "broker {0} takes none: it is drained too, or was (varve broker undrain {0}; or, to leave there what it has, --allow-cordoned)"
    )]
    Cordoned(i32),
}

fn listed(out: &[LeftOut]) -> String {
    match out {
        [] => String::new(),
        out => format!("; {}", out.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// What may be worse afterwards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    /// Other replicas that are not in sync are no reason to refuse.
    pub(super) lagging: bool,
    /// Nor is it that replicas would share a rack which did not.
    pub(super) fewer_racks: bool,
    /// Brokers that take no new replicas keep those that they have: nobody drains them.
    pub(super) cordoned: bool,
}

/// Plans the drain of the brokers `leaving`, as one: nothing goes from one of them to another.
pub(super) fn plan(view: &View, leaving: &BTreeSet<i32>, allowed: Allowed) -> Plan {
    let mut planner = Planner::new(view, leaving, allowed);
    let mut plan = Plan::default();
    for partition in &view.partitions {
        let held_by: Vec<i32> = leaving.iter().copied().filter(|id| partition.replicas.contains(id)).collect();
        if held_by.is_empty() {
            continue;
        }
        if can_elect(partition, leaving) {
            plan.elections.push((partition.topic.clone(), partition.index));
        }
        match planner.place(partition) {
            Ok(Some(replicas)) => {
                let (topic, index) = (partition.topic.clone(), partition.index);
                plan.moves.push(Move { topic, index, replicas, from: held_by });
            }
            Ok(None) => plan.under_way += 1,
            Err(why) => {
                let partition = format!("{}-{}", partition.topic, partition.index);
                plan.refused.push(Refusal { partition, held_by, why });
            }
        }
    }
    plan
}

/// Whether one that leaves leads, and a replica in sync that stays is preferred to it.
pub(super) fn can_elect(partition: &PartitionView, leaving: &BTreeSet<i32>) -> bool {
    let preferred = partition.replicas.first();
    partition.leader.is_some_and(|leader| leaving.contains(&leader))
        && preferred.is_some_and(|preferred| !leaving.contains(preferred) && partition.in_sync.contains(preferred))
}

/// Brokers that neither leave nor get replicas.
pub(super) fn left_out(view: &View, leaving: &BTreeSet<i32>) -> Vec<LeftOut> {
    let others = view.brokers.iter().filter(|(id, _)| !leaving.contains(id));
    let out = others.filter_map(|(id, broker)| match broker {
        broker if broker.is_fenced => Some(LeftOut::Fenced(*id)),
        broker if broker.is_silent => Some(LeftOut::Silent(*id)),
        broker if broker.is_cordoned => Some(LeftOut::Cordoned(*id)),
        _ => None,
    });
    out.collect()
}

struct Planner<'a> {
    view: &'a View,
    leaving: &'a BTreeSet<i32>,
    allowed: Allowed,
    /// Brokers that replicas may go to, with how many they hold, those that are on their way included.
    holds: BTreeMap<i32, usize>,
    /// How many partitions prefer a broker as their leader.
    leads: BTreeMap<i32, usize>,
}

impl<'a> Planner<'a> {
    fn new(view: &'a View, leaving: &'a BTreeSet<i32>, allowed: Allowed) -> Planner<'a> {
        let eligible = view.brokers.iter().filter(|(id, broker)| !leaving.contains(id) && broker.takes_replicas());
        let mut holds: BTreeMap<i32, usize> = eligible.map(|(id, _)| (*id, 0)).collect();
        let mut leads = BTreeMap::new();
        for partition in &view.partitions {
            for (place, replica) in target(partition).iter().enumerate() {
                if let Some(count) = holds.get_mut(replica) {
                    *count += 1;
                }
                if place == 0 {
                    *leads.entry(*replica).or_default() += 1;
                }
            }
        }
        Planner { view, leaving, allowed, holds, leads }
    }

    /// The replicas to ask for; `None`: it is leaving already, and will have left.
    fn place(&mut self, partition: &PartitionView) -> Result<Option<Vec<i32>>, Why> {
        let target = target(partition);
        let lost: BTreeSet<i32> = partition.adding.iter().copied().filter(|id| self.is_gone(*id)).collect();
        if lost.is_empty() && !target.iter().any(|id| self.leaving.contains(id)) {
            return Ok(None);
        }
        if let Some(id) = partition.adding.iter().find(|id| self.leaving.contains(id))
            && !self.is_of_a_drain(partition)
        {
            return Err(Why::MovesHere(*id));
        }
        if partition.leader.is_none() {
            return Err(Why::NoLeader);
        }
        let stays = |replica: &i32| !self.leaving.contains(replica) && !lost.contains(replica);
        let kept: Vec<i32> = target.iter().copied().filter(stays).collect();
        let too_few = || Why::TooFewBrokers {
            replicas: target.len(),
            left: self.holds.len(),
            out: left_out(self.view, self.leaving),
        };
        // Another command may drain a broker that is kept here: there must be room for that replica, too, and racks enough.
        let lasting: Vec<i32> =
            kept.iter().copied().filter(|id| self.allowed.cordoned || !self.is_cordoned(*id)).collect();
        let in_the_end = self.choose(&lasting, target.len() - lasting.len()).ok_or_else(too_few)?;
        self.keep_racks(&target, &lost, &lasting, &in_the_end)?;
        let newcomers = self.choose(&kept, target.len() - kept.len()).ok_or_else(too_few)?;
        self.keep_racks(&target, &lost, &kept, &newcomers)?;
        let is_coming = |replica: &i32| partition.in_sync.contains(replica) || partition.adding.contains(replica);
        let lagging: Vec<i32> = kept.iter().copied().filter(|replica| !is_coming(replica)).collect();
        let in_sync = target.len() - lagging.len();
        // One that asks for more than there are replicas takes no record with or without a drain.
        let min = partition.min_in_sync.min(target.len());
        if in_sync < min {
            return Err(Why::TooFewInSync { in_sync, min });
        }
        if !lagging.is_empty() && !self.allowed.lagging {
            return Err(Why::UnderReplicated { lagging });
        }
        newcomers.iter().for_each(|newcomer| *self.holds.entry(*newcomer).or_default() += 1);
        Ok(Some(self.ordered(partition, &target, kept, newcomers)))
    }

    fn is_gone(&self, id: i32) -> bool {
        self.view.brokers.get(&id).is_none_or(|broker| broker.is_fenced)
    }

    /// Whether it leaves a broker that is drained, here or by another command: then it may be sent elsewhere than it was, which
    /// is not for a move that somebody asked for by name.
    fn is_of_a_drain(&self, partition: &PartitionView) -> bool {
        partition.removing.iter().any(|id| self.leaving.contains(id) || self.is_cordoned(*id))
    }

    fn is_cordoned(&self, id: i32) -> bool {
        self.view.brokers.get(&id).is_some_and(|broker| broker.is_cordoned)
    }

    fn rack(&self, id: i32) -> Option<&'a str> {
        self.view.brokers.get(&id).and_then(|broker| broker.rack.as_deref())
    }

    /// Brokers for `count` replicas beside `kept`: of other racks if there are, and the emptiest of those.
    fn choose(&self, kept: &[i32], count: usize) -> Option<Vec<i32>> {
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let taken: Vec<i32> = kept.iter().chain(&chosen).copied().collect();
            let sharing = |id: i32| taken.iter().filter(|other| self.rack(**other) == self.rack(id)).count();
            let free = self.holds.iter().filter(|(id, _)| !taken.contains(id));
            let (best, _) = free.min_by_key(|(id, holds)| (sharing(**id), **holds, **id))?;
            chosen.push(*best);
        }
        Some(chosen)
    }

    /// A partition is in as many racks afterwards as it is now. What a broker held that is gone is lost already, rack and all.
    fn keep_racks(&self, target: &[i32], lost: &BTreeSet<i32>, kept: &[i32], newcomers: &[i32]) -> Result<(), Why> {
        let racks =
            |ids: &mut dyn Iterator<Item = i32>| -> BTreeSet<&str> { ids.filter_map(|id| self.rack(id)).collect() };
        let is_lost = |id: &i32| lost.contains(id) || self.leaving.contains(id) && self.is_gone(*id);
        let before = racks(&mut target.iter().copied().filter(|id| !is_lost(id)));
        let after = racks(&mut kept.iter().chain(newcomers).copied());
        if self.allowed.fewer_racks || after.len() >= before.len() {
            return Ok(());
        }
        let owned = |racks: BTreeSet<&str>| racks.into_iter().map(str::to_owned).collect();
        let out = left_out(self.view, self.leaving);
        Err(Why::FewerRacks { before: owned(before), after: owned(after), out })
    }

    /// Who leads stays as it is, unless it was one that goes: then it is the replica in sync that leads least, so that
    /// leadership can move before a newcomer has its copy.
    fn ordered(&mut self, partition: &PartitionView, target: &[i32], kept: Vec<i32>, newcomers: Vec<i32>) -> Vec<i32> {
        let mut replicas: Vec<i32> = kept.iter().chain(&newcomers).copied().collect();
        if target.first().is_some_and(|first| !kept.contains(first)) {
            let led = |id: &i32| self.leads.get(id).copied().unwrap_or_default();
            let in_sync = kept.iter().filter(|replica| partition.in_sync.contains(replica));
            let first = in_sync.min_by_key(|id| led(id)).copied().or_else(|| newcomers.first().copied());
            if let Some(first) = first {
                replicas.sort_by_key(|replica| *replica != first);
                *self.leads.entry(first).or_default() += 1;
            }
        }
        replicas
    }
}

/// Who shall hold it once nothing moves.
fn target(partition: &PartitionView) -> Vec<i32> {
    partition.replicas.iter().copied().filter(|replica| !partition.removing.contains(replica)).collect()
}
