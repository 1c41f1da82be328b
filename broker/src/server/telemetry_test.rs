//! Client metrics (KIP-714) and settings that change while the node runs, through sockets.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, GetTelemetrySubscriptionsRequest, IncrementalAlterConfigsRequest, PushTelemetryRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};

use super::testing::{Client, TestNode};

const BROKER: i8 = 4;
pub(super) const CLIENT_METRICS: i8 = 16;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) async fn set(
    client: &mut Client,
    kind: i8,
    resource: &str,
    name: &str,
    value: Option<&str>,
) -> (i16, String) {
    let config = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.ask(1, &request).await.responses.remove(0);
    (response.error_code, response.error_message.map(|message| message.to_string()).unwrap_or_default())
}

/// OTLP metrics data with one gauge `x.y` of value 2.5.
fn gauge() -> Vec<u8> {
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2, bytes.len() as u8], bytes].concat()
    }
    let point = [&[4 << 3 | 1][..], &2.5f64.to_le_bytes()].concat();
    let metric = [field(1, b"x.y"), field(5, &field(1, &point))].concat();
    field(1, &field(2, &field(2, &metric)))
}

#[tokio::test]
async fn what_clients_push_is_shown_while_they_are_connected() {
    let node = TestNode::start().await;
    let mut admin = node.connect().await;
    assert_eq!(set(&mut admin, CLIENT_METRICS, "all", "metrics", Some("*")).await.0, 0);
    assert_eq!(set(&mut admin, CLIENT_METRICS, "all", "match", Some("client_software_name=lib.*")).await.0, 0);
    let mut client = node.connect().await;
    let stranger = client.ask(0, &GetTelemetrySubscriptionsRequest::default()).await;
    assert_eq!((stranger.error_code, stranger.requested_metrics.len()), (0, 0), "its library is not meant");
    let mut client = node.connect().await;
    let hello = ApiVersionsRequest::default()
        .with_client_software_name(text("librdkafka"))
        .with_client_software_version(text("2.5"));
    client.ask(3, &hello).await;
    let told = client.ask(0, &GetTelemetrySubscriptionsRequest::default()).await;
    assert_eq!((told.error_code, told.requested_metrics.as_slice()), (0, &[text("*")][..]));
    assert_eq!((told.accepted_compression_types.as_slice(), told.push_interval_ms), (&[4, 3, 1, 2][..], 300_000));
    let push = PushTelemetryRequest::default()
        .with_client_instance_id(told.client_instance_id)
        .with_subscription_id(told.subscription_id)
        .with_metrics(gauge().into());
    let wrong = push.clone().with_subscription_id(told.subscription_id ^ 1);
    assert_eq!(client.ask(0, &wrong).await.error_code, ResponseError::UnknownSubscriptionId.code());
    let again = GetTelemetrySubscriptionsRequest::default().with_client_instance_id(told.client_instance_id);
    assert_eq!(client.ask(0, &again).await.error_code, 0, "sent back to ask, it may");
    assert_eq!(client.ask(0, &push).await.error_code, ResponseError::ThrottlingQuotaExceeded.code());
    assert_eq!(client.ask(0, &push.with_terminating(true)).await.error_code, 0);
    let line = "kafka_client_x_y{client_id=\"test\",client_instance_id=\"";
    assert!(node.metrics.text().contains(line), "{}", node.metrics.text());
}

#[tokio::test]
async fn subscriptions_that_cannot_be_are_refused_in_kafkas_words() {
    let node = TestNode::start().await;
    let mut admin = node.connect().await;
    for (resource, name, value, code, message) in [
        ("s", "interval.ms", "99", 42, "Invalid value 99 for interval.ms, interval must be between 100 and 3600000"),
        ("s", "interval.ms", "soon", 40, "Invalid value soon for configuration interval.ms: Not a number of type INT"),
        ("s", "match", "user=alice", 40, "Illegal client matching pattern: user=alice"),
        ("s", "nothing", "1", 42, "Unknown client metrics configuration: nothing"),
        ("", "metrics", "*", 42, "Subscription name can't be empty"),
    ] {
        let (found, text) = set(&mut admin, CLIENT_METRICS, resource, name, Some(value)).await;
        assert_eq!(found, code, "{text}");
        assert!(text.starts_with(message), "{text}");
    }
}

#[tokio::test]
async fn limits_of_connections_change_while_the_node_runs() {
    let node = TestNode::start().await;
    let mut admin = node.connect().await;
    admin.ask(0, &ApiVersionsRequest::default()).await;
    assert_eq!(set(&mut admin, BROKER, "1", "max.connections.per.ip", Some("1")).await.0, 0);
    assert_eq!(node.connect().await.receive_raw().await, None, "one is open");
    assert_eq!(set(&mut admin, BROKER, "1", "max.connections.per.ip.overrides", Some("127.0.0.1:2")).await.0, 0);
    node.connect().await.ask(0, &ApiVersionsRequest::default()).await;
    assert_eq!(set(&mut admin, BROKER, "1", "max.connections.per.ip.overrides", None).await.0, 0);
    assert_eq!(set(&mut admin, BROKER, "", "max.connections", Some("1")).await.0, 0);
    assert_eq!(node.connect().await.receive_raw().await, None);
    let (code, text) = set(&mut admin, BROKER, "1", "max.connections.per.ip.overrides", Some("nowhere")).await;
    assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
}
