//! Which bytes hold which rows of a row group, and the checksum of each such run.
//!
//! The blob `varve.checksums` is a CRC-32C (4 bytes, little-endian) for each page as it lies in the file, header included:
//! row group by row group, column by column, the dictionary page first where there is one. Parquet's own page checksums are
//! written by few and checked by fewer; without one a flipped bit would go through a decompressor and a decoder first.

use std::ops::Range;

use bytes::Bytes;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use crate::{error::DecodeError, fetched::Fetched};

/// Checksums of one row group's pages. `starts`: where in its column each data page begins; `file` gives bytes by position.
pub(crate) fn checksums(group: &RowGroupMetaData, starts: &[Vec<u64>], file: impl Fn(Range<u64>) -> u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (column, starts) in group.columns().iter().zip(starts) {
        let (at, len) = column.byte_range();
        let mut bounds = starts.clone();
        if bounds.first().is_some_and(|first| *first > 0) {
            bounds.insert(0, 0);
        }
        bounds.push(len);
        for run in bounds.windows(2) {
            out.extend_from_slice(&file(at + run[0]..at + run[1]).to_le_bytes());
        }
    }
    out
}

/// The checksums of a whole object.
#[derive(Clone, Debug)]
pub(crate) struct PageChecksums {
    blob: Bytes,
    /// Place in the blob of each row group's first checksum, per column.
    starts: Vec<Vec<usize>>,
}

/// One page or dictionary, and its checksum.
pub(crate) struct PageRun {
    pub(crate) range: Range<u64>,
    crc: u32,
}

impl PageRun {
    /// # Errors
    /// [`DecodeError::Missing`] if the page was not fetched, [`DecodeError::Corrupt`] if it is not what was written.
    pub(crate) fn check(&self, fetched: &Fetched) -> Result<(), DecodeError> {
        let page = fetched.get(self.range.clone()).ok_or(DecodeError::Missing)?;
        if crc32c::crc32c(&page) == self.crc { Ok(()) } else { Err(DecodeError::Corrupt("page")) }
    }
}

impl PageChecksums {
    /// `None` if the blob does not have a checksum for every page. `metadata` has its offset index, checked.
    pub(crate) fn new(metadata: &ParquetMetaData, blob: Bytes) -> Option<PageChecksums> {
        let mut at = 0;
        let index = metadata.offset_index().map(Vec::as_slice).unwrap_or_default();
        let starts = metadata
            .row_groups()
            .iter()
            .zip(index)
            .map(|(group, pages)| {
                let column = |(column, pages): (&parquet::file::metadata::ColumnChunkMetaData, &Pages)| {
                    let start = at;
                    let dictionary =
                        pages.page_locations.first().is_some_and(|first| first.offset as u64 > column.byte_range().0);
                    at += 4 * (pages.page_locations.len() + usize::from(dictionary));
                    start
                };
                group.columns().iter().zip(pages).map(column).collect()
            })
            .collect();
        (at == blob.len()).then_some(PageChecksums { blob, starts })
    }

    /// The runs of bytes that hold `rows` of `column`: its dictionary, then pages.
    pub(crate) fn runs(
        &self,
        metadata: &ParquetMetaData,
        row_group: usize,
        column: usize,
        rows: Range<u64>,
    ) -> Vec<PageRun> {
        let index = metadata.offset_index().expect("checked when the footer was parsed");
        let pages = &index[row_group][column].page_locations;
        let (start, _) = metadata.row_group(row_group).column(column).byte_range();
        let mut place = self.starts[row_group][column];
        let mut crc = |skip: usize| {
            let at = place + 4 * skip;
            place = at + 4;
            self.blob.get(at..at + 4).map_or(0, |crc| u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]))
        };
        let mut runs = Vec::new();
        if let Some(first) = pages.first().filter(|first| first.offset as u64 > start) {
            runs.push(PageRun { range: start..first.offset as u64, crc: crc(0) });
        }
        let from = pages.partition_point(|page| page.first_row_index as u64 <= rows.start).saturating_sub(1);
        let to = pages.partition_point(|page| (page.first_row_index as u64) < rows.end);
        for (nth, page) in pages.get(from..to).unwrap_or_default().iter().enumerate() {
            let at = page.offset as u64;
            let range = at..at.saturating_add(page.compressed_page_size as u64);
            runs.push(PageRun { range, crc: crc(if nth == 0 { from } else { 0 }) });
        }
        runs
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.blob.len() + self.starts.len() * 6 * size_of::<usize>()
    }
}

type Pages = parquet::file::page_index::offset_index::OffsetIndexMetaData;
