//! Tokens that this node has to log in to other brokers with: one at a time, got when it is needed, from a file or an identity
//! provider.
//!
//! ```text
//!  a login ─► a token that is good, and not about to end ─► that one; if its time has come, a new one is asked for beside
//!                   │ no, and the last attempt is a pause ago
//!                   ▼
//!             read the file · POST grant_type=client_credentials ─► a new one
//!                   │ it cannot be had
//!                   ▼
//!             the old one, as long as it is good
//! ```

#[cfg(test)]
mod tests;

use std::{fmt, io, sync::Arc};

use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use reqwest::{StatusCode, header, redirect::Policy};
use serde_json::Value;
use tokio::{io::AsyncReadExt, sync::Mutex as Turn, time::Instant};
use tracing::{info, warn};
use uuid::Uuid;

use super::token::{LoginToken, MalformedToken, TokenEndpoint, TokenOrigin, TokenSource};
use crate::security::chain;

/// The most that is read of a file or an answer, in bytes: a token is some kilobytes.
const MAX_BYTES: usize = 1 << 20;
/// The most that is told of what a provider says about a failure, in characters.
const TOLD: usize = 300;
/// So near its end, in milliseconds, a token is no longer used without a try to get another one first: it would end on its way, or the
/// session with it before there is time to renew that.
const NEAR_END_MS: i64 = 30_000;
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
    state: Arc<Mutex<State>>,
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
    /// Whoever asks has it: one at a time, and as long as that takes.
    turn: Arc<Turn<()>>,
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

/// What a login does at one moment.
enum Step {
    Use(LoginToken),
    /// The same, and a new one is asked for that others will use.
    UseAndRefresh(LoginToken),
    /// None is good, or not for long.
    Ask,
    /// None is good, and it is too soon to ask.
    GiveUp(TokenError),
}

impl Tokens {
    /// A token of `source` that is good now. `now_ms`: a clock, in milliseconds since 1970. Nobody waits while a token is good for a
    /// while yet; else whoever comes while one is asked for waits for it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn current<C>(&self, source: &TokenSource, now_ms: C) -> Result<LoginToken, TokenError>
    where
        C: Fn() -> i64 + Copy + Send + 'static,
    {
        let (step, turn) = self.step(source, now_ms());
        match step {
            Step::Use(token) => return Ok(token),
            Step::UseAndRefresh(token) => {
                // Unless somebody asks already. The turn ends with the task, however that ends.
                if let Ok(turn) = turn.try_lock_owned() {
                    let (state, source) = (self.state.clone(), source.clone());
                    tokio::spawn(async move {
                        // Why it failed is told, and kept.
                        drop(ask(&state, &source, now_ms).await);
                        drop(turn);
                    });
                }
                return Ok(token);
            }
            Step::GiveUp(error) => return Err(error),
            Step::Ask => {}
        }
        let _turn = turn.lock().await;
        // Whose turn it was before may have got one.
        match self.step(source, now_ms()).0 {
            Step::Use(token) | Step::UseAndRefresh(token) => return Ok(token),
            Step::GiveUp(error) => return Err(error),
            Step::Ask => {}
        }
        let asked = ask(&self.state, source, now_ms).await;
        asked.or_else(|error| self.lock(source).good(now_ms()).map(|held| held.token.clone()).ok_or(error))
    }

    /// Another broker did not take `token`: a new one is asked for at the next login, unless this one is as new as the longest
    /// pause is long, or the last attempt has just failed. Until it is there the old one is used, since a single broker may be wrong.
    pub fn doubt(&self, token: &LoginToken, source: &TokenSource) {
        let mut state = self.state.lock();
        if let Some(held) = state.held.as_mut().filter(|held| held.token == *token) {
            held.refresh_ms = i64::MIN;
            let not_before = held.since.checked_add(source.max_backoff);
            state.paused_until = state.paused_until.max(not_before);
        }
    }

    fn step(&self, source: &TokenSource, now_ms: i64) -> (Step, Arc<Turn<()>>) {
        let state = self.lock(source);
        (state.step(now_ms), state.turn.clone())
    }

    /// What is known of `source`; of another one it is forgotten.
    fn lock(&self, source: &TokenSource) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if state.source.as_ref() != Some(source) {
            *state = State { source: Some(source.clone()), ..State::default() };
        }
        state
    }
}

/// Asks for a token, and notes what comes, if `source` is still the one by then. It is the caller's turn.
async fn ask(state: &Mutex<State>, source: &TokenSource, now_ms: impl Fn() -> i64) -> Result<LoginToken, TokenError> {
    // Boxed: what HTTP is made of is too deep to be part of every future that may log in.
    let fetched = fetch(source).boxed().await;
    let now_ms = now_ms();
    let asked = fetched.and_then(|token| match token.expires_ms > now_ms {
        true => Ok(token),
        false => Err(TokenError::Expired),
    });
    let mut state = state.lock();
    if state.source.as_ref() == Some(source) {
        match &asked {
            Ok(token) => state.hold(token.clone(), source, now_ms),
            Err(error) => state.failed(source, chain(error)),
        }
    }
    asked
}

impl State {
    fn step(&self, now_ms: i64) -> Step {
        let is_paused = self.paused_until.is_some_and(|until| Instant::now() < until);
        match self.good(now_ms) {
            Some(held) if is_paused || now_ms < held.refresh_ms => Step::Use(held.token.clone()),
            Some(held) if now_ms < held.token.expires_ms.saturating_sub(NEAR_END_MS) => {
                Step::UseAndRefresh(held.token.clone())
            }
            None if is_paused => Step::GiveUp(TokenError::Again(self.failure.clone())),
            Some(_) | None => Step::Ask,
        }
    }

    fn good(&self, now_ms: i64) -> Option<&Held> {
        self.held.as_ref().filter(|held| now_ms < held.token.expires_ms)
    }

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
