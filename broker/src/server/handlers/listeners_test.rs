//! Listeners that come, move and go while the node runs, through sockets.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use kafka_protocol::{
    error::ResponseError,
    messages::{ApiVersionsRequest, DescribeClusterRequest, MetadataRequest},
};
use rustls::version::TLS13;
use tokio::net::TcpStream;
use uuid::Uuid;
use varve_metadata::{
    controller::{AlterError, AlterRequest, AlterResource, Alteration, ConfigOp},
    image::{BrokerImage, ConfigResource},
};

use super::configs_test::{BROKER, alter};
use crate::{
    config::{BrokerConfig, Sources},
    security::{
        ListenerSecurity,
        testing::{Authority, connect},
    },
    server::{
        Broker, Limits, LogLevels,
        broker_rules::Rules,
        live, open_listeners,
        testing::{Client, TestNode},
    },
};

/// A setting, what is done to it, and its value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

const SET: i8 = 0;
const DELETE: i8 = 1;
const LISTENERS: &str = "listeners";
const MAP: &str = "listener.security.protocol.map";
const BOTH: &str = "PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:0";
const PROTOCOLS: &str = "PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT,MORE:PLAINTEXT,SAFE:SSL";
/// Only this one cannot go.
const ADVERTISED: &str = "advertised.listeners=PLAINTEXT://127.0.0.1:0";

async fn node() -> (TestNode, Client) {
    let protocols = format!("{MAP}={PROTOCOLS}");
    let node = TestNode::start_configured(Limits::default(), &[ADVERTISED, &protocols]).await;
    let client = node.connect().await;
    (node, client)
}

/// The listeners that clients and brokers are told of, with their ports.
fn told(node: &TestNode) -> Vec<(String, u16)> {
    let image = node.broker.metadata.image();
    let endpoints = &image.brokers()[&node.broker.node].endpoints;
    endpoints.iter().map(|(name, endpoint)| (name.clone(), endpoint.port)).collect()
}

fn port_of(node: &TestNode, name: &str) -> u16 {
    told(node).into_iter().find(|(told, _)| told == name).map(|(_, port)| port).unwrap()
}

async fn set(client: &mut Client, listeners: &str) -> (i16, String) {
    alter(client, BROKER, "1", &[(LISTENERS, SET, Some(listeners))]).await
}

#[tokio::test]
async fn a_listener_that_is_added_serves_and_is_told_of_and_ends_with_its_connections_when_it_is_taken_away() {
    let (node, mut client) = node().await;
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    let port = port_of(&node, "EXTRA");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut of_extra = Client::to(&address.to_string()).await;
    let brokers = of_extra.ask(9, &MetadataRequest::default()).await.brokers;
    assert_eq!(
        brokers.iter().map(|broker| (broker.host.as_str(), broker.port)).collect::<Vec<_>>(),
        [("127.0.0.1", i32::from(port))]
    );
    let brokers = of_extra.ask(0, &DescribeClusterRequest::default()).await.brokers;
    assert_eq!(brokers[0].port, i32::from(port));
    assert_eq!(client.ask(9, &MetadataRequest::default()).await.brokers[0].port, i32::from(node.address.port()));

    // The same again leaves it alone.
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    assert_eq!(port_of(&node, "EXTRA"), port);
    of_extra.ask(0, &ApiVersionsRequest::default()).await;

    assert_eq!(alter(&mut client, BROKER, "1", &[(LISTENERS, DELETE, None)]).await, (0, String::new()));
    assert_eq!(told(&node), [("PLAINTEXT".to_owned(), node.address.port())]);
    assert_eq!(of_extra.receive_raw().await, None, "it is closed");
    client.ask(0, &ApiVersionsRequest::default()).await;
    closed(address).await;
}

