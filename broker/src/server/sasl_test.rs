//! SASL through real sockets: what comes before the first request, and what comes again when a session ends.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsRequest, CreateDelegationTokenRequest, DescribeDelegationTokenRequest,
        GetTelemetrySubscriptionsRequest, MetadataRequest, RenewDelegationTokenRequest, SaslAuthenticateRequest,
        SaslAuthenticateResponse, SaslHandshakeRequest,
    },
    protocol::StrBytes,
};

use super::{
    data_test::{produce, records},
    telemetry_test::{CLIENT_METRICS, set},
    testing::{Client, TestNode},
};
use crate::{security::SecurityProtocol, server::Limits};

const USERS: &str = "listener.name.sasl_plaintext.plain.sasl.jaas.config=x.PlainLoginModule required \
                     user_alice=\"alice-secret\" user_bob=\"bob-secret\";";

/// A node with a listener for users of PLAIN, and more settings.
async fn node(more: &[&str]) -> (TestNode, String) {
    node_with(Limits::default(), more).await
}

async fn node_with(limits: Limits, more: &[&str]) -> (TestNode, String) {
    let limits = Limits { failed_authentication_delay: Duration::from_millis(1), ..limits };
    let node = TestNode::start_configured(limits, &["delegation.token.secret.key=token-secret"]).await;
    let own = ["sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256", USERS];
    let settings: Vec<String> = own.iter().chain(more).map(|text| (*text).to_owned()).collect();
    let (address, _) = node.listen(SecurityProtocol::SaslPlaintext, &settings);
    (node, address.to_string())
}

fn handshake(mechanism: &'static str) -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism))
}

fn message(text: &'static str) -> SaslAuthenticateRequest {
    SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(text.as_bytes()))
}

async fn login(client: &mut Client, credentials: &'static str) -> SaslAuthenticateResponse {
    let answer = client.ask(1, &handshake("PLAIN")).await;
    assert_eq!((answer.error_code, answer.mechanisms.len()), (0, 2));
    client.ask(2, &message(credentials)).await
}

const ALICE: &str = "\0alice\0alice-secret";

