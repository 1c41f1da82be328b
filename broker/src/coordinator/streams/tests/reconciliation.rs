//! A member's way to its target: nobody gets what another, or its own process, still has.

use super::*;

/// Two members that share four tasks, settled.
fn two() -> (Harness, i32) {
    let mut groups = cluster_of(4);
    groups.beat_streams(first("m1")).unwrap();
    groups.beat_streams(first("m2")).unwrap();
    groups.settle_streams_members(&["m1", "m2"]);
    let epoch = groups.streams_group().epoch;
    (groups, epoch)
}

#[test]
fn a_task_moves_only_after_it_was_given_up() {
    let mut groups = cluster_of(2);
    assert_eq!(groups.told_tasks(first("m1")), (2, Some(active(&[0, 1]))));
    assert_eq!(groups.told_tasks(first("m2")), (3, Some(active(&[]))), "what it shall have is still with the other");
    // It stays in its epoch until it says that it gave the task up.
    assert_eq!(groups.told_tasks(next("m1", 2)), (2, Some(active(&[0]))));
    assert_eq!(groups.told_tasks(owning("m1", 2, active(&[0, 1]))), (2, None));
    assert_eq!(groups.told_tasks(next("m2", 3)), (3, None));
    assert_eq!(groups.told_tasks(owning("m1", 2, active(&[0]))), (3, None));
    assert_eq!(groups.told_tasks(next("m2", 3)), (3, Some(active(&[1]))));
    assert_eq!(groups.streams_state(), StreamsGroupState::Stable);
}

#[test]
fn who_gives_nothing_up_in_time_is_removed() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    groups.beat_streams(first("m2")).unwrap();
    groups.beat_streams(next("m1", 2)).unwrap();
    let mut last = None;
    for _ in 0..3 {
        groups.pass(Duration::from_secs(20));
        let _ = groups.beat_streams(next("m1", 2));
        last = groups.beat_streams(next("m2", 3)).unwrap().tasks;
    }
    let members: Vec<String> = groups.streams_group().members.into_iter().map(|member| member.member_id).collect();
    assert_eq!(members, ["m2"]);
    assert_eq!(last, Some(active(&[0, 1])));
}

#[test]
fn a_restart_keeps_the_time_for_giving_up() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    groups.beat_streams(first("m2")).unwrap();
    groups.beat_streams(next("m1", 2)).unwrap();
    let mut restarted = groups.restarted();
    for _ in 0..3 {
        restarted.pass(Duration::from_secs(20));
        let _ = restarted.beat_streams(next("m1", 2));
        let _ = restarted.beat_streams(next("m2", 3));
    }
    assert_eq!(restarted.streams_group().members.len(), 1);
}

#[test]
fn copies_are_kept_elsewhere_and_wait_for_their_own_process() {
    let settings = StreamsSettings { standby_replicas: 1, ..at_once() };
    let mut groups = harness(2, settings);
    assert_eq!(groups.told_tasks(first("m1")), (2, Some(active(&[0, 1]))));
    let standby = |numbers: &[u32]| Tasks { standby: tasks(numbers), ..Tasks::default() };
    // Nothing stands against a copy of what another processes; its active task it has to wait for.
    assert_eq!(groups.told_tasks(first("m2")), (3, Some(standby(&[0]))));
    assert_eq!(groups.told_tasks(next("m1", 2)), (2, Some(active(&[0]))));
    // The copy of what it just gave up has to wait until its own process has let go of it.
    assert_eq!(groups.told_tasks(owning("m1", 2, active(&[0]))), (3, None));
    let both =
        |active: &[u32], standby: &[u32]| Tasks { active: tasks(active), standby: tasks(standby), ..Tasks::default() };
    assert_eq!(groups.told_tasks(next("m2", 3)), (3, Some(both(&[1], &[0]))));
    assert_eq!(groups.told_tasks(next("m1", 3)), (3, Some(both(&[0], &[1]))));
    assert_eq!(groups.streams_state(), StreamsGroupState::Stable);
}

