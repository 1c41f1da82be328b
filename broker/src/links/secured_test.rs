//! Links to a protected listener: who gets in, who is not taken for a broker, and what is said about it.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use kafka_protocol::messages::ApiVersionsRequest;
use rcgen::DnType;
use uuid::Uuid;
use varve_metadata::{
    image::{BrokerImage, Endpoint},
    model::BrokerId,
};

use super::*;
use crate::{
    security::{
        SecurityError, SecurityProtocol,
        testing::{Authority, Identity},
        tls::TlsError,
    },
    server::testing::TestNode,
};

const OTHER: BrokerId = BrokerId(2);
const JAAS: &str = "listener.name.sasl_plaintext.plain.sasl.jaas.config=x.PlainLoginModule required";

fn tls(folder: &Path, name: &str, own: &Identity, trusted: &Authority) -> Vec<String> {
    let file = |kind: &str| folder.join(format!("{name}.{kind}"));
    own.write(&file("both.pem"));
    std::fs::write(file("ca.pem"), trusted.pem()).unwrap();
    vec![
        "ssl.keystore.type=PEM".to_owned(),
        format!("ssl.keystore.location={}", file("both.pem").display()),
        "ssl.truststore.type=PEM".to_owned(),
        format!("ssl.truststore.location={}", file("ca.pem").display()),
        "ssl.client.auth=required".to_owned(),
    ]
}

fn open(protocol: SecurityProtocol, settings: &[String]) -> Result<Arc<ListenerSecurity>, SecurityError> {
    let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    ListenerSecurity::open_between_brokers(protocol.name(), protocol, &settings.iter().map(pair).collect())
}

/// A broker whose listener is protected by `theirs`, under the name `host`, and links to it that go by `ours`.
async fn links(protocol: SecurityProtocol, host: &str, theirs: &[String], ours: &[String]) -> (TestNode, Links) {
    let node = TestNode::start().await;
    let (address, _) = node.listen(protocol, theirs);
    let endpoint = Endpoint { host: host.to_owned(), port: address.port() };
    let endpoints = BTreeMap::from([(protocol.name().to_owned(), endpoint)]);
    let other = BrokerImage {
        id: OTHER,
        incarnation: Uuid::new_v4(),
        endpoints,
        rack: None,
        fenced: false,
        ..BrokerImage::default()
    };
    node.broker.metadata.register(other).await.unwrap();
    let limit = Duration::from_secs(3600);
    let options = LinkOptions {
        listener: protocol.name().to_owned(),
        node: BrokerId(1),
        setup_limit: limit,
        answer_limit: limit,
    };
    let links = Links::new(node.broker.metadata.clone(), options);
    links.protect(open(protocol, ours).unwrap());
    (node, links)
}