/// Waits until nobody listens there.
async fn closed(address: SocketAddr) {
    for _ in 0..10_000 {
        if TcpStream::connect(address).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{address} still takes connections");
}

#[tokio::test]
async fn whoever_takes_his_own_listener_away_gets_the_answer_before_the_end() {
    let (node, mut client) = node().await;
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    let mut of_extra = Client::to(&format!("127.0.0.1:{}", port_of(&node, "EXTRA"))).await;
    assert_eq!(set(&mut of_extra, "PLAINTEXT://127.0.0.1:0").await, (0, String::new()));
    assert_eq!(of_extra.receive_raw().await, None);
}

#[tokio::test]
async fn a_listener_that_moves_keeps_its_connections_and_is_told_of_where_it_is() {
    let (node, mut client) = node().await;
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    let before = port_of(&node, "EXTRA");
    let mut of_extra = Client::to(&format!("127.0.0.1:{before}")).await;
    of_extra.ask(0, &ApiVersionsRequest::default()).await;
    // A free one: nobody else asks for it by number.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(
        set(&mut client, &format!("PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:{free}")).await,
        (0, String::new())
    );
    assert_eq!(port_of(&node, "EXTRA"), free);
    closed(SocketAddr::from(([127, 0, 0, 1], before))).await;
    of_extra.ask(0, &ApiVersionsRequest::default()).await;
    Client::to(&format!("127.0.0.1:{free}")).await.ask(0, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn what_listeners_cannot_become_is_refused_and_leaves_all_as_it_was() {
    let (node, mut client) = node().await;
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = format!("{BOTH},MORE://{}", taken.local_addr().unwrap());
    let before = told(&node);
    let cases: [(&str, &[Change<'_>], &str); 11] = [
        ("1", &[(LISTENERS, SET, Some("EXTRA://127.0.0.1:0"))], "PLAINTEXT"),
        ("1", &[(LISTENERS, SET, Some(&in_use))], "Address already in use"),
        // Of the addresses that are for books (RFC 5737).
        (
            "1",
            &[(LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,MORE://192.0.2.1:0"))],
            "cannot listen on MORE://192.0.2.1:0",
        ),
        ("1", &[(LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,OTHER://127.0.0.1:0"))], "OTHER has none"),
        ("1", &[(LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,EXTRA"))], "EXTRA is not one"),
        ("1", &[(LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,PLAINTEXT://127.0.0.1:1"))], "is there twice"),
        ("1", &[(LISTENERS, SET, Some(""))], "at least one listener"),
        ("1", &[(MAP, SET, Some("PLAINTEXT:PLAINTEXT,EXTRA:SSL"))], ""),
        (
            "1",
            &[
                (MAP, SET, Some("PLAINTEXT:PLAINTEXT,EXTRA:SASL_PLAINTEXT")),
                ("sasl.enabled.mechanisms", SET, Some("SCRAM-SHA-256")),
            ],
            "Security protocol cannot be updated for existing listener EXTRA",
        ),
        ("1", &[(LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,SAFE://127.0.0.1:0"))], "ssl.keystore.location"),
        ("", &[(LISTENERS, SET, Some(BOTH))], "Cannot update these configs at default cluster level"),
    ];
    for (resource, changes, why) in cases {
        let (code, text) = alter(&mut client, BROKER, resource, changes).await;
        assert_eq!(code, ResponseError::InvalidRequest.code(), "{changes:?}: {text}");
        assert!(text.contains(why), "{changes:?}: {text}");
        assert_eq!(told(&node), before);
        let image = node.broker.metadata.image();
        let stored = image.configs().of_broker(node.broker.node, &Default::default());
        assert_eq!(stored.get(LISTENERS).map(String::as_str), Some(BOTH), "{changes:?}");
        assert_eq!(stored.len(), 1, "{changes:?}");
    }
    for (_, port) in before {
        Client::to(&format!("127.0.0.1:{port}")).await.ask(0, &ApiVersionsRequest::default()).await;
    }
}

#[tokio::test]
async fn without_advertised_listeners_every_listener_is_advertised_and_stays() {
    let protocols = format!("{MAP}={PROTOCOLS}");
    let node = TestNode::start_configured(Limits::default(), &[&protocols]).await;
    let mut client = node.connect().await;
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    let (code, text) = set(&mut client, "PLAINTEXT://127.0.0.1:0").await;
    assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
    assert!(text.starts_with("Advertised listeners must be a subset of listeners"), "{text}");
    assert_eq!(told(&node).len(), 2);
}

#[tokio::test]
async fn a_listener_comes_with_its_protocol_and_its_keys_in_one_change() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let key_store = folder.path().join("broker.pem");
    authority.server().write(&key_store);
    let key_store = key_store.display().to_string();
    let (node, mut client) = node().await;
    let changes = [
        (LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,SAFE://127.0.0.1:0,USERS://127.0.0.1:0")),
        (MAP, SET, Some("PLAINTEXT:PLAINTEXT,SAFE:SSL,USERS:SASL_SSL")),
        ("listener.name.safe.ssl.keystore.type", SET, Some("PEM")),
        ("listener.name.safe.ssl.keystore.location", SET, Some(key_store.as_str())),
        ("listener.name.users.ssl.keystore.type", SET, Some("PEM")),
        ("listener.name.users.ssl.keystore.location", SET, Some(key_store.as_str())),
        ("listener.name.users.sasl.enabled.mechanisms", SET, Some("SCRAM-SHA-256")),
    ];
    assert_eq!(alter(&mut client, BROKER, "1", &changes).await, (0, String::new()));
    let address = SocketAddr::from(([127, 0, 0, 1], port_of(&node, "SAFE")));
    let stream = connect(address, &authority, None, &TLS13).await.unwrap();
    Client::over(stream).ask(0, &ApiVersionsRequest::default()).await;
    assert_eq!(told(&node).len(), 3);
    assert!(
        node.broker
            .listeners
            .known()
            .iter()
            .any(|(listener, security)| listener.name == "USERS" && security.sasl.is_some())
    );

    // And goes with them.
    let gone = changes.map(|(name, ..)| (name, DELETE, None));
    assert_eq!(alter(&mut client, BROKER, "1", &gone).await, (0, String::new()));
    assert_eq!(told(&node), [("PLAINTEXT".to_owned(), node.address.port())]);
}

#[tokio::test]
async fn what_others_could_not_be_told_they_are_told_later() {
    let (node, mut client) = node().await;
    let broker = &node.broker;
    let ours = broker.metadata.image().brokers()[&broker.node].clone();
    // Another process has the place of this one for a while.
    let other = BrokerImage { incarnation: Uuid::from_u128(7), ..ours.clone() };
    broker.metadata.register(other).await.unwrap();
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    assert!(!broker.listeners.settle(broker).await);
    assert_eq!(told(&node).len(), 1);
    broker.metadata.register(ours).await.unwrap();
    assert!(broker.listeners.settle(broker).await);
    assert_eq!(told(&node).len(), 2);
}

/// A change of the node's own settings as it is stored, and no more than stored.
async fn store(broker: &Broker, changes: &[(&str, Option<&str>)], validate_only: bool) -> Result<(), AlterError> {
    let op = |value: Option<&str>| value.map_or(ConfigOp::Delete, |value| ConfigOp::Set(value.to_owned()));
    let changes = changes.iter().map(|(name, value)| ((*name).to_owned(), op(*value))).collect();
    let resource = AlterResource::Other(ConfigResource::Broker(broker.node));
    let request = AlterRequest { resource, alteration: Alteration::Incremental(changes) };
    let image = broker.metadata.image();
    let rules = Rules::of(broker, &image);
    broker.metadata.alter_configs(&[request], &rules, validate_only).await.unwrap().remove(0)
}

fn users(name: &str) -> String {
    format!("x.PlainLoginModule required user_{name}=\"secret\";")
}

fn knows(security: &ListenerSecurity, user: &str) -> bool {
    security.sasl.as_ref().is_some_and(|sasl| sasl.state().users.plain.contains_key(user))
}

#[tokio::test]
async fn listeners_that_no_longer_fit_the_file_leave_all_other_settings_in_force() {
    const LOGIN: &str = "listener.name.sasl_plaintext.plain.sasl.jaas.config";
    let file = |listeners: &str, advertised: &str| {
        [
            "node.id=1".to_owned(),
            format!("listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0{listeners}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:0{advertised}"),
            format!("{MAP}=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,NEW:PLAINTEXT"),
            "sasl.enabled.mechanisms=PLAIN".to_owned(),
            format!("{LOGIN}={}", users("alice")),
        ]
    };
    let node = TestNode::start_configured(Limits::default(), &file("", "").each_ref().map(String::as_str)).await;
    let mut client = node.connect().await;
    let users_now = users("bob");
    let changes = [
        (LISTENERS, SET, Some("PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0,EXTRA://127.0.0.1:0")),
        (MAP, SET, Some("PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,EXTRA:PLAINTEXT")),
        (LOGIN, SET, Some(users_now.as_str())),
        ("max.connections", SET, Some("77")),
    ];
    assert_eq!(alter(&mut client, BROKER, "1", &changes).await, (0, String::new()));

    // The file gets a listener that the changed ones lack, and clients are to be told of it.
    let overrides = file(",NEW://127.0.0.1:0", ",NEW://127.0.0.1:0").to_vec();
    let file = BrokerConfig::load(&Sources { overrides, ..Sources::default() }).unwrap().config;
    let image = node.broker.metadata.image();
    let now = live::effective(&file, &image).unwrap();
    assert_eq!(now.listeners, file.listeners);
    assert_eq!(now.network.max_connections, Some(77));
    // Whoever was locked out stays so, also if nothing else could be taken up.
    for now in [&now, &file] {
        let protected = open_listeners::protect_all(&file, now, &image).unwrap();
        let names: Vec<&str> = protected.iter().map(|(listener, _)| listener.name.as_str()).collect();
        assert_eq!(names, ["PLAINTEXT", "SASL_PLAINTEXT", "NEW"]);
        assert!(knows(&protected[1].1, "bob") && !knows(&protected[1].1, "alice"));
    }

    let listeners = open_listeners::protect_all(&file, &now, &image).unwrap();
    let metadata = node.broker.metadata.clone();
    let restarted = Broker::new(Arc::new(file), metadata, Arc::default(), LogLevels::default());
    let restarted = restarted.with_listeners(listeners);
    restarted.live.apply(&restarted);
    assert_eq!(restarted.live.config().network.max_connections, Some(77));
    assert_eq!(store(&restarted, &[("max.connections", Some("78"))], true).await, Ok(()));
    let unfit = store(&restarted, &[(LISTENERS, Some(BOTH))], true).await.unwrap_err();
    assert!(matches!(&unfit, AlterError::Refused(why) if why.contains("NEW")), "{unfit:?}");
    assert_eq!(store(&restarted, &[(LISTENERS, None), (MAP, None)], true).await, Ok(()));
}

#[tokio::test]
async fn listeners_that_were_stored_without_an_answer_open_when_their_settings_are_taken_up() {
    let (node, _client) = node().await;
    let broker = node.broker.clone();
    let following = tokio::spawn(open_listeners::follow(broker.clone(), broker.shutdown.clone()));
    store(&broker, &[(LISTENERS, Some(BOTH))], false).await.unwrap();
    // Whoever wakes by the new image alone finds the settings of before.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    broker.live.apply(&broker);
    tokio::time::timeout(Duration::from_secs(60), async {
        while told(&node).len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it opens");
    let mut of_extra = Client::to(&format!("127.0.0.1:{}", port_of(&node, "EXTRA"))).await;
    of_extra.ask(0, &ApiVersionsRequest::default()).await;
    broker.shutdown.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn a_listener_cannot_come_with_a_limit_that_lets_nobody_in_nor_get_one() {
    const LIMIT: &str = "listener.name.extra.max.connections";
    let (_node, mut client) = node().await;
    let refused = (ResponseError::InvalidRequest.code(), "Invalid max.connections 0".to_owned());
    let both = [(LISTENERS, SET, Some(BOTH)), (LIMIT, SET, Some("0"))];
    assert_eq!(alter(&mut client, BROKER, "1", &both).await, refused);
    // As long as nobody has that name nobody minds.
    assert_eq!(alter(&mut client, BROKER, "1", &[(LIMIT, SET, Some("0"))]).await, (0, String::new()));
    assert_eq!(set(&mut client, BOTH).await, refused);
    let both = [(LISTENERS, SET, Some(BOTH)), (LIMIT, SET, Some("1"))];
    assert_eq!(alter(&mut client, BROKER, "1", &both).await, (0, String::new()));
    assert_eq!(alter(&mut client, BROKER, "1", &[(LIMIT, SET, Some("0"))]).await, refused);
    assert_eq!(alter(&mut client, BROKER, "", &[(LIMIT, SET, Some("-1"))]).await.0, refused.0);
}

#[tokio::test]
async fn what_changes_while_a_listener_is_made_ready_holds_for_it() {
    const LOGIN: &str = "listener.name.extra.plain.sasl.jaas.config";
    let (node, _client) = node().await;
    let broker = &node.broker;
    let (alice, bob) = (users("alice"), users("bob"));
    let changes = [
        (LISTENERS, BOTH),
        (MAP, "PLAINTEXT:PLAINTEXT,EXTRA:SASL_PLAINTEXT"),
        ("listener.name.extra.sasl.enabled.mechanisms", "PLAIN"),
        (LOGIN, alice.as_str()),
    ];
    let mut texts = broker.config.settings.texts();
    texts.extend(changes.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let wanted = broker.config.with_settings(&texts).unwrap();
    let bound = broker.listeners.prepare(&broker.config.listeners, &wanted.listeners, &texts).await.unwrap();
    assert!(knows(&bound[0].security, "alice"));

    store(broker, &changes.map(|(name, value)| (name, Some(value))), false).await.unwrap();
    store(broker, &[(LOGIN, Some(&bob))], false).await.unwrap();
    broker.live.apply(broker);
    assert!(broker.listeners.change(broker, bound).await);
    let known: BTreeMap<String, _> =
        broker.listeners.known().into_iter().map(|(listener, security)| (listener.name, security)).collect();
    assert!(knows(&known["EXTRA"], "bob") && !knows(&known["EXTRA"], "alice"));
}

#[tokio::test]
async fn a_listener_with_another_protection_keeps_no_connection_of_the_old_one() {
    let (node, mut client) = node().await;
    assert_eq!(set(&mut client, BOTH).await, (0, String::new()));
    let mut of_extra = Client::to(&format!("127.0.0.1:{}", port_of(&node, "EXTRA"))).await;
    of_extra.ask(0, &ApiVersionsRequest::default()).await;
    let (broker, config) = (&node.broker, node.broker.live.config());
    let extra = config.listeners.listener("EXTRA").unwrap();
    let mut bound = broker.listeners.bind(extra, &config.listeners, &config.settings.texts()).await.unwrap();
    bound.security = ListenerSecurity::plaintext();
    broker.listeners.open(vec![bound]);
    assert_eq!(of_extra.receive_raw().await, None);
}

#[tokio::test]
async fn a_listener_that_cannot_move_yet_is_told_of_as_the_file_has_it() {
    let protocols = format!("{MAP}={PROTOCOLS}");
    let (listeners, advertised) = (format!("{LISTENERS}={BOTH}"), format!("{ADVERTISED},EXTRA://told.example:9"));
    let node = TestNode::start_configured(Limits::default(), &[&protocols, &listeners, &advertised]).await;
    let (mut client, broker) = (node.connect().await, &node.broker);
    let moved = "PLAINTEXT://127.0.0.1:0,EXTRA://localhost:0";
    assert_eq!(set(&mut client, moved).await, (0, String::new()));
    // Of the addresses that are for books (RFC 5737).
    store(broker, &[(LISTENERS, Some("PLAINTEXT://127.0.0.1:0,EXTRA://192.0.2.1:0"))], false).await.unwrap();
    broker.live.apply(broker);
    assert!(!broker.listeners.settle(broker).await);
    let endpoint = broker.metadata.image().brokers()[&broker.node].endpoints["EXTRA"].clone();
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("told.example", 9));
}
