//! Why a produced batch is refused, in Kafka's words.

use std::fmt;

use kafka_protocol::error::ResponseError;
use varve_log::{
    format::{Attributes, BatchError, HEADER_BYTES},
    local::{AppendError, ProducerError, RecordFault, RecordProblem},
};
use varve_metadata::{
    config::Codec,
    model::{LogStartOffset, Offset},
};

use crate::partition::{Partition, PartitionAppendError};

/// What the producer is told.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) error: ResponseError,
    /// The log start offset, where Kafka tells it.
    pub(super) log_start: Option<Offset>,
    /// The refused records by their place in the batch (KIP-467).
    pub(super) records: Vec<(i32, String)>,
    pub(super) message: Option<String>,
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Refusal {
        Refusal { error, log_start: None, records: Vec::new(), message: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.error)?;
        self.message.iter().try_for_each(|message| write!(f, ": {message}"))
    }
}

/// First version that may carry zstd (KIP-110).
const ZSTD_SINCE: i16 = 7;
const LENGTH: std::ops::Range<usize> = 8..12;
const MAGIC: usize = 16;
const ATTRIBUTES: std::ops::Range<usize> = 21..23;
/// A batch's base offset and length, which its length does not count.
const UNCOUNTED_BYTES: usize = 12;
/// Smallest batch of any format that ever was (magic 0, empty).
const SMALLEST_BYTES: usize = UNCOUNTED_BYTES + 14;

/// Since version 3 a partition carries exactly one batch, of magic 2. Returns its bytes; what follows it and is no
/// whole batch is dropped, as Kafka does. The log checks what is inside.
///
/// # Errors
/// INVALID_RECORD, CORRUPT_MESSAGE or UNSUPPORTED_COMPRESSION_TYPE.
pub(super) fn check_one_batch(records: &[u8], version: i16) -> Result<&[u8], Refusal> {
    let (batch, rest) = first_batch(records)?.ok_or(ResponseError::InvalidRecord)?;
    if batch[MAGIC] != 2 {
        return Err(ResponseError::InvalidRecord.into());
    }
    if batch.len() < HEADER_BYTES {
        return Err(ResponseError::CorruptMessage.into());
    }
    let attributes = Attributes::from_wire(i16::from_be_bytes([batch[ATTRIBUTES.start], batch[ATTRIBUTES.start + 1]]));
    // The log refuses a codec that nobody knows.
    if version < ZSTD_SINCE && attributes.is_some_and(|attributes| attributes.compression() == Codec::Zstd) {
        return Err(ResponseError::UnsupportedCompressionType.into());
    }
    if first_batch(rest)?.is_some() {
        return Err(ResponseError::InvalidRecord.into());
    }
    Ok(batch)
}

/// Splits after the first whole batch of any known format; `None` if there is none.
#[expect(clippy::type_complexity, reason = "two slices of the argument")]
fn first_batch(records: &[u8]) -> Result<Option<(&[u8], &[u8])>, Refusal> {
    let Some(&[a, b, c, d]) = records.get(LENGTH) else { return Ok(None) };
    let Some(&magic) = records.get(MAGIC) else { return Ok(None) };
    let corrupt = |message| Refusal { message: Some(message), ..ResponseError::CorruptMessage.into() };
    let stated = i32::from_be_bytes([a, b, c, d]);
    let length = usize::try_from(stated).ok().filter(|length| *length >= SMALLEST_BYTES - UNCOUNTED_BYTES);
    let too_small = || corrupt(format!("Record size {stated} is less than the minimum record overhead (14)"));
    let length = length.ok_or_else(too_small)?;
    if magic > 2 {
        return Err(corrupt(format!("Invalid magic found in record: {}", magic as i8)));
    }
    Ok(records.split_at_checked(length + UNCOUNTED_BYTES))
}

