//! Metadata: brokers, topics, and who leads which partition, as the client's listener sees them.

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        MetadataRequest, MetadataResponse,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use uuid::Uuid;
use varve_metadata::{
    image::{ClusterImage, TopicImage, is_internal},
    model::{TopicId, TopicName},
};

use super::cluster_view::{ClusterView, NOT_ASKED, cluster_operations, text, topic_name, wire};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Access, Operation, Resource},
    auto_create,
};

/// What a request asks for.
enum Asked {
    All,
    /// Each once, in the order of the request.
    Topics(Vec<Wanted>),
}

enum Wanted {
    Name(String),
    Id(Uuid),
    /// Not the caller's to see, or to make.
    Denied {
        name: String,
        is_internal: bool,
    },
    DeniedId(Uuid),
}

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let mut asked = match parse(context, &request) {
        Ok(asked) => asked,
        Err(error) => return refused(&request, error),
    };
    let access = broker.access(context);
    // As in Kafka, a topic that the request makes is in the next answer: whoever only looks (whether what was deleted is gone,
    // say, in a version that cannot forbid creation) is not shown what looking made.
    let image = broker.metadata.image();
    if let Asked::Topics(wanted) = &mut asked {
        let creates = request.allow_auto_topic_creation && broker.config.topics.auto_create;
        if access.is_checked() {
            deny(&access, &image, creates, wanted);
        }
        if creates {
            let missing = wanted.iter().filter_map(|wanted| match wanted {
                Wanted::Name(name) if image.topic(name).is_none() => TopicName::parse(name).ok(),
                Wanted::Name(_) | Wanted::Id(_) | Wanted::Denied { .. } | Wanted::DeniedId(_) => None,
            });
            auto_create::create_for(broker, context, missing.collect()).await;
        }
    }
    answer(&image, context, &access, &request, &asked)
}

/// Marks what the caller may not describe, before anything tells whether it exists, and what it may not make.
fn deny(access: &Access<'_>, image: &ClusterImage, creates: bool, wanted: &mut [Wanted]) {
    let creates_any = creates && access.shows(Operation::Create, Resource::Cluster);
    for wanted in wanted {
        match wanted {
            Wanted::Name(name) if !access.allows(Operation::Describe, Resource::Topic(name)) => {
                *wanted = Wanted::Denied { name: std::mem::take(name), is_internal: false };
            }
            Wanted::Name(name)
                if creates
                    && !creates_any
                    && image.topic(name).is_none()
                    && !access.allows(Operation::Create, Resource::Topic(name)) =>
            {
                *wanted = Wanted::Denied { is_internal: is_internal(name), name: std::mem::take(name) };
            }
            Wanted::Id(id) => {
                let found = TopicId::from_wire(*id).and_then(|id| image.topic_by_id(id));
                let visible =
                    |topic: &TopicImage| access.allows(Operation::Describe, Resource::Topic(topic.name.as_str()));
                if found.is_some_and(|topic| !visible(topic)) {
                    *wanted = Wanted::DeniedId(*id);
                }
            }
            Wanted::Name(_) | Wanted::Denied { .. } | Wanted::DeniedId(_) => {}
        }
    }
}

/// INVALID_REQUEST if a name is missing that only version 12 and later may leave out, or there is an id before version 12;
/// UNKNOWN_SERVER_ERROR, as Kafka has it, if a topic has neither name nor id.
fn parse(context: &RequestContext, request: &MetadataRequest) -> Result<Asked, ResponseError> {
    let topics = match &request.topics {
        None => return Ok(Asked::All),
        Some(topics) if topics.is_empty() && context.api_version == 0 => return Ok(Asked::All),
        Some(topics) => topics,
    };
    if context.api_version < 12 && topics.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil()) {
        return Err(ResponseError::InvalidRequest);
    }
    // One id makes it a request by ids, as in Kafka: the names beside it are not looked at.
    let mut seen = HashSet::new();
    if topics.iter().any(|topic| !topic.topic_id.is_nil()) {
        let ids = topics.iter().map(|topic| topic.topic_id).filter(|id| !id.is_nil() && seen.insert(*id));
        return Ok(Asked::Topics(ids.map(Wanted::Id).collect()));
    }
    if topics.iter().any(|topic| topic.name.is_none()) {
        return Err(ResponseError::UnknownServerError);
    }
    let mut seen = HashSet::new();
    let names = topics.iter().filter_map(|topic| topic.name.as_ref()).filter(|name| seen.insert(*name));
    Ok(Asked::Topics(names.map(|name| Wanted::Name(name.to_string())).collect()))
}

