//! Tokens that this node has to log in to other brokers with: one at a time, got when it is needed, from a file or an identity
//! provider.
//!
//! ```text
//!  a login ─► a token whose time has not come? ─► that one
//!                   │ no, and the last attempt is a pause ago
//!                   ▼
//!             read the file · POST grant_type=client_credentials ─► a new one
//!                   │ it cannot be had
//!                   ▼
//!             the old one, as long as it is good
//! ```

use std::{fmt, io};

use reqwest::{StatusCode, header, redirect::Policy};
use serde_json::Value;
use tokio::{io::AsyncReadExt, sync::Mutex, time::Instant};
use tracing::{info, warn};
use uuid::Uuid;

use super::token::{LoginToken, MalformedToken, TokenEndpoint, TokenOrigin, TokenSource};
use crate::security::chain;

/// The most that is read of a file or an answer, in bytes: a token is some kilobytes.
const MAX_BYTES: usize = 1 << 20;
/// The most that is told of what a provider says about a failure, in characters.
const TOLD: usize = 300;
/// Failures after which the pause does not grow any more, whatever the limit.
const COUNTED: u32 = 32;

/// Why there is no token. It holds nothing secret.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("the file with it cannot be read")]
    File(#[source] io::Error),
    /// The provider does not answer.
    #[error("the token endpoint cannot be asked")]
    Http(#[source] reqwest::Error),
    /// It answers with something else.
    #[error("the token endpoint answers with {status}{told}")]
    Refused {
        /// Of HTTP.
        status: StatusCode,
        /// What it says about it (RFC 6749, section 5.2), with what stands before it.
        told: String,
    },
    /// The answer is not in the form of RFC 6749, section 5.1.
    #[error("the token endpoint's answer holds no access_token")]
    NoToken,
    /// More than anybody's token.
    #[error("more than {MAX_BYTES} bytes come instead of it")]
    Length,
    /// It is none.
    #[error("what came is of no use")]
    Malformed(#[from] MalformedToken),
    /// It was good.
    #[error("the token has ended already: is it renewed, and is this node's clock right?")]
    Expired,
    /// The last attempt failed a moment ago.
    #[error("{0}; it is tried again in a while")]
    Again(String),
}

impl From<reqwest::Error> for TokenError {
    fn from(error: reqwest::Error) -> TokenError {
        // The URL may hold a secret.
        TokenError::Http(error.without_url())
    }
}

/// The newest token.
#[derive(Default)]
pub struct Tokens {
    state: Mutex<State>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// Where what follows came from.
    source: Option<TokenSource>,
    held: Option<Held>,
    /// Attempts that failed one after the other, and why the last one did.
    failures: u32,
    failure: String,
    /// Before that nobody is asked again.
    paused_until: Option<Instant>,
}

struct Held {
    token: LoginToken,
    since: Instant,
    refresh_ms: i64,
}

impl Tokens {
    /// A token of `source` that is good at `now_ms`, in milliseconds since 1970. Who comes while it is asked for waits for it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn current(&self, source: &TokenSource, now_ms: i64) -> Result<LoginToken, TokenError> {
        let mut state = self.state.lock().await;
        if state.source.as_ref() != Some(source) {
            *state = State { source: Some(source.clone()), ..State::default() };
        }
        if let Some(held) = state.held.as_ref().filter(|held| now_ms < held.refresh_ms) {
            return Ok(held.token.clone());
        }
        let mut error = None;
        if state.paused_until.is_none_or(|until| until <= Instant::now()) {
            match fetch(source).await {
                Ok(token) if token.expires_ms > now_ms => state.hold(token, source, now_ms),
                Ok(_) => error = Some(TokenError::Expired),
                Err(failed) => error = Some(failed),
            }
            if let Some(error) = &error {
                state.failed(source, chain(error));
            }
        }
        match &state.held {
            Some(held) if now_ms < held.token.expires_ms => Ok(held.token.clone()),
            _ => Err(error.unwrap_or_else(|| TokenError::Again(state.failure.clone()))),
        }
    }

    /// Another broker did not take `token`: a new one is asked for at the next login, unless this one is as new as the longest
    /// pause is long. Until it is there the old one is used, since a single broker may be wrong.
    pub async fn doubt(&self, token: &LoginToken, source: &TokenSource) {
        let mut state = self.state.lock().await;
        if let Some(held) = state.held.as_mut().filter(|held| held.token == *token) {
            held.refresh_ms = i64::MIN;
            state.paused_until = held.since.checked_add(source.max_backoff);
        }
    }
}

impl State {
    fn hold(&mut self, token: LoginToken, source: &TokenSource, now_ms: i64) {
        let is_new = self.held.as_ref().is_none_or(|held| held.token != token);
        if is_new {
            info!(subject = %token.subject, expires_ms = token.expires_ms, "a token to log in to other brokers with");
            self.failures = 0;
        } else {
            // A file that nobody has renewed.
            self.failures = (self.failures + 1).min(COUNTED);
        }
        let refresh_ms = source.refresh.at_ms(&token, now_ms, random());
        self.held = Some(Held { token, since: Instant::now(), refresh_ms });
        self.pause(source);
    }

    fn failed(&mut self, source: &TokenSource, why: String) {
        warn!(error = %why, "a token to log in to other brokers with cannot be had");
        self.failure = why;
        self.failures = (self.failures + 1).min(COUNTED);
        self.pause(source);
    }

    fn pause(&mut self, source: &TokenSource) {
        let doubled = source.backoff.saturating_mul(2_u32.saturating_pow(self.failures.saturating_sub(1)));
        self.paused_until = Instant::now().checked_add(doubled.min(source.max_backoff));
    }
}

/// From 0 to 1.
fn random() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

async fn fetch(source: &TokenSource) -> Result<LoginToken, TokenError> {
    let text = match &source.origin {
        TokenOrigin::File(path) => {
            let read = async {
                let mut text = String::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).await?;
                Ok::<_, io::Error>(text)
            };
            read.await.map_err(TokenError::File)?
        }
        TokenOrigin::Endpoint(endpoint) => endpoint.ask().await?,
    };
    if text.len() > MAX_BYTES {
        return Err(TokenError::Length);
    }
    Ok(LoginToken::parse(&text, &source.subject_claim)?)
}

