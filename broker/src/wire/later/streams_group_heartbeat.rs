//! StreamsGroupHeartbeat (KIP-1071), which `kafka-protocol` does not know: version 0, written by hand.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use super::{
    Malformed,
    compact::{
        get_list, get_nullable_list, get_nullable_struct, get_nullable_text, get_number, get_text, put_count,
        put_no_tags, put_nullable_list, put_nullable_text, put_text, skip_tags,
    },
};

/// The request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StreamsGroupHeartbeatRequest {
    pub(crate) group_id: StrBytes,
    pub(crate) member_id: StrBytes,
    pub(crate) member_epoch: i32,
    pub(crate) endpoint_information_epoch: i32,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) rack_id: Option<StrBytes>,
    /// -1 if it did not change.
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) topology: Option<Topology>,
    pub(crate) active_tasks: Option<Vec<TaskIds>>,
    pub(crate) standby_tasks: Option<Vec<TaskIds>>,
    pub(crate) warmup_tasks: Option<Vec<TaskIds>>,
    pub(crate) process_id: Option<StrBytes>,
    pub(crate) user_endpoint: Option<Endpoint>,
    pub(crate) client_tags: Option<Vec<(StrBytes, StrBytes)>>,
    /// Whether they were given; nobody takes them yet.
    pub(crate) has_task_offsets: bool,
    /// Whether they were given; nobody takes them yet.
    pub(crate) has_task_end_offsets: bool,
    pub(crate) shutdown_application: bool,
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
    pub(crate) source_topic_regex: Vec<StrBytes>,
    pub(crate) state_changelog_topics: Vec<TopicInfo>,
    pub(crate) repartition_sink_topics: Vec<StrBytes>,
    pub(crate) repartition_source_topics: Vec<TopicInfo>,
    pub(crate) copartition_groups: Vec<CopartitionGroup>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct CopartitionGroup {
    pub(crate) source_topics: Vec<i16>,
    pub(crate) source_topic_regex: Vec<i16>,
    pub(crate) repartition_source_topics: Vec<i16>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct TopicInfo {
    pub(crate) name: StrBytes,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i16,
    pub(crate) topic_configs: Vec<(StrBytes, StrBytes)>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct TaskIds {
    pub(crate) subtopology_id: StrBytes,
    pub(crate) partitions: Vec<i32>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) host: StrBytes,
    pub(crate) port: u16,
}

/// The response.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StreamsGroupHeartbeatResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: i16,
    pub(crate) error_message: Option<StrBytes>,
    pub(crate) member_id: StrBytes,
    pub(crate) member_epoch: i32,
    pub(crate) heartbeat_interval_ms: i32,
    /// Code and detail.
    pub(crate) status: Vec<(i8, StrBytes)>,
    pub(crate) active_tasks: Option<Vec<TaskIds>>,
    pub(crate) standby_tasks: Option<Vec<TaskIds>>,
    pub(crate) warmup_tasks: Option<Vec<TaskIds>>,
    pub(crate) endpoint_information_epoch: i32,
    pub(crate) partitions_by_user_endpoint: Option<Vec<EndpointToPartitions>>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct EndpointToPartitions {
    pub(crate) user_endpoint: Endpoint,
    pub(crate) active_partitions: Vec<TopicPartition>,
    pub(crate) standby_partitions: Vec<TopicPartition>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct TopicPartition {
    pub(crate) topic: StrBytes,
    pub(crate) partitions: Vec<i32>,
}

pub(crate) fn decode(_version: i16, mut body: Bytes) -> anyhow::Result<StreamsGroupHeartbeatRequest> {
    Ok(get_request(&mut body)?)
}

fn get_request(body: &mut Bytes) -> Result<StreamsGroupHeartbeatRequest, Malformed> {
    let request = StreamsGroupHeartbeatRequest {
        group_id: get_text(body)?,
        member_id: get_text(body)?,
        member_epoch: get_number(body, Bytes::try_get_i32)?,
        endpoint_information_epoch: get_number(body, Bytes::try_get_i32)?,
        instance_id: get_nullable_text(body)?,
        rack_id: get_nullable_text(body)?,
        rebalance_timeout_ms: get_number(body, Bytes::try_get_i32)?,
        topology: get_nullable_struct(body, get_topology)?,
        active_tasks: get_nullable_list(body, get_task_ids)?,
        standby_tasks: get_nullable_list(body, get_task_ids)?,
        warmup_tasks: get_nullable_list(body, get_task_ids)?,
        process_id: get_nullable_text(body)?,
        user_endpoint: get_nullable_struct(body, get_endpoint)?,
        client_tags: get_nullable_list(body, get_pair)?,
        has_task_offsets: get_nullable_list(body, get_task_offset)?.is_some(),
        has_task_end_offsets: get_nullable_list(body, get_task_offset)?.is_some(),
        shutdown_application: get_number(body, Bytes::try_get_u8)? != 0,
    };
    skip_tags(body)?;
    Ok(request)
}

fn get_topology(body: &mut Bytes) -> Result<Topology, Malformed> {
    let topology =
        Topology { epoch: get_number(body, Bytes::try_get_i32)?, subtopologies: get_list(body, get_subtopology)? };
    skip_tags(body)?;
    Ok(topology)
}

fn get_subtopology(body: &mut Bytes) -> Result<Subtopology, Malformed> {
    let subtopology = Subtopology {
        subtopology_id: get_text(body)?,
        source_topics: get_list(body, get_text)?,
        source_topic_regex: get_list(body, get_text)?,
        state_changelog_topics: get_list(body, get_topic)?,
        repartition_sink_topics: get_list(body, get_text)?,
        repartition_source_topics: get_list(body, get_topic)?,
        copartition_groups: get_list(body, get_copartition_group)?,
    };
    skip_tags(body)?;
    Ok(subtopology)
}

fn get_copartition_group(body: &mut Bytes) -> Result<CopartitionGroup, Malformed> {
    let mut places = || get_list(body, |body| get_number(body, Bytes::try_get_i16));
    let group = CopartitionGroup {
        source_topics: places()?,
        source_topic_regex: places()?,
        repartition_source_topics: places()?,
    };
    skip_tags(body)?;
    Ok(group)
}

fn get_topic(body: &mut Bytes) -> Result<TopicInfo, Malformed> {
    let topic = TopicInfo {
        name: get_text(body)?,
        partitions: get_number(body, Bytes::try_get_i32)?,
        replication_factor: get_number(body, Bytes::try_get_i16)?,
        topic_configs: get_list(body, get_pair)?,
    };
    skip_tags(body)?;
    Ok(topic)
}

fn get_pair(body: &mut Bytes) -> Result<(StrBytes, StrBytes), Malformed> {
    let pair = (get_text(body)?, get_text(body)?);
    skip_tags(body)?;
    Ok(pair)
}

fn get_task_ids(body: &mut Bytes) -> Result<TaskIds, Malformed> {
    let ids = TaskIds {
        subtopology_id: get_text(body)?,
        partitions: get_list(body, |body| get_number(body, Bytes::try_get_i32))?,
    };
    skip_tags(body)?;
    Ok(ids)
}

fn get_endpoint(body: &mut Bytes) -> Result<Endpoint, Malformed> {
    let endpoint = Endpoint { host: get_text(body)?, port: get_number(body, Bytes::try_get_u16)? };
    skip_tags(body)?;
    Ok(endpoint)
}

fn get_task_offset(body: &mut Bytes) -> Result<(), Malformed> {
    get_text(body)?;
    get_number(body, Bytes::try_get_i32)?;
    get_number(body, Bytes::try_get_i64)?;
    skip_tags(body)
}

pub(crate) fn encode(
    out: &mut BytesMut,
    _version: i16,
    response: &StreamsGroupHeartbeatResponse,
) -> anyhow::Result<()> {
    out.put_i32(response.throttle_time_ms);
    out.put_i16(response.error_code);
    put_nullable_text(out, response.error_message.as_deref());
    put_text(out, &response.member_id);
    out.put_i32(response.member_epoch);
    out.put_i32(response.heartbeat_interval_ms);
    // Which lag is acceptable, and how often offsets shall be told: nobody tells any yet.
    out.put_i32(0);
    out.put_i32(0);
    put_count(out, response.status.len());
    for (code, detail) in &response.status {
        out.put_i8(*code);
        put_text(out, detail);
        put_no_tags(out);
    }
    for tasks in [&response.active_tasks, &response.standby_tasks, &response.warmup_tasks] {
        put_nullable_list(out, tasks.as_deref(), put_task_ids);
    }
    out.put_i32(response.endpoint_information_epoch);
    put_nullable_list(out, response.partitions_by_user_endpoint.as_deref(), |out, endpoint| {
        put_endpoint(out, &endpoint.user_endpoint);
        put_partitions(out, &endpoint.active_partitions);
        put_partitions(out, &endpoint.standby_partitions);
        put_no_tags(out);
    });
    put_no_tags(out);
    Ok(())
}

pub(super) fn put_task_ids(out: &mut BytesMut, ids: &TaskIds) {
    put_text(out, &ids.subtopology_id);
    put_count(out, ids.partitions.len());
    ids.partitions.iter().for_each(|partition| out.put_i32(*partition));
    put_no_tags(out);
}

pub(super) fn put_endpoint(out: &mut BytesMut, endpoint: &Endpoint) {
    put_text(out, &endpoint.host);
    out.put_u16(endpoint.port);
    put_no_tags(out);
}

fn put_partitions(out: &mut BytesMut, topics: &[TopicPartition]) {
    put_count(out, topics.len());
    for topic in topics {
        put_text(out, &topic.topic);
        put_count(out, topic.partitions.len());
        topic.partitions.iter().for_each(|partition| out.put_i32(*partition));
        put_no_tags(out);
    }
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
        let bytes: &[u8] = &[
            2, 103, 2, 109, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 114, 0, 0, 23, 112, 1, 0, 0, 0, 0, 2, 2, 48, 2, 2, 115, 1, 2,
            2, 99, 0, 0, 0, 0, 0, 1, 2, 2, 107, 2, 118, 0, 0, 2, 2, 112, 2, 2, 113, 0, 0, 0, 3, 0, 0, 1, 0, 2, 2, 0, 0,
            1, 2, 0, 0, 0, 0, 0, 1, 1, 0, 2, 105, 1, 2, 104, 255, 255, 0, 2, 2, 116, 2, 117, 0, 0, 0, 1, 0,
        ];
        let request = decode(0, Bytes::from_static(bytes)).unwrap();
        let changelog = TopicInfo {
            name: text("c"),
            partitions: 0,
            replication_factor: 1,
            topic_configs: vec![(text("k"), text("v"))],
        };
        let expected = StreamsGroupHeartbeatRequest {
            group_id: text("g"),
            member_id: text("m"),
            member_epoch: 0,
            endpoint_information_epoch: 7,
            instance_id: None,
            rack_id: Some(text("r")),
            rebalance_timeout_ms: 6000,
            topology: Some(Topology {
                epoch: 0,
                subtopologies: vec![Subtopology {
                    subtopology_id: text("0"),
                    source_topics: vec![text("s")],
                    source_topic_regex: vec![],
                    state_changelog_topics: vec![changelog],
                    repartition_sink_topics: vec![text("p")],
                    repartition_source_topics: vec![TopicInfo {
                        name: text("q"),
                        partitions: 3,
                        ..TopicInfo::default()
                    }],
                    copartition_groups: vec![CopartitionGroup {
                        source_topics: vec![0],
                        source_topic_regex: vec![],
                        repartition_source_topics: vec![0],
                    }],
                }],
            }),
            active_tasks: Some(vec![]),
            standby_tasks: Some(vec![]),
            warmup_tasks: None,
            process_id: Some(text("i")),
            user_endpoint: Some(Endpoint { host: text("h"), port: 65535 }),
            client_tags: Some(vec![(text("t"), text("u"))]),
            has_task_offsets: false,
            has_task_end_offsets: false,
            shutdown_application: true,
        };
        assert_eq!(request, expected);
        for end in 0..bytes.len() {
            assert!(decode(0, Bytes::from_static(&bytes[..end])).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_response_is_written_field_by_field() {
        let partitions = |topic| vec![TopicPartition { topic: text(topic), partitions: vec![1] }];
        let response = StreamsGroupHeartbeatResponse {
            throttle_time_ms: 1,
            error_code: 2,
            error_message: Some(text("e")),
            member_id: text("m"),
            member_epoch: 3,
            heartbeat_interval_ms: 4,
            status: vec![(5, text("d"))],
            active_tasks: Some(vec![TaskIds { subtopology_id: text("0"), partitions: vec![6] }]),
            standby_tasks: Some(vec![]),
            warmup_tasks: None,
            endpoint_information_epoch: 7,
            partitions_by_user_endpoint: Some(vec![EndpointToPartitions {
                user_endpoint: Endpoint { host: text("h"), port: 8 },
                active_partitions: partitions("a"),
                standby_partitions: partitions("b"),
            }]),
        };
        let mut out = BytesMut::new();
        encode(&mut out, 0, &response).unwrap();
        // As Kafka's own class writes it.
        let expected: &[u8] = &[
            0, 0, 0, 1, 0, 2, 2, 101, 2, 109, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 2, 5, 2, 100, 0, 2, 2,
            48, 2, 0, 0, 0, 6, 0, 1, 0, 0, 0, 0, 7, 2, 2, 104, 0, 8, 0, 2, 2, 97, 2, 0, 0, 0, 1, 0, 2, 2, 98, 2, 0, 0,
            0, 1, 0, 0, 0,
        ];
        assert_eq!(&out[..], expected);
    }
}
