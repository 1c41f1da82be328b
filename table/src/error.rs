//! What can go wrong, by what the caller can do about it.

use std::io;

use parquet::errors::ParquetError;
use varve_metadata::model::Offset;

/// Why an object was not written. Nothing that was written so far may be used.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The batch starts below the one before it ended, or outside the object's range: the caller's order is wrong.
    #[error("batch at offset {found} where {expected} or more was due, within {end}")]
    Order {
        /// Lowest offset that would have been right.
        expected: Offset,
        /// Where the batch starts.
        found: Offset,
        /// The offset behind the object's range.
        end: Offset,
    },
    /// The sink failed.
    #[error("writing the object failed")]
    Sink(#[from] io::Error),
    /// The columns could not be written.
    #[error("encoding columns failed")]
    Columns(#[from] ParquetError),
    /// A batch that has to be carried could not be compressed again.
    #[error("compressing a batch failed")]
    Compress(#[from] varve_log::format::compression::CodecError),
    /// What was written does not read back: the object must not be used.
    #[error("the finished object does not read back")]
    Unreadable(#[source] FooterError),
}

/// Why the tail of an object gave no footer.
#[derive(Debug, thiserror::Error)]
pub enum FooterError {
    /// The tail is too short: fetch from `from` to the object's end and parse again.
    #[error("the footer begins at byte {from}")]
    NeedMore {
        /// Position in the object from which bytes are needed.
        from: u64,
    },
    /// A Parquet file that Varve did not write, or that something else has rewritten since.
    #[error("no object of ours: {0}")]
    Foreign(&'static str),
    /// Written by a newer Varve.
    #[error("object format {0} is not known here")]
    Version(String),
    /// The bytes are damaged.
    #[error("the object's {0} is damaged")]
    Corrupt(&'static str),
}

/// Why fetched bytes gave no batches.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A range of the plan is missing from what was fetched.
    #[error("the bytes of the plan were not all fetched")]
    Missing,
    /// The object is damaged: its bytes do not give back what its batch table says.
    #[error("damaged object: {0}")]
    Corrupt(&'static str),
    /// The columns do not decode.
    #[error("damaged columns")]
    Columns(#[from] ParquetError),
    /// A batch could not be compressed again.
    #[error("compressing a rebuilt batch failed")]
    Compress(#[from] varve_log::format::compression::CodecError),
}

impl From<arrow::error::ArrowError> for DecodeError {
    fn from(error: arrow::error::ArrowError) -> DecodeError {
        DecodeError::Columns(ParquetError::from(error))
    }
}

/// Runs code of the Parquet library on bytes that may be damaged. It answers some damage with a panic instead of an error,
/// and bytes from a bucket must not bring a thread down: `None` then. What `decode` borrows is not used afterwards.
pub(crate) fn without_panic<T>(decode: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).ok()
}

/// Whether `bytes` are those that were written. A fuzzer is let through: its bytes would never come further, and what lies
/// behind must bear a forged checksum too.
pub(crate) fn checksum_holds(bytes: &[u8], crc32c: u32) -> bool {
    crc32c::crc32c(bytes) == crc32c || cfg!(fuzzing)
}
