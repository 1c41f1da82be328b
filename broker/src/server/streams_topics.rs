//! The internal topics of Kafka Streams applications (KIP-1071): made by the broker in the name of the member whose heartbeat
//! found them missing, beside the path of requests. What goes wrong is told to members until somebody tries again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};
use varve_metadata::controller::{CreateTopicError, NewTopic, Placement, PlacementError};

use super::{
    Broker, RequestContext,
    handlers::{
        admin_errors::{create_topic_error, metadata_error, plain},
        create_topics::creation_defaults,
    },
};
use crate::coordinator::InternalTopicPlan;

/// How long a topic may take to be made (Kafka's `request.timeout.ms`).
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many failures are remembered.
const FAILURES: usize = 1000;

/// Which topics are being made, and which could not be.
#[derive(Debug, Default)]
pub(crate) struct StreamsTopics(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    in_flight: BTreeSet<String>,
    failed: BTreeMap<String, Failure>,
}

#[derive(Debug)]
struct Failure {
    why: String,
    until: Instant,
}

impl StreamsTopics {
    /// Those of `topics` that nobody makes right now, and that did not fail a moment ago. They count as being made from here on.
    fn begin(&self, topics: Vec<InternalTopicPlan>, now: Instant) -> Vec<InternalTopicPlan> {
        let mut state = self.0.lock();
        let mut begun = topics;
        begun.retain(|topic| {
            let has_failed = state.failed.get(&topic.name).is_some_and(|failure| failure.until > now);
            !has_failed && state.in_flight.insert(topic.name.clone())
        });
        begun
    }

    fn end(&self, outcomes: Vec<(String, Option<String>)>, now: Instant, kept: Duration) {
        let mut state = self.0.lock();
        state.failed.retain(|_, failure| failure.until > now);
        for (topic, why) in outcomes {
            state.in_flight.remove(&topic);
            if let Some(why) = why {
                state.failed.insert(topic, Failure { why, until: now + kept });
            }
        }
        while state.failed.len() > FAILURES {
            let first = state.failed.iter().min_by_key(|(_, failure)| failure.until).map(|(topic, _)| topic.clone());
            first.and_then(|topic| state.failed.remove(&topic));
        }
    }

    /// Why topics could not be made, as far as that is remembered: topic and reason.
    pub(crate) fn failures<'a>(&self, topics: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
        let (state, now) = (self.0.lock(), Instant::now());
        let found = topics.filter_map(|topic| {
            let failure = state.failed.get(topic).filter(|failure| failure.until > now)?;
            Some((topic.to_owned(), failure.why.clone()))
        });
        found.collect()
    }
}

/// Begins to make `topics` for a client that may. Failures are told for as long as `kept`.
pub(crate) fn begin_to_make(broker: &Broker, context: &RequestContext, topics: Vec<InternalTopicPlan>, kept: Duration) {
    let topics = broker.streams_topics.begin(topics, Instant::now());
    if topics.is_empty() {
        return;
    }
    // Nobody is left to make them if the node stops: whoever coordinates the group then finds them missing again.
    let Some(broker) = broker.groups.broker() else { return };
    let context = context.clone();
    tokio::spawn(async move {
        let mut unfinished = Unfinished { broker: &broker, topics: names(&topics), kept };
        let outcomes = make(&broker, &context, topics).await;
        broker.streams_topics.end(outcomes, Instant::now(), kept);
        unfinished.topics.clear();
    });
}

/// Lets go of topics whose making ended without an outcome.
struct Unfinished<'a> {
    broker: &'a Arc<Broker>,
    topics: Vec<String>,
    kept: Duration,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let outcomes = std::mem::take(&mut self.topics).into_iter().map(|topic| (topic, None)).collect();
        self.broker.streams_topics.end(outcomes, Instant::now(), self.kept);
    }
}

fn names(topics: &[InternalTopicPlan]) -> Vec<String> {
    topics.iter().map(|topic| topic.name.clone()).collect()
}

