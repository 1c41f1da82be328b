//! How partitions pass from one member to another.

use super::*;

#[test]
fn a_partition_passes_only_once_its_holder_gave_it_up() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    assert_eq!(groups.told(first("b")), (3, Some(orders(&[]))), "a still has both");
    assert_eq!(groups.group_state(), ConsumerGroupState::Reconciling);
    assert_eq!(groups.told(next("b", 3)), (3, None));
    assert_eq!(groups.told(next("a", 2)), (2, Some(orders(&[0]))), "a is asked to give one up");
    // Described with what it has not given up yet.
    let described = groups.described();
    assert_eq!(described.members[0].assignment, orders(&[0, 1]));
    assert_eq!(described.members[0].target, orders(&[0]));
    assert_eq!(groups.told(owning("a", 2, &[0, 1])), (2, None), "it has not yet");
    assert_eq!(groups.told(owning("a", 2, &[0])), (3, None));
    assert_eq!(groups.told(next("b", 3)), (3, Some(orders(&[1]))));
    assert_eq!(groups.group_state(), ConsumerGroupState::Stable);
    assert_eq!(groups.restarted().described(), groups.described());
}

#[test]
fn a_member_that_holds_others_up_is_removed() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    groups.told(next("a", 2));
    for _ in 0..3 {
        groups.pass(SECOND * 19);
        groups.told(owning("a", 2, &[0, 1]));
        groups.told(next("b", 3));
    }
    groups.pass(SECOND * 4);
    assert_eq!(groups.described().members.len(), 1, "a had a minute to give up a partition");
    assert_eq!(groups.told(next("b", 3)), (4, Some(orders(&[0, 1]))));
}

#[test]
fn the_time_to_give_up_partitions_survives_a_restart() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    groups.told(next("a", 2));
    let mut restarted = groups.restarted();
    for _ in 0..2 {
        restarted.pass(SECOND * 29);
        restarted.told(owning("a", 2, &[0, 1]));
        restarted.told(next("b", 3));
    }
    restarted.pass(SECOND * 4);
    assert_eq!(restarted.described().members.len(), 1);
}

#[test]
fn a_topic_that_is_no_longer_wanted_is_given_up_at_once() {
    let mut groups = cluster_of(1);
    groups.put_topic("bills", topic_id(0xb), 1);
    let both = ConsumerHeartbeat { topics: Some(["orders".to_owned(), "bills".to_owned()].into()), ..first("a") };
    assert_eq!(groups.told(both).1.unwrap().len(), 2);
    let fewer = ConsumerHeartbeat { topics: Some(["orders".to_owned()].into()), ..next("a", 2) };
    assert_eq!(groups.told(fewer), (2, Some(orders(&[0]))), "it keeps its epoch until it gave up bills");
    assert_eq!(groups.told(owning("a", 2, &[0])), (3, None));
}

#[test]
fn new_partitions_and_topics_come_with_the_next_heartbeat() {
    let mut groups = cluster_of(1);
    let both = ConsumerHeartbeat { topics: Some(["orders".to_owned(), "bills".to_owned()].into()), ..first("a") };
    assert_eq!(groups.told(both), (2, Some(orders(&[0]))));
    groups.put_topic("orders", topic_id(ORDERS), 2);
    assert_eq!(groups.told(next("a", 2)), (3, Some(orders(&[0, 1]))));
    groups.put_topic("bills", topic_id(0xb), 1);
    assert_eq!(groups.told(next("a", 3)).1.unwrap().len(), 2);
    // What does not concern the group changes nothing.
    groups.put_topic("other", topic_id(0xc), 1);
    assert_eq!(groups.told(next("a", 4)), (4, None));
}

#[test]
fn a_deleted_topic_is_taken_back() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.remove_topic("orders");
    assert_eq!(groups.told(next("a", 2)), (2, Some(orders(&[]))));
    assert_eq!(groups.told(owning("a", 2, &[])), (3, None));
    // Another one of the same name is another topic.
    groups.put_topic("orders", topic_id(0xd), 1);
    let (epoch, assignment) = groups.told(next("a", 3));
    assert_eq!((epoch, assignment.unwrap().contains_key(&topic_id(0xd))), (4, true));
}

#[test]
fn assignments_wait_for_their_interval() {
    let mut groups = cluster_of(2);
    groups.cluster.times.assignment_interval = SECOND;
    groups.show_cluster(&Default::default());
    groups.told(first("a"));
    assert_eq!(groups.told(first("b")), (2, Some(orders(&[]))), "too soon: b is in the group without a part");
    assert_eq!(groups.group_state(), ConsumerGroupState::Assigning);
    groups.pass(SECOND);
    assert_eq!(groups.told(next("b", 2)).0, 3);
    assert_eq!(groups.described().members.iter().map(|member| member.target.len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn the_assignor_is_the_one_that_most_members_ask_for() {
    let mut groups = cluster_of(4);
    let asking =
        |member: &str, assignor: &str| ConsumerHeartbeat { assignor: Some(assignor.to_owned()), ..first(member) };
    groups.told(asking("a", "range"));
    assert_eq!(groups.described().assignor, "range");
    groups.told(asking("b", "uniform"));
    groups.told(asking("c", "uniform"));
    assert_eq!(groups.described().assignor, "uniform");
}

#[test]
fn a_state_of_a_later_version_is_left_by_starting_over() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    groups.shard.consumers.get_mut(GROUP).unwrap().members.get_mut("a").unwrap().state = MemberState::Unknown;
    assert_eq!(groups.beat(next("a", 2)).unwrap_err(), ModernGroupError::UnknownState(GroupType::Consumer));
    assert_eq!(groups.told(first("a")), (2, Some(orders(&[0]))));
    assert_eq!(groups.group_state(), ConsumerGroupState::Stable);
}

#[test]
fn a_topic_that_grows_while_a_heartbeat_is_on_its_way_is_seen_by_the_next() {
    let mut groups = cluster_of(1);
    groups.holds_appends = true;
    let joining = groups.heartbeat_consumer(first("a"));
    groups.put_topic("orders", topic_id(ORDERS), 2);
    groups.release_one(None);
    assert_eq!(groups.heard(joining).unwrap().assignment, Some(orders(&[0])));
    groups.holds_appends = false;
    assert_eq!(groups.told(next("a", 2)), (3, Some(orders(&[0, 1]))));
    assert_eq!(groups.told(next("a", 3)), (3, None));
}

#[test]
fn a_topic_that_comes_while_a_member_subscribes_to_it_is_seen_by_the_next_heartbeat() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    groups.holds_appends = true;
    let both = ["orders".to_owned(), "bills".to_owned()].into();
    let subscribing = groups.heartbeat_consumer(ConsumerHeartbeat { topics: Some(both), ..next("a", 2) });
    groups.put_topic("bills", topic_id(0xb), 1);
    groups.release_one(None);
    assert_eq!(groups.heard(subscribing).unwrap().epoch.0, 3);
    groups.holds_appends = false;
    assert_eq!(groups.told(next("a", 3)).1.unwrap().len(), 2);
}

#[test]
fn every_new_assignment_counts_as_a_rebalance_and_none_that_was_read_at_start() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(next("a", 2));
    assert_eq!(groups.shard.stats().completed_rebalances, 1);
    groups.told(first("b"));
    assert_eq!(groups.shard.stats().completed_rebalances, 2);
    assert_eq!(groups.restarted().shard.stats().completed_rebalances, 0);
}
