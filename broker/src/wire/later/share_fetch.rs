//! ShareFetch, whose version 2 adds the way in which records are acquired and whether locks are renewed (KIP-1206, KIP-1222).
//! The request is read by hand, and the answer written around its records, as that of Fetch is.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ShareFetchRequest,
        share_fetch_request::{FetchTopic, ForgottenTopic},
    },
    protocol::Decodable,
};
use uuid::Uuid;

use super::{
    Malformed,
    compact::{get_count, get_nullable_text, put_count, put_no_tags, put_nullable_text, put_text, skip_tags},
};
use crate::{
    share::Acquired,
    wire::{
        fetch_response::{FetchFrame, NodeEndpoint, Records, Splice, put_records},
        frame,
        key::ApiKey,
    },
};

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 1;

/// How records are acquired (KIP-1206).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AcquireMode {
    /// Whole batches, which may be more records than asked for.
    #[default]
    BatchOptimized,
    /// Not one record more than asked for.
    RecordLimit,
    /// In a way that this version does not know.
    Unknown,
}

impl AcquireMode {
    fn from_wire(raw: i8) -> AcquireMode {
        match raw {
            0 => AcquireMode::BatchOptimized,
            1 => AcquireMode::RecordLimit,
            _ => AcquireMode::Unknown,
        }
    }
}

/// A request, and what version 2 added to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) known: ShareFetchRequest,
    pub(crate) mode: AcquireMode,
    /// It asks for more time.
    pub(crate) renews: bool,
}

pub(crate) fn decode(version: i16, mut body: Bytes) -> anyhow::Result<Request> {
    if version <= KNOWN {
        let known = ShareFetchRequest::decode(&mut body, version)?;
        return Ok(Request { known, mode: AcquireMode::default(), renews: false });
    }
    let int = |body: &mut Bytes| body.try_get_i32().map_err(|_| Malformed);
    let known = ShareFetchRequest::default()
        .with_group_id(get_nullable_text(&mut body)?.map(Into::into))
        .with_member_id(get_nullable_text(&mut body)?)
        .with_share_session_epoch(int(&mut body)?)
        .with_max_wait_ms(int(&mut body)?)
        .with_min_bytes(int(&mut body)?)
        .with_max_bytes(int(&mut body)?)
        .with_max_records(int(&mut body)?)
        .with_batch_size(int(&mut body)?);
    let mode = AcquireMode::from_wire(body.try_get_i8().map_err(|_| Malformed)?);
    let renews = body.try_get_i8().map_err(|_| Malformed)? != 0;
    let count = get_count(&mut body)?;
    let topics = (0..count).map(|_| FetchTopic::decode(&mut body, KNOWN)).collect::<anyhow::Result<Vec<_>>>()?;
    let count = get_count(&mut body)?;
    let forgotten = (0..count).map(|_| ForgottenTopic::decode(&mut body, KNOWN)).collect::<anyhow::Result<Vec<_>>>()?;
    skip_tags(&mut body)?;
    Ok(Request { known: known.with_topics(topics).with_forgotten_topics_data(forgotten), mode, renews })
}

/// Everything that an answer says.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) throttle_ms: i32,
    pub(crate) error: i16,
    pub(crate) message: Option<String>,
    /// How long a record is one member's.
    pub(crate) lock_duration_ms: i32,
    pub(crate) topics: Vec<(Uuid, Vec<PartitionAnswer>)>,
    pub(crate) nodes: Vec<NodeEndpoint>,
}

/// One partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionAnswer {
    pub(crate) index: i32,
    pub(crate) error: i16,
    pub(crate) message: Option<String>,
    pub(crate) acknowledge_error: i16,
    pub(crate) acknowledge_message: Option<String>,
    /// Who leads instead, and in which epoch.
    pub(crate) leader: Option<(i32, i32)>,
    pub(crate) records: Records,
    pub(crate) acquired: Vec<Acquired>,
}

