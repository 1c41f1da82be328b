//! OffsetCommit 10: version 9 with topic ids in the place of names (KIP-848).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
    protocol::{Decodable, Encodable},
};

use super::{
    Malformed,
    compact::{get_count, get_nullable_text, get_text, get_uuid, put_count, put_no_tags, skip_tags},
};

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 9;

/// In version 10 `topic_id` is set and `name` is empty; before, the other way round.
pub(crate) fn decode(version: i16, mut body: Bytes) -> anyhow::Result<OffsetCommitRequest> {
    if version <= KNOWN {
        return OffsetCommitRequest::decode(&mut body, version);
    }
    let group_id = get_text(&mut body)?.into();
    let generation = body.try_get_i32().map_err(|_| Malformed)?;
    let member_id = get_text(&mut body)?;
    let instance_id = get_nullable_text(&mut body)?;
    let topics = (0..get_count(&mut body)?).map(|_| decode_topic(&mut body)).collect::<anyhow::Result<_>>()?;
    Ok(OffsetCommitRequest::default()
        .with_group_id(group_id)
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member_id)
        .with_group_instance_id(instance_id)
        .with_topics(topics))
}

fn decode_topic(body: &mut Bytes) -> anyhow::Result<OffsetCommitRequestTopic> {
    let id = get_uuid(body)?;
    let count = get_count(body)?;
    let partitions =
        (0..count).map(|_| OffsetCommitRequestPartition::decode(body, KNOWN)).collect::<anyhow::Result<_>>()?;
    skip_tags(body)?;
    Ok(OffsetCommitRequestTopic::default().with_topic_id(id).with_partitions(partitions))
}

pub(crate) fn encode(out: &mut BytesMut, version: i16, response: &OffsetCommitResponse) -> anyhow::Result<()> {
    if version <= KNOWN {
        return response.encode(out, version);
    }
    out.put_i32(response.throttle_time_ms);
    put_count(out, response.topics.len());
    for topic in &response.topics {
        out.put_slice(topic.topic_id.as_bytes());
        put_count(out, topic.partitions.len());
        topic.partitions.iter().try_for_each(|partition| partition.encode(out, KNOWN))?;
        put_no_tags(out);
    }
    put_no_tags(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    use uuid::Uuid;

    use super::*;
    use crate::wire::shapes::OFFSET_COMMIT;

    /// Version 9 with an empty topic name in it, which is one byte; an id takes its place.
    fn as_version_10(version_9: &[u8], empty_name_at: usize) -> Vec<u8> {
        assert_eq!(version_9[empty_name_at], 1);
        let id = Uuid::from_u128(0xabcd);
        [&version_9[..empty_name_at], id.as_bytes(), &version_9[empty_name_at + 1..]].concat()
    }

    #[test]
    fn version_10_is_version_9_with_ids() {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(3)
            .with_committed_offset(77)
            .with_committed_metadata(None);
        let topic = OffsetCommitRequestTopic::default().with_partitions(vec![partition]);
        let nine = OffsetCommitRequest::default().with_group_instance_id(None).with_topics(vec![topic]);
        let mut bytes = Vec::new();
        nine.encode(&mut bytes, 9).unwrap();
        let ten = as_version_10(&bytes, 1 + 4 + 1 + 1 + 1);
        assert_eq!(OFFSET_COMMIT.check(10, &ten), Ok(0));
        let mut expected = nine;
        expected.topics[0].topic_id = Uuid::from_u128(0xabcd);
        assert_eq!(decode(10, ten.into()).unwrap(), expected);
    }

    #[test]
    fn the_answer_of_version_10_is_that_of_9_with_ids() {
        let partition = OffsetCommitResponsePartition::default().with_partition_index(3).with_error_code(12);
        let topic = OffsetCommitResponseTopic::default()
            .with_topic_id(Uuid::from_u128(0xabcd))
            .with_partitions(vec![partition]);
        let response = OffsetCommitResponse::default().with_topics(vec![topic]);
        let (mut nine, mut ten) = (BytesMut::new(), BytesMut::new());
        let mut nameless = response.clone();
        nameless.topics[0].topic_id = Uuid::nil();
        encode(&mut nine, 9, &nameless).unwrap();
        encode(&mut ten, 10, &response).unwrap();
        assert_eq!(ten.as_ref(), as_version_10(&nine, 4 + 1));
    }
}
