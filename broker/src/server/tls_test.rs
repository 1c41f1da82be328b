//! TLS through real sockets: who gets in, as whom, and that records come through whole.

use std::{path::Path, time::Duration};

use kafka_protocol::messages::ApiVersionsRequest;
use rcgen::DnType;
use rustls::version::TLS13;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use varve_metadata::model::Principal;

use super::{
    ListenerName,
    data_test::{fetch_request, produce, records, values},
    listener::Entrance,
    testing::{Client, TestNode},
    welcome::{self, Unwelcome},
};
use crate::security::{
    ListenerSecurity, SecurityProtocol,
    testing::{Authority, Identity, VERSIONS, certificate_pem, connect, connect_to_whoever, of_version_1},
};

fn settings(folder: &Path, authority: &Authority, more: &[&str]) -> Vec<String> {
    let (key_store, trust_store) = (folder.join("broker.pem"), folder.join("ca.pem"));
    authority.server().write(&key_store);
    std::fs::write(&trust_store, authority.pem()).unwrap();
    let own = [
        "ssl.keystore.type=PEM".to_owned(),
        format!("ssl.keystore.location={}", key_store.display()),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", trust_store.display()),
    ];
    own.into_iter().chain(more.iter().map(|setting| (*setting).to_owned())).collect()
}

#[tokio::test]
async fn records_come_through_tls_as_they_were_sent() {
    let (node, authority, folder) = (TestNode::start().await, Authority::new("ca"), tempfile::tempdir().unwrap());
    let id = node.create_topic("t", 1, &[]).await;
    let (address, _) = node.listen(SecurityProtocol::Ssl, &settings(folder.path(), &authority, &[]));
    for (number, version) in VERSIONS.into_iter().enumerate() {
        let mut client = Client::over(connect(address, &authority, None, version).await.unwrap());
        // More than what an answer is gathered in, and not a multiple of it.
        let sent = [number.to_string().repeat(300_000), "short".to_owned()];
        produce(&mut client, 13, ("t", id), 0, records(&[&sent[0], &sent[1]])).await;
        let answer = client.ask(13, &fetch_request(13, ("t", id), &[(0, 2 * number as i64)])).await;
        let read = values(answer.responses[0].partitions[0].records.as_ref().unwrap());
        let read: Vec<String> = read.into_iter().map(|(_, value)| value).collect();
        assert!(read == sent, "{} records came", read.len());
    }
}

#[tokio::test]
async fn bytes_of_the_other_kind_close_the_connection_and_harm_nobody() {
    let (node, authority, folder) = (TestNode::start().await, Authority::new("ca"), tempfile::tempdir().unwrap());
    let (address, _) = node.listen(SecurityProtocol::Ssl, &settings(folder.path(), &authority, &[]));
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&[0, 0, 0, 11, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0]).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&21), "an alert of TLS, and the end: {answer:?}");
    assert!(connect(node.address, &authority, None, &TLS13).await.is_err(), "TLS on a plaintext port");
    let mut client = Client::over(connect(address, &authority, None, &TLS13).await.unwrap());
    client.ask(0, &ApiVersionsRequest::default()).await;
}