/// Writes the answer. Both versions have the same one.
///
/// # Errors
/// If records that are copied cannot be read: the connection is closed, the client asks again.
pub(crate) fn encode(version: i16, correlation_id: i32, answer: Answer) -> std::io::Result<FetchFrame> {
    let mut out = BytesMut::with_capacity(512);
    let (mut splices, mut spliced): (Vec<Splice>, usize) = (Vec::new(), 0);
    let start = frame::begin_response(&mut out, ApiKey::ShareFetch, version, correlation_id);
    out.put_i32(answer.throttle_ms);
    out.put_i16(answer.error);
    put_nullable_text(&mut out, answer.message.as_deref());
    out.put_i32(answer.lock_duration_ms);
    put_count(&mut out, answer.topics.len());
    for (topic, partitions) in answer.topics {
        out.put_slice(topic.as_bytes());
        put_count(&mut out, partitions.len());
        for partition in partitions {
            out.put_i32(partition.index);
            out.put_i16(partition.error);
            put_nullable_text(&mut out, partition.message.as_deref());
            out.put_i16(partition.acknowledge_error);
            put_nullable_text(&mut out, partition.acknowledge_message.as_deref());
            let (leader, epoch) = partition.leader.unwrap_or_default();
            out.put_i32(leader);
            out.put_i32(epoch);
            put_no_tags(&mut out);
            put_count(&mut out, partition.records.len());
            spliced += put_records(&mut out, &mut splices, partition.records)?;
            put_count(&mut out, partition.acquired.len());
            for acquired in partition.acquired {
                out.put_i64(acquired.first.to_wire());
                out.put_i64(acquired.last.to_wire());
                out.put_i16(i16::try_from(acquired.deliveries).unwrap_or(i16::MAX));
                put_no_tags(&mut out);
            }
            put_no_tags(&mut out);
        }
        put_no_tags(&mut out);
    }
    put_count(&mut out, answer.nodes.len());
    for node in answer.nodes {
        out.put_i32(node.id);
        put_text(&mut out, &node.host);
        out.put_i32(i32::from(node.port));
        put_nullable_text(&mut out, node.rack.as_deref());
        put_no_tags(&mut out);
    }
    put_no_tags(&mut out);
    frame::finish_response(&mut out, start, spliced);
    Ok(FetchFrame { head: out, splices })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            ResponseHeader, ShareFetchResponse,
            share_fetch_request::{AcknowledgementBatch, FetchPartition},
        },
        protocol::{Encodable, StrBytes},
    };
    use varve_metadata::model::Offset;

    use super::*;
    use crate::wire::shapes::SHARE_FETCH;

    #[test]
    fn version_2_is_version_1_with_two_bytes_behind_the_batch_size() {
        let batch = AcknowledgementBatch::default().with_last_offset(3).with_acknowledge_types(vec![1]);
        let partition = FetchPartition::default().with_partition_index(2).with_acknowledgement_batches(vec![batch]);
        let topic = FetchTopic::default().with_topic_id(Uuid::from_u128(5)).with_partitions(vec![partition]);
        let forgotten = ForgottenTopic::default().with_topic_id(Uuid::from_u128(6)).with_partitions(vec![1]);
        let known = ShareFetchRequest::default()
            .with_group_id(Some(StrBytes::from_static_str("g").into()))
            .with_member_id(Some(StrBytes::from_static_str("m")))
            .with_share_session_epoch(7)
            .with_max_records(9)
            .with_topics(vec![topic])
            .with_forgotten_topics_data(vec![forgotten]);
        let mut bytes = Vec::new();
        known.encode(&mut bytes, 1).unwrap();
        let request = Request { known, mode: AcquireMode::default(), renews: false };
        assert_eq!(decode(1, bytes.clone().into()).unwrap(), request);
        let at = 2 + 2 + 6 * 4;
        bytes.splice(at..at, [1, 1]);
        assert_eq!(SHARE_FETCH.check(2, &bytes), Ok(0));
        assert_eq!(
            decode(2, bytes.into()).unwrap(),
            Request { mode: AcquireMode::RecordLimit, renews: true, ..request }
        );
    }

    #[test]
    fn the_answer_decodes_to_what_was_meant() {
        let offset = |number| Offset::new(number).unwrap();
        let partition = PartitionAnswer {
            index: 2,
            acknowledge_error: 121,
            acknowledge_message: Some("no".to_owned()),
            leader: Some((3, 4)),
            records: Records::Remote(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]),
            acquired: vec![Acquired { first: offset(5), last: offset(6), deliveries: 2 }],
            ..PartitionAnswer::default()
        };
        let nodes = vec![NodeEndpoint { id: 3, host: "h".into(), port: 9092, rack: None }];
        let topics = vec![(Uuid::from_u128(77), vec![partition])];
        let answer = Answer { throttle_ms: 1, lock_duration_ms: 30_000, topics, nodes, ..Answer::default() };
        let frame = encode(1, 42, answer).unwrap();
        let (mut bytes, mut sent) = (Vec::new(), 0);
        for splice in &frame.splices {
            bytes.extend_from_slice(&frame.head[sent..splice.at]);
            sent = splice.at;
            let crate::wire::fetch_response::Source::Memory(piece) = &splice.source else { panic!("{splice:?}") };
            bytes.extend_from_slice(piece);
        }
        bytes.extend_from_slice(&frame.head[sent..]);
        let mut bytes = Bytes::from(bytes).split_off(4);
        ResponseHeader::decode(&mut bytes, i16::from(ApiKey::ShareFetch.has_flexible_response_header(1))).unwrap();
        let response = ShareFetchResponse::decode(&mut bytes, 1).unwrap();
        assert!(bytes.is_empty());
        let partition = &response.responses[0].partitions[0];
        assert_eq!((response.throttle_time_ms, response.acquisition_lock_timeout_ms), (1, 30_000));
        assert_eq!((partition.partition_index, partition.acknowledge_error_code), (2, 121));
        assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (3, 4));
        assert_eq!(partition.records.as_deref(), Some(b"abc".as_slice()));
        assert_eq!((partition.acquired_records[0].first_offset, partition.acquired_records[0].delivery_count), (5, 2));
        assert_eq!(response.node_endpoints[0].port, 9092);
    }
}
