//! DescribeCluster (KIP-700, KIP-919, KIP-1073): the brokers and who controls them.

use kafka_protocol::{
    error::ResponseError,
    messages::{DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker},
};
use varve_metadata::image::ClusterImage;

use super::cluster_view::{ClusterView, NO_BROKER, cluster_operations, text, wire};
use crate::server::{Broker, RequestContext, authorizer::Access};

/// The endpoint types of KIP-919.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    answer(&broker.metadata.image(), context, &broker.access(context), &request)
}

fn answer(
    image: &ClusterImage,
    context: &RequestContext,
    access: &Access<'_>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    if context.api_version >= 1 && request.endpoint_type != BROKERS {
        return refuse_endpoint_type(request.endpoint_type);
    }
    let view = ClusterView { image, listener: &context.listener.0 };
    let listed = view.brokers().filter(|(broker, _)| !broker.fenced || request.include_fenced_brokers);
    let brokers = listed.map(|(broker, endpoint)| {
        DescribeClusterBroker::default()
            .with_broker_id(wire(broker.id))
            .with_host(text(&endpoint.host))
            .with_port(endpoint.port.into())
            .with_rack(broker.rack.as_deref().map(text))
            .with_is_fenced(broker.fenced)
    });
    DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(text(image.cluster_id()))
        .with_controller_id(view.controller())
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(cluster_operations(access, request.include_cluster_authorized_operations))
}

fn refuse_endpoint_type(asked: i8) -> DescribeClusterResponse {
    let (error, message) = match asked {
        CONTROLLERS => (
            ResponseError::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                .to_owned(),
        ),
        other => (ResponseError::UnsupportedEndpointType, format!("Unsupported endpoint type {other}")),
    };
    DescribeClusterResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(&message)))
        .with_controller_id(NO_BROKER)
}
