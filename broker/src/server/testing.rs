//! A node in this process and a client that speaks to it through a real socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use varve_log::local::LogDirOwner;
use varve_metadata::{
    cluster::ClusterMetadata,
    controller::{CreationDefaults, NewTopic, Placement},
    image::BrokerImage,
    model::{BrokerId, TopicId},
    store::MemoryStore,
};

use super::{Broker, Limits, ListenerName, LogLevels, Server, open_listeners};
use crate::{
    config::{BrokerConfig, Listener, Sources},
    metrics::Metrics,
    partition::{NoKeeper, Partitions, Storage, StorageSettings},
    security::{ListenerSecurity, SecurityProtocol},
};

/// A broker that listens on a free port, with metadata in memory and logs in a directory that goes with it.
pub(crate) struct TestNode {
    pub(crate) broker: Arc<Broker>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    server: Server,
    _dir: tempfile::TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> TestNode {
        TestNode::start_with(Limits::default()).await
    }

    pub(crate) async fn start_with(limits: Limits) -> TestNode {
        TestNode::start_configured(limits, &[]).await
    }

    /// With settings, as `name=value`.
    pub(crate) async fn start_configured(limits: Limits, settings: &[&str]) -> TestNode {
        let node = BrokerId(1);
        let dir = tempfile::tempdir().unwrap();
        let own = [
            "node.id=1".to_owned(),
            format!("log.dirs={}", dir.path().join("logs").display()),
            "listeners=PLAINTEXT://127.0.0.1:0".to_owned(),
        ];
        let overrides = own.into_iter().chain(settings.iter().map(|setting| (*setting).to_owned())).collect();
        let config = BrokerConfig::load(&Sources { overrides, ..Sources::default() }).unwrap().config;
        let metadata =
            ClusterMetadata::start(Arc::new(MemoryStore::new()), node, config.settings.texts()).await.unwrap();
        let settings = StorageSettings {
            dirs: config.logs.dirs.clone(),
            recovery_threads: 2,
            producer_expiry: Duration::from_secs(86_400),
            max_transaction_timeout: Duration::from_secs(900),
            verify_transactions: config.transactions.verify_partitions,
        };
        let partitions = Arc::new(Partitions::default());
        let texts = config.settings.texts();
        let open = |one: &Listener| (one.clone(), ListenerSecurity::open(&one.name, one.protocol, &texts).unwrap());
        let listeners = config.listeners.listeners.iter().map(open).collect();
        let broker = Broker::new(Arc::new(config), metadata, partitions, LogLevels::default());
        let broker = Arc::new(broker.with_listeners(listeners));
        let owner = LogDirOwner { cluster_id: broker.metadata.image().cluster_id().to_owned(), node };
        let storage = Storage::open(&owner, broker.partitions.clone(), settings, Arc::new(NoKeeper)).unwrap();
        tokio::spawn(storage.follow(broker.metadata.clone(), broker.shutdown.clone()));
        tokio::spawn(broker.groups.clone().follow(broker.clone()));
        tokio::spawn(broker.transactions.clone().follow(broker.clone()));
        tokio::spawn(broker.share_states.clone().follow(broker.clone()));
        tokio::spawn(broker.shares.clone().follow(broker.clone()));
        let metrics = Metrics::new();
        broker.quotas.register(&metrics);
        broker.telemetry.register(&metrics);
        metrics.watch_storage(broker.partitions.clone(), broker.config.logs.dirs.clone());
        let server = Server::measured(broker.clone(), limits, &metrics);
        let bound = open_listeners::bind_all(&broker).await.unwrap();
        let endpoints = open_listeners::endpoints_of(&bound, &broker);
        let first = bound.iter().find(|one| one.listener.name == "PLAINTEXT").unwrap();
        let address = first.socket.local_addr().unwrap();
        let registration = BrokerImage {
            id: node,
            incarnation: uuid::Uuid::nil(),
            endpoints,
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        broker.metadata.register(registration).await.unwrap();
        broker.listeners.open(bound);
        TestNode { broker, address, metrics, server, _dir: dir }
    }

    /// Makes a topic and waits until its partitions are open.
    pub(crate) async fn create_topic(&self, name: &str, partitions: u32, overrides: &[(&str, &str)]) -> TopicId {
        let topic = NewTopic {
            name: name.to_owned(),
            placement: Ok(Placement::Spread { partitions: Some(partitions), replication_factor: None }),
            overrides: overrides.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect(),
        };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let mut made = self.broker.metadata.create_topics(&[topic], defaults, false, None).await.unwrap();
        self.broker.partitions.caught_up(self.broker.metadata.image().revision()).await;
        made.remove(0).unwrap().id
    }

    /// A second listener, called like its protocol, with settings as `name=value`.
    pub(crate) fn listen(
        &self,
        protocol: SecurityProtocol,
        settings: &[String],
    ) -> (SocketAddr, Arc<ListenerSecurity>) {
        let pair =
            |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        let texts = settings.iter().map(pair).collect();
        let security = ListenerSecurity::open(protocol.name(), protocol, &texts).unwrap();
        let socket = self.server.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        self.server.accept(ListenerName(protocol.name().into()), security.clone(), socket);
        (address, security)
    }

    /// A second listener without protection, at `address`.
    pub(crate) fn listen_at(&self, address: SocketAddr) -> SocketAddr {
        self.server.listen(ListenerName("PLAINTEXT".into()), address).unwrap()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap())
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.broker.shutdown.cancel();
    }
}

/// What a client speaks through.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    next: i32,
}

impl Client {
    pub(crate) async fn to(address: &str) -> Client {
        Client::over(TcpStream::connect(address).await.unwrap())
    }

    /// A client that speaks through `stream`.
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
        Client { stream: Box::new(stream), next: 0 }
    }

    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.send_as(version, version, request).await;
    }

    /// Asks in `version`, written and read as `codec`: for versions that `kafka-protocol` does not know.
    async fn send_as<R: Request>(&mut self, version: i16, codec: i16, request: &R) {
        let key = ApiKey::try_from(R::KEY).unwrap();
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut frame = BytesMut::new();
        header.encode(&mut frame, key.request_header_version(codec)).unwrap();
        request.encode(&mut frame, codec).unwrap();
        let length = (frame.len() as i32).to_be_bytes();
        self.send_raw(&[length.as_slice(), &frame].concat()).await;
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
        self.ask_as(version, version, request).await
    }

    pub(crate) async fn ask_as<R: Request>(&mut self, version: i16, codec: i16, request: &R) -> R::Response {
        self.send_as(version, codec, request).await;
        let (correlation_id, response) = self.receive(ApiKey::try_from(R::KEY).unwrap(), codec).await;
        assert_eq!(correlation_id, self.next);
        response
    }
}
