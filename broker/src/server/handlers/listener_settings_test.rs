//! Settings of listeners that change while the node runs, through a socket.

use std::{path::Path, time::Duration};

use kafka_protocol::error::ResponseError;
use rcgen::DnType;

use super::configs_test::{BROKER, alter};
use crate::{
    security::{
        follow_settings,
        sasl::Mechanism,
        testing::{Authority, Identity},
    },
    server::{
        Limits,
        testing::{Client, TestNode},
    },
};

const KEY_STORE: &str = "listener.name.sasl_ssl.ssl.keystore.location";
const USERS: &str = "listener.name.sasl_ssl.plain.sasl.jaas.config";

fn users(name: &str) -> String {
    format!("x.PlainLoginModule required user_{name}=\"secret\";")
}

/// A node with a listener that speaks SASL_SSL with the keys in `key_store`, and a client of the other one.
async fn node(key_store: &Path) -> (TestNode, Client) {
    let own = [
        "listeners=PLAINTEXT://127.0.0.1:0,SASL_SSL://127.0.0.1:0".to_owned(),
        "ssl.keystore.type=PEM".to_owned(),
        format!("{KEY_STORE}={}", key_store.display()),
        "sasl.enabled.mechanisms=PLAIN".to_owned(),
        format!("{USERS}={}", users("alice")),
    ];
    let node = TestNode::start_configured(Limits::default(), &own.each_ref().map(String::as_str)).await;
    let client = node.connect().await;
    (node, client)
}

fn somebody_else(authority: &Authority) -> Identity {
    authority.issue(&[(DnType::CommonName, "somebody else")], &["localhost"])
}

#[tokio::test]
async fn a_key_store_that_the_listener_would_not_take_is_refused() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let file = |name: &str| folder.path().join(name);
    authority.server().write(&file("broker.pem"));
    authority.server().write(&file("renewed.pem"));
    somebody_else(&authority).write(&file("other.pem"));
    let (_node, mut client) = node(&file("broker.pem")).await;
    for (name, why) in [("other.pem", "ssl.allow.dn.changes"), ("missing.pem", "No such file")] {
        let path = file(name).display().to_string();
        let (code, text) = alter(&mut client, BROKER, "1", &[(KEY_STORE, 0, Some(&path))]).await;
        assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
        assert!(text.starts_with("Validation of dynamic config update of SSLFactory failed: "), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let renewed = file("renewed.pem").display().to_string();
    assert_eq!(alter(&mut client, BROKER, "1", &[(KEY_STORE, 0, Some(&renewed))]).await, (0, String::new()));
}

#[tokio::test]
async fn a_key_store_that_went_bad_is_in_nobodys_way_who_changes_users() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let key_store = folder.path().join("broker.pem");
    authority.server().write(&key_store);
    let (_node, mut client) = node(&key_store).await;
    somebody_else(&authority).write(&key_store);
    assert_eq!(alter(&mut client, BROKER, "1", &[(USERS, 0, Some(&users("bob")))]).await, (0, String::new()));
    let (code, text) = alter(&mut client, BROKER, "1", &[(USERS, 0, Some("nobody"))]).await;
    assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
    assert!(text.contains("SASL_SSL"), "{text}");
}

#[tokio::test]
async fn what_is_said_to_all_listeners_of_a_broker_must_suit_each() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let key_store = folder.path().join("broker.pem");
    authority.server().write(&key_store);
    let (_node, mut client) = node(&key_store).await;
    let mechanisms = "sasl.enabled.mechanisms";
    let (code, text) = alter(&mut client, BROKER, "1", &[(mechanisms, 0, Some("GSSAPI"))]).await;
    assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
    assert!(text.contains("SASL_SSL") && text.contains("GSSAPI"), "{text}");
    let more = [(mechanisms, 0, Some("PLAIN,SCRAM-SHA-256"))];
    assert_eq!(alter(&mut client, BROKER, "1", &more).await, (0, String::new()));
}

