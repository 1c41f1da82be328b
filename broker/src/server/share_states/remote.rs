//! What leaders of partitions and coordinators of groups ask of keepers on other brokers.

use bytes::BytesMut;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, DeleteShareGroupStateRequest, InitializeShareGroupStateRequest, ReadShareGroupStateRequest,
        ReadShareGroupStateSummaryRequest, WriteShareGroupStateResponse, delete_share_group_state_request,
        initialize_share_group_state_request, read_share_group_state_request, read_share_group_state_response,
        read_share_group_state_summary_request, write_share_group_state_request,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use varve_metadata::model::{BrokerId, LeaderEpoch, Offset};

use crate::{
    coordinator::share_state::{
        DeliveryState, KeptState, ShareKey, ShareStateError, StateBatch, StateChange, StateEpoch, StateRequest,
    },
    links::{LinkError, Links},
    wire::later::share_state::{WriteRequest, decode_summary, encode_write},
};

/// The versions in which brokers ask.
const VERSION: i16 = 0;
const SETTLED_VERSION: i16 = 1;

/// Asks the keeper `to`.
pub(super) async fn ask(
    links: &Links,
    to: BrokerId,
    key: &ShareKey,
    request: StateRequest,
) -> Result<Option<KeptState>, ShareStateError> {
    match request {
        StateRequest::Initialize { state_epoch, start } => {
            initialize(links, to, key, state_epoch, start).await.map(|()| None)
        }
        StateRequest::Write(change) => write(links, to, key, &change).await.map(|()| None),
        StateRequest::Read { leader_epoch } => read(links, to, key, leader_epoch).await.map(Some),
        StateRequest::Delete => delete(links, to, key).await.map(|()| None),
    }
}

async fn initialize(
    links: &Links,
    to: BrokerId,
    key: &ShareKey,
    state_epoch: StateEpoch,
    start: Option<Offset>,
) -> Result<(), ShareStateError> {
    use initialize_share_group_state_request::{InitializeStateData, PartitionData};
    let partition = PartitionData::default()
        .with_partition(key.partition.to_wire())
        .with_state_epoch(state_epoch.to_wire())
        .with_start_offset(start.map_or(-1, Offset::to_wire));
    let topic = InitializeStateData::default().with_topic_id(key.topic.to_wire()).with_partitions(vec![partition]);
    let request = InitializeShareGroupStateRequest::default().with_group_id(group(key)).with_topics(vec![topic]);
    let response = links.ask(to, VERSION, &request).await.map_err(|error| unreachable_keeper(to, &error))?;
    let answered = response.results.iter().flat_map(|topic| &topic.partitions).next();
    outcome(answered.map(|partition| partition.error_code))
}

async fn write(links: &Links, to: BrokerId, key: &ShareKey, change: &StateChange) -> Result<(), ShareStateError> {
    use write_share_group_state_request::{PartitionData, StateBatch as WireBatch, WriteStateData};
    let batches = change.batches.iter().map(|batch| {
        WireBatch::default()
            .with_first_offset(batch.first.to_wire())
            .with_last_offset(batch.last.to_wire())
            .with_delivery_state(batch.state.to_wire())
            .with_delivery_count(i16::try_from(batch.deliveries).unwrap_or(i16::MAX))
    });
    let partition = PartitionData::default()
        .with_partition(key.partition.to_wire())
        .with_state_epoch(change.state_epoch.map_or(-1, StateEpoch::to_wire))
        .with_leader_epoch(change.leader_epoch.map_or(-1, LeaderEpoch::to_wire))
        .with_start_offset(change.start.map_or(-1, Offset::to_wire))
        .with_state_batches(batches.collect());
    let topic = WriteStateData::default().with_topic_id(key.topic.to_wire()).with_partitions(vec![partition]);
    let mut request = WriteRequest::default();
    request.known = request.known.with_group_id(group(key)).with_topics(vec![topic]);
    let settled = change.settled.map_or(-1, |settled| i32::try_from(settled).unwrap_or(i32::MAX));
    request.settled = vec![vec![settled]];
    let mut body = BytesMut::new();
    encode_write(&mut body, &request).map_err(|_| ShareStateError::Unexpected)?;
    let answer = links.ask_raw(to, ApiKey::WriteShareGroupState, SETTLED_VERSION, &body).await;
    let mut answer = answer.map_err(|error| unreachable_keeper(to, &error))?;
    // The answer of version 1 is that of version 0.
    let response =
        WriteShareGroupStateResponse::decode(&mut answer, VERSION).map_err(|_| ShareStateError::Unexpected)?;
    let answered = response.results.iter().flat_map(|topic| &topic.partitions).next();
    outcome(answered.map(|partition| partition.error_code))
}

