//! The records of `__consumer_offsets`, byte for byte as Kafka 4.3 writes them.
//!
//! ```text
//!   key    int16 kind │ fields                kinds: 0, 1 offset commit; 2 group metadata
//!          0, 1: string group │ string topic │ int32 partition
//!          2:    string group
//!   value  int16 version │ fields; no value is a tombstone
//!   offset commit     0: int64 offset │ string metadata │ int64 commit time
//!                     1: 0 │ int64 expire time                        (written when the client asked for a retention)
//!                     2: 0      3: int64 offset │ int32 leader epoch │ string metadata │ int64 commit time
//!                     4: 3, flexible │ tag 0: uuid topic id           (written otherwise)
//!   group metadata    0: string protocol type │ int32 generation │ string? protocol │ string? leader │ members
//!                     2 adds int64 state time before the members; 3 is written; 4 is 3, flexible
//!          member     string id │ 3+: string? instance id │ string client id │ string client host │
//!                     1+: int32 rebalance timeout │ int32 session timeout │ bytes subscription │ bytes assignment
//! ```
//! A string is int16 length and UTF-8, bytes are int32 length and content; flexible versions use unsigned varints
//! (length + 1, 0 for null) and end every struct with tagged fields. The kinds of consumer groups (KIP-848) are in
//! `consumer`, those of share groups (KIP-932) in `share`, those of streams groups (KIP-1071) in `streams`, what those share in
//! `modern`; other kinds are of group types that came later, and are reported as such.

mod consumer;
mod modern;
mod share;
mod streams;

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, PartitionIndex, Timestamp, TopicId};

use super::{
    CommittedOffset, Generation, LogRecord,
    codec::{EncodedRecord, Reader, RecordError, TooLong, Writer},
};

pub use consumer::{ClassicMetadata, ConsumerMemberRecord, ConsumerRecord, CurrentRecord, ResolvedRegex};
pub use modern::{GroupEpochRecord, TargetRecord};
pub use share::{KeptPartitions, ShareCurrentRecord, ShareGroupRecord, ShareMemberRecord, TopicShare};
pub use streams::{StreamsCurrentRecord, StreamsGroupRecord, StreamsMemberRecord, StreamsRecord};

/// One record of the coordinator, before it has bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRecord {
    /// An offset committed, or with `None` removed.
    Offset(OffsetKey, Option<CommittedOffset>),
    /// A classic group's membership, or with `None` its end.
    Group(String, Option<GroupMetadata>),
    /// A part of a consumer group (KIP-848).
    Consumer(ConsumerRecord),
    /// A part of a share group (KIP-932).
    Share(ShareGroupRecord),
    /// A part of a streams group (KIP-1071).
    Streams(StreamsRecord),
}

impl From<ConsumerRecord> for CoordinatorRecord {
    fn from(record: ConsumerRecord) -> CoordinatorRecord {
        CoordinatorRecord::Consumer(record)
    }
}

impl From<ShareGroupRecord> for CoordinatorRecord {
    fn from(record: ShareGroupRecord) -> CoordinatorRecord {
        CoordinatorRecord::Share(record)
    }
}

impl From<StreamsRecord> for CoordinatorRecord {
    fn from(record: StreamsRecord) -> CoordinatorRecord {
        CoordinatorRecord::Streams(record)
    }
}

impl CoordinatorRecord {
    /// The group whose membership the record is about; `None` for offsets, which belong to groups of every type.
    pub(super) fn membership_of(&self) -> Option<&str> {
        match self {
            CoordinatorRecord::Offset(..) => None,
            CoordinatorRecord::Group(group, _) => Some(group),
            CoordinatorRecord::Consumer(record) => Some(record.group()),
            CoordinatorRecord::Share(record) => Some(record.group()),
            CoordinatorRecord::Streams(record) => Some(record.group()),
        }
    }

    /// Whether the group changes only once the record is acknowledged, and nothing else may change it until then.
    pub(super) fn is_exclusive(&self) -> bool {
        match self {
            CoordinatorRecord::Consumer(_) | CoordinatorRecord::Share(_) | CoordinatorRecord::Streams(_) => true,
            CoordinatorRecord::Offset(..) | CoordinatorRecord::Group(..) => false,
        }
    }

