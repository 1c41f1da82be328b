//! The sweep: what no manifest names any more leaves the bucket, after a grace period.
//!
//! Three kinds go. What a manifest lists as removed, once its readers had time to finish. Old manifest versions. And
//! orphans, of uploads that were never published: objects and leaves older than the grace period that no manifest names
//! (mark and sweep over the whole bucket). The listing comes first and the manifests are read after it, so an object is
//! deleted only if it was there for the whole grace period and is still not named; the compactor publishes well within that
//! time or starts anew, and what a leader may yet publish is recognised by its offsets. If any manifest or leaf cannot be read, nothing is deleted as an orphan.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use uuid::Uuid;
use varve_metadata::model::{Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};
use varve_tiering::{
    layout::{self, Key, LEAVES, Named, RAW, TABLES, Version},
    manifest::{LeafRef, Manifest, RemoteObject, Removed, RemovedEntry},
    tier::{
        bucket::{Bucket, BucketError},
        manifests::{ManifestStore, StoreError},
        partition::{PRUNE_AFTER, RemotePartition, UpdateError},
    },
};

use crate::worker::{Compactor, WorkError};

/// Orphans looked at in one sweep; the rest waits for the next.
const MAX_CANDIDATES: usize = 1 << 20;

/// Superseded manifest versions of one partition that stay.
const WORTH_PRUNING: usize = 8;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects and leaves deleted that a manifest had listed as removed.
    pub removed: usize,
    /// Manifest versions deleted.
    pub versions: usize,
    /// Objects and leaves deleted that no manifest named.
    pub orphans: usize,
}

impl Compactor {
    /// Sweeps the whole bucket once. `now` is compared with the times that manifests and the store state. `topics`: all
    /// topics of the cluster, asked after the manifests were listed, so that an archive without a topic is one whose topic is
    /// gone: its manifest says so from now on. `None`: the cluster's metadata cannot be read, and nobody is buried.
    ///
    /// # Errors
    /// [`WorkError`]; what was deleted until then stays deleted, and was to be.
    pub async fn sweep(
        &self,
        now: Timestamp,
        topics: impl Fn() -> Option<HashSet<TopicId>>,
    ) -> Result<Swept, WorkError> {
        let store = self.partitions.store();
        let candidates =
            candidates(store.bucket(), before(now, self.options.grace)).await.map_err(StoreError::Bucket)?;
        let mut swept = Swept::default();
        let mut marked = Marked::default();
        let listed = store.all_versions().await?;
        let topics = topics();
        for (partition, versions) in listed {
            let Some(mut manifest) = self.newest(partition, &versions).await? else { continue };
            let handle = self.partitions.get(partition, manifest.topic());
            let is_gone = topics.as_ref().is_some_and(|topics| !topics.contains(&partition.topic));
            if is_gone && manifest.deleted_at().is_none() {
                tracing::warn!(topic = %manifest.topic(), %partition, "the topic of this archive is gone: burying it");
                manifest = handle.update(|manifest| Ok(manifest.deleted(now))).await.map_err(work_error)?;
            }
            marked.mark(store, &manifest).await?;
            swept.removed += self.sweep_removed(&handle, &manifest, now).await?;
            swept.versions += self.prune(&handle, &versions, now).await?;
        }
        for (key, named) in candidates.into_iter().filter(|(_, named)| !marked.names(named)) {
            store.bucket().delete(&key).await.map_err(StoreError::Bucket)?;
            tracing::info!(%key, ?named, "deleted an orphan");
            swept.orphans += 1;
        }
        self.metrics.swept_objects.inc_by((swept.removed + swept.orphans) as u64);
        Ok(swept)
    }

