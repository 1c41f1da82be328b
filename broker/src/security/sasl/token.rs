//! The token of OAUTHBEARER as which this node logs in to other brokers: what is in it, and when it is time for a new one
//! (KIP-255, KIP-768).

use std::{fmt, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use url::Url;

use crate::security::Secret;

/// Where tokens come from, and how they are used.
#[derive(Clone, PartialEq)]
pub struct TokenSource {
    /// Who gives them out.
    pub origin: TokenOrigin,
    /// The claim that says who it is: `sasl.oauthbearer.sub.claim.name`.
    pub subject_claim: String,
    /// What is told besides the token: `extension_NAME="VALUE"` of the login configuration.
    pub extensions: Vec<(String, String)>,
    /// When a new one is asked for.
    pub refresh: Refresh,
    /// First pause after a failure; it doubles with every further one.
    pub backoff: Duration,
    /// Longest pause after failures.
    pub max_backoff: Duration,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What extensions say may be secret.
        let names: Vec<&String> = self.extensions.iter().map(|(name, _)| name).collect();
        f.debug_struct("TokenSource")
            .field("origin", &self.origin)
            .field("subject_claim", &self.subject_claim)
            .field("extensions", &names)
            .field("refresh", &self.refresh)
            .field("backoff", &self.backoff)
            .field("max_backoff", &self.max_backoff)
            .finish()
    }
}

/// Who gives out tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// Somebody who keeps this file up to date.
    File(PathBuf),
    /// An identity provider that knows this node as its client (RFC 6749, section 4.4).
    Endpoint(TokenEndpoint),
}

/// How an identity provider is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// `http:` or `https:`.
    pub url: Url,
    /// The client's id.
    pub client: String,
    /// The client's secret.
    pub secret: Secret,
    /// What the token is to be good for, in the provider's words.
    pub scope: Option<String>,
    /// How long a connection may take.
    pub connect_limit: Duration,
    /// How long an answer may take.
    pub read_limit: Duration,
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest of the URL may hold a secret.
        f.debug_struct("TokenEndpoint")
            .field("url", &self.url.origin().ascii_serialization())
            .field("client", &self.client)
            .field("secret", &self.secret)
            .field("scope", &self.scope)
            .field("connect_limit", &self.connect_limit)
            .field("read_limit", &self.read_limit)
            .finish()
    }
}

/// When a token is replaced: `sasl.login.refresh.…`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refresh {
    /// Part of a token's life, from 0.5 to 1.
    pub factor: f64,
    /// The largest random part of its life that is added, up to 0.25: brokers do not ask all at once.
    pub jitter: f64,
    /// Not sooner than that after the last one.
    pub least: Duration,
    /// Not later than that before its end.
    pub buffer: Duration,
}

/// A token that has been looked at. Whether its signature is good is for the others to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginToken {
    /// As it is sent.
    pub text: Secret,
    /// Who it says this node is.
    pub subject: String,
    /// Since when it is good, in milliseconds since 1970.
    pub issued_ms: Option<i64>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: i64,
}

/// What came is no token. It tells nothing of what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedToken {
    /// Not three parts of base64 with a JSON object in the second.
    #[error("it is no JSON web token")]
    Shape,
    /// A claim is missing, or of another kind.
    #[error("its claim {0} is missing, or is no such")]
    Claim(String),
}

impl LoginToken {
    /// Reads a token, whose subject is in the claim `subject_claim`.
    ///
    /// # Errors
    /// [`MalformedToken`].
    pub fn parse(text: &str, subject_claim: &str) -> Result<LoginToken, MalformedToken> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = parts[..] else { return Err(MalformedToken::Shape) };
        let is_sound = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if header.is_empty() || ![header, payload, signature].into_iter().all(is_sound) {
            return Err(MalformedToken::Shape);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| MalformedToken::Shape)?;
        let claims: Value = serde_json::from_slice(&payload).map_err(|_| MalformedToken::Shape)?;
        let missing = |name: &str| MalformedToken::Claim(name.to_owned());
        let subject = claims[subject_claim].as_str().map(str::trim).filter(|subject| !subject.is_empty());
        let subject = subject.ok_or_else(|| missing(subject_claim))?.to_owned();
        let expires_ms = millis(&claims["exp"]).ok_or_else(|| missing("exp"))?;
        Ok(LoginToken { text: Secret::new(text), subject, issued_ms: millis(&claims["iat"]), expires_ms })
    }
}

/// Seconds since 1970, maybe with a fraction.
fn millis(claim: &Value) -> Option<i64> {
    // Beyond that nobody's clock goes, and a float is exact before it.
    const LAST: f64 = (1_u64 << 53) as f64;
    let millis = claim.as_f64()? * 1000.0;
    (0.0..LAST).contains(&millis).then_some(millis as i64)
}

