//! Consumer groups (KIP-848) through a socket: what clients ask, against a node.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, TopicName, UpdateFeaturesRequest,
        consumer_group_heartbeat_request::TopicPartitions, update_features_request::FeatureUpdateKey,
    },
    protocol::StrBytes,
};
use varve_metadata::{
    controller::{AlterRequest, AlterResource, Alteration, ConfigOp},
    image::ConfigResource,
};

use super::{
    Limits,
    broker_rules::Rules,
    testing::{Client, TestNode},
};

const GROUP: &str = "readers";

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn first(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(GroupId(text(GROUP)))
        .with_member_id(text(member))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![TopicName(text("orders"))]))
        .with_topic_partitions(Some(Vec::new()))
}

fn next(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    first(member)
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

async fn coordinated(node: &TestNode) -> Client {
    let mut client = node.connect().await;
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
    assert_eq!(client.ask(4, &find).await.coordinators[0].error_code, 0);
    while client.ask(5, &ListGroupsRequest::default()).await.error_code != 0 {
        tokio::task::yield_now().await;
    }
    client
}

async fn node(settings: &[&str]) -> TestNode {
    let own = ["offsets.topic.num.partitions=1", "group.consumer.assignment.interval.ms=0"];
    TestNode::start_configured(Limits::default(), &[&own, settings].concat()).await
}

fn partitions(answer: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = answer.assignment.as_ref()?;
    Some(assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect())
}

#[tokio::test]
async fn two_members_share_a_topic_and_are_described() {
    let node = node(&[]).await;
    let topic = node.create_topic("orders", 2, &[]).await;
    let mut client = coordinated(&node).await;
    let joined = client.ask(1, &first("a")).await;
    assert_eq!((joined.error_code, joined.member_epoch, joined.heartbeat_interval_ms), (0, 2, 5000));
    assert_eq!(partitions(&joined), Some(vec![0, 1]));
    assert_eq!(client.ask(1, &first("b")).await.member_epoch, 3);
    assert_eq!(partitions(&client.ask(1, &next("a", 2)).await), Some(vec![0]));
    let owned = TopicPartitions::default().with_topic_id(topic.to_wire()).with_partitions(vec![0]);
    assert_eq!(client.ask(1, &next("a", 2).with_topic_partitions(Some(vec![owned]))).await.member_epoch, 3);
    assert_eq!(partitions(&client.ask(1, &next("b", 3)).await), Some(vec![1]));

    let describe = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(GROUP))]);
    for version in [0, 1] {
        let described = client.ask(version, &describe).await.groups.remove(0);
        assert_eq!((described.error_code, described.group_state.as_str()), (0, "Stable"));
        assert_eq!(
            (described.group_epoch, described.assignment_epoch, described.assignor_name.as_str()),
            (3, 3, "uniform")
        );
        let topics: Vec<&str> = described
            .members
            .iter()
            .flat_map(|member| &member.assignment.topic_partitions)
            .map(|topic| topic.topic_name.as_str())
            .collect();
        assert_eq!(topics, ["orders", "orders"]);
        assert_eq!(described.members[0].member_type, if version == 0 { -1 } else { 1 });
    }
    let listed = client.ask(5, &ListGroupsRequest::default()).await.groups.remove(0);
    assert_eq!((listed.group_type.as_str(), listed.group_state.as_str()), ("consumer", "Stable"));
    let classic = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(GROUP))]);
    let classic = client.ask(6, &classic).await.groups.remove(0);
    assert_eq!(classic.error_code, ResponseError::GroupIdNotFound.code());
    assert_eq!(classic.error_message.as_deref(), Some("Group readers is not a classic group."));
}

#[tokio::test]
async fn a_cluster_agrees_to_have_none_and_to_have_them_again() {
    let node = node(&[]).await;
    let mut client = coordinated(&node).await;
    let level = |level: i16, direction: i8| {
        let update = FeatureUpdateKey::default().with_feature(text("group.version"));
        let update = update.with_max_version_level(level).with_upgrade_type(direction);
        UpdateFeaturesRequest::default().with_feature_updates(vec![update])
    };
    assert_eq!(client.ask(1, &level(0, 2)).await.error_code, 0);
    assert_eq!(client.ask(1, &first("a")).await.error_code, ResponseError::UnsupportedVersion.code());
    assert_eq!(client.ask(1, &level(1, 1)).await.error_code, 0);
    assert_eq!(client.ask(1, &first("a")).await.error_code, 0);
}

#[tokio::test]
async fn refusals_say_why() {
    let node = node(&[]).await;
    let mut client = coordinated(&node).await;
    let refused = client.ask(1, &next("a", 4)).await;
    assert_eq!(refused.error_code, ResponseError::GroupIdNotFound.code());
    assert_eq!(refused.error_message.as_deref(), Some("Consumer group readers not found."));
    let pattern = first("a").with_subscribed_topic_names(None).with_subscribed_topic_regex(Some(text("[")));
    assert_eq!(client.ask(1, &pattern).await.error_code, ResponseError::InvalidRegularExpression.code());
}

#[tokio::test]
async fn topics_behind_a_pattern_are_found() {
    let node = node(&[]).await;
    node.create_topic("orders", 2, &[]).await;
    let mut client = coordinated(&node).await;
    let pattern = first("a").with_subscribed_topic_names(None).with_subscribed_topic_regex(Some(text("or.*s")));
    let mut epoch = client.ask(1, &pattern).await.member_epoch;
    loop {
        let answer = client.ask(1, &next("a", epoch)).await;
        assert_eq!(answer.error_code, 0);
        epoch = answer.member_epoch;
        if let Some(found) = partitions(&answer) {
            assert_eq!(found, [0, 1]);
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_topic_that_grows_is_assigned_again() {
    let node = node(&[]).await;
    node.create_topic("other", 1, &[]).await;
    let mut client = coordinated(&node).await;
    let mut epoch = client.ask(1, &first("a")).await.member_epoch;
    node.create_topic("orders", 3, &[]).await;
    loop {
        let answer = client.ask(1, &next("a", epoch)).await;
        epoch = answer.member_epoch;
        if partitions(&answer) == Some(vec![0, 1, 2]) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_group_has_settings_of_its_own() {
    let node = node(&["group.consumer.min.heartbeat.interval.ms=100"]).await;
    node.create_topic("orders", 1, &[]).await;
    let mut client = coordinated(&node).await;
    assert_eq!(client.ask(1, &first("a")).await.heartbeat_interval_ms, 5000);
    let op = ConfigOp::Set("200".to_owned());
    let request = AlterRequest {
        resource: AlterResource::Other(ConfigResource::Group(GROUP.to_owned())),
        alteration: Alteration::Incremental([("consumer.heartbeat.interval.ms".to_owned(), op)].into()),
    };
    let image = node.broker.metadata.image();
    let broker = &node.broker;
    let rules = Rules::of(broker, &image);
    node.broker.metadata.alter_configs(&[request], &rules, false).await.unwrap().remove(0).unwrap();
    while client.ask(1, &next("a", 2)).await.heartbeat_interval_ms != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_without_the_protocol_says_so() {
    let node = node(&["group.coordinator.rebalance.protocols=classic"]).await;
    let mut client = coordinated(&node).await;
    let unsupported = ResponseError::UnsupportedVersion.code();
    assert_eq!(client.ask(1, &first("a")).await.error_code, unsupported);
    let describe = ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(GROUP))]);
    assert_eq!(client.ask(1, &describe).await.groups[0].error_code, unsupported);
}
