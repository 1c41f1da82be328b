//! Who may join and who is refused, with which words; what a group is called meanwhile; who goes.

use super::*;
use crate::coordinator::{
    AppendFailure, ConsumerHeartbeat, GroupFilter, GroupState, GroupType, JoinAnswer, JoinRequest, ListedGroup,
    ShareHeartbeat,
};

#[test]
fn a_member_alone_has_all_tasks_at_once() {
    let mut groups = cluster_of(3);
    let answer = groups.beat_streams(first("m1")).unwrap();
    assert_eq!((answer.epoch.0, answer.tasks), (2, Some(active(&[0, 1, 2]))));
    assert_eq!((answer.status, answer.missing_topics), (vec![], vec![]));
    assert_eq!(answer.heartbeat_interval, Duration::from_secs(5));
    assert_eq!(groups.told_tasks(next("m1", 2)), (2, None));
    let group = groups.streams_group();
    assert_eq!((group.state, group.epoch, group.assignment_epoch), (StreamsGroupState::Stable, 2, 2));
    assert_eq!(group.topology.subtopologies[0].changelogs[0].partitions, 3);
    assert_eq!(group.members[0].assignment, active(&[0, 1, 2]));
    assert_eq!(groups.restarted().streams_state(), StreamsGroupState::Stable);
}

#[test]
fn a_first_request_that_comes_twice_changes_nothing() {
    let mut groups = cluster_of(3);
    groups.beat_streams(first("m1")).unwrap();
    let records = groups.log.len();
    assert_eq!(groups.told_tasks(first("m1")), (2, Some(active(&[0, 1, 2]))));
    assert_eq!(groups.log.len(), records);
}

#[test]
fn requests_that_contradict_themselves_are_refused_in_kafkas_words() {
    let mut groups = cluster_of(3);
    let some = || Some(OwnedKind { tasks: tasks(&[0]), impossible: None });
    let patterns = topology(&[Subtopology { source_topic_regexes: vec!["a.*".to_owned()], ..reads("0", &["orders"]) }]);
    let sized = topology(&[Subtopology { changelogs: vec![fixed("counts", 2)], ..reads("0", &["orders"]) }]);
    let text = |text: &str| Some(text.to_owned());
    for (request, words) in [
        (StreamsHeartbeat { instance_id: text("i"), ..first("m") }, "Static membership is not yet supported."),
        (StreamsHeartbeat { has_task_offsets: true, ..first("m") }, "TaskOffsets are not supported yet."),
        (StreamsHeartbeat { has_task_end_offsets: true, ..first("m") }, "TaskEndOffsets are not supported yet."),
        (StreamsHeartbeat { warmup: some(), ..first("m") }, "WarmupTasks are not supported yet."),
        (
            StreamsHeartbeat { topology: Some(patterns), ..first("m") },
            "Regular expressions for source topics are not supported yet.",
        ),
        (first(" "), "MemberId can't be empty."),
        (StreamsHeartbeat { group_id: String::new(), ..first("m") }, "GroupId can't be empty."),
        (StreamsHeartbeat { rack_id: text(""), ..first("m") }, "RackId can't be empty."),
        (
            StreamsHeartbeat { rebalance_timeout_ms: None, ..first("m") },
            "RebalanceTimeoutMs must be provided in first request.",
        ),
        (StreamsHeartbeat { active: some(), ..first("m") }, "ActiveTasks must be empty when (re-)joining."),
        (StreamsHeartbeat { standby: some(), ..first("m") }, "StandbyTasks must be empty when (re-)joining."),
        (StreamsHeartbeat { topology: None, ..first("m") }, "Topology must be non-null when (re-)joining."),
        (next("m", -2), "InstanceId can't be null."),
        (next("m", -3), "MemberEpoch is -3, but must be greater than or equal to -2."),
        (StreamsHeartbeat { active: some(), ..next("m", 1) }, "If one task-type is non-null, all must be non-null."),
        (
            StreamsHeartbeat { topology: Some(counting()), ..next("m", 1) },
            "Topology can only be provided when (re-)joining.",
        ),
    ] {
        assert_eq!(groups.refused(request), (GroupError::InvalidRequest, words.to_owned()));
    }
    let words = "Changelog topic counts must have an undefined partition count, but it is set to 2.";
    let request = StreamsHeartbeat { topology: Some(sized), ..first("m") };
    assert_eq!(groups.refused(request), (GroupError::InvalidTopology, words.to_owned()));
    assert!(groups.log.is_empty());
}

