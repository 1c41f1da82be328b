//! ReadShareGroupState (KIP-932): the leader of a partition begins to read it for a share group.

use futures::future::join_all;
use kafka_protocol::messages::{
    ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    read_share_group_state_request::PartitionData,
    read_share_group_state_response::{PartitionResult, ReadStateResult, StateBatch},
};
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset};

use super::{
    group_support::text,
    share_support::{Refusal, kept_share, require_broker, require_topic},
};
use crate::{
    coordinator::share_state::{KeptState, ShareStateError, StateRequest},
    server::{Broker, RequestContext},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ReadShareGroupStateRequest,
) -> ReadShareGroupStateResponse {
    // Kafka answers nothing at all to a request that names a topic without partitions.
    if request.group_id.is_empty() || request.topics.iter().any(|topic| topic.partitions.is_empty()) {
        return ReadShareGroupStateResponse::default();
    }
    let group = request.group_id.as_str();
    let topics = request.topics.iter().map(|topic| async move {
        let partitions = topic.partitions.iter().map(|asked| async move {
            let result = PartitionResult::default().with_partition(asked.partition);
            let outcome = match require_broker(broker, context) {
                Ok(()) => read(broker, group, topic.topic_id, asked).await,
                Err(refused) => Err(refused),
            };
            match outcome {
                Ok(kept) => told(result, &kept),
                Err(Refusal { error, message }) => {
                    result.with_error_code(error.code()).with_error_message(Some(text(message)))
                }
            }
        });
        ReadStateResult::default().with_topic_id(topic.topic_id).with_partitions(join_all(partitions).await)
    });
    ReadShareGroupStateResponse::default().with_results(join_all(topics).await)
}

fn told(result: PartitionResult, kept: &KeptState) -> PartitionResult {
    let batches = kept.batches.iter().map(|batch| {
        StateBatch::default()
            .with_first_offset(batch.first.to_wire())
            .with_last_offset(batch.last.to_wire())
            .with_delivery_state(batch.state.to_wire())
            .with_delivery_count(i16::try_from(batch.deliveries).unwrap_or(i16::MAX))
    });
    result
        .with_state_epoch(kept.state_epoch.to_wire())
        .with_start_offset(kept.start.map_or(-1, Offset::to_wire))
        .with_state_batches(batches.collect())
}

async fn read(broker: &Broker, group: &str, topic: Uuid, asked: &PartitionData) -> Result<KeptState, Refusal> {
    let refused = |error| Refusal::of(error, "Read");
    let key = kept_share(group, topic, asked.partition)?;
    if broker.share_states.summary_here(broker, &key).map_err(refused)?.is_none() {
        return Err(refused(ShareStateError::NotInitialized));
    }
    require_topic(broker, &key)?;
    // Who leads in no epoch is behind everybody.
    let leader_epoch = LeaderEpoch::from_wire(asked.leader_epoch);
    let leader_epoch = leader_epoch.ok_or_else(|| refused(ShareStateError::FencedLeaderEpoch))?;
    let request = StateRequest::Read { leader_epoch: Some(leader_epoch) };
    let kept = broker.share_states.ask_here(broker, &key, request).await.map_err(refused)?;
    kept.ok_or_else(|| refused(ShareStateError::Unexpected))
}
