//! Walks a request body before it is decoded.
//!
//! The generated decoders of `kafka-protocol` reserve memory for as many elements as the bytes claim, so a body of ten
//! bytes could ask for gigabytes. A [`Shape`] says what a request looks like in each version; [`Shape::check`] follows it
//! over the bytes, without allocating, and refuses a body that is shorter than its counts say or that holds
//! more elements than a request may. What passed cannot make the decoder reserve more than [`MAX_ELEMENTS`] elements.

use bytes::Buf;

#[cfg(test)]
mod proof;

/// Most array elements, all levels counted together, of one request. Each costs a decoder some 150 bytes at most, so
/// that a hostile request is held to about 40 MB; Kafka's clients stay far below (a fetch of 100,000 partitions).
pub(crate) const MAX_ELEMENTS: usize = 1 << 18;
/// Most tagged fields that nobody knows, in one request: each becomes an entry in a map.
const MAX_UNKNOWN_TAGS: usize = 1 << 12;

/// Layout of one request over all its versions.
pub(crate) struct Shape {
    /// First version with compact lengths and tagged fields (KIP-482).
    pub(super) flexible_since: i16,
    /// Fields in wire order.
    pub(super) fields: &'static [Field],
}

/// One field, the versions that carry it, and its tag if it is a tagged one.
pub(super) struct Field {
    since: i16,
    until: i16,
    tag: Option<u32>,
    kind: Kind,
}

/// What a field's bytes look like.
pub(super) enum Kind {
    /// A number, boolean or uuid of that many bytes.
    Fixed(usize),
    /// A string, null or not (the decoder knows which it takes).
    Text,
    /// Bytes or records, null or not.
    Blob,
    /// A count and that many elements, null or not.
    Array(&'static Kind),
    /// A count and that many elements, never null, though the decoder would take it.
    List(&'static Kind),
    /// Fields, then tagged fields in flexible versions.
    Struct(&'static [Field]),
    /// One byte, negative for null, then the struct.
    NullableStruct(&'static [Field]),
}

pub(super) const fn always(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}
pub(super) const fn since(since: i16, kind: Kind) -> Field {
    between(since, i16::MAX, kind)
}
pub(super) const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, tag: None, kind }
}
pub(super) const fn tagged(tag: u32, since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, tag: Some(tag), kind }
}

/// Why a body is not what its header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    /// A field or count needs more bytes than there are.
    #[error("the request ends inside a field")]
    Short,
    /// A length below -1, or -1 where there is no null.
    #[error("a length of {0}")]
    Length(i32),
    /// More elements than [`MAX_ELEMENTS`], or too many unknown tags.
    #[error("more elements than a request may hold")]
    Elements,
    /// A tagged field whose size differs from its content.
    #[error("tagged field {0} is not as long as it says")]
    Tag(u32),
}

