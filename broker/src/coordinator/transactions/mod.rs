//! Transactions (KIP-98, KIP-890), as a state machine without IO.
//!
//! A [`Shard`] holds the transactional ids whose state lives in one partition of `__transaction_state`. What happened goes
//! in, what to do comes out, as with every [`Machine`](super::Machine): append this record, answer that request, and two
//! [`Order`]s of its own: write these markers, fetch a producer id. Nothing is answered before its record is acknowledged,
//! and the record is the decision: once `PrepareCommit` is in the log the transaction commits, whatever crashes.
//!
//! ```text
//!                add partitions            commit                     markers written
//!   Empty ──────────────────────► Ongoing ───────► PrepareCommit ─────────────────────► CompleteCommit ──┐
//!     ▲ │                          │  ▲ ▲                                                                │ add partitions
//!     │ │    abort, overdue,       │  │ └────────────────────────────────────────────────────────────────┤
//!     │ │    or a newer producer   ▼  │                 markers written                                  │
//!     │ └──────────────────► PrepareAbort ─────────────────────────────► CompleteAbort ──────────────────┤
//!     └──────────────────────────────────────── init producer id ────────────────────────────────────────┘
//!   Dead: unused for so long that it is forgotten; gone once its tombstone is acknowledged.
//!   PrepareEpochFence: Kafka's name for the moment between fencing a producer and PrepareAbort, which is one step here.
//! ```
//!
//! While a record of a transactional id is on its way, its next state is *pending*, and whoever asks meanwhile is told to
//! come again (CONCURRENT_TRANSACTIONS). The same holds while markers are being written.
//!
//! Both generations of the protocol are served. In the first, a producer keeps its epoch until somebody fences it; partitions
//! are added by a request of their own. In the second (KIP-890, version 5 of EndTxn) every transaction ends in a higher
//! epoch, so that nothing late can reach the next one.
//!
//! Owns: states, epochs, producer ids of transactional ids, timeouts, expiry, the record format (that of Kafka 4.3).
//! Leaves to others: which partitions this broker leads, how markers reach the leaders of partitions, sockets, clocks.

mod complete;
mod describe;
mod end;
mod expiry;
mod init;
mod messages;
mod partitions;
pub mod records;
mod shard;
#[cfg(test)]
mod simulation;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transaction;

pub use messages::{
    AddPartitions, Answer, DescribedTransaction, EndTransaction, InitProducer, ListedTransaction, MarkerOutcome,
    MarkerReport, Markers, Order, PartitionVerdicts, ProducerIdentity, TopicPartition, TransactionConfig,
    TransactionError, TransactionFilter, TransactionVersion,
};
pub use shard::{Shard, ShardStats};
pub use state::TransactionState;

/// The internal topic that holds the state of transactions.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";
