//! Building a record batch, record by record.

use varve_metadata::{
    config::{Codec, TimestampType},
    model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use super::{
    compression::{self, CodecError},
    header::{Attributes, BatchHeader, HEADER_BYTES},
    record::{RecordView, put_varint, put_varlong, varlong_len},
};

/// What a new record carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordContent<'a> {
    /// `None` is written as -1.
    pub timestamp: Option<Timestamp>,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Keys and values in order; keys may repeat, a value may be null.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Why a batch could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The batch would be larger than its length field can say (2 GiB).
    #[error("record batch is larger than 2 GiB")]
    TooLarge,
    /// The records could not be compressed.
    #[error("records could not be compressed")]
    Compression(#[from] CodecError),
}

/// Collects records and encodes them as one batch. Records get consecutive offsets unless
/// [`push_at`](Self::push_at) says otherwise; the first timestamp becomes the base that the others are relative to.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    level: Option<i32>,
    log_append_time: Option<Timestamp>,
    keep_last_delta: Option<u32>,
    next_delta: i32,
    records: Vec<u8>,
}

impl BatchBuilder {
    /// An empty, uncompressed batch that starts at `base_offset`, without producer or leader epoch.
    pub fn new(base_offset: Offset) -> BatchBuilder {
        BatchBuilder {
            header: BatchHeader {
                base_offset,
                bytes: HEADER_BYTES as u32,
                leader_epoch: None,
                crc: 0,
                attributes: Attributes::default(),
                last_offset_delta: 0,
                base_timestamp_ms: -1,
                max_timestamp_ms: -1,
                producer_id: None,
                producer_epoch: None,
                base_sequence: None,
                record_count: 0,
            },
            level: None,
            log_append_time: None,
            keep_last_delta: None,
            next_delta: 0,
            records: Vec::new(),
        }
    }

    /// An empty batch with everything of `header` that does not follow from the records: base offset, leader epoch,
    /// attributes, producer and sequence, the append time if it is the timestamp type, the delete horizon if there is one.
    pub fn like(header: &BatchHeader) -> BatchBuilder {
        let mut builder = BatchBuilder::new(header.base_offset);
        builder.header = BatchHeader { max_timestamp_ms: -1, record_count: 0, last_offset_delta: 0, ..*header };
        if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
            builder.log_append_time = header.max_timestamp();
        }
        builder
    }

    /// The epoch of the leader that appends the batch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> BatchBuilder {
        self.header.leader_epoch = Some(epoch);
        self
    }

    /// Compresses with `codec` at `level` (`None`: Kafka's default for that codec).
    #[must_use]
    pub fn compression(mut self, codec: Codec, level: Option<i32>) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_compression(codec);
        self.level = level;
        self
    }

    /// Makes `now` the timestamp of all records, of type LogAppendTime.
    #[must_use]
    pub fn log_append_time(mut self, now: Timestamp) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
        self.log_append_time = Some(now);
        self
    }

    /// The idempotent producer that the batch comes from; control batches have no sequence.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Option<Sequence>) -> BatchBuilder {
        self.header.producer_id = Some(id);
        self.header.producer_epoch = Some(epoch);
        self.header.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_transactional(true);
        self
    }

    /// Marks the batch as one of control records.
    #[must_use]
    pub fn control(mut self) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_control(true);
        self
    }

    /// Sets the time from which tombstones may go (KIP-534). It becomes the base timestamp, so set it before the first
    /// record.
    #[must_use]
    pub fn delete_horizon(mut self, horizon: Timestamp) -> BatchBuilder {
        self.header.attributes = self.header.attributes.with_delete_horizon(true);
        self.header.base_timestamp_ms = horizon.to_wire();
        self
    }

    /// Makes the batch end at this offset delta whatever its last record is: compaction keeps a batch's last offset.
    #[must_use]
    pub fn last_offset_delta(mut self, delta: u32) -> BatchBuilder {
        self.keep_last_delta = Some(delta);
        self
    }

    /// Appends `record` at the next offset.
    pub fn push(&mut self, record: RecordContent<'_>) {
        self.push_at(self.next_delta, record);
    }

    /// Appends `record` at `offset_delta` from the base offset; deltas must ascend.
    pub fn push_at(&mut self, offset_delta: i32, record: RecordContent<'_>) {
        let timestamp = record.timestamp.map_or(-1, Timestamp::to_wire);
        let nullable_len =
            |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64) + bytes.len());
        let headers_len: usize = record
            .headers
            .iter()
            .map(|(key, value)| varlong_len(key.len() as i64) + key.len() + nullable_len(*value))
            .sum();
        self.push_parts(
            offset_delta,
            timestamp,
            0,
            record.key,
            record.value,
            record.headers.len(),
            headers_len,
            |out| {
                for (key, value) in record.headers {
                    put_nullable(out, Some(key));
                    put_nullable(out, *value);
                }
            },
        );
    }

    /// Appends a record of another batch whose base timestamp is `base_timestamp_ms`, at `offset_delta` here. Key, value,
    /// headers, attributes and timestamp stay what they are.
    pub fn push_view(&mut self, offset_delta: i32, base_timestamp_ms: i64, record: &RecordView<'_>) {
        let timestamp = base_timestamp_ms.wrapping_add(record.timestamp_delta);
        let (count, headers) = record.raw_headers();
        let parts = (record.key, record.value);
        self.push_parts(offset_delta, timestamp, record.attributes, parts.0, parts.1, count, headers.len(), |out| {
            out.extend_from_slice(headers);
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one record, in the order in which it lies")]
    fn push_parts(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        attributes: i8,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        header_count: usize,
        headers_len: usize,
        put_headers: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.header.record_count == 0 && !self.header.attributes.has_delete_horizon() {
            self.header.base_timestamp_ms = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.header.base_timestamp_ms);
        let nullable_len =
            |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64) + bytes.len());
        let length = 1
            + varlong_len(timestamp_delta)
            + varlong_len(offset_delta.into())
            + nullable_len(key)
            + nullable_len(value)
            + varlong_len(header_count as i64)
            + headers_len;
        let out = &mut self.records;
        out.reserve(length + 5);
        put_varint(out, length as i32);
        out.push(attributes as u8);
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, header_count as i32);
        put_headers(out);

        self.header.max_timestamp_ms = self.header.max_timestamp_ms.max(timestamp);
        self.header.record_count += 1;
        self.header.last_offset_delta = offset_delta as u32;
        self.next_delta = offset_delta + 1;
    }

    /// Number of records so far.
    pub const fn record_count(&self) -> u32 {
        self.header.record_count
    }

    /// Size of the batch if it is not compressed, in bytes.
    pub fn uncompressed_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The encoded batch.
    ///
    /// # Errors
    /// [`BuildError`]: beyond 2 GiB, or the codec failed.
    pub fn build(mut self) -> Result<Vec<u8>, BuildError> {
        if let Some(now) = self.log_append_time {
            self.header.max_timestamp_ms = now.to_wire();
        }
        if let Some(delta) = self.keep_last_delta {
            self.header.last_offset_delta = delta;
        }
        let codec = self.header.attributes.compression();
        let payload = match codec {
            Codec::None => self.records,
            codec => compression::compress(codec, self.level, &self.records)?,
        };
        if HEADER_BYTES + payload.len() > i32::MAX as usize {
            return Err(BuildError::TooLarge);
        }
        Ok(self.header.encode_batch(&payload))
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}
