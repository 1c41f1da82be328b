//! Requests to bytes, bytes to answers.

use std::fmt::Debug;

use anyhow::{Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader},
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use serde_json::Value;

use super::tree;

/// The version under which `kafka-protocol` reads and writes a request that it knows in an older version of the same
/// layout only.
fn codec_version(key: i16, version: i16) -> i16 {
    match ApiKey::try_from(key) {
        Ok(ApiKey::ListOffsets) => version.min(10),
        _ => version,
    }
}

/// A request's frame, length first.
///
/// # Errors
/// A field is set that this version does not have.
pub fn frame<Q: Request>(version: i16, request: &Q) -> Result<Vec<u8>> {
    let mut body = BytesMut::new();
    request.encode(&mut body, codec_version(Q::KEY, version))?;
    raw_frame(Q::KEY, version, &body)
}

/// The same around a body that is bytes already.
///
/// # Errors
/// None that a script can cause.
pub fn raw_frame(key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
    let known = ApiKey::try_from(key).ok();
    let header_version = known.map_or(2, |key| key.request_header_version(version));
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("conformance")));
    let mut frame = BytesMut::zeroed(4);
    header.encode(&mut frame, header_version)?;
    frame.extend_from_slice(body);
    let length = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.to_vec())
}

/// What an answer says, as a tree.
///
/// # Errors
/// It is not an answer to a request of that kind, version and this module's correlation id.
pub fn decode<R: Decodable + Debug>(key: i16, version: i16, mut frame: Bytes) -> Result<Value> {
    ensure!(frame.remaining() >= 4, "no header");
    ensure!(frame.get_i32() == 7, "another correlation id");
    let header_version = ApiKey::try_from(key).map_or(1, |key| key.response_header_version(version));
    if header_version >= 1 {
        ensure!(frame.try_get_u8()? == 0, "tagged fields in a header");
    }
    let answer = R::decode(&mut frame, codec_version(key, version))?;
    ensure!(frame.is_empty(), "{} bytes after the answer {answer:?}", frame.len());
    tree::parse(&format!("{answer:?}"))
}
