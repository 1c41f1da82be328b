//! Settings described and changed, against a node, through a socket.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, alter_configs_request,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};

use super::admin_test::{create, node_with, text, topic};
use crate::server::{
    Limits,
    testing::{Client, TestNode},
};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const GROUP: i8 = 32;

async fn describe(client: &mut Client, resource_type: i8, resource: &str) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    client.ask(4, &request).await.results.remove(0)
}

fn setting<'a>(result: &'a DescribeConfigsResult, name: &str) -> &'a DescribeConfigsResourceResult {
    result.configs.iter().find(|config| config.name.as_str() == name).unwrap_or_else(|| panic!("no {name}"))
}

/// A setting's synonyms as tools print them: name, value, source.
fn synonyms(setting: &DescribeConfigsResourceResult) -> Vec<(String, String, i8)> {
    let text = |value: &Option<StrBytes>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    setting.synonyms.iter().map(|layer| (layer.name.to_string(), text(&layer.value), layer.source)).collect()
}

pub(super) async fn alter(
    client: &mut Client,
    resource_type: i8,
    resource: &str,
    ops: &[(&str, i8, Option<&str>)],
) -> (i16, String) {
    let configs = ops.iter().map(|(name, op, value)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*op).with_value(value.map(text))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(resource))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.ask(1, &request).await.responses.remove(0);
    (response.error_code, response.error_message.map(|message| message.to_string()).unwrap_or_default())
}

#[tokio::test]
async fn settings_of_a_topic_are_described_with_what_stands_behind_them() {
    let node =
        TestNode::start_configured(Limits::default(), &["log.retention.hours=2", "log.segment.bytes=2097152"]).await;
    let mut client = node.connect().await;
    client.ask(7, &create(vec![topic("t", 1, 1)])).await;
    assert_eq!(alter(&mut client, TOPIC, "t", &[("segment.bytes", 0, Some("3145728"))]).await.0, 0);
    let result = describe(&mut client, TOPIC, "t").await;
    let segment = setting(&result, "segment.bytes");
    assert_eq!((segment.value.as_deref(), segment.config_source, segment.config_type), (Some("3145728"), 1, 3));
    assert!(!segment.read_only && !segment.is_sensitive && segment.documentation.is_some());
    let behind = |name: &str, value: &str, source: i8| (name.to_owned(), value.to_owned(), source);
    assert_eq!(
        synonyms(segment),
        [
            behind("segment.bytes", "3145728", 1),
            behind("log.segment.bytes", "2097152", 4),
            behind("log.segment.bytes", "1073741824", 5),
        ]
    );
    // Kafka's rule for names that are not the first of their group: the value holds, its origin is not shown.
    let retention = setting(&result, "retention.ms");
    assert_eq!(
        (retention.value.as_deref(), retention.config_source, synonyms(retention)),
        (Some("7200000"), 5, vec![])
    );
    assert_eq!(describe(&mut client, TOPIC, "nowhere").await.error_code, 3);
    assert_eq!(describe(&mut client, TOPIC, "").await.error_code, ResponseError::InvalidTopicException.code());
}

#[tokio::test]
async fn only_the_settings_that_are_asked_for_are_described() {
    let (_node, mut client) = node_with(&[("t", 1)]).await;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configuration_keys(Some(vec![text("retention.ms"), text("nothing")]));
    let response = client.ask(1, &DescribeConfigsRequest::default().with_resources(vec![resource])).await;
    let names: Vec<&str> = response.results[0].configs.iter().map(|config| config.name.as_str()).collect();
    assert_eq!(names, ["retention.ms"]);
}

