//! Administrative requests against a node, through a socket, in the versions whose answers differ.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId as WireBrokerId, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, DescribeClusterRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest,
        ElectLeadersRequest, InitProducerIdRequest, MetadataRequest, MetadataResponse, TopicName, TransactionalId,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        describe_topic_partitions_request::{Cursor, TopicRequest},
        elect_leaders_request::TopicPartitions,
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use uuid::Uuid;
use varve_metadata::{
    cluster::{IsrProposal, ProposalOutcome},
    image::PartitionImage,
    model::{BrokerId, PartitionIndex},
};

use crate::server::{
    Limits,
    data_test::{produce, records},
    testing::{Client, TestNode},
};

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(super) fn topic(topic: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

pub(super) fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(5000)
}

/// Each topic's error code and text.
fn errors(response: &CreateTopicsResponse) -> Vec<(i16, String)> {
    let error = |message: &Option<StrBytes>| message.as_ref().map(ToString::to_string).unwrap_or_default();
    response.topics.iter().map(|topic| (topic.error_code, error(&topic.error_message))).collect()
}

fn ask_metadata(topics: Option<&[&str]>) -> MetadataRequest {
    let topics = topics.map(|topics| {
        topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic)))).collect()
    });
    MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false)
}

pub(super) async fn node_with(topics: &[(&str, i32)]) -> (TestNode, Client) {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    let topics = topics.iter().map(|(topic_name, partitions)| topic(topic_name, *partitions, 1)).collect();
    let response = client.ask(7, &create(topics)).await;
    assert!(response.topics.iter().all(|topic| topic.error_code == 0), "{response:?}");
    (node, client)
}

#[tokio::test]
async fn a_created_topic_is_described_in_every_version_of_metadata() {
    let (node, mut client) = node_with(&[("events", 3)]).await;
    for version in 0..=13 {
        let response: MetadataResponse =
            client.ask(version, &ask_metadata(Some(&["events"])).with_allow_auto_topic_creation(version < 4)).await;
        assert_eq!(response.brokers.len(), 1);
        assert_eq!(response.brokers[0].port, i32::from(node.address.port()));
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3), "version {version}");
        assert_eq!(topic.partitions[2].partition_index, 2);
        assert_eq!(topic.partitions[0].leader_id, WireBrokerId(1));
        assert_eq!(topic.partitions[0].replica_nodes, [WireBrokerId(1)]);
        assert_eq!(topic.topic_id.is_nil(), version < 10);
        assert_eq!(topic.topic_authorized_operations, i32::MIN);
    }
}

#[tokio::test]
async fn metadata_of_all_topics_none_and_unknown_ones() {
    let (_node, mut client) = node_with(&[("a", 1), ("b", 1)]).await;
    assert_eq!(client.ask(12, &ask_metadata(None)).await.topics.len(), 2);
    assert_eq!(client.ask(12, &ask_metadata(Some(&[]))).await.topics.len(), 0);
    assert_eq!(client.ask(0, &ask_metadata(Some(&[])).with_allow_auto_topic_creation(true)).await.topics.len(), 2);
    let codes: Vec<i16> = client
        .ask(12, &ask_metadata(Some(&["nowhere", "no/name", "a", "a"])))
        .await
        .topics
        .iter()
        .map(|topic| topic.error_code)
        .collect();
    let (unknown, invalid) =
        (ResponseError::UnknownTopicOrPartition.code(), ResponseError::InvalidTopicException.code());
    assert_eq!(codes, [unknown, invalid, 0]);
}

