//! Partitions in several log directories, of which one fails.

mod moves;
mod order;

use std::path::Path;

use varve_log::{
    format::{BatchBuilder, RecordContent},
    local::AppendOrigin,
};
use varve_metadata::{
    controller::{CreationDefaults, GrowTopic, NewTopic, Placement},
    image::BrokerImage,
    model::{HighWatermark, Offset, TopicId},
    store::MemoryStore,
};

use futures::{FutureExt, future::BoxFuture};
use varve_metadata::{controller::ReplicaState, model::TopicName};

use super::*;
use crate::partition::{LookupError, NoKeeper, PartitionAppendError, Waiter, flush::flush_due};

const NODE: BrokerId = BrokerId(1);

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

/// A node with two log directories, started and stopped as a test likes.
struct Node {
    metadata: Arc<ClusterMetadata>,
    root: tempfile::TempDir,
    storage: Arc<Storage>,
    partitions: Arc<Partitions>,
}

impl Node {
    async fn new() -> Node {
        let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), NODE, Default::default()).await.unwrap();
        let broker = BrokerImage {
            id: NODE,
            incarnation: uuid::Uuid::nil(),
            endpoints: Default::default(),
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        metadata.register(broker).await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let (storage, partitions) = started(&metadata, root.path()).await;
        Node { metadata, root, storage, partitions }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Stops without a word, lets `while_down` happen, and starts.
    async fn restart(self, while_down: impl FnOnce(&Path)) -> Node {
        let Node { metadata, root, storage, partitions } = self;
        let dirs: Vec<_> = storage.dirs.iter().map(Arc::downgrade).collect();
        drop((storage, partitions));
        // What still comes to its end in the background has the directories locked.
        while dirs.iter().any(|dir| dir.strong_count() > 0) {
            tokio::task::yield_now().await;
        }
        while_down(root.path());
        let (storage, partitions) = started(&metadata, root.path()).await;
        Node { metadata, root, storage, partitions }
    }

    async fn follow(&self) {
        self.storage.apply(&self.metadata.image()).await;
    }

    async fn create(&self, name: &str, partitions: u32) -> TopicId {
        self.create_with(name, partitions, &[]).await
    }

    async fn create_with(&self, name: &str, partitions: u32, overrides: &[(&str, &str)]) -> TopicId {
        let topic = NewTopic {
            name: name.to_owned(),
            placement: Ok(Placement::Spread { partitions: Some(partitions), replication_factor: None }),
            overrides: overrides.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect(),
        };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let mut made = self.metadata.create_topics(&[topic], defaults, false, None).await.unwrap();
        self.follow().await;
        made.remove(0).unwrap().id
    }

    async fn delete(&self, id: TopicId) {
        self.metadata.delete_topics(&[id], None).await.unwrap();
        self.follow().await;
    }

    fn find(&self, topic: &str, index: u32) -> Result<Arc<Partition>, LookupError> {
        self.partitions.find(topic, PartitionIndex(index))
    }

    fn append(&self, topic: &str, index: u32) -> Result<Offset, PartitionAppendError> {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        batch.push(RecordContent { timestamp: None, key: None, value: Some(b"v"), headers: &[] });
        let partition = self.find(topic, index).unwrap();
        let appended = partition.append(&batch.build().unwrap(), AppendOrigin::Client, wall_clock());
        appended.map(|appended| appended.base)
    }

    /// The directory of `t`'s only partition, by name: `a` or `b`; and the other one.
    fn place_of(&self, topic: &str) -> (&'static str, &'static str) {
        let found = self.find(topic, 0).unwrap().log_dir().path.clone();
        if found == self.dir("a") { ("a", "b") } else { ("b", "a") }
    }
}

async fn started(metadata: &Arc<ClusterMetadata>, root: &Path) -> (Arc<Storage>, Arc<Partitions>) {
    let partitions = Arc::new(Partitions::default());
    let storage = opened(metadata, root, partitions.clone()).unwrap();
    storage.apply(&metadata.image()).await;
    (storage, partitions)
}

fn opened(metadata: &ClusterMetadata, root: &Path, partitions: Arc<Partitions>) -> Result<Arc<Storage>, LogDirError> {
    opened_by(metadata, root, partitions, Arc::new(NoKeeper))
}

