//! Fetch: from what a consumer wants to where its records lie, waiting until there are enough.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kafka_protocol::{
    error::ResponseError,
    messages::{FetchRequest, fetch_request::FetchTopic},
    protocol::StrBytes,
};
use tokio::time::timeout_at;
use tracing::{Instrument, trace_span};
use uuid::Uuid;
use varve_metadata::model::BrokerId;
use varve_replication::Incarnation;

use super::{
    fetch_news::collect_news,
    fetch_read::{Elsewhere, FetchLimits, Fetched, Round},
};
use crate::{
    partition::{Isolation, Partition, Replica, Waiter, Watch},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
        fetch_session::{Named, PartitionKey, Turn, Wanted},
        lookup::{self, TopicRef},
    },
    wire::fetch_response::{FetchAnswer, NodeEndpoint, PartitionAnswer, TopicAnswer, TopicKey},
};

/// First version whose consumers may read from followers (KIP-392).
const FOLLOWERS_SINCE: i16 = 11;
/// First version that names topics by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;
/// First version that answers with the leader's address (KIP-951).
const LEADERS_SINCE: i16 = 16;
/// An answer's bytes beside its partitions, and a partition's beside its records: what they come to in every version, within a
/// few, for the quota.
const RESPONSE_BYTES: usize = 20;
const PARTITION_BYTES: usize = 50;
/// Last version whose clients may not know KAFKA_STORAGE_ERROR.
const BEFORE_STORAGE_ERROR: i16 = 5;

/// A fetch whose records were found, before it is known whether they may go out.
pub(in crate::server) enum Prepared {
    /// Nothing was found, and this is said of it.
    Refused(FetchAnswer),
    Found(Found),
}

/// What was found, and where the session stands.
pub(in crate::server) struct Found {
    turn: Turn,
    uses_topic_ids: bool,
    wanted: Named,
    replica: Option<Replica>,
    /// The session is among those of brokers.
    is_of_broker: bool,
    answers: Vec<(PartitionKey, PartitionAnswer)>,
    /// Bytes of records for a consumer, for those that have any.
    given: Vec<(Arc<Partition>, usize)>,
    leaders: Vec<NodeEndpoint>,
}

/// Reads what the consumer wants, waiting until there is enough.
pub(in crate::server) async fn prepare(broker: &Broker, context: &RequestContext, request: FetchRequest) -> Prepared {
    let uses_topic_ids = context.api_version >= TOPIC_IDS_SINCE;
    if !(0..=1).contains(&request.isolation_level) {
        return Prepared::Refused(refused(request, uses_topic_ids));
    }
    let deadline = context.received + Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let replica = replica(&request);
    // More than its quota's whole window could never be sent to this client. Followers have none.
    let most = match replica {
        Some(_) => u32::MAX,
        None => broker.fetch_max_bytes.min(broker.quotas.fetch_limit(context)),
    };
    let max_bytes = (request.max_bytes.max(0) as u32).min(most);
    let limits = FetchLimits {
        min_bytes: (request.min_bytes.max(0) as u32).min(max_bytes),
        max_bytes,
        is_negative: request.max_bytes < 0,
        isolation: if request.isolation_level == 1 { Isolation::Committed } else { Isolation::Uncommitted },
        replica,
        is_above_rate: replica.is_some() && !broker.throttles.leader.wait(Instant::now()).is_zero(),
        may_follow: replica.is_none() && context.api_version >= FOLLOWERS_SINCE,
        elsewhere: elsewhere(broker, context, &request),
        tells_high_watermark: broker.config.replication.selects_by_rack,
        deadline,
        remote_deadline: deadline.max(context.received + broker.live.config().archive.fetch_max_wait),
    };
    let session = (request.session_id, request.session_epoch);
    let (named, forgotten) = names(request, uses_topic_ids);
    let access = broker.access(context);
    let is_of_broker = replica.is_some() && access.shows(Operation::ClusterAction, Resource::Cluster);
    let sessions = broker.sessions(is_of_broker);
    let begun = sessions.begin(session, uses_topic_ids, named, &forgotten, Instant::now());
    let (turn, mut wanted) = match begun {
        Ok(begun) => begun,
        Err(error) => return Prepared::Refused(FetchAnswer { error: error.code(), ..FetchAnswer::default() }),
    };
    let (fetched, given) = match turn.waiter() {
        Some(waiter) => collect_news(broker, &access, (&turn, waiter), &mut wanted, &limits).await,
        None => collect(broker, &access, &wanted, &limits).await,
    };
    let mut leaders = Vec::new();
    let answers: Vec<_> = wanted
        .iter()
        .zip(fetched)
        .map(|((key, _), fetched)| {
            let mut answer = fetched.answer(key.index);
            adapt(broker, context, key, &mut answer, &mut leaders);
            if replica.is_some() {
                // Brokers know where brokers are.
                leaders.clear();
            }
            (key.clone(), answer)
        })
        .collect();
    Prepared::Found(Found { turn, uses_topic_ids, wanted, replica, is_of_broker, answers, given, leaders })
}