async fn read(
    links: &Links,
    to: BrokerId,
    key: &ShareKey,
    leader_epoch: Option<LeaderEpoch>,
) -> Result<KeptState, ShareStateError> {
    use read_share_group_state_request::{PartitionData, ReadStateData};
    let partition = PartitionData::default()
        .with_partition(key.partition.to_wire())
        .with_leader_epoch(leader_epoch.map_or(-1, LeaderEpoch::to_wire));
    let topic = ReadStateData::default().with_topic_id(key.topic.to_wire()).with_partitions(vec![partition]);
    let request = ReadShareGroupStateRequest::default().with_group_id(group(key)).with_topics(vec![topic]);
    let response = links.ask(to, VERSION, &request).await.map_err(|error| unreachable_keeper(to, &error))?;
    let answered = response.results.into_iter().flat_map(|topic| topic.partitions).next();
    let answered = answered.ok_or(ShareStateError::Unexpected)?;
    outcome(Some(answered.error_code))?;
    let batches = answered.state_batches.iter().map(batch).collect::<Option<Vec<_>>>();
    Ok(KeptState {
        state_epoch: StateEpoch::from_wire(answered.state_epoch).ok_or(ShareStateError::Unexpected)?,
        leader_epoch,
        start: Offset::from_wire(answered.start_offset),
        settled: None,
        batches: batches.ok_or(ShareStateError::Unexpected)?,
    })
}

fn batch(wire: &read_share_group_state_response::StateBatch) -> Option<StateBatch> {
    Some(StateBatch {
        first: Offset::from_wire(wire.first_offset)?,
        last: Offset::from_wire(wire.last_offset)?,
        state: DeliveryState::from_wire(wire.delivery_state)?,
        deliveries: u16::try_from(wire.delivery_count).ok()?,
    })
}

async fn delete(links: &Links, to: BrokerId, key: &ShareKey) -> Result<(), ShareStateError> {
    use delete_share_group_state_request::{DeleteStateData, PartitionData};
    let partition = PartitionData::default().with_partition(key.partition.to_wire());
    let topic = DeleteStateData::default().with_topic_id(key.topic.to_wire()).with_partitions(vec![partition]);
    let request = DeleteShareGroupStateRequest::default().with_group_id(group(key)).with_topics(vec![topic]);
    let response = links.ask(to, VERSION, &request).await.map_err(|error| unreachable_keeper(to, &error))?;
    let answered = response.results.iter().flat_map(|topic| &topic.partitions).next();
    outcome(answered.map(|partition| partition.error_code))
}

/// What the keeper `to` has of a share partition, without its batches; `None` if that is nothing.
pub(super) async fn summary(links: &Links, to: BrokerId, key: &ShareKey) -> Result<Option<KeptState>, ShareStateError> {
    use read_share_group_state_summary_request::{PartitionData, ReadStateSummaryData};
    let partition = PartitionData::default().with_partition(key.partition.to_wire()).with_leader_epoch(-1);
    let topic = ReadStateSummaryData::default().with_topic_id(key.topic.to_wire()).with_partitions(vec![partition]);
    let request = ReadShareGroupStateSummaryRequest::default().with_group_id(group(key)).with_topics(vec![topic]);
    let mut body = BytesMut::new();
    request.encode(&mut body, VERSION).map_err(|_| ShareStateError::Unexpected)?;
    let answer = links.ask_raw(to, ApiKey::ReadShareGroupStateSummary, SETTLED_VERSION, &body).await;
    let answer = answer.map_err(|error| unreachable_keeper(to, &error))?;
    let response = decode_summary(answer).map_err(|_| ShareStateError::Unexpected)?;
    let answered = response.known.results.iter().flat_map(|topic| &topic.partitions).next();
    let answered = answered.ok_or(ShareStateError::Unexpected)?;
    outcome(Some(answered.error_code))?;
    let Some(start) = Offset::from_wire(answered.start_offset) else { return Ok(None) };
    let settled = response.settled.iter().flatten().next().and_then(|settled| u32::try_from(*settled).ok());
    Ok(Some(KeptState {
        state_epoch: StateEpoch::from_wire(answered.state_epoch).unwrap_or_default(),
        leader_epoch: LeaderEpoch::from_wire(answered.leader_epoch),
        start: Some(start),
        settled,
        batches: Vec::new(),
    }))
}

fn group(key: &ShareKey) -> StrBytes {
    StrBytes::from_string(key.group.clone())
}

fn unreachable_keeper(to: BrokerId, error: &LinkError) -> ShareStateError {
    tracing::warn!(keeper = %to, %error, "a keeper of share partitions cannot be asked");
    ShareStateError::CoordinatorNotAvailable
}

/// What another broker said in Kafka's codes; a partition of which it said nothing is not there.
fn outcome(code: Option<i16>) -> Result<(), ShareStateError> {
    let Some(error) = code.map(ResponseError::try_from_code).ok_or(ShareStateError::Unexpected)? else { return Ok(()) };
    Err(match error {
        ResponseError::NotCoordinator => ShareStateError::NotCoordinator,
        ResponseError::CoordinatorNotAvailable => ShareStateError::CoordinatorNotAvailable,
        ResponseError::CoordinatorLoadInProgress => ShareStateError::LoadInProgress,
        ResponseError::FencedLeaderEpoch => ShareStateError::FencedLeaderEpoch,
        ResponseError::FencedStateEpoch => ShareStateError::FencedStateEpoch,
        ResponseError::UnknownTopicOrPartition => ShareStateError::UnknownTopic,
        ResponseError::InvalidRequest => ShareStateError::NotInitialized,
        _ => ShareStateError::Unexpected,
    })
}
