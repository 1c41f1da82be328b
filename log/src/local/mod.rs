//! The local log of one partition: segments, indexes, producer state and recovery in Kafka's own files and bytes.
//! Synchronous file IO; [`LocalLog`] is `Send + Sync` and locks within.
//!
//! ```text
//! <log dir>/meta.properties  .lock  .kafka_cleanshutdown  recovery-point-offset-checkpoint  log-start-offset-checkpoint
//! <log dir>/<topic>-<partition>/partition.metadata  leader-epoch-checkpoint
//!                               <base>.log  <base>.index  <base>.timeindex  <base>.txnindex  <base>.snapshot
//! ```

pub mod checkpoint;
pub mod cleaner;
mod config;
mod leader_epochs;
mod log;
mod producer_snapshot;
mod producer_state;
mod sealed;
mod txn_index;

pub use config::LogConfig;
pub use leader_epochs::{EpochCache, LEADER_EPOCH_CHECKPOINT};
pub use log::{
    AppendContext, AppendError, AppendOrigin, Appended, LocalLog, LogSlice, OffsetAndTimestamp, OpenError, ReadError,
    RecordFault, RecordProblem, Recovered, RecoveryStart, RemovedFiles, RollError,
};
pub use producer_snapshot::{LoadedSnapshot, ProducerSnapshots, SnapshotError, decode_snapshot, encode_snapshot};
pub use producer_state::{
    BATCHES_REMEMBERED, BatchMetadata, CompletedTxn, EndMarker, LastRecord, ProducerBatch, ProducerEntry,
    ProducerError, ProducerState, ProducerUpdate, Verdict,
};
pub use sealed::SealedSegment;
pub use txn_index::{AbortedTxn, TXN_INDEX_ENTRY_BYTES, TxnIndex, TxnIndexError};