#[test]
fn what_cannot_be_kept_or_told_apart_is_refused() {
    let mut groups = cluster_of(3);
    let twice = || vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
    for request in [
        first(&"m".repeat(40_000)),
        StreamsHeartbeat { tags: Some(twice()), ..first("m") },
        StreamsHeartbeat {
            topology: Some(topology(&[reads("0", &["orders"]), reads("0", &["orders"])])),
            ..first("m")
        },
    ] {
        assert_eq!(groups.refused(request).0, GroupError::Unexpected);
    }
    assert!(groups.log.is_empty());
}

#[test]
fn members_without_a_group_and_groups_of_another_type_are_told_so() {
    let mut groups = cluster_of(3);
    assert_eq!(groups.refused(next("m", 1)), (GroupError::GroupIdNotFound, "Streams group g not found.".to_owned()));
    assert_eq!(groups.refused(next("m", -1)), (GroupError::GroupIdNotFound, "Group g not found.".to_owned()));
    groups.beat_streams(first("m1")).unwrap();
    let unknown = "Member m2 is not a member of group g.".to_owned();
    assert_eq!(groups.refused(next("m2", 1)), (GroupError::UnknownMemberId, unknown.clone()));
    assert_eq!(groups.refused(next("m2", -1)), (GroupError::UnknownMemberId, unknown));
    // The other way round.
    let consumer = ConsumerHeartbeat {
        group_id: GROUP.to_owned(),
        member_id: "c".to_owned(),
        epoch: MemberEpoch::JOINING,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: Some(1),
        topics: Some(["orders".to_owned()].into()),
        regex: None,
        assignor: None,
        owned: Some(crate::coordinator::Owned::default()),
        client_id: String::new(),
        client_host: String::new(),
        asker: crate::coordinator::Asker {
            principal: varve_metadata::model::Principal::anonymous(),
            peer: ([127, 0, 0, 1], 9).into(),
        },
        requires_member_id: true,
        fresh_id: Uuid::nil(),
    };
    let request = groups.heartbeat_consumer(consumer.clone());
    let error = groups.heard(request).unwrap_err();
    assert_eq!(error.to_string(), "Group g is not a consumer group.");
    let request = groups.heartbeat_consumer(ConsumerHeartbeat { group_id: "c".to_owned(), ..consumer });
    groups.heard(request).unwrap();
    let words = "Group c is not a streams group.".to_owned();
    let request = StreamsHeartbeat { group_id: "c".to_owned(), ..first("m1") };
    assert_eq!(groups.refused(request), (GroupError::GroupIdNotFound, words));
}

#[test]
fn a_full_group_takes_nobody_not_even_who_starts_over() {
    let config = GroupConfig { streams_max_size: 1, ..GroupConfig::default() };
    let mut cluster = TestCluster::default();
    cluster.put("orders", topic_id(1), 1);
    cluster.streams = at_once();
    let mut groups = Harness::on(config, cluster);
    groups.beat_streams(first("m1")).unwrap();
    let words = "The streams group has reached its maximum capacity of 1 members.".to_owned();
    assert_eq!(groups.refused(first("m2")), (GroupError::MaxSizeReached, words.clone()));
    assert_eq!(groups.refused(first("m1")), (GroupError::MaxSizeReached, words));
    groups.beat_streams(next("m1", 2)).unwrap();
}

