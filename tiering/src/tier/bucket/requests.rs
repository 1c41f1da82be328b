//! Requests: bounded, repeated, counted.

use std::{
    future::Future,
    io,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, multipart::MultipartStore, path::Path,
};
use tracing::{Instrument, field, trace_span};
use uuid::Uuid;
use varve_metadata::model::Timestamp;

use super::{
    failure::Failure,
    local::{LocalDirectory, Staged},
    metrics::{BucketMetrics, Operation},
    open::BucketOptions,
};
use crate::layout::Key;

/// Deletes in flight at once, where the store has no request for many.
const DELETES_IN_FLIGHT: usize = 16;

/// An open bucket; clones share it.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    url: String,
    store: Arc<dyn ObjectStore>,
    backend: Backend,
    root: Path,
    options: BucketOptions,
    metrics: BucketMetrics,
}

/// How bytes get in: what `object_store` does not do for us.
#[derive(Clone)]
pub(super) enum Backend {
    /// Synced files.
    Local(Arc<LocalDirectory>),
    /// Parts with numbers, so that one part can be sent again.
    Remote(Arc<dyn MultipartStore>),
}

/// Why a request to the bucket failed, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// Nothing has this key.
    #[error("{0} is not in the bucket")]
    NotFound(Key),
    /// The bucket itself is not there.
    #[error("there is no such bucket")]
    NoBucket,
    /// Somebody else's content has this key.
    #[error("{0} is already in the bucket")]
    AlreadyExists(Key),
    /// A create got no clear answer: it may have happened, only a read can tell.
    #[error("whether {key} was written is unknown")]
    Unknown {
        /// What was written.
        key: Key,
        /// The last attempt's failure.
        source: object_store::Error,
    },
    /// Weather: all attempts failed or took too long. Try again later.
    #[error("the bucket is unavailable ({key})")]
    Unavailable {
        /// What was asked for.
        key: String,
        /// The last attempt's failure.
        source: object_store::Error,
    },
    /// The store will not do this for us: credentials, rights or configuration. Trying again helps only after a change.
    #[error("the bucket refuses ({key})")]
    Refused {
        /// What was asked for.
        key: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// The object is not as large as it must be.
    #[error("{key} has {found} bytes, expected {expected}")]
    Size {
        /// The object.
        key: Key,
        /// Its bytes.
        found: u64,
        /// What was expected at most, or exactly.
        expected: u64,
    },
}

/// One object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, relative to the bucket's root; not necessarily one that Varve wrote.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

impl Bucket {
    pub(super) fn new(
        url: &str,
        store: Arc<dyn ObjectStore>,
        backend: Backend,
        root: Path,
        options: BucketOptions,
        metrics: BucketMetrics,
    ) -> Bucket {
        Bucket(Arc::new(Inner { url: url.to_owned(), store, backend, root, options, metrics }))
    }

    /// Where it is, as configured.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// What its requests cost.
    pub fn metrics(&self) -> &BucketMetrics {
        &self.0.metrics
    }

    pub(super) fn options(&self) -> &BucketOptions {
        &self.0.options
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// The whole object, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`BucketError::NotFound`], `Size`, `Unavailable`, `Refused`.
    pub async fn get(&self, key: &Key, limit: u64) -> Result<Bytes, BucketError> {
        let path = self.path(key);
        let attempt = || async {
            let found = self.0.store.get_opts(&path, GetOptions::default()).await?;
            let size = found.meta.size;
            if size > limit { Ok(Err(size)) } else { found.bytes().await.map(Ok) }
        };
        let found =
            self.repeat(Operation::Get, limit.min(64 << 20), attempt).await.map_err(|failure| failure.of(key))?;
        let bytes = found.map_err(|found| BucketError::Size { key: key.clone(), found, expected: limit })?;
        self.0.metrics.moved(Operation::Get, bytes.len() as u64);
        Ok(bytes)
    }

    /// Bytes `range` of the object, all of them.
    ///
    /// # Errors
    /// [`BucketError::NotFound`], `Size` (the object ends before the range does), `Unavailable`, `Refused`.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, BucketError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let path = self.path(key);
        let attempt = || self.0.store.get_range(&path, range.clone());
        let bytes = self.repeat(Operation::Get, wanted, attempt).await.map_err(|failure| failure.of(key))?;
        self.0.metrics.moved(Operation::Get, bytes.len() as u64);
        if bytes.len() as u64 != wanted {
            return Err(BucketError::Size { key: key.clone(), found: bytes.len() as u64, expected: wanted });
        }
        Ok(bytes)
    }