impl Shape {
    /// Whether `version` uses compact lengths and tagged fields.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_since
    }

    /// Follows this shape over `body`; returns how many bytes are left behind the last field. They are ignored, as Kafka
    /// does: librdkafka's Metadata for all topics leaves three.
    ///
    /// # Errors
    /// [`ShapeError`]: the decoder must not see this body.
    pub(crate) fn check(&self, version: i16, body: &[u8]) -> Result<usize, ShapeError> {
        let flexible = self.is_flexible(version);
        let mut walk = Walk { rest: body, version, flexible, elements: MAX_ELEMENTS, unknown_tags: MAX_UNKNOWN_TAGS };
        walk.fields(self.fields)?;
        Ok(walk.rest.len())
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
    unknown_tags: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), ShapeError> {
        for field in fields {
            if field.tag.is_none() && self.carries(field) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tagged_fields(fields) } else { Ok(()) }
    }

    fn carries(&self, field: &Field) -> bool {
        (field.since..=field.until).contains(&self.version)
    }

    fn kind(&mut self, kind: &'static Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(bytes) => self.skip(*bytes),
            Kind::Text if self.flexible => self.compact().and_then(|length| self.skip(length.unwrap_or(0))),
            Kind::Text => {
                let length = self.rest.try_get_i16().map_err(|_| ShapeError::Short)?;
                self.skip(plain_length(i32::from(length))?.unwrap_or(0))
            }
            Kind::Blob => self.length().and_then(|length| self.skip(length.unwrap_or(0))),
            Kind::Array(element) => self.array(element, true),
            Kind::List(element) => self.array(element, false),
            Kind::Struct(fields) => self.fields(fields),
            Kind::NullableStruct(fields) => {
                let present = self.rest.try_get_i8().map_err(|_| ShapeError::Short)?;
                if present < 0 { Ok(()) } else { self.fields(fields) }
            }
        }
    }

    fn array(&mut self, element: &'static Kind, nullable: bool) -> Result<(), ShapeError> {
        let count = self.length()?.or(nullable.then_some(0)).ok_or(ShapeError::Length(-1))?;
        // Every element takes a byte or more, so a larger count cannot be true.
        if count > self.rest.len() {
            return Err(ShapeError::Short);
        }
        self.elements = self.elements.checked_sub(count).ok_or(ShapeError::Elements)?;
        if let Kind::Fixed(bytes) = element {
            return self.skip(count * bytes);
        }
        for _ in 0..count {
            self.kind(element)?;
        }
        Ok(())
    }

    fn tagged_fields(&mut self, fields: &'static [Field]) -> Result<(), ShapeError> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            if size > self.rest.len() {
                return Err(ShapeError::Short);
            }
            match fields.iter().find(|field| field.tag == Some(tag) && self.carries(field)) {
                Some(field) => {
                    let before = self.rest.len();
                    self.kind(&field.kind)?;
                    if before - self.rest.len() != size {
                        return Err(ShapeError::Tag(tag));
                    }
                }
                None => {
                    self.unknown_tags = self.unknown_tags.checked_sub(1).ok_or(ShapeError::Elements)?;
                    self.skip(size)?;
                }
            }
        }
        Ok(())
    }

    /// A length in the request's form; `None` is null.
    fn length(&mut self) -> Result<Option<usize>, ShapeError> {
        if self.flexible {
            self.compact()
        } else {
            plain_length(self.rest.try_get_i32().map_err(|_| ShapeError::Short)?)
        }
    }

    fn compact(&mut self) -> Result<Option<usize>, ShapeError> {
        Ok((self.varint()? as usize).checked_sub(1))
    }

    fn varint(&mut self) -> Result<u32, ShapeError> {
        varint(&mut self.rest).ok_or(ShapeError::Short)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), ShapeError> {
        self.rest = self.rest.get(bytes..).ok_or(ShapeError::Short)?;
        Ok(())
    }
}

fn plain_length(length: i32) -> Result<Option<usize>, ShapeError> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| ShapeError::Length(length)),
    }
}

/// Takes an unsigned varint off the front, exactly as the decoder reads it: at most five bytes, and what a fifth byte
/// holds beyond 32 bits is dropped. `None` if the bytes end.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for place in 0..5 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= (u32::from(byte) & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAMES: Shape = Shape { flexible_since: 1, fields: &[always(Kind::Array(&Kind::Text))] };

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_anything_is_reserved() {
        assert_eq!(NAMES.check(0, &i32::MAX.to_be_bytes()), Err(ShapeError::Short));
        assert_eq!(NAMES.check(1, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(ShapeError::Short));
        assert_eq!(NAMES.check(0, &(-2i32).to_be_bytes()), Err(ShapeError::Length(-2)));
    }

    #[test]
    fn elements_are_counted_over_the_whole_request() {
        let mut body = (MAX_ELEMENTS as i32 + 1).to_be_bytes().to_vec();
        body.resize(4 + 2 * (MAX_ELEMENTS + 1), 0);
        assert_eq!(NAMES.check(0, &body), Err(ShapeError::Elements));
    }

    #[test]
    fn bytes_behind_the_last_field_are_counted() {
        assert_eq!(NAMES.check(0, &[0, 0, 0, 0, 7]), Ok(1));
        assert_eq!(NAMES.check(1, &[1, 0]), Ok(0));
    }
}
