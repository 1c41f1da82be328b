//! TxnOffsetCommit (KIP-98, KIP-447, KIP-890): where a consumer will have come to if a transaction commits.

use std::collections::HashMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        txn_offset_commit_request::TxnOffsetCommitRequestTopic,
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
};
use varve_metadata::{
    image::{ClusterImage, TopicImage},
    model::{LeaderEpoch, PartitionIndex, ProducerEpoch, ProducerId},
};

use super::{
    group_support::{group_error, identity, mismatched},
    transaction_support::{Denied, denied},
};
use crate::{
    coordinator::{
        Answer, CommitAnswer, CommitPartition, CommitRequest, CommitTopic, Generation, GroupError, OFFSETS_TOPIC,
        TransactionalCommit, transactions::TopicPartition,
    },
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        transaction_coordinator::{Admission, Candidate, Generation as Protocol},
    },
};

/// First version whose clients know TRANSACTION_ABORTABLE.
const ABORTABLE_SINCE: i16 = 4;
/// First version that adds the group's offsets to the transaction by itself.
const ADDING_SINCE: i16 = 5;
/// First version whose clients know that a coordinator may be loading.
const LOADING_SINCE: i16 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let access = broker.access(context);
    let required = access
        .require(Operation::Write, Resource::TransactionalId(&request.transactional_id))
        .and_then(|()| access.require(Operation::Read, Resource::Group(&request.group_id)));
    if let Err(refused) = required {
        return answer(&request, |_, _| Err(refused));
    }
    let image = broker.metadata.image();
    let mut readable: HashMap<TopicName, bool> = HashMap::new();
    for topic in &request.topics {
        let reads = || access.allows(Operation::Read, Resource::Topic(&topic.name));
        readable.entry(topic.name.clone()).or_insert_with(reads);
    }
    let may_read = |name: &TopicName| readable.get(name).copied().unwrap_or(false);
    let topics: Vec<CommitTopic> =
        request.topics.iter().filter(|topic| may_read(&topic.name)).filter_map(|topic| known(&image, topic)).collect();
    // With nothing to commit nobody is asked, as in Kafka.
    let outcome = if topics.is_empty() { Ok(HashMap::new()) } else { commit(broker, context, &request, topics).await };
    answer(&request, |topic, index| {
        if !may_read(&topic.name) {
            return Err(ResponseError::TopicAuthorizationFailed);
        }
        let place = existing(&image, &topic.name, index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        match &outcome {
            Ok(outcomes) => {
                let outcome = outcomes.get(&(topic.name.to_string(), place.1));
                outcome.copied().unwrap_or(Err(mismatched())).map_err(group_error)
            }
            Err(ResponseError::CoordinatorLoadInProgress) if context.api_version < LOADING_SINCE => {
                Err(ResponseError::CoordinatorNotAvailable)
            }
            Err(error) => Err(*error),
        }
    })
}

type Outcomes = HashMap<(String, PartitionIndex), Result<(), GroupError>>;

async fn commit(
    broker: &Broker,
    context: &RequestContext,
    request: &TxnOffsetCommitRequest,
    topics: Vec<CommitTopic>,
) -> Result<Outcomes, ResponseError> {
    if request.group_id.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    // Nobody writes in a transaction without an identity.
    let producer = ProducerId::from_wire(request.producer_id.0).ok_or(ResponseError::InvalidProducerIdMapping)?;
    let epoch = ProducerEpoch::from_wire(request.producer_epoch).ok_or(ResponseError::InvalidProducerEpoch)?;
    let partition = broker.groups.partition_of(&broker.metadata.image(), &request.group_id);
    let generation = match context.api_version {
        ADDING_SINCE.. => Protocol::Adding,
        ABORTABLE_SINCE.. => Protocol::Abortable,
        _ => Protocol::First,
    };
    let admission = Admission { transactional_id: &request.transactional_id, producer, epoch, generation };
    let at = TopicPartition { topic: OFFSETS_TOPIC.to_owned(), partition };
    let verdict = broker.transactions.admit(broker, admission, vec![Candidate { at, base_sequence: None }]).await;
    let guard = match verdict.into_iter().next() {
        Some((_, Ok(guard))) => guard,
        Some((_, Err(denial))) => return Err(coordinator_word(denied(denial))),
        None => return Err(ResponseError::UnknownServerError),
    };
    let commit = CommitRequest {
        group_id: request.group_id.to_string(),
        member: identity(&request.member_id, &request.group_instance_id),
        generation: Generation::from_wire(request.generation_id),
        retention: None,
        knows_group_id_not_found: false,
        topics,
    };
    let asked = async {
        let seat = broker.groups.seat(broker, &commit.group_id)?;
        let request = TransactionalCommit { commit, producer, epoch, guard };
        match seat.ask(|shard, now, id, effects| shard.commit_in_transaction(now, id, request, effects)).await? {
            Answer::Commit(CommitAnswer(outcome)) => outcome,
            _ => Err(mismatched()),
        }
    };
    let outcomes = asked.await.map_err(group_error)?;
    let by_topic = outcomes.into_iter();
    Ok(by_topic.flat_map(|(name, parts)| parts.into_iter().map(move |(part, o)| ((name.clone(), part), o))).collect())
}

/// A denial in the words that a consumer's group has for it.
fn coordinator_word(denied: Denied) -> ResponseError {
    match denied {
        Denied::NotHere | Denied::Offline => ResponseError::NotCoordinator,
        Denied::Code(error) => error,
    }
}

fn existing<'a>(image: &'a ClusterImage, name: &TopicName, index: i32) -> Option<(&'a TopicImage, PartitionIndex)> {
    let (topic, index) = (image.topic(name)?, PartitionIndex::from_wire(index)?);
    topic.partition(index).map(|_| (topic.as_ref(), index))
}

/// What of the request is about partitions that exist.
fn known(image: &ClusterImage, topic: &TxnOffsetCommitRequestTopic) -> Option<CommitTopic> {
    let known = image.topic(&topic.name)?;
    let partitions: Vec<CommitPartition> = topic
        .partitions
        .iter()
        .filter_map(|partition| {
            let (_, index) = existing(image, &topic.name, partition.partition_index)?;
            Some(CommitPartition {
                partition: index,
                offset: partition.committed_offset,
                leader_epoch: LeaderEpoch::from_wire(partition.committed_leader_epoch),
                metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
            })
        })
        .collect();
    (!partitions.is_empty()).then(|| CommitTopic { name: known.name.to_string(), id: None, partitions })
}

fn answer(
    request: &TxnOffsetCommitRequest,
    outcome: impl Fn(&TxnOffsetCommitRequestTopic, i32) -> Result<(), ResponseError>,
) -> TxnOffsetCommitResponse {
    // A topic that is named twice is answered once.
    let mut topics: Vec<TxnOffsetCommitResponseTopic> = Vec::with_capacity(request.topics.len());
    let mut places: HashMap<&TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(outcome(topic, index).map_or_else(|error| error.code(), |()| 0))
        });
        let place = *places.entry(&topic.name).or_insert_with(|| {
            topics.push(TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()));
            topics.len() - 1
        });
        topics[place].partitions.extend(partitions);
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}
