//! StreamsGroupHeartbeat and StreamsGroupDescribe (KIP-1071), which `kafka-protocol` does not know, as a client writes and
//! reads them: a second hand beside the broker's own.

use std::fmt;

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BufMut};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Message, Request, VersionRange,
    buf::{ByteBuf, ByteBufMut},
};
use serde_json::{Value, json};

/// A member's request, of which a script says what it wants.
#[derive(Clone, Debug, Default)]
pub struct StreamsGroupHeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The member.
    pub member_id: String,
    /// Where it stands.
    pub member_epoch: i32,
    /// What it knows of endpoints.
    pub endpoint_epoch: i32,
    /// Static membership.
    pub instance_id: Option<String>,
    /// Its rack.
    pub rack_id: Option<String>,
    /// -1 if it did not change.
    pub rebalance_timeout_ms: i32,
    /// What it runs: epoch and parts.
    pub topology: Option<(i32, Vec<Subtopology>)>,
    /// Active, standby and warm-up tasks that it has.
    pub tasks: [Option<Vec<TaskIds>>; 3],
    /// Its process.
    pub process_id: Option<String>,
    /// Where its process answers queries.
    pub user_endpoint: Option<(String, u16)>,
    /// Key and value.
    pub client_tags: Option<Vec<(String, String)>>,
    /// Whether it sends an empty list of offsets, and of end offsets.
    pub offsets: [bool; 2],
    /// All members shall end.
    pub shutdown_application: bool,
}

/// A subtopology and its partition numbers.
pub type TaskIds = (String, Vec<i32>);

/// A part of a topology.
#[derive(Clone, Debug, Default)]
pub struct Subtopology {
    /// Its id.
    pub id: String,
    /// Topics that it reads.
    pub source_topics: Vec<String>,
    /// Patterns of such topics.
    pub source_topic_regex: Vec<String>,
    /// Topics that keep its state.
    pub changelogs: Vec<TopicInfo>,
    /// Repartition topics that it writes.
    pub repartition_sinks: Vec<String>,
    /// Repartition topics that it reads.
    pub repartition_sources: Vec<TopicInfo>,
    /// Places of topics that go together: of source topics, and of repartition sources.
    pub copartition_groups: Vec<(Vec<i16>, Vec<i16>)>,
}

/// A topic that is made for the application.
#[derive(Clone, Debug, Default)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// 0 if others decide.
    pub partitions: i32,
    /// 0 for the broker's default.
    pub replication_factor: i16,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// What a member is told, with the names of the protocol.
#[derive(Clone, Default)]
pub struct StreamsGroupHeartbeatResponse(pub Value);

/// Which groups to describe.
#[derive(Clone, Debug, Default)]
pub struct StreamsGroupDescribeRequest {
    /// By id.
    pub group_ids: Vec<String>,
    /// With what the caller may do.
    pub include_authorized_operations: bool,
}

/// Groups in full, with the names of the protocol.
#[derive(Clone, Default)]
pub struct StreamsGroupDescribeResponse(pub Value);

impl fmt::Debug for StreamsGroupHeartbeatResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printed(&self.0))
    }
}

impl fmt::Debug for StreamsGroupDescribeResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printed(&self.0))
    }
}

