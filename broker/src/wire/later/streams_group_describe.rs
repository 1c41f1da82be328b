//! StreamsGroupDescribe (KIP-1071), which `kafka-protocol` does not know: version 0, written by hand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::{
    Malformed,
    compact::{
        get_list, get_number, get_text, put_count, put_list, put_no_tags, put_nullable_text, put_text, skip_tags,
    },
    streams_group_heartbeat::{Endpoint, TaskIds, TopicInfo, put_endpoint, put_task_ids},
};

/// What [`DescribedGroup::authorized_operations`] says where nobody asked.
const NOT_ASKED: i32 = i32::MIN;

/// The request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StreamsGroupDescribeRequest {
    pub(crate) group_ids: Vec<StrBytes>,
    pub(crate) include_authorized_operations: bool,
}

/// The response.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StreamsGroupDescribeResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) groups: Vec<DescribedGroup>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct DescribedGroup {
    pub(crate) error_code: i16,
    pub(crate) error_message: Option<StrBytes>,
    pub(crate) group_id: StrBytes,
    pub(crate) group_state: StrBytes,
    pub(crate) group_epoch: i32,
    pub(crate) assignment_epoch: i32,
    pub(crate) topology: Option<Topology>,
    pub(crate) members: Vec<Member>,
    pub(crate) authorized_operations: i32,
}

impl Default for DescribedGroup {
    fn default() -> DescribedGroup {
        DescribedGroup {
            error_code: 0,
            error_message: None,
            group_id: StrBytes::default(),
            group_state: StrBytes::default(),
            group_epoch: 0,
            assignment_epoch: 0,
            topology: None,
            members: Vec::new(),
            authorized_operations: NOT_ASKED,
        }
    }
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Topology {
    pub(crate) epoch: i32,
    pub(crate) subtopologies: Vec<Subtopology>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Subtopology {
    pub(crate) subtopology_id: StrBytes,
    pub(crate) source_topics: Vec<StrBytes>,
    pub(crate) repartition_sink_topics: Vec<StrBytes>,
    pub(crate) state_changelog_topics: Vec<TopicInfo>,
    pub(crate) repartition_source_topics: Vec<TopicInfo>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Member {
    pub(crate) member_id: StrBytes,
    pub(crate) member_epoch: i32,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) rack_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) client_host: StrBytes,
    pub(crate) topology_epoch: i32,
    pub(crate) process_id: StrBytes,
    pub(crate) user_endpoint: Option<Endpoint>,
    pub(crate) client_tags: Vec<(StrBytes, StrBytes)>,
    pub(crate) assignment: Assignment,
    pub(crate) target_assignment: Assignment,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) active_tasks: Vec<TaskIds>,
    pub(crate) standby_tasks: Vec<TaskIds>,
    pub(crate) warmup_tasks: Vec<TaskIds>,
}

pub(crate) fn decode(_version: i16, mut body: Bytes) -> anyhow::Result<StreamsGroupDescribeRequest> {
    Ok(get_request(&mut body)?)
}

fn get_request(body: &mut Bytes) -> Result<StreamsGroupDescribeRequest, Malformed> {
    let request = StreamsGroupDescribeRequest {
        group_ids: get_list(body, get_text)?,
        include_authorized_operations: get_number(body, Bytes::try_get_u8)? != 0,
    };
    skip_tags(body)?;
    Ok(request)
}

pub(crate) fn encode(out: &mut BytesMut, _version: i16, response: &StreamsGroupDescribeResponse) -> anyhow::Result<()> {
    out.put_i32(response.throttle_time_ms);
    put_list(out, &response.groups, put_group);
    put_no_tags(out);
    Ok(())
}

fn put_group(out: &mut BytesMut, group: &DescribedGroup) {
    out.put_i16(group.error_code);
    put_nullable_text(out, group.error_message.as_deref());
    put_text(out, &group.group_id);
    put_text(out, &group.group_state);
    out.put_i32(group.group_epoch);
    out.put_i32(group.assignment_epoch);
    match &group.topology {
        None => out.put_i8(-1),
        Some(topology) => {
            out.put_i8(1);
            out.put_i32(topology.epoch);
            put_list(out, &topology.subtopologies, put_subtopology);
            put_no_tags(out);
        }
    }
    put_list(out, &group.members, put_member);
    out.put_i32(group.authorized_operations);
    put_no_tags(out);
}

fn put_subtopology(out: &mut BytesMut, subtopology: &Subtopology) {
    put_text(out, &subtopology.subtopology_id);
    let put_name = |out: &mut BytesMut, name: &StrBytes| put_text(out, name);
    put_list(out, &subtopology.source_topics, put_name);
    put_list(out, &subtopology.repartition_sink_topics, put_name);
    put_list(out, &subtopology.state_changelog_topics, put_topic);
    put_list(out, &subtopology.repartition_source_topics, put_topic);
    put_no_tags(out);
}

