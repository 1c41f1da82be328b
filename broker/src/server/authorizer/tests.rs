//! The face that handlers ask, over a node with an authorizer.

use std::time::Instant;

use kafka_protocol::{
    messages::{
        DescribeClusterRequest, FetchRequest, FetchResponse, GroupId, HeartbeatRequest, InitProducerIdRequest,
        MetadataRequest, ProduceRequest, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::FetchableTopicResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{
    Offset, Principal,
    acl::{Acl, PatternType, Permission, ResourcePattern},
};

use super::*;
use crate::{
    server::{Limits, ListenerName, testing::TestNode},
    wire::key::ApiKey,
};

pub(super) const STANDARD: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";

pub(super) fn rule(principal: &str, resource: Resource<'_>, operation: Operation, permission: Permission) -> Acl {
    let pattern = ResourcePattern {
        resource_type: resource.resource_type(),
        pattern_type: PatternType::Literal,
        name: resource.name().into(),
    };
    Acl { pattern, principal: principal.into(), host: "*".into(), operation, permission }
}

pub(super) async fn allow(node: &TestNode, principal: &str, resource: Resource<'_>, operation: Operation) {
    node.broker.metadata.create_acls(&[rule(principal, resource, operation, Permission::Allow)]).await.unwrap();
}

pub(super) fn context(principal: &str) -> RequestContext {
    RequestContext {
        api: ApiKey::Metadata,
        api_version: 0,
        correlation_id: 1,
        client_id: None,
        principal: Principal::user(principal),
        by_token: false,
        protocol: crate::security::SecurityProtocol::Plaintext,
        peer: ([127, 0, 0, 1], 1).into(),
        listener: ListenerName("PLAINTEXT".into()),
        received: Instant::now(),
        bytes: 0,
        connection: Default::default(),
    }
}

#[tokio::test]
async fn without_an_authorizer_everybody_may_do_everything() {
    let node = TestNode::start().await;
    let context = context("nobody");
    let access = node.broker.access(&context);
    assert!(!access.is_checked() && access.allows(Operation::Alter, Resource::Cluster));
    assert!(access.allows_on_some(Operation::Write, ResourceType::Topic));
    assert_eq!(access.authorized_operations(Resource::Topic("t")), 3576);
    assert!(!node.metrics.text().contains("varve_authorization_denied_total"));
}

#[tokio::test]
async fn super_users_stand_above_the_rules_and_others_below_them() {
    let node = TestNode::start_configured(Limits::default(), &[STANDARD, "super.users=User:root;User:CN=a,O=b"]).await;
    let deny = rule("User:*", Resource::Cluster, Operation::All, Permission::Deny);
    node.broker.metadata.create_acls(&[deny]).await.unwrap();
    allow(&node, "User:alice", Resource::Topic("logs"), Operation::Read).await;
    for (user, cluster, topic) in
        [("root", true, true), ("CN=a,O=b", true, true), ("alice", false, true), ("b", false, false)]
    {
        let context = context(user);
        let access = node.broker.access(&context);
        assert_eq!(access.allows(Operation::Alter, Resource::Cluster), cluster, "{user}");
        assert_eq!(access.shows(Operation::Describe, Resource::Topic("logs")), topic, "{user}");
    }
    let alice = context("alice");
    let access = node.broker.access(&alice);
    assert_eq!(access.require(Operation::Write, Resource::Topic("logs")), Err(ResponseError::TopicAuthorizationFailed));
    // READ and DESCRIBE.
    assert_eq!(access.authorized_operations(Resource::Topic("logs")), 1 << 3 | 1 << 8);
    let text = node.metrics.text();
    assert!(text.contains("varve_authorization_denied_total{api=\"Metadata\"} 3"), "{text}");
    assert!(text.contains("varve_acls 2"), "{text}");
}

#[tokio::test]
async fn where_no_rule_is_found_everyone_may_be_allowed() {
    let node = TestNode::start_configured(Limits::default(), &[STANDARD, "allow.everyone.if.no.acl.found=true"]).await;
    allow(&node, "User:alice", Resource::Topic("logs"), Operation::Write).await;
    let context = context("bob");
    let access = node.broker.access(&context);
    assert!(access.allows(Operation::Write, Resource::Topic("other")));
    assert!(!access.allows(Operation::Write, Resource::Topic("logs")));
    assert!(access.allows_on_some(Operation::Write, ResourceType::Topic));
}

#[tokio::test]
async fn a_rule_holds_as_soon_as_it_is_made() {
    let node = TestNode::start_configured(Limits::default(), &[STANDARD]).await;
    let mut client = node.connect().await;
    let heartbeat =
        HeartbeatRequest::default().with_group_id(GroupId("g".to_owned().into())).with_member_id("m".to_owned().into());
    let init = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let cluster = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    assert_eq!(client.ask(4, &heartbeat).await.error_code, ResponseError::GroupAuthorizationFailed.code());
    assert_eq!(client.ask(4, &init).await.error_code, ResponseError::ClusterAuthorizationFailed.code());
    assert_eq!(client.ask(0, &cluster).await.cluster_authorized_operations, 0);

    allow(&node, "User:ANONYMOUS", Resource::Group("g"), Operation::Read).await;
    allow(&node, "User:ANONYMOUS", Resource::Topic("logs"), Operation::Write).await;
    allow(&node, "User:*", Resource::Cluster, Operation::Alter).await;
    assert_ne!(client.ask(4, &heartbeat).await.error_code, ResponseError::GroupAuthorizationFailed.code());
    assert_eq!(client.ask(4, &init).await.error_code, 0);
    // ALTER, and DESCRIBE with it.
    assert_eq!(client.ask(0, &cluster).await.cluster_authorized_operations, 1 << 7 | 1 << 8);
}

#[tokio::test]
async fn topics_that_may_not_be_seen_look_the_same_whether_they_exist_or_not() {
    let node = TestNode::start_configured(Limits::default(), &[STANDARD]).await;
    node.create_topic("seen", 1, &[]).await;
    let hidden = node.create_topic("hidden", 1, &[]).await;
    allow(&node, "User:ANONYMOUS", Resource::Topic("seen"), Operation::Read).await;
    let mut client = node.connect().await;
    let topics = |response: kafka_protocol::messages::MetadataResponse| -> Vec<(Option<String>, i16)> {
        let name = |name: kafka_protocol::messages::TopicName| name.to_string();
        response.topics.into_iter().map(|topic| (topic.name.map(name), topic.error_code)).collect()
    };
    let all = client.ask(12, &MetadataRequest::default().with_topics(None)).await;
    assert_eq!(topics(all), [(Some("seen".to_owned()), 0)]);
    let asked = ["seen", "hidden", "missing"].map(|name| {
        kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(kafka_protocol::messages::TopicName(name.to_owned().into())))
    });
    let named = MetadataRequest::default().with_topics(Some(asked.into())).with_allow_auto_topic_creation(true);
    let denied = ResponseError::TopicAuthorizationFailed.code();
    let expected = [("seen", 0), ("hidden", denied), ("missing", denied)];
    let expected: Vec<_> = expected.into_iter().map(|(name, code)| (Some(name.to_owned()), code)).collect();
    assert_eq!(topics(client.ask(12, &named).await), expected);
    let by_id = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
        .with_name(None)
        .with_topic_id(hidden.to_wire());
    let by_id = client.ask(12, &MetadataRequest::default().with_topics(Some(vec![by_id]))).await;
    assert_eq!(topics(by_id), [(None, denied)]);
    // What may be described may not be made for that.
    allow(&node, "User:ANONYMOUS", Resource::Topic("missing"), Operation::Describe).await;
    assert_eq!(topics(client.ask(12, &named).await), expected);
    allow(&node, "User:ANONYMOUS", Resource::Topic("missing"), Operation::Create).await;
    for expected in [ResponseError::UnknownTopicOrPartition.code(), 0] {
        assert_eq!(topics(client.ask(12, &named).await)[2], (Some("missing".to_owned()), expected));
    }
}

fn fetch(session: (i32, i32), topics: &[&str]) -> FetchRequest {
    let topics = topics.iter().map(|name| {
        let partition = FetchPartition::default()
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(1024);
        let name = TopicName(StrBytes::from_string((*name).to_owned()));
        FetchTopic::default().with_topic(name).with_partitions(vec![partition])
    });
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_bytes(1024)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics.collect())
}

