//! A running group changes its protocol.

use bytes::Bytes;

use super::*;
use crate::coordinator::{
    Answer, GroupError, GroupState, JoinAnswer, JoinRequest, MigrationPolicy, RequestId,
    subscription::{MemberAssignment, NamedPartitions, encode_assignment},
};

fn named(partitions: &[u32]) -> NamedPartitions {
    [("orders".to_owned(), partitions.iter().copied().map(PartitionIndex).collect())].into()
}

/// A stable classic group whose members have one partition each.
fn classic(groups: &mut Harness, count: usize) -> Vec<String> {
    let joins: Vec<(String, RequestId)> = (0..count).map(|_| groups.join_dynamic(GROUP)).collect();
    while joins.iter().any(|(_, request)| groups.is_waiting(*request)) {
        groups.pass(SECOND);
    }
    let members: Vec<String> = joins.iter().map(|(member, _)| member.clone()).collect();
    let joined: Vec<_> = joins.into_iter().map(|(_, request)| groups.joined(request)).collect();
    let parts: Vec<(String, Bytes)> = members
        .iter()
        .enumerate()
        .map(|(place, member)| (member.clone(), encode_assignment(1, &named(&[place as u32]))))
        .collect();
    let generation = joined[0].generation.0;
    let leader = joined[0].leader.clone();
    groups.sync_with(GROUP, identity(&leader), generation, parts);
    for member in members.iter().filter(|member| **member != leader) {
        groups.sync_with(GROUP, identity(member), generation, Vec::new());
    }
    assert_eq!(groups.state(GROUP), Some(GroupState::Stable));
    members
}

fn assignment(bytes: &Bytes) -> NamedPartitions {
    MemberAssignment::parse(bytes).unwrap().partitions
}

fn rejoin(groups: &mut Harness, member: &str) -> (u32, RequestId) {
    let request = groups.rejoin(GROUP, member);
    let joined = groups.joined(request);
    assert_eq!((joined.leader.as_str(), joined.protocol_name.as_deref()), ("", Some("range")));
    (joined.generation.0, request)
}

#[test]
fn a_group_goes_up_with_its_first_consumer_and_down_with_its_last() {
    let mut groups = cluster_of(2);
    let members = classic(&mut groups, 2);
    // Up: the classic members keep what they have until they are called.
    let (epoch, assigned) = groups.told(first("new"));
    assert_eq!((epoch, assigned), (2, Some(orders(&[]))));
    let described = groups.described();
    assert_eq!(described.members.iter().filter(|member| member.is_classic).count(), 2);
    assert_eq!(described.members.iter().map(|member| member.assignment.len()).sum::<usize>(), 2);
    assert_eq!(groups.restarted().described(), described);

    // Two partitions among three: one classic member has to give its partition up, or the new one has none.
    for member in &members {
        assert_eq!(groups.heartbeat(GROUP, member, 1), Err(GroupError::RebalanceInProgress));
        let (generation, _) = rejoin(&mut groups, member);
        let synced = groups.sync(GROUP, member, generation, &[]);
        let part = assignment(&groups.synced(synced).unwrap());
        assert!(part.values().map(BTreeSet::len).sum::<usize>() <= 1);
    }
    assert_eq!(groups.restarted().described(), groups.described());

    // Down: whoever is left rebalances as a classic group.
    let answer = groups.beat(leaving("new")).unwrap();
    assert_eq!(answer.epoch, MemberEpoch::LEAVING);
    assert_eq!(groups.state(GROUP), Some(GroupState::PreparingRebalance));
    assert_eq!(groups.restarted().state(GROUP), Some(GroupState::Stable), "that is what the log keeps");
    let requests: Vec<RequestId> = members.iter().map(|member| groups.rejoin(GROUP, member)).collect();
    for request in requests {
        assert!(groups.joined(request).generation.0 > 2);
    }
}

