//! Sources of tokens that answer, fail, hang and change.

use std::{path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::advance,
};
use url::Url;

use super::*;
use crate::security::{Secret, sasl::token::Refresh};

const SECRET: &str = "hunter2&=";

fn token(subject: &str, expires_s: i64) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "ES256"})), part(json!({"sub": subject, "exp": expires_s})))
}

fn source(origin: TokenOrigin) -> TokenSource {
    TokenSource {
        origin,
        subject_claim: "sub".to_owned(),
        extensions: Vec::new(),
        refresh: Refresh { factor: 0.8, jitter: 0.0, least: Duration::ZERO, buffer: Duration::ZERO },
        backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(8),
    }
}

async fn endpoint(scope: Option<&str>) -> (TcpListener, TokenSource) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token?tenant={SECRET}", listener.local_addr().unwrap());
    let endpoint = TokenEndpoint {
        url: Url::parse(&url).unwrap(),
        client: "broker".to_owned(),
        secret: Secret::new(SECRET),
        scope: scope.map(str::to_owned),
        connect_limit: Duration::from_secs(3600),
        read_limit: Duration::from_secs(3600),
    };
    (listener, source(TokenOrigin::Endpoint(endpoint)))
}

/// The next request, head and body.
async fn asked(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(read > 0, "it ends early: {text}");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        let length = text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if body.is_some() && body == length {
            return text;
        }
    }
}

/// Gives one answer; what was asked.
async fn answer(listener: &TcpListener, status: &str, body: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let text = asked(&mut stream).await;
    respond(&mut stream, status, body).await;
    text
}

async fn respond(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

fn body(subject: &str, expires_s: i64) -> String {
    json!({"access_token": token(subject, expires_s), "token_type": "Bearer"}).to_string()
}

/// Waits until nobody asks any more.
async fn settled(tokens: &Tokens) {
    let turn = tokens.state.lock().turn.clone();
    drop(turn.lock().await);
}

#[tokio::test]
async fn a_provider_is_asked_as_its_client_and_once_for_all_who_log_in() {
    let (listener, source) = endpoint(Some("kafka brokers")).await;
    let tokens = Tokens::default();
    let given = body("broker", 1000);
    let (first, second, text) = tokio::join!(
        tokens.current(&source, || 0),
        tokens.current(&source, || 799_000),
        answer(&listener, "200 OK", &given)
    );
    assert_eq!(first.unwrap().text.reveal(), token("broker", 1000));
    assert_eq!(second.unwrap().subject, "broker", "the same one, without another question");
    assert!(text.starts_with("POST /token?tenant="), "{text}");
    assert!(text.ends_with("\r\n\r\ngrant_type=client_credentials&scope=kafka+brokers"), "{text}");
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("broker:{SECRET}"));
    assert!(text.to_lowercase().contains(&format!("authorization: basic {basic}").to_lowercase()), "{text}");
}

