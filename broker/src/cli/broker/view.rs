//! The cluster as a drain sees it: brokers, and where every partition is.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, bail, ensure};
use kafka_protocol::{
    messages::{
        DescribeClusterRequest, DescribeConfigsRequest, ListPartitionReassignmentsRequest, MetadataRequest,
        describe_configs_request::DescribeConfigsResource,
    },
    protocol::StrBytes,
};
use varve_metadata::image::{ALL_LOG_DIRS, CORDONED_LOG_DIRS};

use super::client::{Client, check};

/// Topics whose settings are asked for at a time.
const TOPICS_AT_ONCE: usize = 500;
/// So often partitions are looked at again because replicas began or ceased to move meanwhile.
const LOOKS: usize = 20;
/// Kafka's numbers of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// The cluster at one moment, as far as several answers can be of one.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) brokers: BTreeMap<i32, BrokerView>,
    /// By topic, then number.
    pub(super) partitions: Vec<PartitionView>,
}

/// One broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BrokerView {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) rack: Option<String>,
    /// It is registered, and does not serve.
    pub(super) is_fenced: bool,
    /// It takes no new replicas. Of a fenced one nobody can tell.
    pub(super) is_cordoned: bool,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartitionView {
    pub(super) topic: String,
    pub(super) index: i32,
    pub(super) leader: Option<i32>,
    /// All who hold it, or are about to.
    pub(super) replicas: Vec<i32>,
    pub(super) in_sync: Vec<i32>,
    pub(super) adding: Vec<i32>,
    pub(super) removing: Vec<i32>,
    /// `min.insync.replicas`.
    pub(super) min_in_sync: usize,
}

impl View {
    /// Asks for all of it.
    ///
    /// # Errors
    /// No broker answers, or the answers contradict each other.
    pub(super) async fn read(client: &mut Client) -> anyhow::Result<View> {
        let mut brokers = read_brokers(client).await?;
        client.knows(brokers.iter().map(|(id, broker)| (*id, (broker.host.clone(), broker.port))).collect());
        for (id, broker) in brokers.iter_mut().filter(|(_, broker)| !broker.is_fenced) {
            // One that has just ended is fenced at the next look; it gets nothing now.
            broker.is_cordoned = is_cordoned(client, *id).await.unwrap_or(true);
        }
        let mut partitions = read_settled(client).await?;
        read_min_in_sync(client, &mut partitions).await?;
        Ok(View { brokers, partitions })
    }

    /// The partitions that have a replica on that broker.
    pub(super) fn held_by(&self, id: i32) -> impl Iterator<Item = &PartitionView> {
        self.partitions.iter().filter(move |partition| partition.replicas.contains(&id))
    }
}

async fn read_brokers(client: &mut Client) -> anyhow::Result<BTreeMap<i32, BrokerView>> {
    let request = DescribeClusterRequest::default().with_endpoint_type(1).with_include_fenced_brokers(true);
    let answer = client.ask(2, &request).await?;
    check(answer.error_code, answer.error_message.as_deref()).context("the brokers cannot be listed")?;
    let broker = |broker: kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker| {
        let port = u16::try_from(broker.port).context("a port")?;
        let view = BrokerView {
            host: broker.host.to_string(),
            port,
            rack: broker.rack.map(|rack| rack.to_string()),
            is_fenced: broker.is_fenced,
            is_cordoned: false,
        };
        Ok((broker.broker_id.0, view))
    };
    answer.brokers.into_iter().map(broker).collect()
}

/// Whether all log directories of a broker that serves are cordoned.
async fn is_cordoned(client: &mut Client, id: i32) -> anyhow::Result<bool> {
    let mut settings =
        settings(client, BROKER, &[id.to_string()], &["log.dirs", "log.dir", CORDONED_LOG_DIRS], Some(id))
            .await?
            .remove(&id.to_string())
            .unwrap_or_default();
    let words = |text: String| -> Vec<String> {
        text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    };
    let mut list = |name: &str| settings.remove(name).map(words).unwrap_or_default();
    let cordoned = list(CORDONED_LOG_DIRS);
    let dirs = [list("log.dirs"), list("log.dir")].into_iter().find(|dirs| !dirs.is_empty()).unwrap_or_default();
    Ok(cordoned.iter().any(|dir| dir == ALL_LOG_DIRS)
        || (!dirs.is_empty() && dirs.iter().all(|dir| cordoned.contains(dir))))
}

