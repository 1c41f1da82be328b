//! What both assignors hold to, whatever they are given, and the numbers of some plain cases.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn topic(number: u128) -> TopicId {
    TopicId::from_wire(Uuid::from_u128(number + 10)).unwrap()
}

fn set(topic_number: u128, partitions: &[u32]) -> PartitionSet {
    PartitionSet::from([(topic(topic_number), partitions.iter().copied().map(PartitionIndex).collect())])
}

/// Members `a`, `b`, … subscribed to the topics with these numbers; topic n has `sizes[n]` partitions.
fn division(sizes: &[u32], subscriptions: &[&[u128]]) -> Division {
    let members = subscriptions.iter().zip('a'..).map(|(topics, name)| {
        let topics = topics.iter().map(|number| topic(*number)).collect();
        (name.to_string(), Candidate { topics, ..Candidate::default() })
    });
    let topics = sizes.iter().enumerate().map(|(number, size)| (topic(number as u128), *size));
    Division { members: members.collect(), topics: topics.collect() }
}

fn again(division: &mut Division, targets: BTreeMap<String, PartitionSet>) {
    for (id, target) in targets {
        if let Some(member) = division.members.get_mut(&id) {
            member.target = target;
        }
    }
}

fn sizes(targets: &BTreeMap<String, PartitionSet>) -> Vec<usize> {
    targets.values().map(|target| target.values().map(BTreeSet::len).sum()).collect()
}

#[test]
fn range_gives_neighbours_and_the_same_of_equal_topics() {
    let targets = Assignor::Range.assign(&division(&[3, 3], &[&[0, 1], &[0, 1]]));
    assert_eq!(targets["a"], [set(0, &[0, 1]), set(1, &[0, 1])].into_iter().flatten().collect());
    assert_eq!(targets["b"], [set(0, &[2]), set(1, &[2])].into_iter().flatten().collect());
}

#[test]
fn range_puts_static_members_first_by_their_instance() {
    let mut three = division(&[3], &[&[0], &[0], &[0]]);
    three.members.get_mut("c").unwrap().instance_id = Some("z".to_owned());
    three.members.get_mut("b").unwrap().instance_id = Some("y".to_owned());
    let targets = Assignor::Range.assign(&three);
    assert_eq!([&targets["b"], &targets["c"], &targets["a"]], [&set(0, &[0]), &set(0, &[1]), &set(0, &[2])]);
}

#[test]
fn range_leaves_members_without_partitions_where_there_are_too_few() {
    assert_eq!(sizes(&Assignor::Range.assign(&division(&[2], &[&[0], &[0], &[0]]))), [1, 1, 0]);
}

#[test]
fn uniform_moves_only_what_a_new_member_needs() {
    let mut group = division(&[6], &[&[0], &[0]]);
    let before = Assignor::Uniform.assign(&group);
    assert_eq!(sizes(&before), [3, 3]);
    again(&mut group, before.clone());
    group.members.insert("c".to_owned(), Candidate { topics: [topic(0)].into(), ..Candidate::default() });
    let after = Assignor::Uniform.assign(&group);
    assert_eq!(sizes(&after), [2, 2, 2]);
    for id in ["a", "b"] {
        assert!(after[id][&topic(0)].is_subset(&before[id][&topic(0)]), "{id} keeps two of its three");
    }
}

#[test]
fn mixed_subscriptions_are_levelled_across_topics() {
    // `a` may read both topics, `b` only the large one.
    assert_eq!(sizes(&Assignor::Uniform.assign(&division(&[2, 6], &[&[0, 1], &[1]]))), [4, 4]);
    // Nobody else may read what `a` has most of.
    assert_eq!(sizes(&Assignor::Uniform.assign(&division(&[9, 2], &[&[0, 1], &[1]]))), [9, 2]);
}

#[test]
fn a_group_without_members_or_topics_is_assigned_nothing() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        assert!(assignor.assign(&Division::default()).is_empty());
        assert_eq!(sizes(&assignor.assign(&division(&[], &[&[], &[]]))), [0, 0]);
    }
}

