//! What members say of records, in ShareFetch and ShareAcknowledge: checked, and passed on to share partitions.

use futures::future::join_all;
use kafka_protocol::error::ResponseError;
use uuid::Uuid;
use varve_metadata::model::{Offset, PartitionId, PartitionIndex, TopicId};

use crate::{
    server::{
        Broker,
        authorizer::{Access, Operation},
        lookup::{self, TopicRef},
    },
    share::{Acknowledgement, Settle},
};

/// What is said of neighbouring records, as it came.
pub(super) struct Batch {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) words: Vec<i8>,
}

/// What is said of one partition.
pub(super) struct Said {
    pub(super) topic: Uuid,
    pub(super) partition: i32,
    pub(super) batches: Vec<Batch>,
}

/// Who says it.
pub(super) struct Speaker<'a> {
    pub(super) group: &'a str,
    pub(super) member: &'a str,
    /// The request is of a version that knows of renewals.
    pub(super) knows_renewal: bool,
    /// It says that it has some.
    pub(super) renews: bool,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) topic: Uuid,
    pub(super) partition: i32,
    pub(super) error: Option<(ResponseError, Option<String>)>,
}

/// Passes on what was said, and waits until it is kept.
pub(super) async fn acknowledge(
    broker: &Broker,
    access: &Access<'_>,
    speaker: &Speaker<'_>,
    said: Vec<Said>,
) -> Vec<Outcome> {
    let each = said.into_iter().map(|said| async move {
        let Said { topic, partition, batches } = said;
        let is_empty = batches.is_empty();
        let outcome = acknowledge_one(broker, access, speaker, (topic, partition), &batches).await;
        (is_empty, Outcome { topic, partition, error: outcome.err() })
    });
    let outcomes = join_all(each).await;
    // If nothing was said of any record, then nothing is said of those partitions (what Kafka does).
    let says_something = outcomes.iter().any(|(is_empty, outcome)| !is_empty && !is_unheard(outcome));
    let is_told = |(is_empty, outcome): &(bool, Outcome)| says_something || !is_empty || outcome.error.is_some();
    outcomes.into_iter().filter(is_told).map(|(_, outcome)| outcome).collect()
}

/// Whether it did not come as far as a share partition: only then there are no words to the error.
fn is_unheard(outcome: &Outcome) -> bool {
    matches!(outcome.error, Some((_, None)))
}

async fn acknowledge_one(
    broker: &Broker,
    access: &Access<'_>,
    speaker: &Speaker<'_>,
    (topic, partition): (Uuid, i32),
    batches: &[Batch],
) -> Result<(), (ResponseError, Option<String>)> {
    let unheard = |error| (error, None);
    let image = broker.metadata.image();
    let known = TopicId::from_wire(topic).and_then(|id| image.topic_by_id(id));
    let known = known.ok_or(unheard(ResponseError::UnknownTopicId))?;
    let said = check(speaker, batches).ok_or(unheard(ResponseError::InvalidRequest))?;
    let found = lookup::topic(broker, TopicRef::Id(topic));
    found.require(access, Operation::Read).map_err(unheard)?;
    let index = PartitionIndex::from_wire(partition).filter(|index| known.partition(*index).is_some());
    let index = index.ok_or(unheard(ResponseError::UnknownTopicOrPartition))?;
    if said.is_empty() {
        return Ok(());
    }
    if let Err(error) = found.partition(partition) {
        return Err((error, Some(super::admin_errors::plain(error).1)));
    }
    let id = PartitionId { topic: known.id, index };
    let outcome = broker.shares.acknowledge(speaker.group, speaker.member, id, &said).await;
    outcome.map_err(|(error, message)| (error, Some(message)))
}

/// What is said, if it makes sense by itself.
fn check(speaker: &Speaker<'_>, batches: &[Batch]) -> Option<Vec<Acknowledgement>> {
    let mut before = -1;
    let mut said = Vec::with_capacity(batches.len());
    for Batch { first, last, words } in batches {
        let is_ordered = first <= last && *first >= before;
        let fits = words.len() == 1
            || last.checked_sub(*first).and_then(|count| count.checked_add(1)) == Some(words.len() as i64);
        if !is_ordered || !fits {
            return None;
        }
        let words: Vec<Settle> = words.iter().map(|word| Settle::from_wire(*word)).collect::<Option<_>>()?;
        if words.contains(&Settle::Renew) && !(speaker.knows_renewal && speaker.renews) {
            return None;
        }
        before = *last;
        said.push(Acknowledgement { first: Offset::from_wire(*first)?, last: Offset::from_wire(*last)?, words });
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contradicts_itself_is_not_passed_on() {
        let speaker = |renews| Speaker { group: "g", member: "m", knows_renewal: true, renews };
        let batch = |first, last, words: &[i8]| Batch { first, last, words: words.to_vec() };
        let takes = |renews, batches: &[Batch]| check(&speaker(renews), batches).is_some();
        assert!(takes(false, &[batch(0, 4, &[1]), batch(5, 6, &[0, 3])]));
        assert!(takes(true, &[batch(0, 0, &[4])]));
        // One that overlaps by a record is the share partition's business, as in Kafka.
        assert!(takes(false, &[batch(0, 4, &[1]), batch(4, 6, &[1])]));
        assert!(!takes(false, &[batch(0, 0, &[4])]));
        assert!(!takes(false, &[batch(1, 0, &[1])]));
        assert!(!takes(false, &[batch(0, 4, &[1]), batch(3, 6, &[1])]));
        assert!(!takes(false, &[batch(0, 4, &[1, 1])]));
        assert!(!takes(false, &[batch(0, 0, &[])]));
        assert!(!takes(true, &[batch(0, 0, &[5])]));
        assert!(!takes(true, &[batch(-1, 0, &[1])]));
        assert!(!takes(true, &[batch(0, i64::MAX, &[1, 1])]));
        assert!(!takes(true, &[batch(i64::MIN, i64::MAX, &[1, 1])]));
    }
}
