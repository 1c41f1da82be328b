//! A bucket in memory under a process that dies at a chosen write.

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
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use tokio::sync::Notify;

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

    async fn write<T>(&self, write: impl Future<Output = Result<T>>) -> Result<T> {
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

#[derive(Clone, Debug)]
pub(crate) struct CrashStore {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) fuse: Arc<Fuse>,
}

impl fmt::Display for CrashStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for CrashStore {
    async fn put_opts(&self, at: &Path, content: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.fuse.write(self.inner.put_opts(at, content, options)).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(&self, places: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, fuse) = (Arc::clone(&self.inner), Arc::clone(&self.fuse));
        places
            .then(move |at| {
                let (inner, fuse) = (Arc::clone(&inner), Arc::clone(&fuse));
                async move {
                    let at = at?;
                    let delete = async {
                        object_store::ObjectStoreExt::delete(inner.as_ref(), &at).await?;
                        Ok(at.clone())
                    };
                    fuse.write(delete).await
                }
            })
            .boxed()
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

#[async_trait::async_trait]
impl MultipartStore for CrashStore {
    async fn create_multipart(&self, at: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(at).await
    }

    async fn put_part(&self, at: &Path, id: &MultipartId, part: usize, data: PutPayload) -> Result<PartId> {
        self.fuse.write(self.inner.put_part(at, id, part, data)).await
    }

    async fn complete_multipart(&self, at: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.fuse.write(self.inner.complete_multipart(at, id, parts)).await
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(at, id).await
    }
}
