//! Versions that are newer than `kafka-protocol` knows: told in versions that it does know, or written here.

#![allow(dead_code, reason = "a version comes before the handler that answers it")]

mod compact;
pub(crate) mod describe_log_dirs;
pub(crate) mod offset_commit;
pub(crate) mod offset_fetch;
pub(crate) mod share_acknowledge;
pub(crate) mod share_fetch;
pub(crate) mod share_state;
pub(crate) mod streams_group_describe;
pub(crate) mod streams_group_heartbeat;
pub(crate) mod write_txn_markers;

pub(crate) use share_state::{describe_share_group_offsets, read_share_group_state_summary, write_share_group_state};

use super::key::ApiKey;

/// The version under which `kafka-protocol` reads and writes this request: the newest that it knows, where ours is newer
/// and laid out alike.
pub(crate) fn codec_version(key: ApiKey, version: i16) -> i16 {
    match key {
        // Version 11 only adds a timestamp to ask for (-6, KIP-1023).
        ApiKey::ListOffsets => version.min(10),
        _ => version,
    }
}

/// Bytes that a decoder of this module cannot read; the shape in front of it lets none of them pass.
#[derive(Debug, thiserror::Error)]
#[error("the request ends inside a field")]
pub(crate) struct Malformed;
