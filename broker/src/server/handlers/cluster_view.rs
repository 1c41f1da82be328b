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

use crate::server::authorizer::{Access, Operation, Resource};

/// What stands in a field of authorized operations (KIP-430) that nobody asked for.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// What the caller may do with the cluster, if it `asked` and may see it; nothing if it may not.
pub(super) fn cluster_operations(access: &Access<'_>, asked: bool) -> i32 {
    match asked {
        false => NOT_ASKED,
        true if access.allows(Operation::Describe, Resource::Cluster) => {
            access.authorized_operations(Resource::Cluster)
        }
        true => 0,
    }
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

    /// The controller. Every broker takes administrative requests, so it is the first one that lives where these clients do not
    /// reach it, or nobody has the office at the moment.
    pub(super) fn controller(self) -> WireBrokerId {
        let holder = self.image.membership().controller().filter(|id| self.reaches(*id));
        let alive = || Some(self.brokers().find(|(broker, _)| !broker.fenced)?.0.id);
        holder.or_else(alive).map_or(NO_BROKER, wire)
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
        // With its broker, or with its log directory.
        let is_offline = |id: BrokerId| !self.reaches(id) || partition.offline.contains(&id);
        PartitionView {
            error,
            leader: led.map_or(NO_BROKER, |leader| wire(leader.id)),
            leader_epoch: partition.leader_epoch.to_wire(),
            replicas,
            isr,
            offline: partition.replicas.iter().filter(|id| is_offline(**id)).map(|id| wire(*id)).collect(),
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
