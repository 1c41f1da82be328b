//! `simple`, for share groups (KIP-932): a partition may be several members'. Every partition has a member, every member has
//! a partition, members have the same number of them, give or take one, and what they have they keep where that allows it.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, TopicId};

use super::{Division, PartitionSet};

/// What every member of a share group shall have, members without partitions included.
pub fn share(division: &Division) -> BTreeMap<String, PartitionSet> {
    let mut assigned: BTreeMap<String, PartitionSet> =
        division.members.keys().map(|id| (id.clone(), PartitionSet::new())).collect();
    let of_topic = |topic: TopicId| (0..division.partitions(topic)).map(move |index| (topic, PartitionIndex(index)));
    let wanted: BTreeSet<TopicId> = division.members.values().flat_map(|member| &member.topics).copied().collect();
    if division.is_homogeneous() {
        let members: Vec<&String> = division.members.keys().collect();
        divide(division, &members, &wanted.into_iter().flat_map(of_topic).collect::<Vec<_>>(), &mut assigned);
        return assigned;
    }
    // Each topic by itself, among those who subscribe to it.
    for topic in wanted {
        let subscribers = division.members.iter().filter(|(_, member)| member.topics.contains(&topic));
        let members: Vec<&String> = subscribers.map(|(id, _)| id).collect();
        divide(division, &members, &of_topic(topic).collect::<Vec<_>>(), &mut assigned);
    }
    assigned
}

/// Divides `partitions` among `members`: as many places as there are in all, every one for one member.
fn divide(
    division: &Division,
    members: &[&String],
    partitions: &[(TopicId, PartitionIndex)],
    assigned: &mut BTreeMap<String, PartitionSet>,
) {
    if members.is_empty() || partitions.is_empty() {
        return;
    }
    let sharing = members.len().div_ceil(partitions.len());
    let places = sharing * partitions.len();
    // Places are spread evenly, whatever does not come out even as well.
    let quota =
        |member: usize| (places * (member + 1)).div_ceil(members.len()) - (places * member).div_ceil(members.len());
    let mut taken: BTreeMap<(TopicId, PartitionIndex), usize> = partitions.iter().map(|at| (*at, 0)).collect();
    let mut missing: Vec<(usize, usize)> = Vec::new();
    let mut held: Vec<BTreeSet<(TopicId, PartitionIndex)>> = Vec::new();
    for (member, id) in members.iter().enumerate() {
        let before = division.members[*id].target.iter();
        let before = before.flat_map(|(topic, indexes)| indexes.iter().map(move |index| (*topic, *index)));
        let mut keeps = BTreeSet::new();
        for at in before {
            if keeps.len() < quota(member)
                && let Some(count) = taken.get_mut(&at).filter(|count| **count < sharing)
            {
                *count += 1;
                keeps.insert(at);
            }
        }
        missing.push((quota(member) - keeps.len(), member));
        held.push(keeps);
    }
    // What nobody has comes first: there are at least as many places left as such partitions.
    missing.sort_by_key(|(count, member)| (std::cmp::Reverse(*count), *member));
    let mut lonely = partitions.iter().filter(|at| taken[at] == 0).copied().collect::<Vec<_>>().into_iter();
    let mut takers = missing.iter_mut().filter(|(count, _)| *count > 0).collect::<Vec<_>>();
    while !takers.is_empty() {
        for (count, member) in &mut takers {
            let Some(at) = lonely.next() else { break };
            held[*member].insert(at);
            *taken.entry(at).or_default() += 1;
            *count -= 1;
        }
        takers.retain(|(count, _)| *count > 0);
        if lonely.len() == 0 {
            break;
        }
    }
    // Then everybody takes what it has not, wherever there is room.
    let mut next = 0;
    for (count, member) in missing {
        let mut left = count;
        for _ in 0..partitions.len() {
            if left == 0 {
                break;
            }
            let at = partitions[next % partitions.len()];
            next += 1;
            if taken[&at] < sharing && held[member].insert(at) {
                *taken.entry(at).or_default() += 1;
                left -= 1;
            }
        }
    }
    for (id, held) in members.iter().zip(held) {
        for (topic, index) in held {
            assigned.entry((*id).clone()).or_default().entry(topic).or_default().insert(index);
        }
    }
}
