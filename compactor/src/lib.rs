//! Rewrites the archive: raw segments to Parquet, small objects to larger ones, key compaction, expiry, the sweep.
//!
//! Owns: what to do about a partition's remote objects ([`plan`], pure) and the doing ([`worker`], [`sweep`]).
//! Promises: what a consumer reads is the same before and after (or what Kafka's cleaner would have left); an object is
//! verified before the manifest names it; a crash half-way leaves orphans, never damage; memory and CPU are bounded.
//! Leaves to others: the bucket and the manifest (`varve_tiering`), the Parquet format (`varve_table`), serving clients.

pub mod metrics;
pub mod options;
pub mod plan;
pub mod sweep;
pub mod worker;

mod compact;
mod lease;
mod rewrite;
#[cfg(test)]
mod simulation;
mod source;
mod spill;
// One file for the tests of both crates that work on the bucket.
#[cfg(test)]
#[path = "../../tiering/src/tier/troubled_store.rs"]
mod troubled_store;
