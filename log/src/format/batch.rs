//! A checked record batch, borrowed from the buffer it arrived in.

use super::header::{BatchHeader, CRC_START, HEADER_BYTES};

/// Why bytes are no record batch that Varve stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The buffer ends before the batch does: read on, or stop there (a fetch may cut its last batch).
    #[error("record batch is cut short")]
    Truncated,
    /// Another format than magic 2.
    #[error("record batch of magic {0}, where only 2 is stored")]
    UnsupportedMagic(i8),
    /// The bytes are damaged, or no writer of batches made them.
    #[error("corrupt record batch: {field}")]
    Corrupt {
        /// The field that does not hold.
        field: &'static str,
    },
}

/// A record batch whose length, magic, header fields and (unless its bytes were trusted) CRC-32C have been checked.
#[derive(Clone, Copy, Debug)]
pub struct RecordBatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> RecordBatchView<'a> {
    /// Takes one batch off the front of `buf`; returns it and the rest.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] if `buf` ends early; the others if magic, header fields or CRC-32C do not hold.
    pub fn parse(buf: &'a [u8]) -> Result<(RecordBatchView<'a>, &'a [u8]), BatchError> {
        let (batch, rest) = RecordBatchView::parse_trusted(buf)?;
        if crc32c::crc32c(&batch.bytes[CRC_START..]) != batch.header.crc {
            return Err(BatchError::Corrupt { field: "crc" });
        }
        Ok((batch, rest))
    }

    /// As [`parse`](Self::parse) without the CRC: for bytes that were verified before.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); a wrong CRC goes unseen.
    pub fn parse_trusted(buf: &'a [u8]) -> Result<(RecordBatchView<'a>, &'a [u8]), BatchError> {
        let header = BatchHeader::parse(buf)?;
        let (bytes, rest) = buf.split_at_checked(header.bytes as usize).ok_or(BatchError::Truncated)?;
        Ok((RecordBatchView { header, bytes }, rest))
    }

    /// The decoded header.
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch as it lies.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, compressed as the header's attributes say.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// Walks the batches of `buf`, checking each as [`RecordBatchView::parse`] does. Ends after the first error.
pub const fn batches(buf: &[u8]) -> Batches<'_> {
    Batches { rest: buf }
}

/// Iterator of [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(RecordBatchView::parse(self.rest).map(|(batch, rest)| (self.rest = rest, batch).1).inspect_err(|_| {
            self.rest = &[];
        }))
    }
}

/// CRC-32C of a batch's uncompressed records: what stays the same however they are compressed.
pub fn records_crc(uncompressed: &[u8]) -> u32 {
    crc32c::crc32c(uncompressed)
}
