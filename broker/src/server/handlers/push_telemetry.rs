//! PushTelemetry (KIP-714): metrics that a client measured.

use kafka_protocol::{
    error::ResponseError,
    messages::{PushTelemetryRequest, PushTelemetryResponse},
};

use crate::{
    server::{Broker, RequestContext},
    telemetry::{Denied, Pushed},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: PushTelemetryRequest,
) -> PushTelemetryResponse {
    let pushed = Pushed {
        id: request.client_instance_id,
        subscription_id: request.subscription_id,
        is_last: request.terminating,
        codec: request.compression_type,
        metrics: &request.metrics,
    };
    let outcome = broker.telemetry.push(context, &pushed);
    PushTelemetryResponse::default().with_error_code(outcome.err().map_or(0, |denied| code(denied).code()))
}

/// The only place where a [`Denied`] becomes Kafka's.
pub(super) fn code(denied: Denied) -> ResponseError {
    match denied {
        Denied::Invalid => ResponseError::InvalidRequest,
        Denied::TooSoon => ResponseError::ThrottlingQuotaExceeded,
        Denied::UnknownSubscription => ResponseError::UnknownSubscriptionId,
        Denied::UnknownCodec => ResponseError::UnsupportedCompressionType,
        Denied::TooLarge => ResponseError::TelemetryTooLarge,
        Denied::Unreadable => ResponseError::InvalidRecord,
    }
}