async fn read_partitions(client: &mut Client) -> anyhow::Result<Vec<PartitionView>> {
    let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
    let answer = client.ask(12, &request).await?;
    let mut partitions = Vec::new();
    for topic in answer.topics {
        let name = topic.name.context("a topic has a name")?;
        check(topic.error_code, None).with_context(|| format!("the topic {} cannot be described", name.as_str()))?;
        partitions.extend(topic.partitions.into_iter().map(|partition| {
            let ids = |ids: Vec<kafka_protocol::messages::BrokerId>| ids.into_iter().map(|id| id.0).collect();
            PartitionView {
                topic: name.to_string(),
                index: partition.partition_index,
                leader: Some(partition.leader_id.0).filter(|leader| *leader >= 0),
                replicas: ids(partition.replica_nodes),
                in_sync: ids(partition.isr_nodes),
                ..PartitionView::default()
            }
        }));
    }
    partitions.sort_by(|a, b| (&a.topic, a.index).cmp(&(&b.topic, b.index)));
    Ok(partitions)
}

/// Partitions, with what moves. Both come in answers of their own: a move that ended between the two would look as if the
/// partition had more replicas than it was given.
async fn read_settled(client: &mut Client) -> anyhow::Result<Vec<PartitionView>> {
    let mut before = read_reassignments(client).await?;
    for _ in 0..LOOKS {
        let mut partitions = read_partitions(client).await?;
        let mut moving = read_reassignments(client).await?;
        if moving != before {
            before = moving;
            continue;
        }
        for partition in &mut partitions {
            let Some(moves) = moving.remove(&(partition.topic.clone(), partition.index)) else { continue };
            partition.replicas = moves.replicas;
            partition.adding = moves.adding;
            partition.removing = moves.removing;
        }
        return Ok(partitions);
    }
    bail!("replicas begin and cease to move faster than they can be looked at: try again in a while")
}

/// A partition that moves: all who hold it or are about to, and of those who comes and who goes.
#[derive(PartialEq, Eq)]
struct Moving {
    replicas: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
}

/// By topic and number.
async fn read_reassignments(client: &mut Client) -> anyhow::Result<HashMap<(String, i32), Moving>> {
    let request = ListPartitionReassignmentsRequest::default().with_timeout_ms(60_000).with_topics(None);
    let answer = client.ask(0, &request).await?;
    check(answer.error_code, answer.error_message.as_deref()).context("reassignments cannot be listed")?;
    let mut moving = HashMap::new();
    let ids = |ids: Vec<kafka_protocol::messages::BrokerId>| ids.into_iter().map(|id| id.0).collect();
    for topic in answer.topics {
        for partition in topic.partitions {
            let moves = Moving {
                replicas: ids(partition.replicas),
                adding: ids(partition.adding_replicas),
                removing: ids(partition.removing_replicas),
            };
            moving.insert((topic.name.to_string(), partition.partition_index), moves);
        }
    }
    Ok(moving)
}

async fn read_min_in_sync(client: &mut Client, partitions: &mut [PartitionView]) -> anyhow::Result<()> {
    const NAME: &str = "min.insync.replicas";
    let mut names: Vec<String> = partitions.iter().map(|partition| partition.topic.clone()).collect();
    names.dedup();
    let mut known = HashMap::new();
    for some in names.chunks(TOPICS_AT_ONCE) {
        known.extend(settings(client, TOPIC, some, &[NAME], None).await?);
    }
    for partition in partitions {
        let given = known.get(&partition.topic).and_then(|settings| settings.get(NAME)?.parse().ok());
        // A topic that was deleted between two answers has none.
        partition.min_in_sync = given.unwrap_or(1);
    }
    Ok(())
}

/// The values of settings, by resource and name.
async fn settings(
    client: &mut Client,
    kind: i8,
    of: &[String],
    names: &[&'static str],
    at: Option<i32>,
) -> anyhow::Result<HashMap<String, HashMap<String, String>>> {
    let keys: Vec<StrBytes> = names.iter().map(|name| StrBytes::from_static_str(name)).collect();
    let resource = |name: &String| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.clone()))
            .with_configuration_keys(Some(keys.clone()))
    };
    let request = DescribeConfigsRequest::default().with_resources(of.iter().map(resource).collect());
    let answer = match at {
        Some(id) => client.ask_broker(id, 4, &request).await?,
        None => client.ask(4, &request).await?,
    };
    ensure!(answer.results.len() == of.len(), "settings of {} resources were asked for", of.len());
    let mut found = HashMap::new();
    for result in answer.results {
        // UNKNOWN_TOPIC_OR_PARTITION: it was deleted a moment ago.
        if kind == TOPIC && result.error_code == 3 {
            continue;
        }
        check(result.error_code, result.error_message.as_deref())
            .with_context(|| format!("the settings of {} cannot be read", result.resource_name))?;
        let given = result.configs.into_iter().filter_map(|one| Some((one.name.to_string(), one.value?.to_string())));
        found.insert(result.resource_name.to_string(), given.collect());
    }
    Ok(found)
}