    /// Whether it says that a coordinator assigned anew.
    pub(super) fn is_target(&self) -> bool {
        matches!(
            self,
            CoordinatorRecord::Consumer(ConsumerRecord::Target(_, Some(_)))
                | CoordinatorRecord::Share(ShareGroupRecord::Target(_, Some(_)))
                | CoordinatorRecord::Streams(StreamsRecord::Target(_, Some(_)))
        )
    }
}

/// Whose offset it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetKey {
    /// The group.
    pub group: String,
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
}

/// A group as the log keeps it: what survives a restart of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// For example `consumer`; empty if no member ever joined.
    pub protocol_type: String,
    /// The generation.
    pub generation: Generation,
    /// The protocol chosen for it.
    pub protocol: Option<String>,
    /// The member that assigned.
    pub leader: Option<String>,
    /// When the group entered its state; unknown in records before version 2.
    pub state_since: Option<Timestamp>,
    /// Its members.
    pub members: Vec<MemberMetadata>,
}

/// A member as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static (KIP-345).
    pub instance_id: Option<String>,
    /// From the header of its join.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long a rebalance waits for it.
    pub rebalance_timeout: Duration,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// What it sent for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}

const LEGACY_OFFSET: i16 = 0;
const OFFSET: i16 = 1;
const GROUP: i16 = 2;
const NEWEST_VALUE: i16 = 4;
const FIRST_FLEXIBLE: i16 = 4;
const TOPIC_ID_TAG: u32 = 0;

impl LogRecord for CoordinatorRecord {
    fn encode(&self) -> Result<EncodedRecord, TooLong> {
        let mut key = Writer::default();
        let value = match self {
            CoordinatorRecord::Offset(at, offset) => {
                key.int16(OFFSET);
                key.string(&at.group)?;
                key.string(&at.topic)?;
                key.int32(at.partition.to_wire());
                offset.as_ref().map(encode_offset).transpose()?
            }
            CoordinatorRecord::Group(group, metadata) => {
                key.int16(GROUP);
                key.string(group)?;
                metadata.as_ref().map(encode_group).transpose()?
            }
            CoordinatorRecord::Consumer(record) => record.encode(&mut key)?,
            CoordinatorRecord::Share(record) => record.encode(&mut key)?,
            CoordinatorRecord::Streams(record) => record.encode(&mut key)?,
        };
        Ok(EncodedRecord { key: key.into_bytes(), value })
    }

    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<CoordinatorRecord, RecordError> {
        let mut key = Reader::new(key);
        match key.int16()? {
            kind @ (LEGACY_OFFSET | OFFSET) => {
                let group = key.string()?;
                let topic = key.string()?;
                let partition = PartitionIndex::from_wire(key.int32()?).ok_or(RecordError::Malformed)?;
                // The legacy kind shares its layout with version 0 of the value, and exists in no other version.
                let newest = if kind == LEGACY_OFFSET { 0 } else { NEWEST_VALUE };
                let offset = value.map(|value| decode_offset(value, newest)).transpose()?;
                Ok(CoordinatorRecord::Offset(OffsetKey { group, topic, partition }, offset))
            }
            GROUP => {
                let group = key.string()?;
                Ok(CoordinatorRecord::Group(group, value.map(decode_group).transpose()?))
            }
            kind if ConsumerRecord::KINDS.contains(&kind) => {
                ConsumerRecord::decode(kind, &mut key, value).map(CoordinatorRecord::Consumer)
            }
            kind if ShareGroupRecord::KINDS.contains(&kind) => {
                ShareGroupRecord::decode(kind, &mut key, value).map(CoordinatorRecord::Share)
            }
            kind if StreamsRecord::KINDS.contains(&kind) => {
                StreamsRecord::decode(kind, &mut key, value).map(CoordinatorRecord::Streams)
            }
            kind => Err(RecordError::UnknownKind(kind)),
        }
    }
}

fn encode_offset(committed: &CommittedOffset) -> Result<Vec<u8>, TooLong> {
    let mut value = Writer::default();
    match committed.expires_at {
        // Only version 1 has the field; readers of every age know it.
        Some(expires_at) => {
            value.int16(1);
            value.int64(committed.offset);
            value.string(&committed.metadata)?;
            value.int64(committed.committed_at.to_wire());
            value.int64(expires_at.to_wire());
        }
        None => {
            value.int16(NEWEST_VALUE);
            value.int64(committed.offset);
            value.int32(committed.leader_epoch.map_or(-1, LeaderEpoch::to_wire));
            value.compact_bytes(committed.metadata.as_bytes());
            value.int64(committed.committed_at.to_wire());
            match committed.topic_id {
                None => value.varint(0),
                Some(id) => {
                    value.varint(1);
                    value.varint(TOPIC_ID_TAG);
                    value.varint(16);
                    value.raw(id.to_wire().as_bytes());
                }
            }
        }
    }
    Ok(value.into_bytes())
}