/// As the messages of `kafka-protocol` print themselves.
fn printed(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "None".to_owned(),
        Value::Array(items) => format!("[{}]", list(items.iter().map(printed).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}: {}", printed(value)));
            format!("Answer {{ {} }}", list(fields.collect()))
        }
        Value::String(text) => format!("{text:?}"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

macro_rules! messages {
    ($($request:ident $response:ident $key:literal,)*) => {$(
        impl Message for $request {
            const VERSIONS: VersionRange = VersionRange { min: 0, max: 0 };
            const DEPRECATED_VERSIONS: Option<VersionRange> = None;
        }
        impl Message for $response {
            const VERSIONS: VersionRange = VersionRange { min: 0, max: 0 };
            const DEPRECATED_VERSIONS: Option<VersionRange> = None;
        }
        impl HeaderVersion for $request {
            fn header_version(_version: i16) -> i16 {
                2
            }
        }
        impl HeaderVersion for $response {
            fn header_version(_version: i16) -> i16 {
                1
            }
        }
        impl Decodable for $request {
            fn decode<B: ByteBuf>(_buf: &mut B, _version: i16) -> Result<Self> {
                bail!("a client reads no requests")
            }
        }
        impl Encodable for $response {
            fn encode<B: ByteBufMut>(&self, _buf: &mut B, _version: i16) -> Result<()> {
                bail!("a client writes no responses")
            }

            fn compute_size(&self, _version: i16) -> Result<usize> {
                bail!("a client writes no responses")
            }
        }
        impl Encodable for $request {
            fn encode<B: ByteBufMut>(&self, buf: &mut B, version: i16) -> Result<()> {
                ensure!(version == 0, "there is no other version");
                let mut out = Vec::new();
                self.put(&mut out);
                buf.put_slice(&out);
                Ok(())
            }

            fn compute_size(&self, _version: i16) -> Result<usize> {
                let mut out = Vec::new();
                self.put(&mut out);
                Ok(out.len())
            }
        }
        impl Decodable for $response {
            fn decode<B: ByteBuf>(buf: &mut B, version: i16) -> Result<Self> {
                ensure!(version == 0, "there is no other version");
                let bytes = buf.copy_to_bytes(buf.remaining());
                let mut rest: &[u8] = &bytes;
                let response = $response::get(&mut rest)?;
                ensure!(rest.is_empty(), "{} bytes behind the answer", rest.len());
                Ok(response)
            }
        }
        impl Request for $request {
            const KEY: i16 = $key;
            type Response = $response;
        }
    )*};
}

messages! {
    StreamsGroupHeartbeatRequest StreamsGroupHeartbeatResponse 88,
    StreamsGroupDescribeRequest StreamsGroupDescribeResponse 89,
}

impl StreamsGroupHeartbeatRequest {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, Some(&self.group_id));
        put_text(out, Some(&self.member_id));
        out.put_i32(self.member_epoch);
        out.put_i32(self.endpoint_epoch);
        put_text(out, self.instance_id.as_deref());
        put_text(out, self.rack_id.as_deref());
        out.put_i32(self.rebalance_timeout_ms);
        match &self.topology {
            None => out.put_i8(-1),
            Some((epoch, subtopologies)) => {
                out.put_i8(1);
                out.put_i32(*epoch);
                put_all(out, subtopologies, put_subtopology);
                out.push(0);
            }
        }
        for tasks in &self.tasks {
            put_some(out, tasks.as_deref(), |out, (subtopology, partitions)| {
                put_text(out, Some(subtopology));
                put_all(out, partitions, |out, partition| out.put_i32(*partition));
                out.push(0);
            });
        }
        put_text(out, self.process_id.as_deref());
        match &self.user_endpoint {
            None => out.put_i8(-1),
            Some((host, port)) => {
                out.put_i8(1);
                put_text(out, Some(host));
                out.put_u16(*port);
                out.push(0);
            }
        }
        put_some(out, self.client_tags.as_deref(), put_pair);
        self.offsets.iter().for_each(|given| out.push(u8::from(*given)));
        out.push(u8::from(self.shutdown_application));
        out.push(0);
    }
}

impl StreamsGroupDescribeRequest {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(out, &self.group_ids, |out, group| put_text(out, Some(group)));
        out.push(u8::from(self.include_authorized_operations));
        out.push(0);
    }
}

fn put_subtopology(out: &mut Vec<u8>, subtopology: &Subtopology) {
    let put_name = |out: &mut Vec<u8>, name: &String| put_text(out, Some(name));
    put_text(out, Some(&subtopology.id));
    put_all(out, &subtopology.source_topics, put_name);
    put_all(out, &subtopology.source_topic_regex, put_name);
    put_all(out, &subtopology.changelogs, put_topic);
    put_all(out, &subtopology.repartition_sinks, put_name);
    put_all(out, &subtopology.repartition_sources, put_topic);
    put_all(out, &subtopology.copartition_groups, |out, (source_topics, repartition_sources)| {
        let put_place = |out: &mut Vec<u8>, place: &i16| out.put_i16(*place);
        put_all(out, source_topics, put_place);
        put_all(out, &[], put_place);
        put_all(out, repartition_sources, put_place);
        out.push(0);
    });
    out.push(0);
}

