//! The records of `__share_group_state`, byte for byte as Kafka 4.3 writes them.
//!
//! ```text
//!   key    int16 kind │ string group │ uuid topic │ int32 partition
//!   value  int16 0 │ …, flexible:
//!     kind 0, snapshot   int32 snapshot epoch │ int32 state epoch │ int32 leader epoch │ int64 start │
//!                        int64 made ms │ int64 written ms │ batches;    no value is a tombstone
//!     kind 1, update     int32 snapshot epoch │ int32 leader epoch │ int64 start, -1 if it is not new │ batches
//!     batches            int64 first │ int64 last │ int8 state │ int16 deliveries
//!     tag 0 of both: int32 how many records from the start on are settled
//! ```

use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use super::{DeliveryState, KeptState, ShareKey, StateBatch, StateEpoch};
use crate::coordinator::{
    LogRecord,
    codec::{EncodedRecord, Reader, RecordError, TooLong, Writer},
};

/// A record of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareRecord {
    /// All there is to know of a share partition, or with `None` its end.
    Snapshot(ShareKey, Option<Snapshot>),
    /// What changed since the snapshot before.
    Update(ShareKey, Update),
}

/// All there is to know of a share partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts snapshots.
    pub epoch: i32,
    /// The state.
    pub state: KeptState,
    /// When the state was last changed.
    pub made_at: Timestamp,
    /// When the snapshot was written.
    pub written_at: Timestamp,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Of the snapshot before.
    pub snapshot_epoch: i32,
    /// The leader that wrote.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The first record that is not settled, if that is new.
    pub start: Option<Offset>,
    /// How many records from there on are settled.
    pub settled: Option<u32>,
    /// What became of records.
    pub batches: Vec<StateBatch>,
}

const SNAPSHOT: i16 = 0;
const UPDATE: i16 = 1;
const VALUE_VERSION: i16 = 0;
const SETTLED_TAG: u32 = 0;

impl ShareRecord {
    /// What it is about.
    pub fn key(&self) -> &ShareKey {
        match self {
            ShareRecord::Snapshot(key, _) | ShareRecord::Update(key, _) => key,
        }
    }
}

impl LogRecord for ShareRecord {
    fn encode(&self) -> Result<EncodedRecord, TooLong> {
        let (kind, value) = match self {
            ShareRecord::Snapshot(_, snapshot) => (SNAPSHOT, snapshot.as_ref().map(encode_snapshot)),
            ShareRecord::Update(_, update) => (UPDATE, Some(encode_update(update))),
        };
        let about = self.key();
        let mut key = Writer::default();
        key.int16(kind);
        key.string(&about.group)?;
        key.raw(about.topic.to_wire().as_bytes());
        key.int32(about.partition.to_wire());
        Ok(EncodedRecord { key: key.into_bytes(), value })
    }

    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<ShareRecord, RecordError> {
        let mut reader = Reader::new(key);
        let kind = reader.int16()?;
        if !matches!(kind, SNAPSHOT | UPDATE) {
            return Err(RecordError::UnknownKind(kind));
        }
        let key = ShareKey {
            group: reader.string()?,
            topic: TopicId::from_wire(Uuid::from_bytes(reader.uuid()?)).ok_or(RecordError::Malformed)?,
            partition: PartitionIndex::from_wire(reader.int32()?).ok_or(RecordError::Malformed)?,
        };
        match (kind, value) {
            (SNAPSHOT, value) => Ok(ShareRecord::Snapshot(key, value.map(decode_snapshot).transpose()?)),
            (_, Some(value)) => Ok(ShareRecord::Update(key, decode_update(value)?)),
            // Nobody ends what is only an addition.
            (_, None) => Err(RecordError::Malformed),
        }
    }
}

fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut value = Writer::default();
    let state = &snapshot.state;
    value.int16(VALUE_VERSION);
    value.int32(snapshot.epoch);
    value.int32(state.state_epoch.to_wire());
    value.int32(leader_to_wire(state.leader_epoch));
    value.int64(state.start.map_or(-1, Offset::to_wire));
    value.int64(snapshot.made_at.to_wire());
    value.int64(snapshot.written_at.to_wire());
    encode_batches(&mut value, &state.batches);
    encode_settled(value, state.settled)
}

