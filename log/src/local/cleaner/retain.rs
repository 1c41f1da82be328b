//! What stays of one batch. Pure.

use std::{collections::HashMap, time::Duration};

use varve_metadata::{
    config::Codec,
    model::{Offset, ProducerId, Timestamp},
};

use super::{
    offset_map::{KeyDigest, OffsetMap},
    transactions::{CleanedTransactions, Marker},
};
use crate::{
    format::{
        BatchBuilder, BatchHeader, BuildError, ControlRecord, HEADER_BYTES, RecordBatchView, RecordError, RecordView,
        compression::{self, CodecError},
        records,
    },
    local::LastRecord,
};

/// Most bytes that the records of one batch may take when they are decompressed.
const MOST_RECORD_BYTES: usize = 256 << 20;

/// Who knows which record is the last of its key.
pub trait LatestOffsets {
    /// Whether no later record of `key` is known than the one at `offset`.
    fn is_latest(&self, key: &[u8], offset: Offset) -> bool;
    /// First offset of which nothing is known: records from there on stay.
    fn end(&self) -> Offset;
}

impl LatestOffsets for OffsetMap {
    fn is_latest(&self, key: &[u8], offset: Offset) -> bool {
        self.get(KeyDigest::of(key)).is_none_or(|latest| offset >= latest)
    }

    fn end(&self) -> Offset {
        OffsetMap::end(self)
    }
}

/// Takes the keys of a log in offset order.
pub trait KeySink {
    /// Notes that `key` occurs at `offset`, later than all noted before. Returns whether there was room.
    fn put(&mut self, key: KeyDigest, offset: Offset) -> bool;
    /// Notes that every key below `end` is known.
    fn cover(&mut self, end: Offset);
}

impl KeySink for OffsetMap {
    fn put(&mut self, key: KeyDigest, offset: Offset) -> bool {
        OffsetMap::put(self, key, offset)
    }

    fn cover(&mut self, end: Offset) {
        OffsetMap::cover(self, end);
    }
}

/// What decides about every batch of a round.
#[derive(Debug)]
pub struct BatchRules<'a, L> {
    /// The last record of each key.
    pub latest: &'a L,
    /// The wall clock at the start of the round.
    pub now: Timestamp,
    /// How long tombstones and markers stay after they could go (`delete.retention.ms`).
    pub delete_retention: Duration,
    /// From here on tombstones and markers stay whatever their age: what they speak of may lie elsewhere, where nobody has
    /// heard of them. [`Offset::MAX`] if there is no such place.
    pub unheard_from: Offset,
    /// The last record of every producer that is still known: its batch stays, if need be without records.
    pub last_records: &'a HashMap<ProducerId, LastRecord>,
    /// Where the round ends: the batch that ends there stays, so that the log's offsets do not end earlier.
    pub round_end: Offset,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CleanedBatch {
    /// It stays byte for byte.
    Kept,
    /// Nothing of it stays.
    Dropped,
    /// This batch takes its place, with the same base offset, last offset, producer and sequence.
    Replaced(Vec<u8>),
}

/// Why a batch could not be cleaned.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The records do not decompress.
    #[error("records of the batch at offset {offset} do not decompress")]
    Codec {
        /// Its base offset.
        offset: Offset,
        /// What does not hold.
        source: CodecError,
    },
    /// A record is damaged.
    #[error("the batch at offset {offset} holds a damaged record")]
    Record {
        /// Its base offset.
        offset: Offset,
        /// What does not hold.
        source: RecordError,
    },
    /// What stays could not be encoded.
    #[error("the rest of the batch at offset {offset} could not be encoded")]
    Build {
        /// Its base offset.
        offset: Offset,
        /// Why.
        source: BuildError,
    },
}

/// What a round did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanerStats {
    /// Records met.
    pub records_read: u64,
    /// Records that stayed.
    pub records_kept: u64,
    /// Bytes of batches met.
    pub bytes_read: u64,
    /// Bytes of batches written.
    pub bytes_kept: u64,
    /// Records without a key, which have no place in a compacted log and go.
    pub records_without_key: u64,
}

/// What stays of `batch`, the next one of the pass that `transactions` follows.
///
/// # Errors
/// [`CleanError`] if the batch cannot be read: its log must then be left as it is.
pub fn clean_batch<L: LatestOffsets>(
    batch: &RecordBatchView<'_>,
    rules: &BatchRules<'_, L>,
    transactions: &mut CleanedTransactions,
    stats: &mut CleanerStats,
) -> Result<CleanedBatch, CleanError> {
    let header = batch.header();
    stats.bytes_read += u64::from(header.bytes);
    stats.records_read += u64::from(header.record_count);
    let at = header.base_offset;
    let payload = uncompressed(batch)?;
    let is_control = header.attributes.is_control();
    // All of it may go: the data of an aborted transaction, or a marker that decides about nothing any more.
    let (discardable, horizon) = if is_control {
        let marker = marker_of(header, &payload)?;
        (transactions.meet_marker(header, marker), header.delete_horizon())
    } else {
        (transactions.meet_data(header), header.delete_horizon())
    };
    let horizon_passed = horizon.is_some_and(|horizon| horizon <= rules.now) && at < rules.unheard_from;
    let discard = discardable && (!is_control || horizon_passed);
    let must_stay = is_last_of_its_producer(header, rules.last_records) || header.next_offset() == rules.round_end;
    if discard && !must_stay {
        return Ok(CleanedBatch::Dropped);
    }

    let mut kept = Vec::new();
    let mut has_tombstones = false;
    if !discard {
        for record in records(&payload, header.record_count) {
            let record = record.map_err(|source| CleanError::Record { offset: at, source })?;
            if is_control || keeps(&record, header, rules, stats) {
                has_tombstones |= record.value.is_none();
                kept.push(record);
            }
        }
    }
    stats.records_kept += kept.len() as u64;
    if kept.is_empty() {
        if !must_stay {
            return Ok(CleanedBatch::Dropped);
        }
        stats.bytes_kept += HEADER_BYTES as u64;
        let was_empty = header.record_count == 0;
        return Ok(if was_empty { CleanedBatch::Kept } else { CleanedBatch::Replaced(emptied(header)) });
    }
    let sets_horizon = horizon.is_none() && (has_tombstones || (is_control && discardable));
    if kept.len() == header.record_count as usize && !sets_horizon {
        stats.bytes_kept += u64::from(header.bytes);
        return Ok(CleanedBatch::Kept);
    }
    let mut builder = BatchBuilder::like(header).last_offset_delta(header.last_offset_delta);
    if sets_horizon {
        let delay = i64::try_from(rules.delete_retention.as_millis()).unwrap_or(i64::MAX);
        let horizon = Timestamp::from_wire(rules.now.to_wire().saturating_add(delay));
        builder = builder.delete_horizon(horizon.unwrap_or_default());
    }
    for record in &kept {
        builder.push_view(record.offset_delta, header.base_timestamp_ms, record);
    }
    let bytes = builder.build().map_err(|source| CleanError::Build { offset: at, source })?;
    stats.bytes_kept += bytes.len() as u64;
    Ok(CleanedBatch::Replaced(bytes))
}