    /// The newest manifest of a partition, given the versions just listed: from memory if nobody published behind our back.
    async fn newest(
        &self,
        partition: PartitionId,
        versions: &[(Version, Timestamp)],
    ) -> Result<Option<Arc<Manifest>>, WorkError> {
        let Some((listed, _)) = versions.last() else { return Ok(None) };
        let store = self.partitions.store();
        let handle = match self.partitions.known(partition) {
            Some(handle) => handle,
            // Its manifest says the topic's name, which a handle needs; pruned meanwhile, there is a newer one.
            None => match store.load(partition, Version::NONE).await? {
                Some(manifest) => self.partitions.get(partition, manifest.topic()),
                None => return Ok(None),
            },
        };
        let known = handle.manifest();
        Ok(Some(if known.version() >= *listed { known } else { handle.refresh().await? }))
    }

    /// Deletes what `manifest` lists as removed for long enough, then takes it off the list.
    async fn sweep_removed(
        &self,
        handle: &RemotePartition,
        manifest: &Manifest,
        now: Timestamp,
    ) -> Result<usize, WorkError> {
        let due = before(now, self.options.grace);
        let gone: Vec<Removed> = manifest.removed().iter().filter(|removed| removed.at <= due).cloned().collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let mut deleted = 0;
        for removed in &gone {
            match &removed.entry {
                RemovedEntry::Object(object) => deleted += self.delete_object(handle, manifest, object).await?,
                RemovedEntry::Leaf(leaf) => deleted += self.delete_leaf(handle, manifest, leaf).await?,
            }
        }
        // Many may go at once: they are told apart by their ids.
        let ids: HashSet<(Uuid, u64)> = gone.iter().map(id_of).collect();
        let forget = |manifest: &Manifest| Ok(manifest.swept(|removed| ids.contains(&id_of(removed))));
        match handle.update(forget).await {
            Ok(_) => Ok(deleted),
            Err(error) => Err(work_error(error)),
        }
    }

    async fn delete_object(
        &self,
        handle: &RemotePartition,
        manifest: &Manifest,
        object: &RemoteObject,
    ) -> Result<usize, WorkError> {
        // Other partitions may still need theirs: a shared object goes as an orphan, once nobody names it.
        if object.shared_at.is_some() {
            return Ok(0);
        }
        handle.bucket().delete(&manifest.key_of(object)).await.map_err(StoreError::Bucket)?;
        Ok(1)
    }

    async fn delete_leaf(
        &self,
        handle: &RemotePartition,
        manifest: &Manifest,
        reference: &LeafRef,
    ) -> Result<usize, WorkError> {
        let leaf = match handle.store().leaf(handle.partition(), reference).await {
            // An earlier sweep got that far.
            Err(StoreError::Bucket(BucketError::NotFound(_))) => return Ok(0),
            outcome => outcome?,
        };
        let mut deleted = 1;
        for object in leaf.objects() {
            deleted += self.delete_object(handle, manifest, object).await?;
        }
        let key = layout::leaf(handle.partition(), reference.id);
        handle.bucket().delete(&key).await.map_err(StoreError::Bucket)?;
        Ok(deleted)
    }

    /// Deletes manifest versions that were superseded long ago, leave first.
    async fn prune(
        &self,
        handle: &RemotePartition,
        versions: &[(Version, Timestamp)],
        now: Timestamp,
    ) -> Result<usize, WorkError> {
        let due = before(now, PRUNE_AFTER.max(self.options.grace));
        // A version is superseded when the next one is written.
        let Some(superseded) = versions.iter().rposition(|(_, written)| *written <= due) else { return Ok(0) };
        // The leave is a version itself, which will be superseded: a few old ones are not worth it, or it never ended.
        if superseded < WORTH_PRUNING {
            return Ok(0);
        }
        let oldest = versions[superseded].0;
        match handle.update(|manifest| Ok(manifest.pruned_below(oldest))).await {
            Ok(newest) => Ok(handle.store().prune(&newest).await?),
            Err(error) => Err(work_error(error)),
        }
    }
}

fn work_error(error: UpdateError) -> WorkError {
    match error {
        UpdateError::Refused(refused) => WorkError::Refused(refused),
        UpdateError::Store(error) => error.into(),
    }
}

