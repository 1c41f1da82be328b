//! OffsetForLeaderEpoch (KIP-101, KIP-279, KIP-320): where an epoch ended, so that a reader finds out what it lost.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};
use varve_metadata::model::{LeaderEpoch, LogStartOffset};

use crate::{
    partition::StaleEpoch,
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        lookup::{self, FoundTopic, TopicRef},
    },
};

/// Says that an epoch is not known.
const NO_EPOCH: i32 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let access = broker.access(context);
    // Other brokers ask about everything, consumers about what they may describe (KIP-320).
    let is_broker = access.shows(Operation::ClusterAction, Resource::Cluster);
    let topics = request.topics.into_iter().map(|topic| {
        let found = lookup::topic(broker, TopicRef::Named(&topic.topic.0));
        let allowed = if is_broker { Ok(()) } else { found.require(&access, Operation::Describe) };
        let partitions = topic.partitions.iter().map(|asked| {
            let none =
                EpochEndOffset::default().with_partition(asked.partition).with_leader_epoch(-1).with_end_offset(-1);
            match allowed.and_then(|()| end_of_epoch(&found, asked)) {
                Ok(Some((epoch, end))) => none.with_leader_epoch(epoch).with_end_offset(end),
                Ok(None) => none,
                Err(error) => none.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_of_epoch(found: &FoundTopic<'_>, asked: &OffsetForLeaderPartition) -> Result<Option<(i32, i64)>, ResponseError> {
    let partition = found.partition(asked.partition)?;
    if partition.log_dir().is_failed() {
        return Err(ResponseError::KafkaStorageError);
    }
    partition.check_wire_epoch(asked.current_leader_epoch).map_err(|stale| match stale {
        StaleEpoch::Fenced(_) => ResponseError::FencedLeaderEpoch,
        StaleEpoch::Unknown(_) => ResponseError::UnknownLeaderEpoch,
    })?;
    let known = LeaderEpoch::from_wire(asked.leader_epoch).and_then(|epoch| partition.end_of_epoch(epoch));
    Ok(match known {
        Some((epoch, end)) => Some((epoch.to_wire(), end.to_wire())),
        // Older than all that is known: it ended, at the latest, where the log begins.
        None if asked.leader_epoch != NO_EPOCH && asked.leader_epoch < partition.leader_epoch().to_wire() => {
            let LogStartOffset(start) = partition.log_start();
            Some((asked.leader_epoch, start.to_wire()))
        }
        None => None,
    })
}
