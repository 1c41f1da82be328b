//! Reading what only the bucket has: consumers that are far behind, and lookups among old offsets.
//!
//! ```text
//! offset ─► manifest entry ─► opened object (footer and index, in memory) ─► unit ─► whole batches
//!                                                                             │
//!            memory ◄─ disk ◄─ one fetch for all who want it ◄─ budget ◄──────┘  and the units that follow, read ahead
//! ```
//! A unit is a row group of a Parquet object, rebuilt into its exact batches, or a stretch of a raw one. A reader that goes
//! on where it was gets whole units, and the next ones before it asks; one that jumps gets what it asked for. What arrives
//! after the asker has given up stays in the cache. Cold work takes bytes, reads and threads out of one [budget](ColdOptions),
//! so that it never crowds out the hot path.

mod budget;
mod cache;
mod error;
mod flights;
mod metrics;
mod newest;
mod object;
mod options;
mod partition;
mod producers;
mod raw;
mod reader;
mod select;
mod streams;

pub use cache::ColdOpenError;
pub use error::ColdError;
pub use metrics::ColdMetrics;
pub use options::{ColdDisk, ColdOptions};
pub use partition::{ColdBatches, ColdPartition};
pub use reader::ColdReader;

#[cfg(test)]
mod tests;
