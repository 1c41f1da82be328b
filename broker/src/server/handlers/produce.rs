//! Produce: record batches, one per partition, from the frame to the log without a copy.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ProduceRequest, ProduceResponse, TopicName,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{
            BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
        },
    },
    protocol::StrBytes,
};
use tokio::time::timeout;
use tracing::{Instrument, debug, info, trace_span};
use uuid::Uuid;
use varve_log::local::{AppendOrigin, Appended, TransactionTerms};
use varve_metadata::model::{LeaderEpoch, LogEndOffset, LogStartOffset, Timestamp};
use varve_tiering::tier::archiver::Pressure;

use super::{
    produce_errors::{Refusal, check_one_batch},
    produce_transactions::{self, Admissions},
};
use crate::{
    partition::{Appending, CommitError, Partition},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation},
        lookup::{self, FoundTopic, TopicRef},
        wall_clock,
    },
};

/// What goes back to the producer.
#[derive(Debug)]
pub(in crate::server) struct Outcome {
    pub(in crate::server) produced: Produced,
    /// How long the connection is not to be read, because hot data outgrows its limit (KIP-219: answered at once, then
    /// muted).
    pub(in crate::server) pause: Duration,
}

/// The answer itself.
#[derive(Debug)]
pub(in crate::server) enum Produced {
    /// Results per partition.
    Answer(ProduceResponse),
    /// acks=0, and all went well: the producer expects no answer.
    Nothing,
    /// acks=0, and something failed: closing the connection is the only way to tell.
    Close,
}

/// Every replica in sync has the records before the answer.
const ALL: i16 = -1;
/// Client id of Kafka's own tools, which may write internal topics.
const ADMIN_CLIENT: &str = "__admin_client";
/// First version that names topics by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;
/// First version that answers with the leader's address (KIP-951).
const LEADERS_SINCE: i16 = 10;

/// What a producer reads when the hot tier is full.
const HOT_TIER_FULL: &str = "the hot tier is full (varve.local.max.bytes): the archive does not take what is sealed, \
                             because the object store cannot be reached or is too slow; retry";

pub(in crate::server) async fn handle(broker: &Broker, context: &RequestContext, request: ProduceRequest) -> Outcome {
    let pressure = broker.archive.as_ref().map_or(Pressure::Fine, |archive| archive.pressure());
    let pause = pressure.pause();
    Outcome { produced: append_all(broker, context, request, pressure).await, pause }
}

async fn append_all(
    broker: &Broker,
    context: &RequestContext,
    request: ProduceRequest,
    pressure: Pressure,
) -> Produced {
    let is_full = pressure == Pressure::Refuse;
    let terms = Terms { acks: request.acks, version: context.api_version, now: wall_clock(), is_full };
    let access = broker.access(context);
    let mut response = ProduceResponse::default();
    let mut pending = Vec::new();
    let mut request = request;
    let topics = each_once(std::mem::take(&mut request.topic_data));
    let admissions = match produce_transactions::admit(broker, context, &request, &topics).await {
        Ok(admissions) => admissions,
        Err(refusal) => return refuse_all(context, request.acks, topics, refusal),
    };
    for topic in topics {
        let place = response.responses.len();
        let answer = append_topic(broker, context, &access, topic, terms, &admissions, |partition, waiting| {
            pending.push(Pending { place: (place, partition), waiting });
        });
        response.responses.push(answer);
    }
    if !pending.is_empty() {
        let limit = (terms.acks == ALL).then(|| Duration::from_millis(request.timeout_ms.max(0) as u64));
        settle(pending, limit, &mut response).instrument(trace_span!(target: "varve_trace", "wait for replicas")).await;
    }
    let is_failed = |answer: &PartitionProduceResponse| answer.error_code != 0;
    let failed = response.responses.iter().any(|topic| topic.partition_responses.iter().any(is_failed));
    match (terms.acks, failed) {
        (0, false) => Produced::Nothing,
        (0, true) => {
            info!(client = context.client_id(), peer = %context.peer, "produce with acks=0 failed: closing its connection");
            Produced::Close
        }
        (_, true) if context.api_version >= LEADERS_SINCE => {
            add_leaders(broker, context, &mut response);
            Produced::Answer(response)
        }
        _ => Produced::Answer(response),
    }
}