/// Notes the keys of `batch`, from offset `from` on, in `map`. Returns whether there was room for all; if not, the map
/// covers nothing of this batch.
///
/// # Errors
/// [`CleanError`] if the batch cannot be read.
pub fn index_batch<S: KeySink>(
    batch: &RecordBatchView<'_>,
    from: Offset,
    transactions: &mut CleanedTransactions,
    map: &mut S,
) -> Result<bool, CleanError> {
    let header = batch.header();
    if header.attributes.is_control() {
        let marker = marker_of(header, &uncompressed(batch)?)?;
        transactions.meet_marker(header, marker);
    } else if !transactions.meet_data(header) {
        for record in records(&uncompressed(batch)?, header.record_count) {
            let record = record.map_err(|source| CleanError::Record { offset: header.base_offset, source })?;
            let offset = offset_of(header, &record);
            if let Some(key) = record.key.filter(|_| offset >= from)
                && !map.put(KeyDigest::of(key), offset)
            {
                return Ok(false);
            }
        }
    }
    if header.last_offset() >= from {
        map.cover(header.next_offset());
    }
    Ok(true)
}

/// Whether a record of a data batch stays: nothing is known of its offset, or it is the last of its key and no tombstone
/// past its time.
fn keeps<L: LatestOffsets>(
    record: &RecordView<'_>,
    header: &BatchHeader,
    rules: &BatchRules<'_, L>,
    stats: &mut CleanerStats,
) -> bool {
    let offset = offset_of(header, record);
    if offset >= rules.latest.end() {
        return true;
    }
    let Some(key) = record.key else {
        stats.records_without_key += 1;
        return false;
    };
    let in_time = offset >= rules.unheard_from || header.delete_horizon().is_none_or(|horizon| rules.now < horizon);
    (record.value.is_some() || in_time) && rules.latest.is_latest(key, offset)
}

/// Whether the state of the batch's producer could not be rebuilt without it: it holds the last sequence, or, for a producer
/// whose last word was a marker, the last epoch.
fn is_last_of_its_producer(header: &BatchHeader, last_records: &HashMap<ProducerId, LastRecord>) -> bool {
    let last = header.producer_id.and_then(|producer| last_records.get(&producer));
    last.is_some_and(|last| match last.last_data {
        Some(offset) => header.last_offset() == offset,
        None => header.attributes.is_control() && header.producer_epoch == Some(last.epoch),
    })
}

/// The batch without records, as Kafka leaves it: neither codec nor base timestamp nor delete horizon mean anything now.
fn emptied(header: &BatchHeader) -> Vec<u8> {
    let empty = BatchHeader {
        attributes: header.attributes.with_compression(Codec::None).with_delete_horizon(false),
        base_timestamp_ms: -1,
        record_count: 0,
        ..*header
    };
    empty.encode_batch(&[])
}

fn uncompressed<'a>(batch: &RecordBatchView<'a>) -> Result<std::borrow::Cow<'a, [u8]>, CleanError> {
    let header = batch.header();
    if header.record_count == 0 {
        return Ok(std::borrow::Cow::Borrowed(&[]));
    }
    compression::decompress(header.attributes.compression(), batch.payload(), MOST_RECORD_BYTES)
        .map_err(|source| CleanError::Codec { offset: header.base_offset, source })
}

/// What a control batch says in its record.
fn marker_of(header: &BatchHeader, payload: &[u8]) -> Result<Marker, CleanError> {
    let damaged = |source| CleanError::Record { offset: header.base_offset, source };
    let Some(record) = records(payload, header.record_count).next() else { return Ok(Marker::Emptied) };
    Ok(match ControlRecord::parse(&record.map_err(damaged)?).map_err(damaged)? {
        Some(ControlRecord::Commit { .. }) => Marker::Commit,
        Some(ControlRecord::Abort { .. }) => Marker::Abort,
        None => Marker::Other,
    })
}

fn offset_of(header: &BatchHeader, record: &RecordView<'_>) -> Offset {
    header.base_offset.plus(u64::try_from(record.offset_delta).unwrap_or(0))
}

#[cfg(test)]
mod tests;
