//! All partitions of this broker, by every name a request may use.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::RwLock;
use tokio::sync::watch;
use varve_metadata::{
    controller::ReplicaState,
    model::{PartitionId, PartitionIndex, TopicId, TopicName},
    store::Revision,
};

use super::{LogDirHealth, Moves, Partition, flush::Unflushed};

/// A topic with at least one partition here.
#[derive(Debug)]
pub struct LocalTopic {
    /// The topic's id.
    pub id: TopicId,
    /// The topic's name.
    pub name: TopicName,
    /// Whether only coordinators may write it.
    pub internal: bool,
    partitions: RwLock<Vec<Place>>,
}

/// What a topic has at one partition number.
#[derive(Debug, Clone)]
enum Place {
    Nothing,
    Offline(Outage),
    Open(Arc<Partition>),
}

/// Why a partition that is here could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Its log cannot be reached, or nobody knows which one it is: not before the node is started again.
    OutOfReach,
    /// It is tried again: there was no room, or the archive has to be asked first.
    Waiting,
}

/// Why a partition cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No topic of that name or id.
    #[error("no such topic")]
    UnknownTopic,
    /// Another broker leads the partition.
    #[error("another broker leads the partition")]
    NotLeader,
    /// The partition's log directory failed when it was to be opened (KAFKA_STORAGE_ERROR).
    #[error("the partition's log directory is offline")]
    Offline,
    /// The topic has no such partition here.
    #[error("no such partition")]
    UnknownPartition,
}

impl LocalTopic {
    /// The topic's partition of that number.
    ///
    /// # Errors
    /// [`LookupError::UnknownPartition`] and [`LookupError::Offline`].
    pub fn partition(&self, index: PartitionIndex) -> Result<Arc<Partition>, LookupError> {
        let partitions = self.partitions.read();
        match partitions.get(index.0 as usize) {
            Some(Place::Open(partition)) => Ok(partition.clone()),
            Some(Place::Offline(_)) => Err(LookupError::Offline),
            Some(Place::Nothing) | None => Err(LookupError::UnknownPartition),
        }
    }

    /// Its partitions in the order of their numbers.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let open = |place: &Place| match place {
            Place::Open(partition) => Some(partition.clone()),
            Place::Nothing | Place::Offline(_) => None,
        };
        self.partitions.read().iter().filter_map(open).collect()
    }
}

/// The table of local partitions. Lookups hold a lock for the time of a hash lookup.
#[derive(Debug)]
pub struct Partitions {
    topics: RwLock<Topics>,
    log_dirs: RwLock<Vec<Arc<LogDirHealth>>>,
    shows: watch::Sender<Revision>,
    unflushed: Arc<Unflushed>,
    moves: Moves,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<TopicName, Arc<LocalTopic>>,
    by_id: HashMap<TopicId, Arc<LocalTopic>>,
}

impl Default for Partitions {
    fn default() -> Partitions {
        let (topics, log_dirs) = (RwLock::default(), RwLock::default());
        let (shows, unflushed) = (watch::Sender::new(Revision(0)), Arc::default());
        Partitions { topics, log_dirs, shows, unflushed, moves: Moves::default() }
    }
}

impl Partitions {
    /// Keeps new logs out of these directories, and lets them into the others (`cordoned.log.dirs`).
    pub(crate) fn cordon(&self, dirs: &[PathBuf]) {
        for dir in self.log_dirs.read().iter() {
            dir.set_cordoned(dirs.contains(&dir.path));
        }
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// [`LookupError::UnknownTopic`].
    pub fn topic_named(&self, name: &str) -> Result<Arc<LocalTopic>, LookupError> {
        self.topics.read().by_name.get(name).cloned().ok_or(LookupError::UnknownTopic)
    }

    /// The topic of that id.
    ///
    /// # Errors
    /// [`LookupError::UnknownTopic`].
    pub fn topic(&self, id: TopicId) -> Result<Arc<LocalTopic>, LookupError> {
        self.topics.read().by_id.get(&id).cloned().ok_or(LookupError::UnknownTopic)
    }

    /// The partition of that id.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn get(&self, id: PartitionId) -> Result<Arc<Partition>, LookupError> {
        self.topic(id.topic)?.partition(id.index)
    }

