//! The object that many partitions share, and what it says of itself. Pure.
//!
//! ```text
//!   part part part …           each as a raw object of its own ([`crate::raw`])
//!   directory                  52 bytes each: topic id │ partition u32 │ base u64 │ end u64 │ position u64 │ length u64
//!   footer (18)                parts u32 │ format version u16 │ CRC-32C of directory and footer so far u32 │ magic "varveshr"
//! ```
//!
//! Readers find their part through the manifest alone; the directory is for who looks at the object by itself. All numbers
//! are big endian.

use std::ops::Range;

use uuid::Uuid;
use varve_metadata::model::{Offset, PartitionId, PartitionIndex, TopicId};

use super::{Fields, RawError};

/// Size of the footer.
pub const SHARED_FOOTER_BYTES: usize = 18;

/// What such an object ends with.
pub const SHARED_MAGIC: &[u8; 8] = b"varveshr";

const FORMAT: u16 = 1;
const ENTRY_BYTES: usize = 52;

/// One part of a shared object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPart {
    /// Whose records it holds.
    pub partition: PartitionId,
    /// First offset it answers for.
    pub base: Offset,
    /// First offset it no longer answers for.
    pub end: Offset,
    /// Where it lies in the object.
    pub range: Range<u64>,
}

/// What follows the parts.
pub fn encode_directory(parts: &[SharedPart]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.len() * ENTRY_BYTES + SHARED_FOOTER_BYTES);
    for part in parts {
        out.extend(part.partition.topic.to_wire().as_bytes());
        out.extend(part.partition.index.0.to_be_bytes());
        for number in [part.base.get(), part.end.get(), part.range.start, part.range.end - part.range.start] {
            out.extend(number.to_be_bytes());
        }
    }
    out.extend((parts.len() as u32).to_be_bytes());
    out.extend(FORMAT.to_be_bytes());
    out.extend(crc32c::crc32c(&out).to_be_bytes());
    out.extend(SHARED_MAGIC);
    out
}

/// Reads the directory from `tail`, the last bytes of an object of `object_bytes`.
///
/// # Errors
/// [`RawError`].
pub fn parse_directory(tail: &[u8], object_bytes: u64) -> Result<Vec<SharedPart>, RawError> {
    let footer: &[u8; SHARED_FOOTER_BYTES] =
        tail.last_chunk().ok_or(RawError::TailNeeded(SHARED_FOOTER_BYTES as u64))?;
    if &footer[10..] != SHARED_MAGIC {
        return Err(RawError::Corrupt("magic"));
    }
    let mut fields = Fields(&footer[..10]);
    let (count, version, crc) = (fields.u32()?, u16::from_be_bytes([footer[4], footer[5]]), {
        u32::from_be_bytes([footer[6], footer[7], footer[8], footer[9]])
    });
    match version {
        FORMAT => {}
        0 => return Err(RawError::Corrupt("format version 0")),
        newer => return Err(RawError::Newer(newer)),
    }
    let whole = u64::from(count) * ENTRY_BYTES as u64 + SHARED_FOOTER_BYTES as u64;
    if whole > object_bytes {
        return Err(RawError::Corrupt("directory longer than the object"));
    }
    let Some(begin) = tail.len().checked_sub(whole as usize) else { return Err(RawError::TailNeeded(whole)) };
    let checked = tail.len() - SHARED_MAGIC.len() - 4;
    if crc32c::crc32c(&tail[begin..checked]) != crc {
        return Err(RawError::Corrupt("directory checksum"));
    }
    let (entries, _) = tail[begin..tail.len() - SHARED_FOOTER_BYTES].as_chunks::<ENTRY_BYTES>();
    let limit = object_bytes - whole;
    entries.iter().map(|entry| parse_entry(entry, limit)).collect()
}

fn parse_entry(entry: &[u8; ENTRY_BYTES], limit: u64) -> Result<SharedPart, RawError> {
    let corrupt = || RawError::Corrupt("directory entry");
    let (id, rest) = entry.split_first_chunk::<16>().ok_or_else(corrupt)?;
    let mut fields = Fields(rest);
    let topic = TopicId::from_wire(Uuid::from_bytes(*id)).ok_or_else(corrupt)?;
    let index = PartitionIndex(fields.u32()?);
    let (base, end) = (fields.offset()?, fields.offset()?);
    let (start, length) = (fields.u64()?, fields.u64()?);
    let stop = start.checked_add(length).filter(|stop| *stop <= limit).ok_or_else(corrupt)?;
    Ok(SharedPart { partition: PartitionId { topic, index }, base, end, range: start..stop })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::{at, partition};

    fn parts(count: u64) -> Vec<SharedPart> {
        let part = |nth: u64| SharedPart {
            partition: partition(),
            base: at(nth),
            end: at(nth + 7),
            range: nth * 100..nth * 100 + 100,
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn the_directory_comes_back_from_the_tail() {
        for count in [0, 1, 40] {
            let (parts, mut object) = (parts(count), vec![7; count as usize * 100]);
            object.extend(encode_directory(&parts));
            assert_eq!(parse_directory(&object, object.len() as u64), Ok(parts.clone()));
            let short = &object[object.len() - SHARED_FOOTER_BYTES..];
            let outcome = parse_directory(short, object.len() as u64);
            match count {
                0 => assert_eq!(outcome, Ok(parts)),
                count => assert_eq!(outcome, Err(RawError::TailNeeded(count * 52 + 18))),
            }
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error_and_never_a_panic(place in 0usize..226, flip in 1u8..) {
            let parts = parts(4);
            let mut tail = encode_directory(&parts);
            prop_assert_eq!(tail.len(), 226);
            tail[place] ^= flip;
            let outcome = parse_directory(&tail, 400 + 226);
            prop_assert!(outcome.is_err(), "{outcome:?}");
        }

        #[test]
        fn no_bytes_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), size: u64) {
            let _ = parse_directory(&tail, size);
        }
    }
}
