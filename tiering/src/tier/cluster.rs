//! `cluster.json`: whose bucket this is, and in which format. Written once, by the first node that comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, BucketError};
use crate::layout;

/// Format of the bucket as a whole; single files carry versions of their own.
const FORMAT: u32 = 1;
const LIMIT: u64 = 64 << 10;
/// For this time a failed claim answers for all who ask, so that a bucket that is away is not asked by every partition.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// What `cluster.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Format of the bucket.
    pub format: u32,
    /// The cluster's id, as clients see it.
    pub cluster_id: String,
}

/// Why a bucket cannot be this cluster's.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Another cluster lives there: give each its own bucket or prefix.
    #[error("the bucket belongs to cluster {found}, this is cluster {mine}")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Who asked.
        mine: String,
    },
    /// Written by a newer Varve: upgrade first.
    #[error("the bucket has format {0}, newer than this program")]
    Newer(u32),
    /// The file is not one that Varve wrote.
    #[error("cluster.json is not readable")]
    Corrupt(#[source] serde_json::Error),
    /// The bucket did not answer.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClusterError {
    /// Whether asking again may help.
    pub fn is_weather(&self) -> bool {
        matches!(self, ClusterError::Bucket(_))
    }
}

/// The question whether a bucket is ours, asked until it was answered once. Nothing goes up before.
#[derive(Debug)]
pub struct Claim {
    bucket: Bucket,
    cluster_id: String,
    is_ours: AtomicBool,
    failed: tokio::sync::Mutex<Option<(tokio::time::Instant, Arc<ClusterError>)>>,
}

impl Claim {
    /// The claim of cluster `cluster_id` on `bucket`; asks nothing yet.
    pub fn new(bucket: Bucket, cluster_id: &str) -> Claim {
        let cluster_id = cluster_id.to_owned();
        Claim { bucket, cluster_id, is_ours: AtomicBool::new(false), failed: tokio::sync::Mutex::default() }
    }

    /// Whether the bucket has said that it is ours.
    pub fn is_ours(&self) -> bool {
        self.is_ours.load(Ordering::Acquire)
    }

    /// Makes the bucket ours, if it was not before. Those who ask meanwhile share the answer.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn ours(&self) -> Result<(), Arc<ClusterError>> {
        if self.is_ours() {
            return Ok(());
        }
        let mut failed = self.failed.lock().await;
        if self.is_ours() {
            return Ok(());
        }
        if let Some((at, error)) = failed.as_ref()
            && at.elapsed() < FAILED_FOR
        {
            return Err(error.clone());
        }
        match claim_bucket(&self.bucket, &self.cluster_id).await {
            Ok(_) => {
                self.is_ours.store(true, Ordering::Release);
                *failed = None;
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                *failed = Some((tokio::time::Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// What the bucket says of its cluster; `None` for a bucket that nobody uses yet.
///
/// # Errors
/// [`ClusterError`].
pub async fn read_cluster(bucket: &Bucket) -> Result<Option<ClusterFile>, ClusterError> {
    let bytes = match bucket.get(&layout::cluster(), LIMIT).await {
        Ok(bytes) => bytes,
        Err(BucketError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let file: ClusterFile = serde_json::from_slice(&bytes).map_err(ClusterError::Corrupt)?;
    if file.format > FORMAT { Err(ClusterError::Newer(file.format)) } else { Ok(Some(file)) }
}

/// Makes the bucket `cluster_id`'s, or checks that it is already.
///
/// # Errors
/// [`ClusterError`].
pub async fn claim_bucket(bucket: &Bucket, cluster_id: &str) -> Result<ClusterFile, ClusterError> {
    let mine = ClusterFile { format: FORMAT, cluster_id: cluster_id.to_owned() };
    let content = serde_json::to_vec_pretty(&mine).map_err(ClusterError::Corrupt)?;
    match bucket.create(&layout::cluster(), Bytes::from(content)).await {
        Ok(()) => return Ok(mine),
        Err(BucketError::AlreadyExists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match read_cluster(bucket).await? {
        Some(found) if found.cluster_id == cluster_id => Ok(found),
        Some(found) => Err(ClusterError::Foreign { found: found.cluster_id, mine: cluster_id.to_owned() }),
        None => Err(BucketError::NotFound(layout::cluster()).into()),
    }
}