#[test]
fn another_number_of_copies_is_assigned_with_the_next_heartbeat() {
    let (mut groups, epoch) = two();
    groups.cluster.streams.standby_replicas = 1;
    groups.cluster.version += 1;
    groups.show_cluster(&crate::coordinator::TopicsChange::default());
    let own = groups.streams_group().members[0].assignment.clone();
    let (risen, _) = groups.told_tasks(owning("m1", epoch, own));
    assert_eq!(risen, epoch + 1);
    groups.settle_streams_members(&["m1", "m2"]);
    let copies: usize = groups.streams_group().members.iter().map(|member| member.assignment.standby["0"].len()).sum();
    assert_eq!(copies, 4);
}

#[test]
fn a_member_that_lacks_what_it_was_given_is_told_again() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    // The answer was lost: it works on less than it shall.
    assert_eq!(groups.told_tasks(owning("m1", 2, active(&[0]))), (2, Some(active(&[0, 1]))));
    assert_eq!(groups.told_tasks(owning("m1", 2, active(&[0, 1]))), (2, None));
    assert_eq!(groups.told_tasks(next("m1", 2)), (2, None), "it says nothing of what it has");
}

#[test]
fn tasks_that_do_not_exist_cannot_be_owned() {
    let (mut groups, epoch) = two();
    let refused = groups.refused(owning("m1", epoch, active(&[9])));
    let words = "Task 9 for subtopology 0 is invalid. Number of tasks for this subtopology: 4".to_owned();
    assert_eq!(refused, (GroupError::InvalidRequest, words));
    let elsewhere = Tasks { standby: [("7".to_owned(), numbers(&[0]))].into(), ..Tasks::default() };
    let refused = groups.refused(owning("m1", epoch, elsewhere));
    assert_eq!(refused, (GroupError::InvalidRequest, "Subtopology 7 does not exist in the topology.".to_owned()));
    let negative = OwnedKind { tasks: TaskSet::new(), impossible: Some(("0".to_owned(), -1)) };
    let refused = groups.refused(StreamsHeartbeat { active: Some(negative), ..owning("m1", epoch, Tasks::default()) });
    assert!(refused.1.starts_with("Task -1 for subtopology 0 is invalid."), "{}", refused.1);
}

#[test]
fn endpoints_are_told_until_the_member_has_heard_of_them() {
    let mut groups = cluster_of(2);
    let endpoint = |host: &str| Some(Endpoint { host: host.to_owned(), port: 80 });
    let one = groups.beat_streams(StreamsHeartbeat { endpoint: endpoint("one"), ..first("m1") }).unwrap();
    // As Kafka does: the group that comes into being tells once, and has counted nothing yet.
    assert_eq!(one.endpoint_epoch, 0);
    let told = one.endpoints.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].active[0].partitions, [PartitionIndex(0), PartitionIndex(1)]);
    let two = groups.beat_streams(StreamsHeartbeat { endpoint: endpoint("two"), ..first("m2") }).unwrap();
    assert_eq!(two.endpoint_epoch, 1);
    let hosts: Vec<String> = two.endpoints.unwrap().into_iter().map(|behind| behind.endpoint.host).collect();
    assert_eq!(hosts, ["one", "two"]);
    let heard = groups.beat_streams(StreamsHeartbeat { endpoint_epoch: 1, ..next("m2", 3) }).unwrap();
    assert_eq!((heard.endpoint_epoch, heard.endpoints), (1, None));
    let moved = groups.beat_streams(StreamsHeartbeat { endpoint_epoch: 1, ..next("m1", 2) }).unwrap();
    assert_eq!(moved.endpoint_epoch, 2, "it has other tasks now");
    assert_eq!(moved.endpoints.unwrap().len(), 2);
}