fn opened_by(
    metadata: &ClusterMetadata,
    root: &Path,
    partitions: Arc<Partitions>,
    keeper: Arc<dyn Keeper>,
) -> Result<Arc<Storage>, LogDirError> {
    let settings = StorageSettings {
        // The third one is there if a test made it.
        dirs: ["a", "b", "c"]
            .map(|name| root.join(name))
            .into_iter()
            .filter(|dir| !dir.ends_with("c") || dir.exists())
            .collect(),
        recovery_threads: 2,
        producer_expiry: Duration::from_secs(60),
        max_transaction_timeout: Duration::from_secs(900),
        verify_transactions: false,
    };
    let owner = LogDirOwner { cluster_id: metadata.image().cluster_id().to_owned(), node: NODE };
    Storage::open(&owner, partitions, settings, keeper)
}

/// Waits until the files of everything that was deleted are gone.
async fn removed(node: &Node) {
    let ended = async {
        while !node.storage.dirs.iter().all(|dir| dir.remover().is_idle()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), ended).await.expect("the files go");
}

/// Takes a directory away as a disk goes that cannot be mounted: what stands in its place is no directory.
fn lose(root: &Path, name: &str) {
    std::fs::rename(root.join(name), root.join(format!("{name}.lost"))).unwrap();
    std::fs::write(root.join(name), "").unwrap();
}

fn find_again(root: &Path, name: &str) {
    std::fs::remove_file(root.join(name)).unwrap();
    std::fs::rename(root.join(format!("{name}.lost")), root.join(name)).unwrap();
}

#[tokio::test]
async fn a_partition_whose_directory_is_offline_at_the_start_is_offline_until_the_directory_is_back() {
    let node = Node::new().await;
    node.create("t", 1).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(0));
    let (its, other) = node.place_of("t");
    let node = node.restart(|root| lose(root, its)).await;
    assert_eq!(node.find("t", 0).unwrap_err(), LookupError::Offline);

    // Neither a change of the topic nor the wait for the archive opens an empty log elsewhere.
    let more = GrowTopic { name: "t".to_owned(), count: 2, assignments: None };
    node.metadata.create_partitions(&[more], false, None).await.unwrap()[0].as_ref().unwrap();
    node.follow().await;
    node.storage.open_waiting().await;
    assert_eq!(node.find("t", 0).unwrap_err(), LookupError::Offline);
    assert!(!node.dir(other).join("t-0").exists());
    assert_eq!(node.append("t", 1).unwrap(), offset(0), "a new partition is made where there is a directory");
    node.create("u", 1).await;
    assert_eq!(node.append("u", 0).unwrap(), offset(0), "and so is a new topic");

    let node = node.restart(|root| find_again(root, its)).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(1));
    assert_eq!(node.append("t", 1).unwrap(), offset(1));
}

#[tokio::test]
async fn a_directory_that_fails_while_the_node_runs_takes_its_partitions_offline_and_no_other() {
    let node = Node::new().await;
    node.create("t", 4).await;
    for index in 0..4 {
        node.append("t", index).unwrap();
    }
    let failed = node.find("t", 0).unwrap().log_dir();
    failed.fail(&io::Error::other("gone"));
    let is_in_it = |index| Arc::ptr_eq(&node.find("t", index).unwrap().log_dir(), &failed);
    let (lost, kept): (Vec<_>, Vec<_>) = (0..4).partition(|index| is_in_it(*index));
    assert!(!lost.is_empty() && !kept.is_empty(), "all four are in one directory");
    assert!(lost.iter().all(|index| matches!(node.append("t", *index), Err(PartitionAppendError::Offline))));
    assert!(kept.iter().all(|index| node.append("t", *index).is_ok_and(|base| base == offset(1))));
    node.create("u", 3).await;
    assert!((0..3).all(|index| node.append("u", index).is_ok()), "new ones go elsewhere");
    node.storage.close();

    drop(failed);
    let node = node.restart(|_| ()).await;
    for index in 0..4 {
        let HighWatermark(end) = node.find("t", index).unwrap().high_watermark();
        assert_eq!(end, offset(if lost.contains(&index) { 1 } else { 2 }));
    }
}

#[tokio::test]
async fn a_topic_that_was_deleted_while_its_directory_was_offline_does_not_come_back_with_the_directory() {
    let node = Node::new().await;
    let old = node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (its, other) = node.place_of("t");
    let node = node.restart(|root| lose(root, its)).await;
    node.delete(old).await;
    node.create("t", 1).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(0));
    assert_eq!(node.place_of("t").0, other);

    let node = node.restart(|root| find_again(root, its)).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(1), "the log of the topic that is there");
    assert_eq!(node.place_of("t").0, other);
    let names = std::fs::read_dir(node.dir(its)).unwrap().map(|entry| entry.unwrap().file_name());
    let logs: Vec<_> = names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("t-")).collect();
    assert!(matches!(logs.as_slice(), [stray] if stray.ends_with("-stray")), "{logs:?}");
}

