//! Version 1 of what brokers say about the state of share partitions, and of DescribeShareGroupOffsets: version 0 and how
//! many records are settled, or how many are not (KIP-1226).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, ReadShareGroupStateSummaryRequest,
        ReadShareGroupStateSummaryResponse, WriteShareGroupStateRequest, WriteShareGroupStateResponse,
        describe_share_group_offsets_response::DescribeShareGroupOffsetsResponsePartition,
        read_share_group_state_summary_response as summary,
        write_share_group_state_request::{PartitionData, StateBatch, WriteStateData},
    },
    protocol::{Decodable, Encodable},
};

use super::{
    Malformed,
    compact::{
        get_count, get_nullable_text, get_text, get_uuid, put_count, put_no_tags, put_nullable_text, put_text,
        skip_tags,
    },
};

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 0;

/// WriteShareGroupState: for each partition of each topic, in order, how many records are settled; -1 if that is not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WriteRequest {
    pub(crate) known: WriteShareGroupStateRequest,
    pub(crate) settled: Vec<Vec<i32>>,
}

pub(crate) mod write_share_group_state {
    pub(crate) use super::{decode_write as decode, encode_written as encode};
}

pub(crate) mod read_share_group_state_summary {
    pub(crate) use super::{decode_summary_request as decode, encode_summary as encode};
}

pub(crate) mod describe_share_group_offsets {
    pub(crate) use super::{decode_describe as decode, encode_described as encode};
}

pub(crate) fn decode_write(version: i16, mut body: Bytes) -> anyhow::Result<WriteRequest> {
    if version <= KNOWN {
        let known = WriteShareGroupStateRequest::decode(&mut body, version)?;
        let settled = known.topics.iter().map(|topic| vec![-1; topic.partitions.len()]).collect();
        return Ok(WriteRequest { known, settled });
    }
    let mut request = WriteRequest::default();
    request.known.group_id = get_text(&mut body)?;
    for _ in 0..get_count(&mut body)? {
        let topic_id = get_uuid(&mut body)?;
        let (mut partitions, mut settled) = (Vec::new(), Vec::new());
        for _ in 0..get_count(&mut body)? {
            let (partition, count) = decode_partition(&mut body)?;
            partitions.push(partition);
            settled.push(count);
        }
        skip_tags(&mut body)?;
        request.known.topics.push(WriteStateData::default().with_topic_id(topic_id).with_partitions(partitions));
        request.settled.push(settled);
    }
    skip_tags(&mut body)?;
    Ok(request)
}

fn decode_partition(body: &mut Bytes) -> anyhow::Result<(PartitionData, i32)> {
    let data = PartitionData::default()
        .with_partition(body.try_get_i32().map_err(|_| Malformed)?)
        .with_state_epoch(body.try_get_i32().map_err(|_| Malformed)?)
        .with_leader_epoch(body.try_get_i32().map_err(|_| Malformed)?)
        .with_start_offset(body.try_get_i64().map_err(|_| Malformed)?);
    let settled = body.try_get_i32().map_err(|_| Malformed)?;
    let count = get_count(body)?;
    let batches = (0..count).map(|_| StateBatch::decode(body, KNOWN)).collect::<anyhow::Result<Vec<_>>>()?;
    skip_tags(body)?;
    Ok((data.with_state_batches(batches), settled))
}

/// Version 1 of a request.
pub(crate) fn encode_write(out: &mut BytesMut, request: &WriteRequest) -> anyhow::Result<()> {
    put_text(out, &request.known.group_id);
    put_count(out, request.known.topics.len());
    for (topic, settled) in request.known.topics.iter().zip(&request.settled) {
        out.put_slice(topic.topic_id.as_bytes());
        put_count(out, topic.partitions.len());
        for (partition, settled) in topic.partitions.iter().zip(settled) {
            out.put_i32(partition.partition);
            out.put_i32(partition.state_epoch);
            out.put_i32(partition.leader_epoch);
            out.put_i64(partition.start_offset);
            out.put_i32(*settled);
            put_count(out, partition.state_batches.len());
            partition.state_batches.iter().try_for_each(|batch| batch.encode(out, KNOWN))?;
            put_no_tags(out);
        }
        put_no_tags(out);
    }
    put_no_tags(out);
    Ok(())
}

/// The answer of version 1 is that of version 0.
pub(crate) fn encode_written(
    out: &mut BytesMut,
    version: i16,
    response: &WriteShareGroupStateResponse,
) -> anyhow::Result<()> {
    response.encode(out, version.min(KNOWN))
}