#[tokio::test]
async fn a_user_gets_in_and_whoever_guesses_does_not() {
    let (node, address) = node(&[]).await;
    let mut alice = Client::to(&address).await;
    assert_eq!(alice.ask(3, &versions()).await.error_code, 0);
    let answer = login(&mut alice, ALICE).await;
    assert_eq!((answer.error_code, answer.session_lifetime_ms), (0, 0));
    assert!(alice.ask(12, &MetadataRequest::default()).await.cluster_id.is_some());
    let late = alice.ask(1, &handshake("PLAIN")).await;
    assert_eq!(late.error_code, ResponseError::IllegalSaslState.code());
    let late = alice.ask(2, &message(ALICE)).await;
    assert_eq!(late.error_code, ResponseError::IllegalSaslState.code());

    let mut mallory = Client::to(&address).await;
    let answer = login(&mut mallory, "\0alice\0guess").await;
    assert_eq!(answer.error_code, ResponseError::SaslAuthenticationFailed.code());
    assert_eq!(answer.error_message.as_deref(), Some("Authentication failed: Invalid username or password"));
    assert_eq!(mallory.receive_raw().await, None, "and the connection is closed");
    let text = node.metrics.text();
    for line in [
        "varve_authentications_total{listener=\"SASL_PLAINTEXT\",result=\"successful\"} 1",
        "varve_authentications_total{listener=\"SASL_PLAINTEXT\",result=\"failed\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

fn versions() -> ApiVersionsRequest {
    let name = StrBytes::from_static_str("test");
    ApiVersionsRequest::default().with_client_software_name(name.clone()).with_client_software_version(name)
}

#[tokio::test]
async fn what_a_client_says_of_its_library_before_it_is_known_counts_afterwards() {
    let (node, address) = node(&[]).await;
    let mut admin = node.connect().await;
    for (name, value) in [("metrics", "*"), ("match", "client_software_name=test")] {
        assert_eq!(set(&mut admin, CLIENT_METRICS, "all", name, Some(value)).await.0, 0);
    }
    let mut alice = Client::to(&address).await;
    alice.ask(3, &versions()).await;
    login(&mut alice, ALICE).await;
    let told = alice.ask(0, &GetTelemetrySubscriptionsRequest::default()).await;
    assert_eq!((told.error_code, told.requested_metrics.len()), (0, 1));
}

#[tokio::test]
async fn nothing_else_is_answered_before_the_client_is_known() {
    let (_node, address) = node(&[]).await;
    let mut early = Client::to(&address).await;
    early.send(12, &MetadataRequest::default()).await;
    assert_eq!(early.receive_raw().await, None);

    let mut twice = Client::to(&address).await;
    twice.ask(3, &versions()).await;
    twice.send(3, &versions()).await;
    assert_eq!(twice.receive_raw().await, None, "ApiVersions is answered once");

    let mut between = Client::to(&address).await;
    between.ask(1, &handshake("PLAIN")).await;
    let told = between.ask(1, &handshake("PLAIN")).await;
    assert_eq!(told.error_code, ResponseError::IllegalSaslState.code());
    assert_eq!(between.receive_raw().await, None);

    let mut other = Client::to(&address).await;
    let told = other.ask(1, &handshake("GSSAPI")).await;
    assert_eq!(told.error_code, ResponseError::UnsupportedSaslMechanism.code());
    assert_eq!(told.mechanisms.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["PLAIN", "SCRAM-SHA-256"]);
    assert_eq!(other.receive_raw().await, None);

    let mut large = Client::to(&address).await;
    large.send_raw(&(524_289_i32).to_be_bytes()).await;
    assert_eq!(large.receive_raw().await, None, "nobody unknown sends more than sasl.server.max.receive.size");
}

#[tokio::test]
async fn those_who_are_not_known_yet_hold_up_nobody_who_is() {
    let limits = Limits { request_bytes: 64 * 1024, ..Limits::default() };
    let (node, address) = node_with(limits, &[]).await;
    let id = node.create_topic("t", 1, &[]).await;
    let mut unknown = Vec::new();
    for _ in 0..8 {
        let mut client = Client::to(&address).await;
        client.send_raw(&524_288_i32.to_be_bytes()).await;
        unknown.push(client);
    }
    let claimed = format!("varve_received_bytes_total {}\n", unknown.len() * (4 + 524_288));
    while !node.metrics.text().contains(&claimed) {
        tokio::task::yield_now().await;
    }
    let (mut known, mut alice) = (node.connect().await, Client::to(&address).await);
    let served = async {
        // More than what a request may be without a part of the budget.
        produce(&mut known, 13, ("t", id), 0, records(&[&"x".repeat(20_000)])).await;
        assert_eq!(login(&mut alice, ALICE).await.error_code, 0);
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("long before the claims are given up");
}

#[tokio::test]
async fn after_the_first_handshake_version_messages_come_without_a_frame_around_them() {
    let (_node, address) = node(&[]).await;
    let mut client = Client::to(&address).await;
    client.ask(0, &handshake("PLAIN")).await;
    client.send_raw(&[&(ALICE.len() as i32).to_be_bytes(), ALICE.as_bytes()].concat()).await;
    assert_eq!(client.receive_raw().await.as_deref(), Some(b"".as_slice()));
    assert!(client.ask(12, &MetadataRequest::default()).await.cluster_id.is_some());
    let mut wrong = Client::to(&address).await;
    wrong.ask(0, &handshake("PLAIN")).await;
    wrong.send_raw(&[0, 0, 0, 4, 0, b'a', 0, b'b']).await;
    assert_eq!(wrong.receive_raw().await, None);
}

#[tokio::test]
async fn a_session_ends_unless_its_client_says_again_who_it_is() {
    let (node, address) = node(&["connections.max.reauth.ms=3600000"]).await;
    let mut alice = Client::to(&address).await;
    assert_eq!(login(&mut alice, ALICE).await.session_lifetime_ms, 3_600_000);
    // Again, but not twice within a second, which may pass on a busy machine.
    let mut renewed = 0;
    loop {
        let answer = alice.ask(1, &handshake("PLAIN")).await;
        if renewed > 0 && answer.error_code == ResponseError::IllegalSaslState.code() {
            break;
        }
        assert!(answer.error_code == 0 && renewed < 100, "{renewed} times: {answer:?}");
        assert_eq!(alice.ask(2, &message(ALICE)).await.error_code, 0);
        renewed += 1;
    }
    assert!(alice.ask(12, &MetadataRequest::default()).await.cluster_id.is_some());

    let mut other = Client::to(&address).await;
    login(&mut other, ALICE).await;
    let told = login(&mut other, "\0bob\0bob-secret").await;
    assert_eq!(told.error_code, ResponseError::SaslAuthenticationFailed.code());
    let text = told.error_message.unwrap();
    assert_eq!(text.as_str(), "Cannot change principals during re-authentication from User.alice: User.bob");
    assert_eq!(other.receive_raw().await, None);

    let mut switching = Client::to(&address).await;
    login(&mut switching, ALICE).await;
    assert_eq!(switching.ask(1, &handshake("SCRAM-SHA-256")).await.error_code, 0);
    switching.send(2, &message("n,,n=alice,r=x")).await;
    assert_eq!(switching.receive_raw().await, None);
    let text = node.metrics.text();
    let again =
        format!("varve_reauthentications_total{{listener=\"SASL_PLAINTEXT\",result=\"successful\"}} {renewed}\n");
    assert!(text.contains(&again), "{text}");
    assert!(text.contains("varve_reauthentications_total{listener=\"SASL_PLAINTEXT\",result=\"failed\"} 2"), "{text}");
}

#[tokio::test]
async fn a_session_that_is_over_answers_nothing_more() {
    let (node, address) = node(&["listener.name.sasl_plaintext.plain.connections.max.reauth.ms=1"]).await;
    let mut alice = Client::to(&address).await;
    assert_eq!(login(&mut alice, ALICE).await.session_lifetime_ms, 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    alice.send(12, &MetadataRequest::default()).await;
    assert_eq!(alice.receive_raw().await, None);
    assert!(node.metrics.text().contains("varve_sessions_expired_total 1"));
}

#[tokio::test]
async fn tokens_are_for_those_who_are_known() {
    let (node, address) = node(&[]).await;
    let mut anybody = node.connect().await;
    let refused = anybody.ask(3, &CreateDelegationTokenRequest::default()).await;
    assert_eq!(refused.error_code, ResponseError::DelegationTokenRequestNotAllowed.code());

    let mut alice = Client::to(&address).await;
    login(&mut alice, ALICE).await;
    let made = alice.ask(3, &CreateDelegationTokenRequest::default().with_max_lifetime_ms(60_000)).await;
    assert_eq!((made.error_code, made.principal_name.as_str(), made.hmac.len()), (0, "alice", 64));
    assert_eq!(made.max_timestamp_ms - made.issue_timestamp_ms, 60_000);
    let listed = alice.ask(3, &DescribeDelegationTokenRequest::default().with_owners(None)).await;
    assert_eq!(listed.tokens.iter().map(|token| &token.token_id).collect::<Vec<_>>(), [&made.token_id]);
    let renewed = RenewDelegationTokenRequest::default().with_hmac(made.hmac.clone()).with_renew_period_ms(1000);
    assert_eq!(alice.ask(2, &renewed).await.error_code, 0);

    let mut bob = Client::to(&address).await;
    login(&mut bob, "\0bob\0bob-secret").await;
    let mismatch = bob.ask(2, &renewed).await;
    assert_eq!(mismatch.error_code, ResponseError::DelegationTokenOwnerMismatch.code());
    let unknown = renewed.with_hmac(Bytes::from_static(b"guess"));
    assert_eq!(bob.ask(2, &unknown).await.error_code, ResponseError::DelegationTokenNotFound.code());
}
