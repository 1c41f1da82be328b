//! Quotas, through real sockets: set, shown, and kept.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterClientQuotasRequest, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
        DeleteTopicsRequest, DescribeClientQuotasRequest, FetchResponse, MetadataRequest,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::CreatableTopic,
        describe_client_quotas_request::ComponentData,
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};

use super::{
    data_test::{fetch_request, produce_request, records},
    testing::{Client, TestNode},
};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Sets a quota (`None` removes it) and asks for the code of the answer. `None` as a name is the default.
async fn set(client: &mut Client, entity: &[(&str, Option<&str>)], key: &str, value: Option<f64>) -> i16 {
    let parts = entity
        .iter()
        .map(|(kind, name)| EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text)));
    let op = OpData::default().with_key(text(key)).with_value(value.unwrap_or(0.0)).with_remove(value.is_none());
    let entry = EntryData::default().with_entity(parts.collect()).with_ops(vec![op]);
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    client.ask(1, &request).await.entries.remove(0).error_code
}

async fn shown(client: &mut Client, kind: &str, match_type: i8, name: Option<&str>) -> Vec<(String, f64)> {
    let component = ComponentData::default().with_entity_type(text(kind)).with_match_type(match_type);
    let request = DescribeClientQuotasRequest::default().with_components(vec![component.with_match(name.map(text))]);
    let response = client.ask(1, &request).await;
    assert_eq!(response.error_code, 0, "{response:?}");
    let values = response.entries.into_iter().flatten().flat_map(|entry| entry.values);
    values.map(|value| (value.key.to_string(), value.value)).collect()
}

const ANY_CLIENT: &[(&str, Option<&str>)] = &[("client-id", None)];

#[tokio::test]
async fn quotas_are_set_shown_validated_and_removed() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    let user = [("user", Some("alice"))];
    assert_eq!(set(&mut client, &user, "producer_byte_rate", Some(1024.0)).await, 0);
    assert_eq!(set(&mut client, &user, "request_percentage", Some(50.5)).await, 0);
    let expected = [("producer_byte_rate".to_owned(), 1024.0), ("request_percentage".to_owned(), 50.5)];
    assert_eq!(shown(&mut client, "user", 0, Some("alice")).await, expected);
    assert_eq!(shown(&mut client, "user", 1, None).await, []);
    assert_eq!(shown(&mut client, "user", 2, None).await, expected);
    let invalid = ResponseError::InvalidRequest.code();
    assert_eq!(set(&mut client, &user, "connection_creation_rate", Some(1.0)).await, invalid);
    assert_eq!(set(&mut client, &[("ip", Some("no such host"))], "connection_creation_rate", Some(1.0)).await, invalid);
    assert_eq!(set(&mut client, &user, "producer_byte_rate", None).await, 0);
    assert_eq!(shown(&mut client, "user", 2, None).await, [("request_percentage".to_owned(), 50.5)]);
}

#[tokio::test]
async fn a_producer_above_its_quota_is_told_to_wait_and_shown_to_operators() {
    let node = TestNode::start().await;
    let id = node.create_topic("logs", 1, &[]).await;
    let mut client = node.connect().await;
    assert_eq!(set(&mut client, ANY_CLIENT, "producer_byte_rate", Some(10.0)).await, 0);
    // Ten seconds' worth is 100 bytes; this is more, and less than twice as much.
    let value = "x".repeat(40);
    let request = produce_request(12, ("logs", id), 0, 1, records(&[&value]));
    let response = client.ask(12, &request).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0, "what came is kept");
    assert!(response.throttle_time_ms > 0, "{response:?}");
    let metrics = node.metrics.text();
    for line in [
        "varve_throttled_total{quota=\"producer_byte_rate\"} 1",
        "varve_client_throttled_seconds{client_id=\"test\",quota=\"producer_byte_rate\",user=\"\"}",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let mut another = node.connect().await;
    assert_eq!(set(&mut another, ANY_CLIENT, "producer_byte_rate", None).await, 0);
    assert_eq!(another.ask(12, &request).await.throttle_time_ms, 0);
}

#[tokio::test]
async fn a_consumer_above_its_quota_gets_nothing_and_its_session_waits_for_it() {
    let node = TestNode::start().await;
    let id = node.create_topic("logs", 1, &[]).await;
    let mut client = node.connect().await;
    let value = "x".repeat(2000);
    client.ask(12, &produce_request(12, ("logs", id), 0, 1, records(&[&value]))).await;
    let got = |response: &FetchResponse| -> usize {
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.records.as_ref().map_or(0, |records| records.len())).sum()
    };
    let request = fetch_request(12, ("logs", id), &[(0, 0)]).with_session_id(0).with_session_epoch(0);
    assert_eq!(set(&mut client, ANY_CLIENT, "consumer_byte_rate", Some(10.0)).await, 0);
    let throttled = client.ask(12, &request).await;
    assert_eq!((got(&throttled), throttled.session_id, throttled.error_code), (0, 0, 0), "no session is made of it");
    assert!(throttled.throttle_time_ms > 0);
    let mut client = node.connect().await;
    assert_eq!(set(&mut client, ANY_CLIENT, "consumer_byte_rate", Some(1e9)).await, 0);
    let served = client.ask(12, &request).await;
    assert!(got(&served) > 2000 && served.session_id > 0 && served.throttle_time_ms == 0, "{served:?}");
    // The records of the session's next turn are held back, and come with the one after.
    client.ask(12, &produce_request(12, ("logs", id), 0, 1, records(&[&value]))).await;
    let next =
        |epoch| fetch_request(12, ("logs", id), &[(0, 1)]).with_session_id(served.session_id).with_session_epoch(epoch);
    let mut admin = node.connect().await;
    assert_eq!(set(&mut admin, ANY_CLIENT, "consumer_byte_rate", Some(10.0)).await, 0);
    let throttled = client.ask(12, &next(1)).await;
    assert_eq!((got(&throttled), throttled.session_id, throttled.error_code), (0, served.session_id, 0));
    assert!(throttled.throttle_time_ms > 0);
    assert_eq!(set(&mut admin, ANY_CLIENT, "consumer_byte_rate", None).await, 0);
    let mut client = node.connect().await;
    let answer = client.ask(12, &next(2)).await;
    assert!(got(&answer) > 2000, "{answer:?}");
}