impl Refusal {
    /// The only place where an append's error becomes Kafka's.
    pub(super) fn of_append(error: &PartitionAppendError, partition: &Partition) -> Refusal {
        let LogStartOffset(log_start) = partition.log_start();
        let plain = |error: ResponseError| Refusal::from(error);
        let told = |error: ResponseError| Refusal { log_start: Some(log_start), ..Refusal::from(error) };
        let refused = match error {
            PartitionAppendError::Offline => return plain(ResponseError::KafkaStorageError),
            PartitionAppendError::NotLeader => return plain(ResponseError::NotLeaderOrFollower),
            PartitionAppendError::TooFewInSync(_) => return plain(ResponseError::NotEnoughReplicas),
            PartitionAppendError::Refused(refused) => refused,
        };
        match refused {
            AppendError::Batch(BatchError::Corrupt { field: "record count" | "last offset delta" }) => {
                told(ResponseError::InvalidRecord)
            }
            // Kafka has no better word for it.
            AppendError::Batch(BatchError::Corrupt { field: "codec" }) => told(ResponseError::UnknownServerError),
            AppendError::Batch(BatchError::Truncated | BatchError::Corrupt { .. }) => {
                plain(ResponseError::CorruptMessage)
            }
            AppendError::Batch(BatchError::UnsupportedMagic(_)) => told(ResponseError::UnsupportedForMessageFormat),
            AppendError::TooLarge { .. } => plain(ResponseError::MessageTooLarge),
            AppendError::LargerThanSegment { .. } => plain(ResponseError::RecordListTooLarge),
            AppendError::InvalidBatch { .. } | AppendError::OutOfOrderOffsets { .. } => {
                told(ResponseError::InvalidRecord)
            }
            AppendError::InvalidRecords { problems } => of_records(problems, log_start, partition),
            AppendError::Producer(error) => told(match error {
                ProducerError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
                ProducerError::InvalidEpoch { .. } => ResponseError::InvalidProducerEpoch,
                ProducerError::NotTransactional { .. } | ProducerError::NoTransaction { .. } => {
                    ResponseError::InvalidTxnState
                }
                ProducerError::CoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
            }),
            AppendError::Storage { .. } => plain(ResponseError::KafkaStorageError),
        }
    }
}

fn of_records(problems: &[RecordProblem], log_start: Offset, partition: &Partition) -> Refusal {
    let is_time = |problem: &RecordProblem| match problem.fault {
        RecordFault::TimestampOutOfRange { .. } | RecordFault::TimestampType => true,
        RecordFault::MissingKey => false,
    };
    let records: Vec<_> =
        problems.iter().map(|problem| (problem.index as i32, fault_text(problem, partition))).collect();
    let (error, message) = if problems.iter().any(is_time) {
        let message = "One or more records have been rejected due to invalid timestamp";
        (ResponseError::InvalidTimestamp, message.to_owned())
    } else {
        let shown: Vec<_> = records
            .iter()
            .take(3)
            .map(|(index, why)| format!("RecordError(batchIndex={index}, message='{why}')"))
            .collect();
        let message = format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three \
             errors at most: [{}]",
            records.len(),
            shown.join(", ")
        );
        (ResponseError::InvalidRecord, message)
    };
    Refusal { error, log_start: Some(log_start), records, message: Some(message) }
}

/// What is wrong with one record, in Kafka's words.
fn fault_text(problem: &RecordProblem, partition: &Partition) -> String {
    match problem.fault {
        fault @ RecordFault::MissingKey => {
            format!("{fault} in topic partition {}-{}", partition.topic(), partition.id().index)
        }
        RecordFault::TimestampOutOfRange { timestamp_ms, earliest_ms, latest_ms } => format!(
            "Timestamp {timestamp_ms} of message with offset {} is out of range. The timestamp should be within \
             [{earliest_ms}, {latest_ms}]",
            problem.index
        ),
        fault @ RecordFault::TimestampType => fault.to_string(),
    }
}