/// Any group, with any past: targets that overlap, name topics nobody subscribes to or partitions that do not exist.
fn any_division() -> impl Strategy<Value = Division> {
    let sizes = proptest::collection::vec(0u32..12, 1..5);
    let member = (
        proptest::collection::btree_set(0u128..5, 0..5),
        proptest::collection::vec((0u128..5, 0u32..14), 0..20),
        proptest::option::of("[a-c]{1,2}"),
    );
    (sizes, proptest::collection::vec(member, 0..8), any::<bool>()).prop_map(|(sizes, members, same)| {
        let topics: BTreeMap<TopicId, u32> =
            sizes.iter().enumerate().map(|(number, size)| (topic(number as u128), *size)).collect();
        let first: Option<BTreeSet<u128>> = members.first().map(|(topics, ..)| topics.clone());
        let members = members.into_iter().enumerate().map(|(place, (subscribed, past, instance_id))| {
            let subscribed = if same { first.clone().unwrap_or_default() } else { subscribed };
            let existing = subscribed.into_iter().map(topic).filter(|topic| topics.contains_key(topic));
            let mut target = PartitionSet::new();
            for (number, partition) in past {
                target.entry(topic(number)).or_default().insert(PartitionIndex(partition));
            }
            (format!("m{place}"), Candidate { instance_id, topics: existing.collect(), target })
        });
        Division { members: members.collect(), topics }
    })
}

proptest! {
    #[test]
    fn every_partition_with_a_subscriber_has_one_owner_that_subscribes(group in any_division(), uniform in any::<bool>()) {
        let assignor = if uniform { Assignor::Uniform } else { Assignor::Range };
        let targets = assignor.assign(&group);
        prop_assert!(targets.keys().eq(group.members.keys()));
        let mut owned = BTreeSet::new();
        for (id, target) in &targets {
            for (topic, partitions) in target {
                prop_assert!(group.members[id].topics.contains(topic));
                for partition in partitions {
                    prop_assert!(partition.0 < group.topics[topic]);
                    prop_assert!(owned.insert((*topic, *partition)), "two owners of {partition}");
                }
            }
        }
        let subscribed: BTreeSet<TopicId> = group.members.values().flat_map(|member| member.topics.clone()).collect();
        let wanted: usize = subscribed.iter().map(|topic| group.topics[topic] as usize).sum();
        prop_assert_eq!(owned.len(), wanted);
    }

    #[test]
    fn uniform_gives_everybody_the_same_where_all_subscribe_alike(mut group in any_division()) {
        let first = group.members.values().next().map(|member| member.topics.clone()).unwrap_or_default();
        group.members.values_mut().for_each(|member| member.topics.clone_from(&first));
        let sizes = sizes(&Assignor::Uniform.assign(&group));
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        prop_assert!(most.copied().unwrap_or(0) <= least.copied().unwrap_or(0) + 1, "{sizes:?}");
    }

    #[test]
    fn uniform_leaves_no_move_that_would_help(group in any_division()) {
        let targets = Assignor::Uniform.assign(&group);
        let load = |id: &str| targets[id].values().map(BTreeSet::len).sum::<usize>();
        for (from, target) in &targets {
            for topic in target.keys() {
                for (to, _) in group.members.iter().filter(|(_, member)| member.topics.contains(topic)) {
                    prop_assert!(load(from) <= load(to) + 1, "{from} could give {to} a partition of {topic}");
                }
            }
        }
    }

    #[test]
    fn uniform_changes_nothing_twice(mut group in any_division()) {
        let once = Assignor::Uniform.assign(&group);
        again(&mut group, once.clone());
        prop_assert_eq!(Assignor::Uniform.assign(&group), once);
    }

    #[test]
    fn uniform_takes_nothing_from_those_who_stay_when_somebody_leaves(mut group in any_division(), who in any::<prop::sample::Index>()) {
        // Where all subscribe alike: what the others have is never more than their new share.
        let first = group.members.values().next().map(|member| member.topics.clone()).unwrap_or_default();
        group.members.values_mut().for_each(|member| member.topics.clone_from(&first));
        let before = Assignor::Uniform.assign(&group);
        again(&mut group, before.clone());
        prop_assume!(!group.members.is_empty());
        let gone = group.members.keys().nth(who.index(group.members.len())).cloned().unwrap();
        group.members.remove(&gone);
        let after = Assignor::Uniform.assign(&group);
        for (id, target) in &after {
            for (topic, partitions) in &before[id] {
                prop_assert!(target.get(topic).is_some_and(|now| now.is_superset(partitions)), "{id} lost {topic}");
            }
        }
    }

    #[test]
    fn range_depends_on_nothing_but_members_and_topics(mut group in any_division()) {
        let with_past = Assignor::Range.assign(&group);
        group.members.values_mut().for_each(|member| member.target.clear());
        prop_assert_eq!(Assignor::Range.assign(&group), with_past);
    }
}

