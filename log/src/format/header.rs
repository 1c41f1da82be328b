//! The fixed header of a record batch, decoded into types and encoded back.

use varve_metadata::{
    config::{Codec, TimestampType},
    model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use super::batch::BatchError;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before and including the length field: what the length field does not count.
pub(crate) const LENGTH_OVERHEAD: usize = 12;
/// Where the bytes that the CRC covers begin.
pub(crate) const CRC_START: usize = 21;
/// The only format that Varve stores; 0 and 1 ended with Kafka 4.
pub(crate) const MAGIC: i8 = 2;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// The attribute bits of a batch; unused bits are kept as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(i16);

impl Attributes {
    /// `None` if the codec bits name no codec (5 to 7).
    pub fn from_wire(raw: i16) -> Option<Attributes> {
        Codec::from_wire((raw & CODEC_MASK) as u8).map(|_| Attributes(raw))
    }

    /// The bits as the batch carries them.
    pub const fn to_wire(self) -> i16 {
        self.0
    }

    /// How the records are compressed.
    pub fn compression(self) -> Codec {
        Codec::from_wire((self.0 & CODEC_MASK) as u8).expect("checked when the attributes were made")
    }

    /// Whose clock the timestamps are.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// Whether the batch belongs to a transaction (KIP-98).
    pub const fn is_transactional(self) -> bool {
        self.0 & TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records (transaction markers), which consumers never see.
    pub const fn is_control(self) -> bool {
        self.0 & CONTROL != 0
    }

    /// Whether the base timestamp is the time from which the cleaner may drop the batch's tombstones (KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & DELETE_HORIZON != 0
    }

    /// These attributes with another codec.
    #[must_use]
    pub const fn with_compression(self, codec: Codec) -> Attributes {
        Attributes((self.0 & !CODEC_MASK) | codec.to_wire() as i16)
    }

    /// These attributes with another timestamp type.
    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        self.with(LOG_APPEND_TIME, matches!(timestamp_type, TimestampType::LogAppendTime))
    }

    /// These attributes, transactional or not.
    #[must_use]
    pub const fn with_transactional(self, on: bool) -> Attributes {
        self.with(TRANSACTIONAL, on)
    }

    /// These attributes, of a control batch or not.
    #[must_use]
    pub const fn with_control(self, on: bool) -> Attributes {
        self.with(CONTROL, on)
    }

    /// These attributes, with the delete-horizon bit or without.
    #[must_use]
    pub const fn with_delete_horizon(self, on: bool) -> Attributes {
        self.with(DELETE_HORIZON, on)
    }

    const fn with(self, bit: i16, on: bool) -> Attributes {
        Attributes(if on { self.0 | bit } else { self.0 & !bit })
    }
}

/// The decoded header of one batch. Numbers that the protocol signs are types here, save the two timestamps: a batch must
/// come back byte for byte, and they may hold values below -1 that no type of ours can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the batch's first record, or what was its first record before compaction.
    pub base_offset: Offset,
    /// Size of the whole batch in bytes, header included: at least [`HEADER_BYTES`], at most `i32::MAX` + 12.
    pub bytes: u32,
    /// Epoch of the leader that appended it; `None` until one has (-1 on the wire).
    pub leader_epoch: Option<LeaderEpoch>,
    /// CRC-32C of the bytes from the attributes to the end, as stored.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control, delete horizon.
    pub attributes: Attributes,
    /// Last offset minus base offset; kept by compaction even when the last record goes.
    pub last_offset_delta: u32,
    /// What record timestamps are relative to, in milliseconds; the delete horizon if the attributes say so.
    pub base_timestamp_ms: i64,
    /// Largest timestamp of the batch's records in milliseconds; -1 for none.
    pub max_timestamp_ms: i64,
    /// Set for idempotent and transactional producers.
    pub producer_id: Option<ProducerId>,
    /// Set together with the producer id.
    pub producer_epoch: Option<ProducerEpoch>,
    /// Sequence of the first record; `None` without idempotence and for control batches.
    pub base_sequence: Option<Sequence>,
    /// Number of records in the batch; compaction may leave 0.
    pub record_count: u32,
}

