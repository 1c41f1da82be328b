//! What goes into a shard of transactions and what comes out, in our own words: the wire's sentinels stop before this.

use std::{collections::BTreeSet, time::Duration};

use varve_metadata::model::{PartitionIndex, ProducerEpoch, ProducerId, Timestamp};

use super::{TransactionState, records::TransactionRecord};
use crate::coordinator::EndOfTransaction;

/// The numbers that the coordinator needs, by Kafka's names.
#[derive(Clone, Debug)]
pub struct TransactionConfig {
    /// `transactional.id.expiration.ms`
    pub id_expiration: Duration,
    /// `transaction.max.timeout.ms`
    pub max_timeout: Duration,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub abort_interval: Duration,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiration_interval: Duration,
}

impl Default for TransactionConfig {
    fn default() -> TransactionConfig {
        TransactionConfig {
            id_expiration: Duration::from_secs(7 * 24 * 3600),
            max_timeout: Duration::from_secs(900),
            abort_interval: Duration::from_secs(10),
            expiration_interval: Duration::from_secs(3600),
        }
    }
}

/// A partition, by the name of its topic: so records of transactions have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: PartitionIndex,
}

/// The generation of the protocol that a producer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionVersion {
    /// The epoch stays until the producer is fenced (KIP-98). Kafka's 0 and 1 differ in records only.
    #[default]
    Fixed,
    /// Every transaction raises the epoch (KIP-890; Kafka's 2).
    Raising,
}

/// What a producer writes under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
}

/// What a shard of transactions asks of the server.
pub(super) type Effect = crate::coordinator::machine::Effect<TransactionRecord, Answer, Order>;

/// What only transactions ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Have a producer id that nobody has, and report it with [`Shard::producer_id_fetched`](super::Shard::producer_id_fetched).
    FetchProducerId,
    /// Have the end of a transaction written to partitions, and report with
    /// [`Shard::markers_written`](super::Shard::markers_written). Writing a marker twice is harmless.
    WriteMarkers(Markers),
}

/// The end of a transaction, on its way to partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Markers {
    /// To be named in the report.
    pub transactional_id: String,
    /// What to write.
    pub end: EndOfTransaction,
    /// Where; never empty.
    pub partitions: Vec<TopicPartition>,
}

/// What became of markers.
#[derive(Clone, Debug, PartialEq)]
pub struct MarkerReport {
    /// As ordered.
    pub transactional_id: String,
    /// As ordered.
    pub end: EndOfTransaction,
    /// An outcome per partition.
    pub outcomes: Vec<(TopicPartition, MarkerOutcome)>,
}

/// What became of one marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerOutcome {
    /// It is in the log, or the partition is gone for good.
    Written,
    /// The partition has no leader that can be reached, or cannot be written now: try again.
    Unavailable,
    /// The partition knows a newer epoch of the producer: it is past this transaction.
    ProducerFenced,
    /// Another coordinator has taken over: this one has nothing more to say.
    CoordinatorFenced,
}

/// What a request is refused with. Each is one of Kafka's error codes; the server maps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The request contradicts itself.
    #[error("the request is not valid")]
    InvalidRequest,
    /// Not above 0, or more than `transaction.max.timeout.ms`.
    #[error("the transaction timeout is not allowed")]
    InvalidTimeout,
    /// Retry.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Look the coordinator up again.
    #[error("this is not the correct coordinator")]
    NotCoordinator,
    /// The partition is being replayed, or there is no producer id to be had; retry.
    #[error("the coordinator is loading")]
    LoadInProgress,
    /// A change of this transactional id is under way; retry.
    #[error("the transaction is still changing its state")]
    ConcurrentTransactions,
    /// A newer producer uses the transactional id.
    #[error("a newer producer with this transactional id has been started")]
    ProducerFenced,
    /// The transactional id is not known, or has another producer id.
    #[error("the producer id does not belong to the transactional id")]
    InvalidProducerIdMapping,
    /// The transaction is in a state in which this is not possible.
    #[error("the transaction is in another state")]
    InvalidState,
    /// The partition is not part of the transaction: abort, and begin again (KIP-890).
    #[error("the transaction must be aborted")]
    Abortable,
    /// No such transactional id.
    #[error("the transactional id is not known")]
    NotFound,
    /// The state is too large to be written.
    #[error("the request cannot be carried out")]
    Unexpected,
}

/// The answer to a waiting request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Shard::init_producer`](super::Shard::init_producer).
    Producer(Result<ProducerIdentity, TransactionError>),
    /// To [`Shard::add_partitions`](super::Shard::add_partitions).
    Added(Result<(), TransactionError>),
    /// To [`Shard::end`](super::Shard::end): what the producer goes on with, if its epoch rises with every transaction.
    Ended(Result<Option<ProducerIdentity>, TransactionError>),
}

/// A producer introduces itself (InitProducerId).
#[derive(Clone, Debug)]
pub struct InitProducer {
    /// Its transactional id.
    pub transactional_id: String,
    /// Its transactions are aborted after this, in milliseconds, as the client sent it.
    pub timeout_ms: i32,
    /// What it was before, if it wants to go on after an error (KIP-360).
    pub expected: Option<ProducerIdentity>,
}

/// A producer adds partitions to its transaction (AddPartitionsToTxn, AddOffsetsToTxn).
#[derive(Clone, Debug)]
pub struct AddPartitions {
    /// Its transactional id.
    pub transactional_id: String,
    /// Its producer id; `None` for the protocol's -1.
    pub producer: Option<ProducerId>,
    /// Its epoch; `None` for the protocol's -1.
    pub epoch: Option<ProducerEpoch>,
    /// What to add.
    pub partitions: BTreeSet<TopicPartition>,
    /// How it speaks.
    pub version: TransactionVersion,
}

/// A producer ends its transaction (EndTxn).
#[derive(Clone, Debug)]
pub struct EndTransaction {
    /// Its transactional id.
    pub transactional_id: String,
    /// Its producer id; `None` for the protocol's -1.
    pub producer: Option<ProducerId>,
    /// Its epoch; `None` for the protocol's -1.
    pub epoch: Option<ProducerEpoch>,
    /// Commit, not abort.
    pub commit: bool,
    /// How it speaks.
    pub version: TransactionVersion,
}

/// Which of some partitions are part of a transaction.
pub type PartitionVerdicts = Vec<(TopicPartition, Result<(), TransactionError>)>;

/// Which transactions to list (KIP-664, KIP-994).
#[derive(Clone, Debug, Default)]
pub struct TransactionFilter {
    /// States; empty means all.
    pub states: Vec<TransactionState>,
    /// Names of states that nobody knows were asked for too: with nothing else asked for, nothing is listed.
    pub has_unknown_states: bool,
    /// Producer ids; empty means all. -1 and the like match nothing.
    pub producers: Vec<i64>,
    /// Only those that began longer ago.
    pub longer_than: Option<Duration>,
}

/// A transaction in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTransaction {
    /// Its transactional id.
    pub transactional_id: String,
    /// Its producer.
    pub producer: ProducerId,
    /// Its state.
    pub state: TransactionState,
}

/// A transaction in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// Its state.
    pub state: TransactionState,
    /// Its producer.
    pub producer: ProducerId,
    /// The producer's epoch; `None` before the first is acknowledged.
    pub epoch: Option<ProducerEpoch>,
    /// It is aborted after this, in milliseconds.
    pub timeout_ms: i32,
    /// When it began; `None` if none is under way.
    pub started: Option<Timestamp>,
    /// Its partitions; those that have their marker are gone.
    pub partitions: BTreeSet<TopicPartition>,
}
