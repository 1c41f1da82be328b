//! What consumer groups (KIP-848) tell of topics to those who may not see them, and whose offsets in them they keep.

use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest, TopicName,
    consumer_group_describe_response::DescribedGroup,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use varve_metadata::model::{TopicId, acl::Permission};

use super::{
    tests::{STANDARD, allow, context, rule},
    *,
};
use crate::server::{
    Limits,
    handlers::{offset_commit, offset_fetch},
    testing::{Client, TestNode},
};

const GROUP: &str = "readers";
const ANYBODY: &str = "User:ANONYMOUS";

/// A node whose only group anybody may read, and a client that found its coordinator.
async fn node() -> (TestNode, Client) {
    let own = [STANDARD, "offsets.topic.num.partitions=1", "group.consumer.assignment.interval.ms=0"];
    let node = TestNode::start_configured(Limits::default(), &own).await;
    allow(&node, ANYBODY, Resource::Group(GROUP), Operation::Read).await;
    let mut client = node.connect().await;
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![GROUP.into()]);
    assert_eq!(client.ask(4, &find).await.coordinators[0].error_code, 0);
    while client.ask(5, &ListGroupsRequest::default()).await.error_code != 0 {
        tokio::task::yield_now().await;
    }
    (node, client)
}

fn first() -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(GROUP.into()))
        .with_member_id("a".into())
        .with_rebalance_timeout_ms(60_000)
        .with_topic_partitions(Some(Vec::new()))
}

fn next(epoch: i32) -> ConsumerGroupHeartbeatRequest {
    first().with_member_epoch(epoch).with_rebalance_timeout_ms(-1).with_topic_partitions(None)
}

async fn described(client: &mut Client) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(GROUP.into())]);
    client.ask(1, &request).await.groups.remove(0)
}

#[tokio::test]
async fn a_group_with_a_topic_that_may_not_be_seen_is_not_described() {
    let (node, mut client) = node().await;
    node.create_topic("seen", 1, &[]).await;
    node.create_topic("hidden", 1, &[]).await;
    for topic in ["seen", "hidden"] {
        allow(&node, ANYBODY, Resource::Topic(topic), Operation::Describe).await;
    }
    let topics = ["seen", "hidden"].map(|topic| TopicName(topic.into()));
    let joined = client.ask(1, &first().with_subscribed_topic_names(Some(topics.into()))).await;
    assert_eq!((joined.error_code, joined.assignment.unwrap().topic_partitions.len()), (0, 2));
    let group = described(&mut client).await;
    assert_eq!((group.error_code, group.members.len()), (0, 1));

    let deny = rule(ANYBODY, Resource::Topic("hidden"), Operation::Describe, Permission::Deny);
    node.broker.metadata.create_acls(&[deny]).await.unwrap();
    let group = described(&mut client).await;
    assert_eq!((group.error_code, group.members.len()), (ResponseError::TopicAuthorizationFailed.code(), 0));
    assert!(!format!("{group:?}").contains("hidden"), "{group:?}");
}

#[tokio::test]
async fn a_pattern_finds_no_topic_that_its_member_may_not_see() {
    let (node, mut client) = node().await;
    let seen = node.create_topic("orders", 1, &[]).await;
    node.create_topic("orders-of-others", 1, &[]).await;
    allow(&node, ANYBODY, Resource::Topic("orders"), Operation::Describe).await;
    let joined = client.ask(1, &first().with_subscribed_topic_regex(Some("orders.*".into()))).await;
    assert_eq!(joined.error_code, 0);
    let mut epoch = joined.member_epoch;
    let assigned = loop {
        let answer = client.ask(1, &next(epoch)).await;
        assert_eq!(answer.error_code, 0);
        epoch = answer.member_epoch;
        match answer.assignment {
            Some(assignment) if !assignment.topic_partitions.is_empty() => break assignment,
            _ => tokio::task::yield_now().await,
        }
    };
    let topics: Vec<_> = assigned.topic_partitions.iter().map(|topic| topic.topic_id).collect();
    assert_eq!(topics, [seen.to_wire()]);
}

/// The code of a commit to a topic that is named by its id.
async fn committed_by_id(node: &TestNode, id: TopicId) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default().with_topic_id(id.to_wire()).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(GROUP.into()))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let context = RequestContext { api_version: 10, ..context("ANONYMOUS") };
    offset_commit::handle(&node.broker, &context, request).await.topics[0].partitions[0].error_code
}

/// The code and the offset of the same topic.
async fn fetched_by_id(node: &TestNode, id: TopicId) -> (i16, i64) {
    let topic = OffsetFetchRequestTopics::default().with_topic_id(id.to_wire()).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(GROUP.into())).with_topics(Some(vec![topic]));
    let context = RequestContext { api_version: 10, ..context("ANONYMOUS") };
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let answer = offset_fetch::handle(&node.broker, &context, request).await.groups.remove(0);
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

#[tokio::test]
async fn offsets_by_topic_id_take_the_rights_of_those_by_name() {
    let (node, _client) = node().await;
    let id = node.create_topic("mine", 1, &[]).await;
    let denied = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!((committed_by_id(&node, id).await, fetched_by_id(&node, id).await), (denied, (denied, -1)));
    allow(&node, ANYBODY, Resource::Topic("mine"), Operation::Describe).await;
    assert_eq!((committed_by_id(&node, id).await, fetched_by_id(&node, id).await), (denied, (0, -1)));
    allow(&node, ANYBODY, Resource::Topic("mine"), Operation::Read).await;
    assert_eq!((committed_by_id(&node, id).await, fetched_by_id(&node, id).await), (0, (0, 7)));
}
