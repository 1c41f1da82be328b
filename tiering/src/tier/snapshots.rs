//! `meta/…`: numbered copies of the cluster's state, each created if absent, so that of two who write the next one wins.
//!
//! An object is the text of a `ClusterSnapshot`, compressed as one zstd frame with a checksum: `zstdcat` reads it.

use std::io::{Read, Write};

use bytes::Bytes;

use super::bucket::{Bucket, BucketError};
use crate::layout::{self, Key, Named, Version};

/// Copies that stay.
const KEPT: usize = 20;
/// Most bytes of one copy, compressed and not: a hundred thousand partitions take a tenth of that.
const LIMIT: u64 = 512 << 20;
const ZSTD_LEVEL: i32 = 3;

/// Why a copy of the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Somebody else wrote the next one: read it, and decide whether there is anything to add.
    #[error("another broker wrote the next snapshot")]
    Conflict,
    /// The object is not what was written.
    #[error("snapshot {0} is damaged")]
    Corrupt(Key, #[source] std::io::Error),
    /// The bucket did not answer as it should.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// The copies in a bucket.
#[derive(Clone, Debug)]
pub struct Snapshots {
    bucket: Bucket,
}

impl Snapshots {
    /// Those in `bucket`.
    pub fn new(bucket: Bucket) -> Snapshots {
        Snapshots { bucket }
    }

    /// Numbers of the copies that are there, ascending.
    ///
    /// # Errors
    /// [`SnapshotError::Bucket`].
    pub async fn versions(&self) -> Result<Vec<Version>, SnapshotError> {
        let listed = self.bucket.list(layout::META, None).await?;
        let version = |key: &str| match layout::parse(key) {
            Some(Named::Snapshot(version)) => Some(version),
            _ => None,
        };
        let mut versions: Vec<Version> = listed.iter().filter_map(|object| version(&object.key)).collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// The text of one copy.
    ///
    /// # Errors
    /// [`SnapshotError::Bucket`], [`SnapshotError::Corrupt`].
    pub async fn read(&self, version: Version) -> Result<Bytes, SnapshotError> {
        let key = layout::snapshot(version);
        let compressed = self.bucket.get(&key, LIMIT).await?;
        decompress(&compressed).map(Bytes::from).map_err(|error| SnapshotError::Corrupt(key, error))
    }

    /// Writes `text` as the copy after `seen`, and lets go of those that are too old.
    ///
    /// # Errors
    /// [`SnapshotError::Conflict`], [`SnapshotError::Bucket`].
    pub async fn publish(&self, seen: Version, text: &[u8]) -> Result<Version, SnapshotError> {
        let next = Version(seen.0 + 1);
        let compressed = compress(text).map_err(|error| SnapshotError::Corrupt(layout::snapshot(next), error))?;
        match self.bucket.create(&layout::snapshot(next), compressed.into()).await {
            Ok(()) => {}
            Err(BucketError::AlreadyExists(_)) => return Err(SnapshotError::Conflict),
            Err(error) => return Err(error.into()),
        }
        let versions = self.versions().await?;
        let old = versions.len().saturating_sub(KEPT);
        self.bucket
            .delete_all(versions[..old].iter().map(|version| layout::snapshot(*version)).collect::<Vec<_>>())
            .await?;
        Ok(next)
    }
}

fn compress(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(text)?;
    encoder.finish()
}

/// The text in an object of these.
///
/// # Errors
/// It is damaged, or larger than any that is written.
pub fn decompress(compressed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    zstd::Decoder::new(compressed)?.take(LIMIT + 1).read_to_end(&mut text)?;
    match text.len() as u64 <= LIMIT {
        true => Ok(text),
        false => Err(std::io::Error::other("it is too large to be one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_two_who_write_the_next_copy_one_wins() {
        let snapshots = Snapshots::new(Bucket::memory());
        assert_eq!(snapshots.versions().await.unwrap(), []);
        let first = snapshots.publish(Version::NONE, b"one").await.unwrap();
        assert!(matches!(snapshots.publish(Version::NONE, b"other").await, Err(SnapshotError::Conflict)));
        let second = snapshots.publish(first, b"two").await.unwrap();
        assert_eq!(snapshots.versions().await.unwrap(), [first, second]);
        assert_eq!(snapshots.read(second).await.unwrap(), "two");
    }

    #[tokio::test]
    async fn old_copies_go() {
        let snapshots = Snapshots::new(Bucket::memory());
        let mut newest = Version::NONE;
        for _ in 0..KEPT + 3 {
            newest = snapshots.publish(newest, b"state").await.unwrap();
        }
        let versions = snapshots.versions().await.unwrap();
        assert_eq!((versions.len(), versions.last()), (KEPT, Some(&newest)));
    }

    #[tokio::test]
    async fn a_damaged_copy_is_told_from_a_missing_one() {
        let bucket = Bucket::memory();
        let snapshots = Snapshots::new(bucket.clone());
        assert!(matches!(snapshots.read(Version(1)).await, Err(SnapshotError::Bucket(BucketError::NotFound(_)))));
        let mut content = compress(b"state").unwrap();
        content[6] ^= 1;
        bucket.create(&layout::snapshot(Version(1)), content.into()).await.unwrap();
        assert!(matches!(snapshots.read(Version(1)).await, Err(SnapshotError::Corrupt(..))));
    }
}
