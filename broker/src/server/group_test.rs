//! Groups and their offsets through real sockets, in every version.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
        JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
        OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, TopicName,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Request, StrBytes},
};
use varve_metadata::model::TopicId;

use super::{
    GroupCoordinator, Limits,
    seats::SeatError,
    testing::{Client, TestNode},
};
use crate::coordinator::{GroupState, OFFSETS_TOPIC};

const GROUP: &str = "readers";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn node() -> TestNode {
    let settings = ["group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=3"];
    TestNode::start_configured(Limits::default(), &settings).await
}

/// Finds the coordinator, and waits until the group's partition is loaded.
async fn coordinated(node: &TestNode) -> Client {
    let mut client = node.connect().await;
    find(&mut client, 4).await;
    let seat = node.broker.groups.seat(&node.broker, GROUP).unwrap();
    while seat.read(|_| ()) == Err(SeatError::Loading) {
        tokio::task::yield_now().await;
    }
    client
}

async fn find(client: &mut Client, version: i16) -> (i16, i32) {
    let request = if version >= 4 {
        FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)])
    } else {
        FindCoordinatorRequest::default().with_key(text(GROUP))
    };
    let response = client.ask(version, &request).await;
    match response.coordinators.first() {
        Some(found) => (found.error_code, found.node_id.0),
        None => (response.error_code, response.node_id.0),
    }
}

fn join(member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription());
    JoinGroupRequest::default()
        .with_group_id(text(GROUP).into())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(20_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// A consumer's subscription to `orders`.
fn subscription() -> Bytes {
    Bytes::from_static(b"\0\0\0\0\0\x01\0\x06orders\xff\xff\xff\xff")
}

/// Joins as the only member; the first of two steps where the version has two.
async fn join_alone(client: &mut Client, version: i16) -> JoinGroupResponse {
    let with_timeout = |request: JoinGroupRequest| {
        if version == 0 { request.with_rebalance_timeout_ms(-1) } else { request }
    };
    let first = client.ask(version, &with_timeout(join(""))).await;
    if version < 4 {
        return first;
    }
    assert_eq!(first.error_code, ResponseError::MemberIdRequired.code());
    client.ask(version, &with_timeout(join(&first.member_id))).await
}

fn sync(version: i16, joined: &JoinGroupResponse) -> SyncGroupRequest {
    let part = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"everything"));
    let request = SyncGroupRequest::default()
        .with_group_id(text(GROUP).into())
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![part]);
    if version >= 5 {
        request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")))
    } else {
        request
    }
}

fn leave(version: i16, member_id: &StrBytes) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(text(GROUP).into());
    if version >= 3 {
        request.with_members(vec![MemberIdentity::default().with_member_id(member_id.clone())])
    } else {
        request.with_member_id(member_id.clone())
    }
}

fn commit(version: i16, topic: (&str, TopicId), offset: i64) -> OffsetCommitRequest {
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("here")))
    };
    let data = OffsetCommitRequestTopic::default().with_partitions(vec![partition(0), partition(7)]);
    let data = if version >= 10 { data.with_topic_id(topic.1.to_wire()) } else { data.with_name(text(topic.0).into()) };
    OffsetCommitRequest::default()
        .with_group_id(text(GROUP).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![data])
}

