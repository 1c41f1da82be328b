//! Topic settings that change while the topic lives: its partitions obey them at once, wherever they were given.

use kafka_protocol::{
    messages::{
        IncrementalAlterConfigsRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};
use varve_log::local::LogConfig;
use varve_metadata::model::PartitionIndex;

use crate::server::testing::{Client, TestNode};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Settings of the local log: the topic's name, the broker's, and a value that is neither's default.
const OF_THE_LOG: [(&str, &str, &str); 13] = [
    ("segment.bytes", "log.segment.bytes", "2097152"),
    ("segment.ms", "log.roll.ms", "60000"),
    ("segment.jitter.ms", "log.roll.jitter.ms", "1000"),
    ("segment.index.bytes", "log.index.size.max.bytes", "8192"),
    ("index.interval.bytes", "log.index.interval.bytes", "100"),
    ("preallocate", "log.preallocate", "true"),
    ("max.message.bytes", "message.max.bytes", "5000"),
    ("compression.type", "compression.type", "zstd"),
    ("message.timestamp.type", "log.message.timestamp.type", "LogAppendTime"),
    ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", "1000"),
    ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", "1000"),
    ("flush.messages", "log.flush.interval.messages", "3"),
    ("flush.ms", "log.flush.interval.ms", "1000"),
];

async fn alter(client: &mut Client, kind: i8, resource: &str, name: &str, value: Option<&str>) {
    let text = |value: &str| StrBytes::from_string(value.to_owned());
    let op = if value.is_some() { 0 } else { 1 };
    let config = AlterableConfig::default().with_name(text(name)).with_config_operation(op).with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let answer = client.ask(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource])).await;
    assert_eq!(answer.responses[0].error_code, 0, "{name}={value:?}: {:?}", answer.responses[0].error_message);
}

/// What the living partition obeys once it has seen all changes.
async fn obeyed(node: &TestNode) -> LogConfig {
    node.broker.partitions.caught_up(node.broker.metadata.image().revision()).await;
    let partition = node.broker.partitions.find("t", PartitionIndex(0)).unwrap();
    partition.log().config().as_ref().clone()
}

#[tokio::test]
async fn a_living_partition_obeys_its_topics_settings_as_they_change() {
    let node = TestNode::start().await;
    node.create_topic("t", 1, &[]).await;
    let mut client = node.connect().await;
    let plain = obeyed(&node).await;
    for (name, _, value) in OF_THE_LOG {
        alter(&mut client, TOPIC, "t", name, Some(value)).await;
        assert_ne!(obeyed(&node).await, plain, "{name}={value}");
        alter(&mut client, TOPIC, "t", name, None).await;
        assert_eq!(obeyed(&node).await, plain, "{name} is taken back");
    }
}

#[tokio::test]
async fn a_living_partition_obeys_the_brokers_defaults_as_they_change() {
    let node = TestNode::start().await;
    node.create_topic("t", 1, &[]).await;
    let mut client = node.connect().await;
    let plain = obeyed(&node).await;
    for (_, name, value) in OF_THE_LOG {
        for broker in ["", "1"] {
            alter(&mut client, BROKER, broker, name, Some(value)).await;
            assert_ne!(obeyed(&node).await, plain, "{name}={value} of {broker:?}");
            alter(&mut client, BROKER, broker, name, None).await;
            assert_eq!(obeyed(&node).await, plain, "{name} of {broker:?} is taken back");
        }
    }
}
