//! The records of streams groups (KIP-1071), byte for byte as Kafka 4.3 writes them.
//!
//! ```text
//!   key    int16 kind │ string group │ 19, 21, 22: string member
//!   value  int16 0 │ fields, all in the flexible form │ tagged fields; no value is a tombstone
//!   17 group              int32 epoch │ int64 hash of the topics' metadata │ tag 0: int32 validated topology epoch, unless
//!                         -1 │ tag 1: { string key │ string value }[] settings of the last assignment, unless none
//!   18 topics' metadata   (Kafka before 4.2; not read)
//!   19 member             string? instance │ string? rack │ string client id │ string client host │ int32 rebalance timeout │
//!                         int32 topology epoch │ string process │ endpoint? │ { string key │ string value }[] tags
//!          endpoint       int8 1, or -1 for none │ string host │ uint16 port
//!   20 target, its epoch  int32 epoch │ tag 0: int64 time of the assignment
//!   21 target of a member tasks[] active │ tasks[] standby │ tasks[] warm-up
//!   22 what a member has  int32 epoch │ int32 epoch before │ int8 state │ as 21 │ as 21, to be revoked
//!          tasks          string subtopology │ int32[] partitions │ tag 0 (only in 22, of active ones): int32[]? epochs of
//!                         their assignment
//!   23 topology           int32 epoch │ subtopology[]
//!          subtopology    string id │ string[] source topics │ string[] patterns │ topic[] changelogs │ string[] repartition
//!                         sinks │ topic[] repartition sources │ { int16[] │ int16[] │ int16[] }[] copartition groups, by
//!                         place: source topics, patterns, repartition sources
//!          topic          string name │ int32 partitions │ int16 replication factor │ { string key │ string value }[]
//! ```

use std::{collections::BTreeMap, sync::Arc};

use varve_metadata::model::PartitionIndex;

use super::modern::{
    TargetRecord, Value, decode_target, encode_target, end_epochs, end_with_epochs, put, put_names, put_partitions,
    started, take_names, take_partitions,
};
use crate::coordinator::{
    MemberEpoch,
    codec::{Reader, RecordError, TooLong, Writer},
    streams::{
        AssignedTasks, CopartitionGroup, Endpoint, EpochTasks, InternalTopic, StreamsMemberState, Subtopology, TaskSet,
        Tasks, Topology,
    },
};

const GROUP: i16 = 17;
const MEMBER: i16 = 19;
const TARGET: i16 = 20;
const MEMBER_TARGET: i16 = 21;
const CURRENT: i16 = 22;
const TOPOLOGY: i16 = 23;

/// A part of a streams group, or with `None` its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamsRecord {
    /// The group itself.
    Group(String, Option<StreamsGroupRecord>),
    /// What its members run.
    Topology(String, Option<Arc<Topology>>),
    /// Who a member is: group, member.
    Member(String, String, Option<StreamsMemberRecord>),
    /// Of which epoch the target assignment is.
    Target(String, Option<TargetRecord>),
    /// What a member shall have: group, member.
    MemberTarget(String, String, Option<Tasks>),
    /// What a member has: group, member.
    Current(String, String, Option<StreamsCurrentRecord>),
}

/// The group as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsGroupRecord {
    /// Raised whenever members, topics or settings change.
    pub epoch: i32,
    /// Of the topics that the group needs, at that epoch.
    pub metadata_hash: i64,
    /// The epoch of the topology whose topics were found in order; -1 if they were not.
    pub validated_topology_epoch: i32,
    /// The settings with which tasks are assigned; empty in records of Kafka before 4.2.
    pub assignment_configs: BTreeMap<String, String>,
}

/// A member's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsMemberRecord {
    /// Static membership, which Kafka 4.3 does not serve yet.
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// From the request header.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// How long it may take to give tasks up, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Of the topology that it runs.
    pub topology_epoch: i32,
    /// Its process.
    pub process_id: String,
    /// Where its process answers queries.
    pub endpoint: Option<Endpoint>,
    /// For assignors that know racks.
    pub tags: BTreeMap<String, String>,
}

