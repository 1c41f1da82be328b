//! Versions that are newer than `kafka-protocol` knows, told in versions that it does know.

use kafka_protocol::messages::ApiKey;

/// The version under which `kafka-protocol` decodes and encodes this request: the newest that it knows where ours is
/// newer and its *request* is laid out alike. Responses that grew are completed by their own function here.
pub(crate) fn codec_version(key: ApiKey, version: i16) -> i16 {
    match key {
        // Version 11 only adds a timestamp to ask for (-6, KIP-1023).
        ApiKey::ListOffsets => version.min(10),
        ApiKey::DescribeLogDirs => version.min(4),
        _ => version,
    }
}
