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
use varve_metadata::model::{KnownTopics, Offset, PartitionId, Timestamp, TopicId};
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

/// Objects looked at for orphans in one sweep. If the bucket has more, a sweep looks at a share of them, by id, and the next
/// sweeps at the others.
const MAX_CANDIDATES: usize = 1 << 20;
/// Leaves whose object ids stay in memory from one sweep to the next (64 KiB each at most).
const REMEMBERED_LEAVES: usize = 1024;
/// Objects deleted at a time.
const DELETED_AT_ONCE: usize = 1000;

/// Superseded manifest versions of one partition that stay.
const WORTH_PRUNING: usize = 8;

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects and leaves deleted that a manifest had listed as removed.
    pub removed: usize,
    /// Manifest versions deleted.
    pub versions: usize,
    /// Objects and leaves deleted that no manifest named.
    pub orphans: usize,
    /// Deleted topics of which two sweeps in a row found nothing that was not buried: they need not be remembered.
    pub settled: Vec<TopicId>,
}

impl Compactor {
    /// Sweeps the whole bucket once. `now` is compared with the times that manifests and the store state. `topics`: all
    /// topics that the cluster knows by then, asked for after the manifests were listed. An archive whose topic was deleted is buried: its
    /// manifest says so from now on. One whose topic nobody knows is kept, and told of. `None`: the cluster's metadata cannot be read,
    /// and nobody is buried.
    ///
    /// # Errors
    /// [`WorkError`]; what was deleted until then stays deleted, and was to be.
    pub async fn sweep<T: Future<Output = Option<KnownTopics>>>(
        &self,
        now: Timestamp,
        topics: impl Fn() -> T,
    ) -> Result<Swept, WorkError> {
        let store = self.partitions.store();
        let due = before(now, self.options.grace);
        let share = *self.share.lock();
        let unnamed = candidates(store.bucket(), due, share, MAX_CANDIDATES).await.map_err(StoreError::Bucket)?;
        let mut swept = Swept::default();
        let mut marked = Marked { known: std::mem::take(&mut *self.leaf_ids.lock()), ..Marked::over(unnamed) };
        let listed = store.all_versions().await?;
        let topics = topics().await;
        let (mut unknown, mut unburied) = (HashSet::new(), HashSet::new());
        for (partition, versions) in listed {
            let Some(mut manifest) = self.newest(partition, &versions).await? else { continue };
            let handle = self.partitions.get(partition, manifest.topic());
            let says =
                |so: fn(&KnownTopics, TopicId) -> bool| topics.as_ref().is_some_and(|all| so(all, partition.topic));
            if says(KnownTopics::is_deleted) && manifest.deleted_at().is_none() {
                tracing::warn!(topic = %manifest.topic(), %partition, "the topic of this archive was deleted: burying it");
                // Whoever publishes at the same moment is read anew by the next sweep, too.
                unburied.insert(partition.topic);
                manifest = handle.update(|manifest| Ok(manifest.deleted(now))).await.map_err(work_error)?;
            }
            if says(KnownTopics::is_unknown) && manifest.deleted_at().is_none() && unknown.insert(partition.topic) {
                self.tell_unknown(&manifest);
            }
            marked.mark(store, &manifest, due).await?;
            swept.removed += self.sweep_removed(&handle, &manifest, now).await?;
            swept.versions += match self.is_over(&manifest, now) {
                true => self.forget(&manifest, &versions).await?,
                false => self.prune(&handle, &versions, now).await?,
            };
        }
        if let Some(topics) = topics {
            self.metrics.unknown_topics.set(i64::try_from(unknown.len()).unwrap_or(i64::MAX));
            let settled: HashSet<TopicId> = topics.deleted.difference(&unburied).copied().collect();
            let before = std::mem::replace(&mut *self.buried.lock(), settled.clone());
            swept.settled = settled.intersection(&before).copied().collect();
        }
        swept.orphans = marked.delete_unnamed(store.bucket(), due).await.map_err(StoreError::Bucket)?;
        *self.share.lock() = marked.share.next();
        *self.leaf_ids.lock() = marked.met;
        self.metrics.swept_objects.inc_by((swept.removed + swept.orphans) as u64);
        Ok(swept)
    }