/// Topics in a fetch's answer with their codes.
fn told(response: &FetchResponse) -> Vec<(&str, i16)> {
    let code = |topic: &FetchableTopicResponse| topic.partitions[0].error_code;
    response.responses.iter().map(|topic| (topic.topic.as_str(), code(topic))).collect()
}

#[tokio::test]
async fn a_fetch_session_hears_of_a_right_that_is_taken_away_and_given_back() {
    let node = TestNode::start_configured(Limits::default(), &[STANDARD]).await;
    node.create_topic("mine", 1, &[]).await;
    node.create_topic("other", 1, &[]).await;
    let mine = rule("User:ANONYMOUS", Resource::Topic("mine"), Operation::Read, Permission::Allow);
    node.broker.metadata.create_acls(std::slice::from_ref(&mine)).await.unwrap();
    let mut client = node.connect().await;
    let denied = ResponseError::TopicAuthorizationFailed.code();

    let first = client.ask(12, &fetch((0, 0), &["mine", "other"])).await;
    assert_eq!(told(&first), [("mine", 0), ("other", denied)]);
    let session = first.session_id;
    // What is denied is told again and again, as every error is.
    let next = client.ask(12, &fetch((session, 1), &[])).await;
    assert_eq!(told(&next), [("other", denied)]);

    let all = varve_metadata::model::acl::AclFilter::default();
    node.broker.metadata.delete_acls(&[all]).await.unwrap();
    let next = client.ask(12, &fetch((session, 2), &[])).await;
    assert_eq!(told(&next), [("mine", denied), ("other", denied)]);

    node.broker.metadata.create_acls(&[mine]).await.unwrap();
    allow(&node, "User:ANONYMOUS", Resource::Topic("other"), Operation::Read).await;
    let next = client.ask(12, &fetch((session, 3), &[])).await;
    assert_eq!(told(&next), [("mine", 0), ("other", 0)]);
}

#[tokio::test]
async fn a_producer_writes_what_it_may_and_hears_of_the_rest() {
    let node = TestNode::start_configured(Limits::default(), &[STANDARD]).await;
    node.create_topic("mine", 3, &[]).await;
    allow(&node, "User:ANONYMOUS", Resource::Topic("mine"), Operation::Write).await;
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp: None, key: None, value: Some(b"v"), headers: &[] });
    let records: bytes::Bytes = batch.build().unwrap().into();
    let topics = ["mine", "missing"].map(|name| {
        let partitions =
            (0..3).map(|index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone())));
        let name = TopicName(StrBytes::from_string(name.to_owned()));
        TopicProduceData::default().with_name(name).with_partition_data(partitions.collect())
    });
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(topics.into());
    let response = node.connect().await.ask(9, &request).await;
    let codes: Vec<i16> =
        response.responses.iter().flat_map(|topic| &topic.partition_responses).map(|one| one.error_code).collect();
    let denied = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!(codes, [0, 0, 0, denied, denied, denied]);
    // One decision for the topic, however many of its partitions are named.
    assert!(node.metrics.text().contains("varve_authorization_denied_total{api=\"Produce\"} 1"));
}
