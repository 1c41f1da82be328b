//! The records of consumer groups (KIP-848), byte for byte as Kafka 4.3 writes them.
//!
//! ```text
//!   key    int16 kind │ string group │ 5, 7, 8: string member; 16: string regular expression
//!   value  int16 0 │ fields, all in the flexible form │ tagged fields; no value is a tombstone
//!    3 group               int32 epoch │ tag 0: int64 hash of the topics' metadata
//!    4 topics' metadata    (Kafka before 4.1; not read, and taken back when the group next changes)
//!    5 member              string? instance │ string? rack │ string client id │ string client host │ string[] topics │
//!                          string? regex │ int32 rebalance timeout │ string? assignor │ tag 0: classic protocol, or null
//!    6 target, its epoch   int32 epoch │ tag 0: int64 time of the assignment
//!    7 target of a member  { uuid topic │ int32[] partitions }[]
//!    8 what a member has   int32 epoch │ int32 epoch before │ int8 state │ owned[] assigned │ owned[] to be revoked
//!          owned           uuid topic │ int32[] partitions │ tag 0: int32[]? epochs of their assignment
//!   16 regular expression  string[] topics │ int64 version of the metadata │ int64 time
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, Timestamp, TopicId};

use super::{from_millis, to_millis};
use crate::coordinator::{
    MemberEpoch,
    assignor::PartitionSet,
    codec::{Reader, RecordError, TooLong, Writer},
    consumer::{MemberState, OwnedPartitions},
    group::Protocol,
};

const GROUP: i16 = 3;
const TOPICS_METADATA: i16 = 4;
const MEMBER: i16 = 5;
const TARGET: i16 = 6;
const MEMBER_TARGET: i16 = 7;
const CURRENT: i16 = 8;
const REGEX: i16 = 16;

/// A part of a consumer group, or with `None` its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerRecord {
    /// The group itself.
    Group(String, Option<GroupEpochRecord>),
    /// Whether the log still has what Kafka before 4.1 kept of the topics. Only its end is ever written.
    TopicsMetadata(String, bool),
    /// Who a member is and what it wants: group, member.
    Member(String, String, Option<ConsumerMemberRecord>),
    /// Of which epoch the target assignment is.
    Target(String, Option<TargetRecord>),
    /// What a member shall have: group, member.
    MemberTarget(String, String, Option<PartitionSet>),
    /// What a member has: group, member.
    Current(String, String, Option<CurrentRecord>),
    /// The topics behind a regular expression: group, expression.
    Regex(String, String, Option<ResolvedRegex>),
}

/// The group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEpochRecord {
    /// Raised whenever members, subscriptions or topics change.
    pub epoch: i32,
    /// Of the topics that the group subscribes to, at that epoch.
    pub metadata_hash: i64,
}

/// A member's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberRecord {
    /// Static membership (KIP-345).
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// From the request header.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Topics subscribed to by name.
    pub topics: BTreeSet<String>,
    /// Topics subscribed to by pattern; empty or absent if none are.
    pub regex: Option<String>,
    /// How long it may take to give partitions up, in milliseconds; -1 if it never said.
    pub rebalance_timeout_ms: i32,
    /// The assignor that it asks for.
    pub assignor: Option<String>,
    /// Present for members that speak the classic protocol.
    pub classic: Option<ClassicMetadata>,
}

/// What is kept of a member of the classic protocol in a consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassicMetadata {
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// The protocols of its last join.
    pub protocols: Vec<Protocol>,
}

/// The target assignment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRecord {
    /// The group epoch that it was made for.
    pub epoch: i32,
    /// When; unknown in records of Kafka before 4.3, and after an upgrade from a classic group.
    pub assigned_at: Option<Timestamp>,
}

/// A member's place on the way to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentRecord {
    /// The epoch that its requests must carry.
    pub epoch: MemberEpoch,
    /// The one before: its requests may still carry it, if it did not hear of the last.
    pub previous_epoch: MemberEpoch,
    /// What it waits for.
    pub state: MemberState,
    /// What it may read.
    pub assigned: OwnedPartitions,
    /// What it has to give up first.
    pub pending_revocation: OwnedPartitions,
}