fn put_topic(out: &mut Vec<u8>, topic: &TopicInfo) {
    put_text(out, Some(&topic.name));
    out.put_i32(topic.partitions);
    out.put_i16(topic.replication_factor);
    put_all(out, &topic.configs, put_pair);
    out.push(0);
}

fn put_pair(out: &mut Vec<u8>, (key, value): &(String, String)) {
    put_text(out, Some(key));
    put_text(out, Some(value));
    out.push(0);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length + 1;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.push(0),
        Some(text) => {
            put_length(out, text.len());
            out.put_slice(text.as_bytes());
        }
    }
}

fn put_all<T>(out: &mut Vec<u8>, all: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    put_length(out, all.len());
    all.iter().for_each(|one| put(out, one));
}

fn put_some<T>(out: &mut Vec<u8>, all: Option<&[T]>, put: impl FnMut(&mut Vec<u8>, &T)) {
    match all {
        None => out.push(0),
        Some(all) => put_all(out, all, put),
    }
}

impl StreamsGroupHeartbeatResponse {
    fn get(rest: &mut &[u8]) -> Result<StreamsGroupHeartbeatResponse> {
        let response = json!({
            "throttle_time_ms": rest.try_get_i32()?,
            "error_code": rest.try_get_i16()?,
            "error_message": get_nullable_text(rest)?,
            "member_id": get_text(rest)?,
            "member_epoch": rest.try_get_i32()?,
            "heartbeat_interval_ms": rest.try_get_i32()?,
            "acceptable_recovery_lag": rest.try_get_i32()?,
            "task_offset_interval_ms": rest.try_get_i32()?,
            "status": get_nullable(rest, |rest| {
                Ok(json!({ "status_code": rest.try_get_i8()?, "status_detail": get_text(rest)? }))
            })?,
            "active_tasks": get_nullable(rest, get_tasks)?,
            "standby_tasks": get_nullable(rest, get_tasks)?,
            "warmup_tasks": get_nullable(rest, get_tasks)?,
            "endpoint_information_epoch": rest.try_get_i32()?,
            "partitions_by_user_endpoint": get_nullable(rest, get_endpoint)?,
        });
        end(rest)?;
        Ok(StreamsGroupHeartbeatResponse(response))
    }
}

impl StreamsGroupDescribeResponse {
    fn get(rest: &mut &[u8]) -> Result<StreamsGroupDescribeResponse> {
        let response = json!({ "throttle_time_ms": rest.try_get_i32()?, "groups": get_all(rest, get_group)? });
        end(rest)?;
        Ok(StreamsGroupDescribeResponse(response))
    }
}

fn get_group(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({
        "error_code": rest.try_get_i16()?,
        "error_message": get_nullable_text(rest)?,
        "group_id": get_text(rest)?,
        "group_state": get_text(rest)?,
        "group_epoch": rest.try_get_i32()?,
        "assignment_epoch": rest.try_get_i32()?,
        "topology": get_nullable_struct(rest, get_topology)?,
        "members": get_all(rest, get_member)?,
        "authorized_operations": rest.try_get_i32()?,
    }))
}

fn get_topology(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({ "epoch": rest.try_get_i32()?, "subtopologies": get_nullable(rest, get_subtopology)? }))
}

fn get_subtopology(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({
        "subtopology_id": get_text(rest)?,
        "source_topics": get_list(rest, get_text)?,
        "repartition_sink_topics": get_list(rest, get_text)?,
        "state_changelog_topics": get_all(rest, get_topic)?,
        "repartition_source_topics": get_all(rest, get_topic)?,
    }))
}

fn get_topic(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({
        "name": get_text(rest)?,
        "partitions": rest.try_get_i32()?,
        "replication_factor": rest.try_get_i16()?,
        "topic_configs": get_all(rest, get_pair)?,
    }))
}

fn get_pair(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({ "key": get_text(rest)?, "value": get_text(rest)? }))
}

fn get_member(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({
        "member_id": get_text(rest)?,
        "member_epoch": rest.try_get_i32()?,
        "instance_id": get_nullable_text(rest)?,
        "rack_id": get_nullable_text(rest)?,
        "client_id": get_text(rest)?,
        "client_host": get_text(rest)?,
        "topology_epoch": rest.try_get_i32()?,
        "process_id": get_text(rest)?,
        "user_endpoint": get_nullable_struct(rest, get_address)?,
        "client_tags": get_all(rest, get_pair)?,
        "task_offsets": get_all(rest, get_offset)?,
        "task_end_offsets": get_all(rest, get_offset)?,
        "assignment": get_assignment(rest)?,
        "target_assignment": get_assignment(rest)?,
        "is_classic": rest.try_get_u8()? != 0,
    }))
}