/// A consumer that says which rack it is in, where that counts, and is not in ours.
fn elsewhere(broker: &Broker, context: &RequestContext, request: &FetchRequest) -> Option<Elsewhere> {
    let counts = broker.config.replication.selects_by_rack
        && context.api_version >= FOLLOWERS_SINCE
        && replica(request).is_none();
    let rack = request.rack_id.to_string();
    let is_ours = broker.config.rack.as_deref() == Some(rack.as_str());
    (counts && !rack.is_empty() && !is_ours).then(|| {
        let (image, listener) = (broker.metadata.image(), context.listener.0.clone());
        Elsewhere { image, rack, listener }
    })
}

/// The answer, or, to a client that is above its quotas, an empty one and how long to wait: what was found stays here, the
/// session as it was. `spent`: the time of a thread that it took.
pub(in crate::server) fn finish(
    broker: &Broker,
    context: &RequestContext,
    (prepared, spent): (Prepared, Duration),
) -> FetchAnswer {
    let is_replica = matches!(&prepared, Prepared::Found(found) if found.replica.is_some());
    let by_time = if is_replica { Duration::ZERO } else { broker.quotas.note_time(context, spent) };
    let found = match prepared {
        Prepared::Refused(answer) => return FetchAnswer { throttle: by_time, ..answer },
        Prepared::Found(found) => found,
    };
    let Found { turn, uses_topic_ids, wanted, replica, is_of_broker, mut answers, given, leaders } = found;
    let sessions = broker.sessions(is_of_broker);
    let bytes =
        RESPONSE_BYTES + answers.iter().map(|(_, answer)| PARTITION_BYTES + answer.records.len()).sum::<usize>();
    // What brokers need of each other is no client's.
    let by_bytes = if replica.is_some() { Duration::ZERO } else { broker.quotas.note_fetched(context, bytes) };
    let throttle = by_bytes.max(by_time);
    let ended = if throttle.is_zero() {
        given.iter().for_each(|(partition, bytes)| partition.note_consumed(*bytes));
        sessions.end(turn, (uses_topic_ids, replica), &wanted, &mut answers, Instant::now())
    } else {
        answers.clear();
        sessions.end_throttled(turn)
    };
    match ended {
        Ok(session_id) => FetchAnswer { error: 0, throttle, session_id, topics: by_topic(answers), leaders },
        Err((session_id, error)) => FetchAnswer { error: error.code(), throttle, session_id, ..FetchAnswer::default() },
    }
}

/// The answer to an isolation level that does not exist. Topics that are named, not numbered, each hear of it.
fn refused(request: FetchRequest, uses_topic_ids: bool) -> FetchAnswer {
    let error = ResponseError::UnknownServerError.code();
    let (named, _) = if uses_topic_ids { Default::default() } else { names(request, uses_topic_ids) };
    let answers = named.into_iter().map(|(key, _)| {
        let answer = PartitionAnswer { aborted: Some(Vec::new()), ..PartitionAnswer::failed(key.index, error) };
        (key, answer)
    });
    FetchAnswer { error, topics: by_topic(answers.collect()), ..FetchAnswer::default() }
}

/// The follower that asks. Version 15 moved its number into a tagged field, with its life (KIP-903).
fn replica(request: &FetchRequest) -> Option<Replica> {
    let id = BrokerId::from_wire(request.replica_id.0.max(request.replica_state.replica_id.0))?;
    let incarnation = u64::try_from(request.replica_state.replica_epoch).ok().map(Incarnation);
    Some(Replica { id, incarnation })
}

/// The partitions that the request names, and those it takes out of its session. Names are copied: the request's frame
/// is not kept while it waits.
fn names(request: FetchRequest, uses_topic_ids: bool) -> (Named, Vec<PartitionKey>) {
    let key_of = |name: &StrBytes, id: Uuid| {
        if uses_topic_ids { TopicKey::Id(id) } else { TopicKey::Named(Arc::from(name.as_str())) }
    };
    let mut named = Named::with_capacity(request.topics.iter().map(|topic: &FetchTopic| topic.partitions.len()).sum());
    for topic in request.topics {
        let key = key_of(&topic.topic, topic.topic_id);
        named.extend(topic.partitions.into_iter().map(|partition| {
            let wanted = Wanted {
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start: partition.log_start_offset,
                told: None,
            };
            (PartitionKey { topic: key.clone(), index: partition.partition }, wanted)
        }));
    }
    keep_last(&mut named);
    let forgotten = request.forgotten_topics_data.into_iter().flat_map(|topic| {
        let key = key_of(&topic.topic, topic.topic_id);
        topic.partitions.into_iter().map(move |index| PartitionKey { topic: key.clone(), index })
    });
    (named, forgotten.collect())
}

