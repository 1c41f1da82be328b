//! The records of share groups (KIP-932), byte for byte as Kafka 4.3 writes them.
//!
//! ```text
//!   key    int16 kind │ string group │ 10, 13, 14: string member
//!   value  int16 0 │ fields, all in the flexible form │ tagged fields; no value is a tombstone
//!   10 member             string? rack │ string client id │ string client host │ string[] topics
//!   11 group              int32 epoch │ int64 hash of the topics' metadata
//!   12 target, its epoch  int32 epoch │ tag 0: int64 time of the assignment
//!   13 target of a member { uuid topic │ int32[] partitions }[]
//!   14 what a member has  int32 epoch │ int32 epoch before │ int8 state │ { uuid topic │ int32[] partitions }[]
//!   15 partitions         begun[] │ kept[] │ { uuid topic │ string name }[] ending
//!          begun, kept    uuid topic │ string name │ int32[] partitions
//! ```

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, TopicId};

use super::modern::{
    GroupEpochRecord, TargetRecord, Value, decode_member_target, decode_target, encode_member_target, encode_target,
    put, put_names, put_partitions, put_targets, put_topic, started, take_names, take_partitions, take_targets,
    take_topic,
};
use crate::coordinator::{
    MemberEpoch,
    assignor::PartitionSet,
    codec::{Reader, RecordError, TooLong, Writer},
    consumer::MemberState,
};

const MEMBER: i16 = 10;
const GROUP: i16 = 11;
const TARGET: i16 = 12;
const MEMBER_TARGET: i16 = 13;
const CURRENT: i16 = 14;
const PARTITIONS: i16 = 15;

/// A part of a share group, or with `None` its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareGroupRecord {
    /// Who a member is and what it wants: group, member.
    Member(String, String, Option<ShareMemberRecord>),
    /// The group itself.
    Group(String, Option<GroupEpochRecord>),
    /// Of which epoch the target assignment is.
    Target(String, Option<TargetRecord>),
    /// What a member shall have: group, member.
    MemberTarget(String, String, Option<PartitionSet>),
    /// What a member has: group, member.
    Current(String, String, Option<ShareCurrentRecord>),
    /// Of which partitions the state is kept.
    Partitions(String, Option<KeptPartitions>),
}

/// A member's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareMemberRecord {
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// From the request header.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// The topics that it subscribes to.
    pub topics: BTreeSet<String>,
}

/// A member's place on the way to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareCurrentRecord {
    /// The epoch that its requests must carry.
    pub epoch: MemberEpoch,
    /// The one before: its requests may still carry it, if it did not hear of the last.
    pub previous_epoch: MemberEpoch,
    /// What it may read.
    pub assigned: PartitionSet,
}

/// Partitions of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicShare {
    /// The topic's name.
    pub name: String,
    /// Its partitions.
    pub partitions: BTreeSet<PartitionIndex>,
}

/// The partitions of which a share group has the state kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptPartitions {
    /// Their keepers have been asked to begin.
    pub begun: BTreeMap<TopicId, TopicShare>,
    /// Their keepers have begun.
    pub kept: BTreeMap<TopicId, TopicShare>,
    /// Their keepers have been asked to forget them.
    pub ending: BTreeMap<TopicId, String>,
}

impl ShareGroupRecord {
    /// The kinds that are records of share groups.
    pub(super) const KINDS: std::ops::RangeInclusive<i16> = MEMBER..=PARTITIONS;

    /// The group's id.
    pub fn group(&self) -> &str {
        match self {
            ShareGroupRecord::Member(group, ..)
            | ShareGroupRecord::Group(group, _)
            | ShareGroupRecord::Target(group, _)
            | ShareGroupRecord::MemberTarget(group, ..)
            | ShareGroupRecord::Current(group, ..)
            | ShareGroupRecord::Partitions(group, _) => group,
        }
    }

    /// Whether it ends what it is about.
    pub fn is_tombstone(&self) -> bool {
        match self {
            ShareGroupRecord::Member(_, _, value) => value.is_none(),
            ShareGroupRecord::Group(_, value) => value.is_none(),
            ShareGroupRecord::Target(_, value) => value.is_none(),
            ShareGroupRecord::MemberTarget(_, _, value) => value.is_none(),
            ShareGroupRecord::Current(_, _, value) => value.is_none(),
            ShareGroupRecord::Partitions(_, value) => value.is_none(),
        }
    }

