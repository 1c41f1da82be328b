//! Record batches (magic 2, KIP-98) as bytes: checked views, iteration over records, building. Pure: no IO, no clock.
//!
//! ```text
//! byte 0        8        12       16     17    21     23       27         35         43       51     53      57      61
//!      base     length   leader   magic  crc   attri- last     base       max        producer pro-   base    record  records,
//!      offset   of the   epoch    (2)    of    butes  offset   timestamp  timestamp  id       ducer  se-     count   compressed
//!      i64      rest i32 i32      i8     21..  i16    delta    ms i64     ms i64     i64      epoch  quence  i32     as attributes
//!                                        u32          i32                                     i16    i32             say
//! ```
//! The CRC (CRC-32C) starts behind itself: base offset and leader epoch are assigned on append without touching it.

mod batch;
mod builder;
pub mod compression;
mod control;
mod header;
mod record;
mod times;

pub use batch::{BatchError, Batches, RecordBatchView, batches, records_crc};
pub use builder::{BatchBuilder, BuildError, RecordContent};
pub use control::ControlRecord;
pub(crate) use header::CRC_START;
pub use header::{Attributes, BatchHeader, HEADER_BYTES};
pub use record::{Headers, RecordError, RecordView, Records, records};
pub use times::{RecordTime, RecordTimes, TimesError, record_times};

#[cfg(test)]
mod tests;