/// Of a partition that is named twice, what is said last counts.
fn keep_last(named: &mut Named) {
    if named.len() < 2 {
        return;
    }
    let mut places: HashMap<&PartitionKey, usize> = HashMap::with_capacity(named.len());
    let repeats: Vec<(usize, usize)> = named
        .iter()
        .enumerate()
        .filter_map(|(place, (key, _))| match places.entry(key) {
            Entry::Occupied(first) => Some((*first.get(), place)),
            Entry::Vacant(free) => {
                free.insert(place);
                None
            }
        })
        .collect();
    for (first, again) in &repeats {
        named[*first].1 = named[*again].1;
    }
    for (_, again) in repeats.into_iter().rev() {
        named.remove(again);
    }
}

impl TopicKey {
    fn as_ref(&self) -> TopicRef<'_> {
        match self {
            TopicKey::Named(name) => TopicRef::Named(name),
            TopicKey::Id(id) => TopicRef::Id(*id),
        }
    }
}

/// Reads until there are enough bytes, something cannot wait, or time is up. With the bytes of records that are for a consumer.
async fn collect(
    broker: &Broker,
    access: &Access<'_>,
    wanted: &Named,
    limits: &FetchLimits,
) -> (Vec<Fetched>, Vec<(Arc<Partition>, usize)>) {
    let partitions = find_all(broker, access, limits, wanted);
    let fetched = wait_for(broker, &Round { wanted, partitions: &partitions, limits }).await;
    let given = note_given(broker, &partitions, &fetched, limits);
    (fetched, given)
}

/// Counts what was found of whose records there are any. Returns those that are for a consumer.
pub(super) fn note_given(
    broker: &Broker,
    partitions: &[Result<Arc<Partition>, ResponseError>],
    fetched: &[Fetched],
    limits: &FetchLimits,
) -> Vec<(Arc<Partition>, usize)> {
    let with_records = partitions.iter().zip(fetched).filter(|(_, fetched)| fetched.has_records());
    let mut given: Vec<(Arc<Partition>, usize)> =
        with_records.filter_map(|(partition, fetched)| Some((partition.clone().ok()?, fetched.bytes()))).collect();
    if limits.replica.is_some() {
        let throttled = given.iter().filter(|(partition, _)| partition.is_leader_throttled());
        broker.throttles.leader.note(throttled.map(|(_, bytes)| bytes).sum(), Instant::now());
        given.drain(..).for_each(|(partition, bytes)| partition.note_copied_away(bytes));
    }
    if limits.may_follow {
        broker.note_follower_reads(given.iter().filter(|(partition, _)| !partition.is_leader()).count() as u64);
    }
    given
}

async fn wait_for(broker: &Broker, round: &Round<'_>) -> Vec<Fetched> {
    let (partitions, limits) = (round.partitions, round.limits);
    let first = round.read();
    if first.is_enough(limits) || limits.deadline <= Instant::now() && first.remote == 0 {
        return first.fetched;
    }
    if first.remote > 0 {
        return round.finish_remote(first.fetched).await;
    }
    // Nothing may fall between a look at a partition and the wait for it: watch first, then look.
    let waiter = Waiter::default();
    let watch = |partition: &Arc<Partition>| {
        let growth = limits.replica.map(|_| partition.watch_growth(&waiter));
        let commits = (limits.replica.is_none() || limits.tells_high_watermark).then(|| partition.watch(&waiter));
        growth.into_iter().chain(commits)
    };
    let watches: Vec<Watch> = partitions.iter().flatten().flat_map(watch).collect();
    let fetched = loop {
        let appended = total_appended(partitions);
        let is_hidden = partitions.iter().flatten().any(|partition| partition.has_hidden());
        let read = round.read();
        broker.throttles.leader.note_held_back(read.held_back);
        if read.remote > 0 {
            break round.finish_remote(read.fetched).await;
        }
        if read.is_enough(limits) || limits.deadline <= Instant::now() || broker.shutdown.is_cancelled() {
            break read.fetched;
        }
        let missing = u64::from(limits.min_bytes).saturating_sub(read.bytes);
        let grown = async {
            loop {
                waiter.woken().await;
                // Records that wait for their flush are counted already. A reader of committed records may gain much by a
                // marker of a few bytes. In both cases the count tells nothing: it looks.
                let must_look = is_hidden || limits.isolation == Isolation::Committed || limits.replica.is_some();
                let is_deposed = || partitions.iter().flatten().any(|partition| !partition.is_leader());
                if must_look || is_deposed() || total_appended(partitions).wrapping_sub(appended) >= missing {
                    return;
                }
            }
        };
        let enough = async {
            tokio::select! {
                _ = timeout_at(limits.deadline.into(), grown) => {}
                () = broker.shutdown.cancelled() => {}
            }
        };
        enough.instrument(trace_span!(target: "varve_trace", "wait for records")).await;
    };
    drop(watches);
    fetched
}