/// Whom a listener with these settings takes `client` for, before SASL if that is spoken.
async fn welcomed(
    protocol: SecurityProtocol,
    settings: &[String],
    authority: &Authority,
    client: Option<&Identity>,
) -> Result<Principal, Unwelcome> {
    let texts = settings.iter().filter_map(|text| text.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
    let security = ListenerSecurity::open(protocol.name(), protocol, &texts).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let entrance = Entrance { name: ListenerName(protocol.name().into()), security, serving: CancellationToken::new() };
    let server = async { welcome::welcome(&entrance, socket.accept().await.unwrap().0).await };
    let (welcomed, _client) = tokio::join!(server, connect(address, authority, client, &TLS13));
    welcomed.map(|welcomed| welcomed.expect("it speaks").1)
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_left_out_in_time_and_is_no_failed_authentication() {
    let (node, authority, folder) = (TestNode::start().await, Authority::new("ca"), tempfile::tempdir().unwrap());
    let (address, _) = node.listen(SecurityProtocol::Ssl, &settings(folder.path(), &authority, &[]));
    let silent = async || TcpStream::connect(address).await.unwrap();
    let end = async |mut stream: TcpStream| stream.read(&mut [0]).await.unwrap_or(0);
    // As a load balancer's probe does, and a neighbour that stops.
    drop(silent().await);
    let mut halfway = silent().await;
    halfway.write_all(&[22, 3]).await.unwrap();
    let quiet = silent().await;
    // Served by now, since sockets are accepted in order.
    connect(address, &authority, None, &TLS13).await.unwrap();
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    assert_eq!(end(quiet).await, 0);
    // It was there for a moment before time stood still.
    assert!(begin.elapsed().as_secs() <= 30, "silent sockets do not pile up");
    assert_eq!(end(halfway).await, 0);
    tokio::time::resume();
    // What is counted of a connection is counted when it is closed, or before.
    let all_closed = async {
        while !node.metrics.text().contains("varve_connections 0") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_closed).await.unwrap();
    let text = node.metrics.text();
    let counted = |result: &str, count: u32| {
        let line = format!("varve_authentications_total{{listener=\"SSL\",result=\"{result}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    };
    counted("successful", 1);
    counted("failed", 1);
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let alice = authority.issue(
        &[(DnType::CountryName, "DE"), (DnType::OrganizationName, "Varve, Inc"), (DnType::CommonName, "alice")],
        &[],
    );
    let stranger = Authority::new("other").issue(&[(DnType::CommonName, "alice")], &[]);
    let rule = "ssl.principal.mapping.rules=RULE:^CN=(.*?),.*$/$1/U";
    for (more, client, expected) in [
        (vec![], Some(&alice), Ok("ANONYMOUS")),
        (vec!["ssl.client.auth=required"], Some(&alice), Ok("CN=alice,O=Varve\\, Inc,C=DE")),
        (vec!["ssl.client.auth=required", rule], Some(&alice), Ok("ALICE")),
        (vec!["ssl.client.auth=required"], None, Err("certificate")),
        (vec!["ssl.client.auth=required"], Some(&stranger), Err("UnknownIssuer")),
        (vec!["ssl.client.auth=requested"], None, Ok("ANONYMOUS")),
        (vec!["ssl.client.auth=requested"], Some(&stranger), Err("UnknownIssuer")),
        (vec!["ssl.client.auth=required", "ssl.principal.mapping.rules=RULE:x/y/"], Some(&alice), Err("no rule")),
    ] {
        let settings = settings(folder.path(), &authority, &more);
        match (welcomed(SecurityProtocol::Ssl, &settings, &authority, client).await, expected) {
            (Ok(principal), Ok(name)) => assert_eq!(principal, Principal::user(name), "{more:?}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{more:?}: {error}"),
            (found, expected) => panic!("{more:?}: {found:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn with_sasl_a_certificate_is_asked_for_by_the_listeners_own_setting_alone_and_names_nobody() {
    let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().unwrap());
    let alice = authority.issue(&[(DnType::CommonName, "alice")], &[]);
    let (mechanism, own) = ("sasl.enabled.mechanisms=SCRAM-SHA-256", "listener.name.sasl_ssl.ssl.client.auth=required");
    for (more, client, let_in) in [
        (vec!["ssl.client.auth=required"], None, true),
        (vec![own], None, false),
        (vec![own, "ssl.principal.mapping.rules=RULE:x/y/"], Some(&alice), true),
    ] {
        let more: Vec<&str> = more.into_iter().chain([mechanism]).collect();
        let settings = settings(folder.path(), &authority, &more);
        match welcomed(SecurityProtocol::SaslSsl, &settings, &authority, client).await {
            Ok(principal) => assert!(let_in && principal == Principal::anonymous(), "{more:?}: {principal:?}"),
            Err(error) => assert!(!let_in, "{more:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_connects_next() {
    let (node, authority, folder) = (TestNode::start().await, Authority::new("ca"), tempfile::tempdir().unwrap());
    let (address, security) = node.listen(SecurityProtocol::Ssl, &settings(folder.path(), &authority, &[]));
    let tls = security.tls.as_ref().unwrap();
    let shown = async || {
        let stream = connect(address, &authority, None, &TLS13).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let mut old = Client::over(connect(address, &authority, None, &TLS13).await.unwrap());
    let before = shown().await;
    assert!(!tls.reload_changed_files().unwrap(), "nothing changed");
    let renewed = authority.server();
    // Of another length for sure: the clock of a file system may not have moved on.
    std::fs::write(folder.path().join("broker.pem"), format!("\n{}", renewed.pem())).unwrap();
    assert!(tls.reload_changed_files().unwrap());
    assert_eq!(shown().await, renewed.certificate.der().to_vec());
    assert_ne!(shown().await, before);
    old.ask(0, &ApiVersionsRequest::default()).await;

    authority.issue(&[(DnType::CommonName, "somebody else")], &["localhost"]).write(&folder.path().join("broker.pem"));
    let refused = tls.reload_changed_files().unwrap_err();
    assert!(refused.to_string().contains("ssl.allow.dn.changes"), "{refused}");
    std::fs::write(folder.path().join("broker.pem"), "no key at all").unwrap();
    assert!(tls.reload_changed_files().is_err());
    assert!(!tls.reload_changed_files().unwrap(), "a file that is no good is told once");
    assert_eq!(shown().await, renewed.certificate.der().to_vec());
}

/// What `openssl x509 -req` made for years, and what listeners of Kafka show all the same.
#[tokio::test]
async fn a_listener_shows_a_certificate_of_version_1() {
    let (node, authority, folder) = (TestNode::start().await, Authority::new("ca"), tempfile::tempdir().unwrap());
    let (path, server) = (folder.path().join("old.pem"), authority.server());
    let old = of_version_1(&server.certificate);
    let own = settings(folder.path(), &authority, &[&format!("ssl.keystore.location={}", path.display())]);
    let write = |key: &Identity| {
        std::fs::write(&path, format!("{}{}", key.key.serialize_pem(), certificate_pem(&old))).unwrap()
    };
    write(&server);
    let (address, security) = node.listen(SecurityProtocol::Ssl, &own);
    for version in VERSIONS {
        let stream = connect_to_whoever(address, version).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec(), old);
        Client::over(stream).ask(0, &ApiVersionsRequest::default()).await;
    }

    write(&authority.server());
    let refused = security.tls.as_ref().unwrap().reload_changed_files().unwrap_err();
    assert!(refused.to_string().contains("KeyMismatch"), "the key of another: {refused}");
}
