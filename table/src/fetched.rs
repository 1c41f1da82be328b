//! Bytes of an object that the caller has fetched, and where they belong.

use std::ops::Range;

use bytes::{Buf, Bytes, buf::Reader};
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};

/// Parts of one object: what a plan asked for. Ranges may come in any order and may hold more than was asked.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    object_bytes: u64,
    /// By position, not overlapping in what is looked up.
    parts: Vec<(u64, Bytes)>,
}

impl Fetched {
    /// Nothing yet, of an object of `object_bytes`.
    pub fn new(object_bytes: u64) -> Fetched {
        Fetched { object_bytes, parts: Vec::new() }
    }

    /// The whole object.
    pub fn whole(object: Bytes) -> Fetched {
        Fetched { object_bytes: object.len() as u64, parts: vec![(0, object)] }
    }

    /// Adds the bytes that lie at `position`.
    pub fn add(&mut self, position: u64, bytes: Bytes) {
        let at = self.parts.partition_point(|(start, _)| *start <= position);
        self.parts.insert(at, (position, bytes));
    }

    /// The bytes of `range`; `None` if they were not fetched in one piece.
    pub fn get(&self, range: Range<u64>) -> Option<Bytes> {
        let at = self.parts.partition_point(|(start, _)| *start <= range.start);
        // Parts may nest, so the nearest start need not be the one that reaches far enough.
        self.parts[..at].iter().rev().find_map(|(start, bytes)| {
            let from = usize::try_from(range.start - start).ok()?;
            let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
            let end = from.checked_add(len)?;
            (end <= bytes.len()).then(|| bytes.slice(from..end))
        })
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.object_bytes
    }
}

impl ChunkReader for Fetched {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Reader<Bytes>, ParquetError> {
        let at = self.parts.partition_point(|(position, _)| *position <= start);
        self.parts[..at]
            .iter()
            .rev()
            .find_map(|(position, bytes)| {
                let from = usize::try_from(start - position).ok()?;
                (from < bytes.len()).then(|| bytes.slice(from..).reader())
            })
            .ok_or_else(|| missing(start, 1))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.get(start..start.saturating_add(length as u64)).ok_or_else(|| missing(start, length))
    }
}

fn missing(start: u64, length: usize) -> ParquetError {
    ParquetError::EOF(format!("{length} bytes at {start} are not among the fetched ranges"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_where_they_belong_and_nowhere_else() {
        let mut fetched = Fetched::new(100);
        fetched.add(50, Bytes::from_static(b"fifty"));
        fetched.add(10, Bytes::from_static(b"ten to nineteen"));
        assert_eq!(fetched.get(14..16).as_deref(), Some(&b"to"[..]));
        assert_eq!(fetched.get(50..55).as_deref(), Some(&b"fifty"[..]));
        assert_eq!(fetched.get(50..56), None);
        assert_eq!(fetched.get(0..3), None);
        assert!(fetched.get_read(55).is_err());
    }
}