#[tokio::test]
async fn a_deletion_that_a_crash_cut_short_leaves_no_log_under_the_topics_name() {
    let node = Node::new().await;
    let id = node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (its, _) = node.place_of("t");
    // The store knows; the directory was not renamed yet.
    node.metadata.delete_topics(&[id], None).await.unwrap();
    let node = node.restart(|_| ()).await;
    assert!(!node.dir(its).join("t-0").exists());
    node.create("t", 1).await;
    assert_eq!(node.append("t", 0).unwrap(), offset(0));
}

#[tokio::test]
async fn a_partition_with_a_log_in_two_directories_is_offline() {
    let node = Node::new().await;
    node.create("t", 1).await;
    node.append("t", 0).unwrap();
    let (its, other) = node.place_of("t");
    let copy = |root: &Path| {
        let (from, to) = (root.join(its).join("t-0"), root.join(other).join("t-0"));
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(from.join("partition.metadata"), to.join("partition.metadata")).unwrap();
    };
    let node = node.restart(copy).await;
    assert_eq!(node.find("t", 0).unwrap_err(), LookupError::Offline);
    assert_eq!(node.partitions.offline(), 1);
    let id = node.metadata.image().topic("t").unwrap().id;
    node.delete(id).await;
    assert!(!node.dir("a").join("t-0").exists() && !node.dir("b").join("t-0").exists());
    assert_eq!(node.partitions.offline(), 0);
}

#[tokio::test]
async fn only_partitions_with_flush_ms_and_something_to_flush_are_looked_at_for_it() {
    let node = Node::new().await;
    node.create("plain", 1).await;
    node.create_with("t", 2, &[("flush.ms", "1000")]).await;
    let listed = || node.partitions.unflushed().len();
    node.append("plain", 0).unwrap();
    assert_eq!(listed(), 0);
    for _ in 0..3 {
        node.append("t", 1).unwrap();
    }
    assert_eq!(listed(), 1);
    let flushed = || node.find("t", 1).unwrap().log().recovery_point();
    for (now, (expected, left)) in [(1, (0, 1)), (1000, (0, 1)), (1001, (3, 0)), (5000, (3, 0))] {
        flush_due(node.partitions.unflushed(), now).await;
        assert_eq!((flushed(), listed()), (offset(expected), left), "after {now} ms");
    }
    node.append("t", 1).unwrap();
    assert_eq!(listed(), 1);
}

#[tokio::test]
async fn records_become_visible_though_their_producer_does_not_wait_for_the_flush() {
    let node = Node::new().await;
    node.create_with("t", 1, &[("flush.messages", "1")]).await;
    node.append("t", 0).unwrap();
    let partition = node.find("t", 0).unwrap();
    let waiter = Waiter::default();
    let _watch = partition.watch(&waiter);
    let turn = partition.flush_queue().take_turn().await;
    let timed_out = tokio::time::timeout(Duration::from_millis(1), partition.committed(partition.log().end())).await;
    assert!(timed_out.is_err() && partition.has_hidden());
    drop(turn);
    waiter.woken().await;
    assert!(!partition.has_hidden());
}

#[tokio::test]
async fn a_node_without_any_log_directory_that_works_does_not_start() {
    let Node { metadata, root, storage, partitions } = Node::new().await;
    drop((storage, partitions));
    lose(root.path(), "a");
    lose(root.path(), "b");
    let refused = opened(&metadata, root.path(), Arc::default());
    assert!(matches!(refused, Err(LogDirError::Storage(_))), "{refused:?}");
}

#[tokio::test]
async fn each_directory_that_fails_is_noticed_and_the_storage_has_failed_with_the_last() {
    let node = Node::new().await;
    let dirs = node.partitions.log_dirs();
    let noticed = |known| {
        let storage = node.storage.clone();
        tokio::spawn(async move { storage.more_failed(known).await })
    };
    let (first, second) = (noticed(0), noticed(1));
    tokio::task::yield_now().await;
    assert!(!first.is_finished());
    dirs[1].fail(&io::Error::other("gone"));
    first.await.unwrap();
    assert!(!second.is_finished() && !node.storage.has_failed());
    assert_eq!(node.storage.failed_dirs(), [dirs[1].path.clone()]);
    dirs[0].fail(&io::Error::other("gone"));
    second.await.unwrap();
    assert!(node.storage.has_failed());
    assert!(noticed(2).now_or_never().is_none(), "there is none left to fail");
}

