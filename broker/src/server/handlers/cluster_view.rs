//! The cluster as one listener's clients see it: what Metadata, DescribeCluster and DescribeTopicPartitions share.

use kafka_protocol::{
    error::ResponseError,
    messages::{BrokerId as WireBrokerId, TopicName as WireTopicName},
    protocol::StrBytes,
};
use varve_metadata::{
    image::{BrokerImage, ClusterImage, Endpoint, PartitionImage},
    model::BrokerId,
};

/// What a client may do, when it asks and nobody is kept from anything: Kafka's bit field (KIP-430), one bit for each
/// operation that the resource knows, at the place of the operation's code.
pub(super) mod operations {
    const READ: i32 = 1 << 3;
    const WRITE: i32 = 1 << 4;
    const CREATE: i32 = 1 << 5;
    const DELETE: i32 = 1 << 6;
    const ALTER: i32 = 1 << 7;
    const DESCRIBE: i32 = 1 << 8;
    const CLUSTER_ACTION: i32 = 1 << 9;
    const DESCRIBE_CONFIGS: i32 = 1 << 10;
    const ALTER_CONFIGS: i32 = 1 << 11;
    const IDEMPOTENT_WRITE: i32 = 1 << 12;

    /// Nobody asked.
    pub(in crate::server) const NOT_ASKED: i32 = i32::MIN;
    /// All that can be done to a cluster.
    pub(in crate::server) const CLUSTER: i32 =
        CREATE | ALTER | DESCRIBE | CLUSTER_ACTION | DESCRIBE_CONFIGS | ALTER_CONFIGS | IDEMPOTENT_WRITE;
    /// All that can be done to a topic.
    pub(in crate::server) const TOPIC: i32 =
        READ | WRITE | CREATE | DELETE | ALTER | DESCRIBE | DESCRIBE_CONFIGS | ALTER_CONFIGS;
}

/// An image, seen through one listener.
#[derive(Clone, Copy)]
pub(super) struct ClusterView<'a> {
    pub(super) image: &'a ClusterImage,
    pub(super) listener: &'a str,
}

/// A partition as the listener's clients see it.
pub(super) struct PartitionView {
    /// What keeps its leader from being reached, if anything does.
    pub(super) error: Option<ResponseError>,
    pub(super) leader: WireBrokerId,
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<WireBrokerId>,
    pub(super) isr: Vec<WireBrokerId>,
    pub(super) offline: Vec<WireBrokerId>,
}

/// Kafka's "no broker".
pub(super) const NO_BROKER: WireBrokerId = WireBrokerId(-1);

impl<'a> ClusterView<'a> {
    /// Brokers that this listener's clients can reach, with the address to reach them at.
    pub(super) fn brokers(self) -> impl Iterator<Item = (&'a BrokerImage, &'a Endpoint)> {
        self.image.brokers().values().filter_map(move |broker| Some((broker, broker.endpoints.get(self.listener)?)))
    }

    /// Where administrative requests go: every broker can take them, so the first one that lives.
    pub(super) fn controller(self) -> WireBrokerId {
        let alive = self.brokers().find(|(broker, _)| !broker.fenced);
        alive.map_or(NO_BROKER, |(broker, _)| wire(broker.id))
    }

    fn reaches(self, id: BrokerId) -> bool {
        let broker = self.image.brokers().get(&id);
        broker.is_some_and(|broker| !broker.fenced && broker.endpoints.contains_key(self.listener))
    }

    /// A partition. `only_reachable` leaves out replicas that cannot be reached, and says so, as version 0 of Metadata does.
    pub(super) fn partition(self, partition: &PartitionImage, only_reachable: bool) -> PartitionView {
        let listed = |ids: &[BrokerId]| -> Vec<WireBrokerId> {
            ids.iter().filter(|id| !only_reachable || self.reaches(**id)).map(|id| wire(*id)).collect()
        };
        let (replicas, isr) = (listed(&partition.replicas), listed(&partition.isr));
        let leader = partition.leader.and_then(|id| self.image.brokers().get(&id));
        let error = match leader {
            None => Some(ResponseError::LeaderNotAvailable),
            Some(leader) if !leader.endpoints.contains_key(self.listener) => Some(ResponseError::ListenerNotFound),
            Some(_) if replicas.len() < partition.replicas.len() || isr.len() < partition.isr.len() => {
                Some(ResponseError::ReplicaNotAvailable)
            }
            Some(_) => None,
        };
        let led = leader.filter(|leader| leader.endpoints.contains_key(self.listener));
        PartitionView {
            error,
            leader: led.map_or(NO_BROKER, |leader| wire(leader.id)),
            leader_epoch: partition.leader_epoch.to_wire(),
            replicas,
            isr,
            offline: partition.replicas.iter().filter(|id| !self.reaches(**id)).map(|id| wire(*id)).collect(),
        }
    }
}

/// A broker's id on the wire.
pub(super) fn wire(id: BrokerId) -> WireBrokerId {
    WireBrokerId(id.to_wire())
}

/// Text for the wire.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name for the wire.
pub(super) fn topic_name(name: &str) -> WireTopicName {
    WireTopicName(text(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_the_bits_that_kafkas_tools_expect() {
        // Recorded from Kafka without an authorizer: 7 operations on the cluster, 8 on a topic.
        assert_eq!(operations::CLUSTER.count_ones(), 7);
        assert_eq!(operations::TOPIC, 3576);
        assert_eq!(operations::NOT_ASKED, -2_147_483_648);
    }
}
