//! `uniform`, where members subscribe to different topics: first everybody keeps what it has, then what is free goes to
//! whoever has least, then partitions move from those with most to those with least until no topic has anything to gain.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, TopicId};

use super::{Division, PartitionSet};

/// Rounds over all topics. Where subscriptions overlap without being equal, moves of one topic unsettle another; each
/// round about halves what is left, so that this many are enough for any group that a coordinator can hold.
const ROUNDS: usize = 16;

/// A member, by its place in the order of ids.
type Place = usize;

struct Balance<'a> {
    division: &'a Division,
    /// Who may have the topic's partitions.
    subscribers: BTreeMap<TopicId, Vec<Place>>,
    /// Who has which partitions of a topic.
    owned: BTreeMap<TopicId, BTreeMap<Place, BTreeSet<PartitionIndex>>>,
    /// How many partitions each member has, of all topics.
    loads: Vec<usize>,
}

pub(super) fn assign(division: &Division) -> BTreeMap<String, PartitionSet> {
    let mut balance = Balance {
        division,
        subscribers: BTreeMap::new(),
        owned: BTreeMap::new(),
        loads: vec![0; division.members.len()],
    };
    for (place, member) in division.members.values().enumerate() {
        for topic in &member.topics {
            balance.subscribers.entry(*topic).or_default().push(place);
        }
    }
    let free = balance.keep();
    let order = balance.topics_by_density();
    for topic in &order {
        balance.give(*topic, free.get(topic).map_or(&[], Vec::as_slice));
    }
    for _ in 0..ROUNDS {
        let moved: usize = order.iter().map(|topic| balance.level(*topic)).sum();
        if moved == 0 {
            break;
        }
    }
    balance.into_targets()
}

impl Balance<'_> {
    /// Leaves everybody what it has and still subscribes to; returns what nobody has.
    fn keep(&mut self) -> BTreeMap<TopicId, Vec<PartitionIndex>> {
        let mut taken: BTreeSet<(TopicId, PartitionIndex)> = BTreeSet::new();
        for (place, member) in self.division.members.values().enumerate() {
            for (topic, partitions) in member.target.iter().filter(|(topic, _)| member.topics.contains(topic)) {
                let count = self.division.partitions(*topic);
                for partition in partitions.iter().filter(|partition| partition.0 < count) {
                    if taken.insert((*topic, *partition)) {
                        self.own(*topic, place, *partition);
                    }
                }
            }
        }
        let free = self.subscribers.keys().map(|topic| {
            let all = (0..self.division.partitions(*topic)).map(PartitionIndex);
            (*topic, all.filter(|partition| !taken.contains(&(*topic, *partition))).collect())
        });
        free.collect()
    }

    /// Topics whose subscribers have least choice first: most partitions for each, then fewest subscribers.
    fn topics_by_density(&self) -> Vec<TopicId> {
        let mut topics: Vec<(TopicId, u64, u64)> = self
            .subscribers
            .iter()
            .map(|(topic, who)| (*topic, u64::from(self.division.partitions(*topic)), who.len() as u64))
            .collect();
        // a/b > c/d without a division.
        topics.sort_by(|(id, partitions, who), (other_id, other_partitions, other_who)| {
            let density = (other_partitions * who).cmp(&(partitions * other_who));
            density.then(who.cmp(other_who)).then(id.cmp(other_id))
        });
        topics.into_iter().map(|(topic, ..)| topic).collect()
    }

    /// Gives free partitions to the subscribers that have least.
    fn give(&mut self, topic: TopicId, free: &[PartitionIndex]) {
        let Some(subscribers) = self.subscribers.get(&topic).filter(|_| !free.is_empty()) else { return };
        let mut by_load: BTreeSet<(usize, Place)> =
            subscribers.iter().map(|place| (self.loads[*place], *place)).collect();
        for partition in free {
            let Some((load, place)) = by_load.pop_first() else { return };
            self.own(topic, place, *partition);
            by_load.insert((load + 1, place));
        }
    }

    /// Moves the topic's partitions until its subscribers differ by one at most, or those with most have none of this topic
    /// to give. Returns how many moved.
    fn level(&mut self, topic: TopicId) -> usize {
        let Some(subscribers) = self.subscribers.get(&topic).filter(|who| who.len() > 1) else { return 0 };
        let mut least: BTreeSet<(usize, Place)> =
            subscribers.iter().map(|place| (self.loads[*place], *place)).collect();
        let owned = self.owned.entry(topic).or_default();
        let mut most: BTreeSet<(usize, Place)> =
            least.iter().filter(|(_, place)| owned.contains_key(place)).copied().collect();
        let mut moved = 0;
        while let (Some((high, from)), Some((low, to))) = (most.last().copied(), least.first().copied()) {
            if high <= low + 1 {
                break;
            }
            let Some(partition) = owned.get_mut(&from).and_then(BTreeSet::pop_last) else { break };
            owned.entry(to).or_default().insert(partition);
            most.remove(&(high, from));
            least.remove(&(high, from));
            if owned.get(&from).is_some_and(|partitions| !partitions.is_empty()) {
                most.insert((high - 1, from));
            } else {
                owned.remove(&from);
            }
            least.insert((high - 1, from));
            least.remove(&(low, to));
            most.remove(&(low, to));
            least.insert((low + 1, to));
            most.insert((low + 1, to));
            self.loads[from] -= 1;
            self.loads[to] += 1;
            moved += 1;
        }
        moved
    }

    fn own(&mut self, topic: TopicId, place: Place, partition: PartitionIndex) {
        self.owned.entry(topic).or_default().entry(place).or_default().insert(partition);
        self.loads[place] += 1;
    }

    fn into_targets(self) -> BTreeMap<String, PartitionSet> {
        let mut targets = vec![PartitionSet::new(); self.loads.len()];
        for (topic, owners) in self.owned {
            for (place, partitions) in owners {
                targets[place].insert(topic, partitions);
            }
        }
        self.division.members.keys().cloned().zip(targets).collect()
    }
}
