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
    /// It is not fenced and did not answer, so it is taken for cordoned.
    pub(super) is_silent: bool,
}

impl BrokerView {
    /// Whether new replicas may go there, as far as can be told.
    pub(super) fn takes_replicas(&self) -> bool {
        !self.is_fenced && !self.is_cordoned
    }
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
            let told = is_cordoned(client, *id).await.ok();
            (broker.is_cordoned, broker.is_silent) = (told.unwrap_or(true), told.is_none());
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
            ..BrokerView::default()
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
async fn read_settled(cluster: &mut impl Placed) -> anyhow::Result<Vec<PartitionView>> {
    let mut before = cluster.reassignments().await?;
    for _ in 0..LOOKS {
        let mut partitions = cluster.partitions().await?;
        let mut moving = cluster.reassignments().await?;
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

/// Who is asked where partitions are.
trait Placed {
    /// By topic, then number, without what moves.
    async fn partitions(&mut self) -> anyhow::Result<Vec<PartitionView>>;
    /// By topic and number.
    async fn reassignments(&mut self) -> anyhow::Result<HashMap<(String, i32), Moving>>;
}

impl Placed for Client {
    async fn partitions(&mut self) -> anyhow::Result<Vec<PartitionView>> {
        read_partitions(self).await
    }

    async fn reassignments(&mut self) -> anyhow::Result<HashMap<(String, i32), Moving>> {
        read_reassignments(self).await
    }
}

/// A partition that moves: all who hold it or are about to, and of those who comes and who goes.
#[derive(Clone, Debug, PartialEq, Eq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition of `replicas`, being moved or not: what a cluster looks like at one moment.
    type Moment = (&'static [i32], Option<Moving>);

    /// A cluster in which something happens before each question.
    struct Busy {
        moments: Vec<Moment>,
        asked: usize,
    }

    impl Busy {
        fn new(moments: impl IntoIterator<Item = Moment>) -> Busy {
            Busy { moments: moments.into_iter().collect(), asked: 0 }
        }

        fn next(&mut self) -> Moment {
            // From the last moment on all stays as it is.
            let at = self.asked.min(self.moments.len() - 1);
            self.asked += 1;
            self.moments[at].clone()
        }
    }

    impl Placed for Busy {
        async fn partitions(&mut self) -> anyhow::Result<Vec<PartitionView>> {
            let replicas = self.next().0.to_vec();
            Ok(vec![PartitionView { topic: "t".to_owned(), replicas, ..PartitionView::default() }])
        }

        async fn reassignments(&mut self) -> anyhow::Result<HashMap<(String, i32), Moving>> {
            Ok(self.next().1.map(|moving| (("t".to_owned(), 0), moving)).into_iter().collect())
        }
    }

    fn moving() -> Moving {
        Moving { replicas: vec![2, 3, 4, 1], adding: vec![4], removing: vec![1] }
    }

    /// While it moves, the partition is described with all who hold it or are about to.
    const DURING: &[i32] = &[2, 3, 4, 1];

    #[tokio::test]
    async fn a_move_that_ends_between_two_answers_is_not_taken_for_a_replica_more() {
        let (during, after): (Moment, Moment) = ((DURING, Some(moving())), (&[2, 3, 4], None));
        let seen = read_settled(&mut Busy::new([during.clone(), during, after])).await.unwrap();
        assert_eq!((seen[0].replicas.as_slice(), seen[0].adding.len()), ([2, 3, 4].as_slice(), 0));
    }

    #[tokio::test]
    async fn a_move_that_begins_between_two_answers_is_seen_as_one() {
        let (before, during): (Moment, Moment) = ((&[1, 2, 3], None), (DURING, Some(moving())));
        let seen = read_settled(&mut Busy::new([before.clone(), before, during])).await.unwrap();
        assert_eq!(seen[0].replicas, DURING);
        assert_eq!((seen[0].adding.as_slice(), seen[0].removing.as_slice()), ([4].as_slice(), [1].as_slice()));
    }

    #[tokio::test]
    async fn a_move_that_goes_on_is_seen_as_it_is() {
        let seen = read_settled(&mut Busy::new([(DURING, Some(moving()))])).await.unwrap();
        assert_eq!((seen[0].replicas.as_slice(), seen[0].removing.as_slice()), (DURING, [1].as_slice()));
    }

    #[tokio::test]
    async fn a_cluster_that_never_keeps_still_is_not_looked_at_for_ever() {
        let each: Vec<Moment> = (0..100).map(|at| (DURING, Some(Moving { adding: vec![at], ..moving() }))).collect();
        let mut busy = Busy::new(each);
        assert!(read_settled(&mut busy).await.unwrap_err().to_string().contains("try again in a while"));
        assert_eq!(busy.asked, 2 * LOOKS + 1);
    }
}