async fn commit_outcomes(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> Vec<i16> {
    let response = ask(client, version, request).await;
    response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

fn fetch(version: i16, topic: (&str, TopicId), all: bool) -> OffsetFetchRequest {
    let name: TopicName = text(topic.0).into();
    if version >= 8 {
        let asked = OffsetFetchRequestTopics::default().with_partition_indexes(vec![0, 1]);
        let asked = if version >= 10 { asked.with_topic_id(topic.1.to_wire()) } else { asked.with_name(name) };
        let group = OffsetFetchRequestGroup::default().with_group_id(text(GROUP).into());
        let group = group.with_topics((!all).then(|| vec![asked]));
        return OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
    }
    let asked = OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(vec![0, 1]);
    OffsetFetchRequest::default()
        .with_group_id(text(GROUP).into())
        .with_topics((!all).then(|| vec![asked]))
        .with_require_stable(version >= 7)
}

/// Partition and offset of everything in the answer.
fn offsets(response: &OffsetFetchResponse) -> Vec<(i32, i64)> {
    let old = response.topics.iter().flat_map(|topic| &topic.partitions);
    let old = old.map(|partition| (partition.partition_index, partition.committed_offset));
    let new = response.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
    old.chain(new.map(|partition| (partition.partition_index, partition.committed_offset))).collect()
}

#[tokio::test]
async fn the_coordinator_is_found_in_every_version_and_its_topic_made_on_demand() {
    let node = node().await;
    let mut client = node.connect().await;
    for version in 0..=6 {
        assert_eq!(find(&mut client, version).await, (0, 1), "version {version}");
    }
    let image = node.broker.metadata.image();
    let topic = image.topic(OFFSETS_TOPIC).unwrap();
    assert_eq!((topic.partitions.len(), topic.internal), (3, true));
    assert_eq!(topic.overrides.get("cleanup.policy").map(String::as_str), Some("compact"));
}

#[tokio::test]
async fn a_member_lives_through_its_group_in_every_version() {
    let node = node().await;
    let mut client = coordinated(&node).await;
    for version in 0..=9 {
        let joined = join_alone(&mut client, version).await;
        assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id), "join version {version}");
        assert_eq!(joined.members[0].metadata, subscription());

        let syncing = version.min(5);
        let synced = client.ask(syncing, &sync(syncing, &joined)).await;
        assert_eq!((synced.error_code, synced.assignment), (0, Bytes::from_static(b"everything")));

        let heartbeat = HeartbeatRequest::default()
            .with_group_id(text(GROUP).into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone());
        assert_eq!(client.ask(version.min(4), &heartbeat).await.error_code, 0);

        let describe = DescribeGroupsRequest::default().with_groups(vec![text(GROUP).into()]);
        let described = client.ask(version.min(6), &describe).await.groups.remove(0);
        assert_eq!((&*described.group_state, &*described.protocol_data), ("Stable", "range"));
        assert_eq!(&*described.members[0].client_host, "/127.0.0.1");

        let listed = client.ask(version.min(5), &ListGroupsRequest::default()).await.groups;
        assert_eq!(&*listed[0].group_id.0, GROUP);

        let leaving = version.min(5);
        let left = client.ask(leaving, &leave(leaving, &joined.member_id)).await;
        assert_eq!(left.error_code, 0);
        assert!(left.members.iter().all(|member| member.error_code == 0));
        assert_ne!(client.ask(version.min(4), &heartbeat).await.error_code, 0);
    }
}

#[tokio::test]
async fn a_waiting_join_is_answered_when_the_others_have_joined() {
    let node = node().await;
    let (mut first, mut second) = (coordinated(&node).await, node.connect().await);
    let joined = join_alone(&mut first, 9).await;
    assert_eq!(first.ask(5, &sync(5, &joined)).await.error_code, 0);
    let required = second.ask(9, &join("")).await;
    let (new, again) = (join(&required.member_id), join(&joined.member_id));
    let (newcomer, rejoined) = tokio::join!(second.ask(9, &new), first.ask(9, &again));
    assert_eq!((newcomer.generation_id, rejoined.generation_id), (2, 2));
    assert_eq!(newcomer.members.len() + rejoined.members.len(), 2, "one of them leads");
}

#[tokio::test]
async fn offsets_are_committed_and_fetched_in_every_version() {
    let node = node().await;
    let topic = ("orders", node.create_topic("orders", 2, &[]).await);
    let mut client = coordinated(&node).await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    for version in 2..=10 {
        let request = commit(version, topic, i64::from(version) * 10);
        assert_eq!(commit_outcomes(&mut client, version, &request).await, [0, unknown], "version {version}");
        for reading in 1..=10 {
            let response = ask(&mut client, reading, &fetch(reading, topic, false)).await;
            assert_eq!(offsets(&response), [(0, i64::from(version) * 10), (1, -1)], "version {reading}");
        }
    }
    for reading in 2..=10 {
        let response = ask(&mut client, reading, &fetch(reading, topic, true)).await;
        assert_eq!(offsets(&response), [(0, 100)], "all topics, version {reading}");
    }
}

