//! ApiVersions (KIP-35, KIP-511, KIP-584): what this broker serves.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
    protocol::StrBytes,
};

use crate::{
    server::{Broker, RequestContext},
    wire::api::SERVED,
};

/// Smallest and largest `metadata.version` that Kafka 4.3 supports (3.3-IV3 and 4.3-IV0). Tools read from it which
/// release a broker corresponds to.
const METADATA_VERSION: (i16, i16) = (7, 30);

pub(crate) async fn handle(
    _broker: &Broker,
    context: &RequestContext,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    if context.api_version >= 3
        && !(is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version))
    {
        return refusal(ResponseError::InvalidRequest);
    }
    let (oldest, newest) = METADATA_VERSION;
    let name = StrBytes::from_static_str("metadata.version");
    ApiVersionsResponse::default()
        .with_api_keys(SERVED.iter().map(|api| range(api.key, api.advertised_min, api.max)).collect())
        .with_supported_features(vec![
            SupportedFeatureKey::default().with_name(name.clone()).with_min_version(oldest).with_max_version(newest),
        ])
        .with_finalized_features_epoch(0)
        .with_finalized_features(vec![
            FinalizedFeatureKey::default()
                .with_name(name)
                .with_min_version_level(newest)
                .with_max_version_level(newest),
        ])
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
}
