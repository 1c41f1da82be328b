//! ApiVersions (KIP-35, KIP-511, KIP-584): what this broker serves.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};
use varve_metadata::{image::ClusterImage, model::Feature, store::Revision};

use super::cluster_view::text;
use crate::{
    server::{Broker, RequestContext, telemetry::Peer},
    wire::{api::SERVED, key::ApiKey},
};

/// First version whose clients take a smallest level of 0 (KAFKA-17011).
const MIN_ZERO_SINCE: i16 = 4;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    note_software(&context.connection, context.api_version, &request);
    answer(&broker.metadata.image(), context.api_version, &request)
}

/// Remembers with the connection which library its client is (KIP-511).
pub(in crate::server) fn note_software(peer: &Peer, api_version: i16, request: &ApiVersionsRequest) {
    if api_version >= 3 && names_software(request) {
        peer.set_software(&request.client_software_name, &request.client_software_version);
    }
}

/// The same to everybody: it is asked before anybody is known.
pub(in crate::server) fn answer(
    image: &ClusterImage,
    api_version: i16,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    if api_version >= 3 && !names_software(request) {
        return refusal(ResponseError::InvalidRequest);
    }
    // Clients of earlier versions take a smallest level of 0 for an error.
    let listed = |feature: &&Feature| api_version >= MIN_ZERO_SINCE || feature.min > 0;
    let supported = Feature::ALL.iter().filter(listed).map(|feature| {
        SupportedFeatureKey::default()
            .with_name(text(feature.name))
            .with_min_version(feature.min as i16)
            .with_max_version(feature.max as i16)
    });
    let finalized = Feature::ALL.iter().filter_map(|feature| {
        let level = image.feature_level(feature.name) as i16;
        let key = FinalizedFeatureKey::default().with_name(text(feature.name));
        (level > 0).then(|| key.with_min_version_level(level).with_max_version_level(level))
    });
    let Revision(revision) = image.revision();
    ApiVersionsResponse::default()
        .with_api_keys(SERVED.iter().map(|api| range(api.key, api.advertised_min, api.max)).collect())
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(revision as i64)
        .with_finalized_features(finalized.collect())
}

/// The answer to a request that is refused; it says which versions of ApiVersions itself would be answered.
pub(in crate::server) fn refusal(error: ResponseError) -> ApiVersionsResponse {
    let response = ApiVersionsResponse::default().with_error_code(error.code());
    match error {
        ResponseError::UnsupportedVersion => response.with_api_keys(
            SERVED
                .iter()
                .filter(|api| api.key == ApiKey::ApiVersions)
                .map(|api| range(api.key, api.min, api.max))
                .collect(),
        ),
        _ => response,
    }
}

fn range(key: ApiKey, min: i16, max: i16) -> ApiVersion {
    ApiVersion::default().with_api_key(key as i16).with_min_version(min).with_max_version(max)
}

fn names_software(request: &ApiVersionsRequest) -> bool {
    is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version)
}

/// Letters, digits, `-` and `.`, the first and last a letter or digit (KIP-511).
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_those_of_kip_511() {
        for name in ["apache-kafka-java", "4.3.0", "x"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-x", "x.", "a b", "ü"] {
            assert!(!is_software_name(name), "{name}");
        }
    }

    #[test]
    fn software_is_noted_where_its_request_says_both_and_is_not_refused() {
        let said = |version, (name, number): (&str, &str)| {
            let request = ApiVersionsRequest::default();
            let request = request.with_client_software_name(text(name)).with_client_software_version(text(number));
            let peer = Peer::default();
            note_software(&peer, version, &request);
            peer.software().0
        };
        assert_eq!(said(3, ("librdkafka", "2.5")), "librdkafka");
        assert_eq!(said(3, ("librdkafka", "not a version")), "unknown");
        assert_eq!(said(2, ("librdkafka", "2.5")), "unknown", "that version has no such fields");
        assert_eq!(said(3, (&"x".repeat(1000), "2.5")).len(), 255);
    }
}