fn decode_offset(value: &[u8], newest: i16) -> Result<CommittedOffset, RecordError> {
    let mut value = Reader::new(value);
    let version = value.version(newest, FIRST_FLEXIBLE)?;
    let offset = value.int64()?;
    let leader_epoch = if version >= 3 { LeaderEpoch::from_wire(value.int32()?) } else { None };
    let metadata = value.string()?;
    let committed_at = Timestamp::from_wire(value.int64()?).unwrap_or_default();
    let expires_at = if version == 1 { Timestamp::from_wire(value.int64()?) } else { None };
    let mut topic_id = None;
    value.tagged_fields(|tag, field| {
        if tag == TOPIC_ID_TAG {
            let bytes: &[u8; 16] = field.try_into().map_err(|_| RecordError::Malformed)?;
            topic_id = TopicId::from_wire(Uuid::from_bytes(*bytes));
        }
        Ok(())
    })?;
    Ok(CommittedOffset { offset, leader_epoch, metadata, committed_at, expires_at, topic_id })
}

fn encode_group(group: &GroupMetadata) -> Result<Vec<u8>, TooLong> {
    let mut value = Writer::default();
    // Not 4: brokers from before KIP-915 could not read it, and it says nothing more.
    value.int16(3);
    value.string(&group.protocol_type)?;
    value.int32(group.generation.to_wire());
    value.nullable_string(group.protocol.as_deref())?;
    value.nullable_string(group.leader.as_deref())?;
    value.int64(group.state_since.map_or(-1, Timestamp::to_wire));
    value.count(group.members.len())?;
    for member in &group.members {
        value.string(&member.member_id)?;
        value.nullable_string(member.instance_id.as_deref())?;
        value.string(&member.client_id)?;
        value.string(&member.client_host)?;
        value.int32(to_millis(member.rebalance_timeout));
        value.int32(to_millis(member.session_timeout));
        value.bytes(&member.subscription)?;
        value.bytes(&member.assignment)?;
    }
    Ok(value.into_bytes())
}

fn decode_group(value: &[u8]) -> Result<GroupMetadata, RecordError> {
    let mut value = Reader::new(value);
    let version = value.version(NEWEST_VALUE, FIRST_FLEXIBLE)?;
    let protocol_type = value.string()?;
    let generation = Generation::from_wire(value.int32()?).ok_or(RecordError::Malformed)?;
    let protocol = value.nullable_string()?;
    let leader = value.nullable_string()?;
    let state_since = if version >= 2 { Timestamp::from_wire(value.int64()?) } else { None };
    // The count is a claim: members are taken one by one, and a short buffer ends it.
    let count = value.count()?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(decode_member(&mut value, version)?);
    }
    value.tagged_fields(|_, _| Ok(()))?;
    Ok(GroupMetadata { protocol_type, generation, protocol, leader, state_since, members })
}

fn decode_member(value: &mut Reader<'_>, version: i16) -> Result<MemberMetadata, RecordError> {
    let member_id = value.string()?;
    let instance_id = if version >= 3 { value.nullable_string()? } else { None };
    let client_id = value.string()?;
    let client_host = value.string()?;
    let rebalance_timeout = if version >= 1 { value.int32()? } else { -1 };
    let session_timeout = value.int32()?;
    let member = MemberMetadata {
        member_id,
        instance_id,
        client_id,
        client_host,
        // Before version 1 one time served both.
        rebalance_timeout: from_millis(if rebalance_timeout == -1 { session_timeout } else { rebalance_timeout }),
        session_timeout: from_millis(session_timeout),
        subscription: Bytes::copy_from_slice(value.bytes()?),
        assignment: Bytes::copy_from_slice(value.bytes()?),
    };
    value.tagged_fields(|_, _| Ok(()))?;
    Ok(member)
}

fn to_millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

fn from_millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests;
