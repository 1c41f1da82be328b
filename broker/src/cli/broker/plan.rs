//! Where the replicas of a broker go that is drained, or why they cannot. Pure: a look at the cluster goes in.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{PartitionView, View};

/// One partition's next replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) topic: String,
    pub(super) index: i32,
    /// Who shall hold it; the first is its preferred leader.
    pub(super) replicas: Vec<i32>,
}

/// What is to be done about one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of topics and numbers.
    pub(super) moves: Vec<Move>,
    /// Partitions that leave it already.
    pub(super) under_way: usize,
    /// Partitions that it leads, and the replica that may lead in its place is in sync.
    pub(super) elections: Vec<(String, i32)>,
    pub(super) refused: Vec<Refusal>,
}

/// Why a partition cannot leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{partition} has {replicas} replicas, and only {left} brokers are left that serve and take new replicas")]
    TooFewBrokers { partition: String, replicas: usize, left: usize },
    #[error("{partition} would have {in_sync} replicas in sync, and min.insync.replicas is {min}")]
    TooFewInSync { partition: String, in_sync: usize, min: usize },
    #[error("{partition} is under-replicated: {lagging:?} of its replicas are not in sync")]
    UnderReplicated { partition: String, lagging: Vec<i32> },
    #[error("{partition} has no leader to copy from")]
    NoLeader { partition: String },
    #[error("{partition} is being moved to this broker: cancel that reassignment first")]
    MovesHere { partition: String },
}

/// Plans the drain of broker `id`. `allow_lagging`: other replicas that are not in sync are no reason to refuse.
pub(super) fn plan(view: &View, id: i32, allow_lagging: bool) -> Plan {
    let mut planner = Planner::new(view, id);
    let mut plan = Plan::default();
    for partition in view.held_by(id) {
        if can_elect(partition, id) {
            plan.elections.push((partition.topic.clone(), partition.index));
        }
        match planner.place(partition, allow_lagging) {
            Ok(Some(replicas)) => {
                plan.moves.push(Move { topic: partition.topic.clone(), index: partition.index, replicas });
            }
            Ok(None) => plan.under_way += 1,
            Err(refusal) => plan.refused.push(refusal),
        }
    }
    plan
}

/// Whether a replica in sync is preferred to broker `id`, which leads.
pub(super) fn can_elect(partition: &PartitionView, id: i32) -> bool {
    let preferred = partition.replicas.first();
    partition.leader == Some(id)
        && preferred.is_some_and(|preferred| *preferred != id && partition.in_sync.contains(preferred))
}

struct Planner<'a> {
    view: &'a View,
    id: i32,
    /// Brokers that replicas may go to, with how many they hold, those that are on their way included.
    holds: BTreeMap<i32, usize>,
    /// How many partitions prefer a broker as their leader.
    leads: BTreeMap<i32, usize>,
}