/// The topics that a regular expression matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedRegex {
    /// By name.
    pub topics: BTreeSet<String>,
    /// Which version of the cluster's metadata they come from.
    pub version: i64,
    /// When they were looked for.
    pub at: Timestamp,
}

impl ConsumerRecord {
    /// The kinds that are records of consumer groups.
    pub(super) const KINDS: [i16; 7] = [GROUP, TOPICS_METADATA, MEMBER, TARGET, MEMBER_TARGET, CURRENT, REGEX];

    /// The group's id.
    pub fn group(&self) -> &str {
        match self {
            ConsumerRecord::Group(group, _)
            | ConsumerRecord::TopicsMetadata(group, _)
            | ConsumerRecord::Member(group, ..)
            | ConsumerRecord::Target(group, _)
            | ConsumerRecord::MemberTarget(group, ..)
            | ConsumerRecord::Current(group, ..)
            | ConsumerRecord::Regex(group, ..) => group,
        }
    }

    /// Writes the key; returns the value.
    pub(super) fn encode(&self, key: &mut Writer) -> Result<Option<Vec<u8>>, TooLong> {
        let (kind, second, value) = match self {
            ConsumerRecord::Group(_, value) => (GROUP, None, value.as_ref().map(encode_group)),
            ConsumerRecord::TopicsMetadata(_, is_there) => (TOPICS_METADATA, None, is_there.then(encode_topics)),
            ConsumerRecord::Member(_, member, value) => (MEMBER, Some(member), value.as_ref().map(encode_member)),
            ConsumerRecord::Target(_, value) => (TARGET, None, value.as_ref().map(encode_target)),
            ConsumerRecord::MemberTarget(_, member, value) => {
                (MEMBER_TARGET, Some(member), value.as_ref().map(encode_member_target))
            }
            ConsumerRecord::Current(_, member, value) => (CURRENT, Some(member), value.as_ref().map(encode_current)),
            ConsumerRecord::Regex(_, regex, value) => (REGEX, Some(regex), value.as_ref().map(encode_regex)),
        };
        key.int16(kind);
        key.string(self.group())?;
        if let Some(second) = second {
            key.string(second)?;
        }
        Ok(value.transpose()?.map(Writer::into_bytes))
    }

