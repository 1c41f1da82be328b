//! What an append checks and changes before it takes the log's lock: Kafka's rules for batches and, where they cannot be
//! seen in the header, for records.

use std::{borrow::Cow, time::Duration};

use varve_metadata::{
    config::{Codec, TimestampType, TopicCompression},
    model::{Offset, Timestamp},
};

use super::{
    config::LogConfig,
    error::{AppendError, RecordFault, RecordProblem},
    log::{AppendContext, AppendOrigin},
};
use crate::format::{
    BatchBuilder, BatchError, BatchHeader, BuildError, CRC_START, HEADER_BYTES, RecordBatchView, RecordError,
    RecordView,
    compression::{self, CodecError},
    records,
};

/// Most bytes that a batch's records may have when they must be decompressed (or `max.message.bytes`, if that is more).
const MAX_UNCOMPRESSED_BYTES: usize = 128 << 20;
/// The timestamp of a record that has none.
const NO_TIMESTAMP: i64 = -1;
/// Refused records that an error names.
const MAX_PROBLEMS: usize = 1000;
/// Bytes at the front of a batch that lie outside of its CRC and are assigned on append: base offset, length, leader epoch.
const ASSIGNED_BYTES: usize = 16;

/// A batch ready to be written: `header` (offset and epoch yet to be assigned) replaces the front of `bytes`.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) header: BatchHeader,
    pub(super) bytes: Cow<'a, [u8]>,
    /// How much of the encoded header replaces the front of `bytes`.
    pub(super) front: usize,
}

impl Prepared<'_> {
    /// The records as they lie in the batch.
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// Checks the batches in `bytes` and applies the topic's timestamp type and compression. A client's records are walked if they
/// are not compressed; decompressed they are only if a rule asks for it (docs/adr/0015).
pub(super) fn prepare<'a>(
    bytes: &'a [u8],
    config: &LogConfig,
    context: &AppendContext,
) -> Result<Vec<Prepared<'a>>, AppendError> {
    let mut prepared = Vec::with_capacity(1);
    let mut rest = bytes;
    while !rest.is_empty() {
        let (batch, behind) = match RecordBatchView::parse_trusted(rest) {
            // A leader's fetch response may end within a batch; the rest comes with the next.
            Err(BatchError::Truncated) if context.origin == AppendOrigin::Replication && !prepared.is_empty() => break,
            parsed => parsed?,
        };
        rest = behind;
        let next = match context.origin {
            AppendOrigin::Replication => {
                verify_crc(&batch)?;
                Prepared { header: *batch.header(), bytes: batch.as_bytes().into(), front: ASSIGNED_BYTES }
            }
            AppendOrigin::Client | AppendOrigin::Coordinator => prepare_own(&batch, config, context)?,
        };
        prepared.push(next);
    }
    if prepared.is_empty() { Err(BatchError::Truncated.into()) } else { Ok(prepared) }
}

/// A batch that gets its offset here.
fn prepare_own<'a>(
    batch: &RecordBatchView<'a>,
    config: &LogConfig,
    context: &AppendContext,
) -> Result<Prepared<'a>, AppendError> {
    let header = batch.header();
    let from_client = context.origin == AppendOrigin::Client;
    if from_client {
        check_header(header)?;
    }
    check_size(header.bytes, config)?;
    let stamped = config.timestamp_type == TimestampType::LogAppendTime;
    let payload_crc = if stamped { Some(verify_payload_crc(batch)?) } else { verify_crc(batch).map(|()| None)? };
    let source = header.attributes.compression();
    let target = match config.compression {
        // Control records stay as they are: they are few, and their coordinator decides.
        TopicCompression::Codec(codec, level) if codec != source && !header.attributes.is_control() => {
            Some((codec, level))
        }
        _ => None,
    };
    let mut prepared = Prepared { header: *header, bytes: batch.as_bytes().into(), front: ASSIGNED_BYTES };
    let check = from_client.then(|| RecordCheck::new(config, context.now));
    // Uncompressed records are looked at whatever the header says; compressed ones where a rule cannot do without.
    let is_due = |check: &RecordCheck| source == Codec::None || check.concerns(header);
    if target.is_some() || check.as_ref().is_some_and(is_due) {
        let limit = MAX_UNCOMPRESSED_BYTES.max(config.max_message_bytes as usize);
        let payload = compression::decompress(source, batch.payload(), limit).map_err(refuse_compressed)?;
        let walked = check_records(header, &payload, check.as_ref())?;
        let header = BatchHeader { max_timestamp_ms: walked.max_timestamp_ms, ..*header };
        if target.is_some() || !walked.consecutive {
            let (codec, level) = target.unwrap_or((source, None));
            let rebuilt = recompress(&header, &payload, walked.consecutive, codec, level)?;
            prepared.header = BatchHeader::parse(&rebuilt)?;
            prepared.bytes = rebuilt.into();
            check_size(prepared.header.bytes, config)?;
        } else if header.max_timestamp_ms != prepared.header.max_timestamp_ms && !stamped {
            prepared.header = header;
            sign(&mut prepared, crc32c::crc32c(batch.payload()));
        }
    }
    if let Some(crc) = payload_crc {
        let crc = if matches!(prepared.bytes, Cow::Owned(_)) { crc32c::crc32c(prepared.payload()) } else { crc };
        stamp(&mut prepared, context.now, crc);
    }
    Ok(prepared)
}

