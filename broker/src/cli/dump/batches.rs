//! Record batches, wherever they lie.

use std::io::Write;
use std::ops::Range;

use anyhow::{Context, bail};
use bytes::BytesMut;
use serde_json::{Value, json};
use varve_log::format::compression::decompress;
use varve_log::format::{BatchError, BatchHeader, ControlRecord, HEADER_BYTES, RecordBatchView, RecordView, records};
use varve_metadata::config::TimestampType;

use crate::cli::content::Content;
use crate::cli::out::{self, Out};

/// Read at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// A batch whose records are larger than this is not looked into.
const MAX_RECORDS_BYTES: usize = 1 << 30;

/// Prints the batches in `range`, each checked against its CRC. Memory: one piece, or one batch if that is larger.
pub(super) async fn segment<W: Write>(
    content: &Content,
    range: Range<u64>,
    deep: bool,
    out: &mut Out<W>,
) -> anyhow::Result<()> {
    let mut buffer = BytesMut::new();
    let mut position = range.start;
    let mut read = range.start;
    loop {
        let needed = match BatchHeader::parse(&buffer) {
            Ok(header) => u64::from(header.bytes),
            Err(BatchError::Truncated) => HEADER_BYTES as u64,
            // A preallocated segment ends in zeros, and no batch begins with that many.
            Err(_) if buffer.iter().all(|byte| *byte == 0) => {
                buffer.clear();
                HEADER_BYTES as u64
            }
            Err(error) => return Err(error).with_context(|| format!("batch at position {position}")),
        };
        if needed <= buffer.len() as u64 {
            let bytes = buffer.split_to(needed as usize);
            let (batch, _) = RecordBatchView::parse(&bytes).with_context(|| format!("batch at position {position}"))?;
            print(&batch, Some(position), deep, out)?;
            position += needed;
            continue;
        }
        if read == range.end {
            break;
        }
        // Never more than there is: a length field may claim anything.
        let end = range.end.min(read + PIECE_BYTES.max(needed - buffer.len() as u64));
        let piece = content.read(read..end).await?;
        if piece.is_empty() {
            break;
        }
        read += piece.len() as u64;
        buffer.extend_from_slice(&piece);
    }
    // A crash leaves part of a batch.
    match buffer.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => bail!("{} bytes at position {position} are no whole batch", buffer.len()),
    }
}

/// Prints one batch, and its records if `deep`.
pub(super) fn print<W: Write>(
    batch: &RecordBatchView<'_>,
    position: Option<u64>,
    deep: bool,
    out: &mut Out<W>,
) -> anyhow::Result<()> {
    out.line(0, &header_fields(batch.header(), position))?;
    if !deep {
        return Ok(());
    }
    let header = batch.header();
    let plain = decompress(header.attributes.compression(), batch.payload(), MAX_RECORDS_BYTES)
        .with_context(|| format!("records of the batch at offset {}", header.base_offset))?;
    for record in records(&plain, header.record_count) {
        let record = record.with_context(|| format!("records of the batch at offset {}", header.base_offset))?;
        out.line(1, &record_fields(header, &record)?)?;
    }
    Ok(())
}

fn header_fields(header: &BatchHeader, position: Option<u64>) -> Vec<out::Field> {
    let attributes = header.attributes;
    vec![
        ("base_offset", json!(header.base_offset)),
        ("last_offset", json!(header.last_offset())),
        ("records", json!(header.record_count)),
        ("position", position.map_or(Value::Null, |position| json!(position))),
        ("bytes", json!(header.bytes)),
        ("codec", json!(attributes.compression().name())),
        ("timestamp_type", json!(timestamp_type(attributes.timestamp_type()))),
        ("base_timestamp", json!(header.base_timestamp_ms)),
        ("max_timestamp", json!(header.max_timestamp_ms)),
        ("leader_epoch", json!(header.leader_epoch)),
        ("producer_id", json!(header.producer_id)),
        ("producer_epoch", json!(header.producer_epoch)),
        ("base_sequence", json!(header.base_sequence)),
        ("transactional", json!(attributes.is_transactional())),
        ("control", json!(attributes.is_control())),
        ("delete_horizon", json!(header.delete_horizon())),
        ("crc", json!(header.crc)),
    ]
}

const fn timestamp_type(kind: TimestampType) -> &'static str {
    match kind {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn record_fields(header: &BatchHeader, record: &RecordView<'_>) -> anyhow::Result<Vec<out::Field>> {
    let offset = header.base_offset.to_wire().saturating_add(record.offset_delta.into());
    let timestamp = match header.attributes.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp_ms.saturating_add(record.timestamp_delta),
        TimestampType::LogAppendTime => header.max_timestamp_ms,
    };
    let mut fields = vec![("offset", json!(offset)), ("timestamp", json!(timestamp))];
    if header.attributes.is_control() {
        let marker = match ControlRecord::parse(record)? {
            Some(ControlRecord::Commit { coordinator_epoch }) => json!({ "commit": coordinator_epoch }),
            Some(ControlRecord::Abort { coordinator_epoch }) => json!({ "abort": coordinator_epoch }),
            None => json!("unknown"),
        };
        fields.push(("marker", marker));
        return Ok(fields);
    }
    let headers: Vec<Value> = record
        .headers()
        .map(|(key, value)| json!({ "key": out::bytes(Some(key)), "value": out::bytes(value) }))
        .collect();
    fields.push(("key", out::bytes(record.key)));
    fields.push(("value", out::bytes(record.value)));
    fields.push(("headers", if headers.is_empty() { Value::Null } else { Value::Array(headers) }));
    Ok(fields)
}