    /// Writes the key; returns the value.
    pub(super) fn encode(&self, key: &mut Writer) -> Result<Option<Vec<u8>>, TooLong> {
        let (kind, member, value) = match self {
            ShareGroupRecord::Member(_, member, value) => (MEMBER, Some(member), value.as_ref().map(encode_member)),
            ShareGroupRecord::Group(_, value) => (GROUP, None, value.as_ref().map(encode_group)),
            ShareGroupRecord::Target(_, value) => (TARGET, None, value.as_ref().map(encode_target)),
            ShareGroupRecord::MemberTarget(_, member, value) => {
                (MEMBER_TARGET, Some(member), value.as_ref().map(encode_member_target))
            }
            ShareGroupRecord::Current(_, member, value) => (CURRENT, Some(member), value.as_ref().map(encode_current)),
            ShareGroupRecord::Partitions(_, value) => (PARTITIONS, None, value.as_ref().map(encode_kept)),
        };
        put(key, kind, self.group(), member, value)
    }

    pub(super) fn decode(
        kind: i16,
        key: &mut Reader<'_>,
        value: Option<&[u8]>,
    ) -> Result<ShareGroupRecord, RecordError> {
        let group = key.string()?;
        let value = Value::open(value)?;
        Ok(match kind {
            MEMBER => ShareGroupRecord::Member(group, key.string()?, value.of(decode_member)?),
            GROUP => ShareGroupRecord::Group(group, value.of(decode_group)?),
            TARGET => ShareGroupRecord::Target(group, value.of(decode_target)?),
            MEMBER_TARGET => ShareGroupRecord::MemberTarget(group, key.string()?, value.of(decode_member_target)?),
            CURRENT => ShareGroupRecord::Current(group, key.string()?, value.of(decode_current)?),
            _ => ShareGroupRecord::Partitions(group, value.of(decode_kept)?),
        })
    }
}

fn encode_member(member: &ShareMemberRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.compact_nullable_string(member.rack_id.as_deref())?;
    value.compact_string(&member.client_id)?;
    value.compact_string(&member.client_host)?;
    put_names(&mut value, member.topics.iter())?;
    value.no_tags();
    Ok(value)
}

fn decode_member(value: &mut Reader<'_>) -> Result<ShareMemberRecord, RecordError> {
    let member = ShareMemberRecord {
        rack_id: value.nullable_string()?,
        client_id: value.string()?,
        client_host: value.string()?,
        topics: take_names(value)?,
    };
    value.end()?;
    Ok(member)
}

fn encode_group(group: &GroupEpochRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(group.epoch);
    value.int64(group.metadata_hash);
    value.no_tags();
    Ok(value)
}

fn decode_group(value: &mut Reader<'_>) -> Result<GroupEpochRecord, RecordError> {
    let group = GroupEpochRecord { epoch: value.int32()?, metadata_hash: value.int64()? };
    value.end()?;
    Ok(group)
}

fn encode_current(current: &ShareCurrentRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(current.epoch.0);
    value.int32(current.previous_epoch.0);
    value.int8(MemberState::Stable.to_log());
    put_targets(&mut value, &current.assigned);
    value.no_tags();
    Ok(value)
}

fn decode_current(value: &mut Reader<'_>) -> Result<ShareCurrentRecord, RecordError> {
    let (epoch, previous_epoch) = (MemberEpoch(value.int32()?), MemberEpoch(value.int32()?));
    // There is no other state: members move to their target in one step.
    value.int8()?;
    let assigned = take_targets(value)?;
    value.end()?;
    Ok(ShareCurrentRecord { epoch, previous_epoch, assigned })
}

fn encode_kept(kept: &KeptPartitions) -> Result<Writer, TooLong> {
    let mut value = started();
    for shares in [&kept.begun, &kept.kept] {
        value.compact_list(shares.iter(), |value, (topic, share)| {
            put_topic(value, *topic);
            value.compact_string(&share.name)?;
            put_partitions(value, &share.partitions);
            value.no_tags();
            Ok(())
        })?;
    }
    value.compact_list(kept.ending.iter(), |value, (topic, name)| {
        put_topic(value, *topic);
        value.compact_string(name)?;
        value.no_tags();
        Ok(())
    })?;
    value.no_tags();
    Ok(value)
}

