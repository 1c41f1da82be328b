//! What the records of consumer, share and streams groups share.

use std::collections::BTreeSet;

use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, Timestamp, TopicId};

use crate::coordinator::{
    assignor::PartitionSet,
    codec::{Reader, RecordError, TooLong, Writer},
};

/// The group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEpochRecord {
    /// Raised whenever members, subscriptions or topics change.
    pub epoch: i32,
    /// Of the topics that the group subscribes to, at that epoch.
    pub metadata_hash: i64,
}

/// The target assignment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRecord {
    /// The group epoch that it was made for.
    pub epoch: i32,
    /// When; unknown in records of Kafka before 4.3, and after an upgrade from a classic group.
    pub assigned_at: Option<Timestamp>,
}

/// Writes the key of a part of `group`, with `second` where there are several of the kind; returns the value, `None` for a
/// tombstone.
pub(super) fn put(
    key: &mut Writer,
    kind: i16,
    group: &str,
    second: Option<&String>,
    value: Option<Result<Writer, TooLong>>,
) -> Result<Option<Vec<u8>>, TooLong> {
    key.int16(kind);
    key.string(group)?;
    if let Some(second) = second {
        key.string(second)?;
    }
    Ok(value.transpose()?.map(Writer::into_bytes))
}

/// A value of version 0.
pub(super) fn started() -> Writer {
    let mut value = Writer::default();
    value.int16(0);
    value
}

/// A value of version 0 that is read, or a tombstone.
pub(super) struct Value<'a>(Option<Reader<'a>>);

impl<'a> Value<'a> {
    pub(super) fn open(bytes: Option<&'a [u8]>) -> Result<Value<'a>, RecordError> {
        let mut value = bytes.map(Reader::new);
        if let Some(value) = &mut value {
            value.version(0, 0)?;
        }
        Ok(Value(value))
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn of<T>(
        self,
        decode: impl FnOnce(&mut Reader<'a>) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        self.0.map(|mut value| decode(&mut value)).transpose()
    }
}

/// Ends a value with tag 0 as a number, which is left out where it has its default.
pub(super) fn end_with_number(mut value: Writer, number: i64) -> Writer {
    if number == 0 {
        value.no_tags();
    } else {
        let mut field = Writer::default();
        field.int64(number);
        value.one_tag(0, field);
    }
    value
}

/// Tag 0 as a number, 0 if it is not there.
pub(super) fn end_number(value: &mut Reader<'_>) -> Result<i64, RecordError> {
    let mut number = 0;
    value.tagged_fields(|tag, field| {
        if tag == 0 {
            let bytes: &[u8; 8] = field.try_into().map_err(|_| RecordError::Malformed)?;
            number = i64::from_be_bytes(*bytes);
        }
        Ok(())
    })?;
    Ok(number)
}

pub(super) fn encode_target(target: &TargetRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(target.epoch);
    Ok(end_with_number(value, target.assigned_at.map_or(0, Timestamp::to_wire)))
}

pub(super) fn decode_target(value: &mut Reader<'_>) -> Result<TargetRecord, RecordError> {
    let epoch = value.int32()?;
    let assigned_at = Timestamp::from_wire(end_number(value)?).filter(|at| at.to_wire() != 0);
    Ok(TargetRecord { epoch, assigned_at })
}

pub(super) fn put_names<'a>(
    value: &mut Writer,
    names: impl ExactSizeIterator<Item = &'a String>,
) -> Result<(), TooLong> {
    value.compact_list(names, |value, name| value.compact_string(name))
}

pub(super) fn take_names<L: FromIterator<String>>(value: &mut Reader<'_>) -> Result<L, RecordError> {
    value.list(Reader::string)
}

pub(super) fn encode_member_target(target: &PartitionSet) -> Result<Writer, TooLong> {
    let mut value = started();
    put_targets(&mut value, target);
    value.no_tags();
    Ok(value)
}

pub(super) fn decode_member_target(value: &mut Reader<'_>) -> Result<PartitionSet, RecordError> {
    let target = take_targets(value)?;
    value.end()?;
    Ok(target)
}

pub(super) fn put_targets(value: &mut Writer, target: &PartitionSet) {
    value.compact_count(target.len());
    for (topic, partitions) in target {
        put_topic(value, *topic);
        put_partitions(value, partitions);
        value.no_tags();
    }
}

pub(super) fn take_targets(value: &mut Reader<'_>) -> Result<PartitionSet, RecordError> {
    let mut target = PartitionSet::new();
    // The count is a claim: a short buffer ends it.
    for _ in 0..value.count()? {
        let topic = take_topic(value)?;
        target.entry(topic).or_default().extend(take_partitions::<Vec<_>>(value)?);
        value.end()?;
    }
    Ok(target)
}

pub(super) fn put_topic(value: &mut Writer, topic: TopicId) {
    value.raw(topic.to_wire().as_bytes());
}

pub(super) fn take_topic(value: &mut Reader<'_>) -> Result<TopicId, RecordError> {
    TopicId::from_wire(Uuid::from_bytes(value.uuid()?)).ok_or(RecordError::Malformed)
}

pub(super) fn put_partitions(value: &mut Writer, partitions: &BTreeSet<PartitionIndex>) {
    value.compact_int32s(partitions.iter().map(|partition| partition.to_wire()));
}

pub(super) fn take_partitions<L: FromIterator<PartitionIndex>>(value: &mut Reader<'_>) -> Result<L, RecordError> {
    value.list(|value| PartitionIndex::from_wire(value.int32()?).ok_or(RecordError::Malformed))
}

/// Ends a struct with tag 0: for each of its partitions or tasks the epoch of its assignment.
pub(super) fn end_with_epochs(value: &mut Writer, epochs: impl ExactSizeIterator<Item = i32>) {
    let mut field = Writer::default();
    field.compact_int32s(epochs);
    value.one_tag(0, field);
}

/// The epochs of `count` partitions or tasks; in records from before there were any, all are `usual`.
pub(super) fn end_epochs(value: &mut Reader<'_>, count: usize, usual: i32) -> Result<Vec<i32>, RecordError> {
    let mut epochs = Vec::new();
    value.tagged_fields(|tag, field| {
        if tag == 0 {
            let mut field = Reader::flexible(field);
            for _ in 0..field.nullable_count()?.unwrap_or(0) {
                epochs.push(field.int32()?);
            }
        }
        Ok(())
    })?;
    Ok(if epochs.len() == count { epochs } else { vec![usual; count] })
}