impl<'a> Planner<'a> {
    fn new(view: &'a View, id: i32) -> Planner<'a> {
        let eligible =
            view.brokers.iter().filter(|(other, broker)| **other != id && !broker.is_fenced && !broker.is_cordoned);
        let mut holds: BTreeMap<i32, usize> = eligible.map(|(id, _)| (*id, 0)).collect();
        let mut leads = BTreeMap::new();
        for partition in &view.partitions {
            let target = partition.replicas.iter().filter(|replica| !partition.removing.contains(replica));
            for (place, replica) in target.enumerate() {
                if let Some(count) = holds.get_mut(replica) {
                    *count += 1;
                }
                if place == 0 {
                    *leads.entry(*replica).or_default() += 1;
                }
            }
        }
        Planner { view, id, holds, leads }
    }

    /// The replicas to ask for; `None`: it is leaving already, and will have left.
    fn place(&mut self, partition: &PartitionView, allow_lagging: bool) -> Result<Option<Vec<i32>>, Refusal> {
        let name = || format!("{}-{}", partition.topic, partition.index);
        let target: Vec<i32> =
            partition.replicas.iter().copied().filter(|replica| !partition.removing.contains(replica)).collect();
        let is_gone = |replica: &i32| self.view.brokers.get(replica).is_none_or(|broker| broker.is_fenced);
        let lost: BTreeSet<i32> = partition.adding.iter().copied().filter(is_gone).collect();
        if !target.contains(&self.id) && lost.is_empty() {
            return Ok(None);
        }
        if partition.adding.contains(&self.id) {
            return Err(Refusal::MovesHere { partition: name() });
        }
        if partition.leader.is_none() {
            return Err(Refusal::NoLeader { partition: name() });
        }
        let stays = |replica: &i32| *replica != self.id && !lost.contains(replica);
        let kept: Vec<i32> = target.iter().copied().filter(stays).collect();
        let newcomers = self.choose(&kept, target.len() - kept.len()).ok_or_else(|| Refusal::TooFewBrokers {
            partition: name(),
            replicas: target.len(),
            left: self.holds.len(),
        })?;
        let is_coming = |replica: &i32| partition.in_sync.contains(replica) || partition.adding.contains(replica);
        let lagging: Vec<i32> = kept.iter().copied().filter(|replica| !is_coming(replica)).collect();
        let in_sync = target.len() - lagging.len();
        // One that asks for more than there are replicas takes no record with or without a drain.
        let min = partition.min_in_sync.min(target.len());
        if in_sync < min {
            return Err(Refusal::TooFewInSync { partition: name(), in_sync, min });
        }
        if !lagging.is_empty() && !allow_lagging {
            return Err(Refusal::UnderReplicated { partition: name(), lagging });
        }
        newcomers.iter().for_each(|newcomer| *self.holds.entry(*newcomer).or_default() += 1);
        Ok(Some(self.ordered(partition, &target, kept, newcomers)))
    }

    /// Brokers for `count` replicas beside `kept`: of other racks if there are, and the emptiest of those.
    fn choose(&self, kept: &[i32], count: usize) -> Option<Vec<i32>> {
        let rack = |id: i32| self.view.brokers.get(&id).and_then(|broker| broker.rack.as_deref());
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let taken: Vec<i32> = kept.iter().chain(&chosen).copied().collect();
            let sharing = |id: i32| taken.iter().filter(|other| rack(**other) == rack(id)).count();
            let free = self.holds.iter().filter(|(id, _)| !taken.contains(id));
            let (best, _) = free.min_by_key(|(id, holds)| (sharing(**id), **holds, **id))?;
            chosen.push(*best);
        }
        Some(chosen)
    }

    /// Who leads stays as it is, unless it was the one that goes: then it is the replica in sync that leads least, so that
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

#[cfg(test)]
mod tests {
    use super::{super::view::BrokerView, *};

    fn cluster(brokers: &[i32]) -> View {
        let brokers = brokers.iter().map(|id| (*id, BrokerView::default()));
        View { brokers: brokers.collect(), partitions: Vec::new() }
    }

    fn partition(index: i32, replicas: &[i32]) -> PartitionView {
        PartitionView {
            topic: "t".to_owned(),
            index,
            leader: replicas.first().copied(),
            replicas: replicas.to_vec(),
            in_sync: replicas.to_vec(),
            min_in_sync: 2.min(replicas.len()),
            ..PartitionView::default()
        }
    }

    fn moves(plan: &Plan) -> Vec<(i32, Vec<i32>)> {
        plan.moves.iter().map(|one| (one.index, one.replicas.clone())).collect()
    }

    #[test]
    fn replicas_go_to_the_emptiest_brokers_and_those_in_sync_lead_by_turns() {
        let mut view = cluster(&[1, 2, 3, 4, 5]);
        view.partitions = vec![
            partition(0, &[1, 2, 3]),
            partition(1, &[1, 2, 3]),
            partition(2, &[2, 1, 3]),
            partition(3, &[4, 2, 3]),
        ];
        let plan = plan(&view, 1, false);
        assert_eq!(plan.refused, []);
        assert_eq!(moves(&plan), [(0, vec![3, 2, 5]), (1, vec![2, 3, 4]), (2, vec![2, 3, 5])]);
        assert_eq!(plan.elections, [], "it is preferred itself until its partitions are reassigned");
    }