#[test]
fn epochs_of_another_life_are_fenced() {
    let mut groups = cluster_of(3);
    groups.beat_streams(first("m1")).unwrap();
    let ahead = groups.refused(next("m1", 3));
    assert_eq!(ahead.0, GroupError::FencedMemberEpoch);
    assert!(ahead.1.contains("greater member epoch (3)"), "{}", ahead.1);
    assert_eq!(groups.refused(next("m1", 1)).0, GroupError::FencedMemberEpoch);
    // The answer with the epoch was lost: it has nothing that is not its own.
    assert_eq!(
        groups.refused(StreamsHeartbeat { epoch: MemberEpoch(1), ..next("m1", 1) }).0,
        GroupError::FencedMemberEpoch
    );
    let again = groups.beat_streams(owning("m1", 2, active(&[0, 1, 2]))).unwrap();
    assert_eq!(again.epoch.0, 2);
}

#[test]
fn a_member_that_missed_its_answer_may_ask_with_the_epoch_before() {
    let mut groups = cluster_of(4);
    groups.beat_streams(first("m1")).unwrap();
    groups.beat_streams(first("m2")).unwrap();
    groups.settle_streams_members(&["m1", "m2"]);
    let epoch = groups.streams_group().epoch;
    let own = groups.streams_group().members[0].assignment.clone();
    groups.beat_streams(first("m3")).unwrap();
    groups.beat_streams(owning("m1", epoch, own.clone())).unwrap();
    let held = groups.streams_group().members[0].assignment.clone();
    let before = groups.shard.streams[GROUP].members["m1"].previous_epoch.0;
    groups.beat_streams(owning("m1", before, held)).unwrap();
}

#[test]
fn topologies_do_not_change_yet() {
    let mut groups = cluster_of(3);
    groups.beat_streams(first("m1")).unwrap();
    let other = topology(&[reads("0", &["orders"])]);
    let refused = groups.refused(StreamsHeartbeat { topology: Some(other), ..first("m2") });
    assert_eq!(refused, (GroupError::InvalidRequest, "Topology updates are not supported yet.".to_owned()));
    let newer = Topology { epoch: 1, ..counting() };
    assert_eq!(groups.refused(StreamsHeartbeat { topology: Some(newer), ..first("m2") }).0, GroupError::InvalidRequest);
}

#[test]
fn an_older_topology_is_told_that_it_is_old() {
    let mut groups = cluster_of(3);
    let newer = Topology { epoch: 3, ..counting() };
    groups.beat_streams(StreamsHeartbeat { topology: Some(newer), ..first("m1") }).unwrap();
    let answer = groups.beat_streams(first("m2")).unwrap();
    let words = "The member's topology epoch 0 is behind the group's topology epoch 3.";
    assert_eq!(answer.status, [StreamsStatus::StaleTopology(words.to_owned())]);
}

#[test]
fn a_new_group_waits_for_more_members_before_it_assigns() {
    let mut groups = harness(2, StreamsSettings { assignment_interval: Duration::ZERO, ..StreamsSettings::default() });
    let waits = |answer: &StreamsAnswer| {
        let words = "Assignment delayed due to the configured initial rebalance delay.";
        assert_eq!(answer.status, [StreamsStatus::AssignmentDelayed(words.to_owned())]);
        assert_eq!(answer.tasks, Some(Tasks::default()));
    };
    let one = groups.beat_streams(first("m1")).unwrap();
    waits(&one);
    // The epoch of the target that a new group begins with.
    assert_eq!(one.epoch.0, 1);
    groups.pass(Duration::from_secs(2));
    waits(&groups.beat_streams(first("m2")).unwrap());
    assert_eq!(groups.streams_state(), StreamsGroupState::Assigning);
    groups.pass(Duration::from_secs(1));
    assert_eq!(groups.streams_group().assignment_epoch, 3);
    assert_eq!(groups.told_tasks(next("m1", 1)), (3, Some(active(&[0]))));
    assert_eq!(groups.told_tasks(next("m2", 1)), (3, Some(active(&[1]))));
    // Whoever comes later waits for nobody.
    assert_eq!(groups.beat_streams(first("m3")).unwrap().status, []);
}

