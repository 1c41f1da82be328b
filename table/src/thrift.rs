//! Guards the decoder of Parquet's footer, which reserves memory for as many list elements as a list claims to have.
//!
//! The footer is Thrift's compact protocol. It is walked once, without allocating, by the types that the format gives to each
//! field (apache/parquet-format, `parquet.thrift`): a decoder that goes by field numbers then finds what was walked.

use crate::varint::take_unsigned;

/// Elements of all lists together: more than a hundred thousand column chunks.
const MOST_ELEMENTS: usize = 1 << 20;
/// Structs within structs; ours have five.
const DEEPEST: usize = 12;

/// What a field holds.
enum Kind {
    Bool,
    Byte,
    Int,
    Binary,
    List(&'static Kind),
    Struct(&'static [(u64, Kind)]),
}

use Kind::{Binary, Bool, Byte, Int, List, Struct};

const EMPTY: Kind = Struct(&[]);
const TIME: Kind = Struct(&[(1, Bool), (2, Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);
const LOGICAL_TYPE: Kind = Struct(&[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Struct(&[(1, Int), (2, Int)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Struct(&[(1, Byte), (2, Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Struct(&[(1, Byte)])),
    (17, Struct(&[(1, Binary)])),
    (18, Struct(&[(1, Binary), (2, Int)])),
]);
const SCHEMA_ELEMENT: Kind = Struct(&[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Binary),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, Int),
    (9, Int),
    (10, LOGICAL_TYPE),
]);
const KEY_VALUE: Kind = Struct(&[(1, Binary), (2, Binary)]);
const STATISTICS: Kind =
    Struct(&[(1, Binary), (2, Binary), (3, Int), (4, Int), (5, Binary), (6, Binary), (7, Bool), (8, Bool)]);
const SIZE_STATISTICS: Kind = Struct(&[(1, Int), (2, List(&Int)), (3, List(&Int))]);
const ENCODING_STATS: Kind = Struct(&[(1, Int), (2, Int), (3, Int)]);
// Field 17 (geospatial statistics) and those of encryption are of no column of ours: no decoder may get to see them.
const COLUMN_META_DATA: Kind = Struct(&[
    (1, Int),
    (2, List(&Int)),
    (3, List(&Binary)),
    (4, Int),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, List(&KEY_VALUE)),
    (9, Int),
    (10, Int),
    (11, Int),
    (12, STATISTICS),
    (13, List(&ENCODING_STATS)),
    (14, Int),
    (15, Int),
    (16, SIZE_STATISTICS),
]);
const COLUMN_CHUNK: Kind =
    Struct(&[(1, Binary), (2, Int), (3, COLUMN_META_DATA), (4, Int), (5, Int), (6, Int), (7, Int)]);
const SORTING_COLUMN: Kind = Struct(&[(1, Int), (2, Bool), (3, Bool)]);
const ROW_GROUP: Kind =
    Struct(&[(1, List(&COLUMN_CHUNK)), (2, Int), (3, Int), (4, List(&SORTING_COLUMN)), (5, Int), (6, Int), (7, Int)]);
const COLUMN_ORDER: Kind = Struct(&[(1, EMPTY)]);
const FILE_META_DATA: Kind = Struct(&[
    (1, Int),
    (2, List(&SCHEMA_ELEMENT)),
    (3, Int),
    (4, List(&ROW_GROUP)),
    (5, List(&KEY_VALUE)),
    (6, Binary),
    (7, List(&COLUMN_ORDER)),
]);
const PAGE_LOCATION: Kind = Struct(&[(1, Int), (2, Int), (3, Int)]);
const OFFSET_INDEX: Kind = Struct(&[(1, List(&PAGE_LOCATION)), (2, List(&Int))]);

/// Whether `bytes` begin with a whole `FileMetaData` whose lists hold what they claim.
pub(crate) fn is_file_meta_data(bytes: &[u8]) -> bool {
    Walk { rest: bytes, elements: 0 }.value(&FILE_META_DATA, 0).is_some()
}

/// The same of an `OffsetIndex`.
pub(crate) fn is_offset_index(bytes: &[u8]) -> bool {
    Walk { rest: bytes, elements: 0 }.value(&OFFSET_INDEX, 0).is_some()
}

struct Walk<'a> {
    rest: &'a [u8],
    elements: usize,
}

impl Walk<'_> {
    /// Passes a value; `None` if it is none of that kind.
    fn value(&mut self, kind: &Kind, depth: usize) -> Option<()> {
        match kind {
            Bool | Byte => self.skip(1),
            Int => take_unsigned(&mut self.rest).map(drop),
            Binary => {
                let length = take_unsigned(&mut self.rest)?;
                self.skip(length.try_into().ok()?)
            }
            List(element) => self.list(element, depth),
            Struct(fields) => self.fields(fields, depth + 1),
        }
    }

    fn list(&mut self, element: &Kind, depth: usize) -> Option<()> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => take_unsigned(&mut self.rest)?.try_into().ok()?,
            count => usize::from(count),
        };
        if count > 0 && !element.is_coded(header & 15) {
            return None;
        }
        self.elements = self.elements.checked_add(count).filter(|elements| *elements <= MOST_ELEMENTS)?;
        // Every element takes a byte at least.
        (count <= self.rest.len()).then_some(())?;
        (0..count).try_for_each(|_| self.value(element, depth))
    }

    fn fields(&mut self, fields: &[(u64, Kind)], depth: usize) -> Option<()> {
        (depth <= DEEPEST).then_some(())?;
        let mut number = 0u64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            number = match header >> 4 {
                // Zigzag; ours go up by less than 16 and never need it.
                0 => return None,
                step => number + u64::from(step),
            };
            let (_, kind) = fields.iter().find(|(known, _)| *known == number)?;
            match kind {
                // The value is the type.
                Bool => matches!(header & 15, 1 | 2).then_some(())?,
                kind if kind.is_coded(header & 15) => self.value(kind, depth)?,
                _ => return None,
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

impl Kind {
    /// Whether the compact protocol's type `code` is of this kind.
    fn is_coded(&self, code: u8) -> bool {
        match self {
            Bool => matches!(code, 1 | 2),
            Byte => code == 3,
            Int => matches!(code, 4..=6),
            Binary => code == 8,
            List(_) => code == 9,
            Struct(_) => code == 12,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FileMetaData` with nothing but a list of row groups.
    fn row_groups(header: &[u8], rest: &[u8]) -> Vec<u8> {
        [&[0x49], header, rest].concat()
    }

    #[test]
    fn a_list_that_claims_more_than_it_holds_is_none() {
        let (empty_group, end) = (&[0][..], &[0][..]);
        assert!(is_file_meta_data(&row_groups(&[0x1c], &[empty_group, end].concat())));
        assert!(!is_file_meta_data(&row_groups(&[0x2c], &[empty_group, end].concat())));
        assert!(!is_file_meta_data(&row_groups(&[0xfc, 0xff, 0xff, 0xff, 0x7f], &[0; 64])));
    }

    #[test]
    fn a_field_of_another_type_than_the_formats_is_none() {
        // The second field is a list, and here a text that looks like a list of millions.
        assert!(!is_file_meta_data(&[0x28, 5, 0xfc, 0xff, 0xff, 0xff, 0x07, 0]));
        assert!(is_file_meta_data(&[0x15, 2, 0x00]));
        assert!(is_offset_index(&[0x19, 0x1c, 0x16, 8, 0x15, 8, 0x16, 0, 0, 0]));
        assert!(!is_offset_index(&[0x19, 0xfc, 0x80, 0x80, 0x80, 0x01, 0]));
    }
}
