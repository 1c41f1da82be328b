//! WriteShareGroupState (KIP-932): the leader of a partition has it kept what became of records.

use futures::future::join_all;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        WriteShareGroupStateResponse,
        write_share_group_state_request::PartitionData,
        write_share_group_state_response::{PartitionResult, WriteStateResult},
    },
};
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset};

use super::{
    admin_errors::plain,
    group_support::text,
    share_support::{Refusal, kept_share, require_broker, require_topic},
};
use crate::{
    coordinator::share_state::{DeliveryState, ShareStateError, StateBatch, StateChange, StateEpoch, StateRequest},
    server::{Broker, RequestContext},
    wire::later::share_state::WriteRequest,
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: WriteRequest,
) -> WriteShareGroupStateResponse {
    let WriteRequest { known, settled } = request;
    // Kafka answers nothing at all to a request that names a topic without partitions.
    if known.group_id.is_empty() || known.topics.iter().any(|topic| topic.partitions.is_empty()) {
        return WriteShareGroupStateResponse::default();
    }
    let group = known.group_id.as_str();
    let topics = known.topics.iter().zip(&settled).map(|(topic, settled)| async move {
        let partitions = topic.partitions.iter().zip(settled).map(|(asked, settled)| async move {
            let result = PartitionResult::default().with_partition(asked.partition);
            let outcome = match require_broker(broker, context) {
                Ok(()) => write(broker, group, topic.topic_id, asked, *settled).await,
                Err(refused) => Err(refused),
            };
            match outcome {
                Ok(()) => result,
                Err(Refusal { error, message }) => {
                    result.with_error_code(error.code()).with_error_message(Some(text(message)))
                }
            }
        });
        WriteStateResult::default().with_topic_id(topic.topic_id).with_partitions(join_all(partitions).await)
    });
    WriteShareGroupStateResponse::default().with_results(join_all(topics).await)
}

async fn write(broker: &Broker, group: &str, topic: Uuid, asked: &PartitionData, settled: i32) -> Result<(), Refusal> {
    let refused = |error| Refusal::of(error, "Write");
    let key = kept_share(group, topic, asked.partition)?;
    if broker.share_states.summary_here(broker, &key).map_err(refused)?.is_none() {
        return Err(refused(ShareStateError::NotInitialized));
    }
    require_topic(broker, &key)?;
    let batches = asked.state_batches.iter().map(|batch| {
        Some(StateBatch {
            first: Offset::from_wire(batch.first_offset)?,
            last: Offset::from_wire(batch.last_offset)?,
            state: DeliveryState::from_wire(batch.delivery_state)?,
            deliveries: u16::try_from(batch.delivery_count).ok()?,
        })
    });
    let malformed = || {
        let (error, message) = plain(ResponseError::InvalidRequest);
        Refusal { error, message }
    };
    let change = StateChange {
        state_epoch: StateEpoch::from_wire(asked.state_epoch),
        leader_epoch: LeaderEpoch::from_wire(asked.leader_epoch),
        start: Offset::from_wire(asked.start_offset),
        settled: u32::try_from(settled).ok(),
        batches: batches.collect::<Option<_>>().ok_or_else(malformed)?,
    };
    let done = broker.share_states.ask_here(broker, &key, StateRequest::Write(change)).await;
    done.map(drop).map_err(refused)
}