    #[test]
    fn a_replica_goes_to_a_rack_that_has_none_yet() {
        let mut view = cluster(&[1, 2, 3, 4]);
        for (id, rack) in [(1, "a"), (2, "b"), (3, "b"), (4, "a")] {
            view.brokers.get_mut(&id).unwrap().rack = Some(rack.to_owned());
        }
        view.partitions = vec![partition(0, &[1, 2]), partition(1, &[4, 2]), partition(2, &[4, 3])];
        assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 4])], "although broker 3 holds less");
    }

    #[test]
    fn a_drain_leaves_brokers_enough_or_does_not_begin() {
        let mut view = cluster(&[1, 2, 3]);
        view.partitions = vec![partition(0, &[1, 2, 3]), partition(1, &[1, 2])];
        let refused = Refusal::TooFewBrokers { partition: "t-0".to_owned(), replicas: 3, left: 2 };
        let plan_now = plan(&view, 1, true);
        assert_eq!((moves(&plan_now), plan_now.refused), (vec![(1, vec![2, 3])], vec![refused]));
        view.partitions.remove(0);
        for cannot in [
            BrokerView { is_fenced: true, ..Default::default() },
            BrokerView { is_cordoned: true, ..Default::default() },
        ] {
            view.brokers.insert(3, cannot);
            assert!(matches!(plan(&view, 1, true).refused[..], [Refusal::TooFewBrokers { left: 1, .. }]));
        }
    }

    #[test]
    fn a_partition_that_lacks_replicas_already_is_left_alone() {
        let mut view = cluster(&[1, 2, 3, 4]);
        view.partitions = vec![PartitionView { in_sync: vec![1, 2], ..partition(0, &[1, 2, 3]) }];
        let lagging = Refusal::UnderReplicated { partition: "t-0".to_owned(), lagging: vec![3] };
        assert_eq!(plan(&view, 1, false).refused, [lagging]);
        assert_eq!(moves(&plan(&view, 1, true)), [(0, vec![2, 3, 4])]);
        view.partitions[0].min_in_sync = 3;
        let too_few = Refusal::TooFewInSync { partition: "t-0".to_owned(), in_sync: 2, min: 3 };
        assert_eq!(plan(&view, 1, true).refused, [too_few], "whatever is allowed");
        view.partitions[0] = PartitionView { leader: None, in_sync: vec![], ..partition(0, &[1, 2, 3]) };
        assert!(matches!(plan(&view, 1, true).refused[..], [Refusal::NoLeader { .. }]));
    }

    #[test]
    fn a_broker_that_is_down_is_drained_from_those_that_are_in_sync() {
        let mut view = cluster(&[1, 2, 3, 4]);
        view.brokers.get_mut(&1).unwrap().is_fenced = true;
        view.partitions = vec![PartitionView { leader: Some(2), in_sync: vec![2, 3], ..partition(0, &[1, 2, 3]) }];
        assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 3, 4])]);
    }

    #[test]
    fn what_is_under_way_goes_on_and_is_planned_anew_when_its_target_is_gone() {
        let mut view = cluster(&[1, 2, 3, 4, 5]);
        let moving = PartitionView {
            replicas: vec![2, 3, 4, 1],
            in_sync: vec![1, 2, 3],
            leader: Some(1),
            adding: vec![4],
            removing: vec![1],
            ..partition(0, &[1, 2, 3])
        };
        view.partitions = vec![moving];
        let under_way = plan(&view, 1, false);
        assert_eq!((under_way.under_way, under_way.moves.len(), under_way.refused.len()), (1, 0, 0));
        assert_eq!(under_way.elections, [("t".to_owned(), 0)]);
        view.brokers.get_mut(&4).unwrap().is_fenced = true;
        assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2, 3, 5])]);
    }

    #[test]
    fn what_somebody_moves_to_the_broker_is_for_somebody_to_cancel() {
        let mut view = cluster(&[1, 2, 3]);
        view.partitions =
            vec![PartitionView { replicas: vec![1, 2], adding: vec![1], in_sync: vec![2], ..partition(0, &[2]) }];
        assert!(matches!(plan(&view, 1, true).refused[..], [Refusal::MovesHere { .. }]));
    }

    #[test]
    fn a_partition_of_one_replica_moves_to_a_newcomer() {
        let mut view = cluster(&[1, 2]);
        view.partitions = vec![partition(0, &[1])];
        assert_eq!(moves(&plan(&view, 1, false)), [(0, vec![2])]);
    }
}
