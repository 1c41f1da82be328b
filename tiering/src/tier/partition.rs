//! The handle of one partition's remote tier. All who read or change its manifest in this process go through it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;
use varve_metadata::model::{LogStartOffset, Offset, PartitionId, Timestamp, TopicName};

use super::{
    bucket::{Bucket, BucketError},
    manifests::{ManifestStore, StoreError},
};
use crate::{
    layout::Version,
    manifest::{Manifest, ManifestError, Place, RemoteObject},
};

/// Races for a version lost in a row before an update gives up.
const RACES: usize = 32;
/// Versions are pruned only after having been superseded for this long, so that a version seen as the newest a moment ago
/// can be built upon without asking again.
pub const PRUNE_AFTER: Duration = Duration::from_secs(60 * 60);
/// How long "the newest" may be taken as such when publishing: well within [`PRUNE_AFTER`].
const FRESH: Duration = Duration::from_secs(10 * 60);

/// What the remote tier covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteBounds {
    /// First offset readable in any tier, as far as the manifest knows.
    pub start: LogStartOffset,
    /// First offset that the remote tier does not cover; equal to `start` if it holds nothing.
    pub end: Offset,
    /// Stored bytes.
    pub bytes: u64,
    /// Bytes of the same batches in the local log.
    pub log_bytes: u64,
}

