//! DeleteShareGroupState (KIP-932): a coordinator of share groups has a keeper forget.

use futures::future::join_all;
use kafka_protocol::messages::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse,
    delete_share_group_state_response::{DeleteStateResult, PartitionResult},
};
use uuid::Uuid;

use super::{
    group_support::text,
    share_support::{Refusal, kept_share, require_broker, require_topic},
};
use crate::{
    coordinator::share_state::StateRequest,
    server::{Broker, RequestContext},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DeleteShareGroupStateRequest,
) -> DeleteShareGroupStateResponse {
    // Kafka answers nothing at all to a request that names a topic without partitions.
    if request.group_id.is_empty() || request.topics.iter().any(|topic| topic.partitions.is_empty()) {
        return DeleteShareGroupStateResponse::default();
    }
    let group = request.group_id.as_str();
    let topics = request.topics.iter().map(|topic| async move {
        let partitions = topic.partitions.iter().map(|asked| async move {
            let result = PartitionResult::default().with_partition(asked.partition);
            let outcome = match require_broker(broker, context) {
                Ok(()) => delete(broker, group, topic.topic_id, asked.partition).await,
                Err(refused) => Err(refused),
            };
            match outcome {
                Ok(()) => result,
                Err(Refusal { error, message }) => {
                    result.with_error_code(error.code()).with_error_message(Some(text(message)))
                }
            }
        });
        DeleteStateResult::default().with_topic_id(topic.topic_id).with_partitions(join_all(partitions).await)
    });
    DeleteShareGroupStateResponse::default().with_results(join_all(topics).await)
}

async fn delete(broker: &Broker, group: &str, topic: Uuid, partition: i32) -> Result<(), Refusal> {
    let key = kept_share(group, topic, partition)?;
    require_topic(broker, &key)?;
    let done = broker.share_states.ask_here(broker, &key, StateRequest::Delete).await;
    done.map(drop).map_err(|error| Refusal::of(error, "Delete"))
}
