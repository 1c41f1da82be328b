//! ListConfigResources (KIP-1000, KIP-1142): whatever can have settings.

use std::collections::BTreeSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse,
        list_config_resources_response::ConfigResource as Listed,
    },
};
use varve_metadata::image::ConfigResource;

use super::cluster_view::{ClusterView, text};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
    resource_type::ResourceType,
};

/// What version 0 lists, which was called ListClientMetricsResources.
const BEFORE_1142: &[ResourceType] = &[ResourceType::ClientMetrics];
const ALL: &[ResourceType] = &[
    ResourceType::Group,
    ResourceType::ClientMetrics,
    ResourceType::BrokerLogger,
    ResourceType::Broker,
    ResourceType::Topic,
];

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    if let Err(error) = broker.access(context).require(Operation::DescribeConfigs, Resource::Cluster) {
        return ListConfigResourcesResponse::default().with_error_code(error.code());
    }
    let supported = if context.api_version == 0 { BEFORE_1142 } else { ALL };
    let asked: Option<BTreeSet<ResourceType>> = match request.resource_types.as_slice() {
        [] => Some(supported.iter().copied().collect()),
        raw => raw
            .iter()
            .map(|raw| ResourceType::from_wire(*raw).filter(|resource| supported.contains(resource)))
            .collect(),
    };
    let Some(asked) = asked else {
        return ListConfigResourcesResponse::default().with_error_code(ResponseError::UnsupportedVersion.code());
    };
    let wanted = ALL.iter().filter(|resource| asked.contains(resource));
    let listed = wanted.flat_map(|resource| {
        let names = names(broker, context, *resource).into_iter();
        names.map(|name| Listed::default().with_resource_name(text(&name)).with_resource_type(resource.to_wire()))
    });
    ListConfigResourcesResponse::default().with_config_resources(listed.collect())
}

fn names(broker: &Broker, context: &RequestContext, resource: ResourceType) -> Vec<String> {
    let image = broker.metadata.image();
    let configured = |name: fn(&ConfigResource) -> Option<&String>| -> Vec<String> {
        image.configs().iter().filter_map(|(resource, _)| name(resource).cloned()).collect()
    };
    match resource {
        ResourceType::Group => configured(|resource| match resource {
            ConfigResource::Group(name) => Some(name),
            _ => None,
        }),
        ResourceType::ClientMetrics => configured(|resource| match resource {
            ConfigResource::ClientMetrics(name) => Some(name),
            _ => None,
        }),
        ResourceType::BrokerLogger | ResourceType::Broker => {
            let view = ClusterView { image: &image, listener: &context.listener.0 };
            view.brokers().map(|(broker, _)| broker.id.to_string()).collect()
        }
        ResourceType::Topic => image.topics().keys().map(ToString::to_string).collect(),
    }
}
