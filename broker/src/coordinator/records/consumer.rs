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

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use varve_metadata::model::{PartitionIndex, Timestamp};

use super::{
    from_millis,
    modern::{
        GroupEpochRecord, TargetRecord, Value, decode_member_target, decode_target, encode_member_target,
        encode_target, end_epochs, end_number, end_with_epochs, end_with_number, put, put_names, put_topic, started,
        take_names, take_partitions, take_topic,
    },
    to_millis,
};
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
        put(key, kind, self.group(), second, value)
    }

    pub(super) fn decode(kind: i16, key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<ConsumerRecord, RecordError> {
        let group = key.string()?;
        let value = Value::open(value)?;
        Ok(match kind {
            GROUP => ConsumerRecord::Group(group, value.of(decode_group)?),
            TOPICS_METADATA => ConsumerRecord::TopicsMetadata(group, !value.is_tombstone()),
            TARGET => ConsumerRecord::Target(group, value.of(decode_target)?),
            MEMBER => ConsumerRecord::Member(group, key.string()?, value.of(decode_member)?),
            MEMBER_TARGET => ConsumerRecord::MemberTarget(group, key.string()?, value.of(decode_member_target)?),
            CURRENT => ConsumerRecord::Current(group, key.string()?, value.of(decode_current)?),
            _ => ConsumerRecord::Regex(group, key.string()?, value.of(decode_regex)?),
        })
    }
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

fn encode_member(member: &ConsumerMemberRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.compact_nullable_string(member.instance_id.as_deref())?;
    value.compact_nullable_string(member.rack_id.as_deref())?;
    value.compact_string(&member.client_id)?;
    value.compact_string(&member.client_host)?;
    put_names(&mut value, member.topics.iter())?;
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
            field.compact_list(classic.protocols.iter(), |field, protocol| {
                field.compact_string(&protocol.name)?;
                field.compact_bytes(&protocol.metadata);
                field.no_tags();
                Ok(())
            })?;
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
        topics: take_names(value)?,
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
    let protocols = field.list(|field| {
        let protocol = Protocol { name: field.string()?, metadata: Bytes::copy_from_slice(field.bytes()?) };
        field.end()?;
        Ok(protocol)
    })?;
    field.end()?;
    Ok(Some(ClassicMetadata { session_timeout, protocols }))
}

fn encode_current(current: &CurrentRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(current.epoch.0);
    value.int32(current.previous_epoch.0);
    value.int8(current.state.to_log());
    put_owned(&mut value, &current.assigned);
    put_owned(&mut value, &current.pending_revocation);
    value.no_tags();
    Ok(value)
}

fn decode_current(value: &mut Reader<'_>) -> Result<CurrentRecord, RecordError> {
    let (epoch, previous_epoch) = (MemberEpoch(value.int32()?), MemberEpoch(value.int32()?));
    let state = MemberState::from_log(value.int8()?);
    // Records from before the epochs of partitions: they count as assigned in the member's own.
    let usual = epoch.0.max(0);
    let (assigned, pending_revocation) = (take_owned(value, usual)?, take_owned(value, usual)?);
    value.end()?;
    Ok(CurrentRecord { epoch, previous_epoch, state, assigned, pending_revocation })
}

fn put_owned(value: &mut Writer, owned: &OwnedPartitions) {
    value.compact_count(owned.len());
    for (topic, partitions) in owned {
        put_topic(value, *topic);
        value.compact_int32s(partitions.keys().map(|partition| partition.to_wire()));
        if partitions.is_empty() {
            value.no_tags();
        } else {
            end_with_epochs(value, partitions.values().copied());
        }
    }
}

fn take_owned(value: &mut Reader<'_>, usual: i32) -> Result<OwnedPartitions, RecordError> {
    let mut owned = OwnedPartitions::new();
    // The count is a claim: a short buffer ends it.
    for _ in 0..value.count()? {
        let topic = take_topic(value)?;
        let partitions: Vec<PartitionIndex> = take_partitions(value)?;
        let epochs = end_epochs(value, partitions.len(), usual)?;
        owned.entry(topic).or_default().extend(partitions.into_iter().zip(epochs));
    }
    Ok(owned)
}

fn encode_regex(regex: &ResolvedRegex) -> Result<Writer, TooLong> {
    let mut value = started();
    put_names(&mut value, regex.topics.iter())?;
    value.int64(regex.version);
    value.int64(regex.at.to_wire());
    value.no_tags();
    Ok(value)
}

fn decode_regex(value: &mut Reader<'_>) -> Result<ResolvedRegex, RecordError> {
    let (topics, version) = (take_names(value)?, value.int64()?);
    let at = Timestamp::from_wire(value.int64()?).unwrap_or_default();
    value.end()?;
    Ok(ResolvedRegex { topics, version, at })
}
