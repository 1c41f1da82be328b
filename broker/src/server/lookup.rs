//! From the topic and partition that a request names to the partition, or to Kafka's word for why not.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use uuid::Uuid;
use varve_metadata::{
    image::{Endpoint, TopicImage},
    model::{BrokerId, LeaderEpoch, PartitionIndex, TopicId},
};

use super::{
    Broker, RequestContext,
    authorizer::{Access, Operation, Resource},
};
use crate::partition::{LocalTopic, LookupError, Partition};

/// How a request names a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicRef<'a> {
    /// By its name.
    Named(&'a str),
    /// By its id (KIP-516), which may be the nil id.
    Id(Uuid),
}

/// A topic that a request named, found or not: partitions are asked of it one by one.
#[derive(Debug)]
pub(crate) struct FoundTopic<'a> {
    broker: &'a Broker,
    named: TopicRef<'a>,
    local: Option<Arc<LocalTopic>>,
}

/// Looks for a topic. That it is missing shows with its partitions, because Kafka answers so.
pub(crate) fn topic<'a>(broker: &'a Broker, named: TopicRef<'a>) -> FoundTopic<'a> {
    let local = match named {
        TopicRef::Named(name) => broker.partitions.topic_named(name).ok(),
        TopicRef::Id(id) => TopicId::from_wire(id).and_then(|id| broker.partitions.topic(id).ok()),
    };
    FoundTopic { broker, named, local }
}

impl FoundTopic<'_> {
    /// The topic, if this broker has a partition of it.
    pub(crate) fn local(&self) -> Option<&Arc<LocalTopic>> {
        self.local.as_ref()
    }

    /// Whether the caller may do `operation` with the topic. One that is named by an id that nothing has belongs to
    /// nobody: what is asked of it next says that it is unknown.
    ///
    /// # Errors
    /// TOPIC_AUTHORIZATION_FAILED, whether the topic exists or not.
    pub(crate) fn require(&self, access: &Access<'_>, operation: Operation) -> Result<(), ResponseError> {
        if !access.is_checked() {
            return Ok(());
        }
        match (self.named, &self.local) {
            (TopicRef::Named(name), _) => access.require(operation, Resource::Topic(name)),
            (TopicRef::Id(_), Some(local)) => access.require(operation, Resource::Topic(local.name.as_str())),
            (TopicRef::Id(id), None) => {
                let image = self.broker.metadata.image();
                let known = TopicId::from_wire(id).and_then(|id| image.topic_by_id(id));
                known.map_or(Ok(()), |topic| access.require(operation, Resource::Topic(topic.name.as_str())))
            }
        }
    }

    /// The partition of that number, which is led here.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_ID or UNKNOWN_TOPIC_OR_PARTITION if it does not exist, KAFKA_STORAGE_ERROR if its directory
    /// failed, NOT_LEADER_OR_FOLLOWER if it is not led here (yet).
    pub(crate) fn partition(&self, index: i32) -> Result<Arc<Partition>, ResponseError> {
        self.partition_for(index, false)
    }

    /// The same, or, for a reader that `may_follow`, the replica here of one that another broker leads (KIP-392).
    ///
    /// # Errors
    /// As [`partition`](Self::partition).
    pub(crate) fn partition_for(&self, index: i32, may_follow: bool) -> Result<Arc<Partition>, ResponseError> {
        let wanted = PartitionIndex::from_wire(index);
        if let (Some(local), Some(wanted)) = (&self.local, wanted) {
            match local.partition(wanted) {
                Ok(partition) if partition.is_leader() || may_follow && partition.is_replica() => return Ok(partition),
                Ok(_) | Err(LookupError::NotLeader) => return Err(ResponseError::NotLeaderOrFollower),
                Err(LookupError::Offline) => return Err(ResponseError::KafkaStorageError),
                Err(LookupError::UnknownTopic | LookupError::UnknownPartition) => {}
            }
        }
        let image = self.broker.metadata.image();
        let (known, unknown): (Option<&Arc<TopicImage>>, _) = match self.named {
            TopicRef::Named(name) => (image.topic(name), ResponseError::UnknownTopicOrPartition),
            TopicRef::Id(id) => {
                (TopicId::from_wire(id).and_then(|id| image.topic_by_id(id)), ResponseError::UnknownTopicId)
            }
        };
        let known = known.ok_or(unknown)?;
        match wanted.and_then(|wanted| known.partition(wanted)) {
            Some(_) => Err(ResponseError::NotLeaderOrFollower),
            None => Err(ResponseError::UnknownTopicOrPartition),
        }
    }

    /// Who leads that partition, for a client that asked the wrong broker (KIP-951).
    pub(crate) fn leader(&self, context: &RequestContext, index: i32) -> Option<Leader> {
        let image = self.broker.metadata.image();
        let topic = match self.named {
            TopicRef::Named(name) => image.topic(name),
            TopicRef::Id(id) => TopicId::from_wire(id).and_then(|id| image.topic_by_id(id)),
        }?;
        let (_, partition) = topic.partition(PartitionIndex::from_wire(index)?)?;
        let id = partition.leader?;
        let broker = image.brokers().get(&id);
        let endpoint = broker.and_then(|broker| broker.endpoints.get(context.listener.0.as_ref())).cloned();
        let rack = broker.and_then(|broker| broker.rack.clone());
        Some(Leader { id, epoch: partition.leader_epoch, endpoint, rack })
    }
}

/// The leader of a partition, and where it is reached by the listener that the request came in by.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) id: BrokerId,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) rack: Option<String>,
}
