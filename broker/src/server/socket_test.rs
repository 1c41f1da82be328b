//! Requests through real sockets.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Broker, Limits, ListenerName, Server};

pub(super) struct Client {
    stream: TcpStream,
    next: i32,
}

pub(super) fn serve(broker: Broker, limits: Limits) -> (Server, SocketAddr) {
    let server = Server::new(Arc::new(broker), limits);
    let address = server.listen(ListenerName("PLAINTEXT".into()), ([127, 0, 0, 1], 0).into()).unwrap();
    (server, address)
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Client {
        Client { stream: TcpStream::connect(address).await.unwrap(), next: 0 }
    }

    pub(super) async fn send<R: Request>(&mut self, version: i16, request: &R) {
        let key = ApiKey::try_from(R::KEY).unwrap();
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, key.request_header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        self.send_raw(&(frame.len() as i32).to_be_bytes()).await;
        self.send_raw(&frame).await;
    }

    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn receive<R: Decodable>(&mut self, key: ApiKey, version: i16) -> (i32, R) {
        let mut frame = self.receive_raw().await.expect("an answer");
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version)).unwrap();
        let body = R::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "bytes left behind the response");
        (header.correlation_id, body)
    }

    /// One frame without its length; `None` when the broker closed the connection.
    pub(super) async fn receive_raw(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; length.as_slice().get_i32() as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    pub(super) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        let (correlation_id, response) = self.receive(ApiKey::try_from(R::KEY).unwrap(), version).await;
        assert_eq!(correlation_id, self.next);
        response
    }
}

fn named() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1.0"))
}

#[tokio::test]
async fn api_versions_is_answered_in_every_version() {
    let (_server, address) = serve(Broker::default(), Limits::default());
    let mut client = Client::connect(address).await;
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
    let (_server, address) = serve(Broker::default(), Limits::default());
    let mut client = Client::connect(address).await;
    client.send_raw(&[0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0]).await;
    let (correlation_id, response): (i32, ApiVersionsResponse) = client.receive(ApiKey::ApiVersions, 0).await;
    assert_eq!((correlation_id, response.error_code), (7, 35));
    let [only] = response.api_keys.as_slice() else { panic!("{response:?}") };
    assert_eq!((only.api_key, only.min_version, only.max_version), (18, 0, 4));
}

#[tokio::test]
async fn a_nameless_client_is_refused_as_kip_511_says() {
    let (_server, address) = serve(Broker::default(), Limits::default());
    let response = Client::connect(address).await.ask(3, &ApiVersionsRequest::default()).await;
    assert_eq!(response.error_code, 42);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let (_server, address) = serve(Broker::default(), Limits::default());
    let mut client = Client::connect(address).await;
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
    let (_server, address) = serve(Broker::default(), Limits { frame_bytes: 1000, ..Limits::default() });
    let too_long = [0, 0, 4, 0];
    let negative = [0xff, 0xff, 0xff, 0xff];
    let unknown_key = [0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let produce_version_2 = [0, 0, 0, 10, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff];
    let a_billion_elements = [0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0];
    for bytes in [&too_long[..], &negative, &unknown_key, &produce_version_2, &a_billion_elements] {
        let mut client = Client::connect(address).await;
        client.send_raw(bytes).await;
        assert_eq!(client.receive_raw().await, None, "{bytes:?}");
    }
}