fn encode_update(update: &Update) -> Vec<u8> {
    let mut value = Writer::default();
    value.int16(VALUE_VERSION);
    value.int32(update.snapshot_epoch);
    value.int32(leader_to_wire(update.leader_epoch));
    value.int64(update.start.map_or(-1, Offset::to_wire));
    encode_batches(&mut value, &update.batches);
    encode_settled(value, update.settled)
}

fn leader_to_wire(epoch: Option<LeaderEpoch>) -> i32 {
    epoch.map_or(-1, LeaderEpoch::to_wire)
}

fn encode_batches(value: &mut Writer, batches: &[StateBatch]) {
    value.compact_count(batches.len());
    for batch in batches {
        value.int64(batch.first.to_wire());
        value.int64(batch.last.to_wire());
        value.int8(batch.state.to_wire());
        value.int16(batch.deliveries.min(i16::MAX as u16) as i16);
        value.no_tags();
    }
}

fn encode_settled(mut value: Writer, settled: Option<u32>) -> Vec<u8> {
    match settled {
        Some(settled) => {
            let mut field = Writer::default();
            field.int32(settled.min(i32::MAX as u32) as i32);
            value.one_tag(SETTLED_TAG, field);
        }
        None => value.no_tags(),
    }
    value.into_bytes()
}

fn decode_snapshot(value: &[u8]) -> Result<Snapshot, RecordError> {
    let mut value = Reader::new(value);
    value.version(VALUE_VERSION, 0)?;
    let epoch = value.int32()?;
    let state_epoch = StateEpoch::from_wire(value.int32()?).ok_or(RecordError::Malformed)?;
    let leader_epoch = LeaderEpoch::from_wire(value.int32()?);
    let start = Offset::from_wire(value.int64()?);
    let made_at = Timestamp::from_wire(value.int64()?).unwrap_or_default();
    let written_at = Timestamp::from_wire(value.int64()?).unwrap_or_default();
    let batches = decode_batches(&mut value)?;
    let settled = decode_settled(&mut value)?;
    let state = KeptState { state_epoch, leader_epoch, start, settled, batches };
    Ok(Snapshot { epoch, state, made_at, written_at })
}

fn decode_update(value: &[u8]) -> Result<Update, RecordError> {
    let mut value = Reader::new(value);
    value.version(VALUE_VERSION, 0)?;
    let snapshot_epoch = value.int32()?;
    let leader_epoch = LeaderEpoch::from_wire(value.int32()?);
    let start = Offset::from_wire(value.int64()?);
    let batches = decode_batches(&mut value)?;
    let settled = decode_settled(&mut value)?;
    Ok(Update { snapshot_epoch, leader_epoch, start, settled, batches })
}

fn decode_batches(value: &mut Reader<'_>) -> Result<Vec<StateBatch>, RecordError> {
    // Counts are claims: elements are taken one by one, and a short buffer ends it.
    let mut batches = Vec::new();
    for _ in 0..value.count()? {
        let offset = |raw: i64| Offset::from_wire(raw).ok_or(RecordError::Malformed);
        let (first, last) = (offset(value.int64()?)?, offset(value.int64()?)?);
        let state = DeliveryState::from_wire(value.int8()?).ok_or(RecordError::Malformed)?;
        let deliveries = u16::try_from(value.int16()?).map_err(|_| RecordError::Malformed)?;
        value.tagged_fields(|_, _| Ok(()))?;
        batches.push(StateBatch { first, last, state, deliveries });
    }
    Ok(batches)
}

fn decode_settled(value: &mut Reader<'_>) -> Result<Option<u32>, RecordError> {
    let mut settled = None;
    value.tagged_fields(|tag, field| {
        if tag == SETTLED_TAG {
            settled = u32::try_from(Reader::flexible(field).int32()?).ok();
        }
        Ok(())
    })?;
    Ok(settled)
}
