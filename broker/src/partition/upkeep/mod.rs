//! What keeps local logs in shape while nobody asks: background work, off the path of produce and fetch.
//!
//! ```text
//! every few minutes    ──► sealed by segment.ms and flushed; retention of what has no archive    sweep
//! now and then         ──► silent producers are forgotten                                        Upkeep
//! file.delete.delay.ms ──► files of removed segments go                                          DueQueue
//! ```
//!
//! What is due is decided by [`plan`], which knows neither clock nor disk. Settings of topics are read from the newest
//! image each time. Retention of an archived topic, and sealing for `varve.archive.lag.ms`, is the archiver's; compaction
//! is the [`LogCleaner`](super::LogCleaner)'s; what appends seal is flushed at once.

mod due;
mod metrics;
mod plan;
mod sweep;
mod tasks;
#[cfg(test)]
mod tests;

pub use metrics::UpkeepMetrics;
pub use tasks::{Upkeep, UpkeepSettings};