    pub(super) fn decode(kind: i16, key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<ConsumerRecord, RecordError> {
        let group = key.string()?;
        let mut value = value.map(Reader::new);
        if let Some(value) = &mut value {
            value.version(0, 0)?;
        }
        let mut value = value.as_mut();
        Ok(match kind {
            GROUP => ConsumerRecord::Group(group, value.map(decode_group).transpose()?),
            TOPICS_METADATA => ConsumerRecord::TopicsMetadata(group, value.is_some()),
            TARGET => ConsumerRecord::Target(group, value.map(decode_target).transpose()?),
            MEMBER => ConsumerRecord::Member(group, key.string()?, value.map(decode_member).transpose()?),
            MEMBER_TARGET => {
                ConsumerRecord::MemberTarget(group, key.string()?, value.map(decode_member_target).transpose()?)
            }
            CURRENT => ConsumerRecord::Current(group, key.string()?, value.map(decode_current).transpose()?),
            _ => ConsumerRecord::Regex(group, key.string()?, value.as_mut().map(|v| decode_regex(v)).transpose()?),
        })
    }
}

/// A value of version 0.
pub(super) fn started() -> Writer {
    let mut value = Writer::default();
    value.int16(0);
    value
}

/// Ends a value with tag 0 as a number, which is left out where it has its default.
fn end_with_number(mut value: Writer, number: i64) -> Writer {
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
fn end_number(value: &mut Reader<'_>) -> Result<i64, RecordError> {
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

fn encode_group(group: &GroupEpochRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(group.epoch);
    Ok(end_with_number(value, group.metadata_hash))
}

fn decode_group(value: &mut Reader<'_>) -> Result<GroupEpochRecord, RecordError> {
    Ok(GroupEpochRecord { epoch: value.int32()?, metadata_hash: end_number(value)? })
}

fn encode_topics() -> Result<Writer, TooLong> {
    let mut value = started();
    value.compact_count(0);
    value.no_tags();
    Ok(value)
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

fn encode_member(member: &ConsumerMemberRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.compact_nullable_string(member.instance_id.as_deref())?;
    value.compact_nullable_string(member.rack_id.as_deref())?;
    value.compact_string(&member.client_id)?;
    value.compact_string(&member.client_host)?;
    value.compact_count(member.topics.len());
    member.topics.iter().try_for_each(|topic| value.compact_string(topic))?;
    value.compact_nullable_string(member.regex.as_deref())?;
    value.int32(member.rebalance_timeout_ms);
    value.compact_nullable_string(member.assignor.as_deref())?;
    match &member.classic {
        // The field's default is an empty one, so its absence has to be said.
        None => {
            let mut field = Writer::default();
            field.varint(0);
            value.one_tag(0, field);
        }
        Some(classic) if *classic == ClassicMetadata::default() => value.no_tags(),
        Some(classic) => {
            let mut field = Writer::default();
            field.varint(1);
            field.int32(to_millis(classic.session_timeout));
            field.compact_count(classic.protocols.len());
            for protocol in &classic.protocols {
                field.compact_string(&protocol.name)?;
                field.compact_bytes(&protocol.metadata);
                field.no_tags();
            }
            field.no_tags();
            value.one_tag(0, field);
        }
    }
    Ok(value)
}

fn decode_member(value: &mut Reader<'_>) -> Result<ConsumerMemberRecord, RecordError> {
    let mut member = ConsumerMemberRecord {
        instance_id: value.nullable_string()?,
        rack_id: value.nullable_string()?,
        client_id: value.string()?,
        client_host: value.string()?,
        topics: decode_names(value)?,
        regex: value.nullable_string()?,
        rebalance_timeout_ms: value.int32()?,
        assignor: value.nullable_string()?,
        classic: Some(ClassicMetadata::default()),
    };
    value.tagged_fields(|tag, field| {
        if tag == 0 {
            member.classic = decode_classic(&mut Reader::flexible(field))?;
        }
        Ok(())
    })?;
    Ok(member)
}

fn decode_classic(field: &mut Reader<'_>) -> Result<Option<ClassicMetadata>, RecordError> {
    if field.varint()? == 0 {
        return Ok(None);
    }
    let session_timeout = from_millis(field.int32()?);
    // The count is a claim, here and below: a short buffer ends it.
    let count = field.count()?;
    let mut protocols = Vec::new();
    for _ in 0..count {
        let name = field.string()?;
        let metadata = Bytes::copy_from_slice(field.bytes()?);
        field.tagged_fields(|_, _| Ok(()))?;
        protocols.push(Protocol { name, metadata });
    }
    field.tagged_fields(|_, _| Ok(()))?;
    Ok(Some(ClassicMetadata { session_timeout, protocols }))
}

pub(super) fn decode_names(value: &mut Reader<'_>) -> Result<BTreeSet<String>, RecordError> {
    let count = value.count()?;
    let mut names = BTreeSet::new();
    for _ in 0..count {
        names.insert(value.string()?);
    }
    Ok(names)
}

pub(super) fn encode_member_target(target: &PartitionSet) -> Result<Writer, TooLong> {
    let mut value = started();
    put_targets(&mut value, target);
    value.no_tags();
    Ok(value)
}

pub(super) fn put_targets(value: &mut Writer, target: &PartitionSet) {
    value.compact_count(target.len());
    for (topic, partitions) in target {
        value.raw(topic.to_wire().as_bytes());
        value.compact_count(partitions.len());
        partitions.iter().for_each(|partition| value.int32(partition.to_wire()));
        value.no_tags();
    }
}

pub(super) fn decode_member_target(value: &mut Reader<'_>) -> Result<PartitionSet, RecordError> {
    let target = take_targets(value)?;
    value.tagged_fields(|_, _| Ok(()))?;
    Ok(target)
}

pub(super) fn take_targets(value: &mut Reader<'_>) -> Result<PartitionSet, RecordError> {
    let count = value.count()?;
    let mut target = PartitionSet::new();
    for _ in 0..count {
        let topic = decode_topic(value)?;
        target.entry(topic).or_default().extend(decode_partitions(value)?);
        value.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(target)
}

pub(super) fn decode_topic(value: &mut Reader<'_>) -> Result<TopicId, RecordError> {
    TopicId::from_wire(Uuid::from_bytes(value.uuid()?)).ok_or(RecordError::Malformed)
}

pub(super) fn decode_partitions(value: &mut Reader<'_>) -> Result<Vec<PartitionIndex>, RecordError> {
    let count = value.count()?;
    let mut partitions = Vec::new();
    for _ in 0..count {
        partitions.push(PartitionIndex::from_wire(value.int32()?).ok_or(RecordError::Malformed)?);
    }
    Ok(partitions)
}

fn encode_current(current: &CurrentRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(current.epoch.0);
    value.int32(current.previous_epoch.0);
    value.int8(current.state.to_log());
    encode_owned(&mut value, &current.assigned)?;
    encode_owned(&mut value, &current.pending_revocation)?;
    value.no_tags();
    Ok(value)
}

fn decode_current(value: &mut Reader<'_>) -> Result<CurrentRecord, RecordError> {
    let (epoch, previous_epoch) = (MemberEpoch(value.int32()?), MemberEpoch(value.int32()?));
    let state = MemberState::from_log(value.int8()?);
    // Records from before the epochs of partitions: they count as assigned in the member's own.
    let usual = epoch.0.max(0);
    let (assigned, pending_revocation) = (decode_owned(value, usual)?, decode_owned(value, usual)?);
    value.tagged_fields(|_, _| Ok(()))?;
    Ok(CurrentRecord { epoch, previous_epoch, state, assigned, pending_revocation })
}

fn encode_owned(value: &mut Writer, owned: &OwnedPartitions) -> Result<(), TooLong> {
    value.compact_count(owned.len());
    for (topic, partitions) in owned {
        value.raw(topic.to_wire().as_bytes());
        value.compact_count(partitions.len());
        partitions.keys().for_each(|partition| value.int32(partition.to_wire()));
        if partitions.is_empty() {
            value.no_tags();
            continue;
        }
        let mut field = Writer::default();
        field.compact_count(partitions.len());
        partitions.values().for_each(|epoch| field.int32(*epoch));
        value.one_tag(0, field);
    }
    Ok(())
}

fn decode_owned(value: &mut Reader<'_>, usual: i32) -> Result<OwnedPartitions, RecordError> {
    let count = value.count()?;
    let mut owned = OwnedPartitions::new();
    for _ in 0..count {
        let topic = decode_topic(value)?;
        let partitions = decode_partitions(value)?;
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
        if epochs.len() != partitions.len() {
            epochs = vec![usual; partitions.len()];
        }
        let of_topic: &mut BTreeMap<PartitionIndex, i32> = owned.entry(topic).or_default();
        of_topic.extend(partitions.into_iter().zip(epochs));
    }
    Ok(owned)
}

fn encode_regex(regex: &ResolvedRegex) -> Result<Writer, TooLong> {
    let mut value = started();
    value.compact_count(regex.topics.len());
    regex.topics.iter().try_for_each(|topic| value.compact_string(topic))?;
    value.int64(regex.version);
    value.int64(regex.at.to_wire());
    value.no_tags();
    Ok(value)
}

fn decode_regex(value: &mut Reader<'_>) -> Result<ResolvedRegex, RecordError> {
    let (topics, version) = (decode_names(value)?, value.int64()?);
    let at = Timestamp::from_wire(value.int64()?).unwrap_or_default();
    value.tagged_fields(|_, _| Ok(()))?;
    Ok(ResolvedRegex { topics, version, at })
}
