//! Topics that come into being because somebody asked for them (`auto.create.topics.enable`), and those that the cluster
//! makes for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use varve_metadata::{
    controller::{CreateTopicError, NewTopic, Placement},
    image::is_internal,
    model::TopicName,
    snapshot::OwnTopic,
};

use super::{
    Broker, RequestContext,
    handlers::{
        admin_errors::{create_topic_error, metadata_error, until_visible},
        create_topics::creation_defaults,
    },
};
use crate::{
    config::{BrokerConfig, MetadataUrl},
    coordinator::{share_state::SHARE_STATE_TOPIC, transactions::TRANSACTIONS_TOPIC},
};

/// How long a request waits for a topic that it makes (Kafka's `request.timeout.ms`).
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client's request waits for topics that it makes: so long that whoever asks again finds them, and so short that a
/// cluster that cannot agree on anything right now still tells of the topics that it has.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many topics clients may have in the making at one time. Those beyond are not begun; who asks again may be luckier.
const IN_THE_MAKING: usize = 10_000;

/// Topics that are being made because clients named them.
#[derive(Debug, Default)]
pub(crate) struct FirstUses(Mutex<BTreeSet<String>>);

impl FirstUses {
    /// Those of `names` that nobody makes right now and that `may_make` allows. They count as being made from here on.
    fn begin(&self, names: Vec<TopicName>, mut may_make: impl FnMut(&TopicName) -> bool) -> Vec<TopicName> {
        let mut begun = names;
        begun.retain(|name| {
            let is_free = || {
                let in_the_making = self.0.lock();
                in_the_making.len() < IN_THE_MAKING && !in_the_making.contains(name.as_str())
            };
            is_free() && may_make(name) && self.0.lock().insert(name.to_string())
        });
        begun
    }

    fn end(&self, names: &[TopicName]) {
        let mut in_the_making = self.0.lock();
        for name in names {
            in_the_making.remove(name.as_str());
        }
    }
}

/// Begins to make topics that a client named and that do not exist, and waits for them for a while. They are made even if the
/// client does not wait, and count against its quota on changes (KIP-599). What cannot be made is logged: whoever asks again
/// finds that it is not there.
pub(crate) async fn create_for(broker: &Broker, client: &RequestContext, names: Vec<TopicName>) {
    // Nobody is left to make them if the node stops: the client finds them missing at the next one.
    let Some(broker) = broker.groups.broker() else { return };
    let names = broker.first_uses.begin(names, |name| may_make(&broker, client, name));
    if names.is_empty() {
        return;
    }
    let begun = Begun { broker, names };
    let making = tokio::spawn(async move { create_missing(&begun.broker, &begun.names).await });
    // What becomes of it shows in the cluster's state; this only waits.
    let _ = timeout(PATIENCE, making).await;
}

/// Lets go of topics once their making has ended in any way.
struct Begun {
    broker: Arc<Broker>,
    names: Vec<TopicName>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.broker.first_uses.end(&self.names);
    }
}

fn may_make(broker: &Broker, client: &RequestContext, name: &TopicName) -> bool {
    let partitions = match &new_topic(broker, name).placement {
        Ok(Placement::Spread { partitions: Some(partitions), .. }) => *partitions,
        _ => broker.config.topics.partitions,
    };
    let outcome = broker.quotas.note_mutation(client, partitions as usize, true);
    if let Err(wait) = outcome {
        info!(
            topic = name.as_str(),
            ?wait,
            "topic not created on first use: its client's controller_mutation_rate is used up"
        );
    }
    outcome.is_ok()
}

/// Makes every topic of `names` that does not exist, and returns once this node serves them. A topic that cannot be made is
/// logged: whoever asked finds that it is not there.
pub(crate) async fn create_missing(broker: &Broker, names: &[TopicName]) {
    let image = broker.metadata.image();
    let missing: Vec<NewTopic> =
        names.iter().filter(|name| image.topic(name.as_str()).is_none()).map(|name| new_topic(broker, name)).collect();
    if missing.is_empty() {
        return;
    }
    let deadline = Some(Instant::now() + TIMEOUT);
    match broker.metadata.create_topics(&missing, creation_defaults(broker), false, deadline).await {
        Ok(results) => {
            for (topic, result) in missing.iter().zip(results) {
                match result {
                    Ok(_) => info!(topic = topic.name, "topic created on first use"),
                    // Somebody else was first, which is as good.
                    Err(CreateTopicError::Exists(_)) => {}
                    Err(error) => {
                        let (code, message): (ResponseError, String) = create_topic_error(&error);
                        warn!(topic = topic.name, ?code, message, "topic cannot be created on first use");
                    }
                }
            }
            until_visible(broker, deadline).await;
        }
        Err(error) => {
            let (code, message) = metadata_error(&error);
            warn!(?code, message, "topics cannot be created on first use");
        }
    }
}

