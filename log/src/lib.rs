//! What a record batch and a segment are, and the local log of one partition.
//!
//! Owns: [`mod@format`] (record batches as bytes, pure) and [`local`] (segments, indexes, producer state, recovery,
//! cleaner; synchronous file IO in Kafka's own layout).
//! Promises: bytes from outside are checked before use; what was appended comes back unchanged.
//! Leaves to others: leadership, the bucket, anything `async`.

pub mod format;
pub mod local;
