//! What a drain asks of the cluster: Kafka's own requests.

use std::collections::BTreeMap;

use anyhow::Context;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest, IncrementalAlterConfigsRequest, TopicName,
        UnregisterBrokerRequest,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        elect_leaders_request::TopicPartitions,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};
use varve_metadata::image::{ALL_LOG_DIRS, CORDONED_LOG_DIRS};

use super::{
    client::{Client, check},
    plan::Move,
};

const TIMEOUT_MS: i32 = 60_000;
/// Kafka's number of a broker's settings, and of the two ways to change one.
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Asks for other replicas. The first refusal of a partition, if there was one.
pub(super) async fn reassign(client: &mut Client, moves: &[Move]) -> anyhow::Result<Option<String>> {
    if moves.is_empty() {
        return Ok(None);
    }
    let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
    for one in moves {
        let replicas = one.replicas.iter().map(|id| BrokerId(*id)).collect();
        let partition = ReassignablePartition::default().with_partition_index(one.index).with_replicas(Some(replicas));
        topics.entry(&one.topic).or_default().push(partition);
    }
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| ReassignableTopic::default().with_name(topic_name(name)).with_partitions(partitions));
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_allow_replication_factor_change(false)
        .with_topics(topics.collect());
    let answer = client.ask(1, &request).await?;
    check(answer.error_code, answer.error_message.as_deref()).context("replicas cannot be moved")?;
    for topic in answer.responses {
        for partition in topic.partitions {
            if let Err(error) = check(partition.error_code, partition.error_message.as_deref()) {
                return Ok(Some(format!("{}-{}: {error:#}", topic.name.as_str(), partition.partition_index)));
            }
        }
    }
    Ok(None)
}

/// Has preferred replicas lead. Where one cannot yet, the end of the move decides.
pub(super) async fn elect(client: &mut Client, partitions: &[(String, i32)]) -> anyhow::Result<()> {
    if partitions.is_empty() {
        return Ok(());
    }
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    partitions.iter().for_each(|(topic, index)| topics.entry(topic).or_default().push(*index));
    let topics = topics
        .into_iter()
        .map(|(name, partitions)| TopicPartitions::default().with_topic(topic_name(name)).with_partitions(partitions));
    let request =
        ElectLeadersRequest::default().with_timeout_ms(TIMEOUT_MS).with_topic_partitions(Some(topics.collect()));
    let answer = client.ask(2, &request).await?;
    check(answer.error_code, None).context("leadership cannot be moved")
}

/// Keeps new replicas from the broker, or lets it have them.
pub(super) async fn cordon(client: &mut Client, id: i32, is_cordoned: bool) -> anyhow::Result<()> {
    let (operation, value) = match is_cordoned {
        true => (SET, Some(StrBytes::from_static_str(ALL_LOG_DIRS))),
        false => (DELETE, None),
    };
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(CORDONED_LOG_DIRS))
        .with_config_operation(operation)
        .with_value(value);
    let resource = AlterConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(StrBytes::from_string(id.to_string()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer = client.ask_broker(id, 1, &request).await?;
    let result = answer.responses.first().context("one resource")?;
    check(result.error_code, result.error_message.as_deref())
        .with_context(|| format!("{CORDONED_LOG_DIRS} of broker {id} cannot be changed"))
}

pub(super) async fn unregister(client: &mut Client, id: i32) -> anyhow::Result<()> {
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
    let answer = client.ask(0, &request).await?;
    // Sent twice, because the first answer was lost.
    if ResponseError::try_from_code(answer.error_code) == Some(ResponseError::BrokerIdNotRegistered) {
        return Ok(());
    }
    check(answer.error_code, answer.error_message.as_deref())
        .with_context(|| format!("broker {id} cannot be unregistered"))
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