    /// Says once that nobody knows what this is.
    fn tell_unknown(&self, manifest: &Manifest) {
        if self.told.lock().insert(manifest.partition().topic) {
            tracing::warn!(
                topic = %manifest.topic(), id = %manifest.partition().topic,
                "the bucket has an archive of a topic that the cluster does not know, and that nobody is known to have deleted: it is \
                 kept. docs/operations/lose-etcd.md says how it comes back; `varve tier forget` gives it up"
            );
        }
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
        let objects = gone.iter().filter_map(|removed| match &removed.entry {
            RemovedEntry::Object(object) => Some(object),
            RemovedEntry::Leaf(_) => None,
        });
        let mut deleted = self.delete_objects(handle, manifest, objects).await?;
        for removed in &gone {
            if let RemovedEntry::Leaf(leaf) = &removed.entry {
                deleted += self.delete_leaf(handle, manifest, leaf).await?;
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

    async fn delete_objects(
        &self,
        handle: &RemotePartition,
        manifest: &Manifest,
        objects: impl Iterator<Item = &RemoteObject>,
    ) -> Result<usize, WorkError> {
        // Other partitions may still need theirs: a shared object goes as an orphan, once nobody names it.
        let own = objects.filter(|object| object.shared_at.is_none());
        let keys: Vec<Key> = own.map(|object| manifest.key_of(object)).collect();
        let count = keys.len();
        handle.bucket().delete_all(keys).await.map_err(StoreError::Bucket)?;
        Ok(count)
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
        let deleted = 1 + self.delete_objects(handle, manifest, leaf.objects().iter()).await?;
        let key = layout::leaf(handle.partition(), reference.id);
        handle.bucket().delete(&key).await.map_err(StoreError::Bucket)?;
        Ok(deleted)
    }

    /// Whether nothing is left of a deleted topic's partition but the word that it is gone, and nobody can need that any
    /// more: whoever slept for longer than [`PRUNE_AFTER`] asks again before it publishes, and the next sweep buries what it
    /// might still publish.
    fn is_over(&self, manifest: &Manifest, now: Timestamp) -> bool {
        let due = before(now, PRUNE_AFTER.max(self.options.grace));
        manifest.removed().is_empty()
            && manifest.deleted_at().is_some_and(|at| at <= due)
            && manifest.published_at() <= due
    }

    /// Deletes all manifest versions of a partition, the newest last.
    async fn forget(&self, manifest: &Manifest, versions: &[(Version, Timestamp)]) -> Result<usize, WorkError> {
        let (partition, bucket) = (manifest.partition(), self.partitions.store().bucket());
        let Some(((newest, _), older)) = versions.split_last() else { return Ok(0) };
        if manifest.version() != *newest {
            return Ok(0);
        }
        let older = older.iter().map(|(version, _)| layout::manifest(partition, *version)).collect::<Vec<_>>();
        bucket.delete_all(older).await.map_err(StoreError::Bucket)?;
        bucket.delete(&layout::manifest(partition, *newest)).await.map_err(StoreError::Bucket)?;
        self.partitions.forget(partition);
        Ok(versions.len())
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

/// Which objects a sweep looks at: those whose id leaves `turn` when divided by `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    of: u64,
    turn: u64,
}

impl Share {
    pub(crate) const ALL: Share = Share { of: 1, turn: 0 };

    fn has(self, id: Uuid) -> bool {
        // The last bytes: the first are in the key, and the store may have a favourite among them.
        id.as_u128() as u64 % self.of == self.turn
    }

    fn next(self) -> Share {
        Share { turn: (self.turn + 1) % self.of, ..self }
    }
}

/// Ids found in the bucket, less those that manifests name.
#[derive(Debug)]
struct Marked {
    unnamed: HashSet<Uuid>,
    share: Share,
    /// Where the coverage of each live partition ends.
    ends: HashMap<PartitionId, Offset>,
    /// Object ids by leaf, which never changes: from the sweep before, and for the next.
    known: HashMap<Uuid, Arc<[Uuid]>>,
    met: HashMap<Uuid, Arc<[Uuid]>>,
}

impl Marked {
    fn over((unnamed, share): (HashSet<Uuid>, Share)) -> Marked {
        Marked { unnamed, share, ends: HashMap::new(), known: HashMap::new(), met: HashMap::new() }
    }

    /// Takes out what `manifest` names.
    async fn mark(&mut self, store: &ManifestStore, manifest: &Manifest, due: Timestamp) -> Result<(), StoreError> {
        if manifest.deleted_at().is_none() {
            self.ends.insert(manifest.partition(), manifest.end());
        }
        let removed_leaves =
            manifest.removed().iter().chain(manifest.set_aside()).filter_map(|gone| match &gone.entry {
                RemovedEntry::Leaf(leaf) => Some(leaf),
                RemovedEntry::Object(_) => None,
            });
        for object in named_objects(manifest, due) {
            self.unnamed.remove(&object.id.0);
        }
        for reference in manifest.leaves().chain(removed_leaves) {
            self.unnamed.remove(&reference.id);
            match self.ids(store, manifest.partition(), reference).await {
                Ok(ids) => {
                    for id in ids.iter() {
                        self.unnamed.remove(id);
                    }
                }
                // A removed leaf may be half swept: what it listed goes anyway.
                Err(StoreError::Bucket(BucketError::NotFound(_)))
                    if !manifest.leaves().any(|live| live.id == reference.id) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ids of the objects that a leaf lists.
    async fn ids(
        &mut self,
        store: &ManifestStore,
        partition: PartitionId,
        reference: &LeafRef,
    ) -> Result<Arc<[Uuid]>, StoreError> {
        let ids = match self.known.get(&reference.id) {
            Some(ids) => Arc::clone(ids),
            None => store.leaf(partition, reference).await?.objects().iter().map(|object| object.id.0).collect(),
        };
        if self.met.len() < REMEMBERED_LEAVES {
            self.met.insert(reference.id, Arc::clone(&ids));
        }
        Ok(ids)
    }

    /// Deletes what nobody names. Its keys are listed again: there is seldom any.
    async fn delete_unnamed(&self, bucket: &Bucket, due: Timestamp) -> Result<usize, BucketError> {
        let mut deleted = 0;
        if self.unnamed.is_empty() {
            return Ok(deleted);
        }
        let mut keys = Vec::new();
        for prefix in [RAW, TABLES, LEAVES] {
            let mut listing = bucket.list_stream(prefix);
            while let Some(listed) = listing.try_next().await? {
                let Some((named, id)) = sweepable(&listed.key).filter(|_| listed.modified <= due) else { continue };
                if !self.unnamed.contains(&id) || self.may_yet_be_published(&named) {
                    continue;
                }
                tracing::info!(key = listed.key, "deleting an orphan");
                keys.extend(Key::parse(&listed.key));
                if keys.len() >= DELETED_AT_ONCE {
                    deleted += keys.len();
                    bucket.delete_all(std::mem::take(&mut keys)).await?;
                }
            }
        }
        deleted += keys.len();
        bucket.delete_all(keys).await?;
        Ok(deleted)
    }

    /// What begins at or behind the end may be an upload that its leader has yet to publish, however long ago it was begun.
    /// What begins before can not be published any more, and what the compactor made is published in time or never.
    fn may_yet_be_published(&self, named: &Named) -> bool {
        match named {
            Named::Raw { partition, base, .. } => {
                self.ends.get(partition).is_some_and(|end| may_yet_be_published(*base, *end))
            }
            _ => false,
        }
    }
}

/// The objects that a manifest names outside of its leaves. A shared one that it let go at `due` or before is the others' matter: it is
/// not among them. What is set aside is named, however long ago.
pub fn named_objects(manifest: &Manifest, due: Timestamp) -> impl Iterator<Item = &RemoteObject> {
    let removed = manifest.removed().iter().map(move |gone| (gone, gone.at <= due));
    let aside = manifest.set_aside().iter().map(|gone| (gone, false));
    let gone = removed.chain(aside).filter_map(|(gone, is_over)| match &gone.entry {
        RemovedEntry::Object(object) => Some(object).filter(|_| object.shared_at.is_none() || !is_over),
        RemovedEntry::Leaf(_) => None,
    });
    manifest.inline_objects().chain(gone)
}

/// Whether a leader may still publish an uploaded segment that begins at `base`, in an archive that ends at `end`.
pub fn may_yet_be_published(base: Offset, end: Offset) -> bool {
    base >= end
}

/// Ids of objects and leaves written at or before `due`, `most` at most: of all if they are so few, else of a share of them.
async fn candidates(
    bucket: &Bucket,
    due: Timestamp,
    mut share: Share,
    most: usize,
) -> Result<(HashSet<Uuid>, Share), BucketError> {
    let mut found = HashSet::new();
    for prefix in [RAW, TABLES, LEAVES] {
        let mut listing = bucket.list_stream(prefix);
        while let Some(listed) = listing.try_next().await? {
            if let Some((_, id)) = sweepable(&listed.key).filter(|(_, id)| listed.modified <= due && share.has(*id)) {
                found.insert(id);
            }
            while found.len() > most {
                share.of *= 2;
                found.retain(|id| share.has(*id));
            }
        }
    }
    Ok((found, share))
}

/// What a key names, and its id, if the sweep may judge it.
fn sweepable(key: &str) -> Option<(Named, Uuid)> {
    let named = layout::parse(key)?;
    let id = match &named {
        Named::Raw { id, .. } | Named::Shared(id) | Named::Leaf(_, id) | Named::Table { id, .. } => *id,
        Named::Cluster | Named::Meta | Named::Snapshot(_) | Named::Manifest(..) | Named::TableMetadata(_) => {
            return None;
        }
    };
    Some((named, id))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_bucket_with_more_objects_than_one_sweep_looks_at_is_looked_at_in_turns() {
        let bucket = Bucket::memory();
        let ids: HashSet<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
        for id in &ids {
            bucket.put(&layout::shared(*id), Bytes::from_static(b"x")).await.unwrap();
        }
        let (mut share, mut met) = (Share::ALL, HashSet::new());
        let mut sweeps = 0;
        while met.len() < ids.len() {
            let late = Timestamp::from_wire(i64::MAX).unwrap();
            let (found, used) = candidates(&bucket, late, share, 60).await.unwrap();
            assert!(found.len() <= 60);
            met.extend(found);
            share = used.next();
            sweeps += 1;
            assert!(sweeps < 100, "{} of {} in {sweeps} sweeps", met.len(), ids.len());
        }
        assert_eq!(met, ids);
    }
}