#[tokio::test]
async fn how_long_a_listener_believes_who_is_there_changes_while_it_runs() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let key_store = folder.path().join("broker.pem");
    authority.server().write(&key_store);
    let (node, mut client) = node(&key_store).await;
    let stop = node.broker.shutdown.clone();
    let following = follow_settings(
        {
            let broker = node.broker.clone();
            move || broker.listeners.known()
        },
        node.broker.config.clone(),
        node.broker.metadata.clone(),
        stop,
    );
    tokio::spawn(following);
    let of_listener = "listener.name.sasl_ssl.connections.max.reauth.ms";
    let of_mechanism = "listener.name.sasl_ssl.plain.connections.max.reauth.ms";
    let told = [(of_listener, 0, Some("1000")), (of_mechanism, 0, Some("2000"))];
    assert_eq!(alter(&mut client, BROKER, "1", &told).await, (0, String::new()));
    let known = node.broker.listeners.known();
    let (_, listener) = known.iter().find(|(_, security)| security.sasl.is_some()).unwrap();
    let session = || listener.sasl.as_ref().unwrap().state().config.max_session.get(&Mechanism::Plain).copied();
    tokio::time::timeout(Duration::from_secs(60), async {
        while session() != Some(Duration::from_secs(2)) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the listener follows");
    for (resource, name, value, why) in [
        ("", of_listener, "1", "Cannot update these configs at default cluster level, broker id must be specified: ["),
        ("1", of_listener, "soon", "Invalid value soon for configuration "),
        ("1", "connections.max.reauth.ms", "1", "Cannot update these configs dynamically: ["),
    ] {
        let (code, text) = alter(&mut client, BROKER, resource, &[(name, 0, Some(value))]).await;
        assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
        assert!(text.starts_with(why), "{text}");
    }
}

#[tokio::test]
async fn how_many_connections_a_listener_has_changes_while_it_runs_and_what_it_cannot_have_is_refused() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    let limit = |node: &TestNode| {
        let limits = node.broker.live.connection_limits()?;
        limits.by_listener.get("PLAINTEXT").copied()
    };
    // Of all brokers, and of one.
    for (resource, value) in [("", 7), ("1", 5)] {
        let told = value.to_string();
        let change = [("listener.name.plaintext.max.connections", 0, Some(told.as_str()))];
        assert_eq!(alter(&mut client, BROKER, resource, &change).await, (0, String::new()));
        assert_eq!(limit(&node), Some(value));
    }
    // That of all listeners is none of this one's, which has its own.
    assert_eq!(alter(&mut client, BROKER, "1", &[("max.connections", 0, Some("0"))]).await, (0, String::new()));
    assert_eq!(alter(&mut client, BROKER, "1", &[("max.connections", 1, None)]).await, (0, String::new()));
    for name in ["listener.name.plaintext.max.connections", "max.connection.creation.rate"] {
        let (code, text) = alter(&mut client, BROKER, "1", &[(name, 0, Some("0"))]).await;
        assert_eq!(code, ResponseError::InvalidRequest.code(), "{text}");
        assert!(text.starts_with("Invalid max.connection"), "{text}");
    }
    assert_eq!(limit(&node), Some(5), "what is refused leaves all as it was");
    let name = "listener.name.plaintext.log.cleaner.threads";
    let refused = alter(&mut client, BROKER, "1", &[(name, 0, Some("2"))]).await;
    let why = format!("Cannot update these configs dynamically: [{name}]");
    assert_eq!(refused, (ResponseError::InvalidRequest.code(), why));
}

#[tokio::test]
async fn how_fast_a_listener_takes_connections_changes_while_it_runs() {
    let node = TestNode::start().await;
    let mut client = node.connect().await;
    let waits = |node: &TestNode, listener: &str| {
        let connections = &node.broker.quotas.connections;
        (0..100).filter(|_| !connections.accept(listener, node.broker.quotas.now()).is_zero()).count()
    };
    assert_eq!(waits(&node, "PLAINTEXT"), 0);
    // Of all brokers, and of one.
    for (resource, rate) in [("", "1"), ("1", "2")] {
        let change = [("listener.name.plaintext.max.connection.creation.rate", 0, Some(rate))];
        assert_eq!(alter(&mut client, BROKER, resource, &change).await, (0, String::new()));
        assert!(waits(&node, "PLAINTEXT") > 0, "{resource} {rate}");
        assert_eq!(waits(&node, "OTHER"), 0);
    }
    let change = [("listener.name.plaintext.max.connection.creation.rate", 1, None)];
    for resource in ["1", ""] {
        assert_eq!(alter(&mut client, BROKER, resource, &change).await, (0, String::new()));
    }
    assert_eq!(waits(&node, "PLAINTEXT"), 0);
}
