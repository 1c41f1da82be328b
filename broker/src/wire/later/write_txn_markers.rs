//! WriteTxnMarkers 2: version 1 and, for each marker, the generation of its transaction (KIP-1228).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        WriteTxnMarkersRequest, WriteTxnMarkersResponse,
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    },
    protocol::{Decodable, Encodable},
};

use super::{
    Malformed,
    compact::{get_count, put_count, put_no_tags, skip_tags},
};

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 1;

/// Markers, each with the transaction version of its producer (0 if the request cannot say).
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) markers: Vec<(WritableTxnMarker, i8)>,
}

pub(crate) fn decode(version: i16, mut body: Bytes) -> anyhow::Result<Request> {
    if version <= KNOWN {
        let request = WriteTxnMarkersRequest::decode(&mut body, version)?;
        return Ok(Request { markers: request.markers.into_iter().map(|marker| (marker, 0)).collect() });
    }
    let markers = (0..get_count(&mut body)?).map(|_| decode_marker(&mut body)).collect::<anyhow::Result<_>>()?;
    Ok(Request { markers })
}

fn decode_marker(body: &mut Bytes) -> anyhow::Result<(WritableTxnMarker, i8)> {
    let producer = body.try_get_i64().map_err(|_| Malformed)?;
    let epoch = body.try_get_i16().map_err(|_| Malformed)?;
    let commit = body.try_get_i8().map_err(|_| Malformed)? != 0;
    let count = get_count(body)?;
    let topics = (0..count).map(|_| WritableTxnMarkerTopic::decode(body, KNOWN)).collect::<anyhow::Result<_>>()?;
    let coordinator_epoch = body.try_get_i32().map_err(|_| Malformed)?;
    let version = body.try_get_i8().map_err(|_| Malformed)?;
    skip_tags(body)?;
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer.into())
        .with_producer_epoch(epoch)
        .with_transaction_result(commit)
        .with_topics(topics)
        .with_coordinator_epoch(coordinator_epoch);
    Ok((marker, version))
}

/// The answer of version 2 is that of version 1.
pub(crate) fn encode(out: &mut BytesMut, version: i16, response: &WriteTxnMarkersResponse) -> anyhow::Result<()> {
    response.encode(out, version.min(KNOWN))
}

/// Version 2 of a request with one marker.
pub(crate) fn encode_request(out: &mut BytesMut, marker: &WritableTxnMarker, version: i8) -> anyhow::Result<()> {
    put_count(out, 1);
    let mut known = BytesMut::new();
    marker.encode(&mut known, KNOWN)?;
    // In front of its tagged fields, which are none.
    known.truncate(known.len() - 1);
    out.extend_from_slice(&known);
    out.put_i8(version);
    put_no_tags(out);
    put_no_tags(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::wire::shapes::WRITE_TXN_MARKERS;

    #[test]
    fn version_2_is_version_1_with_a_byte_for_each_marker() {
        let topic = WritableTxnMarkerTopic::default()
            .with_name(StrBytes::from_static_str("t").into())
            .with_partition_indexes(vec![3]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(7.into())
            .with_producer_epoch(2)
            .with_transaction_result(true)
            .with_topics(vec![topic])
            .with_coordinator_epoch(5);
        let one = WriteTxnMarkersRequest::default().with_markers(vec![marker.clone()]);
        let mut bytes = Vec::new();
        one.encode(&mut bytes, 1).unwrap();
        assert_eq!(decode(1, bytes.clone().into()).unwrap(), Request { markers: vec![(marker.clone(), 0)] });
        // In front of the marker's tagged fields and the request's, which are none: a zero each.
        bytes.insert(bytes.len() - 2, 2);
        assert_eq!(WRITE_TXN_MARKERS.check(2, &bytes), Ok(0));
        let mut written = BytesMut::new();
        encode_request(&mut written, &marker, 2).unwrap();
        assert_eq!(written, bytes);
        assert_eq!(decode(2, bytes.into()).unwrap(), Request { markers: vec![(marker, 2)] });
    }
}
