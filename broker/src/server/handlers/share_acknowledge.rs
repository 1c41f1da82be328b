//! ShareAcknowledge (KIP-932): a member says what became of records, without reading more.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ShareAcknowledgeResponse,
        share_acknowledge_response::{LeaderIdAndEpoch, NodeEndpoint, PartitionData, ShareAcknowledgeTopicResponse},
    },
};

use super::{
    group_support::text,
    share_acknowledgements::{Batch, Outcome, Said, Speaker, acknowledge},
    share_fetch::{session_error, session_key},
};
use crate::{
    server::{
        Broker, RequestContext,
        lookup::{self, TopicRef},
    },
    share::SessionEpoch,
    wire::later::share_acknowledge::{Request, Response},
};

/// First version that knows of renewals.
const RENEWAL_SINCE: i16 = 2;

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: Request) -> Response {
    match answer(broker, context, request).await {
        Ok(response) => response,
        Err(error) => {
            let known = ShareAcknowledgeResponse::default().with_error_code(error.code());
            Response { known, lock_duration_ms: 0 }
        }
    }
}

async fn answer(broker: &Broker, context: &RequestContext, request: Request) -> Result<Response, ResponseError> {
    let Request { known, renews } = request;
    let key = session_key(broker, context, known.group_id.as_ref().map(|id| id.as_str()), known.member_id.as_deref())?;
    let epoch = SessionEpoch::from_wire(known.share_session_epoch).ok_or(ResponseError::InvalidShareSessionEpoch)?;
    broker.shares.acknowledge_in(&key, epoch).map_err(session_error)?;
    let said = known.topics.into_iter().flat_map(|topic| {
        topic.partitions.into_iter().map(move |partition| Said {
            topic: topic.topic_id,
            partition: partition.partition_index,
            batches: partition
                .acknowledgement_batches
                .into_iter()
                .map(|batch| Batch {
                    first: batch.first_offset,
                    last: batch.last_offset,
                    words: batch.acknowledge_types,
                })
                .collect(),
        })
    });
    let speaker =
        Speaker { group: &key.group, member: &key.member, knows_renewal: context.api_version >= RENEWAL_SINCE, renews };
    let outcomes = acknowledge(broker, &broker.access(context), &speaker, said.collect()).await;
    if epoch == SessionEpoch::Last {
        broker.shares.end(&key);
    }
    let lock_duration_ms = broker.shares.rules(broker, &key.group).lock_duration_ms();
    Ok(Response { known: told(broker, context, outcomes), lock_duration_ms })
}

fn told(broker: &Broker, context: &RequestContext, outcomes: Vec<Outcome>) -> ShareAcknowledgeResponse {
    let mut topics: Vec<ShareAcknowledgeTopicResponse> = Vec::new();
    let mut nodes: Vec<NodeEndpoint> = Vec::new();
    for Outcome { topic, partition, error } in outcomes {
        let mut data = PartitionData::default().with_partition_index(partition);
        if let Some((error, message)) = error {
            data = data.with_error_code(error.code()).with_error_message(message.map(text));
            if matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch)
                && let Some(leader) = lookup::topic(broker, TopicRef::Id(topic)).leader(context, partition)
            {
                let current = LeaderIdAndEpoch::default().with_leader_id(leader.id.to_wire());
                data.current_leader = current.with_leader_epoch(leader.epoch.to_wire());
                let node = leader.endpoint.map(|endpoint| {
                    NodeEndpoint::default()
                        .with_node_id(leader.id.to_wire().into())
                        .with_host(text(endpoint.host))
                        .with_port(i32::from(endpoint.port))
                        .with_rack(leader.rack.map(text))
                });
                nodes.extend(node.filter(|node| !nodes.contains(node)));
            }
        }
        match topics.iter_mut().find(|known| known.topic_id == topic) {
            Some(known) => known.partitions.push(data),
            None => {
                topics.push(ShareAcknowledgeTopicResponse::default().with_topic_id(topic).with_partitions(vec![data]));
            }
        }
    }
    ShareAcknowledgeResponse::default().with_responses(topics).with_node_endpoints(nodes)
}