#[tokio::test]
async fn metadata_by_topic_id() {
    let (node, mut client) = node_with(&[("a", 1)]).await;
    let id = node.broker.metadata.image().topic("a").unwrap().id.to_wire();
    let unknown = Uuid::from_u128(77);
    let by_id = [id, unknown].map(|id| MetadataRequestTopic::default().with_topic_id(id).with_name(None));
    let request = MetadataRequest::default().with_topics(Some(by_id.to_vec()));
    let response = client.ask(12, &request).await;
    assert_eq!(response.topics[0].name, Some(name("a")));
    assert_eq!(response.topics[1].error_code, ResponseError::UnknownTopicId.code());
    assert_eq!((response.topics[1].topic_id, &response.topics[1].name), (unknown, &None));
    // Ids were not a way to ask before version 12.
    let response = client
        .ask(
            11,
            &MetadataRequest::default()
                .with_topics(Some(vec![MetadataRequestTopic::default().with_topic_id(id).with_name(Some(name("a")))])),
        )
        .await;
    assert_eq!(response.topics[0].error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn all_operations_are_allowed_when_somebody_asks() {
    let (_node, mut client) = node_with(&[("a", 1)]).await;
    let request = ask_metadata(Some(&["a"]))
        .with_include_topic_authorized_operations(true)
        .with_include_cluster_authorized_operations(true);
    let response = client.ask(8, &request).await;
    assert_eq!(response.topics[0].topic_authorized_operations, 3576);
    assert_eq!(response.cluster_authorized_operations.count_ones(), 7);
}

#[tokio::test]
async fn a_topic_is_made_on_first_use_if_broker_and_client_allow_it() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    let allowed = ask_metadata(Some(&["fresh", "no/name"])).with_allow_auto_topic_creation(true);
    assert_eq!(client.ask(12, &ask_metadata(Some(&["fresh"]))).await.topics[0].error_code, 3);
    let invalid = ResponseError::InvalidTopicException.code();
    // The answer tells what there was before; who asks again is shown it.
    for expected in [3, 0] {
        let response = client.ask(12, &allowed).await;
        assert_eq!((response.topics[0].error_code, response.topics[1].error_code), (expected, invalid));
        assert_eq!(response.topics[0].topic_id.is_nil(), expected == 3);
    }

    let node = TestNode::start_configured(Limits::default(), &["auto.create.topics.enable=false"]).await;
    let mut client = node.connect().await;
    assert_eq!(client.ask(12, &allowed).await.topics[0].error_code, 3);
}

#[tokio::test]
async fn an_internal_topic_is_made_with_settings_of_its_own() {
    let node = TestNode::start_configured(Limits::default(), &["offsets.topic.num.partitions=4"]).await;
    let mut client = node.connect().await;
    let request = ask_metadata(Some(&["__consumer_offsets"])).with_allow_auto_topic_creation(true);
    for expected in [(3, true, 0), (0, true, 4)] {
        let response = client.ask(12, &request).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.is_internal, topic.partitions.len()), expected);
    }
    let image = node.broker.metadata.image();
    let made = image.topic("__consumer_offsets").unwrap();
    assert!(made.config.cleanup.compact && !made.config.cleanup.delete);
    assert_eq!(made.overrides["segment.bytes"], "104857600");
}

#[tokio::test]
async fn create_topics_answers_each_topic_in_kafkas_words() {
    let (_node, mut client) = node_with(&[("a.b", 1)]).await;
    let configured = |config: &str, value: Option<&str>| {
        let config = CreatableTopicConfig::default().with_name(text(config)).with_value(value.map(text));
        topic("new", 1, 1).with_configs(vec![config])
    };
    let assigned = |partitions, factor| {
        let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![WireBrokerId(1)]);
        topic("new", partitions, factor).with_assignments(vec![assignment])
    };
    let cases = [
        (topic("a.b", 1, 1), 36, "Topic 'a.b' already exists."),
        (topic("a_b", 1, 1), 17, "Topic 'a_b' collides with existing topic: a.b"),
        (topic("..", 1, 1), 17, "Topic name is invalid: '..' is not allowed"),
        (topic("__cluster_metadata", 1, 1), 42, "Creation of internal topic __cluster_metadata is prohibited."),
        (topic("new", 0, 1), 37, "Number of partitions was set to an invalid non-positive value."),
        (topic("new", -2, 1), 37, "Number of partitions was set to an invalid non-positive value."),
        (topic("new", 1, 0), 38, "Replication factor must be larger than 0, or -1 to use the default value."),
        (
            topic("new", 1, 2),
            38,
            "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because \
             only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (topic("new", 10_001, 1), 44, "Excessively large number of partitions per request."),
        (configured("retention.ms", None), 40, "Null value not supported for topic configs: retention.ms"),
        (configured("retention.ms", Some("-5")), 40, "Invalid value -5 for configuration retention.ms: "),
        (configured("nothing.known", Some("1")), 40, "Unknown topic config name: nothing.known"),
        (assigned(2, -1), 42, "A manual partition assignment was specified, but numPartitions was not set to -1."),
        (assigned(-1, 1), 42, "A manual partition assignment was specified, but replication factor was not set to -1."),
    ];
    for (topic, code, message) in cases {
        let response = client.ask(7, &create(vec![topic])).await;
        let (found, text) = errors(&response).remove(0);
        assert_eq!(found, code, "{text}");
        assert!(text.starts_with(message), "{text}");
    }
    let twice = client.ask(7, &create(vec![topic("new", 1, 1), topic("new", 2, 1), topic("other", 1, 1)])).await;
    assert_eq!(errors(&twice), [(42, "Duplicate topic name.".to_owned()), (0, String::new())]);
    let manual = client.ask(7, &create(vec![assigned(-1, -1)])).await;
    assert_eq!((manual.topics[0].error_code, manual.topics[0].num_partitions), (0, 1));
}