fn refused(request: &MetadataRequest, error: ResponseError) -> MetadataResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
    });
    MetadataResponse::default().with_topics(topics.collect()).with_error_code(error.code())
}

fn answer(
    image: &ClusterImage,
    context: &RequestContext,
    access: &Access<'_>,
    request: &MetadataRequest,
    asked: &Asked,
) -> MetadataResponse {
    let view = ClusterView { image, listener: &context.listener.0 };
    let alive = view.brokers().filter(|(broker, _)| !broker.fenced);
    let brokers = alive.map(|(broker, endpoint)| {
        MetadataResponseBroker::default()
            .with_node_id(wire(broker.id))
            .with_host(text(&endpoint.host))
            .with_port(endpoint.port.into())
            .with_rack(broker.rack.as_deref().map(text))
    });
    let operations = |name: &str| match request.include_topic_authorized_operations {
        true => access.authorized_operations(Resource::Topic(name)),
        false => NOT_ASKED,
    };
    let describe = |topic: &TopicImage| {
        describe(view, context, topic).with_topic_authorized_operations(operations(topic.name.as_str()))
    };
    let shown = |topic: &&TopicImage| access.shows(Operation::Describe, Resource::Topic(topic.name.as_str()));
    let topics = match asked {
        Asked::All => image.topics().values().map(AsRef::as_ref).filter(shown).map(describe).collect(),
        Asked::Topics(wanted) => wanted
            .iter()
            .map(|wanted| match wanted {
                Wanted::Name(name) => {
                    let missing = || no_such_name(name).with_topic_authorized_operations(operations(name));
                    image.topic(name).map_or_else(missing, |topic| describe(topic))
                }
                Wanted::Denied { name, is_internal } => {
                    denied().with_name(Some(topic_name(name))).with_is_internal(*is_internal)
                }
                Wanted::DeniedId(id) => denied().with_name(None).with_topic_id(*id),
                Wanted::Id(id) => {
                    let found = TopicId::from_wire(*id).and_then(|id| image.topic_by_id(id));
                    found.map_or_else(|| no_such_id(*id), |topic| describe(topic))
                }
            })
            .collect(),
    };
    let cluster_asked = request.include_cluster_authorized_operations && (8..=10).contains(&context.api_version);
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(image.cluster_id())))
        .with_controller_id(view.controller())
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster_operations(access, cluster_asked))
}

fn describe(view: ClusterView<'_>, context: &RequestContext, topic: &TopicImage) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).map(|(partition, index)| {
        let seen = view.partition(partition, context.api_version == 0);
        // Before version 6 clients did not know what a missing listener is.
        let error = seen.error.map(|error| match error {
            ResponseError::ListenerNotFound if context.api_version < 6 => ResponseError::LeaderNotAvailable,
            other => other,
        });
        MetadataResponsePartition::default()
            .with_error_code(error.map_or(0, |error| error.code()))
            .with_partition_index(index)
            .with_leader_id(seen.leader)
            .with_leader_epoch(seen.leader_epoch)
            .with_replica_nodes(seen.replicas)
            .with_isr_nodes(seen.isr)
            .with_offline_replicas(seen.offline)
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic.name.as_str())))
        .with_topic_id(topic.id.to_wire())
        .with_is_internal(topic.internal)
        .with_partitions(partitions.collect())
}

fn denied() -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(ResponseError::TopicAuthorizationFailed.code())
        .with_topic_authorized_operations(NOT_ASKED)
}

fn no_such_name(name: &str) -> MetadataResponseTopic {
    let error = match TopicName::parse(name) {
        Ok(_) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_is_internal(is_internal(name))
}

fn no_such_id(id: Uuid) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(ResponseError::UnknownTopicId.code())
        .with_name(None)
        .with_topic_id(id)
        .with_topic_authorized_operations(NOT_ASKED)
}
