//! What a coordinator has to know of the cluster around it.

use std::{collections::BTreeSet, fmt::Debug, time::Duration};

use varve_metadata::model::TopicId;
use xxhash_rust::xxh3::xxh3_64;

/// A picture of the cluster's topics and of the settings of groups. It never changes: a newer one takes its place
/// ([`Shard::cluster_changed`](super::Shard::cluster_changed)).
pub trait ClusterView: Debug + Send + Sync {
    /// The topic of that name.
    fn topic(&self, name: &str) -> Option<TopicFacts>;
    /// The name of a topic.
    fn topic_name(&self, id: TopicId) -> Option<&str>;
    /// All names, in their order.
    fn topic_names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
    /// For each partition of the topic, the racks of its replicas, in their order.
    fn racks(&self, name: &str) -> Vec<Vec<String>>;
    /// Rises with every change of the cluster.
    fn version(&self) -> i64;
    /// The times of a consumer group: its own settings over those of the broker.
    fn consumer_times(&self, group_id: &str) -> ConsumerTimes;
    /// The times of a share group, likewise.
    fn share_times(&self, group_id: &str) -> ShareTimes;
    /// The settings of a streams group: its own over those of the broker.
    fn streams_settings(&self, group_id: &str) -> StreamsSettings;
}

/// What an assignor needs to know of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its identity.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: u32,
}

/// What happened to topics between two pictures of the cluster.
#[derive(Clone, Debug, Default)]
pub struct TopicsChange {
    /// Some are new.
    pub has_new: bool,
    /// Names of those that came, went, grew or moved.
    pub touched: Vec<String>,
    /// Those that are gone.
    pub deleted: Vec<(String, TopicId)>,
}

/// Times of a consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerTimes {
    /// A member that is silent for longer leaves the group (`consumer.session.timeout.ms`).
    pub session_timeout: Duration,
    /// How often members shall say that they are there (`consumer.heartbeat.interval.ms`).
    pub heartbeat_interval: Duration,
    /// Shortest time between two assignments (`consumer.assignment.interval.ms`).
    pub assignment_interval: Duration,
}

impl Default for ConsumerTimes {
    fn default() -> ConsumerTimes {
        ConsumerTimes {
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
            assignment_interval: Duration::from_secs(1),
        }
    }
}

/// Times of a share group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareTimes {
    /// A member that is silent for longer leaves the group (`share.session.timeout.ms`).
    pub session_timeout: Duration,
    /// How often members shall say that they are there (`share.heartbeat.interval.ms`).
    pub heartbeat_interval: Duration,
    /// Shortest time between two assignments (`share.assignment.interval.ms`).
    pub assignment_interval: Duration,
}

impl Default for ShareTimes {
    fn default() -> ShareTimes {
        ShareTimes {
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
            assignment_interval: Duration::from_secs(1),
        }
    }
}

/// Settings of a streams group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsSettings {
    /// A member that is silent for longer leaves the group (`streams.session.timeout.ms`).
    pub session_timeout: Duration,
    /// How often members shall say that they are there (`streams.heartbeat.interval.ms`).
    pub heartbeat_interval: Duration,
    /// Shortest time between two assignments (`streams.assignment.interval.ms`).
    pub assignment_interval: Duration,
    /// How long a group that had no members waits for more (`streams.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay: Duration,
    /// How many copies of each stateful task are kept (`streams.num.standby.replicas`).
    pub standby_replicas: u32,
}

impl Default for StreamsSettings {
    fn default() -> StreamsSettings {
        StreamsSettings {
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
            assignment_interval: Duration::from_secs(1),
            initial_rebalance_delay: Duration::from_secs(3),
            standby_replicas: 0,
        }
    }
}

/// The version of the function, as Kafka counts it.
const HASH_VERSION: u8 = 0;

/// A number that changes when one of `topics` comes, goes, grows, or moves to other racks: the very number that Kafka 4.3
/// keeps in its records. 0 if none of them exists.
pub(super) fn metadata_hash(cluster: &dyn ClusterView, topics: &BTreeSet<String>) -> i64 {
    let hashes: Vec<u8> = topics
        .iter()
        .filter_map(|name| Some(topic_hash(cluster, name, cluster.topic(name)?)))
        .flat_map(u64::to_le_bytes)
        .collect();
    if hashes.is_empty() { 0 } else { xxh3_64(&hashes).cast_signed() }
}

fn topic_hash(cluster: &dyn ClusterView, name: &str, topic: TopicFacts) -> u64 {
    let (high, low) = topic.id.to_wire().as_u64_pair();
    let mut bytes = vec![HASH_VERSION];
    bytes.extend(high.to_le_bytes());
    bytes.extend(low.to_le_bytes());
    put_text(&mut bytes, name);
    bytes.extend(topic.partitions.to_le_bytes());
    let racks = cluster.racks(name);
    for partition in 0..topic.partitions {
        bytes.extend(partition.to_le_bytes());
        let mut racks = racks.get(partition as usize).cloned().unwrap_or_default();
        racks.sort();
        for rack in &racks {
            bytes.extend((rack.encode_utf16().count() as u32).to_le_bytes());
            put_text(&mut bytes, rack);
        }
    }
    xxh3_64(&bytes)
}

/// A string as Kafka's hash library streams it: UTF-16 units, then their number.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let start = bytes.len();
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    let units = (bytes.len() - start) / 2;
    bytes.extend((units as u32).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::coordinator::testing::TestCluster;

    const ID: u128 = 0x0102_0304_0506_0708_1112_1314_1516_1718;

    #[test]
    fn the_hash_is_that_of_kafka() {
        // Computed with hash4j 0.22, which Kafka 4.3 uses.
        let id = TopicId::from_wire(Uuid::from_u128(ID)).unwrap();
        let mut cluster = TestCluster::default();
        cluster.put("orders", id, 2);
        cluster.racks = vec![vec!["r2".to_owned(), "r1".to_owned()], vec!["r1".to_owned()]];
        assert_eq!(
            topic_hash(&cluster, "orders", cluster.topic("orders").unwrap()).cast_signed(),
            5_432_054_704_754_706_130
        );
        let mut other = TestCluster::default();
        other.put("größe\u{1F600}", id, 1);
        let hash = topic_hash(&other, "größe\u{1F600}", other.topic("größe\u{1F600}").unwrap()).cast_signed();
        assert_eq!(hash, -426_123_737_002_327_388);
    }

    #[test]
    fn topics_that_do_not_exist_do_not_count() {
        let cluster = TestCluster::default();
        assert_eq!(metadata_hash(&cluster, &["gone".to_owned()].into()), 0);
    }
}
