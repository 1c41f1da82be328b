//! Walking the batch headers of a segment file without reading the records.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::format::{BatchError, BatchHeader, HEADER_BYTES};

/// Bytes read at once: as far apart as index entries are, so that one read usually covers what follows an index entry.
const CHUNK: usize = 4096;

/// A header and the position of its batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub(super) position: u32,
    pub(super) header: BatchHeader,
}

impl Located {
    /// Position behind the batch.
    pub(super) const fn end(&self) -> u32 {
        self.position + self.header.bytes
    }
}

/// Why a walk stopped early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("segment file")]
    Io(#[from] io::Error),
    #[error("segment file")]
    Batch(#[from] BatchError),
}

/// The headers of the batches from `position` up to `limit`, in order. Ends after the first error; a batch that does not
/// end within `limit` is [`BatchError::Truncated`].
pub(super) struct HeaderScan<'a> {
    file: &'a File,
    position: u32,
    limit: u32,
    chunk_at: u32,
    chunk: Vec<u8>,
    chunk_bytes: usize,
}

impl<'a> HeaderScan<'a> {
    pub(super) const fn new(file: &'a File, position: u32, limit: u32) -> HeaderScan<'a> {
        HeaderScan { file, position, limit, chunk_at: 0, chunk: Vec::new(), chunk_bytes: CHUNK }
    }

    /// For walks over whole segments of small batches.
    pub(super) const fn with_chunk(mut self, bytes: usize) -> HeaderScan<'a> {
        self.chunk_bytes = bytes;
        self
    }

    fn header(&mut self) -> Result<BatchHeader, ScanError> {
        let inside = self.position.checked_sub(self.chunk_at).map(|at| at as usize);
        if inside.is_none_or(|at| at + HEADER_BYTES > self.chunk.len()) {
            let len = ((self.limit - self.position) as usize).min(self.chunk_bytes);
            self.chunk.resize(len, 0);
            self.chunk_at = self.position;
            self.file.read_exact_at(&mut self.chunk, self.position.into())?;
        }
        let header = BatchHeader::parse(&self.chunk[(self.position - self.chunk_at) as usize..])?;
        if u64::from(self.position) + u64::from(header.bytes) > u64::from(self.limit) {
            return Err(BatchError::Truncated.into());
        }
        Ok(header)
    }
}

impl Iterator for HeaderScan<'_> {
    type Item = Result<Located, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.limit {
            return None;
        }
        let position = self.position;
        match self.header() {
            Ok(header) => {
                self.position += header.bytes;
                Some(Ok(Located { position, header }))
            }
            Err(error) => {
                self.position = self.limit;
                Some(Err(error))
            }
        }
    }
}
