//! The pieces of flexible versions (KIP-482) that are read and written by hand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Malformed;
use crate::wire::shape::varint;

/// Number of elements; null counts as none.
pub(super) fn get_count(bytes: &mut Bytes) -> Result<usize, Malformed> {
    Ok(get_nullable_count(bytes)?.unwrap_or(0))
}

/// Number of elements, or null.
pub(super) fn get_nullable_count(bytes: &mut Bytes) -> Result<Option<usize>, Malformed> {
    Ok((get_varint(bytes)? as usize).checked_sub(1))
}

/// A string that is not null.
pub(super) fn get_text(bytes: &mut Bytes) -> Result<StrBytes, Malformed> {
    get_nullable_text(bytes)?.ok_or(Malformed)
}

/// A string or null.
pub(super) fn get_nullable_text(bytes: &mut Bytes) -> Result<Option<StrBytes>, Malformed> {
    let Some(length) = get_nullable_count(bytes)? else { return Ok(None) };
    if length > bytes.len() {
        return Err(Malformed);
    }
    StrBytes::from_utf8(bytes.split_to(length)).map(Some).map_err(|_| Malformed)
}

/// A topic id.
pub(super) fn get_uuid(bytes: &mut Bytes) -> Result<Uuid, Malformed> {
    bytes.try_get_u128().map(Uuid::from_u128).map_err(|_| Malformed)
}

/// A number, by the method that takes one of its width.
pub(super) fn get_number<N>(
    bytes: &mut Bytes,
    take: impl FnOnce(&mut Bytes) -> Result<N, bytes::TryGetError>,
) -> Result<N, Malformed> {
    take(bytes).map_err(|_| Malformed)
}

/// Elements; null is none of that.
pub(super) fn get_list<T>(
    bytes: &mut Bytes,
    element: impl FnMut(&mut Bytes) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    get_nullable_list(bytes, element)?.ok_or(Malformed)
}

/// Elements, or null. Nothing is reserved for what a count claims.
pub(super) fn get_nullable_list<T>(
    bytes: &mut Bytes,
    mut element: impl FnMut(&mut Bytes) -> Result<T, Malformed>,
) -> Result<Option<Vec<T>>, Malformed> {
    let Some(count) = get_nullable_count(bytes)? else { return Ok(None) };
    let mut elements = Vec::new();
    for _ in 0..count {
        elements.push(element(bytes)?);
    }
    Ok(Some(elements))
}

/// A struct, or null: one byte says which.
pub(super) fn get_nullable_struct<T>(
    bytes: &mut Bytes,
    content: impl FnOnce(&mut Bytes) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    let marker = get_number(bytes, Bytes::try_get_i8)?;
    if marker < 0 { Ok(None) } else { content(bytes).map(Some) }
}

/// Passes over tagged fields, none of which is known here.
pub(super) fn skip_tags(bytes: &mut Bytes) -> Result<(), Malformed> {
    for _ in 0..get_varint(bytes)? {
        get_varint(bytes)?;
        let size = get_varint(bytes)? as usize;
        if size > bytes.len() {
            return Err(Malformed);
        }
        bytes.advance(size);
    }
    Ok(())
}

fn get_varint(bytes: &mut Bytes) -> Result<u32, Malformed> {
    let mut rest: &[u8] = bytes;
    let value = varint(&mut rest).ok_or(Malformed)?;
    let used = bytes.len() - rest.len();
    bytes.advance(used);
    Ok(value)
}

/// Writes a number of elements.
pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    put_varint(out, count as u32 + 1);
}

/// Writes a string.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

/// Writes a string, or null.
pub(super) fn put_nullable_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => put_varint(out, 0),
    }
}

/// Writes elements.
pub(super) fn put_list<T>(out: &mut BytesMut, elements: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    put_count(out, elements.len());
    elements.iter().for_each(|element| put(out, element));
}

/// Writes elements, or null.
pub(super) fn put_nullable_list<T>(out: &mut BytesMut, elements: Option<&[T]>, put: impl FnMut(&mut BytesMut, &T)) {
    match elements {
        Some(elements) => put_list(out, elements, put),
        None => put_varint(out, 0),
    }
}

/// Writes that there are no tagged fields.
pub(super) fn put_no_tags(out: &mut BytesMut) {
    out.put_u8(0);
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