/// Bytes that all of them got since they were opened; only differences mean anything.
fn total_appended(partitions: &[Result<Arc<Partition>, ResponseError>]) -> u64 {
    partitions.iter().flatten().map(|partition| partition.appended_bytes()).fold(0, u64::wrapping_add)
}

/// The partitions that are wanted, as far as they are here and the reader may have them.
pub(super) fn find_all(
    broker: &Broker,
    access: &Access<'_>,
    limits: &FetchLimits,
    wanted: &Named,
) -> Vec<Result<Arc<Partition>, ResponseError>> {
    let is_replica = limits.replica.is_some();
    // Followers may read everything or nothing.
    if is_replica && !access.allows(Operation::ClusterAction, Resource::Cluster) {
        return wanted.iter().map(|_| Err(ResponseError::TopicAuthorizationFailed)).collect();
    }
    let mut readable = Readable { access, is_replica, topics: HashMap::new() };
    let mut found: Option<(&TopicKey, lookup::FoundTopic<'_>)> = None;
    wanted
        .iter()
        .map(|(key, _)| {
            let topic = match found.take() {
                Some((of, topic)) if *of == key.topic => topic,
                _ => lookup::topic(broker, key.topic.as_ref()),
            };
            let partition =
                readable.check(&key.topic, &topic).and_then(|()| topic.partition_for(key.index, limits.may_follow));
            found = Some((&key.topic, topic));
            partition
        })
        .collect()
}

/// Which topics a consumer may read: each is decided on once, however its partitions are mixed with others'.
struct Readable<'a> {
    access: &'a Access<'a>,
    is_replica: bool,
    topics: HashMap<&'a TopicKey, Result<(), ResponseError>>,
}

impl<'a> Readable<'a> {
    fn check(&mut self, key: &'a TopicKey, topic: &lookup::FoundTopic<'_>) -> Result<(), ResponseError> {
        if self.is_replica || !self.access.is_checked() {
            return Ok(());
        }
        *self.topics.entry(key).or_insert_with(|| topic.require(self.access, Operation::Read))
    }
}

/// Says errors in the words that this client knows, and who leads instead.
fn adapt(
    broker: &Broker,
    context: &RequestContext,
    key: &PartitionKey,
    answer: &mut PartitionAnswer,
    leaders: &mut Vec<NodeEndpoint>,
) {
    let not_leader = ResponseError::NotLeaderOrFollower.code();
    if answer.error == ResponseError::KafkaStorageError.code() && context.api_version <= BEFORE_STORAGE_ERROR {
        answer.error = not_leader;
    }
    let moved = answer.error == not_leader || answer.error == ResponseError::FencedLeaderEpoch.code();
    if !moved || context.api_version < LEADERS_SINCE {
        return;
    }
    let Some(leader) = lookup::topic(broker, key.topic.as_ref()).leader(context, key.index) else { return };
    answer.leader = Some((leader.id.to_wire(), leader.epoch.to_wire()));
    if let Some(endpoint) = leader.endpoint {
        let node =
            NodeEndpoint { id: leader.id.to_wire(), host: endpoint.host, port: endpoint.port, rack: leader.rack };
        if !leaders.contains(&node) {
            leaders.push(node);
        }
    }
}

/// Groups neighbours of one topic, keeping the order.
fn by_topic(answers: Vec<(PartitionKey, PartitionAnswer)>) -> Vec<TopicAnswer> {
    let mut topics: Vec<TopicAnswer> = Vec::new();
    for (key, answer) in answers {
        match topics.last_mut() {
            Some(last) if last.topic == key.topic => last.partitions.push(answer),
            _ => topics.push(TopicAnswer { topic: key.topic, partitions: vec![answer] }),
        }
    }
    topics
}

impl Round<'_> {
    /// Reads the archived partitions side by side, and looks at the others again when that is done.
    async fn finish_remote(&self, fetched: Vec<Fetched>) -> Vec<Fetched> {
        let limits = self.limits;
        let finished = fetched.into_iter().zip(self.partitions).map(|(fetched, partition)| async move {
            match (fetched, partition) {
                (Fetched::Remote(remote), Ok(partition)) => {
                    let span = trace_span!(
                        target: "varve_trace", "read the archive",
                        messaging.destination.name = partition.topic().as_str(),
                        messaging.destination.partition.id = partition.id().index.0,
                    );
                    remote.finish(partition, limits).instrument(span).await
                }
                (other, _) => other,
            }
        });
        join_all(finished).await
    }
}
