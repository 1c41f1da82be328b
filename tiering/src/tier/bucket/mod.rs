//! The one door to the object store: `file://`, `s3://`, `gs://`, `az://`, `memory://`.
//!
//! Create-if-absent is the only condition ever asked of the store. Every request is bounded in time, repeated with
//! jittered back-off while the failure is weather, and counted. `file://` is durable: file and directories are synced
//! before a write counts.

mod aws;
mod failure;
mod local;
mod metrics;
mod open;
mod requests;
mod writer;

pub use metrics::BucketMetrics;
pub use open::{BucketOptions, OpenError, S3Options};
pub use requests::{Bucket, BucketError, Listed};
pub use writer::ObjectWriter;
