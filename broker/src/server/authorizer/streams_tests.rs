//! What streams groups (KIP-1071) have made for those who may have it made, and tell of topics to those who may see them.

use kafka_protocol::{
    messages::{FindCoordinatorRequest, ListGroupsRequest},
    protocol::StrBytes,
};
use varve_metadata::{
    controller::{AlterRequest, AlterResource, Alteration, ConfigOp},
    image::ConfigResource,
    model::acl::Permission,
};

use super::{
    tests::{STANDARD, allow, context, rule},
    *,
};
use crate::{
    server::{
        Limits,
        broker_rules::Rules,
        handlers::{streams_group_describe, streams_group_heartbeat},
        testing::TestNode,
    },
    wire::later::{
        streams_group_describe::{DescribedGroup, StreamsGroupDescribeRequest},
        streams_group_heartbeat::{
            StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, Subtopology, TopicInfo, Topology,
        },
    },
};

const GROUP: &str = "shop";
const CALLER: &str = "ann";
const ANN: &str = "User:ann";
const CHANGELOG: &str = "shop-counts-changelog";
const MISSING_INTERNAL_TOPICS: i8 = 3;

/// A node whose only group the caller may read, with a topic that it may see.
async fn node(settings: &[&str]) -> TestNode {
    let own = [
        STANDARD,
        "offsets.topic.num.partitions=1",
        "group.streams.initial.rebalance.delay.ms=0",
        "group.streams.assignment.interval.ms=0",
    ];
    let node = TestNode::start_configured(Limits::default(), &[&own[..], settings].concat()).await;
    node.create_topic("orders", 3, &[]).await;
    allow(&node, ANN, Resource::Group(GROUP), Operation::Read).await;
    for topic in ["orders", CHANGELOG] {
        allow(&node, ANN, Resource::Topic(topic), Operation::Describe).await;
    }
    allow(&node, "User:ANONYMOUS", Resource::Group(GROUP), Operation::Describe).await;
    let mut client = node.connect().await;
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![GROUP.into()]);
    assert_eq!(client.ask(4, &find).await.coordinators[0].error_code, 0);
    while client.ask(5, &ListGroupsRequest::default()).await.error_code != 0 {
        tokio::task::yield_now().await;
    }
    node
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// A member of an application that counts `orders`.
fn first(setting: (&'static str, &'static str)) -> StreamsGroupHeartbeatRequest {
    let changelog = TopicInfo {
        name: text(CHANGELOG),
        topic_configs: vec![(text(setting.0), text(setting.1))],
        ..TopicInfo::default()
    };
    let subtopology = Subtopology {
        subtopology_id: text("0"),
        source_topics: vec![text("orders")],
        state_changelog_topics: vec![changelog],
        ..Subtopology::default()
    };
    StreamsGroupHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        topology: Some(Topology { epoch: 0, subtopologies: vec![subtopology] }),
        process_id: Some(text("p")),
        ..next(0)
    }
}

fn next(epoch: i32) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: text(GROUP),
        member_id: text("m"),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..StreamsGroupHeartbeatRequest::default()
    }
}

async fn beat(node: &TestNode, request: StreamsGroupHeartbeatRequest) -> StreamsGroupHeartbeatResponse {
    streams_group_heartbeat::handle(&node.broker, &context(CALLER), request).await
}

/// What the status says of missing internal topics.
fn missing(answer: &StreamsGroupHeartbeatResponse) -> Option<String> {
    assert_eq!(answer.error_code, 0, "{answer:?}");
    let status = answer.status.iter().find(|(code, _)| *code == MISSING_INTERNAL_TOPICS);
    status.map(|(_, detail)| detail.to_string())
}

/// Heartbeats until the answer is as `enough` wants it.
async fn until(
    node: &TestNode,
    mut epoch: i32,
    enough: impl Fn(&StreamsGroupHeartbeatResponse) -> bool,
) -> StreamsGroupHeartbeatResponse {
    for _ in 0..10_000 {
        let answer = beat(node, next(epoch)).await;
        if enough(&answer) {
            return answer;
        }
        epoch = answer.member_epoch;
        tokio::task::yield_now().await;
    }
    panic!("never enough");
}

async fn described(node: &TestNode) -> DescribedGroup {
    let request = StreamsGroupDescribeRequest { group_ids: vec![text(GROUP)], include_authorized_operations: true };
    streams_group_describe::handle(&node.broker, &context(CALLER), request).await.groups.remove(0)
}

#[tokio::test]
async fn a_changelog_is_made_as_its_topology_wants_it_for_who_may_make_it() {
    let node = node(&[]).await;
    let told = beat(&node, first(("cleanup.policy", "compact"))).await;
    let detail = missing(&told).unwrap();
    assert_eq!(
        detail,
        format!("Internal topics are missing: {CHANGELOG}; Unauthorized to CREATE on topics {CHANGELOG}.")
    );
    assert!(node.broker.metadata.image().topic(CHANGELOG).is_none());

    allow(&node, ANN, Resource::Topic(CHANGELOG), Operation::Create).await;
    let told = until(&node, told.member_epoch, |answer| missing(answer).is_none()).await;
    let topic = node.broker.metadata.image().topic(CHANGELOG).cloned().unwrap();
    assert_eq!(topic.partitions.len(), 3);
    assert_eq!(topic.overrides.get("cleanup.policy").map(String::as_str), Some("compact"));
    let tasks = told.active_tasks.unwrap();
    assert_eq!((tasks.len(), tasks[0].partitions.len()), (1, 3));
}