#[tokio::test]
async fn partitions_are_made_and_deleted_no_faster_than_the_quota_allows() {
    let node = TestNode::start().await;
    let mut admin = node.connect().await;
    assert_eq!(set(&mut admin, ANY_CLIENT, "controller_mutation_rate", Some(0.5)).await, 0);
    let exceeded = ResponseError::ThrottlingQuotaExceeded.code();
    let make = |name: &str, partitions| {
        let topic = CreatableTopic::default().with_name(text(name).into()).with_num_partitions(partitions);
        let topic = topic.with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5000)
    };
    // The bucket holds 5.5 and may be overdrawn once.
    let response = node.connect().await.ask(7, &make("first", 7)).await;
    assert_eq!((response.topics[0].error_code, response.throttle_time_ms), (0, 0));
    let response = node.connect().await.ask(7, &make("second", 1)).await;
    assert_eq!(response.topics[0].error_code, exceeded);
    assert!(response.throttle_time_ms > 0);
    assert_eq!(node.connect().await.ask(7, &make("bad name", 1)).await.topics[0].error_code, 17, "not counted");
    let grow = CreatePartitionsTopic::default().with_name(text("first").into()).with_count(9).with_assignments(None);
    let grow = CreatePartitionsRequest::default().with_topics(vec![grow]).with_timeout_ms(5000);
    assert_eq!(node.connect().await.ask(3, &grow).await.results[0].error_code, exceeded);
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![text("first").into()]).with_timeout_ms(5000);
    assert_eq!(node.connect().await.ask(5, &delete).await.responses[0].error_code, exceeded);
    // Nor are topics made because they are asked for.
    let named = MetadataRequestTopic::default().with_name(Some(text("fourth").into()));
    let metadata = MetadataRequest::default().with_topics(Some(vec![named])).with_allow_auto_topic_creation(true);
    for _ in 0..2 {
        assert_eq!(node.connect().await.ask(9, &metadata).await.topics[0].error_code, 3);
    }
    assert_eq!(set(&mut admin, ANY_CLIENT, "controller_mutation_rate", None).await, 0);
    for expected in [3, 0] {
        assert_eq!(node.connect().await.ask(9, &metadata).await.topics[0].error_code, expected);
    }
    assert_eq!(set(&mut admin, ANY_CLIENT, "controller_mutation_rate", Some(0.001)).await, 0);
    // Clients of earlier versions are slowed down, not refused.
    let response = node.connect().await.ask(5, &make("third", 1)).await;
    assert_eq!(response.topics[0].error_code, 0);
    assert!(response.throttle_time_ms > 0);
}

#[tokio::test]
async fn time_spent_on_requests_is_held_against_the_client() {
    let node = TestNode::start().await;
    let mut admin = node.connect().await;
    assert_eq!(set(&mut admin, ANY_CLIENT, "request_percentage", Some(1e-9)).await, 0);
    let wait = node
        .connect()
        .await
        .ask(
            3,
            &ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1")),
        )
        .await
        .throttle_time_ms;
    assert_eq!(wait, 1000, "never longer than one sample");
}

#[tokio::test]
async fn an_address_opens_connections_no_faster_than_its_quota() {
    let node = TestNode::start().await;
    let mut admin = node.connect().await;
    assert_eq!(set(&mut admin, &[("ip", Some("127.0.0.1"))], "connection_creation_rate", Some(1.0)).await, 0);
    let mut served = 0;
    for _ in 0..30 {
        let mut client = node.connect().await;
        client.send(0, &ApiVersionsRequest::default()).await;
        match client.receive_raw().await {
            Some(_) => served += 1,
            None => break,
        }
    }
    // Ten in the window of ten seconds, and one more for each second that the test takes.
    assert!((10..30).contains(&served), "{served}");
    assert!(node.metrics.text().contains("varve_connections_refused_total{limit=\"rate\"} 1"));
    assert_eq!(set(&mut admin, &[("ip", Some("127.0.0.1"))], "connection_creation_rate", None).await, 0);
    let mut client = node.connect().await;
    client.ask(0, &ApiVersionsRequest::default()).await;
}