/// Why a change was not published.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The manifest does not take the change.
    #[error(transparent)]
    Refused(#[from] ManifestError),
    /// It takes it, but the bucket did not answer, or lost the race too often. Try again later. Whether the change was
    /// published is unknown, so derive it anew from [`RemotePartition::refresh`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One partition's remote objects: the newest manifest known here, and the way to the next one.
pub struct RemotePartition {
    store: ManifestStore,
    partition: PartitionId,
    topic: TopicName,
    current: RwLock<Known>,
    /// The newest version that a listing of all partitions named, and when.
    listed: Mutex<Option<(Version, Asked)>>,
    /// Held while publishing: writers of one process queue here instead of racing in the bucket.
    writing: tokio::sync::Mutex<()>,
    changed: watch::Sender<Version>,
}

/// When the bucket was asked, by both clocks.
type Asked = (Instant, SystemTime);

#[derive(Clone)]
struct Known {
    manifest: Arc<Manifest>,
    /// When the bucket last said that this is the newest; by both clocks, since one stands still while the machine sleeps
    /// and the other can be set.
    confirmed: Option<(Instant, SystemTime)>,
}

impl Known {
    fn is_fresh(&self) -> bool {
        self.confirmed
            .is_some_and(|(at, wall)| at.elapsed() < FRESH && wall.elapsed().is_ok_and(|elapsed| elapsed < FRESH))
    }
}

impl RemotePartition {
    /// A handle that knows nothing yet: [`RemotePartition::refresh`] asks the bucket.
    pub fn new(store: ManifestStore, partition: PartitionId, topic: TopicName) -> RemotePartition {
        let manifest = Arc::new(Manifest::new(partition, topic.clone()));
        RemotePartition {
            store,
            partition,
            topic,
            current: RwLock::new(Known { manifest, confirmed: None }),
            listed: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(Version::NONE),
        }
    }

    /// Whose remote tier it is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The topic's name.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// The bucket below.
    pub fn bucket(&self) -> &Bucket {
        self.store.bucket()
    }

    /// The manifests below.
    pub fn store(&self) -> &ManifestStore {
        &self.store
    }

    /// The newest manifest known here; an unpublished empty one before the first [`RemotePartition::refresh`].
    pub fn manifest(&self) -> Arc<Manifest> {
        Arc::clone(&self.current.read().manifest)
    }

    /// Whether the bucket has been asked at least once.
    pub fn is_loaded(&self) -> bool {
        self.current.read().confirmed.is_some()
    }

    /// What the remote tier covers, from memory.
    pub fn bounds(&self) -> RemoteBounds {
        let manifest = self.manifest();
        RemoteBounds {
            start: manifest.log_start(),
            end: manifest.end(),
            bytes: manifest.bytes(),
            log_bytes: manifest.log_bytes(),
        }
    }

    /// Wakes whenever a newer manifest is known here.
    pub fn subscribe(&self) -> watch::Receiver<Version> {
        self.changed.subscribe()
    }

    /// Asks the bucket for a newer manifest; returns the newest.
    ///
    /// # Errors
    /// [`StoreError`]; what was known stays.
    pub async fn refresh(&self) -> Result<Arc<Manifest>, StoreError> {
        let known = self.manifest().version();
        let asked = (Instant::now(), SystemTime::now());
        let newer = self.store.load(self.partition, known).await?;
        Ok(self.learn(newer.map(Arc::new), asked))
    }

    /// A listing of all partitions, begun at `asked`, named `newest` as this one's newest version, or had none
    /// ([`Version::NONE`]): it need not be listed again.
    pub fn listed(&self, newest: Version, asked: (Instant, SystemTime)) {
        if self.is_loaded() {
        } else if newest == Version::NONE {
            self.learn(None, asked);
        } else {
            *self.listed.lock() = Some((newest, asked));
        }
    }

    /// The newest manifest, asking the bucket only if it was never asked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn loaded(&self) -> Result<Arc<Manifest>, StoreError> {
        if self.is_loaded() {
            return Ok(self.manifest());
        }
        let listed = *self.listed.lock();
        let Some((version, asked)) = listed else { return self.refresh().await };
        match self.store.read(self.partition, version).await {
            Ok(manifest) => Ok(self.learn(Some(Arc::new(manifest)), asked)),
            // Pruned since the listing.
            Err(StoreError::Bucket(BucketError::NotFound(_))) => self.refresh().await,
            Err(error) => Err(error),
        }
    }

    /// Derives a change from the newest manifest and publishes it; derives it anew whenever somebody else was first.
    /// `change` is called with manifests that say the same as the newest one, with the leaves inline that it asked for
    /// ([`ManifestError::LeafNeeded`]). A change that changes nothing is not published.
    ///
    /// Cancel-safe: dropped half-way, the change may have been published; the next refresh shows it.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn update(
        &self,
        mut change: impl FnMut(&Manifest) -> Result<Manifest, ManifestError>,
    ) -> Result<Arc<Manifest>, UpdateError> {
        let _turn = self.writing.lock().await;
        if !self.current.read().is_fresh() {
            self.refresh().await?;
        }
        // One for all tries: a write that seemed lost and lands late is then still known as ours.
        let nonce = Uuid::new_v4();
        for _ in 0..RACES {
            let known = self.current.read().clone();
            let mut base = Manifest::clone(&known.manifest);
            let next = loop {
                match change(&base) {
                    Err(ManifestError::LeafNeeded(reference)) => {
                        let leaf = self.store.leaf(self.partition, &reference).await?;
                        base = base.inline(&reference, &leaf)?;
                    }
                    outcome => break outcome?,
                }
            };
            if next == base && known.manifest.version() != Version::NONE {
                return Ok(known.manifest);
            }
            if let Some(published) = self.publish(&known, next, nonce).await? {
                return Ok(published);
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// One try at the next version. `None`: somebody else has it, and is known now.
    async fn publish(&self, known: &Known, next: Manifest, nonce: Uuid) -> Result<Option<Arc<Manifest>>, StoreError> {
        let seen = known.manifest.version();
        match self.store.publish(seen, next, nonce).await {
            Ok(published) if known.is_fresh() => {
                let asked = (Instant::now(), SystemTime::now());
                Ok(Some(self.learn(Some(Arc::new(published)), asked)))
            }
            // We slept so long that our version may have been free only because it was pruned: then a later manifest says
            // so, and ours counts for nothing. The same look settles a write without an answer.
            Ok(_) | Err(StoreError::Unknown(_) | StoreError::Conflict) => {
                let newest = self.refresh().await?;
                if newest.version() <= seen {
                    // Unknown, and not there (yet): the same version is tried again, and only one of the two can win.
                    return Ok(None);
                }
                if newest.oldest_version() > seen.next() {
                    return Ok(None);
                }
                let ours = match newest.version() == seen.next() {
                    true => newest.nonce() == nonce,
                    false => self.store.read(self.partition, seen.next()).await?.nonce() == nonce,
                };
                Ok(ours.then_some(newest))
            }
            Err(error) => Err(error),
        }
    }

    /// The object that answers for `offset`, if one does. Reads at most one leaf.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, offset: Offset) -> Result<Option<RemoteObject>, StoreError> {
        let manifest = self.loaded().await?;
        match manifest.find(offset) {
            Place::Object(object) => Ok(Some(object.clone())),
            Place::Leaf(reference) => Ok(self.store.leaf(self.partition, reference).await?.find(offset).cloned()),
            Place::Nowhere => Ok(None),
        }
    }

    /// The first object at or after offset `from` with a record at or after `timestamp`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_timestamp(&self, timestamp: Timestamp, from: Offset) -> Result<Option<RemoteObject>, StoreError> {
        let manifest = self.loaded().await?;
        let mut from = from;
        loop {
            match manifest.find_timestamp(timestamp, from) {
                Place::Object(object) => return Ok(Some(object.clone())),
                Place::Nowhere => return Ok(None),
                Place::Leaf(reference) => {
                    let leaf = self.store.leaf(self.partition, reference).await?;
                    if let Some(object) = leaf.find_timestamp(timestamp, from) {
                        return Ok(Some(object.clone()));
                    }
                    from = reference.end;
                }
            }
        }
    }

    /// Objects of `manifest`, one of this partition's, that answer for offsets in `from..to`, in order. Reads every leaf in
    /// between.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn objects(
        &self,
        manifest: &Manifest,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<RemoteObject>, StoreError> {
        let wanted = |object: &&RemoteObject| object.base < to && object.end > from;
        let mut found: Vec<RemoteObject> = manifest.inline_objects().filter(wanted).cloned().collect();
        for reference in manifest.leaves_in(from, to) {
            let leaf = self.store.leaf(self.partition, reference).await?;
            found.extend(leaf.objects().iter().filter(wanted).cloned());
        }
        found.sort_unstable_by_key(|object| object.base);
        Ok(found)
    }

    /// Takes in what the bucket said at `asked`; never goes back. Returns the newest.
    fn learn(&self, newer: Option<Arc<Manifest>>, asked: (Instant, SystemTime)) -> Arc<Manifest> {
        let mut current = self.current.write();
        if let Some(newer) = newer.filter(|newer| newer.version() > current.manifest.version()) {
            current.manifest = newer;
        }
        current.confirmed = Some(asked);
        let manifest = Arc::clone(&current.manifest);
        drop(current);
        self.changed.send_if_modified(|version| std::mem::replace(version, manifest.version()) != manifest.version());
        manifest
    }
}