/// The same word for every partition: nothing was looked at.
fn refuse_all(context: &RequestContext, acks: i16, topics: Vec<TopicProduceData>, refusal: Refusal) -> Produced {
    if acks == 0 {
        info!(client = context.client_id(), peer = %context.peer, %refusal, "produce with acks=0 refused: closing its connection");
        return Produced::Close;
    }
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|data| {
            let answer = PartitionProduceResponse::default().with_index(data.index).with_base_offset(-1);
            refuse(answer, refusal.clone())
        });
        let partitions = partitions.collect();
        TopicProduceResponse::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions)
    });
    Produced::Answer(ProduceResponse::default().with_responses(topics.collect()))
}

/// Every topic and every partition once: of a partition that is named twice the last batch counts, and no other is
/// written.
fn each_once(topics: Vec<TopicProduceData>) -> Vec<TopicProduceData> {
    let mut places: HashMap<(TopicName, Uuid), usize> = HashMap::new();
    let mut merged: Vec<TopicProduceData> = Vec::with_capacity(topics.len());
    let is_alone = topics.len() == 1;
    for mut topic in topics {
        let place = if is_alone {
            None
        } else {
            let key = (topic.name.clone(), topic.topic_id);
            let known = places.get(&key).copied();
            known.or_else(|| {
                places.insert(key, merged.len());
                None
            })
        };
        match place {
            Some(place) => merged[place].partition_data.append(&mut topic.partition_data),
            None => merged.push(topic),
        }
    }
    for topic in &mut merged {
        let partitions = &mut topic.partition_data;
        // Clients name them in order as a rule.
        if !partitions.is_sorted_by(|one, next| one.index < next.index) {
            let mut seen = HashSet::with_capacity(partitions.len());
            partitions.reverse();
            partitions.retain(|data| seen.insert(data.index));
            partitions.reverse();
        }
    }
    merged
}

/// What holds for every partition of one request.
#[derive(Clone, Copy)]
struct Terms {
    acks: i16,
    version: i16,
    now: Timestamp,
    /// Archived partitions take nothing.
    is_full: bool,
}

/// Records that are in the log and not committed yet, or not kept.
struct Waiting {
    partition: Arc<Partition>,
    epoch: LeaderEpoch,
    end: LogEndOffset,
}

struct Pending {
    /// Topic and partition in the response.
    place: (usize, usize),
    waiting: Waiting,
}

fn append_topic(
    broker: &Broker,
    context: &RequestContext,
    access: &Access<'_>,
    topic: TopicProduceData,
    terms: Terms,
    admissions: &Admissions,
    mut wait_for: impl FnMut(usize, Waiting),
) -> TopicProduceResponse {
    let found = lookup::topic(broker, topic_ref(terms.version, &topic.name, topic.topic_id));
    let _appending = trace_span!(
        target: "varve_trace", "append",
        messaging.destination.name = found.local().map(|topic| topic.name.as_str()),
        partitions = topic.partition_data.len(),
    )
    .entered();
    let allowed = found.require(access, Operation::Write);
    let is_closed = found.local().is_some_and(|topic| topic.internal) && context.client_id() != ADMIN_CLIENT;
    let mut answers = Vec::with_capacity(topic.partition_data.len());
    for data in topic.partition_data {
        let index = data.index;
        let outcome = match allowed {
            Err(denied) => Err(denied.into()),
            Ok(()) if is_closed => Err(ResponseError::InvalidTopicException.into()),
            Ok(()) => append_partition(&found, data, &terms, admissions),
        };
        let answer = PartitionProduceResponse::default().with_index(index).with_base_offset(-1);
        answers.push(match outcome {
            Ok((appended, waiting)) => {
                if let Some(waiting) = waiting {
                    wait_for(answers.len(), waiting);
                }
                let LogStartOffset(log_start) = appended.log_start;
                answer
                    .with_base_offset(appended.base.to_wire())
                    .with_log_append_time_ms(appended.log_append_time.map_or(-1, Timestamp::to_wire))
                    .with_log_start_offset(log_start.to_wire())
            }
            Err(refusal) => {
                debug!(topic = %topic.name.0, partition = index, %refusal, "produce refused");
                refuse(answer, refusal)
            }
        });
    }
    TopicProduceResponse::default()
        .with_name(topic.name)
        .with_topic_id(topic.topic_id)
        .with_partition_responses(answers)
}

fn topic_ref(version: i16, name: &StrBytes, id: uuid::Uuid) -> TopicRef<'_> {
    if version >= TOPIC_IDS_SINCE { TopicRef::Id(id) } else { TopicRef::Named(name) }
}

