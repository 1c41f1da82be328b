//! ShareFetch (KIP-932): a member says what became of records, and is given more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future;
use kafka_protocol::error::ResponseError;
use tokio::time::sleep_until;
use uuid::Uuid;
use varve_metadata::model::{PartitionId, PartitionIndex, TopicId};

use super::{
    share_acknowledgements::{Batch, Outcome, Said, Speaker, acknowledge},
    share_support::{is_member_id, is_served},
};
use crate::{
    partition::Partition,
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
        lookup::{self, TopicRef},
        shares::{Member, Taken},
    },
    share::{SessionChange, SessionEpoch, SessionError, SessionKey, Want},
    wire::{
        fetch_response::NodeEndpoint,
        later::share_fetch::{AcquireMode, Answer, PartitionAnswer, Request},
    },
};

/// First version that knows of renewals.
const RENEWAL_SINCE: i16 = 2;

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: Request) -> Answer {
    answer(broker, context, request).await.unwrap_or_else(|error| Answer { error: error.code(), ..Answer::default() })
}

async fn answer(broker: &Broker, context: &RequestContext, request: Request) -> Result<Answer, ResponseError> {
    let known = &request.known;
    let key = session_key(broker, context, known.group_id.as_ref().map(|id| id.as_str()), known.member_id.as_deref())?;
    if request.renews
        && [known.max_bytes, known.min_bytes, known.max_records, known.max_wait_ms].iter().any(|n| *n != 0)
    {
        return Err(ResponseError::InvalidRequest);
    }
    let epoch = SessionEpoch::from_wire(known.share_session_epoch).ok_or(ResponseError::InvalidShareSessionEpoch)?;
    let deadline = context.received + Duration::from_millis(u64::try_from(known.max_wait_ms).unwrap_or(0));
    let named = Named::of(&request);
    let begun = broker.shares.fetch(&key, epoch, context.connection.id(), named.change);
    let mut partitions = match begun {
        Ok(partitions) => partitions,
        Err(error) => {
            if error == SessionError::LimitReached {
                // Whoever asks again at once would take time from those who have a session.
                tokio::select! {
                    () = sleep_until(deadline.into()) => {}
                    () = broker.shutdown.cancelled() => {}
                }
            }
            return Err(session_error(error));
        }
    };
    // Each has its turn at the front.
    if let SessionEpoch::Next(turn) = epoch
        && !partitions.is_empty()
    {
        let by = turn as usize % partitions.len();
        partitions.rotate_left(by);
    }
    let access = broker.access(context);
    let rules = broker.shares.rules(broker, &key.group);
    let speaker = Speaker {
        group: &key.group,
        member: &key.member,
        knows_renewal: context.api_version >= RENEWAL_SINCE,
        renews: request.renews,
    };
    let max_bytes =
        u32::try_from(known.max_bytes).unwrap_or(0).min(broker.fetch_max_bytes).min(broker.quotas.fetch_limit(context));
    let member = Member {
        group: &key.group,
        rules,
        want: Want {
            member: Arc::from(key.member.as_str()),
            max_records: u64::try_from(known.max_records).unwrap_or(0),
            batch_size: u64::try_from(known.batch_size).unwrap_or(0),
            is_strict: request.mode == AcquireMode::RecordLimit,
        },
        min_bytes: u32::try_from(known.min_bytes).unwrap_or(0).min(max_bytes),
        max_bytes,
        deadline,
        remote_deadline: deadline.max(context.received + broker.live.config().archive.fetch_max_wait),
    };
    // A member that asks for more time gets nothing new meanwhile (KIP-1222).
    let wanted = if request.renews { Vec::new() } else { find(broker, &access, partitions) };
    // What it says of records counts all the same, as in Kafka, which looks at the way only where there is something to read.
    let is_refused = request.mode == AcquireMode::Unknown && wanted.iter().any(|(_, found)| found.is_ok());
    let reading = async { if is_refused { Vec::new() } else { read(broker, &member, wanted).await } };
    let (taken, outcomes) = future::join(reading, acknowledge(broker, &access, &speaker, named.said)).await;
    if epoch == SessionEpoch::Last {
        broker.shares.end(&key);
    }
    if is_refused {
        return Err(ResponseError::UnknownServerError);
    }
    let mut told = Told { broker, context, topics: BTreeMap::new(), nodes: Vec::new() };
    for (id, taken) in taken {
        let is_new = epoch == SessionEpoch::First || named.wanted.contains(&id);
        told.taken(id, taken, is_new);
    }
    for (topic, index) in named.impossible {
        told.fails(topic, index, ResponseError::UnknownTopicId);
    }
    outcomes.into_iter().for_each(|outcome| told.outcome(outcome));
    let topics = told.topics.into_iter().map(|(topic, partitions)| (topic, partitions.into_values().collect()));
    Ok(Answer {
        lock_duration_ms: rules.lock_duration_ms(),
        topics: topics.collect(),
        nodes: told.nodes,
        ..Answer::default()
    })
}

/// Whose session the request is about.
///
/// # Errors
/// Share groups are not served, the group may not be read, or the request does not say who asks.
pub(super) fn session_key(
    broker: &Broker,
    context: &RequestContext,
    group: Option<&str>,
    member: Option<&str>,
) -> Result<SessionKey, ResponseError> {
    if !is_served(broker) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let group = group.ok_or(ResponseError::InvalidRequest)?;
    broker.access(context).require(Operation::Read, Resource::Group(group))?;
    let member = member.filter(|member| is_member_id(member)).ok_or(ResponseError::InvalidRequest)?;
    Ok(SessionKey { group: group.to_owned(), member: member.to_owned() })
}

