//! The service that a broker talks to: the newest image, and changes that become part of it.
//!
//! ```text
//! request ─► decide (controller, pure) ─► transact (store) ─► watch ─► image ─► subscribers
//!                 ▲                          │ conflict                 │
//!                 └──────── newer image ◄────┘                          └─► the request's answer
//! ```
//! A change is answered once the image shows it, so that whoever asked finds what it made.

mod alive;
mod change;
mod compactor;
mod enter;
mod in_sync;
mod leftovers;
mod member;
mod office;
mod proposals;
mod put_back;
mod recover;
mod requests;
mod seen;
mod topics;

pub use alive::Verdict;
pub use compactor::CompactorMember;
pub use in_sync::Told;
pub use member::{Joining, Member};
pub use proposals::{IsrProposal, ProposalOutcome};
pub use seen::Seen;
pub use topics::give_up;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as TurnMutex, watch},
    time::{Instant, timeout},
};

use crate::{
    controller::{TooManyAcls, TooManyPartitions},
    image::{
        ClusterImage, ImageBuilder, ImageError,
        record::{self, ClusterRecord, FeatureRecord, Key, ProducerIdsRecord},
    },
    model::{BrokerId, Feature, ProducerId, TopicId, Unserved},
    store::{
        Expect, MetadataStore, PutBack, Revision, Snapshot, StoreError, Transaction, WatchError, transact_settled,
    },
};

/// Times that a change is decided anew because another writer was first.
const ATTEMPTS: usize = 8;
/// How long a change waits for the image to follow the store.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the fate of a transaction whose answer was lost is looked into.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between attempts to read a store that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Producer ids that a broker takes at a time (Kafka's `PRODUCER_ID_BLOCK_SIZE`).
const PRODUCER_ID_BLOCK: u32 = 1000;