/// What manifests name.
#[derive(Debug, Default)]
struct Marked {
    objects: HashSet<Uuid>,
    leaves: HashSet<Uuid>,
    tables: HashMap<(TopicName, PartitionIndex), HashSet<Uuid>>,
    /// Where the coverage of each live partition ends.
    ends: HashMap<PartitionId, Offset>,
}

impl Marked {
    async fn mark(&mut self, store: &ManifestStore, manifest: &Manifest) -> Result<(), StoreError> {
        if manifest.deleted_at().is_none() {
            self.ends.insert(manifest.partition(), manifest.end());
        }
        let removed = manifest.removed().iter();
        let removed_leaves = removed.clone().filter_map(|removed| match &removed.entry {
            RemovedEntry::Leaf(leaf) => Some(leaf),
            RemovedEntry::Object(_) => None,
        });
        let mut objects: Vec<Uuid> = manifest.inline_objects().map(|object| object.id.0).collect();
        objects.extend(removed.filter_map(|removed| match &removed.entry {
            RemovedEntry::Object(object) => Some(object.id.0),
            RemovedEntry::Leaf(_) => None,
        }));
        for reference in manifest.leaves().chain(removed_leaves) {
            self.leaves.insert(reference.id);
            match store.leaf(manifest.partition(), reference).await {
                Ok(leaf) => objects.extend(leaf.objects().iter().map(|object| object.id.0)),
                // A removed leaf may be half swept: what it listed goes anyway.
                Err(StoreError::Bucket(BucketError::NotFound(_)))
                    if !manifest.leaves().any(|live| live.id == reference.id) => {}
                Err(error) => return Err(error),
            }
        }
        let place = (manifest.topic().clone(), manifest.partition().index);
        self.tables.entry(place).or_default().extend(&objects);
        self.objects.extend(objects);
        Ok(())
    }

    fn names(&self, named: &Named) -> bool {
        match named {
            // What begins at or behind the end may be an upload that its leader has yet to publish, however long ago it
            // was begun. What begins before can not be published any more.
            Named::Raw { partition, base, id, .. } => {
                self.objects.contains(id) || self.ends.get(partition).is_some_and(|end| base >= end)
            }
            Named::Shared(id) => self.objects.contains(id),
            Named::Leaf(_, id) => self.leaves.contains(id),
            Named::Table { topic, index, id, .. } => {
                self.tables.get(&(topic.clone(), *index)).is_some_and(|ids| ids.contains(id))
            }
            // Not ours to judge.
            Named::Cluster | Named::Meta | Named::Manifest(..) | Named::TableMetadata(_) => true,
        }
    }
}

/// Objects and leaves written at or before `due`.
async fn candidates(bucket: &Bucket, due: Timestamp) -> Result<Vec<(Key, Named)>, BucketError> {
    let mut found = Vec::new();
    for prefix in [RAW, TABLES, LEAVES] {
        let mut listing = bucket.list_stream(prefix);
        while let Some(listed) = listing.try_next().await? {
            let named = layout::parse(&listed.key).filter(|_| listed.modified <= due);
            let sweepable = named.filter(|named| {
                matches!(named, Named::Raw { .. } | Named::Shared(_) | Named::Leaf(..) | Named::Table { .. })
            });
            if let Some((named, key)) = sweepable.zip(Key::parse(&listed.key)) {
                found.push((key, named));
            }
            if found.len() >= MAX_CANDIDATES {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// What tells a removed entry from all others of its partition.
fn id_of(removed: &Removed) -> (Uuid, u64) {
    match &removed.entry {
        RemovedEntry::Object(object) => (object.id.0, object.base.get()),
        RemovedEntry::Leaf(leaf) => (leaf.id, leaf.base.get()),
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_wire(now.to_wire().saturating_sub(age_ms)).unwrap_or_default()
}
