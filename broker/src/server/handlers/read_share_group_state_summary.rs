//! ReadShareGroupStateSummary (KIP-932, KIP-1226): how far a share group has come, without what became of each record.

use kafka_protocol::messages::{
    ReadShareGroupStateSummaryRequest,
    read_share_group_state_summary_response::{PartitionResult, ReadStateSummaryResult},
};
use uuid::Uuid;
use varve_metadata::model::Offset;

use super::{
    group_support::text,
    share_support::{Refusal, kept_share, require_broker, require_topic},
};
use crate::{
    coordinator::share_state::KeptState,
    server::{Broker, RequestContext},
    wire::later::share_state::Summary,
};

/// What Kafka says of what is not known.
const UNKNOWN: i32 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ReadShareGroupStateSummaryRequest,
) -> Summary {
    let mut answer = Summary::default();
    // Kafka answers nothing at all to a request that names a topic without partitions.
    if request.group_id.is_empty() || request.topics.iter().any(|topic| topic.partitions.is_empty()) {
        return answer;
    }
    for topic in &request.topics {
        let each = topic.partitions.iter().map(|asked| {
            let result = PartitionResult::default().with_partition(asked.partition).with_start_offset(-1);
            let read = require_broker(broker, context)
                .and_then(|()| read(broker, &request.group_id, topic.topic_id, asked.partition));
            match read {
                Ok(None) => (result, UNKNOWN),
                Ok(Some(kept)) => told(result, &kept),
                Err(Refusal { error, message }) => {
                    let result = result.with_start_offset(0);
                    (result.with_error_code(error.code()).with_error_message(Some(text(message))), UNKNOWN)
                }
            }
        });
        let (partitions, settled) = each.unzip();
        let result = ReadStateSummaryResult::default().with_topic_id(topic.topic_id).with_partitions(partitions);
        answer.known.results.push(result);
        answer.settled.push(settled);
    }
    answer
}

fn told(result: PartitionResult, kept: &KeptState) -> (PartitionResult, i32) {
    let settled = kept.settled.map_or(UNKNOWN, |settled| i32::try_from(settled).unwrap_or(i32::MAX));
    let result = result
        .with_start_offset(kept.start.map_or(-1, Offset::to_wire))
        .with_state_epoch(kept.state_epoch.to_wire())
        .with_leader_epoch(kept.leader_epoch.unwrap_or_default().to_wire());
    (result, settled)
}

fn read(broker: &Broker, group: &str, topic: Uuid, partition: i32) -> Result<Option<KeptState>, Refusal> {
    let key = kept_share(group, topic, partition)?;
    require_topic(broker, &key)?;
    broker.share_states.summary_here(broker, &key).map_err(|error| Refusal::of(error, "Read"))
}
