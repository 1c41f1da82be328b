//! What every coordinator is: a state machine whose state is one partition of an internal topic.

use std::{convert::Infallible, sync::Arc, time::Duration};

use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Timestamp, VerificationGuard};

use super::codec::{EncodedRecord, RecordError, TooLong};

/// The moment at which an input happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time since the broker started; never runs backwards between calls.
    pub elapsed: Duration,
    /// Wall-clock time, for what is written to the log.
    pub wall: Timestamp,
}

/// Names a request that waits for its answer. The caller chooses it; it is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names an append that a machine asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// Why a batch did not reach the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    /// Too few replicas, or none in time: the same coordinator may succeed later.
    #[error("the partition cannot take or confirm writes now")]
    Unavailable,
    /// This broker does not lead the partition, or its disk failed.
    #[error("this broker no longer coordinates the partition")]
    NotLeader,
    /// The log will never take them: they do not fit into one batch, or a name is too long for their format.
    #[error("the records cannot be written")]
    Refused,
    /// A newer epoch of the transaction's producer is known.
    #[error("the producer has been fenced")]
    ProducerFenced,
    /// The producer has no transaction open that the partition is part of.
    #[error("the records belong to no open transaction")]
    NoTransaction,
    /// The marker comes from a transaction coordinator that has been replaced.
    #[error("the transaction coordinator has been replaced")]
    CoordinatorFenced,
}

/// What a machine wants written, as one record batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch<R> {
    /// Records that count once they are acknowledged. Never empty.
    Records(Arc<[R]>),
    /// Records that count once their transaction is committed. Never empty.
    Transactional {
        /// Whose transaction.
        producer: ProducerId,
        /// In which epoch.
        epoch: ProducerEpoch,
        /// Proof that the transaction's coordinator knows of this partition, needed where the batch begins a transaction.
        guard: Option<VerificationGuard>,
        /// What to write.
        records: Arc<[R]>,
    },
    /// The end of a transaction.
    Marker(EndOfTransaction),
}

/// How a transaction ends, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfTransaction {
    /// Whose transaction.
    pub producer: ProducerId,
    /// In which epoch.
    pub epoch: ProducerEpoch,
    /// Epoch of the transaction coordinator.
    pub coordinator_epoch: i32,
    /// Whether its records count from now on.
    pub committed: bool,
    /// The coordinator raises the epoch with every transaction, so that one which does not is late (KIP-890).
    pub raises_epoch: bool,
}

/// What the server has to do. Appends are performed in the order in which they come out, and acknowledged in that order.
#[derive(Debug, PartialEq)]
pub enum Effect<R, A, O = Infallible> {
    /// Append `batch` to the machine's partition, then report with [`Machine::appended`].
    Append {
        /// To be named in the report.
        id: AppendId,
        /// What to write.
        batch: Batch<R>,
    },
    /// Send `answer` to whoever waits under `request`.
    Answer {
        /// The name under which the request came in.
        request: RequestId,
        /// What to tell it.
        answer: A,
    },
    /// Something that only this kind of machine asks for; its outcome is reported in the machine's own way.
    Order(O),
}

/// The effects of a machine, in the order in which they are to be performed.
pub type Effects<M> = Vec<Effect<<M as Machine>::Record, <M as Machine>::Answer, <M as Machine>::Order>>;

/// One step of a machine: when it happens, and what comes of it.
pub(super) struct Step<'a, M: Machine> {
    pub(super) now: Now,
    pub(super) effects: &'a mut Effects<M>,
}

impl<M: Machine> Step<'_, M> {
    pub(super) fn answer(&mut self, request: RequestId, answer: M::Answer) {
        self.effects.push(Effect::Answer { request, answer });
    }
}

/// One step of a replay, in the order of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<R> {
    /// A record at `offset`; of the open transaction of `producer`, if there is one.
    Record {
        /// Where it lies.
        offset: Offset,
        /// Whose transaction it waits for.
        producer: Option<ProducerId>,
        /// What it says.
        record: R,
    },
    /// The transaction of `producer` ended.
    Marker {
        /// Whose.
        producer: ProducerId,
        /// Whether its records count.
        committed: bool,
    },
}

/// A record of an internal topic.
pub trait LogRecord: Sized + Send + Sync + 'static {
    /// The record's bytes.
    ///
    /// # Errors
    /// [`TooLong`] if a name does not fit; nothing of the record may then be appended.
    fn encode(&self) -> Result<EncodedRecord, TooLong>;

    /// The record behind a key and a value as the log holds them.
    ///
    /// # Errors
    /// See [`RecordError`]; no bytes panic, and nothing is allocated beyond what the bytes themselves hold.
    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError>;
}

/// A coordinator of what lives in one partition of an internal topic.
///
/// Its life: [`replay`](Self::replay) everything in the partition, [`finish_load`](Self::finish_load), then requests,
/// finished appends and the passing of time in any order.
pub trait Machine: Sized + Send + 'static {
    /// What its partition holds.
    type Record: LogRecord;
    /// What its requests are answered with.
    type Answer: Send + 'static;
    /// What else it asks of the server.
    type Order: Send;

    /// Takes in one entry of the partition, in the order of the log.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] if it contradicts itself: the partition must then not be served.
    fn replay(&mut self, now: Now, entry: Entry<Self::Record>) -> Result<(), RecordError>;

    /// Everything has been replayed.
    fn finish_load(&mut self, now: Now, effects: &mut Effects<Self>);

    /// The append `id` was performed: its batch is in the log from the given offset on, or never will be.
    ///
    /// # Panics
    /// If appends are reported in another order than they were asked for: state and log would part.
    fn appended(&mut self, now: Now, id: AppendId, result: Result<Offset, AppendFailure>, effects: &mut Effects<Self>);

    /// Lets everything happen that is due by `now`.
    fn tick(&mut self, now: Now, effects: &mut Effects<Self>);

    /// When [`tick`](Self::tick) is due next, as [`Now::elapsed`].
    fn next_deadline(&self) -> Option<Duration>;
}