#[tokio::test]
async fn a_created_topic_is_returned_with_its_settings() {
    let settings = ["log.retention.hours=2", "num.partitions=3"];
    let node = TestNode::start_configured(Limits::default(), &settings).await;
    let mut client = node.connect().await;
    let config = CreatableTopicConfig::default().with_name(text("segment.ms")).with_value(Some(text("60000")));
    let asked = topic("t", -1, -1).with_configs(vec![config]);
    for validate_only in [true, false] {
        let request = create(vec![asked.clone()]).with_validate_only(validate_only);
        let response = client.ask(7, &request).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, topic.num_partitions, topic.replication_factor), (0, 3, 1));
        let configs = topic.configs.as_ref().unwrap();
        let config = |name: &str| configs.iter().find(|config| config.name.as_str() == name).unwrap();
        assert_eq!((config("segment.ms").value.as_deref(), config("segment.ms").config_source), (Some("60000"), 1));
        assert_eq!(config("retention.ms").value.as_deref(), Some("7200000"));
        assert_eq!(
            (config("max.message.bytes").value.as_deref(), config("max.message.bytes").config_source),
            (Some("1048588"), 5)
        );
        assert_eq!(node.broker.metadata.image().topic("t").is_some(), !validate_only);
    }
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let (node, mut client) = node_with(&[("a", 1), ("b", 1), ("c", 1)]).await;
    let id = |topic: &str| node.broker.metadata.image().topic(topic).unwrap().id.to_wire();
    let (b, c) = (id("b"), id("c"));
    let old = DeleteTopicsRequest::default().with_topic_names(vec![name("a"), name("a2")]).with_timeout_ms(5000);
    let codes: Vec<i16> = client.ask(5, &old).await.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [3, 0]);

    let state =
        |topic: Option<&str>, id: Uuid| DeleteTopicState::default().with_name(topic.map(name)).with_topic_id(id);
    let asked = vec![
        state(None, b),
        state(None, Uuid::from_u128(99)),
        state(None, Uuid::nil()),
        state(Some("x"), c),
        state(Some("c"), Uuid::nil()),
        state(Some("c"), Uuid::nil()),
    ];
    let response = client.ask(6, &DeleteTopicsRequest::default().with_topics(asked).with_timeout_ms(5000)).await;
    let told: Vec<(i16, &str)> = response
        .responses
        .iter()
        .map(|topic| (topic.error_code, topic.error_message.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        told,
        [
            (42, "Neither topic name nor id were specified."),
            (42, "You may not specify both topic name and topic id."),
            (42, "Duplicate topic name."),
            (100, "This server does not host this topic ID."),
            (0, ""),
        ]
    );
    assert_eq!(node.broker.metadata.image().topics().len(), 1);
}

#[tokio::test]
async fn deletion_can_be_turned_off() {
    let node = TestNode::start_configured(Limits::default(), &["delete.topic.enable=false"]).await;
    let mut client = node.connect().await;
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("a")]);
    assert_eq!(client.ask(2, &request).await.responses[0].error_code, ResponseError::InvalidRequest.code());
    assert_eq!(client.ask(5, &request).await.responses[0].error_code, ResponseError::TopicDeletionDisabled.code());
}