/// What the header alone tells about a client's batch.
fn check_header(header: &BatchHeader) -> Result<(), AppendError> {
    let refuse = |reason| Err(AppendError::InvalidBatch { reason });
    if header.base_offset != Offset::ZERO {
        return refuse("base offset must be 0");
    }
    if header.record_count == 0 {
        return refuse("no records");
    }
    if u64::from(header.last_offset_delta) + 1 != u64::from(header.record_count) {
        return refuse("last offset and number of records disagree");
    }
    if header.attributes.is_control() {
        return refuse("clients are not allowed to write control records");
    }
    if header.producer_id.is_some() && header.base_sequence.is_none() {
        return refuse("a producer id without a sequence number");
    }
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        let fault = RecordFault::TimestampType;
        return Err(AppendError::InvalidRecords { problems: vec![RecordProblem { index: 0, fault }] });
    }
    Ok(())
}

fn check_size(bytes: u32, config: &LogConfig) -> Result<(), AppendError> {
    let limit = config.max_message_bytes;
    if bytes > limit { Err(AppendError::TooLarge { bytes, limit }) } else { Ok(()) }
}

/// Checks the CRC.
fn verify_crc(batch: &RecordBatchView<'_>) -> Result<(), BatchError> {
    RecordBatchView::parse(batch.as_bytes()).map(drop)
}

/// Checks the CRC and returns that of the payload alone, which lets the header change without reading the payload again.
fn verify_payload_crc(batch: &RecordBatchView<'_>) -> Result<u32, BatchError> {
    let payload_crc = crc32c::crc32c(batch.payload());
    let front = crc32c::crc32c(&batch.as_bytes()[CRC_START..HEADER_BYTES]);
    let whole = crc32c::crc32c_combine(front, payload_crc, batch.payload().len());
    if whole == batch.header().crc { Ok(payload_crc) } else { Err(BatchError::Corrupt { field: "crc" }) }
}

/// The rules for single records that are in force.
#[derive(Debug)]
struct RecordCheck {
    keys: bool,
    earliest_ms: i64,
    latest_ms: i64,
}

impl RecordCheck {
    fn new(config: &LogConfig, now: Timestamp) -> RecordCheck {
        let millis = |bound: Option<Duration>| {
            bound.and_then(|bound| i64::try_from(bound.as_millis()).ok()).filter(|_| create_time(config))
        };
        RecordCheck {
            keys: config.compacted,
            earliest_ms: millis(config.timestamp_before_max).map_or(i64::MIN, |bound| now.to_wire() - bound),
            latest_ms: millis(config.timestamp_after_max).map_or(i64::MAX, |bound| now.to_wire().saturating_add(bound)),
        }
    }

    /// Whether the header does not already show that every record passes. It holds the largest timestamp, not the smallest.
    fn concerns(&self, header: &BatchHeader) -> bool {
        self.keys || self.earliest_ms > 0 || header.max_timestamp_ms > self.latest_ms
    }