/// How many members each partition has.
fn sharers(targets: &BTreeMap<String, PartitionSet>) -> BTreeMap<(TopicId, PartitionIndex), usize> {
    let mut counts = BTreeMap::new();
    for (topic, partitions) in targets.values().flatten() {
        partitions.iter().for_each(|partition| *counts.entry((*topic, *partition)).or_default() += 1);
    }
    counts
}

#[test]
fn members_of_a_share_group_share_partitions_where_there_are_too_few() {
    let mut four = division(&[2], &[&[0], &[0], &[0], &[0]]);
    let targets = share(&four);
    assert_eq!(sizes(&targets), [1, 1, 1, 1]);
    assert_eq!(sharers(&targets).into_values().collect::<Vec<_>>(), [2, 2]);
    again(&mut four, targets.clone());
    assert_eq!(share(&four), targets, "nobody moves without need");
    assert_eq!(sizes(&share(&division(&[5], &[&[0], &[0]]))), [3, 2]);
}

proptest! {
    #[test]
    fn in_a_share_group_every_partition_has_a_member_and_every_member_a_partition(
        sizes_of_topics in prop::collection::vec(1u32..7, 1..4),
        members in prop::collection::vec(prop::collection::btree_set(0usize..4, 1..4), 1..9),
        is_homogeneous in any::<bool>(),
        gone in any::<prop::sample::Index>(),
    ) {
        let subscriptions: Vec<Vec<u128>> = members
            .iter()
            .map(|topics| if is_homogeneous { &members[0] } else { topics })
            .map(|topics| topics.iter().map(|topic| (topic % sizes_of_topics.len()) as u128).collect())
            .collect();
        let borrowed: Vec<&[u128]> = subscriptions.iter().map(Vec::as_slice).collect();
        let mut division = division(&sizes_of_topics, &borrowed);
        for _ in 0..2 {
            let targets = share(&division);
            for (id, target) in &targets {
                let topics = &division.members[id].topics;
                prop_assert!(target.keys().all(|topic| topics.contains(topic)));
                prop_assert!(topics.is_empty() || !target.is_empty(), "{} has none of {:?}", id, targets);
            }
            let counts = sharers(&targets);
            for topic in division.members.values().flat_map(|member| &member.topics) {
                for index in 0..division.partitions(*topic) {
                    prop_assert!(counts.contains_key(&(*topic, PartitionIndex(index))));
                }
            }
            if is_homogeneous {
                let sizes = sizes(&targets);
                let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
                prop_assert!(least * 2 >= *most || most - least <= 1, "{:?}", sizes);
            }
            again(&mut division, targets);
            // The next time somebody is gone.
            let id = gone.get(&division.members.keys().cloned().collect::<Vec<_>>()).clone();
            if division.members.len() > 1 {
                division.members.remove(&id);
            }
        }
    }
}