async fn ask(links: &Links) -> Result<(), String> {
    let answer = links.ask(OTHER, 0, &ApiVersionsRequest::default()).await;
    answer.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn brokers_take_each_others_certificates_and_nobody_elses() {
    let (folder, ca, other) = (tempfile::tempdir().unwrap(), Authority::new("ca"), Authority::new("other"));
    let (server, own) = (ca.server(), ca.issue(&[(DnType::CommonName, "broker-1")], &[]));
    let theirs = tls(folder.path(), "theirs", &server, &ca);
    let ours = tls(folder.path(), "ours", &own, &ca);
    let (_node, to_name) = links(SecurityProtocol::Ssl, "localhost", &theirs, &ours).await;
    assert_eq!(ask(&to_name).await, Ok(()));

    let (_node, to_address) = links(SecurityProtocol::Ssl, "127.0.0.1", &theirs, &ours).await;
    let refused = ask(&to_address).await.unwrap_err();
    assert!(refused.contains("name the host of advertised.listeners"), "{refused}");
    let unchecked = [ours, vec!["ssl.endpoint.identification.algorithm=".to_owned()]].concat();
    let (_node, to_address) = links(SecurityProtocol::Ssl, "127.0.0.1", &theirs, &unchecked).await;
    assert_eq!(ask(&to_address).await, Ok(()));

    // Both sides are what they say among their own; neither knows the other, whatever the host.
    for more in ["ssl.endpoint.identification.algorithm=https", "ssl.endpoint.identification.algorithm="] {
        let foreign = tls(folder.path(), "foreign", &other.server(), &other);
        let foreign = [foreign, vec![more.to_owned()]].concat();
        let (_node, to_stranger) = links(SecurityProtocol::Ssl, "localhost", &theirs, &foreign).await;
        let refused = ask(&to_stranger).await.unwrap_err();
        assert!(refused.contains("UnknownIssuer") && refused.contains("ssl.truststore"), "{refused}");
    }
}

#[tokio::test]
async fn a_stranger_who_trusts_the_brokers_is_told_that_they_do_not_trust_him() {
    let (folder, ca, other) = (tempfile::tempdir().unwrap(), Authority::new("ca"), Authority::new("other"));
    let theirs = tls(folder.path(), "theirs", &ca.server(), &ca);
    let ours = tls(folder.path(), "ours", &other.server(), &other);
    std::fs::write(folder.path().join("ours.ca.pem"), format!("{}{}", ca.pem(), other.pem())).unwrap();
    let (_node, links) = links(SecurityProtocol::Ssl, "localhost", &theirs, &ours).await;
    let refused = ask(&links).await.unwrap_err();
    assert!(refused.contains("TLS between brokers failed"), "{refused}");
}

#[tokio::test]
async fn a_node_that_would_not_let_itself_in_says_so_at_once() {
    let (folder, ca, other) = (tempfile::tempdir().unwrap(), Authority::new("ca"), Authority::new("other"));
    let refused = open(SecurityProtocol::Ssl, &tls(folder.path(), "own", &other.server(), &ca)).unwrap_err();
    assert!(matches!(refused, SecurityError::Tls(TlsError::NotTrusted(_))), "{refused:?}");
    let refused = open(SecurityProtocol::Ssl, &tls(folder.path(), "own", &ca.server(), &ca)[..2]).unwrap_err();
    assert!(refused.to_string().contains("ssl.truststore.location"), "{refused}");
}

fn sasl(more: &[&str], login: &str) -> Vec<String> {
    let own = ["sasl.enabled.mechanisms=PLAIN", "sasl.mechanism.inter.broker.protocol=PLAIN"];
    let all = own.iter().chain(more).map(|text| (*text).to_owned());
    all.chain([format!("{JAAS} {login} user_broker=\"secret\";")]).collect()
}

#[tokio::test]
async fn a_broker_logs_in_as_its_settings_say_and_learns_why_it_may_not() {
    const PROTOCOL: SecurityProtocol = SecurityProtocol::SaslPlaintext;
    let theirs = sasl(&[], "username=\"broker\" password=\"secret\"");
    let (_node, good) = links(PROTOCOL, "localhost", &theirs, &theirs).await;
    assert_eq!(ask(&good).await, Ok(()));

    let wrong = sasl(&[], "username=\"broker\" password=\"guess\"");
    let (_node, bad) = links(PROTOCOL, "localhost", &theirs, &wrong).await;
    let refused = ask(&bad).await.unwrap_err();
    for word in ["as broker by PLAIN", "Invalid username or password", "sasl.jaas.config"] {
        assert!(refused.contains(word) && !refused.contains("guess"), "{refused}");
    }

    for (settings, word) in [
        (sasl(&[], ""), "listener.name.sasl_plaintext.plain.sasl.jaas.config"),
        (sasl(&["sasl.mechanism.inter.broker.protocol=SCRAM-SHA-256"], ""), "sasl.mechanism.inter.broker.protocol"),
    ] {
        let refused = open(PROTOCOL, &settings).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

#[tokio::test]
async fn a_broker_logs_in_with_the_token_that_a_file_has_now_and_learns_why_it_may_not() {
    const PROTOCOL: SecurityProtocol = SecurityProtocol::SaslPlaintext;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let settings = vec![
        "sasl.enabled.mechanisms=OAUTHBEARER".to_owned(),
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER".to_owned(),
        "listener.name.sasl_plaintext.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.\
         oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
            .to_owned(),
        "listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config=x.OAuthBearerLoginModule required \
         unsecuredValidatorRequiredScope=\"brokers\";"
            .to_owned(),
        format!("sasl.oauthbearer.token.endpoint.url=file://{}", path.display()),
        "sasl.login.retry.backoff.ms=1".to_owned(),
        "sasl.login.retry.backoff.max.ms=1".to_owned(),
    ];
    let write = |scope: &str| {
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = serde_json::json!({"sub": "broker", "iat": 0, "exp": 1_u64 << 36, "scope": scope});
        std::fs::write(&path, format!("{}.{}.", part(serde_json::json!({"alg": "none"})), part(claims))).unwrap();
    };
    let (_node, links) = links(PROTOCOL, "localhost", &settings, &settings).await;
    let refused = ask(&links).await.unwrap_err();
    for word in ["no token to log in", "No such file", "sasl.oauthbearer.token.endpoint.url"] {
        assert!(refused.contains(word), "{refused}");
    }
    write("others");
    let refused =
        until_it_is(&links, |answer| answer.as_ref().is_err_and(|error| error.contains("by OAUTHBEARER"))).await;
    for word in ["as broker by OAUTHBEARER", "invalid_token", "sasl.oauthbearer.expected.audience"] {
        assert!(refused.as_ref().is_err_and(|error| error.contains(word) && !error.contains("eyJ")), "{refused:?}");
    }
    // A new one, without anybody's doing.
    write("brokers");
    assert_eq!(until_it_is(&links, |answer| answer.is_ok()).await, Ok(()));
}

/// Asks until the answer is as it should be: a token is not asked for again at once.
async fn until_it_is(links: &Links, is_it: impl Fn(&Result<(), String>) -> bool) -> Result<(), String> {
    let asking = async {
        loop {
            let answer = ask(links).await;
            if is_it(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), asking).await.expect("it comes to be so")
}

#[tokio::test]
async fn a_link_says_again_who_it_is_before_its_session_ends() {
    let theirs = sasl(&["connections.max.reauth.ms=4000"], "username=\"broker\" password=\"secret\"");
    let (node, links) = links(SecurityProtocol::SaslPlaintext, "localhost", &theirs, &theirs).await;
    let line = "varve_reauthentications_total{listener=\"SASL_PLAINTEXT\",result=\"successful\"} 2";
    let renewed = async {
        while !node.metrics.text().contains(line) {
            assert_eq!(ask(&links).await, Ok(()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), renewed).await.expect("sessions are renewed");
    let text = node.metrics.text();
    let first = "varve_authentications_total{listener=\"SASL_PLAINTEXT\",result=\"successful\"} 1";
    assert!(text.contains(first) && text.contains("varve_sessions_expired_total 0"), "{text}");
}