#[tokio::test]
async fn a_dynamic_broker_setting_takes_effect_at_once_and_is_shown() {
    let (node, mut client) = node_with(&[("t", 1)]).await;
    let retention =
        |node: &TestNode| node.broker.metadata.image().topic("t").unwrap().config.retention_time.unwrap().as_millis();
    assert_eq!(alter(&mut client, BROKER, "", &[("log.retention.ms", 0, Some("5000"))]).await.0, 0);
    assert_eq!(retention(&node), 5000);
    assert_eq!(alter(&mut client, BROKER, "1", &[("log.retention.ms", 0, Some("4000"))]).await.0, 0);
    assert_eq!(retention(&node), 4000);

    let result = describe(&mut client, BROKER, "1").await;
    let shown = setting(&result, "log.retention.ms");
    assert_eq!((shown.value.as_deref(), shown.config_source, shown.read_only), (Some("4000"), 2, false));
    let sources: Vec<i8> = shown.synonyms.iter().map(|layer| layer.source).collect();
    assert_eq!(sources, [2, 3, 5]);
    assert!(setting(&result, "node.id").read_only);
    let defaults = describe(&mut client, BROKER, "").await;
    let names: Vec<&str> = defaults.configs.iter().map(|config| config.name.as_str()).collect();
    assert_eq!(names, ["log.retention.ms"]);
    assert_eq!(alter(&mut client, BROKER, "1", &[("log.retention.ms", 1, None)]).await.0, 0);
    assert_eq!(retention(&node), 5000);

    let kerberos = "sasl.kerberos.min.time.before.relogin";
    assert_eq!(alter(&mut client, BROKER, "1", &[(kerberos, 0, Some("58000"))]).await, (0, String::new()));
    let result = describe(&mut client, BROKER, "1").await;
    let shown = setting(&result, kerberos);
    assert_eq!((shown.value.as_deref(), shown.config_source, shown.read_only), (Some("58000"), 2, false));
    for fixed in ["sasl.login.class", "sasl.server.max.receive.size", "ssl.principal.mapping.rules"] {
        assert!(setting(&result, fixed).read_only, "{fixed}");
    }

    let cases = [
        ("1", "node.id", "2", "Cannot update these configs dynamically: [node.id]"),
        ("1", "sasl.login.class", "x", "Cannot update these configs dynamically: [sasl.login.class]"),
        (
            "1",
            "ssl.keystore.location",
            "x",
            "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.location]",
        ),
        (
            "",
            kerberos,
            "58000",
            "Cannot update these configs at default cluster level, broker id must be specified: [sasl.kerberos.min.time.before.relogin]",
        ),
        ("1", "num.partitions", "2", "Cannot update these configs dynamically: [num.partitions]"),
        ("1", "log.cleaner.threads", "0", "Log cleaner threads should be at least 1"),
        (
            "1",
            "log.cleaner.threads",
            "3",
            "Log cleaner threads cannot be increased to more than double the current value 1",
        ),
        (
            "1",
            "remote.log.reader.threads",
            "4",
            "Dynamic thread count update validation failed for remote.log.reader.threads=4, value should be at least half the current value 10",
        ),
        ("2", "log.retention.ms", "1", "Unexpected broker id, expected 1, but received 2"),
        ("x", "log.retention.ms", "1", "Node id must be an integer, but it is: x"),
        ("1", "log.retention.ms", "soon", "Invalid value soon for configuration log.retention.ms"),
    ];
    for (resource, name, value, message) in cases {
        let (code, text) = alter(&mut client, BROKER, resource, &[(name, 0, Some(value))]).await;
        assert_eq!(code, ResponseError::InvalidRequest.code());
        assert!(text.starts_with(message), "{text}");
    }
}