fn new_topic(broker: &Broker, name: &TopicName) -> NewTopic {
    if is_internal(name.as_str()) {
        return internal_topic(broker, name);
    }
    let placement = Ok(Placement::Spread { partitions: None, replication_factor: None });
    NewTopic { name: name.to_string(), placement, overrides: BTreeMap::new() }
}

/// A topic of the cluster's own. A node that agrees with itself has one replica of it, whatever is asked for; among others it
/// has as many as asked for, and is not made before there are as many brokers, as in Kafka: nobody would give it more later.
fn internal_topic(broker: &Broker, name: &TopicName) -> NewTopic {
    let (transactions, shares) = (&broker.config.transactions, &broker.config.groups.share.state);
    let (wanted, min_in_sync) = match name.as_str() {
        TRANSACTIONS_TOPIC => (transactions.log_replication_factor, Some(transactions.log_min_in_sync)),
        SHARE_STATE_TOPIC => (shares.replication_factor, Some(shares.min_in_sync)),
        _ => (broker.config.groups.offsets_replication_factor, None),
    };
    let OwnTopic { partitions, overrides } = own_topic(&broker.config, name.as_str());
    let replication_factor = match broker.config.metadata {
        MetadataUrl::Embedded(_) => 1,
        MetadataUrl::Etcd { .. } => u16::try_from(wanted).unwrap_or(u16::MAX).max(1),
    };
    let mut overrides: BTreeMap<String, Option<String>> =
        overrides.into_iter().map(|(name, value)| (name, Some(value))).collect();
    if let Some(min_in_sync) = min_in_sync {
        // More than there are would keep everybody waiting.
        let min_in_sync = min_in_sync.min(u32::from(replication_factor));
        overrides.insert("min.insync.replicas".to_owned(), Some(min_in_sync.to_string()));
    }
    let placement = Placement::Spread { partitions: Some(partitions), replication_factor: Some(replication_factor) };
    NewTopic { name: name.to_string(), placement: Ok(placement), overrides }
}

/// What a topic of the cluster's own is made with, whatever brokers there are.
pub(crate) fn own_topic(config: &BrokerConfig, name: &str) -> OwnTopic {
    let shares = &config.groups.share.state;
    let (partitions, segment_bytes, settings): (_, _, &[(&str, &str)]) = match name {
        // Batches of a coordinator are kept as it made them.
        TRANSACTIONS_TOPIC => (
            config.transactions.log_partitions,
            config.transactions.log_segment_bytes,
            &[
                ("cleanup.policy", "compact"),
                ("compression.type", "uncompressed"),
                ("unclean.leader.election.enable", "false"),
            ],
        ),
        // Its coordinators delete what says nothing any more.
        SHARE_STATE_TOPIC => (
            shares.partitions,
            shares.segment_bytes,
            &[("cleanup.policy", "delete"), ("compression.type", "producer"), ("retention.ms", "-1")],
        ),
        _ => (
            config.groups.offsets_partitions,
            config.groups.offsets_segment_bytes,
            &[("cleanup.policy", "compact"), ("compression.type", "producer")],
        ),
    };
    let common = [("segment.bytes", segment_bytes.to_string()), ("remote.storage.enable", "false".to_owned())];
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let overrides = settings.chain(common.map(|(name, value)| (name.to_owned(), value))).collect();
    OwnTopic { partitions, overrides }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<TopicName> {
        names.iter().map(|name| TopicName::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_topic_is_made_by_one_at_a_time_and_charged_to_that_one_alone() {
        let (topics, mut charged) = (FirstUses::default(), Vec::new());
        let mut charge = |name: &TopicName| {
            charged.push(name.to_string());
            name.as_str() != "too-much"
        };
        assert_eq!(topics.begin(names(&["a", "too-much", "b"]), &mut charge), names(&["a", "b"]));
        assert_eq!(topics.begin(names(&["b", "c"]), &mut charge), names(&["c"]));
        topics.end(&names(&["a", "b"]));
        assert_eq!(topics.begin(names(&["b", "c", "too-much"]), &mut charge), names(&["b"]));
        assert_eq!(charged, ["a", "too-much", "b", "c", "b", "too-much"]);
    }

    #[test]
    fn no_more_are_in_the_making_than_the_bound() {
        let topics = FirstUses::default();
        let many: Vec<TopicName> = (0..=IN_THE_MAKING).map(|n| TopicName::parse(&format!("t{n}")).unwrap()).collect();
        assert_eq!(topics.begin(many.clone(), |_| true).len(), IN_THE_MAKING);
        topics.end(&many[..1]);
        assert_eq!(topics.begin(many[IN_THE_MAKING..].to_vec(), |_| true).len(), 1);
    }
}
