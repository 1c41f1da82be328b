//! Requests through real sockets.

use std::net::{IpAddr, Ipv4Addr};

use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse},
    protocol::StrBytes,
};

use super::{
    Limits,
    testing::{Client, TestNode},
};

fn named() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1.0"))
}

#[tokio::test]
async fn api_versions_is_answered_in_every_version() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    for version in 0..=4 {
        let request = if version < 3 { ApiVersionsRequest::default() } else { named() };
        let response = client.ask(version, &request).await;
        assert_eq!(response.error_code, 0);
        let produce = response.api_keys.iter().find(|api| api.api_key == 0).unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    client.send_raw(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0]).await;
    let (correlation_id, response): (i32, ApiVersionsResponse) = client.receive(ApiKey::ApiVersions, 0).await;
    assert_eq!((correlation_id, response.error_code), (7, 35));
    let [only] = response.api_keys.as_slice() else { panic!("{response:?}") };
    assert_eq!((only.api_key, only.min_version, only.max_version), (18, 0, 4));
}

#[tokio::test]
async fn a_nameless_client_is_refused_as_kip_511_says() {
    let node = TestNode::start().await;
    let response = node.connect().await.ask(3, &ApiVersionsRequest::default()).await;
    assert_eq!(response.error_code, 42);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    for _ in 0..50 {
        client.send(4, &named()).await;
    }
    for expected in 1..=50 {
        let (correlation_id, _): (i32, ApiVersionsResponse) = client.receive(ApiKey::ApiVersions, 4).await;
        assert_eq!(correlation_id, expected);
    }
}

#[tokio::test]
async fn what_is_not_served_closes_the_connection() {
    let node = TestNode::start_with(Limits { frame_bytes: 1000, ..Limits::default() }).await;
    let too_long = [0, 0, 4, 0];
    let negative = [0xff, 0xff, 0xff, 0xff];
    let unknown_key = [0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let produce_version_2 = [0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff];
    let a_billion_elements = [0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0];
    for bytes in [&too_long[..], &negative, &unknown_key, &produce_version_2, &a_billion_elements] {
        let mut client = node.connect().await;
        client.send_raw(bytes).await;
        assert_eq!(client.receive_raw().await, None, "{bytes:?}");
    }
}

#[tokio::test]
async fn limits_by_ipv4_address_hold_on_a_listener_for_both_versions_of_ip() {
    let own = [(IpAddr::V4(Ipv4Addr::LOCALHOST), 1)].into();
    let node = TestNode::start_with(Limits { connections_per_ip_overrides: own, ..Limits::default() }).await;
    // As a listener on all addresses sees IPv4, but on loopback alone.
    let port = node.listen_at("[::ffff:127.0.0.1]:0".parse().unwrap()).port();
    let address = format!("127.0.0.1:{port}");
    let mut first = Client::to(&address).await;
    assert_eq!(first.ask(4, &named()).await.error_code, 0);
    assert_eq!(Client::to(&address).await.receive_raw().await, None, "two from one address");
    assert_eq!(first.ask(4, &named()).await.error_code, 0);
}
