//! DescribeLogDirs 5: version 4 and, for each directory, whether it is cordoned (KIP-1066), which handlers say by a tagged field
//! that is not written.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, describe_log_dirs_response::DescribeLogDirsResult},
    protocol::{Decodable, Encodable},
};

use super::compact::{put_count, put_no_tags};

/// The tagged field of a cordoned directory, between handler and writer.
const CORDONED: i32 = i32::MAX;

/// `result`, of a cordoned directory.
pub(crate) fn cordoned(mut result: DescribeLogDirsResult) -> DescribeLogDirsResult {
    result.unknown_tagged_fields.insert(CORDONED, Bytes::new());
    result
}

/// The newest version that `kafka-protocol` knows.
const KNOWN: i16 = 4;

pub(crate) fn decode(version: i16, mut body: Bytes) -> anyhow::Result<DescribeLogDirsRequest> {
    DescribeLogDirsRequest::decode(&mut body, version.min(KNOWN))
}

pub(crate) fn encode(out: &mut BytesMut, version: i16, response: &DescribeLogDirsResponse) -> anyhow::Result<()> {
    if version <= KNOWN {
        let mut response = response.clone();
        for result in &mut response.results {
            result.unknown_tagged_fields.remove(&CORDONED);
        }
        return response.encode(out, version);
    }
    out.put_i32(response.throttle_time_ms);
    out.put_i16(response.error_code);
    put_count(out, response.results.len());
    response.results.iter().try_for_each(|result| encode_result(out, result))?;
    put_no_tags(out);
    Ok(())
}

fn encode_result(out: &mut BytesMut, result: &DescribeLogDirsResult) -> anyhow::Result<()> {
    let mut result = result.clone();
    let is_cordoned = result.unknown_tagged_fields.remove(&CORDONED).is_some();
    result.encode(out, KNOWN)?;
    // The new field comes before the tagged fields, which are none: one zero at the end.
    anyhow::ensure!(out.last() == Some(&0) && result.unknown_tagged_fields.is_empty(), "tagged fields are not written");
    out.truncate(out.len() - 1);
    out.put_u8(is_cordoned.into());
    put_no_tags(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::describe_log_dirs_response::DescribeLogDirsTopic, protocol::StrBytes};

    use super::*;

    #[test]
    fn version_5_is_version_4_with_a_byte_for_each_directory() {
        let topic = DescribeLogDirsTopic::default().with_name(StrBytes::from_static_str("t").into());
        let dir = |path: StrBytes| DescribeLogDirsResult::default().with_log_dir(path).with_topics(vec![topic.clone()]);
        let paths = [StrBytes::from_static_str("/a"), StrBytes::from_static_str("/b")];
        let response = DescribeLogDirsResponse::default().with_results(paths.clone().map(dir).to_vec());
        let (mut four, mut five) = (BytesMut::new(), BytesMut::new());
        encode(&mut four, 4, &response).unwrap();
        encode(&mut five, 5, &response).unwrap();
        assert_eq!(five.len(), four.len() + 2);
        // Both directories are equally long: the byte sits before the zero that ends each.
        let one = (four.len() - 4 - 2 - 1 - 1) / 2;
        let first_end = 4 + 2 + 1 + one;
        assert_eq!(five[..first_end - 1], four[..first_end - 1]);
        assert_eq!(five[first_end - 1..first_end + 1], [0, 0]);
        assert_eq!(five[first_end + 1..five.len() - 2], four[first_end..four.len() - 1]);
        let response = response.with_results(paths.map(|path| cordoned(dir(path))).to_vec());
        let (mut told, mut untold) = (BytesMut::new(), BytesMut::new());
        encode(&mut told, 5, &response).unwrap();
        encode(&mut untold, 4, &response).unwrap();
        assert_eq!(untold, four);
        assert_eq!(told[first_end - 1..first_end + 1], [1, 0]);
    }
}