fn put_topic(out: &mut BytesMut, topic: &TopicInfo) {
    put_text(out, &topic.name);
    out.put_i32(topic.partitions);
    out.put_i16(topic.replication_factor);
    put_list(out, &topic.topic_configs, put_pair);
    put_no_tags(out);
}

fn put_pair(out: &mut BytesMut, (key, value): &(StrBytes, StrBytes)) {
    put_text(out, key);
    put_text(out, value);
    put_no_tags(out);
}

fn put_member(out: &mut BytesMut, member: &Member) {
    put_text(out, &member.member_id);
    out.put_i32(member.member_epoch);
    put_nullable_text(out, member.instance_id.as_deref());
    put_nullable_text(out, member.rack_id.as_deref());
    put_text(out, &member.client_id);
    put_text(out, &member.client_host);
    out.put_i32(member.topology_epoch);
    put_text(out, &member.process_id);
    match &member.user_endpoint {
        None => out.put_i8(-1),
        Some(endpoint) => {
            out.put_i8(1);
            put_endpoint(out, endpoint);
        }
    }
    put_list(out, &member.client_tags, put_pair);
    // How far its tasks are, and where their changelogs end: nobody tells yet.
    put_count(out, 0);
    put_count(out, 0);
    put_assignment(out, &member.assignment);
    put_assignment(out, &member.target_assignment);
    // Members of the classic protocol are in no streams group.
    out.put_u8(0);
    put_no_tags(out);
}

fn put_assignment(out: &mut BytesMut, assignment: &Assignment) {
    for tasks in [&assignment.active_tasks, &assignment.standby_tasks, &assignment.warmup_tasks] {
        put_list(out, tasks, put_task_ids);
    }
    put_no_tags(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    #[test]
    fn a_request_is_read_field_by_field() {
        // As Kafka's own class writes it.
        let bytes: &[u8] = &[3, 2, 103, 1, 1, 0];
        let expected =
            StreamsGroupDescribeRequest { group_ids: vec![text("g"), text("")], include_authorized_operations: true };
        assert_eq!(decode(0, Bytes::from_static(bytes)).unwrap(), expected);
        for end in 0..bytes.len() {
            assert!(decode(0, Bytes::from_static(&bytes[..end])).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_response_is_written_field_by_field() {
        let tasks = |partition| vec![TaskIds { subtopology_id: text("0"), partitions: vec![partition] }];
        let member = Member {
            member_id: text("m"),
            member_epoch: 3,
            client_id: text("c"),
            client_host: text("/h"),
            topology_epoch: 4,
            process_id: text("p"),
            user_endpoint: Some(Endpoint { host: text("h"), port: 5 }),
            client_tags: vec![(text("t"), text("u"))],
            assignment: Assignment { active_tasks: tasks(6), ..Assignment::default() },
            target_assignment: Assignment { standby_tasks: tasks(7), ..Assignment::default() },
            ..Member::default()
        };
        let topic = TopicInfo { name: text("r"), partitions: 2, replication_factor: 1, topic_configs: vec![] };
        let subtopology = Subtopology {
            subtopology_id: text("0"),
            source_topics: vec![text("s")],
            state_changelog_topics: vec![topic],
            ..Subtopology::default()
        };
        let group = DescribedGroup {
            group_id: text("g"),
            group_state: text("S"),
            group_epoch: 1,
            assignment_epoch: 2,
            topology: Some(Topology { epoch: 0, subtopologies: vec![subtopology] }),
            members: vec![member],
            ..DescribedGroup::default()
        };
        let mut out = BytesMut::new();
        encode(&mut out, 0, &StreamsGroupDescribeResponse { throttle_time_ms: 9, groups: vec![group] }).unwrap();
        // As Kafka's own class writes it.
        let expected: &[u8] = &[
            0, 0, 0, 9, 2, 0, 0, 0, 2, 103, 2, 83, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 0, 0, 2, 2, 48, 2, 2, 115, 1, 2, 2,
            114, 0, 0, 0, 2, 0, 1, 1, 0, 1, 0, 0, 2, 2, 109, 0, 0, 0, 3, 0, 0, 2, 99, 3, 47, 104, 0, 0, 0, 4, 2, 112,
            1, 2, 104, 0, 5, 0, 2, 2, 116, 2, 117, 0, 1, 1, 2, 2, 48, 2, 0, 0, 0, 6, 0, 1, 1, 0, 1, 2, 2, 48, 2, 0, 0,
            0, 7, 0, 1, 0, 0, 0, 128, 0, 0, 0, 0, 0,
        ];
        assert_eq!(&out[..], expected);
    }
}