#[tokio::test]
async fn commits_wait_for_the_disk_where_the_offsets_topic_asks_for_it() {
    let node = node().await;
    let topic = ("orders", node.create_topic("orders", 2, &[]).await);
    node.create_topic(OFFSETS_TOPIC, 3, &[("cleanup.policy", "compact"), ("flush.messages", "1")]).await;
    let mut client = coordinated(&node).await;
    let joined = join_alone(&mut client, 9).await;
    assert_eq!(client.ask(5, &sync(5, &joined)).await.error_code, 0);
    for offset in 1..20 {
        let mut request = commit(9, topic, offset);
        request.generation_id_or_member_epoch = joined.generation_id;
        request.member_id = joined.member_id.clone();
        assert_eq!(commit_outcomes(&mut client, 9, &request).await[0], 0);
        let seat = node.broker.groups.seat(&node.broker, GROUP).unwrap();
        let partition = seat.partition();
        assert_eq!(partition.log().recovery_point(), partition.log().end().0, "answered after the flush");
    }
    assert_eq!(offsets(&ask(&mut client, 9, &fetch(9, topic, true)).await), [(0, 19)]);
}

#[tokio::test]
async fn commits_for_unknown_topics_say_so() {
    let node = node().await;
    let mut client = coordinated(&node).await;
    let gone = ("gone", TopicId::random());
    let by_name = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(commit_outcomes(&mut client, 9, &commit(9, gone, 1)).await, [by_name; 2]);
    let by_id = ResponseError::UnknownTopicId.code();
    assert_eq!(commit_outcomes(&mut client, 10, &commit(10, gone, 1)).await, [by_id; 2]);
}

#[tokio::test]
async fn groups_and_offsets_are_deleted() {
    let node = node().await;
    let topic = ("orders", node.create_topic("orders", 8, &[]).await);
    let mut client = coordinated(&node).await;
    assert_eq!(commit_outcomes(&mut client, 9, &commit(9, topic, 5)).await, [0, 0]);
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(7);
    let asked = OffsetDeleteRequestTopic::default().with_name(text("orders").into()).with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default().with_group_id(text(GROUP).into()).with_topics(vec![asked]);
    let deleted = client.ask(0, &request).await;
    assert_eq!((deleted.error_code, deleted.topics[0].partitions[0].error_code), (0, 0));
    let left = ask(&mut client, 9, &fetch(9, topic, true)).await;
    assert_eq!(offsets(&left), [(0, 5)]);

    let groups = DeleteGroupsRequest::default().with_groups_names(vec![text(GROUP).into(), text("none").into()]);
    let codes: Vec<i16> = client.ask(2, &groups).await.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, ResponseError::GroupIdNotFound.code()]);
    let described = client.ask(6, &DescribeGroupsRequest::default().with_groups(vec![text(GROUP).into()])).await;
    assert_eq!(described.groups[0].error_code, ResponseError::GroupIdNotFound.code());
    assert_eq!(described.groups[0].error_message.as_deref(), Some("Group readers not found."));
}

#[tokio::test]
async fn a_coordinator_that_starts_finds_groups_and_offsets_in_the_log() {
    let node = node().await;
    let topic = ("orders", node.create_topic("orders", 2, &[]).await);
    let mut client = coordinated(&node).await;
    let joined = join_alone(&mut client, 9).await;
    client.ask(5, &sync(5, &joined)).await;
    let mut request = commit(9, topic, 42);
    request.generation_id_or_member_epoch = joined.generation_id;
    request.member_id = joined.member_id.clone();
    commit_outcomes(&mut client, 9, &request).await;

    let (config, metadata) = (&node.broker.config, node.broker.metadata.clone());
    let restarted = GroupCoordinator::new(config.groups.clone(), config.node, metadata, node.broker.partitions.clone());
    let seat = restarted.seat(&node.broker, GROUP).unwrap();
    assert_eq!(seat.read(|_| ()), Err(SeatError::Loading));
    while seat.read(|_| ()) == Err(SeatError::Loading) {
        tokio::task::yield_now().await;
    }
    let described = seat.read(|shard| shard.describe(GROUP)).unwrap().unwrap();
    assert_eq!(described.members[0].member_id, *joined.member_id);
    assert_eq!(described.members[0].assignment, Bytes::from_static(b"everything"));
    let committed = seat.read(|shard| shard.committed(GROUP).cloned()).unwrap().unwrap();
    assert_eq!(committed["orders"].values().next().unwrap().offset, 42);
    assert!(joined.generation_id > 0);
}

