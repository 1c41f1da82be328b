//! The keys of an identity provider (RFC 7517), from a file or over HTTP, and how they are kept up to date.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::JwkSet;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::security::chain;

/// A provider that takes longer is asked again later.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that is read of an answer, in bytes: keys of a provider are some kilobytes.
const MAX_BYTES: usize = 1 << 20;

/// Keys as they were read last; none before that.
#[derive(Debug)]
pub struct Jwks {
    newest: ArcSwap<JwkSet>,
    asked: Notify,
    #[cfg(test)]
    asked_for: std::sync::atomic::AtomicBool,
}

/// Where keys are, and how often they are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksSource {
    /// `file:`, `http:` or `https:`.
    pub url: Url,
    /// Time from one look to the next.
    pub refresh: Duration,
    /// First pause after a failure; it doubles with every further one.
    pub backoff: Duration,
    /// Longest pause after failures.
    pub max_backoff: Duration,
}

#[derive(Debug, thiserror::Error)]
enum JwksError {
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("the provider cannot be asked")]
    Http(#[source] reqwest::Error),
    #[error("the provider did not answer in time")]
    Time,
    #[error("the answer is longer than {MAX_BYTES} bytes")]
    Length,
    #[error("the answer is no set of keys")]
    Malformed(#[from] serde_json::Error),
}

impl From<reqwest::Error> for JwksError {
    fn from(error: reqwest::Error) -> JwksError {
        // The URL may hold a secret; it is shown without.
        JwksError::Http(error.without_url())
    }
}

impl Default for Jwks {
    fn default() -> Jwks {
        Jwks::of(JwkSet { keys: Vec::new() })
    }
}

impl Jwks {
    /// These keys.
    pub fn of(keys: JwkSet) -> Jwks {
        Jwks {
            newest: ArcSwap::from_pointee(keys),
            asked: Notify::new(),
            #[cfg(test)]
            asked_for: Default::default(),
        }
    }

    pub(super) fn keys(&self) -> Arc<JwkSet> {
        self.newest.load_full()
    }

    /// A key was missing: the provider is asked for it before its time, but not more often than after failures.
    pub(super) fn ask_soon(&self) {
        #[cfg(test)]
        self.asked_for.store(true, std::sync::atomic::Ordering::Relaxed);
        self.asked.notify_one();
    }

    #[cfg(test)]
    pub(super) fn is_asked(&self) -> bool {
        self.asked_for.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Keeps the keys up to date until `stop`.
    pub async fn follow(self: Arc<Jwks>, source: JwksSource, stop: CancellationToken) {
        let mut failures = 0_u32;
        loop {
            let pause = match read(&source.url).await {
                Ok(keys) => {
                    if *self.newest.load_full() != keys {
                        info!(url = %shown(&source.url), keys = keys.keys.len(), "keys of the identity provider");
                    }
                    self.newest.store(Arc::new(keys));
                    failures = 0;
                    source.refresh
                }
                Err(error) => {
                    let error = chain(&error);
                    warn!(url = %shown(&source.url), %error, "keys of the identity provider cannot be read");
                    failures = failures.saturating_add(1);
                    source.pause_after(failures)
                }
            };
            let least = source.backoff.min(pause);
            let rest = async {
                tokio::time::sleep(least).await;
                let _ = timeout(pause - least, self.asked.notified()).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = rest => {}
            }
        }
    }
}

impl JwksSource {
    /// The pause after so many failures one after the other.
    fn pause_after(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        self.backoff.saturating_mul(doubled).min(self.max_backoff).max(Duration::from_millis(1))
    }
}

async fn read(url: &Url) -> Result<JwkSet, JwksError> {
    let bytes = match url.to_file_path() {
        Ok(path) if url.scheme() == "file" => tokio::fs::read(path).await?,
        _ => timeout(ANSWER, ask(url)).await.map_err(|_| JwksError::Time)??,
    };
    Ok(serde_json::from_slice(&bytes)?)
}

async fn ask(url: &Url) -> Result<Vec<u8>, JwksError> {
    let mut answer = reqwest::get(url.clone()).await?.error_for_status()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(JwksError::Length);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = (url.set_password(None), url.set_username(""));
    url.set_query(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let url = Url::parse("https://user:secret@id.example/keys?token=secret").unwrap();
        assert_eq!(shown(&url), "https://id.example/keys");
        let (backoff, max_backoff) = (Duration::from_millis(100), Duration::from_secs(1));
        let source = JwksSource { url, refresh: Duration::from_secs(60), backoff, max_backoff };
        let pauses: Vec<u128> = [1, 2, 4, 9, u32::MAX].map(|failures| source.pause_after(failures).as_millis()).into();
        assert_eq!(pauses, [100, 200, 800, 1000, 1000]);
    }

    #[tokio::test]
    async fn a_failure_tells_nothing_of_a_secret_in_the_url() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = Url::parse(&format!("http://user:hunter2@{nobody}/keys?token=hunter2")).unwrap();
        let error = read(&url).await.unwrap_err();
        assert!(matches!(error, JwksError::Http(_)), "{error}");
        assert!(!format!("{} {error:?}", chain(&error)).contains("hunter2"), "{error:?}");
        assert!(chain(&error).contains("refused"), "and why it failed: {}", chain(&error));
    }

    #[tokio::test]
    async fn keys_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}"#).unwrap();
        let keys = read(&Url::from_file_path(&path).unwrap()).await.unwrap();
        assert_eq!(keys.keys[0].common.key_id.as_deref(), Some("a"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(read(&Url::from_file_path(&path).unwrap()).await.is_err());
    }
}