#[tokio::test]
async fn who_may_make_any_topic_may_make_a_changelog() {
    let node = node(&[]).await;
    allow(&node, ANN, Resource::Cluster, Operation::Create).await;
    let told = beat(&node, first(("cleanup.policy", "compact"))).await;
    assert_eq!(missing(&told).unwrap(), format!("Internal topics are missing: {CHANGELOG}"));
    until(&node, told.member_epoch, |answer| missing(answer).is_none()).await;
}

#[tokio::test]
async fn why_a_changelog_cannot_be_made_is_told() {
    let node = node(&[]).await;
    allow(&node, ANN, Resource::Cluster, Operation::Create).await;
    let told = beat(&node, first(("cleanup.policy", "nonsense"))).await;
    let told = until(&node, told.member_epoch, |answer| {
        missing(answer).is_some_and(|detail| detail.contains("Creation failed"))
    })
    .await;
    let detail = missing(&told).unwrap();
    assert!(detail.contains(&format!("; Creation failed: {CHANGELOG} (")), "{detail}");
    assert!(detail.contains("nonsense") && detail.ends_with(")."), "{detail}");
    assert!(node.broker.metadata.image().topic(CHANGELOG).is_none());
}

#[tokio::test]
async fn a_topic_that_may_not_be_seen_is_neither_read_nor_described() {
    let node = node(&[]).await;
    allow(&node, ANN, Resource::Group(GROUP), Operation::Describe).await;
    allow(&node, ANN, Resource::Cluster, Operation::Create).await;
    let told = beat(&node, first(("cleanup.policy", "compact"))).await;
    until(&node, told.member_epoch, |answer| missing(answer).is_none()).await;
    let group = described(&node).await;
    assert_eq!((group.error_code, group.members.len()), (0, 1));
    assert_ne!(group.authorized_operations, i32::MIN);

    let deny = rule(ANN, Resource::Topic(CHANGELOG), Operation::Describe, Permission::Deny);
    node.broker.metadata.create_acls(&[deny]).await.unwrap();
    let group = described(&node).await;
    assert_eq!((group.error_code, group.members.len()), (ResponseError::TopicAuthorizationFailed.code(), 0));
    assert!(!format!("{group:?}").contains(CHANGELOG), "{group:?}");
    let refused = beat(&node, first(("cleanup.policy", "compact"))).await;
    assert_eq!(refused.error_code, ResponseError::TopicAuthorizationFailed.code());
}

#[tokio::test]
async fn topics_of_the_cluster_and_names_that_are_none_are_refused() {
    let node = node(&[]).await;
    for (topic, words) in [
        (
            "__consumer_offsets",
            "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is prohibited.",
        ),
        ("a b", "Topic names a b are not valid topic names."),
    ] {
        let mut request = first(("cleanup.policy", "compact"));
        request.topology.as_mut().unwrap().subtopologies[0].source_topics = vec![text(topic)];
        let refused = beat(&node, request).await;
        assert_eq!(refused.error_code, ResponseError::StreamsInvalidTopology.code());
        assert_eq!(refused.error_message.as_deref(), Some(words));
    }
}

#[tokio::test]
async fn without_the_protocol_nobody_is_served() {
    let node = node(&["group.coordinator.rebalance.protocols=classic,consumer"]).await;
    let refused = beat(&node, first(("cleanup.policy", "compact"))).await;
    assert_eq!(refused.error_code, ResponseError::UnsupportedVersion.code());
    assert_eq!(described(&node).await.error_code, ResponseError::UnsupportedVersion.code());
}

#[tokio::test]
async fn a_group_has_settings_of_its_own() {
    let node = node(&["group.streams.min.heartbeat.interval.ms=100"]).await;
    allow(&node, ANN, Resource::Cluster, Operation::Create).await;
    let told = beat(&node, first(("cleanup.policy", "compact"))).await;
    assert_eq!(told.heartbeat_interval_ms, 5000);
    let broker = &node.broker;
    let image = broker.metadata.image();
    let rules = Rules::of(broker, &image);
    let op = ConfigOp::Set("200".to_owned());
    let request = AlterRequest {
        resource: AlterResource::Other(ConfigResource::Group(GROUP.to_owned())),
        alteration: Alteration::Incremental([("streams.heartbeat.interval.ms".to_owned(), op)].into()),
    };
    broker.metadata.alter_configs(&[request], &rules, false).await.unwrap().remove(0).unwrap();
    until(&node, told.member_epoch, |answer| answer.heartbeat_interval_ms == 200).await;
}