/// ReadShareGroupStateSummary: for each partition of each topic, in order, how many records are settled; -1 if that is not
/// known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) known: ReadShareGroupStateSummaryResponse,
    pub(crate) settled: Vec<Vec<i32>>,
}

/// The request of version 1 is that of version 0.
pub(crate) fn decode_summary_request(
    version: i16,
    mut body: Bytes,
) -> anyhow::Result<ReadShareGroupStateSummaryRequest> {
    ReadShareGroupStateSummaryRequest::decode(&mut body, version.min(KNOWN))
}

pub(crate) fn encode_summary(out: &mut BytesMut, version: i16, response: &Summary) -> anyhow::Result<()> {
    if version <= KNOWN {
        return response.known.encode(out, version);
    }
    put_count(out, response.known.results.len());
    for (topic, settled) in response.known.results.iter().zip(&response.settled) {
        out.put_slice(topic.topic_id.as_bytes());
        put_count(out, topic.partitions.len());
        for (partition, settled) in topic.partitions.iter().zip(settled) {
            out.put_i32(partition.partition);
            out.put_i16(partition.error_code);
            put_nullable_text(out, partition.error_message.as_deref());
            out.put_i32(partition.state_epoch);
            out.put_i32(partition.leader_epoch);
            out.put_i64(partition.start_offset);
            out.put_i32(*settled);
            put_no_tags(out);
        }
        put_no_tags(out);
    }
    put_no_tags(out);
    Ok(())
}

/// Version 1 of an answer.
pub(crate) fn decode_summary(mut body: Bytes) -> anyhow::Result<Summary> {
    let mut response = Summary::default();
    for _ in 0..get_count(&mut body)? {
        let topic_id = get_uuid(&mut body)?;
        let (mut partitions, mut settled) = (Vec::new(), Vec::new());
        for _ in 0..get_count(&mut body)? {
            let partition = summary::PartitionResult::default()
                .with_partition(body.try_get_i32().map_err(|_| Malformed)?)
                .with_error_code(body.try_get_i16().map_err(|_| Malformed)?)
                .with_error_message(get_nullable_text(&mut body)?)
                .with_state_epoch(body.try_get_i32().map_err(|_| Malformed)?)
                .with_leader_epoch(body.try_get_i32().map_err(|_| Malformed)?)
                .with_start_offset(body.try_get_i64().map_err(|_| Malformed)?);
            settled.push(body.try_get_i32().map_err(|_| Malformed)?);
            skip_tags(&mut body)?;
            partitions.push(partition);
        }
        skip_tags(&mut body)?;
        let topic = summary::ReadStateSummaryResult::default().with_topic_id(topic_id).with_partitions(partitions);
        response.known.results.push(topic);
        response.settled.push(settled);
    }
    skip_tags(&mut body)?;
    Ok(response)
}

/// DescribeShareGroupOffsets: for each partition of each topic of each group, in order, how many records are not settled; -1
/// if that is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Described {
    pub(crate) known: DescribeShareGroupOffsetsResponse,
    pub(crate) lags: Vec<Vec<Vec<i64>>>,
    /// How long the client is to wait.
    pub(crate) throttle_time_ms: i32,
}

/// The request of version 1 is that of version 0.
pub(crate) fn decode_describe(version: i16, mut body: Bytes) -> anyhow::Result<DescribeShareGroupOffsetsRequest> {
    DescribeShareGroupOffsetsRequest::decode(&mut body, version.min(KNOWN))
}

pub(crate) fn encode_described(out: &mut BytesMut, version: i16, response: &Described) -> anyhow::Result<()> {
    if version <= KNOWN {
        let known = response.known.clone().with_throttle_time_ms(response.throttle_time_ms);
        return known.encode(out, version);
    }
    out.put_i32(response.throttle_time_ms);
    put_count(out, response.known.groups.len());
    for (group, lags) in response.known.groups.iter().zip(&response.lags) {
        put_text(out, &group.group_id);
        put_count(out, group.topics.len());
        for (topic, lags) in group.topics.iter().zip(lags) {
            put_text(out, &topic.topic_name);
            out.put_slice(topic.topic_id.as_bytes());
            put_count(out, topic.partitions.len());
            topic.partitions.iter().zip(lags).for_each(|(partition, lag)| encode_lag(out, partition, *lag));
            put_no_tags(out);
        }
        out.put_i16(group.error_code);
        put_nullable_text(out, group.error_message.as_deref());
        put_no_tags(out);
    }
    put_no_tags(out);
    Ok(())
}

