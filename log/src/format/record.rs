//! The records inside a batch, borrowed from its uncompressed payload.
//!
//! ```text
//! record:  length varint │ attributes i8 │ timestamp delta varlong │ offset delta varint
//!          │ key length varint (-1: null), key │ value length varint (-1: null), value
//!          │ header count varint, then per header: key length varint, key, value length varint (-1: null), value
//! ```
//! Varints are zigzag, as Protocol Buffers' sint32 and sint64.

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The payload ends before the record does.
    #[error("record is cut short")]
    Truncated,
    /// A varint of more than 5 (varlong: 10) bytes, or beyond 32 (64) bits.
    #[error("varint is too long")]
    Varint,
    /// A length or count below what it may be, or beyond the record's end.
    #[error("record with an impossible {field}")]
    Length {
        /// Which length or count.
        field: &'static str,
    },
    /// The parts of the record do not fill its stated length.
    #[error("record has bytes behind its last header")]
    Unfilled,
    /// Bytes are left when all records that the batch counts have been read.
    #[error("bytes behind the last record that the batch counts")]
    Trailing,
}

/// One record whose structure has been checked to the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Timestamp minus the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    /// Unused by Kafka so far.
    pub attributes: i8,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone.
    pub value: Option<&'a [u8]>,
    header_count: u32,
    headers: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Takes one record off the front of `buf`; returns it and the rest.
    ///
    /// # Errors
    /// [`RecordError`] says what does not hold.
    pub fn parse(buf: &'a [u8]) -> Result<(RecordView<'a>, &'a [u8]), RecordError> {
        let mut cursor = Cursor(buf);
        let length = usize::try_from(cursor.varint()?).map_err(|_| RecordError::Length { field: "length" })?;
        let prefix = buf.len() - cursor.0.len();
        let (body, rest) = cursor.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
        let mut cursor = Cursor(body);
        let attributes = cursor.take(1)?[0] as i8;
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key = cursor.nullable("key length")?;
        let value = cursor.nullable("value length")?;
        let header_count = cursor.varint()?;
        // A header takes two bytes at least, so a count beyond that is refused before anyone allocates for it.
        let header_count = u32::try_from(header_count)
            .ok()
            .filter(|count| *count as usize <= cursor.0.len() / 2)
            .ok_or(RecordError::Length { field: "header count" })?;
        let headers = cursor.0;
        for _ in 0..header_count {
            cursor.header()?;
        }
        if !cursor.0.is_empty() {
            return Err(RecordError::Unfilled);
        }
        let bytes = &buf[..prefix + length];
        let view = RecordView { offset_delta, timestamp_delta, attributes, key, value, header_count, headers, bytes };
        Ok((view, rest))
    }

    /// The headers in the order the producer gave them; keys may repeat.
    pub const fn headers(&self) -> Headers<'a> {
        Headers { remaining: self.header_count, rest: Cursor(self.headers) }
    }

    /// Number of headers, and their bytes behind the count.
    pub(crate) const fn raw_headers(&self) -> (usize, &'a [u8]) {
        (self.header_count as usize, self.headers)
    }

    /// The record as it lies, length prefix included.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// What stands before a record's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    /// Bytes of the whole record, its length prefix included.
    pub(super) record_bytes: usize,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
}

impl Front {
    /// Bytes that it takes at most: length, attributes, timestamp delta, offset delta.
    pub(super) const MOST_BYTES: usize = 5 + 1 + 10 + 5;

    /// Of the record that `bytes` begin with, of which they need not hold the rest.
    pub(super) fn parse(bytes: &[u8]) -> Result<Front, RecordError> {
        let mut cursor = Cursor(bytes);
        let length = usize::try_from(cursor.varint()?).map_err(|_| RecordError::Length { field: "length" })?;
        let prefix = bytes.len() - cursor.0.len();
        cursor.take(1)?;
        let timestamp_delta = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let record_bytes = prefix + length;
        if bytes.len() - cursor.0.len() > record_bytes {
            return Err(RecordError::Truncated);
        }
        Ok(Front { record_bytes, timestamp_delta, offset_delta })
    }
}

/// Iterator over a record's headers: key and value (`None` is null).
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    remaining: u32,
    rest: Cursor<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        Some(self.rest.header().expect("walked when the record was parsed"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining as usize, Some(self.remaining as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Walks the `count` records of a batch's uncompressed payload. Ends after the first error; bytes behind the last record
/// are an error too.
pub const fn records(payload: &[u8], count: u32) -> Records<'_> {
    Records { rest: payload, remaining: count }
}

/// Iterator of [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    remaining: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(remaining) = self.remaining.checked_sub(1) else {
            return (!std::mem::take(&mut self.rest).is_empty()).then_some(Err(RecordError::Trailing));
        };
        match RecordView::parse(self.rest) {
            Ok((record, rest)) => {
                (self.rest, self.remaining) = (rest, remaining);
                Some(Ok(record))
            }
            Err(error) => {
                (self.rest, self.remaining) = (&[], 0);
                Some(Err(error))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn unsigned(&mut self, bits: u32) -> Result<u64, RecordError> {
        // Most are one byte: deltas, lengths of keys, counts.
        if let Some((&byte, rest)) = self.0.split_first()
            && byte < 0x80
        {
            self.0 = rest;
            return Ok(byte.into());
        }
        self.unsigned_long(bits)
    }

    fn unsigned_long(&mut self, bits: u32) -> Result<u64, RecordError> {
        let mut value = 0u64;
        let mut shift = 0;
        for (place, &byte) in self.0.iter().enumerate() {
            let part = u64::from(byte & 0x7f);
            if shift >= bits || (bits - shift < 7 && part >> (bits - shift) != 0) {
                return Err(RecordError::Varint);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(value);
            }
            shift += 7;
        }
        Err(RecordError::Truncated)
    }

    fn varint(&mut self) -> Result<i32, RecordError> {
        let raw = self.unsigned(32)? as u32;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    fn varlong(&mut self) -> Result<i64, RecordError> {
        let raw = self.unsigned(64)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn nullable(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, RecordError> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(usize::try_from(length).map_err(|_| RecordError::Length { field })?).map(Some),
        }
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), RecordError> {
        let key = self.nullable("header key length")?.ok_or(RecordError::Length { field: "header key length" })?;
        Ok((key, self.nullable("header value length")?))
    }
}

/// Appends `value` as a zigzag varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_unsigned(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends `value` as a zigzag varlong.
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that `value` takes as a zigzag varlong (and, for the values of an `i32`, as a varint).
pub(crate) const fn varlong_len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}