/// A member's place on the way to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsCurrentRecord {
    /// The epoch that its requests must carry.
    pub epoch: MemberEpoch,
    /// The one before: its requests may still carry it, if it did not hear of the last.
    pub previous_epoch: MemberEpoch,
    /// What it waits for.
    pub state: StreamsMemberState,
    /// What it works on.
    pub assigned: AssignedTasks,
    /// What it has to give up first.
    pub pending_revocation: AssignedTasks,
}

impl StreamsRecord {
    /// The kinds that are records of streams groups.
    pub(super) const KINDS: [i16; 6] = [GROUP, MEMBER, TARGET, MEMBER_TARGET, CURRENT, TOPOLOGY];

    /// The group's id.
    pub fn group(&self) -> &str {
        match self {
            StreamsRecord::Group(group, _)
            | StreamsRecord::Topology(group, _)
            | StreamsRecord::Member(group, ..)
            | StreamsRecord::Target(group, _)
            | StreamsRecord::MemberTarget(group, ..)
            | StreamsRecord::Current(group, ..) => group,
        }
    }

    /// Writes the key; returns the value.
    pub(super) fn encode(&self, key: &mut Writer) -> Result<Option<Vec<u8>>, TooLong> {
        let (kind, member, value) = match self {
            StreamsRecord::Group(_, value) => (GROUP, None, value.as_ref().map(encode_group)),
            StreamsRecord::Topology(_, value) => (TOPOLOGY, None, value.as_deref().map(encode_topology)),
            StreamsRecord::Member(_, member, value) => (MEMBER, Some(member), value.as_ref().map(encode_member)),
            StreamsRecord::Target(_, value) => (TARGET, None, value.as_ref().map(encode_target)),
            StreamsRecord::MemberTarget(_, member, value) => {
                (MEMBER_TARGET, Some(member), value.as_ref().map(encode_member_target))
            }
            StreamsRecord::Current(_, member, value) => (CURRENT, Some(member), value.as_ref().map(encode_current)),
        };
        put(key, kind, self.group(), member, value)
    }

    pub(super) fn decode(kind: i16, key: &mut Reader<'_>, value: Option<&[u8]>) -> Result<StreamsRecord, RecordError> {
        let group = key.string()?;
        let value = Value::open(value)?;
        Ok(match kind {
            GROUP => StreamsRecord::Group(group, value.of(decode_group)?),
            TARGET => StreamsRecord::Target(group, value.of(decode_target)?),
            MEMBER => StreamsRecord::Member(group, key.string()?, value.of(decode_member)?),
            MEMBER_TARGET => StreamsRecord::MemberTarget(group, key.string()?, value.of(decode_member_target)?),
            CURRENT => StreamsRecord::Current(group, key.string()?, value.of(decode_current)?),
            _ => StreamsRecord::Topology(group, value.of(decode_topology)?.map(Arc::new)),
        })
    }
}

fn encode_group(group: &StreamsGroupRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(group.epoch);
    value.int64(group.metadata_hash);
    let mut tags = Vec::new();
    if group.validated_topology_epoch != -1 {
        let mut field = Writer::default();
        field.int32(group.validated_topology_epoch);
        tags.push((0, field));
    }
    if !group.assignment_configs.is_empty() {
        let mut field = Writer::default();
        put_pairs(&mut field, group.assignment_configs.iter())?;
        tags.push((1, field));
    }
    value.tags(tags);
    Ok(value)
}