#[test]
fn classic_members_are_moved_to_the_newest_target() {
    let mut groups = cluster_of(2);
    let members = classic(&mut groups, 1);
    groups.told(first("new"));
    assert_eq!(groups.heartbeat(GROUP, &members[0], 1), Err(GroupError::RebalanceInProgress));
    // It owns partition 0, and says so in its subscription; it may keep it, and needs no second one.
    let (generation, _) = rejoin(&mut groups, &members[0]);
    let synced = groups.sync(GROUP, &members[0], generation, &[]);
    assert_eq!(assignment(&groups.synced(synced).unwrap()), named(&[0]));
    assert_eq!(groups.told(next("new", 2)).1, None);
    assert_eq!(groups.heartbeat(GROUP, &members[0], generation), Ok(()));
    assert_eq!(groups.sync_error(GROUP, &members[0], generation + 5), GroupError::IllegalGeneration);
    let (name, wrong) = ("stranger", groups.heartbeat(GROUP, "stranger", generation));
    assert_eq!(wrong, Err(GroupError::UnknownMemberId), "{name}");
    // A member of the consumer protocol speaks no classic requests.
    assert_eq!(groups.heartbeat(GROUP, "new", 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_classic_member_that_does_not_join_again_is_removed() {
    let mut groups = cluster_of(2);
    let members = classic(&mut groups, 1);
    groups.told(first("new"));
    for _ in 0..12 {
        assert_eq!(groups.heartbeat(GROUP, &members[0], 1), Err(GroupError::RebalanceInProgress));
        groups.told(next("new", 2));
        groups.pass(SECOND * 5);
    }
    groups.pass(SECOND);
    assert_eq!(groups.described().members.len(), 1);
    assert_eq!(groups.told(next("new", 2)), (3, Some(orders(&[0, 1]))));
}

#[test]
fn a_new_classic_member_joins_a_consumer_group_in_two_steps() {
    let mut groups = cluster_of(2);
    groups.told(first("new"));
    let (member, request) = groups.join_dynamic(GROUP);
    let joined = groups.joined(request);
    assert_eq!((joined.generation.0, joined.protocol_type.as_deref()), (3, Some("consumer")));
    let described = groups.described();
    assert!(described.members.iter().any(|found| found.member_id == member && found.is_classic));
    let strange = JoinRequest { protocol_type: "connect".to_owned(), ..join_request(GROUP) };
    let refused = groups.join(strange);
    assert_eq!(groups.join_error(refused), GroupError::InconsistentProtocol);
    // A member that never asks for its assignment is removed.
    groups.pass(SECOND * 9);
    groups.heartbeat(GROUP, &member, 3).ok();
    for _ in 0..12 {
        groups.pass(SECOND * 5);
        groups.heartbeat(GROUP, &member, 3).ok();
        let epoch = groups.described().members.iter().find(|found| !found.is_classic).unwrap().epoch.0;
        groups.told(owning("new", epoch, &[0]));
    }
    assert_eq!(groups.described().members.len(), 1);
}

#[test]
fn those_who_wait_for_a_rebalance_are_sent_to_the_consumer_group() {
    let mut groups = cluster_of(2);
    let members = classic(&mut groups, 2);
    let waiting = groups.join(JoinRequest {
        member_id: Some(members[0].clone()),
        protocols: vec![protocol("range", &["orders", "bills"])],
        ..join_request(GROUP)
    });
    assert!(groups.is_waiting(waiting));
    groups.told(first("new"));
    assert_eq!(groups.join_error(waiting), GroupError::RebalanceInProgress);
    assert_eq!(groups.described().members.len(), 3);
}

#[test]
fn a_group_changes_its_protocol_only_as_the_policy_allows() {
    let with = |migration| harness(GroupConfig { migration, ..GroupConfig::default() }, 2);
    let mut fixed = with(MigrationPolicy::Downgrade);
    classic(&mut fixed, 1);
    let error = fixed.beat(first("new")).unwrap_err();
    let expected = "Cannot upgrade classic group g to consumer group because online upgrade is disabled.";
    assert_eq!((error.kind(), error.to_string().as_str()), (GroupError::GroupIdNotFound, expected));

    let mut up_only = with(MigrationPolicy::Upgrade);
    classic(&mut up_only, 1);
    up_only.told(first("new"));
    up_only.told(leaving("new"));
    assert_eq!(up_only.described().members.len(), 1, "it stays a consumer group");
}

#[test]
fn a_group_of_another_kind_of_client_stays_what_it_is() {
    let mut groups = cluster_of(1);
    let workers =
        JoinRequest { protocol_type: "connect".to_owned(), requires_known_member_id: false, ..join_request(GROUP) };
    groups.join(workers);
    groups.pass(SECOND * 4);
    assert_eq!(groups.beat(first("new")).unwrap_err().kind(), GroupError::GroupIdNotFound);
}

#[test]
fn user_data_of_a_custom_assignor_stands_against_an_upgrade() {
    let mut groups = cluster_of(1);
    let (member, request) = groups.join_dynamic(GROUP);
    groups.pass(SECOND * 4);
    let generation = groups.joined(request).generation.0;
    let mut bytes = encode_assignment(1, &named(&[0])).to_vec();
    bytes.truncate(bytes.len() - 4);
    bytes.extend([0, 0, 0, 1, 9]);
    groups.sync_with(GROUP, identity(&member), generation, vec![(member.clone(), bytes.into())]);
    let error = groups.beat(first("new")).unwrap_err();
    assert!(error.to_string().contains("an unsupported custom assignor is in use."), "{error}");
}

#[test]
fn empty_groups_change_their_type_without_ado_and_keep_their_offsets() {
    let mut groups = cluster_of(1);
    let commit = groups.commit(simple_commit(GROUP, "orders", 3));
    groups.committed(commit).unwrap();
    assert_eq!(groups.told(first("a")).1, Some(orders(&[0])));
    assert_eq!(groups.offset(GROUP, "orders"), Some(3));
    assert_eq!(groups.restarted().described(), groups.described());
    groups.told(leaving("a"));
    let (_, request) = groups.join_dynamic(GROUP);
    groups.pass(SECOND * 4);
    assert_eq!(groups.joined(request).generation.0, 1);
    assert_eq!(groups.offset(GROUP, "orders"), Some(3));
    let restarted = groups.restarted();
    assert_eq!((restarted.state(GROUP), restarted.offset(GROUP, "orders")), (Some(GroupState::Empty), Some(3)));
}

#[test]
fn a_classic_static_member_takes_the_place_of_the_last_consumer() {
    let mut groups = cluster_of(2);
    groups.told(ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..first("a") });
    let request = groups.join(static_join(GROUP, "i", 7));
    let Some(Answer::Join(JoinAnswer { member_id, outcome: Ok(joined) })) = groups.answers.remove(&request) else {
        panic!("the member joins");
    };
    assert_eq!(groups.state(GROUP), Some(GroupState::Stable));
    let synced = groups.sync_static(GROUP, &member_id, "i", joined.generation.0);
    assert_eq!(assignment(&groups.synced(synced).unwrap()), named(&[0, 1]));
    assert_eq!(groups.restarted().state(GROUP), Some(GroupState::Stable));
}

#[test]
fn a_failed_upgrade_leaves_the_classic_group_as_it_was() {
    let mut groups = cluster_of(2);
    let members = classic(&mut groups, 2);
    groups.fails_appends = Some(crate::coordinator::AppendFailure::Unavailable);
    assert_eq!(groups.beat(first("new")).unwrap_err().kind(), GroupError::CoordinatorNotAvailable);
    groups.fails_appends = None;
    assert_eq!(groups.state(GROUP), Some(GroupState::Stable));
    assert_eq!(groups.heartbeat(GROUP, &members[0], 1), Ok(()));
}

#[test]
fn leaving_by_the_classic_request_works_in_a_consumer_group() {
    let mut groups = cluster_of(2);
    groups.told(ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..first("a") });
    groups.told(first("b"));
    let left = groups.leave(GROUP, &[instance("i"), identity("nobody")]).0.unwrap();
    assert_eq!(left, [Ok(()), Err(GroupError::UnknownMemberId)]);
    assert_eq!(groups.described().members.len(), 1);
}

#[test]
fn a_join_with_very_many_protocols_is_judged_at_once() {
    let many = |prefix: &str| -> Vec<_> {
        (0..100_000).map(|number| protocol(&format!("{prefix}-{number}"), &["orders"])).collect()
    };
    let mut groups = cluster_of(2);
    groups.told(first("new"));
    let mut join = |protocols: Vec<_>, fresh| {
        let request = groups.join(JoinRequest { protocols, ..static_join(GROUP, &format!("i-{fresh}"), fresh) });
        match groups.answers.remove(&request) {
            Some(Answer::Join(JoinAnswer { outcome, .. })) => outcome.map(|joined| joined.protocol_name),
            other => panic!("no answer to a join: {other:?}"),
        }
    };
    // A name that is given twice is no more understood than one given once.
    let twice = [many("a"), vec![protocol("both", &["orders"]), protocol("both", &["orders"])]].concat();
    assert!(join(twice, 1).is_ok());
    assert_eq!(join(many("b"), 2), Err(GroupError::InconsistentProtocol));
    assert!(join([many("b"), vec![protocol("both", &["orders"])]].concat(), 3).is_ok());
    assert_eq!(join(vec![protocol("b-1", &["orders"])], 4), Err(GroupError::InconsistentProtocol));
}
