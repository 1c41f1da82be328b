//! Manifests in the bucket: the next version is created if absent, and whoever creates it has won.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;
use varve_metadata::model::{PartitionId, Timestamp};

use super::{
    bucket::{Bucket, BucketError, Listed},
    wall_clock,
};
use crate::{
    layout::{self, Key, Named, Version},
    manifest::{FormatError, Leaf, LeafRef, Limits, MAX_LEAF_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError},
};

/// Leaves kept in memory, of all partitions together (4096 entries each at most).
const CACHED_LEAVES: usize = 16;
/// Times that a load begins anew because the version it found was pruned meanwhile.
const LOAD_ATTEMPTS: usize = 3;

/// All manifests in one bucket; clones share it.
#[derive(Clone, Debug)]
pub struct ManifestStore {
    bucket: Bucket,
    limits: Limits,
    leaves: Arc<Mutex<LeafCache>>,
}

/// Leaves by id, the one used last in front.
type LeafCache = VecDeque<(Uuid, Arc<Leaf>)>;

/// Why a manifest was not loaded or published.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer won the version: read, derive the change anew, never retry blindly.
    #[error("another writer published first")]
    Conflict,
    /// The manifest may have been published; only a read can tell.
    #[error("whether the manifest was published is unknown")]
    Unknown(#[source] BucketError),
    /// The bucket did not do it: nothing was published.
    #[error(transparent)]
    Bucket(BucketError),
    /// What lies in the bucket is not a manifest of this partition. Nothing may be written over it.
    #[error("{key} is not usable")]
    Format {
        /// The object.
        key: Key,
        /// What is wrong.
        source: FormatError,
    },
    /// A leaf is not what the manifest says of it.
    #[error(transparent)]
    Leaf(#[from] ManifestError),
}

impl ManifestStore {
    /// The manifests in `bucket`.
    pub fn new(bucket: Bucket) -> ManifestStore {
        ManifestStore::with_limits(bucket, Limits::default())
    }

    /// The same with other numbers of entries per manifest and leaf, for tests.
    pub fn with_limits(bucket: Bucket, limits: Limits) -> ManifestStore {
        ManifestStore { bucket, limits, leaves: Arc::default() }
    }

    /// The bucket they lie in.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The newest manifest of `partition`, if it is newer than `known`. Lists from `known` on, so it is cheap for who knows
    /// a recent one.
    ///
    /// # Errors
    /// [`StoreError::Bucket`], [`StoreError::Format`].
    pub async fn load(&self, partition: PartitionId, known: Version) -> Result<Option<Manifest>, StoreError> {
        let mut attempts = 0;
        loop {
            let Some(newest) = self.versions(partition, known).await?.into_iter().next_back() else { return Ok(None) };
            attempts += 1;
            match self.read(partition, newest.0).await {
                Err(StoreError::Bucket(BucketError::NotFound(_))) if attempts < LOAD_ATTEMPTS => {}
                outcome => return outcome.map(Some),
            }
        }
    }

    /// One version of a partition's manifest.
    ///
    /// # Errors
    /// [`StoreError::Bucket`] (`NotFound` if it never was or has been pruned), [`StoreError::Format`].
    pub async fn read(&self, partition: PartitionId, version: Version) -> Result<Manifest, StoreError> {
        let key = layout::manifest(partition, version);
        let bytes = self.bucket.get(&key, MAX_MANIFEST_BYTES).await.map_err(StoreError::Bucket)?;
        let manifest = Manifest::parse(&bytes).and_then(|manifest| {
            let same = manifest.partition() == partition && manifest.version() == version;
            if same { Ok(manifest) } else { Err(FormatError::Corrupt("it is another partition's or version's")) }
        });
        manifest.map_err(|source| StoreError::Format { key, source })
    }

    /// Versions of `partition` after `after` that lie in the bucket, ascending, with the time of each by the store's clock.
    ///
    /// # Errors
    /// [`StoreError::Bucket`].
    pub async fn versions(
        &self,
        partition: PartitionId,
        after: Version,
    ) -> Result<Vec<(Version, Timestamp)>, StoreError> {
        let from = (after != Version::NONE).then(|| layout::manifest(partition, after));
        let listed = self.bucket.list(layout::manifests_of(partition).as_str(), from.as_ref()).await;
        let version = |key: &str| match layout::parse(key) {
            Some(Named::Manifest(of, version)) if of == partition && version > after => Some(version),
            _ => None,
        };
        let listed = listed.map_err(StoreError::Bucket)?;
        Ok(listed.iter().filter_map(|object| Some((version(&object.key)?, object.modified))).collect())
    }

    /// All partitions that have a manifest, with the newest version of each: one listing of everything below `manifests/`.
    ///
    /// # Errors
    /// [`StoreError::Bucket`].
    pub async fn partitions(&self) -> Result<BTreeMap<PartitionId, Version>, StoreError> {
        let newest = |versions: Vec<(Version, Timestamp)>| versions.last().map_or(Version::NONE, |(newest, _)| *newest);
        Ok(self.all_versions().await?.into_iter().map(|(partition, versions)| (partition, newest(versions))).collect())
    }

    /// As [`ManifestStore::versions`], of all partitions: one listing of everything below `manifests/`.
    ///
    /// # Errors
    /// [`StoreError::Bucket`].
    pub async fn all_versions(&self) -> Result<BTreeMap<PartitionId, Vec<(Version, Timestamp)>>, StoreError> {
        type Found = BTreeMap<PartitionId, Vec<(Version, Timestamp)>>;
        let add = |found: &mut Found, listed: Listed| {
            if let Some(Named::Manifest(partition, version)) = layout::parse(&listed.key) {
                found.entry(partition).or_default().push((version, listed.modified));
            }
        };
        let mut found = self.bucket.fold(layout::MANIFESTS, add).await.map_err(StoreError::Bucket)?;
        found.values_mut().for_each(|versions| versions.sort_unstable());
        Ok(found)
    }

    /// Publishes `next` as the version after `seen`, under `nonce`; its new leaves first. Returns it as published.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Unknown`], [`StoreError::Bucket`], [`StoreError::Format`].
    pub async fn publish(&self, seen: Version, next: Manifest, nonce: Uuid) -> Result<Manifest, StoreError> {
        let partition = next.partition();
        let next = self.pack(next).await?.published(seen, nonce, wall_clock());
        let key = layout::manifest(partition, next.version());
        match self.bucket.create(&key, Bytes::from(next.encode())).await {
            Ok(()) => Ok(next),
            Err(BucketError::AlreadyExists(_)) => Err(StoreError::Conflict),
            Err(error @ BucketError::Unknown { .. }) => Err(StoreError::Unknown(error)),
            Err(error) => Err(StoreError::Bucket(error)),
        }
    }

    /// A leaf of one of `partition`'s manifests.
    ///
    /// # Errors
    /// [`StoreError::Bucket`], [`StoreError::Format`].
    pub async fn leaf(&self, partition: PartitionId, reference: &LeafRef) -> Result<Arc<Leaf>, StoreError> {
        if let Some(leaf) = self.cached(reference.id) {
            return Ok(leaf);
        }
        let key = layout::leaf(partition, reference.id);
        let bytes = self.bucket.get(&key, MAX_LEAF_BYTES).await.map_err(StoreError::Bucket)?;
        let leaf = Leaf::parse(&bytes).and_then(|leaf| leaf.matching(reference));
        let leaf = Arc::new(leaf.map_err(|source| StoreError::Format { key, source })?);
        self.remember(reference.id, &leaf);
        Ok(leaf)
    }

    /// Deletes versions that `newest` allows to go ([`Manifest::pruned_below`]). Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Bucket`].
    pub async fn prune(&self, newest: &Manifest) -> Result<usize, StoreError> {
        let partition = newest.partition();
        let versions = self.versions(partition, Version::NONE).await?;
        let old: Vec<Key> = versions
            .iter()
            .filter(|(version, _)| *version < newest.oldest_version().min(newest.version()))
            .map(|(version, _)| layout::manifest(partition, *version))
            .collect();
        let count = old.len();
        self.bucket.delete_all(old).await.map_err(StoreError::Bucket)?;
        Ok(count)
    }

    /// Moves older entries out into leaves, which are in the bucket when this returns.
    async fn pack(&self, mut manifest: Manifest) -> Result<Manifest, StoreError> {
        for reference in manifest.leaves_to_fill(self.limits) {
            let leaf = self.leaf(manifest.partition(), &reference).await?;
            manifest = manifest.inline(&reference, &leaf)?;
        }
        let (manifest, leaves) = manifest.pack(self.limits, Uuid::new_v4);
        for (reference, leaf) in leaves {
            let key = layout::leaf(manifest.partition(), reference.id);
            self.bucket.put(&key, Bytes::from(leaf.encode())).await.map_err(StoreError::Bucket)?;
            self.remember(reference.id, &Arc::new(leaf));
        }
        Ok(manifest)
    }

    fn cached(&self, id: Uuid) -> Option<Arc<Leaf>> {
        let mut leaves = self.leaves.lock();
        let place = leaves.iter().position(|(cached, _)| *cached == id)?;
        let entry = leaves.remove(place)?;
        let leaf = Arc::clone(&entry.1);
        leaves.push_front(entry);
        Some(leaf)
    }

    fn remember(&self, id: Uuid, leaf: &Arc<Leaf>) {
        let mut leaves = self.leaves.lock();
        leaves.push_front((id, Arc::clone(leaf)));
        leaves.truncate(CACHED_LEAVES);
    }
}
