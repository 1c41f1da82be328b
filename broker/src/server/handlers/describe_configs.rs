//! DescribeConfigs (KIP-133, KIP-226, KIP-569): settings of topics, brokers, loggers, groups and client metrics.

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
    protocol::StrBytes,
};
use varve_metadata::{image::ConfigResource, model::TopicName};

use super::{
    admin_errors::plain,
    cluster_view::text,
    config_view::{ConfigView, Shown, Source},
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Access, Operation},
    broker_rules,
    log_levels::LogLevels,
    resource_type::ResourceType,
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (view, access) = (ConfigView::of(broker), broker.access(context));
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match authorize(&access, resource).and_then(|()| describe(&view, broker, resource)) {
            Ok(shown) => result.with_configs(listed(resource, shown, &request)),
            Err((error, message)) => {
                result.with_error_code(error.code()).with_error_message(message.map(StrBytes::from_string))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// Kafka's error, and its text where it gives one.
type Refusal = (ResponseError, Option<String>);

fn authorize(access: &Access<'_>, resource: &DescribeConfigsResource) -> Result<(), Refusal> {
    let Some(kind) = ResourceType::from_wire(resource.resource_type) else { return Ok(()) };
    let guard = kind.guarded_by(&resource.resource_name);
    access.require(Operation::DescribeConfigs, guard).map_err(|error| (error, Some(guard.refusal_text().to_owned())))
}

fn describe(view: &ConfigView<'_>, broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Shown>, Refusal> {
    let name = resource.resource_name.as_str();
    let invalid = |message: String| (ResponseError::InvalidRequest, Some(message));
    match ResourceType::from_wire(resource.resource_type) {
        Some(ResourceType::Topic) => {
            TopicName::parse(name).map_err(|error| (ResponseError::InvalidTopicException, Some(error.to_string())))?;
            let topic =
                view.image().topic(name).ok_or((ResponseError::UnknownTopicOrPartition, Some(String::new())))?;
            Ok(view.topic(topic))
        }
        Some(ResourceType::Broker) if name.is_empty() => Ok(view.broker_defaults()),
        Some(ResourceType::Broker) => {
            check_broker_id(broker, name, " or empty string,")?;
            Ok(view.broker())
        }
        Some(ResourceType::BrokerLogger) if name.is_empty() => Err(invalid("Broker id must not be empty".to_owned())),
        Some(ResourceType::BrokerLogger) => {
            check_broker_id(broker, name, "")?;
            Ok(loggers(&broker.log_levels))
        }
        Some(ResourceType::ClientMetrics) if name.is_empty() => {
            Err(invalid("Client metrics subscription name must not be empty".to_owned()))
        }
        Some(ResourceType::ClientMetrics) => {
            let resource = ConfigResource::ClientMetrics(name.to_owned());
            Ok(view.resource(&resource, broker_rules::client_metrics_table().iter(), Source::ClientMetrics))
        }
        Some(ResourceType::Group) if name.is_empty() => Err(invalid("Group name must not be empty".to_owned())),
        Some(ResourceType::Group) => {
            let resource = ConfigResource::Group(name.to_owned());
            Ok(view.resource(&resource, broker_rules::group_table().iter(), Source::Group))
        }
        None => {
            let (error, message) = plain(ResponseError::InvalidRequest);
            Err((error, Some(message)))
        }
    }
}

fn check_broker_id(broker: &Broker, name: &str, or: &str) -> Result<(), Refusal> {
    let refused = |message| (ResponseError::InvalidRequest, Some(message));
    match name.parse::<i32>() {
        Ok(id) if id == broker.node.to_wire() => Ok(()),
        Ok(_) => {
            let expected = broker.node;
            Err(refused(format!("Unexpected broker id, expected {expected}{or} but received {name}")))
        }
        Err(_) => Err(refused(format!("Broker id must be an integer, but it is: {name}"))),
    }
}

fn loggers(levels: &LogLevels) -> Vec<Shown> {
    let shown = levels.list().into_iter().map(|(logger, level)| Shown {
        name: StrBytes::from_string(logger),
        value: Some(text(level.kafka_name())),
        source: Source::BrokerLogger,
        sensitive: false,
        read_only: false,
        config_type: 0,
        layers: Vec::new(),
        doc: None,
    });
    shown.collect()
}

fn listed(
    resource: &DescribeConfigsResource,
    shown: Vec<Shown>,
    request: &DescribeConfigsRequest,
) -> Vec<DescribeConfigsResourceResult> {
    let asked: HashSet<&StrBytes> = resource.configuration_keys.iter().flatten().collect();
    let wanted = shown.into_iter().filter(|shown| asked.is_empty() || asked.contains(&shown.name));
    wanted.map(|shown| result(shown, request)).collect()
}

fn result(shown: Shown, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let layers = if request.include_synonyms { shown.layers } else { Vec::new() };
    let synonyms = layers.into_iter().map(|layer| {
        DescribeConfigsSynonym::default().with_name(layer.name).with_value(layer.value).with_source(layer.source.id())
    });
    DescribeConfigsResourceResult::default()
        .with_name(shown.name)
        .with_value(shown.value)
        .with_read_only(shown.read_only)
        .with_config_source(shown.source.id())
        .with_is_sensitive(shown.sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(shown.config_type)
        .with_documentation(shown.doc.filter(|_| request.include_documentation).map(text))
}
