//! A node in this process and a client that speaks to it through a real socket.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use varve_metadata::{
    cluster::ClusterMetadata,
    image::{BrokerImage, Endpoint},
    model::BrokerId,
    store::MemoryStore,
};

use super::{Broker, Limits, ListenerName, Server};
use crate::partition::Partitions;

/// A broker that listens on a free port, with metadata in memory.
pub(crate) struct TestNode {
    pub(crate) broker: Arc<Broker>,
    pub(crate) address: SocketAddr,
    _server: Server,
}

impl TestNode {
    pub(crate) async fn start() -> TestNode {
        TestNode::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> TestNode {
        let node = BrokerId(1);
        let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), node, BTreeMap::new()).await.unwrap();
        let broker = Arc::new(Broker::new(node, metadata, Arc::new(Partitions::default())));
        let server = Server::new(broker.clone(), limits);
        let address = server.listen(ListenerName("PLAINTEXT".into()), ([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
        let registration = BrokerImage {
            id: node,
            incarnation: uuid::Uuid::nil(),
            endpoints: BTreeMap::from([("PLAINTEXT".to_owned(), endpoint)]),
            rack: None,
            fenced: false,
        };
        broker.metadata.register(registration).await.unwrap();
        TestNode { broker, address, _server: server }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), next: 0 }
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.broker.shutdown.cancel();
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    next: i32,
}

impl Client {
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) {
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

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn receive<R: Decodable>(&mut self, key: ApiKey, version: i16) -> (i32, R) {
        let mut frame = self.receive_raw().await.expect("an answer");
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version)).unwrap();
        let body = R::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "bytes left behind the response");
        (header.correlation_id, body)
    }

    /// One frame without its length; `None` when the broker closed the connection.
    pub(crate) async fn receive_raw(&mut self) -> Option<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; length.as_slice().get_i32() as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        let (correlation_id, response) = self.receive(ApiKey::try_from(R::KEY).unwrap(), version).await;
        assert_eq!(correlation_id, self.next);
        response
    }
}
