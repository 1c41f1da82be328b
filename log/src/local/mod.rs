//! The local log of one partition: segments, indexes, producer state and recovery in Kafka's own files and bytes.
//! Synchronous file IO; [`LocalLog`] is `Send + Sync` and locks within.
//!
//! ```text
//! <log dir>/meta.properties  .lock  .kafka_cleanshutdown  recovery-point-offset-checkpoint  log-start-offset-checkpoint
//! <log dir>/<topic>-<partition>/partition.metadata  leader-epoch-checkpoint
//!                               <base>.log  <base>.index  <base>.timeindex  <base>.txnindex  <base>.snapshot
//! ```

mod active;
mod append;
pub mod checkpoint;
mod clean;
pub mod cleaner;
mod config;
mod epochs_file;
mod error;
mod files;
mod index;
mod leader_epochs;
mod log;
mod log_dir;
mod lookup;
mod open;
mod ownership;
mod prepare;
mod producer_snapshot;
mod producer_state;
mod read;
mod recovery;
mod relocate;
mod removed;
mod retention;
mod scan;
mod sealed;
mod slice;
mod truncate;
mod txn_index;
mod upkeep;
mod verification;
mod write;

pub use clean::{CleanLogError, CleanRequest, Cleaned};
pub use config::LogConfig;
pub use error::{AppendError, LogDirError, OpenError, ReadError, RecordFault, RecordProblem, RollError};
pub use leader_epochs::{EpochCache, LEADER_EPOCH_CHECKPOINT};
pub use log::{AppendContext, AppendOrigin, Appended, LocalLog, OffsetAndTimestamp, Recovered, RecoveryStart};
pub use log_dir::{Checkpointed, LogDir, LogDirOwner, PartitionDir};
pub use ownership::cluster_of;
pub use producer_snapshot::{LoadedSnapshot, ProducerSnapshots, SnapshotError, decode_snapshot, encode_snapshot};
pub use producer_state::{
    BATCHES_REMEMBERED, BatchMetadata, CompletedTxn, EndMarker, LastRecord, ProducerBatch, ProducerEntry,
    ProducerError, ProducerState, ProducerUpdate, Verdict,
};
pub use relocate::{FutureLog, Pace, RelocateError};
pub use removed::RemovedFiles;
pub use retention::Retained;
pub use sealed::SealedSegment;
pub use slice::LogSlice;
pub use txn_index::{AbortedTxn, TXN_INDEX_ENTRY_BYTES, TxnIndex, TxnIndexError};
pub use verification::{TransactionBegin, TransactionTerms};
pub use write::is_no_space;

#[cfg(test)]
mod tests;
