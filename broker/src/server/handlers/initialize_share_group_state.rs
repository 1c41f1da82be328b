//! InitializeShareGroupState (KIP-932): a coordinator of share groups has a keeper begin.

use futures::future::join_all;
use kafka_protocol::messages::{
    InitializeShareGroupStateRequest, InitializeShareGroupStateResponse,
    initialize_share_group_state_request::PartitionData,
    initialize_share_group_state_response::{InitializeStateResult, PartitionResult},
};
use uuid::Uuid;
use varve_metadata::model::Offset;

use super::{
    group_support::text,
    share_support::{Refusal, kept_share, require_broker, require_topic},
};
use crate::{
    coordinator::share_state::{StateEpoch, StateRequest},
    server::{Broker, RequestContext},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: InitializeShareGroupStateRequest,
) -> InitializeShareGroupStateResponse {
    if request.group_id.is_empty() {
        return InitializeShareGroupStateResponse::default();
    }
    let group = request.group_id.as_str();
    let topics = request.topics.iter().map(|topic| async move {
        let partitions = topic.partitions.iter().map(|asked| async move {
            let result = PartitionResult::default().with_partition(asked.partition);
            let outcome = match require_broker(broker, context) {
                Ok(()) => initialize(broker, group, topic.topic_id, asked).await,
                Err(refused) => Err(refused),
            };
            match outcome {
                Ok(()) => result,
                Err(Refusal { error, message }) => {
                    result.with_error_code(error.code()).with_error_message(Some(text(message)))
                }
            }
        });
        InitializeStateResult::default().with_topic_id(topic.topic_id).with_partitions(join_all(partitions).await)
    });
    InitializeShareGroupStateResponse::default().with_results(join_all(topics).await)
}

async fn initialize(broker: &Broker, group: &str, topic: Uuid, asked: &PartitionData) -> Result<(), Refusal> {
    let key = kept_share(group, topic, asked.partition)?;
    require_topic(broker, &key)?;
    // One that is not said fences nobody.
    let state_epoch = StateEpoch::from_wire(asked.state_epoch).unwrap_or_default();
    let request = StateRequest::Initialize { state_epoch, start: Offset::from_wire(asked.start_offset) };
    let done = broker.share_states.ask_here(broker, &key, request).await;
    done.map(drop).map_err(|error| Refusal::of(error, "Initialize"))
}