#[test]
fn assignments_keep_their_distance() {
    let settings = StreamsSettings { initial_rebalance_delay: Duration::ZERO, ..StreamsSettings::default() };
    let mut groups = harness(2, settings);
    groups.beat_streams(first("m1")).unwrap();
    let answer = groups.beat_streams(first("m2")).unwrap();
    let words = "Assignment delayed due to the configured assignment interval.";
    assert_eq!(answer.status, [StreamsStatus::AssignmentDelayed(words.to_owned())]);
    assert_eq!(groups.streams_state(), StreamsGroupState::Assigning);
    groups.pass(Duration::from_secs(1));
    assert_eq!(groups.beat_streams(next("m2", answer.epoch.0)).unwrap().status, []);
    assert_eq!(groups.streams_state(), StreamsGroupState::Reconciling);
}

#[test]
fn a_member_that_leaves_or_is_silent_makes_room() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    groups.beat_streams(first("m2")).unwrap();
    groups.settle_streams_members(&["m1", "m2"]);
    let epoch = groups.streams_group().epoch;
    let left = groups.beat_streams(next("m1", -1)).unwrap();
    assert_eq!((left.epoch, left.heartbeat_interval, left.tasks), (MemberEpoch::LEAVING, Duration::ZERO, None));
    assert_eq!(groups.told_tasks(next("m2", epoch)), (epoch + 1, Some(active(&[0, 1]))));
    groups.pass(Duration::from_secs(45));
    assert_eq!(groups.streams_state(), StreamsGroupState::Empty);
    assert_eq!(groups.restarted().streams_state(), StreamsGroupState::Empty);
}

#[test]
fn sessions_begin_anew_after_a_restart() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    let mut restarted = groups.restarted();
    restarted.pass(Duration::from_secs(44));
    restarted.beat_streams(next("m1", 2)).unwrap();
    restarted.pass(Duration::from_secs(46));
    assert_eq!(restarted.streams_state(), StreamsGroupState::Empty);
}

#[test]
fn a_member_that_asks_for_a_shutdown_is_heard_by_all_others() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    groups.beat_streams(first("m2")).unwrap();
    let asking = StreamsHeartbeat { shuts_down: true, ..next("m1", -1) };
    groups.beat_streams(asking).unwrap();
    let epoch = groups.shard.streams[GROUP].members["m2"].epoch.0;
    let words =
        "Streams group member m1 encountered a fatal error and requested a shutdown for the entire application.";
    let told = groups.beat_streams(next("m2", epoch)).unwrap();
    assert_eq!(told.status, [StreamsStatus::ShutdownApplication(words.to_owned())]);
    groups.beat_streams(next("m2", -1)).unwrap();
    assert_eq!(groups.beat_streams(first("m3")).unwrap().status, [], "who comes next starts anew");
}

#[test]
fn a_log_that_refuses_leaves_nothing_behind() {
    let mut groups = cluster_of(2);
    groups.fails_appends = Some(AppendFailure::Unavailable);
    assert_eq!(groups.refused(first("m1")).0, GroupError::CoordinatorNotAvailable);
    assert!(groups.shard.describe_streams(GROUP).is_err());
    groups.fails_appends = None;
    groups.beat_streams(first("m1")).unwrap();
    groups.fails_appends = Some(AppendFailure::Unavailable);
    groups.pass(Duration::from_secs(46));
    assert_eq!(groups.streams_group().members.len(), 1, "it goes once the log takes it");
    groups.fails_appends = None;
    groups.pass(Duration::from_secs(1));
    assert_eq!(groups.streams_state(), StreamsGroupState::Empty);
}

