//! The records of `__transaction_state`, byte for byte as Kafka 4.3 writes them.
//!
//! ```text
//!   key    int16 0 │ string transactional id
//!   value  int16 version │ int64 producer id │ int16 epoch │ int32 timeout ms │ int8 state │
//!          partitions? │ int64 last update ms │ int64 start ms
//!          0: lengths are fixed      1: flexible (written)
//!             tag 0: int64 previous producer id      tag 1: int64 next producer id
//!             tag 2: int16 the producer's transaction version      tag 3: int16 next epoch (KIP-939: not used here)
//!          partitions: int32 count │ string topic │ int32 count │ int32 partition …; null while the state is Empty
//!          no value is a tombstone
//! ```

use std::collections::BTreeSet;

use varve_metadata::model::{PartitionIndex, ProducerEpoch, ProducerId, Timestamp};

use super::{TopicPartition, TransactionState, TransactionVersion};
use crate::coordinator::{
    LogRecord,
    codec::{EncodedRecord, Reader, RecordError, TooLong, Writer},
};

/// What the log says of one transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionRecord {
    /// Which.
    pub transactional_id: String,
    /// Its state, or with `None` its end.
    pub metadata: Option<TransactionMetadata>,
}

/// The state of one transactional id: what survives a restart of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionMetadata {
    /// The producer that uses it.
    pub producer: ProducerId,
    /// The producer before the last change: the same, or the one whose epochs were used up.
    pub previous_producer: Option<ProducerId>,
    /// The producer that takes over once the transaction is complete, when epochs are used up.
    pub next_producer: Option<ProducerId>,
    /// The producer's epoch; `None` before the first is acknowledged, and never in the log.
    pub epoch: Option<ProducerEpoch>,
    /// The transaction is aborted after this, in milliseconds.
    pub timeout_ms: i32,
    /// Where it is.
    pub state: TransactionState,
    /// What is part of it, and has no marker yet.
    pub partitions: BTreeSet<TopicPartition>,
    /// When it last changed.
    pub updated: Timestamp,
    /// When it began; `None` if none is under way.
    pub started: Option<Timestamp>,
    /// How the producer speaks.
    pub version: TransactionVersion,
}

const KEY: i16 = 0;
const NEWEST_VALUE: i16 = 1;
const FIRST_FLEXIBLE: i16 = 1;
const PREVIOUS_PRODUCER_TAG: u32 = 0;
const NEXT_PRODUCER_TAG: u32 = 1;
const VERSION_TAG: u32 = 2;
/// Kafka's number for a producer whose epoch rises with every transaction.
const RAISING: i16 = 2;

impl LogRecord for TransactionRecord {
    fn encode(&self) -> Result<EncodedRecord, TooLong> {
        let mut key = Writer::default();
        key.int16(KEY);
        key.string(&self.transactional_id)?;
        Ok(EncodedRecord { key: key.into_bytes(), value: self.metadata.as_ref().map(encode_value) })
    }

    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<TransactionRecord, RecordError> {
        let mut key = Reader::new(key);
        match key.int16()? {
            KEY => {
                let transactional_id = key.string()?;
                Ok(TransactionRecord { transactional_id, metadata: value.map(decode_value).transpose()? })
            }
            kind => Err(RecordError::UnknownKind(kind)),
        }
    }
}

fn encode_value(metadata: &TransactionMetadata) -> Vec<u8> {
    let mut value = Writer::default();
    value.int16(NEWEST_VALUE);
    value.int64(metadata.producer.to_wire());
    value.int16(metadata.epoch.map_or(-1, ProducerEpoch::to_wire));
    value.int32(metadata.timeout_ms);
    value.int8(metadata.state.to_wire());
    if metadata.state == TransactionState::Empty {
        value.varint(0);
    } else {
        encode_partitions(&mut value, &metadata.partitions);
    }
    value.int64(metadata.updated.to_wire());
    value.int64(metadata.started.map_or(-1, Timestamp::to_wire));
    let producers = [(PREVIOUS_PRODUCER_TAG, metadata.previous_producer), (NEXT_PRODUCER_TAG, metadata.next_producer)];
    let producers = producers.map(|(tag, producer)| producer.map(|producer| (tag, producer)));
    let is_raising = metadata.version == TransactionVersion::Raising;
    value.varint(producers.iter().flatten().count() as u32 + u32::from(is_raising));
    for (tag, producer) in producers.into_iter().flatten() {
        value.varint(tag);
        value.varint(8);
        value.int64(producer.to_wire());
    }
    if is_raising {
        value.varint(VERSION_TAG);
        value.varint(2);
        value.int16(RAISING);
    }
    value.into_bytes()
}

fn encode_partitions(value: &mut Writer, partitions: &BTreeSet<TopicPartition>) {
    // The set is in order, so the partitions of a topic lie together.
    let partitions: Vec<&TopicPartition> = partitions.iter().collect();
    let topics: Vec<&[&TopicPartition]> = partitions.chunk_by(|one, next| one.topic == next.topic).collect();
    value.compact_count(topics.len());
    for topic in topics {
        value.compact_bytes(topic[0].topic.as_bytes());
        value.compact_count(topic.len());
        topic.iter().for_each(|at| value.int32(at.partition.to_wire()));
        value.varint(0);
    }
}

fn decode_value(value: &[u8]) -> Result<TransactionMetadata, RecordError> {
    let mut value = Reader::new(value);
    value.version(NEWEST_VALUE, FIRST_FLEXIBLE)?;
    let producer = ProducerId::from_wire(value.int64()?).ok_or(RecordError::Malformed)?;
    let epoch = ProducerEpoch::from_wire(value.int16()?);
    let timeout_ms = value.int32()?;
    let state = TransactionState::from_wire(value.int8()?).ok_or(RecordError::Malformed)?;
    let partitions = decode_partitions(&mut value)?;
    let updated = Timestamp::from_wire(value.int64()?).unwrap_or_default();
    let started = Timestamp::from_wire(value.int64()?);
    let mut metadata = TransactionMetadata {
        producer,
        previous_producer: None,
        next_producer: None,
        epoch,
        timeout_ms,
        state,
        // Older brokers may have left some behind.
        partitions: if state == TransactionState::Empty { BTreeSet::new() } else { partitions },
        updated,
        started,
        version: TransactionVersion::Fixed,
    };
    value.tagged_fields(|tag, field| {
        match tag {
            PREVIOUS_PRODUCER_TAG => metadata.previous_producer = ProducerId::from_wire(Reader::new(field).int64()?),
            NEXT_PRODUCER_TAG => metadata.next_producer = ProducerId::from_wire(Reader::new(field).int64()?),
            VERSION_TAG if Reader::new(field).int16()? >= RAISING => metadata.version = TransactionVersion::Raising,
            _ => {}
        }
        Ok(())
    })?;
    Ok(metadata)
}

fn decode_partitions(value: &mut Reader<'_>) -> Result<BTreeSet<TopicPartition>, RecordError> {
    let mut partitions = BTreeSet::new();
    // Counts are claims: elements are taken one by one, and a short buffer ends it.
    for _ in 0..value.nullable_count()?.unwrap_or(0) {
        let topic = value.string()?;
        for _ in 0..value.count()? {
            let partition = PartitionIndex::from_wire(value.int32()?).ok_or(RecordError::Malformed)?;
            partitions.insert(TopicPartition { topic: topic.clone(), partition });
        }
        value.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests;
