//! The archiver: brings sealed segments into the bucket, and applies retention in both tiers.
//!
//! ```text
//!  roll, log start moved, new settings ──wake──►┌──────────┐ due ┌────────┐  tend one partition:
//!                                               │ schedule │────►│ worker │  claim → roll → upload → publish
//!  time (retention, lag, back-off) ────────────►└──────────┘     └────────┘  → expire → delete locally → when again
//! ```
//!
//! Every partition waits in one schedule for its next moment, so thousands of quiet ones cost a few look-ups a minute. A
//! fixed number of workers takes what is due. A failure is weather: the partition comes back after a jittered pause, its
//! hot data grows meanwhile, and [`HotPressure`] says how far that may go. Small segments, which quiet partitions seal by
//! time, wait for each other and share an object ([`Sharing`]), so that requests follow bytes and not partitions.

mod daemon;
mod metrics;
mod pressure;
mod schedule;
mod share;
mod slot;
mod tend;

#[cfg(test)]
mod tests;

pub use daemon::{Archiver, ArchiverOptions};
pub use metrics::ArchiverMetrics;
pub use pressure::{HotPressure, Pressure};
pub use share::Sharing;
pub use tend::LocalPartition;