fn get_offset(rest: &mut &[u8]) -> Result<Value> {
    let (subtopology, partition) = (get_text(rest)?, rest.try_get_i32()?);
    Ok(json!({ "subtopology_id": subtopology, "partition": partition, "offset": rest.try_get_i64()? }))
}

fn get_address(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({ "host": get_text(rest)?, "port": rest.try_get_u16()? }))
}

fn get_assignment(rest: &mut &[u8]) -> Result<Value> {
    let assignment = json!({
        "active_tasks": get_all(rest, get_tasks)?,
        "standby_tasks": get_all(rest, get_tasks)?,
        "warmup_tasks": get_all(rest, get_tasks)?,
    });
    end(rest)?;
    Ok(assignment)
}

fn get_tasks(rest: &mut &[u8]) -> Result<Value> {
    Ok(json!({ "subtopology_id": get_text(rest)?, "partitions": get_list(rest, get_number)? }))
}

fn get_endpoint(rest: &mut &[u8]) -> Result<Value> {
    let address = get_address(rest)?;
    end(rest)?;
    let topic = |rest: &mut &[u8]| Ok(json!({ "topic": get_text(rest)?, "partitions": get_list(rest, get_number)? }));
    Ok(json!({
        "user_endpoint": address,
        "active_partitions": get_all(rest, topic)?,
        "standby_partitions": get_all(rest, topic)?,
    }))
}

fn get_number(rest: &mut &[u8]) -> Result<i32> {
    Ok(rest.try_get_i32()?)
}

fn get_nullable_struct(rest: &mut &[u8], get: impl Fn(&mut &[u8]) -> Result<Value>) -> Result<Option<Value>> {
    if rest.try_get_i8()? < 0 {
        return Ok(None);
    }
    let found = get(rest)?;
    end(rest)?;
    Ok(Some(found))
}

fn get_varint(rest: &mut &[u8]) -> Result<usize> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let byte = rest.try_get_u8()?;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    bail!("a length without end")
}

fn get_nullable_text(rest: &mut &[u8]) -> Result<Option<String>> {
    let Some(length) = get_varint(rest)?.checked_sub(1) else { return Ok(None) };
    ensure!(length <= rest.len(), "the answer ends in a text");
    let (text, behind) = rest.split_at(length);
    *rest = behind;
    Ok(Some(std::str::from_utf8(text)?.to_owned()))
}

fn get_text(rest: &mut &[u8]) -> Result<String> {
    get_nullable_text(rest)?.ok_or_else(|| anyhow::anyhow!("null where there is a text"))
}

/// Elements that are no structs.
fn get_list<T>(rest: &mut &[u8], get: impl Fn(&mut &[u8]) -> Result<T>) -> Result<Vec<T>> {
    let count = get_varint(rest)?.checked_sub(1).ok_or_else(|| anyhow::anyhow!("null where there is a list"))?;
    (0..count).map(|_| get(rest)).collect()
}

/// Structs.
fn get_all<T>(rest: &mut &[u8], get: impl Fn(&mut &[u8]) -> Result<T>) -> Result<Vec<T>> {
    get_nullable(rest, get)?.ok_or_else(|| anyhow::anyhow!("null where there is a list"))
}

/// Structs, or null.
fn get_nullable<T>(rest: &mut &[u8], get: impl Fn(&mut &[u8]) -> Result<T>) -> Result<Option<Vec<T>>> {
    let Some(count) = get_varint(rest)?.checked_sub(1) else { return Ok(None) };
    let one = |rest: &mut &[u8]| {
        let one = get(rest)?;
        end(rest)?;
        Ok(one)
    };
    (0..count).map(|_| one(rest)).collect::<Result<_>>().map(Some)
}

fn end(rest: &mut &[u8]) -> Result<()> {
    ensure!(get_varint(rest)? == 0, "tagged fields that nobody knows");
    Ok(())
}
