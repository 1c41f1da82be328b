//! A file on this machine or an object in a bucket, read by ranges.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use varve_tiering::layout::{self, Key};
use varve_tiering::tier::bucket::{Bucket, BucketMetrics};

use crate::config::ObjectStoreConfig;

/// What is looked at.
#[derive(Debug)]
pub(super) enum Content {
    File { file: File, bytes: u64 },
    Object { bucket: Bucket, key: Key, bytes: u64 },
}

impl Content {
    /// Opens a path, a URL (`file://`, `s3://`, `gs://`, `az://`), or a key of the configured bucket.
    pub(super) async fn open(name: &str, store: &ObjectStoreConfig) -> anyhow::Result<Content> {
        if let Some(path) = local_path(name) {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            let bytes = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?.len();
            return Ok(Content::File { file, bytes });
        }
        let (root, key) = match name.split_once("://") {
            Some((scheme, rest)) => {
                let (bucket, key) = rest.split_once('/').with_context(|| format!("{name} names no object"))?;
                (format!("{scheme}://{bucket}"), key)
            }
            None => (store.url.to_string(), name),
        };
        let Some(key) = Key::parse(key) else { bail!("{name} is neither a file here nor a key that Varve writes") };
        let bucket = open_bucket(&root, store).await?;
        let bytes = bucket.head(&key).await?.bytes;
        Ok(Content::Object { bucket, key, bytes })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Content::File { bytes, .. } | Content::Object { bytes, .. } => *bytes,
        }
    }

    /// The bytes of `range`, cut to what there is.
    pub(super) async fn read(&self, range: Range<u64>) -> anyhow::Result<Bytes> {
        let range = range.start.min(self.len())..range.end.min(self.len());
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        match self {
            Content::File { file, .. } => {
                let mut bytes = vec![0; usize::try_from(range.end - range.start)?];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
            Content::Object { bucket, key, .. } => Ok(bucket.get_range(key, range).await?),
        }
    }

    /// All of it, if it is not larger than `limit`.
    pub(super) async fn whole(&self, limit: u64) -> anyhow::Result<Bytes> {
        if self.len() > limit {
            bail!("{} bytes are more than such a file has ({limit} at most)", self.len());
        }
        self.read(0..self.len()).await
    }
}

/// The bucket at `url`, reached as configured.
pub(super) async fn open_bucket(url: &str, store: &ObjectStoreConfig) -> anyhow::Result<Bucket> {
    Ok(Bucket::open(url, store.bucket_options(), BucketMetrics::new()).await?)
}

/// The path that `name` means, if it means one: a `file:` URL, or something that is here and no key alone.
fn local_path(name: &str) -> Option<PathBuf> {
    if let Some(path) = name.strip_prefix("file:") {
        return Some(path.strip_prefix("//").unwrap_or(path).into());
    }
    let path = Path::new(name);
    let is_key = layout::parse(name).is_some();
    (!name.contains("://") && (path.exists() || !is_key)).then(|| path.to_owned())
}
