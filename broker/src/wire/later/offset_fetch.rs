//! OffsetFetch 10: version 9 with topic ids in the place of names (KIP-848).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
    protocol::{Decodable, Encodable},
};

use super::{
    Malformed,
    compact::{
        get_count, get_nullable_count, get_nullable_text, get_text, get_uuid, put_count, put_no_tags, put_text,
        skip_tags,
    },
};

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 9;

/// In version 10 `topic_id` is set and `name` is empty; before, the other way round.
pub(crate) fn decode(version: i16, mut body: Bytes) -> anyhow::Result<OffsetFetchRequest> {
    if version <= KNOWN {
        return OffsetFetchRequest::decode(&mut body, version);
    }
    let groups = (0..get_count(&mut body)?).map(|_| decode_group(&mut body)).collect::<Result<_, _>>()?;
    let require_stable = body.try_get_u8().map_err(|_| Malformed)? != 0;
    Ok(OffsetFetchRequest::default().with_groups(groups).with_require_stable(require_stable))
}

fn decode_group(body: &mut Bytes) -> Result<OffsetFetchRequestGroup, Malformed> {
    let group_id = get_text(body)?.into();
    let member_id = get_nullable_text(body)?;
    let member_epoch = body.try_get_i32().map_err(|_| Malformed)?;
    let topics = match get_nullable_count(body)? {
        None => None,
        Some(count) => Some((0..count).map(|_| decode_topic(body)).collect::<Result<_, _>>()?),
    };
    skip_tags(body)?;
    Ok(OffsetFetchRequestGroup::default()
        .with_group_id(group_id)
        .with_member_id(member_id)
        .with_member_epoch(member_epoch)
        .with_topics(topics))
}

fn decode_topic(body: &mut Bytes) -> Result<OffsetFetchRequestTopics, Malformed> {
    let id = get_uuid(body)?;
    let count = get_count(body)?;
    let indexes = (0..count).map(|_| body.try_get_i32().map_err(|_| Malformed)).collect::<Result<_, _>>()?;
    skip_tags(body)?;
    Ok(OffsetFetchRequestTopics::default().with_topic_id(id).with_partition_indexes(indexes))
}

pub(crate) fn encode(out: &mut BytesMut, version: i16, response: &OffsetFetchResponse) -> anyhow::Result<()> {
    if version <= KNOWN {
        return response.encode(out, version);
    }
    out.put_i32(response.throttle_time_ms);
    put_count(out, response.groups.len());
    for group in &response.groups {
        put_text(out, &group.group_id);
        put_count(out, group.topics.len());
        for topic in &group.topics {
            out.put_slice(topic.topic_id.as_bytes());
            put_count(out, topic.partitions.len());
            topic.partitions.iter().try_for_each(|partition| partition.encode(out, KNOWN))?;
            put_no_tags(out);
        }
        out.put_i16(group.error_code);
        put_no_tags(out);
    }
    put_no_tags(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
        },
        protocol::StrBytes,
    };
    use uuid::Uuid;

    use super::*;
    use crate::wire::shapes::OFFSET_FETCH;

    fn as_version_10(version_9: &[u8], empty_name_at: usize) -> Vec<u8> {
        assert_eq!(version_9[empty_name_at], 1);
        let id = Uuid::from_u128(0xabcd);
        [&version_9[..empty_name_at], id.as_bytes(), &version_9[empty_name_at + 1..]].concat()
    }

    #[test]
    fn version_10_is_version_9_with_ids() {
        let topic = OffsetFetchRequestTopics::default().with_partition_indexes(vec![1, 2]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(StrBytes::from_static_str("g").into())
            .with_member_id(Some(StrBytes::from_static_str("m")))
            .with_member_epoch(5)
            .with_topics(Some(vec![topic]));
        let all = OffsetFetchRequestGroup::default().with_topics(None);
        let nine = OffsetFetchRequest::default().with_groups(vec![group, all]).with_require_stable(true);
        let mut bytes = Vec::new();
        nine.encode(&mut bytes, 9).unwrap();
        let ten = as_version_10(&bytes, 1 + 2 + 2 + 4 + 1);
        assert_eq!(OFFSET_FETCH.check(10, &ten), Ok(0));
        let mut expected = nine;
        expected.groups[0].topics.as_mut().unwrap()[0].topic_id = Uuid::from_u128(0xabcd);
        assert_eq!(decode(10, ten.into()).unwrap(), expected);
    }

    #[test]
    fn the_answer_of_version_10_is_that_of_9_with_ids() {
        let partition = OffsetFetchResponsePartitions::default().with_committed_offset(9).with_metadata(None);
        let topic = OffsetFetchResponseTopics::default()
            .with_topic_id(Uuid::from_u128(0xabcd))
            .with_partitions(vec![partition]);
        let group = OffsetFetchResponseGroup::default().with_topics(vec![topic]).with_error_code(3);
        let response = OffsetFetchResponse::default().with_groups(vec![group]);
        let (mut nine, mut ten) = (BytesMut::new(), BytesMut::new());
        let mut nameless = response.clone();
        nameless.groups[0].topics[0].topic_id = Uuid::nil();
        encode(&mut nine, 9, &nameless).unwrap();
        encode(&mut ten, 10, &response).unwrap();
        assert_eq!(ten.as_ref(), as_version_10(&nine, 4 + 1 + 1 + 1));
    }
}