#[tokio::test]
async fn partitions_are_added_to_a_topic() {
    let (node, mut client) = node_with(&[("a", 2)]).await;
    let grow = |topic: &str, count: i32| {
        let topic = CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000)
    };
    let cases = [
        (grow("a", 2), 37, Some("Topic already has 2 partition(s).")),
        (grow("a", 1), 37, Some("The topic a currently has 2 partition(s); 1 would not be an increase.")),
        (grow("z", 3), 3, None),
        (grow("a", 5).with_validate_only(true), 0, None),
        (grow("a", 4), 0, None),
    ];
    for (request, code, message) in cases {
        let response = client.ask(3, &request).await;
        assert_eq!((response.results[0].error_code, response.results[0].error_message.as_deref()), (code, message));
    }
    assert_eq!(node.broker.metadata.image().topic("a").unwrap().partitions.len(), 4);
}

#[tokio::test]
async fn a_long_list_of_partitions_comes_in_pages() {
    let (_node, mut client) = node_with(&[("a", 3), ("b", 4), ("c", 1)]).await;
    let mut request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(5);
    let mut pages = Vec::new();
    loop {
        let response = client.ask(0, &request).await;
        let listed = |topic: &kafka_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic| {
            let indexes: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            (topic.name.as_ref().unwrap().to_string(), indexes)
        };
        pages.push(response.topics.iter().map(listed).collect::<Vec<_>>());
        let Some(next) = response.next_cursor else { break };
        let cursor = Cursor::default().with_topic_name(next.topic_name).with_partition_index(next.partition_index);
        request = request.with_cursor(Some(cursor));
    }
    let expected = vec![
        vec![("a".to_owned(), vec![0, 1, 2]), ("b".to_owned(), vec![0, 1])],
        vec![("b".to_owned(), vec![2, 3]), ("c".to_owned(), vec![0])],
    ];
    assert_eq!(pages, expected);

    let named = |topics: &[&str]| {
        let topics = topics.iter().map(|topic| TopicRequest::default().with_name(name(topic))).collect();
        DescribeTopicPartitionsRequest::default().with_topics(topics).with_response_partition_limit(2000)
    };
    let codes: Vec<i16> =
        client.ask(0, &named(&["c", "zz", "b b"])).await.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [17, 0, 3]);
    let cursor = Cursor::default().with_topic_name(name("b")).with_partition_index(0);
    let refused = client.ask(0, &named(&["c"]).with_cursor(Some(cursor))).await;
    assert_eq!(refused.topics[0].error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn who_may_lead_without_being_in_sync_is_told_and_who_led_last() {
    let (node, mut client) = node_with(&[("a", 2)]).await;
    let image = node.broker.metadata.image();
    let (partition, now) = image.topic("a").unwrap().partition(PartitionIndex(1)).unwrap();
    let base = now.partition_epoch;
    let next = PartitionImage {
        leader: None,
        isr: Vec::new(),
        elr: vec![BrokerId(7), BrokerId(8)],
        last_leader: Some(BrokerId(8)),
        partition_epoch: base + 1,
        ..now.clone()
    };
    let proposal = IsrProposal { partition, base, next, joins: None };
    assert_eq!(node.broker.metadata.propose_isr(&proposal).await, ProposalOutcome::Taken);
    node.broker.metadata.caught_up().await.unwrap();
    let request = DescribeTopicPartitionsRequest::default().with_response_partition_limit(5);
    let told: Vec<_> = client.ask(0, &request).await.topics.remove(0).partitions;
    let told = told.into_iter().map(|one| (one.leader_id.0, one.eligible_leader_replicas, one.last_known_elr));
    let ids = |ids: &[i32]| Some(ids.iter().copied().map(WireBrokerId).collect::<Vec<_>>());
    assert_eq!(told.collect::<Vec<_>>(), [(1, ids(&[]), ids(&[])), (-1, ids(&[7, 8]), ids(&[8]))]);
}

#[tokio::test]
async fn the_cluster_is_described_to_brokers_clients_only() {
    let (node, mut client) = node_with(&[]).await;
    for version in 0..=2 {
        let response = client.ask(version, &DescribeClusterRequest::default().with_endpoint_type(1)).await;
        assert_eq!((response.error_code, response.brokers.len(), response.controller_id), (0, 1, WireBrokerId(1)));
        assert_eq!(response.cluster_id.as_str(), node.broker.metadata.image().cluster_id());
        assert_eq!(response.cluster_id.len(), 22);
    }
    let controllers = client.ask(1, &DescribeClusterRequest::default().with_endpoint_type(2)).await;
    assert_eq!(controllers.error_code, ResponseError::MismatchedEndpointType.code());
    let others = client.ask(1, &DescribeClusterRequest::default().with_endpoint_type(7)).await;
    assert_eq!(others.error_code, ResponseError::UnsupportedEndpointType.code());
}

#[tokio::test]
async fn idempotent_producers_get_ids() {
    let (_node, mut client) = node_with(&[]).await;
    let idempotent = InitProducerIdRequest::default().with_transactional_id(None);
    let mut ids = Vec::new();
    for version in 0..=5 {
        let response = client.ask(version, &idempotent).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        ids.push(response.producer_id.0);
    }
    ids.dedup();
    assert_eq!(ids.len(), 6);
    let transactional = |id: &str| {
        let id = TransactionalId(text(id));
        InitProducerIdRequest::default().with_transactional_id(Some(id)).with_transaction_timeout_ms(1000)
    };
    // Nobody has asked for the coordinator yet.
    let refused = client.ask(5, &transactional("t")).await;
    assert_eq!((refused.error_code, refused.producer_id.0), (ResponseError::NotCoordinator.code(), -1));
    assert_eq!(client.ask(5, &transactional("")).await.error_code, ResponseError::InvalidRequest.code());
    let half = idempotent.clone().with_producer_epoch(3);
    assert_eq!(client.ask(5, &half).await.error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn a_failed_log_dir_is_described_by_its_error_alone() {
    let (node, mut client) = node_with(&[("t", 1)]).await;
    node.broker.partitions.log_dirs()[0].fail(&std::io::Error::other("the disk is gone"));
    let response = client.ask(4, &DescribeLogDirsRequest::default().with_topics(None)).await;
    let dir = &response.results[0];
    assert_eq!((dir.error_code, dir.topics.len()), (ResponseError::KafkaStorageError.code(), 0));
}

#[tokio::test]
async fn log_dirs_tell_the_size_of_their_volume_in_every_version() {
    let (node, mut client) = node_with(&[("t", 2)]).await;
    let directory = node.broker.config.logs.dirs[0].to_str().unwrap();
    let id = node.broker.metadata.image().topic("t").unwrap().id;
    let sent = records(&["a", "b"]);
    produce(&mut client, 9, ("t", id), 1, sent.clone()).await;
    for version in 1..=4 {
        let response = client.ask(version, &DescribeLogDirsRequest::default().with_topics(None)).await;
        let local = &response.results[0];
        assert_eq!((local.error_code, local.log_dir.as_str()), (0, directory));
        let sizes: Vec<i64> = local.topics[0].partitions.iter().map(|partition| partition.partition_size).collect();
        assert_eq!(sizes, [0, sent.len() as i64]);
        assert_eq!(local.total_bytes > local.usable_bytes && local.usable_bytes > 0, version >= 4);
        assert!(response.results[1].log_dir.starts_with("remote://"));
    }
}

/// kafka-go asks so: it counts its partitions in the answer.
#[tokio::test]
async fn an_election_that_has_no_time_fails_for_each_partition_in_every_version() {
    let (_node, mut client) = node_with(&[("t", 2)]).await;
    let wanted = TopicPartitions::default().with_topic(name("t")).with_partitions(vec![0, 1]);
    for version in 0..=2 {
        let request =
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![wanted.clone()])).with_timeout_ms(0);
        let response = client.ask(version, &request).await;
        let late = ResponseError::RequestTimedOut.code();
        assert_eq!(response.error_code, if version == 0 { 0 } else { late });
        let told = &response.replica_election_results[0].partition_result;
        let told: Vec<_> = told.iter().map(|partition| (partition.partition_id, partition.error_code)).collect();
        assert_eq!(told, [(0, late), (1, late)]);
    }
}
