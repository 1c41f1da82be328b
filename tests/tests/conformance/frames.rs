//! ApiVersions, and frames that are none.

use anyhow::{Context, Result};
use kafka_protocol::{
    messages::{ApiVersionsRequest, MetadataRequest},
    protocol::Request,
};
use varve_tests::differential::{Answer, Pair, frame, raw_frame};

use super::request::text;

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    advertised(pair)?;
    for (name, software, version) in [
        ("api-versions-no-name", "", "1"),
        ("api-versions-no-version", "a", ""),
        ("api-versions-bad-name", "-a", "1.0"),
        ("api-versions-blank", "a b", "1.0"),
        ("api-versions-bad-version", "a", "1.0-"),
    ] {
        pair.ask(name, &[3, 4], |_, _| {
            ApiVersionsRequest::default()
                .with_client_software_name(text(software))
                .with_client_software_version(text(version))
        })?;
    }
    malformed(pair)
}

/// What both serve must be offered in the same versions.
fn advertised(pair: &mut Pair) -> Result<()> {
    for version in [0, 1, 2, 3, 4, 5, 99, i16::MAX, -1] {
        let request = || {
            let named = version >= 3;
            ApiVersionsRequest::default()
                .with_client_software_name(text(if named { "conformance" } else { "" }))
                .with_client_software_version(text(if named { "1.0" } else { "" }))
        };
        if !(0..=4).contains(&version) {
            pair.ask_bytes(&format!("api-versions-unknown v{version}"), |_| {
                let body = &frame(4, &request())?[4 + 8 + 2 + 11 + 1..];
                raw_frame(ApiVersionsRequest::KEY, version, body)
            })?;
            continue;
        }
        let before = pair.differences.len();
        let [kafka, varve] = pair.ask("api-versions", &[version], |_, _| request())?;
        pair.differences.truncate(before);
        let keys = |answer: &serde_json::Value| {
            let keys = answer["api_keys"].as_array().cloned().context("keys");
            let mut answer = answer.clone();
            answer["api_keys"] = serde_json::Value::Null;
            keys.map(|keys| (keys, answer))
        };
        let ((kafkas, kafka), (varves, varve)) = (keys(&kafka)?, keys(&varve)?);
        pair.compare("api-versions", Some(version), Answer::Tree(kafka), Answer::Tree(varve));
        for key in varves {
            let same = kafkas.iter().find(|kafkas| kafkas["api_key"] == key["api_key"]).cloned();
            let name = format!("api-versions-of-{}", key["api_key"]);
            pair.compare(&name, Some(version), Answer::Tree(same.unwrap_or_default()), Answer::Tree(key));
        }
    }
    Ok(())
}

fn malformed(pair: &mut Pair) -> Result<()> {
    let metadata = frame(12, &MetadataRequest::default())?;
    let body = metadata[4 + 8 + 2 + 11 + 1..].to_vec();
    for (name, key, version) in [
        ("unknown-key", 999, 0),
        ("unknown-key-low", 93, 0),
        ("negative-key", -1, 0),
        ("controllers-key", 52, 0),
        ("brokers-key", 4, 0),
        ("unknown-version", 3, 14),
        ("far-version", 3, i16::MAX),
        ("negative-version", 3, -1),
        ("old-version", 1, 3),
        ("old-produce", 0, 2),
        ("oldest-produce", 0, 0),
    ] {
        pair.ask_bytes(name, |_| raw_frame(key, version, &body))?;
    }
    let length = |length: i32, rest: &[u8]| [&length.to_be_bytes(), rest].concat();
    let whole = &metadata[4..];
    let nullable_client = |client: i16| {
        let mut frame = metadata.clone();
        frame[12..14].copy_from_slice(&client.to_be_bytes());
        frame
    };
    let no_array = |count: &[u8]| raw_frame(3, 0, count);
    for (name, bytes) in [
        ("length-negative", length(-1, &[])),
        ("length-least", length(i32::MIN, &[])),
        ("length-huge", length(i32::MAX, &[])),
        ("length-above-limit", length(104_857_601, &[])),
        ("length-zero", length(0, &[])),
        ("length-one", length(1, &[0])),
        ("header-cut", length(7, &whole[..7])),
        ("header-without-client", length(8, &whole[..8])),
        ("client-beyond-end", nullable_client(i16::MAX)),
        ("client-negative", nullable_client(-2)),
        ("body-cut", length(whole.len() as i32 - 1, &whole[..whole.len() - 1])),
        ("body-none", raw_frame(3, 12, &[])?),
        // DescribeConfigs of nothing, and three bytes more.
        ("body-longer", raw_frame(32, 1, &[0, 0, 0, 0, 0, 1, 2, 3])?),
        ("array-negative", no_array(&(-2i32).to_be_bytes())?),
        ("array-null", no_array(&(-1i32).to_be_bytes())?),
        ("array-huge", no_array(&i32::MAX.to_be_bytes())?),
        ("array-null-not-nullable", raw_frame(1, 4, &[&[0; 17][..], &(-1i32).to_be_bytes()].concat())?),
        ("text-null-not-nullable", raw_frame(12, 0, &(-1i16).to_be_bytes())?),
        ("text-no-utf8", raw_frame(3, 1, &[0, 0, 0, 1, 0, 2, 0xff, 0xfe])?),
        ("varint-too-long", raw_frame(3, 12, &[0xff; 12])?),
        ("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ] {
        pair.ask_bytes(name, |_| Ok(bytes.clone()))?;
        // A connection that survived may hold a rest that the next request would be mixed with.
        pair.hang_up();
    }
    Ok(())
}