#[tokio::test]
async fn changes_that_cannot_be_are_refused_whole() {
    let (node, mut client) = node_with(&[("t", 1)]).await;
    type Ops<'a> = &'a [(&'a str, i8, Option<&'a str>)];
    let cases: [(i8, &str, Ops<'_>, i16, &str); 12] = [
        (TOPIC, "u", &[("retention.ms", 0, Some("1"))], 3, "The topic 'u' does not exist."),
        (TOPIC, "", &[("retention.ms", 0, Some("1"))], 42, "Default topic resources are not allowed."),
        (TOPIC, "t", &[("retention.ms", 0, None)], 42, "Null value not supported for : retention.ms"),
        (
            TOPIC,
            "t",
            &[("retention.ms", 2, Some("1"))],
            40,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (TOPIC, "t", &[("retention.ms", 0, Some("1")), ("bad", 0, Some("1"))], 40, "Unknown topic config name: bad"),
        (
            TOPIC,
            "t",
            &[("retention.ms", 0, Some("1")), ("retention.ms", 1, None)],
            42,
            "Error due to duplicate config keys",
        ),
        (99, "t", &[], 42, "Unknown resource type 99"),
        (
            GROUP,
            "g",
            &[("consumer.session.timeout.ms", 0, Some("1"))],
            40,
            "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
        ),
        (
            GROUP,
            "g",
            &[("share.session.timeout.ms", 0, Some("1"))],
            40,
            "share.session.timeout.ms must be greater than or equal to group.share.min.session.timeout.ms",
        ),
        (
            GROUP,
            "g",
            &[("streams.session.timeout.ms", 0, Some("1"))],
            40,
            "streams.session.timeout.ms must be greater than or equal to group.streams.min.session.timeout.ms",
        ),
        (
            GROUP,
            "g",
            &[("streams.num.standby.replicas", 0, Some("3"))],
            40,
            "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
        ),
        (GROUP, "g", &[("no.such", 0, Some("1"))], 40, ""),
    ];
    for (resource_type, resource, ops, code, message) in cases {
        let (found, text) = alter(&mut client, resource_type, resource, ops).await;
        assert_eq!(found, code, "{text}");
        assert!(text.starts_with(message), "{text}");
    }
    assert!(node.broker.metadata.image().topic("t").unwrap().overrides.is_empty());
}

#[tokio::test]
async fn alter_configs_replaces_what_was_there() {
    let (node, mut client) = node_with(&[("t", 1)]).await;
    alter(&mut client, TOPIC, "t", &[("retention.ms", 0, Some("5")), ("segment.ms", 0, Some("7"))]).await;
    let config =
        alter_configs_request::AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("9")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    client.ask(2, &request.clone().with_validate_only(true)).await;
    assert_eq!(node.broker.metadata.image().topic("t").unwrap().overrides.len(), 2);
    assert_eq!(client.ask(2, &request).await.responses[0].error_code, 0);
    let image = node.broker.metadata.image();
    let overrides: Vec<_> =
        image.topic("t").unwrap().overrides.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(overrides, [("retention.ms", "9")]);
}

#[tokio::test]
async fn loggers_and_groups_are_described() {
    let (_node, mut client) = node_with(&[]).await;
    assert_eq!(alter(&mut client, LOGGER, "1", &[("varve_log", 0, Some("DEBUG"))]).await.0, 0);
    let loggers = describe(&mut client, LOGGER, "1").await;
    assert_eq!(setting(&loggers, "varve_log").value.as_deref(), Some("DEBUG"));
    assert_eq!(setting(&loggers, "root").value.as_deref(), Some("INFO"));
    let (code, message) = alter(&mut client, LOGGER, "1", &[("kafka.server", 0, Some("DEBUG"))]).await;
    assert_eq!((code, message.as_str()), (40, "Logger kafka.server does not exist!"));
    let group = describe(&mut client, GROUP, "g").await;
    assert_eq!(setting(&group, "consumer.session.timeout.ms").value.as_deref(), Some("45000"));
}

#[tokio::test]
async fn settings_outside_of_kafkas_table_are_shown_as_far_as_their_type_is_known() {
    let given = [
        "super.users=User:root",
        "allow.everyone.if.no.acl.found=true",
        "listener.name.plaintext.ssl.client.auth=requested",
        "listener.name.plaintext.plain.sasl.jaas.config=secret",
        "listener.name.plaintext.plain.connections.max.reauth.ms=5",
    ];
    let node = TestNode::start_configured(Limits::default(), &given).await;
    let mut client = node.connect().await;
    let result = describe(&mut client, BROKER, "1").await;
    for (name, value, config_type, behind) in [
        ("super.users", None, 0, &[][..]),
        ("allow.everyone.if.no.acl.found", None, 0, &[]),
        ("listener.name.plaintext.ssl.client.auth", Some("requested"), 2, &[("ssl.client.auth", "none", 5)]),
        ("listener.name.plaintext.plain.sasl.jaas.config", None, 9, &[]),
        (
            "listener.name.plaintext.plain.connections.max.reauth.ms",
            Some("5"),
            5,
            &[("connections.max.reauth.ms", "0", 5)],
        ),
    ] {
        let shown = setting(&result, name);
        assert_eq!((shown.value.as_deref(), shown.config_type), (value, config_type), "{name}");
        assert_eq!((shown.is_sensitive, shown.read_only, shown.config_source), (value.is_none(), true, 4), "{name}");
        let own = (name, value.unwrap_or_default(), 4);
        let expected = [&[own], behind].concat();
        let expected = expected.into_iter().map(|(name, value, source)| (name.into(), value.into(), source));
        assert_eq!(synonyms(shown), expected.collect::<Vec<(String, String, i8)>>(), "{name}");
    }
    let plain = TestNode::start().await;
    let result = describe(&mut plain.connect().await, BROKER, "1").await;
    assert!(result.configs.iter().all(|config| config.name.as_str() != "super.users"), "it is not given");
}
