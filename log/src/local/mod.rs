//! The local log of one partition in Kafka's own files and bytes. Synchronous file IO.

pub mod checkpoint;
mod leader_epochs;
mod txn_index;

pub use leader_epochs::{EpochCache, LEADER_EPOCH_CHECKPOINT};
pub use txn_index::{AbortedTxn, TXN_INDEX_ENTRY_BYTES, TxnIndex, TxnIndexError};
