//! GetTelemetrySubscriptions (KIP-714): what a client shall push, and how often.

use kafka_protocol::{
    error::ResponseError,
    messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse},
};
use varve_metadata::config::Codec;

use super::{cluster_view::text, push_telemetry::code};
use crate::server::{Broker, RequestContext};

/// Codecs that a client may use, the best first.
const CODECS: [Codec; 4] = [Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::Snappy];

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let told = match broker.telemetry.get(context, request.client_instance_id) {
        Ok(told) => told,
        Err(denied) => {
            let error: ResponseError = code(denied);
            return GetTelemetrySubscriptionsResponse::default().with_error_code(error.code());
        }
    };
    GetTelemetrySubscriptionsResponse::default()
        .with_client_instance_id(told.id)
        .with_subscription_id(told.subscription_id)
        .with_accepted_compression_types(CODECS.iter().map(|codec| codec.to_wire() as i8).collect())
        .with_push_interval_ms(told.interval.as_millis() as i32)
        .with_telemetry_max_bytes(broker.telemetry.max_bytes() as i32)
        .with_delta_temporality(true)
        .with_requested_metrics(told.metrics.iter().map(|metric| text(metric)).collect())
}