/// Why a change was not made, or not seen to be made.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The deadline passed while other changes were being made; this one was not begun, or, where the store takes it in parts
    /// only, not all of it.
    #[error("the change was not begun in time")]
    TimedOut,
    /// The request as a whole is refused.
    #[error(transparent)]
    TooManyPartitions(#[from] TooManyPartitions),
    /// The request as a whole is refused.
    #[error(transparent)]
    TooManyAcls(#[from] TooManyAcls),
    /// The store gave no answer; [`StoreError::Unknown`] means that the change may have happened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the store holds cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The cluster has agreed on a feature that this version does not serve.
    #[error(transparent)]
    Unserved(#[from] Unserved),
}

/// Producer ids that nobody else will ever hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first of them.
    pub first: ProducerId,
    /// How many there are.
    pub count: u32,
}

impl ProducerIdBlock {
    /// Takes the first id out of the block.
    ///
    /// # Panics
    /// If the block is empty.
    pub fn take(&mut self) -> ProducerId {
        assert!(self.count > 0, "an id taken from an empty block could be somebody else's");
        let id = self.first;
        self.count -= 1;
        // Ids end at the largest signed number, long before which blocks do.
        self.first = ProducerId::from_wire(id.to_wire().saturating_add(1)).unwrap_or(id);
        id
    }
}

/// Cluster state as this broker sees it, and the way to change it.
pub struct ClusterMetadata {
    store: Arc<dyn MetadataStore>,
    newest: ArcSwap<ClusterImage>,
    published: watch::Sender<Arc<ClusterImage>>,
    builder: Mutex<ImageBuilder>,
    /// Where the store stood at the first look at it.
    found_at: Revision,
    /// When it had last been put back, as far as anybody had noticed before this process went by it.
    lives_by_ms: AtomicU64,
    /// Why this process goes by the store no more.
    put_back: watch::Sender<Option<PutBack>>,
    /// Changes of this process are made one after the other: they would only conflict.
    turn: TurnMutex<()>,
}

impl ClusterMetadata {
    /// Reads the store, gives a new cluster its id, and follows the store from then on, in a task of the current runtime that
    /// ends when the last handle is dropped. `static_settings` are the broker's own, for the defaults of topics.
    ///
    /// # Errors
    /// [`MetadataError::Store`], [`MetadataError::Image`], and [`MetadataError::Unserved`]: this version is too old for the
    /// cluster, or too new.
    pub async fn start(
        store: Arc<dyn MetadataStore>,
        node: BrokerId,
        static_settings: BTreeMap<String, String>,
    ) -> Result<Arc<ClusterMetadata>, MetadataError> {
        let mut builder = ImageBuilder::new(node, static_settings);
        builder.load(&store.range("").await?)?;
        if builder.image().cluster_id().is_empty() {
            let id = TopicId::random().to_string();
            let create = Transaction::default()
                .put(Key::Cluster.text(), record::encode(ClusterRecord { id }))
                .expecting(Key::Cluster.text(), Expect::Absent);
            // Said once: a later version, with other levels for new clusters, must not take them for those of this one.
            let create = Feature::ALL.iter().fold(create, |create, feature| {
                let level = FeatureRecord { level: feature.initial };
                create.put(Key::Feature(feature.name.to_owned()).text(), record::encode(level))
            });
            match transact_settled(store.as_ref(), create, Instant::now() + SETTLE_TIMEOUT).await {
                // Lost to another broker of the same new cluster: its id is as good.
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
            builder.load(&store.range("").await?)?;
        }
        let image = Arc::new(builder.image().clone());
        let (found_at, lives_by_ms) = (image.revision(), AtomicU64::new(image.put_back_ms()));
        Feature::check_all(image.finalized_features())?;
        let metadata = Arc::new(ClusterMetadata {
            store,
            newest: ArcSwap::new(Arc::clone(&image)),
            published: watch::Sender::new(image),
            builder: Mutex::new(builder),
            found_at,
            lives_by_ms,
            put_back: watch::Sender::new(None),
            turn: TurnMutex::new(()),
        });
        tokio::spawn(follow(Arc::downgrade(&metadata)));
        Ok(metadata)
    }

    /// Whether `store` holds no cluster yet: [`start`](Self::start) would make one there.
    ///
    /// # Errors
    /// [`MetadataError::Store`].
    pub async fn is_new(store: &dyn MetadataStore) -> Result<bool, MetadataError> {
        Ok(store.get(&Key::Cluster.text()).await?.is_none())
    }

    /// The newest image. Costs nothing: ask anew for every request.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.newest.load_full()
    }

    /// Everything that the store holds, for a copy of it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn dump(&self) -> Result<Snapshot, StoreError> {
        self.store.range("").await
    }

    /// Returns once the image shows all that was in the store when this was called, whoever wrote it.
    ///
    /// # Errors
    /// [`StoreError`]: it is not known to.
    pub async fn caught_up(&self) -> Result<(), StoreError> {
        // The store may be shared: its newest revision can be somebody else's, which no image ever shows. Ours is one that we
        // make: the same value again.
        let key = Key::Cluster.text();
        let seen = self.image().revision();
        let Some(found) = self.store.get(&key).await? else {
            return Err(StoreError::Unavailable("the store does not hold the cluster any more".into()));
        };
        let again = Transaction::default().put(key.clone(), found.value).expecting(&key, Expect::At(found.modified));
        let ours = match transact_settled(self.store.as_ref(), again, Instant::now() + SETTLE_TIMEOUT).await {
            // Somebody else did the same after our look, which is as good.
            Err(StoreError::Conflict) => self.store.get(&key).await?.map_or(Revision(0), |later| later.modified),
            other => other?,
        };
        if ours <= seen {
            self.was_put_back(PutBack::Behind { seen, now: ours });
            return Err(StoreError::Unavailable("the store was put back to an older state".into()));
        }
        self.follow_to(ours).await
    }

    /// Wakes with every new image; images in between may be skipped.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.published.subscribe()
    }

    /// Returns when the cluster has agreed on a feature that this version does not serve: whoever runs it has to end then.
    /// Cancel-safe.
    pub async fn outdated(&self) -> Unserved {
        let mut images = self.subscribe();
        loop {
            if let Err(unserved) = Feature::check_all(images.borrow_and_update().finalized_features()) {
                return unserved;
            }
            if images.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes producer ids out of circulation, durably, and lends them to the caller. What a crash leaves unused is
    /// never used.
    ///
    /// # Errors
    /// [`MetadataError::Store`] and [`MetadataError::Image`].
    pub async fn next_producer_id_block(&self) -> Result<ProducerIdBlock, MetadataError> {
        let key = Key::ProducerIds.text();
        for _ in 0..ATTEMPTS {
            let (next, expect) = match self.store.get(&key).await? {
                None => (0, Expect::Absent),
                Some(found) => {
                    let record = record::decode::<ProducerIdsRecord>(&found.value)
                        .map_err(|error| ImageError::Record { key: key.clone(), error })?;
                    (record.next, Expect::At(found.modified))
                }
            };
            let after = ProducerIdsRecord { next: next + u64::from(PRODUCER_ID_BLOCK) };
            let take = Transaction::default().put(key.clone(), record::encode(after)).expecting(key.clone(), expect);
            // A block whose answer is lost is nobody's: the next attempt takes another.
            match self.store.transact(take).await {
                Ok(_) => {
                    let first = ProducerId::from_wire(next as i64)
                        .ok_or_else(|| StoreError::Unavailable("all producer ids are used up".into()))?;
                    return Ok(ProducerIdBlock { first, count: PRODUCER_ID_BLOCK });
                }
                Err(StoreError::Conflict | StoreError::Unknown(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn follow_to(&self, revision: Revision) -> Result<(), StoreError> {
        let mut images = self.published.subscribe();
        let seen = images.wait_for(|image| image.revision() >= revision);
        match timeout(FOLLOW_TIMEOUT, seen).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StoreError::Unknown("the image does not follow the store".into())),
        }
    }

    fn advance(&self, next: impl FnOnce(&mut ImageBuilder) -> Result<(), ImageError>) {
        let mut builder = self.builder.lock();
        if let Err(error) = next(&mut builder) {
            // Only a later version of Varve writes what we cannot read; what we could read stays as it was.
            tracing::error!(%error, "a change of cluster state was not understood");
        }
        let image = Arc::new(builder.image().clone());
        self.newest.store(Arc::clone(&image));
        self.published.send_replace(image);
    }
}

/// Keeps the image abreast of the store until nobody needs it.
async fn follow(metadata: std::sync::Weak<ClusterMetadata>) {
    let Some(first) = metadata.upgrade() else { return };
    let mut changes = first.store.watch("", first.image().revision());
    drop(first);
    loop {
        let next = changes.next().await;
        let Some(metadata) = metadata.upgrade() else { return };
        match next {
            Ok(batch) => metadata.advance(|builder| builder.apply(&batch)),
            Err(WatchError::Closed) => return,
            Err(WatchError::PutBack(how)) => return metadata.was_put_back(how),
            Err(WatchError::Compacted) => match metadata.store.range("").await {
                Ok(snapshot) => {
                    changes = metadata.store.watch("", snapshot.revision);
                    if let Err(how) = metadata.take_anew(&snapshot) {
                        return metadata.was_put_back(how);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cluster state cannot be read, trying again");
                    drop(metadata);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        controller::{CreateTopicError, CreationDefaults, GrowTopic, NewTopic, Placement},
        image::BrokerImage,
        store::{EmbeddedStore, MemoryStore, TransactionLimits},
    };

    pub(super) async fn cluster(store: Arc<dyn MetadataStore>) -> Arc<ClusterMetadata> {
        let metadata = ClusterMetadata::start(store, BrokerId(1), BTreeMap::new()).await.unwrap();
        let broker = BrokerImage {
            id: BrokerId(1),
            incarnation: uuid::Uuid::nil(),
            endpoints: BTreeMap::new(),
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        metadata.register(broker).await.unwrap();
        metadata
    }

    fn topic(name: &str, partitions: u32) -> NewTopic {
        let placement = Ok(Placement::Spread { partitions: Some(partitions), replication_factor: None });
        NewTopic { name: name.to_owned(), placement, overrides: BTreeMap::new() }
    }

    pub(super) async fn create(
        metadata: &ClusterMetadata,
        name: &str,
        partitions: u32,
    ) -> Result<TopicId, CreateTopicError> {
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let mut results = metadata.create_topics(&[topic(name, partitions)], defaults, false, None).await.unwrap();
        results.remove(0).map(|topic| topic.id)
    }

    #[tokio::test]
    async fn a_change_is_in_the_image_when_it_is_answered() {
        let metadata = cluster(Arc::new(MemoryStore::new())).await;
        let id = create(&metadata, "t", 3).await.unwrap();
        assert_eq!(metadata.image().topic("t").unwrap().id, id);
        assert!(matches!(create(&metadata, "t", 3).await, Err(CreateTopicError::Exists(_))));
        assert_eq!(metadata.delete_topics(&[id], None).await.unwrap(), [true]);
        assert!(metadata.image().topics().is_empty());
    }

    #[tokio::test]
    async fn a_topic_that_is_only_validated_is_not_made() {
        let metadata = cluster(Arc::new(MemoryStore::new())).await;
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let results = metadata.create_topics(&[topic("t", 1)], defaults, true, None).await.unwrap();
        assert!(results[0].is_ok() && metadata.image().topics().is_empty());
    }

    #[tokio::test]
    async fn what_was_made_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.redb");
        let before = {
            let metadata = cluster(Arc::new(EmbeddedStore::open(&path).unwrap())).await;
            create(&metadata, "t", 3).await.unwrap();
            metadata.image()
        };
        let metadata = loop {
            // The follower lets go of the file a moment after its last user.
            match EmbeddedStore::open(&path) {
                Ok(store) => break cluster(Arc::new(store)).await,
                Err(crate::store::OpenError::InUse) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let after = metadata.image();
        assert_eq!(after.cluster_id(), before.cluster_id());
        assert_eq!(after.topic("t"), before.topic("t"));
    }

    #[tokio::test]
    async fn two_writers_of_one_store_see_each_other() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let (one, other) = (cluster(Arc::clone(&store)).await, cluster(store).await);
        let racing = (0..20).map(|round| {
            let (one, other) = (Arc::clone(&one), Arc::clone(&other));
            async move {
                let name = format!("t{round}");
                let (a, b) = tokio::join!(create(&one, &name, 1), create(&other, &name, 1));
                assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
            }
        });
        for race in racing {
            race.await;
        }
    }

    #[tokio::test]
    async fn a_producer_id_is_handed_out_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metadata.redb");
        let store = Arc::new(EmbeddedStore::open(&path).unwrap());
        let metadata = cluster(Arc::clone(&store) as Arc<dyn MetadataStore>).await;
        let first = metadata.next_producer_id_block().await.unwrap();
        let second = metadata.next_producer_id_block().await.unwrap();
        assert_eq!(first.first.to_wire(), 0);
        assert_eq!(second.first.to_wire(), i64::from(first.count));
    }

    #[tokio::test]
    async fn a_watcher_that_fell_behind_catches_up() {
        let store = Arc::new(MemoryStore::new());
        let metadata = cluster(Arc::clone(&store) as Arc<dyn MetadataStore>).await;
        // More batches than the store keeps, while the follower has no chance to run.
        let other = Transaction::default().put("later/kind-of-key", "{}");
        for _ in 0..1500 {
            store.transact(other.clone()).await.unwrap();
        }
        create(&metadata, "t", 1).await.unwrap();
        assert!(metadata.image().topic("t").is_some());
    }

    #[tokio::test]
    async fn where_the_store_takes_little_at_a_time_large_changes_are_made_in_parts() {
        let limits = TransactionLimits { operations: 16, bytes: 1 << 16 };
        let metadata = cluster(Arc::new(MemoryStore::with_limits(limits))).await;
        let topics: Vec<NewTopic> =
            (0..30).map(|number| topic(&format!("t{number}"), 3)).chain([topic("t3", 1)]).collect();
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let results = metadata.create_topics(&topics, defaults, false, None).await.unwrap();
        assert!(results[..30].iter().all(Result::is_ok) && matches!(results[30], Err(CreateTopicError::Exists(_))));
        let wide = create(&metadata, "wide", 500).await.unwrap();
        assert_eq!(metadata.image().partition_count(), 590);
        let grown = GrowTopic { name: "wide".into(), count: 600, assignments: None };
        assert_eq!(metadata.create_partitions(&[grown], false, None).await.unwrap(), [Ok(())]);
        assert_eq!(metadata.image().topic("wide").unwrap().partitions.len(), 600);
        assert_eq!(metadata.delete_topics(&[wide], None).await.unwrap(), [true]);
        assert_eq!(metadata.image().partition_count(), 90);
        let left = metadata.store.range("partitions/").await.unwrap();
        assert_eq!(left.entries.len(), 90, "nothing is left behind");
    }

    #[tokio::test]
    async fn ten_thousand_partitions_are_one_change() {
        let metadata = cluster(Arc::new(MemoryStore::new())).await;
        create(&metadata, "wide", 10_000).await.unwrap();
        assert_eq!(metadata.image().partition_count(), 10_000);
    }
}
