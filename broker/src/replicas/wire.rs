//! Between the rules of a fetcher and Kafka's Fetch.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, FetchResponse,
        describe_producers_response::ProducerState,
        fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState},
        fetch_response::PartitionData,
    },
};
use uuid::Uuid;
use varve_log::local::{BatchMetadata, ProducerEntry};
use varve_metadata::model::{
    BrokerId, HighWatermark, LeaderEpoch, LogStartOffset, Offset, PartitionId, PartitionIndex, ProducerEpoch,
    ProducerId, Sequence, TopicId,
};
use varve_replication::{
    Incarnation,
    fetcher::{Ask, Fault, PartitionAnswer, Session, Wanted},
};

use crate::config::ReplicationConfig;

/// The version that is asked in: topics by id, followers by their life.
pub(super) const VERSION: i16 = 17;

/// The request for `ask`.
pub(super) fn request(ask: &Ask, (node, life): (BrokerId, Incarnation), config: &ReplicationConfig) -> FetchRequest {
    let (session_id, session_epoch) = match ask.session {
        Session::New { ends } => (ends, 0),
        Session::Known { id, epoch } => (id, epoch),
    };
    let mut topics: BTreeMap<Uuid, Vec<FetchPartition>> = BTreeMap::new();
    for (id, wanted) in &ask.named {
        topics.entry(id.topic.to_wire()).or_default().push(partition(*id, wanted, config));
    }
    let mut forgotten: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for id in &ask.forgotten {
        forgotten.entry(id.topic.to_wire()).or_default().push(id.index.to_wire());
    }
    let topics = topics.into_iter().map(|(id, all)| FetchTopic::default().with_topic_id(id).with_partitions(all));
    let forgotten =
        forgotten.into_iter().map(|(id, all)| ForgottenTopic::default().with_topic_id(id).with_partitions(all));
    let state = ReplicaState::default().with_replica_id(node.to_wire().into()).with_replica_epoch(life.0 as i64);
    FetchRequest::default()
        .with_replica_state(state)
        .with_max_wait_ms(config.fetch_wait.as_millis() as i32)
        .with_min_bytes(config.fetch_min_bytes)
        .with_max_bytes(config.fetch_response_bytes)
        .with_session_id(session_id)
        .with_session_epoch(session_epoch)
        .with_topics(topics.collect())
        .with_forgotten_topics_data(forgotten.collect())
}

fn partition(id: PartitionId, wanted: &Wanted, config: &ReplicationConfig) -> FetchPartition {
    let LogStartOffset(log_start) = wanted.log_start;
    FetchPartition::default()
        .with_partition(id.index.to_wire())
        .with_current_leader_epoch(wanted.epoch.to_wire())
        .with_fetch_offset(wanted.position.from.to_wire())
        .with_last_fetched_epoch(wanted.position.last_epoch.map_or(-1, LeaderEpoch::to_wire))
        .with_log_start_offset(log_start.to_wire())
        .with_partition_max_bytes(config.fetch_bytes)
}

/// What a leader said of each partition.
pub(super) fn answers(response: FetchResponse) -> Vec<(PartitionId, PartitionAnswer<Bytes>)> {
    let of_topic =
        response.responses.into_iter().filter_map(|topic| Some((TopicId::from_wire(topic.topic_id)?, topic)));
    let each = of_topic.flat_map(|(id, topic)| topic.partitions.into_iter().map(move |data| (id, data)));
    let known = each.filter_map(|(topic, data)| {
        let index = PartitionIndex::from_wire(data.partition_index)?;
        Some((PartitionId { topic, index }, answer(data)))
    });
    known.collect()
}

fn answer(data: PartitionData) -> PartitionAnswer<Bytes> {
    if data.error_code != 0 {
        return PartitionAnswer::Failed(fault(data.error_code));
    }
    let diverging =
        LeaderEpoch::from_wire(data.diverging_epoch.epoch).zip(Offset::from_wire(data.diverging_epoch.end_offset));
    if let Some((epoch, end)) = diverging {
        return PartitionAnswer::Diverged { epoch, end };
    }
    PartitionAnswer::Records {
        records: data.records.unwrap_or_default(),
        high_watermark: HighWatermark(Offset::from_wire(data.high_watermark).unwrap_or_default()),
        log_start: LogStartOffset(Offset::from_wire(data.log_start_offset).unwrap_or_default()),
    }
}

fn fault(code: i16) -> Fault {
    match ResponseError::try_from_code(code) {
        Some(ResponseError::OffsetOutOfRange) => Fault::OutOfRange,
        Some(ResponseError::OffsetMovedToTieredStorage) => Fault::Tiered,
        Some(ResponseError::FencedLeaderEpoch) => Fault::Fenced,
        Some(
            ResponseError::UnknownLeaderEpoch
            | ResponseError::NotLeaderOrFollower
            | ResponseError::UnknownTopicId
            | ResponseError::UnknownTopicOrPartition
            | ResponseError::InconsistentTopicId,
        ) => Fault::NotYet,
        _ => Fault::Other,
    }
}

/// What the leader knows of a producer, as of a log that begins at `start` and has no record of it: its last batch counts as one
/// record right before. `None` where it says nothing that has a meaning.
pub(super) fn producer(state: &ProducerState, start: Offset) -> Option<(ProducerId, ProducerEntry)> {
    let epoch = i16::try_from(state.producer_epoch).ok().and_then(ProducerEpoch::from_wire)?;
    let mut entry = ProducerEntry::new(epoch);
    if let Some(sequence) = Sequence::from_wire(state.last_sequence) {
        let last = Offset::new(start.get().saturating_sub(1)).unwrap_or_default();
        let timestamp_ms = state.last_timestamp;
        entry.push(BatchMetadata { last_sequence: Some(sequence), last, offset_delta: 0, timestamp_ms });
    }
    entry.last_timestamp_ms = state.last_timestamp;
    entry.coordinator_epoch = Some(state.coordinator_epoch).filter(|epoch| *epoch >= 0);
    Some((ProducerId::from_wire(state.producer_id.0)?, entry))
}

/// Whether the leader's authorizer does not take us for a broker.
pub(super) fn is_not_allowed(response: &FetchResponse) -> bool {
    let refused = ResponseError::TopicAuthorizationFailed.code();
    response.responses.iter().flat_map(|topic| &topic.partitions).any(|partition| partition.error_code == refused)
}

/// Whether the leader's session is gone, so that a fetch without one may follow at once.
pub(super) fn is_of_session(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(
            ResponseError::FetchSessionIdNotFound
                | ResponseError::InvalidFetchSessionEpoch
                | ResponseError::FetchSessionTopicIdError
        )
    )
}