    /// The partition of that topic name and number.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn find(&self, topic: &str, index: PartitionIndex) -> Result<Arc<Partition>, LookupError> {
        self.topic_named(topic)?.partition(index)
    }

    /// The partition of that topic name and number, if it is led here.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn led(&self, topic: &str, index: PartitionIndex) -> Result<Arc<Partition>, LookupError> {
        let partition = self.find(topic, index)?;
        if partition.is_leader() { Ok(partition) } else { Err(LookupError::NotLeader) }
    }

    /// Takes one partition out of the table.
    pub(super) fn take(&self, id: PartitionId) -> Option<Arc<Partition>> {
        let topic = self.topic(id.topic).ok()?;
        let place = std::mem::replace(topic.partitions.write().get_mut(id.index.0 as usize)?, Place::Nothing);
        match place {
            Place::Open(partition) => {
                partition.retire();
                Some(partition)
            }
            Place::Nothing | Place::Offline(_) => None,
        }
    }

    /// Waits until the table shows the cluster as it was at `revision` or later: partitions of a topic that was created
    /// then are open, or known not to open. For whoever answers a creation, so that the client's next request finds them.
    pub async fn caught_up(&self, revision: Revision) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.shows.subscribe().wait_for(|shown| *shown >= revision).await;
    }

    /// The table shows the cluster as of `revision`.
    pub(super) fn shows(&self, revision: Revision) {
        self.shows.send_if_modified(|shown| {
            let newer = revision > *shown;
            *shown = revision.max(*shown);
            newer
        });
    }

    /// The directories that hold them, in the order of the configuration; failed ones too.
    pub fn log_dirs(&self) -> Vec<Arc<LogDirHealth>> {
        self.log_dirs.read().clone()
    }

    /// Logs on their way from one of them to another.
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Says which directories there are.
    pub(super) fn set_log_dirs(&self, dirs: Vec<Arc<LogDirHealth>>) {
        *self.log_dirs.write() = dirs;
    }

    pub(super) fn unflushed(&self) -> &Unflushed {
        &self.unflushed
    }

    /// All partitions, in no order.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let topics: Vec<_> = self.topics.read().by_id.values().cloned().collect();
        topics.iter().flat_map(|topic| topic.partitions()).collect()
    }

    /// How many partitions are here and could not be opened.
    pub fn offline(&self) -> usize {
        let is_offline = |place: &&Place| matches!(place, Place::Offline(_));
        self.topics().iter().map(|topic| topic.partitions.read().iter().filter(is_offline).count()).sum()
    }

    /// All topics, in no order.
    pub fn topics(&self) -> Vec<Arc<LocalTopic>> {
        self.topics.read().by_id.values().cloned().collect()
    }

    /// Puts an opened partition in the table.
    pub fn insert(&self, partition: Arc<Partition>, internal: bool) {
        partition.list_unflushed_in(self.unflushed.clone());
        let (id, name) = (partition.id(), partition.topic().clone());
        self.put(id, &name, internal, Place::Open(partition));
    }

    /// Notes that a partition is here and cannot be opened.
    pub fn insert_offline(&self, id: PartitionId, name: &TopicName, internal: bool, outage: Outage) {
        self.put(id, name, internal, Place::Offline(outage));
    }

    /// What there is to say of this node's replica of a partition.
    pub fn replica_state(&self, id: PartitionId) -> ReplicaState {
        let Ok(topic) = self.topic(id.topic) else { return ReplicaState::Undecided };
        let partitions = topic.partitions.read();
        match partitions.get(id.index.0 as usize) {
            Some(Place::Open(partition)) if partition.log_dir().is_failed() => ReplicaState::Offline,
            Some(Place::Open(_)) => ReplicaState::Online,
            Some(Place::Offline(Outage::OutOfReach)) => ReplicaState::Offline,
            Some(Place::Offline(Outage::Waiting) | Place::Nothing) | None => ReplicaState::Undecided,
        }
    }

    fn put(&self, id: PartitionId, name: &TopicName, internal: bool, place: Place) {
        let mut topics = self.topics.write();
        let new = || Arc::new(LocalTopic { id: id.topic, name: name.clone(), internal, partitions: RwLock::default() });
        let topic = topics.by_id.entry(id.topic).or_insert_with(new).clone();
        topics.by_name.insert(name.clone(), topic.clone());
        let mut partitions = topic.partitions.write();
        let number = id.index.0 as usize;
        if partitions.len() <= number {
            partitions.resize(number + 1, Place::Nothing);
        }
        partitions[number] = place;
    }

    /// Takes a topic and its partitions out of the table: requests do not find them any more.
    pub fn remove(&self, id: TopicId) -> Vec<Arc<Partition>> {
        let mut topics = self.topics.write();
        let Some(topic) = topics.by_id.remove(&id) else { return Vec::new() };
        // The name may belong to a younger topic by now.
        if topics.by_name.get(&topic.name).is_some_and(|named| named.id == id) {
            topics.by_name.remove(&topic.name);
        }
        drop(topics);
        let partitions = topic.partitions();
        partitions.iter().for_each(|partition| partition.retire());
        partitions
    }
}