impl TokenEndpoint {
    /// Asks for a token, as the client.
    async fn ask(&self) -> Result<String, TokenError> {
        // Whoever it would send us to is not who was trusted with the secret.
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(self.connect_limit)
            .read_timeout(self.read_limit)
            .timeout(self.connect_limit.saturating_add(self.read_limit))
            .build()?;
        let asked = client
            .post(self.url.clone())
            .basic_auth(&self.client, Some(self.secret.reveal()))
            .header(header::ACCEPT, "application/json")
            .header(header::CACHE_CONTROL, "no-cache")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(self.form());
        let mut answer = asked.send().await?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(TokenError::Length);
            }
            body.extend_from_slice(&chunk);
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != StatusCode::OK && status != StatusCode::CREATED {
            return Err(TokenError::Refused { status, told: self.told(&body) });
        }
        let found = ["access_token", "id_token"].into_iter().find_map(|name| body[name].as_str());
        found.filter(|token| !token.trim().is_empty()).map(str::to_owned).ok_or(TokenError::NoToken)
    }

    fn form(&self) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.extend_pairs(self.scope.iter().map(|scope| ("scope", scope)));
        form.finish()
    }

    /// What a provider says about a failure, without the secret, should it repeat that.
    fn told(&self, body: &Value) -> String {
        let words = [&body["error"], &body["error_description"], &body["errorCode"], &body["errorSummary"]];
        let words: Vec<&str> = words.into_iter().filter_map(Value::as_str).collect();
        if words.is_empty() {
            return String::new();
        }
        let told = words.join(", ").replace(self.secret.reveal(), "[hidden]");
        let shown: String = told.chars().filter(|one| !one.is_control()).take(TOLD).collect();
        format!(": {shown}")
    }
}

#[cfg(test)]
mod tests {
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
            let length =
                text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
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
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_provider_is_asked_as_its_client_and_once_for_all_who_log_in() {
        let (listener, source) = endpoint(Some("kafka brokers")).await;
        let tokens = Tokens::default();
        let body = json!({"access_token": token("broker", 1000), "token_type": "Bearer"}).to_string();
        let (first, second, text) = tokio::join!(
            tokens.current(&source, 0),
            tokens.current(&source, 799_000),
            answer(&listener, "200 OK", &body)
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
            let (failed, _) = tokio::join!(tokens.current(&source, 0), answer(&listener, status, body));
            let failed = failed.unwrap_err();
            assert!(chain(&failed).contains(words), "{}", chain(&failed));
            let again = tokens.current(&source, 0).await.unwrap_err();
            assert!(matches!(&again, TokenError::Again(why) if why.contains(words)), "{again:?}");
            assert!(!format!("{failed:?} {} {again:?}", chain(&failed)).contains("hunter2"), "{failed:?}");
        }
        let (listener, source) = endpoint(None).await;
        drop(listener);
        let failed = Tokens::default().current(&source, 0).await.unwrap_err();
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
        let subject = async |now_s: i64| tokens.current(&source, now_s * 1000).await.map(|token| token.subject);
        assert!(matches!(subject(0).await, Err(TokenError::File(_))));
        std::fs::write(&path, token("first", 1000)).unwrap();
        assert!(matches!(subject(0).await, Err(TokenError::Again(_))), "not before the pause is over");
        advance(Duration::from_secs(1)).await;
        assert_eq!(subject(0).await.unwrap(), "first");

        std::fs::write(&path, token("second", 2000)).unwrap();
        advance(Duration::from_secs(600)).await;
        assert_eq!(subject(799).await.unwrap(), "first", "its time has not come");
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
        let current = async || tokens.current(&source, 0).await.unwrap();
        std::fs::write(&path, token("first", 1000)).unwrap();
        let first = current().await;
        std::fs::write(&path, token("second", 1000)).unwrap();
        tokens.doubt(&first, &source).await;
        assert_eq!(current().await, first, "it is new: others may take it");
        advance(Duration::from_secs(8)).await;
        let second = current().await;
        assert_eq!(second.subject, "second");
        std::fs::write(&path, token("third", 1000)).unwrap();
        advance(Duration::from_secs(60)).await;
        tokens.doubt(&first, &source).await;
        assert_eq!(current().await, second, "the doubt is of another one");
        tokens.doubt(&second, &source).await;
        assert_eq!(current().await.subject, "third");
    }

    #[tokio::test]
    async fn another_source_has_other_tokens() {
        let (_folder, path, source) = file();
        let tokens = Tokens::default();
        std::fs::write(&path, token("first", 1000)).unwrap();
        assert_eq!(tokens.current(&source, 0).await.unwrap().subject, "first");
        let other = path.with_extension("other");
        std::fs::write(&other, token("other", 1000)).unwrap();
        let other = TokenSource { origin: TokenOrigin::File(other), ..source };
        assert_eq!(tokens.current(&other, 0).await.unwrap().subject, "other");
    }
}
