//! ShareAcknowledge 2: version 1 and whether locks are renewed, and in the answer how long they last (KIP-1222).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ShareAcknowledgeRequest, ShareAcknowledgeResponse, share_acknowledge_request::AcknowledgeTopic},
    protocol::{Decodable, Encodable},
};

use super::{
    Malformed,
    compact::{get_count, get_nullable_text, put_count, put_no_tags, put_nullable_text, skip_tags},
};

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 1;

/// A request, and what version 2 added to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) known: ShareAcknowledgeRequest,
    /// It asks for more time.
    pub(crate) renews: bool,
}

/// An answer, and what version 2 added to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Response {
    pub(crate) known: ShareAcknowledgeResponse,
    /// How long a record is one member's.
    pub(crate) lock_duration_ms: i32,
}

pub(crate) fn decode(version: i16, mut body: Bytes) -> anyhow::Result<Request> {
    if version <= KNOWN {
        return Ok(Request { known: ShareAcknowledgeRequest::decode(&mut body, version)?, renews: false });
    }
    let known = ShareAcknowledgeRequest::default()
        .with_group_id(get_nullable_text(&mut body)?.map(Into::into))
        .with_member_id(get_nullable_text(&mut body)?)
        .with_share_session_epoch(body.try_get_i32().map_err(|_| Malformed)?);
    let renews = body.try_get_u8().map_err(|_| Malformed)? != 0;
    let count = get_count(&mut body)?;
    let topics = (0..count).map(|_| AcknowledgeTopic::decode(&mut body, KNOWN)).collect::<anyhow::Result<Vec<_>>>()?;
    skip_tags(&mut body)?;
    Ok(Request { known: known.with_topics(topics), renews })
}

pub(crate) fn encode(out: &mut BytesMut, version: i16, response: &Response) -> anyhow::Result<()> {
    let known = &response.known;
    if version <= KNOWN {
        return known.encode(out, version);
    }
    out.put_i32(known.throttle_time_ms);
    out.put_i16(known.error_code);
    put_nullable_text(out, known.error_message.as_deref());
    out.put_i32(response.lock_duration_ms);
    put_count(out, known.responses.len());
    known.responses.iter().try_for_each(|topic| topic.encode(out, KNOWN))?;
    put_count(out, known.node_endpoints.len());
    known.node_endpoints.iter().try_for_each(|node| node.encode(out, KNOWN))?;
    put_no_tags(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::{
            share_acknowledge_request::{AcknowledgePartition, AcknowledgementBatch},
            share_acknowledge_response::ShareAcknowledgeTopicResponse,
        },
        protocol::StrBytes,
    };
    use uuid::Uuid;

    use super::*;
    use crate::wire::shapes::SHARE_ACKNOWLEDGE;

    #[test]
    fn version_2_is_version_1_with_a_field_behind_the_epoch() {
        let batch = AcknowledgementBatch::default().with_last_offset(3).with_acknowledge_types(vec![1, 2, 3, 4]);
        let partition = AcknowledgePartition::default().with_acknowledgement_batches(vec![batch]);
        let topic = AcknowledgeTopic::default().with_topic_id(Uuid::from_u128(5)).with_partitions(vec![partition]);
        let known = ShareAcknowledgeRequest::default()
            .with_group_id(Some(StrBytes::from_static_str("g").into()))
            .with_member_id(Some(StrBytes::from_static_str("m")))
            .with_share_session_epoch(7)
            .with_topics(vec![topic]);
        let mut bytes = Vec::new();
        known.encode(&mut bytes, 1).unwrap();
        assert_eq!(decode(1, bytes.clone().into()).unwrap(), Request { known: known.clone(), renews: false });
        bytes.insert(2 + 2 + 4, 1);
        assert_eq!(SHARE_ACKNOWLEDGE.check(2, &bytes), Ok(0));
        assert_eq!(decode(2, bytes.into()).unwrap(), Request { known, renews: true });
    }

    #[test]
    fn the_answer_of_version_2_says_how_long_locks_last() {
        let topic = ShareAcknowledgeTopicResponse::default().with_topic_id(Uuid::from_u128(5));
        let known = ShareAcknowledgeResponse::default().with_throttle_time_ms(9).with_responses(vec![topic]);
        let mut expected = Vec::new();
        known.encode(&mut expected, 1).unwrap();
        let behind_message = 4 + 2 + 1;
        expected.splice(behind_message..behind_message, 30_000i32.to_be_bytes());
        let mut out = BytesMut::new();
        encode(&mut out, 2, &Response { known, lock_duration_ms: 30_000 }).unwrap();
        assert_eq!(out, expected);
    }
}