#[tokio::test]
async fn a_provider_that_gives_no_token_is_told_apart_and_no_secret_is() {
    let refusal = json!({"error": "invalid_client", "error_description": format!("not\n{SECRET}")}).to_string();
    let useless = json!({"access_token": SECRET}).to_string();
    for (status, body, words) in [
        ("401 Unauthorized", refusal.as_str(), "401 Unauthorized: invalid_client, not[hidden]"),
        ("503 Service Unavailable", "<html>", "503 Service Unavailable"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", "", "302 Found"),
        ("200 OK", "{}", "no access_token"),
        ("200 OK", useless.as_str(), "it is no JSON web token"),
    ] {
        let (listener, source) = endpoint(None).await;
        let tokens = Tokens::default();
        let (failed, _) = tokio::join!(tokens.current(&source, || 0), answer(&listener, status, body));
        let failed = failed.unwrap_err();
        assert!(chain(&failed).contains(words), "{}", chain(&failed));
        let again = tokens.current(&source, || 0).await.unwrap_err();
        assert!(matches!(&again, TokenError::Again(why) if why.contains(words)), "{again:?}");
        assert!(!format!("{failed:?} {} {again:?}", chain(&failed)).contains("hunter2"), "{failed:?}");
    }
    let (listener, source) = endpoint(None).await;
    drop(listener);
    let failed = Tokens::default().current(&source, || 0).await.unwrap_err();
    assert!(matches!(failed, TokenError::Http(_)), "{failed:?}");
    assert!(!format!("{} {failed:?}", chain(&failed)).contains("hunter2"), "{failed:?}");
}

fn file() -> (tempfile::TempDir, PathBuf, TokenSource) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let source = source(TokenOrigin::File(path.clone()));
    (folder, path, source)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_replaced_before_its_end_and_used_up_to_it_when_there_is_no_other() {
    let (_folder, path, source) = file();
    let tokens = Tokens::default();
    let subject = async |now_s: i64| tokens.current(&source, move || now_s * 1000).await.map(|token| token.subject);
    assert!(matches!(subject(0).await, Err(TokenError::File(_))));
    std::fs::write(&path, token("first", 1000)).unwrap();
    assert!(matches!(subject(0).await, Err(TokenError::Again(_))), "not before the pause is over");
    advance(Duration::from_secs(1)).await;
    assert_eq!(subject(0).await.unwrap(), "first");

    std::fs::write(&path, token("second", 2000)).unwrap();
    advance(Duration::from_secs(600)).await;
    assert_eq!(subject(799).await.unwrap(), "first", "its time has not come");
    assert_eq!(subject(800).await.unwrap(), "first", "the new one is read beside");
    settled(&tokens).await;
    assert_eq!(subject(800).await.unwrap(), "second");

    std::fs::remove_file(&path).unwrap();
    advance(Duration::from_secs(600)).await;
    assert_eq!(subject(1999).await.unwrap(), "second", "it is still good");
    assert!(matches!(subject(2000).await, Err(TokenError::Again(_))));
    std::fs::write(&path, token("old", 1500)).unwrap();
    advance(Duration::from_secs(8)).await;
    assert!(matches!(subject(2000).await, Err(TokenError::Expired)));
    std::fs::write(&path, token("third", 3000)).unwrap();
    advance(Duration::from_secs(8)).await;
    assert_eq!(subject(2000).await.unwrap(), "third");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_broker_did_not_take_is_replaced_before_its_time() {
    let (_folder, path, source) = file();
    let tokens = Tokens::default();
    let current = async || tokens.current(&source, || 0).await.unwrap();
    std::fs::write(&path, token("first", 1000)).unwrap();
    let first = current().await;
    std::fs::write(&path, token("second", 1000)).unwrap();
    tokens.doubt(&first, &source);
    assert_eq!(current().await, first, "it is new: others may take it");
    settled(&tokens).await;
    assert_eq!(current().await, first, "nor was it read again");
    advance(Duration::from_secs(8)).await;
    assert_eq!(current().await, first);
    settled(&tokens).await;
    let second = current().await;
    assert_eq!(second.subject, "second");
    std::fs::write(&path, token("third", 1000)).unwrap();
    advance(Duration::from_secs(60)).await;
    tokens.doubt(&first, &source);
    assert_eq!(current().await, second, "the doubt is of another one");
    tokens.doubt(&second, &source);
    assert_eq!(current().await, second);
    settled(&tokens).await;
    assert_eq!(current().await.subject, "third");
}

#[tokio::test]
async fn another_source_has_other_tokens() {
    let (_folder, path, source) = file();
    let tokens = Tokens::default();
    std::fs::write(&path, token("first", 1000)).unwrap();
    assert_eq!(tokens.current(&source, || 0).await.unwrap().subject, "first");
    let other = path.with_extension("other");
    std::fs::write(&other, token("other", 1000)).unwrap();
    let other = TokenSource { origin: TokenOrigin::File(other), ..source };
    assert_eq!(tokens.current(&other, || 0).await.unwrap().subject, "other");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_does_not_shorten_the_pause_after_failures() {
    let (_folder, path, source) = file();
    let tokens = Tokens::default();
    let current = async || tokens.current(&source, || 0).await.unwrap();
    std::fs::write(&path, token("first", 1000)).unwrap();
    let first = current().await;
    std::fs::remove_file(&path).unwrap();
    advance(Duration::from_secs(60)).await;
    tokens.doubt(&first, &source);
    assert_eq!(current().await, first);
    settled(&tokens).await;

    // It could not be read. The broker that doubts is asked again before the pause is over.
    std::fs::write(&path, token("second", 1000)).unwrap();
    tokens.doubt(&first, &source);
    assert_eq!(current().await, first);
    settled(&tokens).await;
    assert_eq!(current().await, first, "nobody has read the file in between");
    advance(Duration::from_secs(1)).await;
    assert_eq!(current().await, first);
    settled(&tokens).await;
    assert_eq!(current().await.subject, "second");
}

/// Holds a token up to 1000 s, and has asked for a new one; where the answer is waited for.
async fn hanging(listener: &TcpListener, source: &TokenSource, tokens: &Tokens) -> TcpStream {
    let first = body("first", 1000);
    let (first, _) = tokio::join!(tokens.current(source, || 0), answer(listener, "200 OK", &first));
    let held = tokens.current(source, || 900_000).now_or_never().expect("nobody waits").unwrap();
    assert_eq!(held, first.unwrap());
    let (mut stream, _) = listener.accept().await.unwrap();
    asked(&mut stream).await;
    stream
}

#[tokio::test]
async fn a_provider_that_does_not_answer_keeps_nobody_waiting_who_has_a_good_token() {
    let (listener, source) = endpoint(None).await;
    let source = TokenSource { backoff: Duration::ZERO, ..source };
    let tokens = Tokens::default();
    let mut stream = hanging(&listener, &source, &tokens).await;
    let held = tokens.current(&source, || 969_000).now_or_never().expect("nobody waits").unwrap();
    assert_eq!(held.subject, "first");
    assert!(tokens.current(&source, || 970_000).now_or_never().is_none(), "it is about to end");
    respond(&mut stream, "200 OK", &body("second", 2000)).await;
    assert_eq!(tokens.current(&source, || 970_000).await.unwrap().subject, "second");
    assert!(listener.accept().now_or_never().is_none(), "one question for all");
}

#[tokio::test]
async fn what_a_source_gives_that_is_not_used_any_more_is_not_held() {
    let (listener, source) = endpoint(None).await;
    let source = TokenSource { backoff: Duration::ZERO, ..source };
    let tokens = Tokens::default();
    let mut stream = hanging(&listener, &source, &tokens).await;
    let turn = tokens.state.lock().turn.clone();
    let (_folder, path, other) = file();
    std::fs::write(&path, token("other", 1000)).unwrap();
    assert_eq!(tokens.current(&other, || 0).await.unwrap().subject, "other", "without a wait for the first one");
    respond(&mut stream, "200 OK", &body("second", 2000)).await;
    drop(turn.lock().await);
    assert_eq!(tokens.current(&other, || 0).await.unwrap().subject, "other");
}