fn decode_group(value: &mut Reader<'_>) -> Result<StreamsGroupRecord, RecordError> {
    let mut group = StreamsGroupRecord {
        epoch: value.int32()?,
        metadata_hash: value.int64()?,
        validated_topology_epoch: -1,
        assignment_configs: BTreeMap::new(),
    };
    value.tagged_fields(|tag, field| {
        let mut field = Reader::flexible(field);
        match tag {
            0 => group.validated_topology_epoch = field.int32()?,
            1 => {
                let count = field.nullable_count()?.unwrap_or(0);
                group.assignment_configs = (0..count).map(|_| take_pair(&mut field)).collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(group)
}

fn put_pairs<'a>(
    value: &mut Writer,
    pairs: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
) -> Result<(), TooLong> {
    value.compact_list(pairs, |value, (key, content)| {
        value.compact_string(key)?;
        value.compact_string(content)?;
        value.no_tags();
        Ok(())
    })
}

fn take_pair(value: &mut Reader<'_>) -> Result<(String, String), RecordError> {
    let pair = (value.string()?, value.string()?);
    value.end()?;
    Ok(pair)
}

fn encode_member(member: &StreamsMemberRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.compact_nullable_string(member.instance_id.as_deref())?;
    value.compact_nullable_string(member.rack_id.as_deref())?;
    value.compact_string(&member.client_id)?;
    value.compact_string(&member.client_host)?;
    value.int32(member.rebalance_timeout_ms);
    value.int32(member.topology_epoch);
    value.compact_string(&member.process_id)?;
    match &member.endpoint {
        None => value.int8(-1),
        Some(endpoint) => {
            value.int8(1);
            value.compact_string(&endpoint.host)?;
            value.raw(&endpoint.port.to_be_bytes());
            value.no_tags();
        }
    }
    put_pairs(&mut value, member.tags.iter())?;
    value.no_tags();
    Ok(value)
}

fn decode_member(value: &mut Reader<'_>) -> Result<StreamsMemberRecord, RecordError> {
    let member = StreamsMemberRecord {
        instance_id: value.nullable_string()?,
        rack_id: value.nullable_string()?,
        client_id: value.string()?,
        client_host: value.string()?,
        rebalance_timeout_ms: value.int32()?,
        topology_epoch: value.int32()?,
        process_id: value.string()?,
        endpoint: if value.int8()? < 0 { None } else { Some(decode_endpoint(value)?) },
        tags: value.list(take_pair)?,
    };
    value.end()?;
    Ok(member)
}

fn decode_endpoint(value: &mut Reader<'_>) -> Result<Endpoint, RecordError> {
    let endpoint = Endpoint { host: value.string()?, port: value.int16()?.cast_unsigned() };
    value.end()?;
    Ok(endpoint)
}

fn encode_member_target(tasks: &Tasks) -> Result<Writer, TooLong> {
    let mut value = started();
    for kind in [&tasks.active, &tasks.standby, &tasks.warmup] {
        put_tasks(&mut value, kind)?;
    }
    value.no_tags();
    Ok(value)
}

fn decode_member_target(value: &mut Reader<'_>) -> Result<Tasks, RecordError> {
    let tasks = Tasks { active: take_tasks(value)?, standby: take_tasks(value)?, warmup: take_tasks(value)? };
    value.end()?;
    Ok(tasks)
}

fn encode_current(current: &StreamsCurrentRecord) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(current.epoch.0);
    value.int32(current.previous_epoch.0);
    value.int8(current.state.to_log());
    for tasks in [&current.assigned, &current.pending_revocation] {
        put_epoch_tasks(&mut value, &tasks.active)?;
        put_tasks(&mut value, &tasks.standby)?;
        put_tasks(&mut value, &tasks.warmup)?;
    }
    value.no_tags();
    Ok(value)
}

fn decode_current(value: &mut Reader<'_>) -> Result<StreamsCurrentRecord, RecordError> {
    let (epoch, previous_epoch) = (MemberEpoch(value.int32()?), MemberEpoch(value.int32()?));
    let state = StreamsMemberState::from_log(value.int8()?);
    let mut tasks = || -> Result<AssignedTasks, RecordError> {
        // Records from before the epochs of tasks: they count as assigned in the member's own.
        let active = take_epoch_tasks(value, epoch.0)?;
        Ok(AssignedTasks { active, standby: take_tasks(value)?, warmup: take_tasks(value)? })
    };
    let (assigned, pending_revocation) = (tasks()?, tasks()?);
    value.end()?;
    Ok(StreamsCurrentRecord { epoch, previous_epoch, state, assigned, pending_revocation })
}

fn put_tasks(value: &mut Writer, tasks: &TaskSet) -> Result<(), TooLong> {
    value.compact_list(tasks.iter(), |value, (subtopology, tasks)| {
        value.compact_string(subtopology)?;
        put_partitions(value, tasks);
        value.no_tags();
        Ok(())
    })
}

fn take_tasks(value: &mut Reader<'_>) -> Result<TaskSet, RecordError> {
    let with_epochs = take_epoch_tasks(value, 0)?;
    Ok(with_epochs.into_iter().map(|(subtopology, tasks)| (subtopology, tasks.into_keys().collect())).collect())
}

fn put_epoch_tasks(value: &mut Writer, tasks: &EpochTasks) -> Result<(), TooLong> {
    value.compact_list(tasks.iter(), |value, (subtopology, tasks)| {
        value.compact_string(subtopology)?;
        value.compact_int32s(tasks.keys().map(|task| task.to_wire()));
        end_with_epochs(value, tasks.values().copied());
        Ok(())
    })
}

fn take_epoch_tasks(value: &mut Reader<'_>, usual: i32) -> Result<EpochTasks, RecordError> {
    let mut tasks = EpochTasks::new();
    // The count is a claim: a short buffer ends it.
    for _ in 0..value.count()? {
        let subtopology = value.string()?;
        let numbers: Vec<PartitionIndex> = take_partitions(value)?;
        let epochs = end_epochs(value, numbers.len(), usual)?;
        // A subtopology without tasks says nothing.
        if !numbers.is_empty() {
            tasks.entry(subtopology).or_default().extend(numbers.into_iter().zip(epochs));
        }
    }
    Ok(tasks)
}

fn encode_topology(topology: &Topology) -> Result<Writer, TooLong> {
    let mut value = started();
    value.int32(topology.epoch);
    value.compact_list(topology.subtopologies.iter(), put_subtopology)?;
    value.no_tags();
    Ok(value)
}

fn decode_topology(value: &mut Reader<'_>) -> Result<Topology, RecordError> {
    let topology = Topology { epoch: value.int32()?, subtopologies: value.list(take_subtopology)? };
    value.end()?;
    Ok(topology)
}

fn put_subtopology(value: &mut Writer, subtopology: &Subtopology) -> Result<(), TooLong> {
    value.compact_string(&subtopology.id)?;
    put_names(value, subtopology.source_topics.iter())?;
    put_names(value, subtopology.source_topic_regexes.iter())?;
    put_topics(value, &subtopology.changelogs)?;
    put_names(value, subtopology.repartition_sinks.iter())?;
    put_topics(value, &subtopology.repartition_sources)?;
    value.compact_list(subtopology.copartition_groups.iter(), |value, group| {
        for places in [&group.source_topics, &group.source_topic_regexes, &group.repartition_sources] {
            value.compact_count(places.len());
            places.iter().for_each(|place| value.int16(*place));
        }
        value.no_tags();
        Ok(())
    })?;
    value.no_tags();
    Ok(())
}

fn take_subtopology(value: &mut Reader<'_>) -> Result<Subtopology, RecordError> {
    let subtopology = Subtopology {
        id: value.string()?,
        source_topics: take_names(value)?,
        source_topic_regexes: take_names(value)?,
        changelogs: take_topics(value)?,
        repartition_sinks: take_names(value)?,
        repartition_sources: take_topics(value)?,
        copartition_groups: value.list(take_copartition_group)?,
    };
    value.end()?;
    Ok(subtopology)
}

fn take_copartition_group(value: &mut Reader<'_>) -> Result<CopartitionGroup, RecordError> {
    let mut places = || value.list(Reader::int16);
    let group =
        CopartitionGroup { source_topics: places()?, source_topic_regexes: places()?, repartition_sources: places()? };
    value.end()?;
    Ok(group)
}

fn put_topics(value: &mut Writer, topics: &[InternalTopic]) -> Result<(), TooLong> {
    value.compact_list(topics.iter(), |value, topic| {
        value.compact_string(&topic.name)?;
        value.int32(topic.partitions);
        value.int16(topic.replication_factor);
        put_pairs(value, topic.configs.iter().map(|(key, content)| (key, content)))?;
        value.no_tags();
        Ok(())
    })
}

fn take_topics(value: &mut Reader<'_>) -> Result<Vec<InternalTopic>, RecordError> {
    value.list(|value| {
        let topic = InternalTopic {
            name: value.string()?,
            partitions: value.int32()?,
            replication_factor: value.int16()?,
            configs: value.list(take_pair)?,
        };
        value.end()?;
        Ok(topic)
    })
}
