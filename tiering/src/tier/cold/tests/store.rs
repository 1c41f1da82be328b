//! An object store in memory whose reads can be counted, held and made to fail.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::sync::{Notify, Semaphore};

/// What tests see and steer of a store. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Steering(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reads: AtomicUsize,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
    failures: AtomicUsize,
    gate: Semaphore,
    arrived: Notify,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            reads: AtomicUsize::default(),
            waiting: AtomicUsize::default(),
            most_waiting: AtomicUsize::default(),
            failures: AtomicUsize::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            arrived: Notify::new(),
        }
    }
}

impl Steering {
    /// Reads of objects' bytes so far.
    pub(super) fn reads(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }

    /// Most reads that were under way at one time.
    pub(super) fn most_at_once(&self) -> usize {
        self.0.most_waiting.load(Ordering::SeqCst)
    }

    /// The next `count` reads fail as if the network did.
    pub(super) fn fail_next(&self, count: usize) {
        self.0.failures.store(count, Ordering::SeqCst);
    }

    /// Holds all reads from now on, until [`Steering::release`].
    pub(super) async fn hold(&self) {
        self.0.gate.acquire_many((Semaphore::MAX_PERMITS / 2).min(u32::MAX as usize) as u32).await.unwrap().forget();
        self.0.gate.forget_permits(usize::MAX);
    }

    pub(super) fn release(&self) {
        self.0.gate.add_permits(1 << 20);
    }

    /// Waits until `count` reads are held.
    pub(super) async fn held(&self, count: usize) {
        loop {
            let arrived = self.0.arrived.notified();
            if self.0.waiting.load(Ordering::SeqCst) >= count {
                return;
            }
            arrived.await;
        }
    }

    async fn pass(&self) -> Result<()> {
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        let waiting = self.0.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_waiting.fetch_max(waiting, Ordering::SeqCst);
        self.0.arrived.notify_waiters();
        // Others get their turn, so that what runs at the same time is seen to.
        tokio::task::yield_now().await;
        drop(self.0.gate.acquire().await.unwrap());
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        let fails = self.0.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match fails {
            Ok(_) => Err(object_store::Error::Generic { store: "test", source: "connection reset".into() }),
            Err(_) => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(super) struct SteeredStore {
    inner: InMemory,
    steering: Steering,
}

impl SteeredStore {
    pub(super) fn new(steering: Steering) -> SteeredStore {
        SteeredStore { inner: InMemory::new(), steering }
    }
}

impl fmt::Display for SteeredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("steered")
    }
}

#[async_trait]
impl ObjectStore for SteeredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_data = location.as_ref().starts_with("raw") || location.as_ref().starts_with("tables");
        if is_data {
            self.steering.pass().await?;
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for SteeredStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(path).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.inner.put_part(path, id, index, data).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.inner.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(path, id).await
    }
}