    fn fault(&self, timestamp_ms: i64, record: &RecordView<'_>) -> Option<RecordFault> {
        if self.keys && record.key.is_none() {
            return Some(RecordFault::MissingKey);
        }
        let (earliest_ms, latest_ms) = (self.earliest_ms, self.latest_ms);
        let in_range = timestamp_ms == -1 || (earliest_ms..=latest_ms).contains(&timestamp_ms);
        (!in_range).then_some(RecordFault::TimestampOutOfRange { timestamp_ms, earliest_ms, latest_ms })
    }
}

fn create_time(config: &LogConfig) -> bool {
    config.timestamp_type == TimestampType::CreateTime
}

/// What the records of a batch say themselves.
#[derive(Debug)]
struct Walked {
    /// Whether their offsets are consecutive, as they should be.
    consecutive: bool,
    max_timestamp_ms: i64,
}

/// Walks the records: there are as many as the header counts, and nothing else. Without a `check` the header is believed.
fn check_records(header: &BatchHeader, payload: &[u8], check: Option<&RecordCheck>) -> Result<Walked, AppendError> {
    let mut problems = Vec::new();
    let mut walked = Walked { consecutive: true, max_timestamp_ms: NO_TIMESTAMP };
    for (index, record) in (0..).zip(records(payload, header.record_count)) {
        let record = record.map_err(refuse_record)?;
        walked.consecutive &= record.offset_delta == index as i32;
        let timestamp_ms = header.base_timestamp_ms.wrapping_add(record.timestamp_delta);
        walked.max_timestamp_ms = walked.max_timestamp_ms.max(timestamp_ms);
        let fault = check.and_then(|check| check.fault(timestamp_ms, &record));
        if let Some(fault) = fault.filter(|_| problems.len() < MAX_PROBLEMS) {
            problems.push(RecordProblem { index, fault });
        }
    }
    if check.is_none() {
        walked.max_timestamp_ms = header.max_timestamp_ms;
    }
    if problems.is_empty() { Ok(walked) } else { Err(AppendError::InvalidRecords { problems }) }
}

/// The batch in another codec. The records stay the bytes they were, unless their offsets must be counted anew.
fn recompress(
    header: &BatchHeader,
    payload: &[u8],
    consecutive: bool,
    codec: Codec,
    level: Option<i32>,
) -> Result<Vec<u8>, AppendError> {
    if consecutive {
        let header = BatchHeader { attributes: header.attributes.with_compression(codec), ..*header };
        return Ok(header.encode_batch(&compression::compress(codec, level, payload).map_err(refuse_compressed)?));
    }
    let mut builder = BatchBuilder::like(header).compression(codec, level);
    for (index, record) in (0..).zip(records(payload, header.record_count)) {
        builder.push_view(index, header.base_timestamp_ms, &record.map_err(refuse_record)?);
    }
    builder.build().map_err(|error| match error {
        BuildError::TooLarge => AppendError::InvalidBatch { reason: "larger than 2 GiB" },
        BuildError::Compression(error) => refuse_compressed(error),
    })
}

/// Makes `now` the batch's timestamp, of type LogAppendTime. The payload's CRC is not computed again.
fn stamp(prepared: &mut Prepared<'_>, now: Timestamp, payload_crc: u32) {
    let header = &mut prepared.header;
    header.attributes = header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
    header.max_timestamp_ms = now.to_wire();
    sign(prepared, payload_crc);
}

/// Makes the CRC fit a header that was changed over the same payload.
fn sign(prepared: &mut Prepared<'_>, payload_crc: u32) {
    let header = &mut prepared.header;
    let front = crc32c::crc32c(&header.encode()[CRC_START..]);
    header.crc = crc32c::crc32c_combine(front, payload_crc, header.bytes as usize - HEADER_BYTES);
    prepared.front = HEADER_BYTES;
}

fn refuse_record(error: RecordError) -> AppendError {
    AppendError::InvalidBatch {
        reason: match error {
            RecordError::Trailing => "more bytes than the records it counts",
            RecordError::Truncated => "fewer records than it counts",
            RecordError::Varint | RecordError::Length { .. } | RecordError::Unfilled => "malformed record",
        },
    }
}

fn refuse_compressed(error: CodecError) -> AppendError {
    match error {
        CodecError::TooLarge { .. } | CodecError::NoMemory { .. } => {
            AppendError::InvalidBatch { reason: "too large when decompressed" }
        }
        CodecError::Corrupt { .. } | CodecError::Compressor(_) => {
            BatchError::Corrupt { field: "compressed records" }.into()
        }
    }
}