    /// Size and time of the object.
    ///
    /// # Errors
    /// [`BucketError::NotFound`], `Unavailable`, `Refused`.
    pub async fn head(&self, key: &Key) -> Result<Listed, BucketError> {
        let path = self.path(key);
        let meta =
            self.repeat(Operation::Head, 0, || self.0.store.head(&path)).await.map_err(|failure| failure.of(key))?;
        Ok(Listed { key: key.as_str().to_owned(), bytes: meta.size, modified: timestamp(&meta) })
    }

    /// Writes `content` under `key` if nothing is there. The bucket's one compare-and-set.
    ///
    /// Whether an earlier attempt of this very call was the winner is settled by reading: so `content` must differ between
    /// writers (a random nonce in it), and equal content counts as this call's own.
    ///
    /// # Errors
    /// [`BucketError::AlreadyExists`]: somebody else's content is there. [`BucketError::Unknown`]: only a read can tell.
    /// `Refused`.
    pub async fn create(&self, key: &Key, content: Bytes) -> Result<(), BucketError> {
        let mut pause = self.0.options.first_pause;
        for attempt in 1.. {
            match self.once(Operation::Put, content.len() as u64, self.put_once(key, &content, true)).await {
                Ok(()) => {
                    self.0.metrics.moved(Operation::Put, content.len() as u64);
                    return Ok(());
                }
                Err(Failure::Exists) => match self.get(key, content.len() as u64).await {
                    Ok(found) if found == content => return Ok(()),
                    Ok(_) | Err(BucketError::Size { .. }) => return Err(BucketError::AlreadyExists(key.clone())),
                    // A store answers "conflict" too while another create is under way that then fails.
                    Err(BucketError::NotFound(_)) if attempt < self.0.options.attempts => {}
                    Err(BucketError::Unavailable { source, .. } | BucketError::Refused { source, .. }) => {
                        return Err(BucketError::Unknown { key: key.clone(), source });
                    }
                    Err(error) => return Err(error),
                },
                Err(Failure::Weather(source)) if attempt >= self.0.options.attempts => {
                    return Err(BucketError::Unknown { key: key.clone(), source });
                }
                Err(Failure::Weather(_)) => {}
                Err(failure) => return Err(failure.of(key)),
            }
            self.pause(&mut pause).await;
        }
        unreachable!("the loop ends with the last attempt")
    }

    /// Writes `content` under `key`, over what is there. For names that only one writer can have drawn.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`] (it may have been written), `Refused`.
    pub async fn put(&self, key: &Key, content: Bytes) -> Result<(), BucketError> {
        let attempt = || self.put_once(key, &content, false);
        self.repeat(Operation::Put, content.len() as u64, attempt).await.map_err(|failure| failure.of(key))?;
        self.0.metrics.moved(Operation::Put, content.len() as u64);
        Ok(())
    }