#[tokio::test]
async fn offsets_go_with_their_topic() {
    let node = node().await;
    let topic = ("orders", node.create_topic("orders", 2, &[]).await);
    let mut client = coordinated(&node).await;
    commit_outcomes(&mut client, 9, &commit(9, topic, 42)).await;
    node.broker.metadata.delete_topics(&[topic.1], None).await.unwrap();
    while !offsets(&ask(&mut client, 9, &fetch(9, topic, true)).await).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_stops_answers_those_who_wait() {
    let node = node().await;
    let (mut first, mut second) = (coordinated(&node).await, node.connect().await);
    let joined = join_alone(&mut first, 9).await;
    first.ask(5, &sync(5, &joined)).await;
    let required = second.ask(9, &join("")).await;
    let join = join(&required.member_id);
    let (waiting, ()) = tokio::join!(second.ask(9, &join), async {
        let seat = node.broker.groups.seat(&node.broker, GROUP).unwrap();
        let state = || seat.read(|shard| shard.describe(GROUP).map(|group| group.state)).unwrap();
        while state() != Some(GroupState::PreparingRebalance) {
            tokio::task::yield_now().await;
        }
        node.broker.shutdown.cancel();
    });
    assert_eq!(waiting.error_code, ResponseError::NotCoordinator.code());
}

/// Requests whose newest version `kafka-protocol` cannot write.
trait Later: Request {
    fn body_of_10(&self) -> Vec<u8>;
}

impl Later for OffsetCommitRequest {
    fn body_of_10(&self) -> Vec<u8> {
        let mut body = compact(&self.group_id);
        body.extend(self.generation_id_or_member_epoch.to_be_bytes());
        body.extend(compact(&self.member_id));
        body.push(0); // no instance id
        body.push(self.topics.len() as u8 + 1);
        for topic in &self.topics {
            body.extend(topic.topic_id.as_bytes());
            body.push(topic.partitions.len() as u8 + 1);
            for partition in &topic.partitions {
                body.extend(partition.partition_index.to_be_bytes());
                body.extend(partition.committed_offset.to_be_bytes());
                body.extend(partition.committed_leader_epoch.to_be_bytes());
                body.extend(compact(partition.committed_metadata.as_deref().unwrap()));
                body.push(0);
            }
            body.push(0);
        }
        body.push(0);
        body
    }
}

impl Later for OffsetFetchRequest {
    fn body_of_10(&self) -> Vec<u8> {
        let mut body = vec![self.groups.len() as u8 + 1];
        for group in &self.groups {
            body.extend(compact(&group.group_id));
            body.push(0); // no member id
            body.extend(group.member_epoch.to_be_bytes());
            body.push(group.topics.as_ref().map_or(0, |topics| topics.len() as u8 + 1));
            for topic in group.topics.iter().flatten() {
                body.extend(topic.topic_id.as_bytes());
                body.push(topic.partition_indexes.len() as u8 + 1);
                body.extend(topic.partition_indexes.iter().flat_map(|index| index.to_be_bytes()));
                body.push(0);
            }
            body.push(0);
        }
        body.extend([u8::from(self.require_stable), 0]);
        body
    }
}

fn compact(text: &str) -> Vec<u8> {
    [&[text.len() as u8 + 1], text.as_bytes()].concat()
}

async fn ask<R: Later>(client: &mut Client, version: i16, request: &R) -> R::Response {
    if version < 10 {
        return client.ask(version, request).await;
    }
    let body = request.body_of_10();
    // Key, version, correlation id, null client id, no tagged fields.
    let header = [&R::KEY.to_be_bytes()[..], &version.to_be_bytes(), &[0; 4], &[0xff, 0xff, 0]].concat();
    let length = ((header.len() + body.len()) as i32).to_be_bytes();
    client.send_raw(&[&length[..], &header, &body].concat()).await;
    client.receive(ApiKey::try_from(R::KEY).unwrap(), version).await.1
}
