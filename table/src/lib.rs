//! The Parquet object: record batches to columns and back, byte for byte. Pure: no IO, no clock.
//!
//! Owns: the object's format ([`TableWriter`] writes it, [`TableFooter`] opens, plans and decodes it), which is an ordinary
//! Parquet file to every other reader.
//! Promises: a batch that went in comes out with the same records, header fields and place, or the object is never given
//! out ([`TableWriter`] reads back what it wrote); rows are committed records only; memory is one row group.
//! Leaves to others: fetching bytes, choosing what to convert, the manifest.

#[cfg(test)]
mod arbitrary;
mod batch_table;
mod columns;
mod error;
mod fetched;
mod footer;
mod keys;
mod options;
mod pages;
mod raw_section;
mod reader;
mod rebuild;
mod schema;
mod tags;
mod thrift;
mod varint;
mod writer;

pub use batch_table::{BatchEntry, BatchKind, GroupEntry};
pub use error::{DecodeError, EncodeError, FooterError};
pub use fetched::Fetched;
pub use footer::{FORMAT, TableFooter};
pub use keys::KeyPlan;
pub use options::{EncodeOptions, TableMeta};
pub use reader::{MERGE_GAP_BYTES, ReadPlan, Recompression};
pub use tags::{BLOCK_BYTES, Tag};
pub use writer::{EncodedTable, TableSummary, TableWriter, encode};