fn joined(groups: &mut Harness) -> Result<(), GroupError> {
    let request = groups.join(JoinRequest { requires_known_member_id: false, ..join_request(GROUP) });
    match groups.answers.remove(&request) {
        // It waits for others: it was let in.
        None => Ok(()),
        Some(Answer::Join(JoinAnswer { outcome, .. })) => outcome.map(drop),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_an_empty_group_becomes_a_classic_one_and_the_other_way_round() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    assert_eq!(joined(&mut groups), Err(GroupError::InconsistentProtocol));
    groups.beat_streams(next("m1", -1)).unwrap();
    assert_eq!(joined(&mut groups), Ok(()));
    assert!(groups.shard.describe_streams(GROUP).is_err());
    assert!(groups.shard.describe(GROUP).is_some());
    assert_eq!(
        groups.refused(first("m1")),
        (GroupError::GroupIdNotFound, "Group g is not a streams group.".to_owned())
    );
    // The classic member goes.
    groups.pass(Duration::from_secs(400));
    assert_eq!(groups.shard.describe(GROUP).unwrap().state, GroupState::Empty);
    groups.beat_streams(first("m1")).unwrap();
    assert_eq!(groups.streams_state(), StreamsGroupState::Stable);
    assert!(groups.shard.describe(GROUP).is_none());
    assert_eq!(groups.restarted().streams_state(), StreamsGroupState::Stable);
}

#[test]
fn lists_name_the_type_and_only_an_empty_group_can_be_deleted() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    let listed = |groups: &Harness, states: &[&str], types: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        groups.shard.list(&GroupFilter { states: own(states), types: own(types) })
    };
    let expected = ListedGroup {
        group_id: GROUP.to_owned(),
        protocol_type: "streams".to_owned(),
        state: "Stable",
        group_type: GroupType::Streams,
    };
    assert_eq!(listed(&groups, &[], &["Streams"]), [expected]);
    assert_eq!(listed(&groups, &["stable"], &[]).len(), 1);
    assert_eq!(listed(&groups, &["empty"], &[]), []);
    assert_eq!(listed(&groups, &[], &["consumer", "classic"]), []);
    assert!(groups.shard.is_not_classic(GROUP));
    assert_eq!(groups.shard.stats().stable_groups, 1);
    let delete = |groups: &mut Harness| {
        let id = groups.request();
        groups.with_effects(|shard, now, effects| shard.delete_group(now, id, GROUP.to_owned(), effects));
        groups.answers.remove(&id).unwrap()
    };
    assert_eq!(delete(&mut groups), Answer::DeleteGroup(Err(GroupError::NonEmptyGroup)));
    groups.beat_streams(next("m1", -1)).unwrap();
    assert_eq!(delete(&mut groups), Answer::DeleteGroup(Ok(())));
    assert!(groups.shard.describe_streams(GROUP).is_err());
    assert!(groups.restarted().shard.describe_streams(GROUP).is_err());
}

#[test]
fn a_streams_group_is_no_share_group_and_a_share_group_no_streams_group() {
    let mut groups = cluster_of(2);
    let share = |groups: &mut Harness, group: &str| {
        let request = ShareHeartbeat {
            group_id: group.to_owned(),
            member_id: "s1".to_owned(),
            epoch: MemberEpoch::JOINING,
            rack_id: None,
            topics: Some(["orders".to_owned()].into()),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        };
        let id = groups.request();
        groups.with_effects(|shard, now, effects| shard.share_heartbeat(now, id, request, effects));
        match groups.answers.remove(&id) {
            Some(Answer::Heartbeat(outcome)) => outcome.map(drop).map_err(|error| error.kind()),
            other => panic!("{other:?}"),
        }
    };
    groups.beat_streams(first("m1")).unwrap();
    assert_eq!(share(&mut groups, GROUP), Err(GroupError::GroupIdNotFound));
    assert_eq!(share(&mut groups, "shared"), Ok(()));
    let joining = StreamsHeartbeat { group_id: "shared".to_owned(), ..first("m1") };
    let told = "Group shared is not a streams group.".to_owned();
    assert_eq!(groups.refused(joining), (GroupError::GroupIdNotFound, told));
    assert!(groups.restarted().shard.describe_streams("shared").is_err());
    assert!(groups.restarted().shard.describe_share("shared").is_ok());
    assert_eq!(groups.restarted().streams_state(), groups.streams_state());
}
