//! A bucket in memory with something between it and who uses it: what that does is each test's own [`Trouble`]. The one that
//! several need is here: a process that dies at a chosen write.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::sync::Notify;

/// What becomes of requests: each is handed over before it is carried out, and nothing happens to it unless a test says so.
/// Clones are the same trouble.
pub(crate) trait Trouble: Clone + fmt::Debug + Send + Sync + 'static {
    /// An object, or a part of one, is put, completed or deleted.
    fn write<T: Send>(&self, write: impl Future<Output = Result<T>> + Send) -> impl Future<Output = Result<T>> + Send {
        write
    }

    /// An object is read.
    fn read<T: Send>(
        &self,
        _at: &Path,
        read: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send {
        read
    }

    /// Objects are listed, unless this fails.
    fn list(&self) -> Result<()> {
        Ok(())
    }
}

/// When the process dies: at its `at`th write, before or after the store has done it. From then on nothing answers.
#[derive(Debug)]
pub(crate) struct Fuse {
    left: AtomicI64,
    after: bool,
    pub(crate) burnt: Notify,
}

impl Fuse {
    pub(crate) fn at(write: i64, after: bool) -> Arc<Fuse> {
        Arc::new(Fuse { left: AtomicI64::new(write), after, burnt: Notify::new() })
    }

    pub(crate) fn never() -> Arc<Fuse> {
        Fuse::at(i64::MAX, false)
    }
}

impl Trouble for Arc<Fuse> {
    async fn write<T: Send>(&self, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 {
            return write.await;
        }
        if left == 0 && self.after {
            let _ = write.await;
        }
        self.burnt.notify_one();
        std::future::pending().await
    }
}

/// The bucket `inner`, as one sees it who has `trouble`.
#[derive(Clone, Debug)]
pub(crate) struct TroubledStore<T> {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) trouble: T,
}

impl<T> fmt::Display for TroubledStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl<T: Trouble> ObjectStore for TroubledStore<T> {
    async fn put_opts(&self, at: &Path, content: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.trouble.write(self.inner.put_opts(at, content, options)).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.trouble.read(at, self.inner.get_opts(at, options)).await
    }

    fn delete_stream(&self, places: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let TroubledStore { inner, trouble } = self.clone();
        places
            .then(move |at| {
                let (inner, trouble) = (Arc::clone(&inner), trouble.clone());
                async move {
                    let at = at?;
                    trouble.write(inner.delete(&at)).await?;
                    Ok(at)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.trouble.list() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => refused(error),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.trouble.list() {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => refused(error),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.trouble.list()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn refused(error: object_store::Error) -> BoxStream<'static, Result<ObjectMeta>> {
    futures::stream::once(async { Err(error) }).boxed()
}

#[async_trait::async_trait]
impl<T: Trouble> MultipartStore for TroubledStore<T> {
    async fn create_multipart(&self, at: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(at).await
    }

    async fn put_part(&self, at: &Path, id: &MultipartId, part: usize, data: PutPayload) -> Result<PartId> {
        self.trouble.write(self.inner.put_part(at, id, part, data)).await
    }

    async fn complete_multipart(&self, at: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.trouble.write(self.inner.complete_multipart(at, id, parts)).await
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(at, id).await
    }
}
