//! `uniform`, where all members subscribe to the same topics: everybody keeps what it has up to its share, and what is
//! left goes to those who have less.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, TopicId};

use super::{Division, PartitionSet};

pub(super) fn assign(division: &Division) -> BTreeMap<String, PartitionSet> {
    let count = division.members.len();
    let Some(topics) = division.members.values().next().map(|member| &member.topics) else { return BTreeMap::new() };
    let total: usize = topics.iter().map(|topic| division.partitions(*topic) as usize).sum();
    let share = total / count;
    // So many members have one more than the others.
    let mut larger = total % count;

    let mut owned: BTreeSet<(TopicId, PartitionIndex)> = BTreeSet::new();
    let mut unfilled: Vec<(&String, usize)> = Vec::new();
    let mut assigned: BTreeMap<String, PartitionSet> = BTreeMap::new();
    for (place, (id, member)) in division.members.iter().enumerate() {
        let quota = share + usize::from(larger > 0);
        let mut kept = PartitionSet::new();
        let mut keeps = 0;
        for (topic, partitions) in &member.target {
            if !topics.contains(topic) {
                continue;
            }
            for partition in partitions.iter().filter(|partition| partition.0 < division.partitions(*topic)) {
                if keeps < quota && owned.insert((*topic, *partition)) {
                    keeps += 1;
                    kept.entry(*topic).or_default().insert(*partition);
                }
            }
        }
        // One more is for those who have it already; for the others only if there are no more than enough of them left.
        let takes_more = larger > 0 && (keeps > share || count - place <= larger);
        larger -= usize::from(takes_more);
        let missing = share + usize::from(takes_more) - keeps.min(share + usize::from(takes_more));
        if missing > 0 {
            unfilled.push((id, missing));
        }
        assigned.insert(id.clone(), kept);
    }

    let all =
        topics.iter().flat_map(|topic| (0..division.partitions(*topic)).map(|index| (*topic, PartitionIndex(index))));
    let mut free = all.filter(|partition| !owned.contains(partition));
    for (id, missing) in unfilled {
        let target = assigned.entry(id.clone()).or_default();
        for (topic, partition) in free.by_ref().take(missing) {
            target.entry(topic).or_default().insert(partition);
        }
    }
    assigned
}
