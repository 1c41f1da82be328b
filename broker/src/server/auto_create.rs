//! Topics that come into being because somebody asked for them (`auto.create.topics.enable`), and those that the cluster
//! makes for itself.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::error::ResponseError;
use tokio::time::Instant;
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

/// Makes every topic of `names` that does not exist, and returns once this node serves them. A topic that cannot be made is
/// logged: whoever asked finds that it is not there. What is made because a client named it counts against `client`'s quota
/// on changes (KIP-599); what a coordinator needs is nobody's.
pub(crate) async fn create_missing(broker: &Broker, names: Vec<TopicName>, client: Option<&RequestContext>) {
    let image = broker.metadata.image();
    let mut missing: Vec<NewTopic> =
        names.iter().filter(|name| image.topic(name.as_str()).is_none()).map(|name| new_topic(broker, name)).collect();
    if let Some(client) = client {
        missing.retain(|topic| may_make(broker, client, topic));
    }
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

fn may_make(broker: &Broker, client: &RequestContext, topic: &NewTopic) -> bool {
    let partitions = match &topic.placement {
        Ok(Placement::Spread { partitions: Some(partitions), .. }) => *partitions,
        _ => broker.config.topics.partitions,
    };
    let outcome = broker.quotas.note_mutation(client, partitions as usize, true);
    if let Err(wait) = outcome {
        info!(
            topic = topic.name,
            ?wait,
            "topic not created on first use: its client's controller_mutation_rate is used up"
        );
    }
    outcome.is_ok()
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