/// Makes topics; for each, why it could not be made, if so.
async fn make(
    broker: &Broker,
    context: &RequestContext,
    topics: Vec<InternalTopicPlan>,
) -> Vec<(String, Option<String>)> {
    let (allowed, held): (Vec<InternalTopicPlan>, Vec<InternalTopicPlan>) = topics
        .into_iter()
        .partition(|topic| broker.quotas.note_mutation(context, topic.partitions as usize, true).is_ok());
    let over_quota = plain(ResponseError::ThrottlingQuotaExceeded).1;
    let mut outcomes: Vec<(String, Option<String>)> =
        held.into_iter().map(|topic| (topic.name, Some(over_quota.clone()))).collect();
    let wanted: Vec<NewTopic> = allowed.iter().map(new_topic).collect();
    let deadline = Some(Instant::now() + TIMEOUT);
    match broker.metadata.create_topics(&wanted, creation_defaults(broker), false, deadline).await {
        Ok(results) => {
            for (topic, result) in wanted.into_iter().zip(results) {
                let why = match result {
                    Ok(_) => {
                        info!(topic = topic.name, "made an internal topic of a streams group");
                        None
                    }
                    // Somebody else was first, which is as good.
                    Err(CreateTopicError::Exists(_)) => None,
                    Err(error) => Some(create_topic_error(&error).1),
                };
                outcomes.push((topic.name, why));
            }
        }
        Err(error) => {
            let why = metadata_error(&error).1;
            outcomes.extend(wanted.into_iter().map(|topic| (topic.name, Some(why.clone()))));
        }
    }
    for (topic, why) in outcomes.iter().filter_map(|(topic, why)| Some((topic, why.as_ref()?))) {
        warn!(topic, why, "an internal topic of a streams group cannot be made");
    }
    outcomes
}

fn new_topic(topic: &InternalTopicPlan) -> NewTopic {
    let replication_factor = match topic.replication_factor {
        None | Some(-1) => Ok(None),
        Some(given) => match u16::try_from(given) {
            Ok(factor) => Ok(Some(factor)),
            Err(_) => Err(PlacementError::ReplicationFactor),
        },
    };
    let placement = replication_factor
        .map(|replication_factor| Placement::Spread { partitions: Some(topic.partitions), replication_factor });
    let overrides = topic.configs.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    NewTopic { name: topic.name.clone(), placement, overrides }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> InternalTopicPlan {
        InternalTopicPlan { name: name.to_owned(), partitions: 1, replication_factor: None, configs: BTreeMap::new() }
    }

    fn begun(topics: &StreamsTopics, wanted: &[&str], now: Instant) -> Vec<String> {
        names(&topics.begin(wanted.iter().map(|name| plan(name)).collect(), now))
    }

    #[tokio::test]
    async fn a_topic_is_made_by_one_and_tried_again_once_its_failure_is_forgotten() {
        let (topics, now) = (StreamsTopics::default(), Instant::now());
        let kept = Duration::from_secs(10);
        assert_eq!(begun(&topics, &["a", "b"], now), ["a", "b"]);
        assert_eq!(begun(&topics, &["a", "c"], now), ["c"], "a is being made");
        topics.end(vec![("a".to_owned(), None), ("b".to_owned(), Some("why".to_owned()))], now, kept);
        assert_eq!(topics.failures(["a", "b", "c"].into_iter()), [("b".to_owned(), "why".to_owned())]);
        assert_eq!(begun(&topics, &["a", "b"], now), ["a"], "b failed a moment ago");
        assert_eq!(begun(&topics, &["b"], now + kept), ["b"]);
    }

    #[tokio::test]
    async fn failures_beyond_a_bound_are_forgotten_oldest_first() {
        let (topics, now) = (StreamsTopics::default(), Instant::now());
        let failed = |name: String| (name, Some(String::new()));
        topics.end(vec![failed("first".to_owned())], now, Duration::from_secs(1000));
        let many = (0..FAILURES).map(|number| failed(format!("topic-{number}"))).collect();
        topics.end(many, now, Duration::from_secs(2000));
        assert!(topics.failures(["first"].into_iter()).is_empty());
        assert_eq!(topics.failures(["topic-0"].into_iter()).len(), 1);
    }
}
