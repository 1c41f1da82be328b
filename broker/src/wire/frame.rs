//! One request as it arrives, one response as it leaves.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{
    api::{self, Api},
    key::ApiKey,
    shape::varint,
};

/// Bytes of the length in front of a frame.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Why a frame is not served. Each closes the connection, as it does in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The length is negative or above `socket.request.max.bytes`.
    #[error("a request of {length} bytes, where {max} are allowed (socket.request.max.bytes)")]
    Length { length: i32, max: usize },
    /// The header ends early or is no header.
    #[error("the request's header cannot be read")]
    Header,
    /// A request that this broker does not serve.
    #[error("request {key} is not served")]
    Key { key: i16 },
    /// A version that this broker does not serve.
    #[error("{key:?} is not served in version {version}")]
    Version { key: ApiKey, version: i16 },
}

/// A frame's header; what follows it is the body.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) api: &'static Api,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<StrBytes>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.key.fmt(f)
    }
}

/// Checks a frame's length before a byte is reserved for it.
///
/// # Errors
/// [`FrameError::Length`].
pub(crate) fn check_length(length: i32, max: usize) -> Result<usize, FrameError> {
    usize::try_from(length).ok().filter(|&bytes| bytes <= max).ok_or(FrameError::Length { length, max })
}

/// Takes the header off the front of a frame (without its length). The version is not checked against those served,
/// because ApiVersions answers unknown ones.
///
/// # Errors
/// [`FrameError::Key`] and [`FrameError::Header`].
pub(crate) fn parse_header(frame: &mut Bytes) -> Result<Header, FrameError> {
    let key = frame.try_get_i16().map_err(|_| FrameError::Header)?;
    let version = frame.try_get_i16().map_err(|_| FrameError::Header)?;
    let correlation_id = frame.try_get_i32().map_err(|_| FrameError::Header)?;
    let api = api::find_api(key).ok_or(FrameError::Key { key })?;
    let client_id = parse_client_id(frame)?;
    if api.shape.is_flexible(version) {
        skip_tagged_fields(frame)?;
    }
    Ok(Header { api, version, correlation_id, client_id })
}

/// Whether a frame (without its length) says of itself that it is this request.
pub(crate) fn names(frame: &[u8], key: ApiKey) -> bool {
    frame.first_chunk().is_some_and(|first| i16::from_be_bytes(*first) == key as i16)
}

fn parse_client_id(frame: &mut Bytes) -> Result<Option<StrBytes>, FrameError> {
    match frame.try_get_i16().map_err(|_| FrameError::Header)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| FrameError::Header)?;
            if length > frame.len() {
                return Err(FrameError::Header);
            }
            StrBytes::from_utf8(frame.split_to(length)).map(Some).map_err(|_| FrameError::Header)
        }
    }
}

fn skip_tagged_fields(frame: &mut Bytes) -> Result<(), FrameError> {
    let mut rest: &[u8] = frame;
    for _ in 0..varint(&mut rest).ok_or(FrameError::Header)? {
        varint(&mut rest).ok_or(FrameError::Header)?;
        let size = varint(&mut rest).ok_or(FrameError::Header)?;
        rest = rest.get(size as usize..).ok_or(FrameError::Header)?;
    }
    let used = frame.len() - rest.len();
    frame.advance(used);
    Ok(())
}

/// Writes a whole response frame, length first, behind what `out` holds.
///
/// # Errors
/// When a field is set that this version cannot carry: a mistake of a handler.
pub(crate) fn encode_response<R: Encodable>(
    out: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<(), EncodeError> {
    let start = begin_response(out, key, version, correlation_id);
    response.encode(out, version).map_err(|error| EncodeError { key, version, reason: error.to_string() })?;
    finish_response(out, start, 0);
    Ok(())
}

/// Writes an empty length and the response header; returns where the frame starts, for [`finish_response`].
pub(crate) fn begin_response(out: &mut BytesMut, key: ApiKey, version: i16, correlation_id: i32) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(&correlation_id.to_be_bytes());
    if key.has_flexible_response_header(version) {
        out.extend_from_slice(&[0]);
    }
    start
}

/// Sets the length of the frame at `start`; `elsewhere` bytes of it are sent from another place than `out`.
pub(crate) fn finish_response(out: &mut BytesMut, start: usize, elsewhere: usize) {
    let length = (out.len() - start - LENGTH_BYTES + elsewhere) as i32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// A response that cannot be written in the version it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the response to {key:?} cannot be written in version {version}: {reason}")]
pub(crate) struct EncodeError {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_checked_before_memory_is_reserved() {
        assert_eq!(check_length(100, 100), Ok(100));
        assert_eq!(check_length(101, 100), Err(FrameError::Length { length: 101, max: 100 }));
        assert_eq!(check_length(-1, 100), Err(FrameError::Length { length: -1, max: 100 }));
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        let whole = [0, 18, 0, 3, 0, 0, 0, 9, 0, 2, b'm', b'e', 1, 5, 1, 7, 0xff];
        let header = parse_header(&mut Bytes::copy_from_slice(&whole)).unwrap();
        assert_eq!((header.version, header.correlation_id, header.client_id.as_deref()), (3, 9, Some("me")));
        for end in 0..whole.len() - 1 {
            assert_eq!(parse_header(&mut Bytes::copy_from_slice(&whole[..end])).unwrap_err(), FrameError::Header);
        }
    }
}