impl BatchHeader {
    /// Decodes the header at the start of `buf`, which need not hold the records.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] if `buf` is shorter than a header; [`BatchError::UnsupportedMagic`];
    /// [`BatchError::Corrupt`] if a field has a value that no writer makes. The CRC is not looked at.
    pub fn parse(buf: &[u8]) -> Result<BatchHeader, BatchError> {
        let header: &[u8; HEADER_BYTES] = buf.first_chunk().ok_or(BatchError::Truncated)?;
        let magic = header[16] as i8;
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        let corrupt = |field| BatchError::Corrupt { field };
        let unsigned = |at, field| u32::try_from(i32::from_be_bytes(bytes(header, at))).map_err(|_| corrupt(field));
        let length = unsigned(8, "length")?;
        let bytes_total = length + LENGTH_OVERHEAD as u32;
        if (bytes_total as usize) < HEADER_BYTES {
            return Err(corrupt("length"));
        }
        Ok(BatchHeader {
            base_offset: Offset::from_wire(i64::from_be_bytes(bytes(header, 0))).ok_or(corrupt("base offset"))?,
            bytes: bytes_total,
            leader_epoch: LeaderEpoch::from_wire(i32::from_be_bytes(bytes(header, 12))),
            crc: u32::from_be_bytes(bytes(header, 17)),
            attributes: Attributes::from_wire(i16::from_be_bytes(bytes(header, 21))).ok_or(corrupt("codec"))?,
            last_offset_delta: unsigned(23, "last offset delta")?,
            base_timestamp_ms: i64::from_be_bytes(bytes(header, 27)),
            max_timestamp_ms: i64::from_be_bytes(bytes(header, 35)),
            producer_id: ProducerId::from_wire(i64::from_be_bytes(bytes(header, 43))),
            producer_epoch: ProducerEpoch::from_wire(i16::from_be_bytes(bytes(header, 51))),
            base_sequence: Sequence::from_wire(i32::from_be_bytes(bytes(header, 53))),
            record_count: unsigned(57, "record count")?,
        })
    }

    /// The header as a batch carries it, with the length and CRC that it states.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&self.base_offset.to_wire().to_be_bytes());
        out[8..12].copy_from_slice(&(self.bytes - LENGTH_OVERHEAD as u32).to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.map_or(-1, LeaderEpoch::to_wire).to_be_bytes());
        out[16] = MAGIC as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_wire().to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.map_or(-1, ProducerId::to_wire).to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.map_or(-1, ProducerEpoch::to_wire).to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.map_or(-1, Sequence::to_wire).to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// The whole batch: this header over `payload` (the records, compressed as the attributes say), with length and CRC
    /// computed anew.
    ///
    /// # Panics
    /// If the batch would exceed what its length field can hold (2 GiB).
    pub fn encode_batch(&self, payload: &[u8]) -> Vec<u8> {
        let bytes = u32::try_from(HEADER_BYTES + payload.len())
            .ok()
            .filter(|bytes| *bytes <= i32::MAX as u32)
            .expect("a batch is far below 2 GiB");
        let mut header = BatchHeader { bytes, crc: 0, ..*self }.encode();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CRC_START..]), payload);
        header[17..21].copy_from_slice(&crc.to_be_bytes());
        let mut batch = Vec::with_capacity(HEADER_BYTES + payload.len());
        batch.extend_from_slice(&header);
        batch.extend_from_slice(payload);
        batch
    }

    /// Offset of the batch's last record, or what was its last record before compaction.
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64)
    }

    /// The offset that follows the batch.
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }

    /// Largest timestamp of its records; `None` if they have none.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        Timestamp::from_wire(self.max_timestamp_ms)
    }

    /// When the cleaner may drop the batch's tombstones (KIP-534), if it has decided that yet.
    pub fn delete_horizon(&self) -> Option<Timestamp> {
        self.attributes.has_delete_horizon().then(|| Timestamp::from_wire(self.base_timestamp_ms)).flatten()
    }

    /// Sequence of the last record.
    pub fn last_sequence(&self) -> Option<Sequence> {
        self.base_sequence.map(|first| first.plus(self.last_offset_delta))
    }
}

/// The `N` bytes at `at`.
fn bytes<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}