fn encode_lag(out: &mut BytesMut, partition: &DescribeShareGroupOffsetsResponsePartition, lag: i64) {
    out.put_i32(partition.partition_index);
    out.put_i64(partition.start_offset);
    out.put_i32(partition.leader_epoch);
    out.put_i64(lag);
    out.put_i16(partition.error_code);
    put_nullable_text(out, partition.error_message.as_deref());
    put_no_tags(out);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::describe_share_group_offsets_response::{
            DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponseTopic,
        },
        protocol::StrBytes,
    };
    use uuid::Uuid;

    use super::*;
    use crate::wire::shapes::WRITE_SHARE_GROUP_STATE;

    #[test]
    fn a_write_comes_back_in_both_versions() {
        let batch = StateBatch::default().with_first_offset(3).with_last_offset(4).with_delivery_count(2);
        let partition = PartitionData::default()
            .with_partition(1)
            .with_state_epoch(2)
            .with_leader_epoch(3)
            .with_start_offset(4)
            .with_state_batches(vec![batch]);
        let topic = WriteStateData::default().with_topic_id(Uuid::from_u128(5)).with_partitions(vec![partition]);
        let known = WriteShareGroupStateRequest::default()
            .with_group_id(StrBytes::from_static_str("g"))
            .with_topics(vec![topic]);
        let mut old = BytesMut::new();
        known.encode(&mut old, 0).unwrap();
        let request = WriteRequest { known, settled: vec![vec![-1]] };
        assert_eq!(decode_write(0, old.clone().freeze()).unwrap(), request);
        let request = WriteRequest { settled: vec![vec![9]], ..request };
        let mut new = BytesMut::new();
        encode_write(&mut new, &request).unwrap();
        // Behind the start offset.
        let at = 2 + 1 + 16 + 1 + 4 + 4 + 4 + 8;
        let mut expected = old.to_vec();
        expected.splice(at..at, 9i32.to_be_bytes());
        assert_eq!(new, expected);
        assert_eq!(WRITE_SHARE_GROUP_STATE.check(1, &new), Ok(0));
        assert_eq!(decode_write(1, new.freeze()).unwrap(), request);
    }

    #[test]
    fn a_summary_comes_back() {
        let partition = summary::PartitionResult::default().with_partition(1).with_start_offset(7);
        let topic = summary::ReadStateSummaryResult::default().with_topic_id(Uuid::from_u128(5));
        let known =
            ReadShareGroupStateSummaryResponse::default().with_results(vec![topic.with_partitions(vec![partition])]);
        let mut old = BytesMut::new();
        known.encode(&mut old, 0).unwrap();
        let response = Summary { known, settled: vec![vec![9]] };
        let mut out = BytesMut::new();
        encode_summary(&mut out, 0, &response).unwrap();
        assert_eq!(out, old);
        out.clear();
        encode_summary(&mut out, 1, &response).unwrap();
        let mut expected = old.to_vec();
        let at = expected.len() - 3;
        expected.splice(at..at, 9i32.to_be_bytes());
        assert_eq!(out, expected);
        assert_eq!(decode_summary(out.freeze()).unwrap(), response);
    }

    #[test]
    fn the_lag_stands_behind_the_leader_epoch() {
        let partition = DescribeShareGroupOffsetsResponsePartition::default().with_start_offset(7);
        let topic = DescribeShareGroupOffsetsResponseTopic::default()
            .with_topic_name(StrBytes::from_static_str("t").into())
            .with_partitions(vec![partition]);
        let group = DescribeShareGroupOffsetsResponseGroup::default()
            .with_group_id(StrBytes::from_static_str("g").into())
            .with_topics(vec![topic]);
        let known = DescribeShareGroupOffsetsResponse::default().with_throttle_time_ms(3).with_groups(vec![group]);
        let mut old = BytesMut::new();
        known.encode(&mut old, 0).unwrap();
        let mut out = BytesMut::new();
        let response = Described { known, lags: vec![vec![vec![5]]], throttle_time_ms: 3 };
        encode_described(&mut out, 1, &response).unwrap();
        let at = 4 + 1 + 2 + 1 + 2 + 16 + 1 + 4 + 8 + 4;
        let mut expected = old.to_vec();
        expected.splice(at..at, 5i64.to_be_bytes());
        assert_eq!(out, expected);
    }
}