fn append_partition(
    found: &FoundTopic<'_>,
    data: PartitionProduceData,
    terms: &Terms,
    admissions: &Admissions,
) -> Result<(Appended, Option<Waiting>), Refusal> {
    let partition = found.partition(data.index)?;
    if !(-1..=1).contains(&terms.acks) {
        return Err(ResponseError::InvalidRequiredAcks.into());
    }
    if terms.is_full && partition.remote().is_some() {
        let message = Some(HOT_TIER_FULL.to_owned());
        return Err(Refusal { message, ..ResponseError::KafkaStorageError.into() });
    }
    let records: Bytes = data.records.unwrap_or_default();
    let batch = check_one_batch(&records, terms.version)?;
    let guard = admissions.guard(partition.topic().as_str(), data.index)?;
    let (epoch, for_all) = (partition.leader_epoch(), terms.acks == ALL);
    let transaction = TransactionTerms { guard, raises_epoch: false };
    let appending = Appending { origin: AppendOrigin::Client, transaction, epoch: Some(epoch), for_all };
    let appended =
        partition.append_as(batch, appending, terms.now).map_err(|error| Refusal::of_append(&error, &partition))?;
    // Who does not wait for the other replicas waits for our disk, where the topic asks for that.
    let is_told_late = for_all || partition.log().config().flush_messages.is_some();
    let must_wait = is_told_late && !partition.is_committed_in(epoch, appended.end);
    Ok((appended, must_wait.then(|| Waiting { partition, epoch, end: appended.end })))
}

fn refuse(answer: PartitionProduceResponse, refusal: Refusal) -> PartitionProduceResponse {
    let record_errors = refusal.records.into_iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(StrBytes::from_string(message)))
    });
    answer
        .with_error_code(refusal.error.code())
        .with_log_start_offset(refusal.log_start.map_or(-1, |offset| offset.to_wire()))
        .with_record_errors(record_errors.collect())
        .with_error_message(refusal.message.map(StrBytes::from_string))
}

/// Waits until everything is committed, or at least kept if there is no `limit`, all partitions side by side, and turns what is
/// not into its error.
async fn settle(pending: Vec<Pending>, limit: Option<Duration>, response: &mut ProduceResponse) {
    let waits =
        pending.into_iter().map(|Pending { place, waiting }| async move { (place, waiting.settled(limit).await) });
    for ((topic, partition), outcome) in future::join_all(waits).await {
        if let Err(error) = outcome {
            let answer = &mut response.responses[topic].partition_responses[partition];
            // The records may be kept none the less: a retry of an idempotent producer finds out.
            answer.error_code = error.code();
            answer.base_offset = -1;
        }
    }
}

impl Waiting {
    async fn settled(self, limit: Option<Duration>) -> Result<(), ResponseError> {
        let Waiting { partition, epoch, end } = self;
        let Some(limit) = limit else {
            return partition.kept(end).await.map_err(|_| ResponseError::KafkaStorageError);
        };
        let committed = timeout(limit, partition.committed_in(epoch, end)).await;
        committed.map_err(|_| ResponseError::RequestTimedOut)?.map_err(|error| match error {
            CommitError::Flush(_) => ResponseError::KafkaStorageError,
            CommitError::NotLeader => ResponseError::NotLeaderOrFollower,
        })?;
        partition.check_committed().map_err(|_| ResponseError::NotEnoughReplicasAfterAppend)
    }
}

/// Tells the client who leads the partitions that are not led here (KIP-951).
fn add_leaders(broker: &Broker, context: &RequestContext, response: &mut ProduceResponse) {
    for topic in &mut response.responses {
        let found = lookup::topic(broker, topic_ref(context.api_version, &topic.name, topic.topic_id));
        for answer in &mut topic.partition_responses {
            if answer.error_code != ResponseError::NotLeaderOrFollower.code() {
                continue;
            }
            let Some(leader) = found.leader(context, answer.index) else { continue };
            answer.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(leader.id.to_wire().into())
                .with_leader_epoch(leader.epoch.to_wire());
            let is_new = response.node_endpoints.iter().all(|node| node.node_id.0 != leader.id.to_wire());
            if let Some(endpoint) = leader.endpoint.filter(|_| is_new) {
                response.node_endpoints.push(
                    NodeEndpoint::default()
                        .with_node_id(leader.id.to_wire().into())
                        .with_host(StrBytes::from_string(endpoint.host))
                        .with_port(i32::from(endpoint.port))
                        .with_rack(leader.rack.map(StrBytes::from_string)),
                );
            }
        }
    }
}
