//! UpdateFeatures (KIP-584): levels that the cluster agrees on.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
    protocol::StrBytes,
};
use varve_metadata::controller::{FeatureMove, FeatureUpdate};

use super::admin_errors::{deadline, metadata_error, plain};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// Last version that answers for each feature.
const RESULTS_UNTIL: i16 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    if let Err(error) = broker.access(context).require(Operation::Alter, Resource::Cluster) {
        let (error, message) = plain(error);
        return answer().with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)));
    }
    // Of a feature that is named twice the last counts.
    let updates: BTreeMap<&str, FeatureUpdate> = request
        .feature_updates
        .iter()
        .map(|asked| {
            let update = FeatureUpdate {
                name: asked.feature.to_string(),
                level: asked.max_version_level,
                direction: direction(context.api_version, asked),
            };
            (asked.feature.as_str(), update)
        })
        .collect();
    let updates: Vec<FeatureUpdate> = updates.into_values().collect();
    let deadline = deadline(context, request.timeout_ms);
    let outcome = broker.metadata.update_features(&updates, broker.node, request.validate_only, deadline).await;
    let refusal = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            let message =
                format!("The update failed for all features since the following feature had an error: {error}");
            Some((ResponseError::InvalidUpdateVersion, message))
        }
        Err(error) => Some(metadata_error(&error)),
    };
    match refusal {
        None if context.api_version <= RESULTS_UNTIL => {
            let result = |update: FeatureUpdate| {
                UpdatableFeatureResult::default()
                    .with_feature(StrBytes::from_string(update.name))
                    .with_error_message(Some(StrBytes::from_static_str("NONE")))
            };
            answer().with_results(updates.into_iter().map(result).collect())
        }
        None => answer(),
        Some((error, message)) => {
            answer().with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)))
        }
    }
}

fn answer() -> UpdateFeaturesResponse {
    UpdateFeaturesResponse::default().with_error_message(None)
}

fn direction(version: i16, asked: &FeatureUpdateKey) -> FeatureMove {
    match asked.upgrade_type {
        // Version 0 has a field that allows to go down; Kafka does not look at it.
        _ if version == 0 => FeatureMove::Upgrade,
        1 => FeatureMove::Upgrade,
        2 => FeatureMove::SafeDowngrade,
        3 => FeatureMove::UnsafeDowngrade,
        _ => FeatureMove::Unknown,
    }
}
