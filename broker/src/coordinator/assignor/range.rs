//! `range`: of every topic, each of its subscribers gets a run of neighbouring partitions, in the order of the members.

use std::collections::BTreeMap;

use varve_metadata::model::{PartitionIndex, TopicId};

use super::{Division, PartitionSet};

/// What is left to be given of one topic.
struct Remainder {
    next: u32,
    partitions: u32,
    /// Subscribers that have not got their part yet.
    subscribers: u32,
}

impl Remainder {
    /// The next part: as many as everybody, rounded up while there are more than enough.
    fn take(&mut self) -> std::ops::Range<u32> {
        let share = (self.partitions - self.next).div_ceil(self.subscribers);
        self.subscribers -= 1;
        let start = self.next;
        self.next += share;
        start..self.next
    }
}

pub(super) fn assign(division: &Division) -> BTreeMap<String, PartitionSet> {
    // Static members first: they come back under another member id, and shall find their place again.
    let mut order: Vec<&String> = division.members.keys().collect();
    order.sort_by_key(|id| {
        let instance = division.members[*id].instance_id.as_deref();
        (instance.is_none(), instance.unwrap_or(id.as_str()).to_owned())
    });
    let mut topics: BTreeMap<TopicId, Remainder> = BTreeMap::new();
    for topic in division.members.values().flat_map(|member| &member.topics) {
        let partitions = division.partitions(*topic);
        topics.entry(*topic).or_insert(Remainder { next: 0, partitions, subscribers: 0 }).subscribers += 1;
    }
    let assigned = order.into_iter().map(|id| {
        let mut target = PartitionSet::new();
        for topic in &division.members[id].topics {
            let part = topics.get_mut(topic).map_or(0..0, Remainder::take);
            if !part.is_empty() {
                target.insert(*topic, part.map(PartitionIndex).collect());
            }
        }
        (id.clone(), target)
    });
    assigned.collect()
}