impl Refresh {
    /// When `token`, which was got at `now_ms`, is to be replaced, as Kafka's clients have it. `random`: from 0 to 1.
    pub fn at_ms(&self, token: &LoginToken, now_ms: i64, random: f64) -> i64 {
        let part = (self.factor + self.jitter * random.clamp(0.0, 1.0)).clamp(0.0, 1.0);
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let (least, buffer) = (millis(self.least), millis(self.buffer));
        let end = token.expires_ms;
        let after = |start: i64| start + ((end - start).max(0) as f64 * part) as i64;
        // A short life leaves no room for either.
        if now_ms.saturating_add(least.saturating_add(buffer)) > end {
            return after(now_ms);
        }
        let start = token.issued_ms.unwrap_or(now_ms).min(end);
        after(start).max(now_ms.saturating_add(least)).min(end - buffer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULES: Refresh =
        Refresh { factor: 0.8, jitter: 0.05, least: Duration::from_secs(60), buffer: Duration::from_secs(300) };

    fn encoded(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "ES256"})), part(claims))
    }

    fn token(issued_s: i64, expires_s: i64) -> LoginToken {
        LoginToken::parse(&encoded(&json!({"sub": "broker", "iat": issued_s, "exp": expires_s})), "sub").unwrap()
    }

    #[test]
    fn a_token_says_who_it_is_and_when_it_ends() {
        let text = encoded(&json!({"sub": "broker", "azp": "client", "exp": 2000.5}));
        let token = LoginToken::parse(&format!(" {text}\n"), "azp").unwrap();
        assert_eq!((token.subject.as_str(), token.issued_ms, token.expires_ms), ("client", None, 2_000_500));
        assert_eq!(token.text.reveal(), text);
        assert!(!format!("{token:?}").contains(&text), "{token:?}");
    }

    #[test]
    fn where_tokens_come_from_is_shown_without_what_may_be_secret() {
        let endpoint = TokenEndpoint {
            url: Url::parse("https://user:hunter2@id.example:8443/hunter2?key=hunter2").unwrap(),
            client: "broker".to_owned(),
            secret: Secret::new("hunter2"),
            scope: None,
            connect_limit: Duration::ZERO,
            read_limit: Duration::ZERO,
        };
        let source = TokenSource {
            origin: TokenOrigin::Endpoint(endpoint),
            subject_claim: "sub".to_owned(),
            extensions: vec![("pool".to_owned(), "hunter2".to_owned())],
            refresh: RULES,
            backoff: Duration::ZERO,
            max_backoff: Duration::ZERO,
        };
        let shown = format!("{source:?}");
        assert!(shown.contains("https://id.example:8443") && shown.contains("pool"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_told() {
        for text in ["", "a.b", "a.b.c", "..", "a.bm90aGluZw.c", "a.b.c.d"] {
            assert_eq!(LoginToken::parse(text, "sub"), Err(MalformedToken::Shape), "{text}");
        }
        let whole = encoded(&json!({"sub": "broker", "exp": 2000}));
        for broken in [whole.replacen('.', ".\u{1}", 1), whole.replacen('.', ". ", 1), format!("{whole}=")] {
            assert_eq!(LoginToken::parse(&broken, "sub"), Err(MalformedToken::Shape), "{broken:?}");
        }
        for (claims, name) in [
            (json!({"exp": 2000}), "sub"),
            (json!({"sub": " ", "exp": 2000}), "sub"),
            (json!({"sub": 7, "exp": 2000}), "sub"),
            (json!(["sub"]), "sub"),
            (json!({"sub": "broker"}), "exp"),
            (json!({"sub": "broker", "exp": "soon"}), "exp"),
            (json!({"sub": "broker", "exp": -1}), "exp"),
            (json!({"sub": "broker", "exp": 1e300}), "exp"),
        ] {
            let refused = LoginToken::parse(&encoded(&claims), "sub");
            assert_eq!(refused, Err(MalformedToken::Claim(name.to_owned())), "{claims}");
        }
    }

    #[test]
    fn a_token_is_replaced_after_most_of_its_life_and_before_its_buffer() {
        // An hour, got half a minute after it was made.
        assert_eq!(RULES.at_ms(&token(0, 3600), 30_000, 0.0), 2_880_000);
        assert_eq!(RULES.at_ms(&token(0, 3600), 30_000, 1.0), 3_060_000);
        // Ten minutes: the buffer is more than a fifth.
        assert_eq!(RULES.at_ms(&token(0, 600), 0, 0.0), 300_000);
        // One that was old when it came: not at once again.
        assert_eq!(RULES.at_ms(&token(0, 3600), 3_100_000, 0.0), 3_160_000);
        // A minute has room for neither.
        assert_eq!(RULES.at_ms(&token(0, 60), 10_000, 0.0), 50_000);
        // Ended already.
        assert_eq!(RULES.at_ms(&token(0, 60), 100_000, 0.5), 100_000);
    }
}
