//! Compaction of a local log (`cleanup.policy=compact`): the last record of each key stays, older ones go; offsets never
//! change.
//!
//! ```text
//!  log start          first dirty               first uncleanable      active segment
//!      │ clean: one record │ dirty: keys may repeat    │ too young, or not stable │
//!      │ per key           │ ── read into the map ───► │                          │
//!      └──── rewritten: records that the map knows a later one of go ─┘
//! ```
//! One round: [`Cleanable`] says what may be cleaned and whether it is worth it; the keys of the dirty part go into an
//! [`OffsetMap`] of bounded size; the segments up to where the map reaches are rewritten in groups by [`clean_batch`].
//! Tombstones and transaction markers stay for `delete.retention.ms` after a round has first met them with nothing older
//! beside them (KIP-534). Deciding is pure and serves the archive's key compaction as well.

mod offset_map;
mod plan;
mod retain;
mod transactions;

pub use offset_map::{KeyDigest, OffsetMap};
pub use plan::{Cleanable, CleanableSegment, CleaningLimits, group_segments};
pub use retain::{
    BatchRules, CleanError, CleanedBatch, CleanerStats, KeySink, LatestOffsets, clean_batch, index_batch,
};
pub use transactions::{CleanedTransactions, Marker};