/// Notes whose archive is looked after.
#[derive(Default)]
struct Cares(parking_lot::Mutex<HashSet<PartitionId>>);

impl Keeper for Cares {
    fn missing<'a>(&'a self, _: &'a TopicImage, _: PartitionId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
    fn opening<'a>(
        &'a self,
        _: &'a TopicImage,
        _: PartitionId,
        _: &'a LocalLog,
        _: bool,
    ) -> BoxFuture<'a, Result<(), Unsettled>> {
        Box::pin(async { Ok(()) })
    }
    fn opened(&self, partition: &Arc<Partition>, _: &TopicImage) {
        self.0.lock().insert(partition.id());
    }
    fn altered(&self, partition: &Arc<Partition>, _: &TopicImage) {
        self.0.lock().insert(partition.id());
    }
    fn deleted(&self, id: PartitionId, _: &TopicName) {
        self.0.lock().remove(&id);
    }
    fn left(&self, id: PartitionId) {
        self.0.lock().remove(&id);
    }
}

#[tokio::test]
async fn replicas_of_a_directory_that_failed_are_told_and_left_alone_and_those_of_others_are_not() {
    let Node { metadata, root, storage, partitions } = Node::new().await;
    drop((storage, partitions));
    let (partitions, cares) = (Arc::new(Partitions::default()), Arc::new(Cares::default()));
    let storage = opened_by(&metadata, root.path(), partitions.clone(), cares.clone()).unwrap();
    let node = Node { metadata, root, storage, partitions };
    let topic = node.create("t", 4).await;
    let ids = (0..4).map(|index| PartitionId { topic, index: PartitionIndex(index) });
    let failed = node.find("t", 0).unwrap().log_dir();
    let (lost, kept): (HashSet<_>, HashSet<_>) =
        ids.partition(|id| Arc::ptr_eq(&node.partitions.get(*id).unwrap().log_dir(), &failed));
    assert_eq!((lost.len(), kept.len(), cares.0.lock().len()), (2, 2, 4));
    let all_are = |ids: &HashSet<_>, state| ids.iter().all(|id| node.storage.replica_state(*id) == state);
    assert!(all_are(&lost, ReplicaState::Online) && all_are(&kept, ReplicaState::Online));

    failed.fail(&io::Error::other("gone"));
    node.storage.let_go_of_failed();
    assert!(all_are(&lost, ReplicaState::Offline) && all_are(&kept, ReplicaState::Online));
    assert_eq!(*cares.0.lock(), kept);
    // A change of its topic does not bring it back to the archive.
    let more = GrowTopic { name: "t".to_owned(), count: 5, assignments: None };
    node.metadata.create_partitions(&[more], false, None).await.unwrap()[0].as_ref().unwrap();
    node.follow().await;
    let new = PartitionId { topic, index: PartitionIndex(4) };
    assert_eq!(*cares.0.lock(), kept.iter().copied().chain([new]).collect::<HashSet<_>>());
    assert_eq!(node.storage.replica_state(new), ReplicaState::Online);
    let unknown = PartitionId { topic, index: PartitionIndex(9) };
    assert_eq!(node.storage.replica_state(unknown), ReplicaState::Undecided);

    let (its, _) = if failed.path == node.dir("a") { ("a", "b") } else { ("b", "a") };
    drop(failed);
    let node = node.restart(|root| lose(root, its)).await;
    assert!(lost.iter().all(|id| node.storage.replica_state(*id) == ReplicaState::Offline), "from the start");
}

#[tokio::test]
async fn what_is_asked_of_producers_changes_for_logs_that_are_open_and_for_later_ones() {
    let node = Node::new().await;
    node.create("t", 1).await;
    let asks = |topic: &str| {
        let config = node.find(topic, 0).unwrap().log().config();
        (config.producer_expiry, config.verify_transactions)
    };
    assert_eq!(asks("t"), (Duration::from_secs(60), false));
    let changed = (Duration::from_secs(30), true);
    node.storage.set_producer_rules(changed.0, changed.1).await;
    node.create("u", 1).await;
    assert_eq!([asks("t"), asks("u")], [changed; 2]);
}