    /// Deletes the object; one that is not there is deleted already.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`], `Refused`.
    pub async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.delete_path(self.path(key)).await.map_err(|failure| failure.of(key))
    }

    /// Deletes all of `keys`, several at a time. Stops at the first failure.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`], `Refused`.
    pub async fn delete_all(&self, keys: impl IntoIterator<Item = Key, IntoIter: Send>) -> Result<(), BucketError> {
        let deletes = futures::stream::iter(keys).map(|key| async move { self.delete(&key).await });
        deletes.buffer_unordered(DELETES_IN_FLIGHT).try_collect().await
    }

    /// Everything below `prefix` (whole path parts) whose key sorts after `after`, sorted. For prefixes known to be small.
    ///
    /// # Errors
    /// [`BucketError::Unavailable`], `Refused`.
    pub async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Listed>, BucketError> {
        let attempt = || async {
            let mut found: Vec<Listed> = self.listing(prefix, after).try_collect().await?;
            found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        };
        self.repeat(Operation::List, 0, attempt).await.map_err(|failure| failure.at(prefix))
    }

    /// Whether the bucket is there at all: where it is not, an object that is asked for is only missing. Costs one page of a listing.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], `Unavailable`, `Refused`.
    pub async fn reach(&self) -> Result<(), BucketError> {
        let attempt = || async { self.listing("", None).try_next().await };
        match self.repeat(Operation::List, 0, attempt).await {
            Ok(_) => Ok(()),
            Err(Failure::Missing) => Err(BucketError::NoBucket),
            // Which status a listing got, the clients of stores say in words alone.
            Err(Failure::Weather(error)) if error.to_string().contains("404 Not Found") => Err(BucketError::NoBucket),
            Err(failure) => Err(failure.at("a listing")),
        }
    }

    /// Everything below `prefix`, in no particular order, page by page, each within the time of one attempt. A failure ends
    /// it: begin again.
    pub fn list_stream(&self, prefix: &str) -> BoxStream<'static, Result<Listed, BucketError>> {
        let (metrics, at, started) = (self.0.metrics.clone(), prefix.to_owned(), Instant::now());
        let limit = self.0.options.attempt_timeout;
        let next = move |mut listing: BoxStream<'static, object_store::Result<Listed>>| async move {
            match tokio::time::timeout(limit, listing.try_next()).await {
                Ok(listed) => Ok(listed?.map(|listed| (listed, listing))),
                Err(elapsed) => Err(object_store::Error::Generic { store: "timeout", source: Box::new(elapsed) }),
            }
        };
        futures::stream::try_unfold(self.listing(prefix, None), next)
            .map_err(move |error| {
                metrics.attempt(Operation::List, "error", started.elapsed());
                Failure::from(error).at(&at)
            })
            .boxed()
    }

    /// Everything below `prefix`, in no particular order, each given to `add`: for what is too much to be kept. A listing
    /// that breaks off is begun again, from the beginning and from nothing.
    ///
    /// # Errors
    /// As [`Bucket::list`].
    pub async fn fold<T: Default>(&self, prefix: &str, add: impl Fn(&mut T, Listed)) -> Result<T, BucketError> {
        let once = || async {
            let mut found = T::default();
            let mut listing = self.list_stream(prefix);
            while let Some(listed) = listing.try_next().await? {
                add(&mut found, listed);
            }
            Ok(found)
        };
        let mut pause = self.0.options.first_pause;
        for nth in 1.. {
            match once().await {
                Err(BucketError::Unavailable { .. }) if nth < self.0.options.attempts => {}
                outcome => return outcome,
            }
            self.pause(&mut pause).await;
        }
        unreachable!("the loop ends with the last attempt")
    }

    fn listing(&self, prefix: &str, after: Option<&Key>) -> BoxStream<'static, object_store::Result<Listed>> {
        let below = Path::from(format!("{}/{prefix}", self.0.root));
        let found = match after {
            Some(after) => self.0.store.list_with_offset(Some(&below), &self.path(after)),
            None => self.0.store.list(Some(&below)),
        };
        let root = self.0.root.clone();
        found
            .map_ok(move |meta| {
                let (modified, location) = (timestamp(&meta), meta.location.as_ref());
                let key = location.strip_prefix(root.as_ref()).unwrap_or(location).trim_start_matches('/');
                Listed { key: key.to_owned(), bytes: meta.size, modified }
            })
            .boxed()
    }

    async fn delete_path(&self, path: Path) -> Result<(), Failure> {
        match self.repeat(Operation::Delete, 0, || self.0.store.delete(&path)).await {
            Ok(()) | Err(Failure::Missing) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn put_once(&self, key: &Key, content: &Bytes, create: bool) -> object_store::Result<()> {
        match &self.0.backend {
            Backend::Local(directory) => {
                let (directory, key, content) = (Arc::clone(directory), key.clone(), content.clone());
                let write = move || -> io::Result<()> {
                    let mut staged: Staged = directory.stage()?;
                    staged.write(&content)?;
                    directory.place(staged, &key, create)
                };
                local(write).await
            }
            Backend::Remote(_) => {
                let mode = if create { PutMode::Create } else { PutMode::Overwrite };
                let options = PutOptions { mode, ..PutOptions::default() };
                self.0.store.put_opts(&self.path(key), content.clone().into(), options).await.map(drop)
            }
        }
    }

    pub(super) fn path(&self, key: &Key) -> Path {
        // `Key` allows nothing that a path would have to encode.
        Path::from(format!("{}/{key}", self.0.root))
    }

    /// Repeats `attempt` while it fails by weather, up to the configured number of attempts.
    pub(super) async fn repeat<T, F>(
        &self,
        operation: Operation,
        bytes: u64,
        attempt: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut pause = self.0.options.first_pause;
        for nth in 1.. {
            match self.once(operation, bytes, attempt()).await {
                Err(Failure::Weather(error)) if nth < self.0.options.attempts => {
                    tracing::debug!(?operation, nth, %error, "object store request failed, trying again");
                }
                outcome => return outcome,
            }
            self.pause(&mut pause).await;
        }
        unreachable!("the loop ends with the last attempt")
    }

    async fn once<T>(
        &self,
        operation: Operation,
        bytes: u64,
        attempt: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let options = &self.0.options;
        let limit = options.attempt_timeout + Duration::from_secs(bytes / options.slowest_rate.max(1));
        let started = Instant::now();
        let span = trace_span!(
            target: "varve_trace", "object store",
            otel.name = format!("object store {}", operation.label()), otel.kind = "client", outcome = field::Empty,
        );
        let outcome = match tokio::time::timeout(limit, attempt).instrument(span.clone()).await {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(elapsed) => {
                Err(Failure::Weather(object_store::Error::Generic { store: "timeout", source: Box::new(elapsed) }))
            }
        };
        let label = match &outcome {
            Ok(_) => "ok",
            Err(Failure::Missing) => "missing",
            Err(Failure::Exists) => "exists",
            Err(Failure::Refused(_)) => "refused",
            Err(Failure::Weather(_)) => "error",
        };
        span.record("outcome", label);
        self.0.metrics.attempt(operation, label, started.elapsed());
        outcome
    }

    /// Sleeps a random time below `pause`, and doubles it: those who failed together do not come back together.
    async fn pause(&self, pause: &mut Duration) {
        let random = f64::from(u32::from_le_bytes(*Uuid::new_v4().as_bytes().first_chunk().expect("16 bytes")));
        tokio::time::sleep(pause.mul_f64(random / f64::from(u32::MAX))).await;
        *pause = (*pause * 2).min(self.0.options.longest_pause);
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.0.url).finish()
    }
}

/// Runs file work off the async threads, with its error as the store would give it.
pub(super) async fn local<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            object_store::Error::AlreadyExists { path: String::new(), source: Box::new(error) }
        }
        io::ErrorKind::PermissionDenied => {
            object_store::Error::PermissionDenied { path: String::new(), source: Box::new(error) }
        }
        _ => object_store::Error::Generic { store: "local directory", source: Box::new(error) },
    })
}

fn timestamp(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from_wire(meta.last_modified.timestamp_millis()).unwrap_or_default()
}
