//! The bucket: object layout, manifest, upload, cold reads and their cache.
//!
//! Owns: how keys are named ([`layout`]), what a partition's manifest says and how it may change ([`manifest`], pure),
//! how a sealed segment lies in one object ([`raw`], pure), and the IO around them ([`tier`]).
//! Promises: the manifest is the only truth about remote data and moves only forward; object, then manifest, then
//! local delete; on the way out manifest first, object after a grace period.
//! Leaves to others: record batches and the local log (`varve_log`), Parquet (`varve_table`), rewriting (the compactor).

pub mod layout;
pub mod manifest;
pub mod plan;
pub mod raw;
pub mod tier;