/// The only place where a [`SessionError`] becomes Kafka's.
pub(super) fn session_error(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::ShareSessionNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidShareSessionEpoch,
        SessionError::LimitReached => ResponseError::ShareSessionLimitReached,
        SessionError::Invalid => ResponseError::InvalidRequest,
    }
}

/// The partitions that a request names, and what it says of records.
struct Named {
    change: SessionChange,
    wanted: BTreeSet<PartitionId>,
    /// Names that can be nobody's.
    impossible: Vec<(Uuid, i32)>,
    said: Vec<Said>,
}

impl Named {
    fn of(request: &Request) -> Named {
        let mut named = Named {
            change: SessionChange::default(),
            wanted: BTreeSet::new(),
            impossible: Vec::new(),
            said: Vec::new(),
        };
        let id_of = |topic: Uuid, index: i32| {
            Some(PartitionId { topic: TopicId::from_wire(topic)?, index: PartitionIndex::from_wire(index)? })
        };
        for topic in &request.known.topics {
            for partition in &topic.partitions {
                match id_of(topic.topic_id, partition.partition_index) {
                    Some(id) => {
                        named.change.wanted.push(id);
                        named.wanted.insert(id);
                    }
                    None => named.impossible.push((topic.topic_id, partition.partition_index)),
                }
                let batches = partition.acknowledgement_batches.iter().map(|batch| Batch {
                    first: batch.first_offset,
                    last: batch.last_offset,
                    words: batch.acknowledge_types.clone(),
                });
                let batches = batches.collect();
                named.said.push(Said { topic: topic.topic_id, partition: partition.partition_index, batches });
            }
        }
        named.change.acknowledges = named.said.iter().any(|said| !said.batches.is_empty());
        if !named.change.acknowledges {
            named.said.clear();
        }
        for topic in &request.known.forgotten_topics_data {
            let forgotten = topic.partitions.iter().filter_map(|index| id_of(topic.topic_id, *index));
            named.change.forgotten.extend(forgotten);
        }
        named
    }
}

/// A partition of the session, or why it cannot be read here.
type Found = (PartitionId, Result<Arc<Partition>, ResponseError>);

/// The partitions that the member reads.
fn find(broker: &Broker, access: &Access<'_>, partitions: Vec<PartitionId>) -> Vec<Found> {
    let found = partitions.into_iter().map(|id| {
        let topic = lookup::topic(broker, TopicRef::Id(id.topic.to_wire()));
        let found = topic.require(access, Operation::Read).and_then(|()| topic.partition(id.index.to_wire()));
        (id, found)
    });
    found.collect()
}

/// Gives the member what there is of its partitions.
async fn read(broker: &Broker, member: &Member<'_>, wanted: Vec<Found>) -> Vec<(PartitionId, Taken)> {
    let (partitions, found): (Vec<PartitionId>, Vec<_>) = wanted.into_iter().unzip();
    let taken = broker.shares.take(broker, member, &found).await;
    partitions.into_iter().zip(taken).collect()
}

/// What the member is told.
struct Told<'a> {
    broker: &'a Broker,
    context: &'a RequestContext,
    topics: BTreeMap<Uuid, BTreeMap<i32, PartitionAnswer>>,
    nodes: Vec<NodeEndpoint>,
}

impl Told<'_> {
    fn partition(&mut self, topic: Uuid, index: i32) -> &mut PartitionAnswer {
        let new = || PartitionAnswer { index, ..PartitionAnswer::default() };
        self.topics.entry(topic).or_default().entry(index).or_insert_with(new)
    }

    /// What was already told of a partition, and did not change, is not told again.
    fn taken(&mut self, id: PartitionId, taken: Taken, is_new: bool) {
        let (topic, index) = (id.topic.to_wire(), id.index.to_wire());
        match taken {
            Taken::Failed(error) => self.fails(topic, index, error),
            Taken::Records(records, acquired) if is_new || !acquired.is_empty() => {
                let answer = self.partition(topic, index);
                (answer.records, answer.acquired) = (records, acquired);
            }
            Taken::Nothing if is_new => {
                self.partition(topic, index);
            }
            Taken::Records(..) | Taken::Nothing => {}
        }
    }

    fn fails(&mut self, topic: Uuid, index: i32, error: ResponseError) {
        self.partition(topic, index).error = error.code();
        if matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch) {
            let leader = lookup::topic(self.broker, TopicRef::Id(topic)).leader(self.context, index);
            let Some(leader) = leader else { return };
            self.partition(topic, index).leader = Some((leader.id.to_wire(), leader.epoch.to_wire()));
            let node = leader.endpoint.map(|endpoint| NodeEndpoint {
                id: leader.id.to_wire(),
                host: endpoint.host,
                port: endpoint.port,
                rack: leader.rack,
            });
            let nodes = &self.nodes;
            let node = node.filter(|node| !nodes.contains(node));
            self.nodes.extend(node);
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        let answer = self.partition(outcome.topic, outcome.partition);
        if let Some((error, message)) = outcome.error {
            (answer.acknowledge_error, answer.acknowledge_message) = (error.code(), message);
        }
    }
}

/// Bytes of records in the answer, for the quota.
pub(in crate::server) fn record_bytes(answer: &Answer) -> usize {
    answer.topics.iter().flat_map(|(_, partitions)| partitions).map(|partition| partition.records.len()).sum()
}