impl std::fmt::Debug for RemotePartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RemotePartition").field(&self.partition).finish()
    }
}

/// The handles of all partitions that this process touches: one each, shared by broker, archiver and compactor.
#[derive(Debug)]
pub struct RemotePartitions {
    store: ManifestStore,
    open: Mutex<HashMap<PartitionId, Arc<RemotePartition>>>,
}

impl RemotePartitions {
    /// No handles yet.
    pub fn new(store: ManifestStore) -> RemotePartitions {
        RemotePartitions { store, open: Mutex::default() }
    }

    /// The manifests below.
    pub fn store(&self) -> &ManifestStore {
        &self.store
    }

    /// The handle of `partition`, made if this is the first question. Asks the bucket nothing.
    pub fn get(&self, partition: PartitionId, topic: &TopicName) -> Arc<RemotePartition> {
        let mut open = self.open.lock();
        let handle = open
            .entry(partition)
            .or_insert_with(|| Arc::new(RemotePartition::new(self.store.clone(), partition, topic.clone())));
        Arc::clone(handle)
    }

    /// The handle of `partition`, if it was made.
    pub fn known(&self, partition: PartitionId) -> Option<Arc<RemotePartition>> {
        self.open.lock().get(&partition).cloned()
    }

    /// All handles made so far, in no particular order.
    pub fn all(&self) -> Vec<Arc<RemotePartition>> {
        self.open.lock().values().cloned().collect()
    }

    /// Forgets the handle of a partition that no longer exists.
    pub fn forget(&self, partition: PartitionId) {
        self.open.lock().remove(&partition);
    }
}