fn decode_kept(value: &mut Reader<'_>) -> Result<KeptPartitions, RecordError> {
    let (begun, kept) = (take_shares(value)?, take_shares(value)?);
    let ending = value.list(|value| {
        let ending = (take_topic(value)?, value.string()?);
        value.end()?;
        Ok(ending)
    })?;
    value.end()?;
    Ok(KeptPartitions { begun, kept, ending })
}

fn take_shares(value: &mut Reader<'_>) -> Result<BTreeMap<TopicId, TopicShare>, RecordError> {
    value.list(|value| {
        let topic = take_topic(value)?;
        let share = TopicShare { name: value.string()?, partitions: take_partitions(value)? };
        value.end()?;
        Ok((topic, share))
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use varve_metadata::model::Timestamp;

    use super::*;
    use crate::coordinator::{LogRecord, records::CoordinatorRecord};

    fn topic() -> TopicId {
        TopicId::from_wire(Uuid::from_u128(0x0102_0304_0506_0708_1112_1314_1516_1718)).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn records_come_back_and_are_laid_out_as_drawn() {
        let partitions: BTreeSet<PartitionIndex> = [PartitionIndex(0), PartitionIndex(2)].into();
        let set = PartitionSet::from([(topic(), partitions.clone())]);
        let share = TopicShare { name: "t".to_owned(), partitions };
        let (g, m) = (|| "g".to_owned(), || "m".to_owned());
        let id = "01020304050607081112131415161718";
        let member = ShareMemberRecord {
            rack_id: None,
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            topics: ["t".to_owned()].into(),
        };
        let current =
            ShareCurrentRecord { epoch: MemberEpoch(3), previous_epoch: MemberEpoch(2), assigned: set.clone() };
        let kept = KeptPartitions {
            begun: [(topic(), share.clone())].into(),
            kept: BTreeMap::new(),
            ending: [(topic(), "t".to_owned())].into(),
        };
        let cases = [
            (
                ShareGroupRecord::Member(g(), m(), Some(member)),
                "000a00016700016d".to_owned(),
                "0000000263032f6802027400".to_owned(),
            ),
            (
                ShareGroupRecord::Group(g(), Some(GroupEpochRecord { epoch: 7, metadata_hash: 9 })),
                "000b000167".to_owned(),
                "000000000007000000000000000900".to_owned(),
            ),
            (
                ShareGroupRecord::Target(g(), Some(TargetRecord { epoch: 7, assigned_at: Timestamp::from_wire(5) })),
                "000c000167".to_owned(),
                "0000000000070100080000000000000005".to_owned(),
            ),
            (
                ShareGroupRecord::MemberTarget(g(), m(), Some(set)),
                "000d00016700016d".to_owned(),
                format!("000002{id}0300000000000000020000"),
            ),
            (
                ShareGroupRecord::Current(g(), m(), Some(current)),
                "000e00016700016d".to_owned(),
                format!("000000000003000000020002{id}0300000000000000020000"),
            ),
            (
                ShareGroupRecord::Partitions(g(), Some(kept)),
                "000f000167".to_owned(),
                format!("000002{id}0274030000000000000002000102{id}02740000"),
            ),
        ];
        for (record, key, value) in cases {
            let record = CoordinatorRecord::Share(record);
            let encoded = record.encode().unwrap();
            assert_eq!(hex(&encoded.key), key, "{record:?}");
            assert_eq!(hex(encoded.value.as_ref().unwrap()), value, "{record:?}");
            assert_eq!(CoordinatorRecord::decode(&encoded.key, encoded.value.as_deref()), Ok(record));
        }
        let end = CoordinatorRecord::Share(ShareGroupRecord::Current(g(), m(), None));
        let encoded = end.encode().unwrap();
        assert_eq!((encoded.value.clone(), CoordinatorRecord::decode(&encoded.key, None)), (None, Ok(end)));
    }
}
