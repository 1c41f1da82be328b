//! What a manifest says.

use serde::Serialize;
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, LogStartOffset, Offset, PartitionId, Timestamp, TopicName};

use super::{
    entry::{RemoteObject, Removed},
    leaf::LeafRef,
};
use crate::layout::{Key, Version};

/// One version of a partition's manifest. See the module's page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    pub(super) partition: PartitionId,
    pub(super) topic: TopicName,
    pub(super) version: Version,
    pub(super) nonce: Uuid,
    pub(super) published_at: Timestamp,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) log_start: Offset,
    pub(super) end: Offset,
    pub(super) clean_until: Offset,
    pub(super) oldest_version: Version,
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(super) chunks: Vec<Chunk>,
    pub(super) removed: Vec<Removed>,
    pub(super) set_aside: Vec<Removed>,
}

/// A stretch of entries in offset order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Chunk {
    Inline(Vec<RemoteObject>),
    Leaf(LeafRef),
}

/// A look at a [`Chunk`].
pub(crate) enum Stretch<'a> {
    Leaf(&'a LeafRef),
    Run(&'a [RemoteObject]),
}

impl Chunk {
    pub(super) fn base(&self) -> Offset {
        match self {
            Chunk::Inline(run) => run.first().map_or(Offset::ZERO, |object| object.base),
            Chunk::Leaf(leaf) => leaf.base,
        }
    }

    pub(super) fn end(&self) -> Offset {
        match self {
            Chunk::Inline(run) => run.last().map_or(Offset::ZERO, |object| object.end),
            Chunk::Leaf(leaf) => leaf.end,
        }
    }
}

impl Manifest {
    /// A partition without remote objects, not yet published.
    pub fn new(partition: PartitionId, topic: TopicName) -> Manifest {
        Manifest {
            partition,
            topic,
            version: Version::NONE,
            nonce: Uuid::nil(),
            published_at: Timestamp::default(),
            leader_epoch: LeaderEpoch(0),
            log_start: Offset::ZERO,
            end: Offset::ZERO,
            clean_until: Offset::ZERO,
            oldest_version: Version(1),
            deleted_at: None,
            epochs: Vec::new(),
            chunks: Vec::new(),
            removed: Vec::new(),
            set_aside: Vec::new(),
        }
    }

    /// This content as the version after `seen`, written by whoever drew `nonce`. Done by the store when it publishes.
    #[must_use]
    pub fn published(mut self, seen: Version, nonce: Uuid, now: Timestamp) -> Manifest {
        (self.version, self.nonce, self.published_at) = (seen.next(), nonce, now);
        self
    }

    /// Whose objects these are.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The topic's name, from which Parquet keys are made.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Its number; [`Version::NONE`] if it has not been published.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Drawn at random by who published it: tells two writers of the same version apart.
    pub fn nonce(&self) -> Uuid {
        self.nonce
    }

    /// When it was made, by its writer's clock.
    pub fn published_at(&self) -> Timestamp {
        self.published_at
    }

    /// Epoch of the newest leader that announced itself; older ones can no longer publish.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// First offset readable in any tier, as far as retention and DeleteRecords of this partition got. May lie inside the
    /// first object, and is [`Manifest::end`] if nothing remote is left.
    pub fn log_start(&self) -> LogStartOffset {
        LogStartOffset(self.log_start)
    }

    /// First offset that no object covers yet: where the leader's next object begins.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// First offset that key compaction has not yet looked at (`cleanup.policy=compact`).
    pub fn clean_until(&self) -> Offset {
        self.clean_until
    }

    /// Versions below this one may have been deleted by the sweep.
    pub fn oldest_version(&self) -> Version {
        self.oldest_version
    }

    /// When the topic was deleted, if it was: nothing may be published any more.
    pub fn deleted_at(&self) -> Option<Timestamp> {
        self.deleted_at
    }

    /// Leader epochs of all that is covered, with the first offset of each, oldest first.
    pub fn epochs(&self) -> &[(LeaderEpoch, Offset)] {
        &self.epochs
    }

    /// What is no longer listed but may still lie in the bucket, in no particular order.
    pub fn removed(&self) -> &[Removed] {
        &self.removed
    }

    /// What readers do not see any more, because the leader's log has other records there, and what stays in the bucket all the
    /// same ([`Manifest::parted_at`]).
    pub fn set_aside(&self) -> &[Removed] {
        &self.set_aside
    }

    /// References to all leaves, in offset order.
    pub fn leaves(&self) -> impl DoubleEndedIterator<Item = &LeafRef> {
        self.chunks.iter().filter_map(|chunk| if let Chunk::Leaf(leaf) = chunk { Some(leaf) } else { None })
    }

    /// All entries that need no leaf, in offset order.
    pub fn inline_objects(&self) -> impl DoubleEndedIterator<Item = &RemoteObject> {
        self.chunks.iter().flat_map(|chunk| if let Chunk::Inline(run) = chunk { run.as_slice() } else { &[] })
    }

    /// Entries in offset order: a leaf, or a run of inline objects.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = Stretch<'_>> {
        self.chunks.iter().map(|chunk| match chunk {
            Chunk::Leaf(leaf) => Stretch::Leaf(leaf),
            Chunk::Inline(run) => Stretch::Run(run),
        })
    }

    /// Whether no object is listed.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Number of objects listed.
    pub fn object_count(&self) -> u64 {
        self.sum(|_| 1, |leaf| leaf.objects)
    }

    /// Stored bytes of all objects listed.
    pub fn bytes(&self) -> u64 {
        self.sum(|object| object.bytes, |leaf| leaf.bytes)
    }

    /// Bytes of all their record batches as the local log had them: what `retention.bytes` counts.
    pub fn log_bytes(&self) -> u64 {
        self.sum(|object| object.log_bytes, |leaf| leaf.log_bytes)
    }

    /// Records in all objects listed.
    pub fn records(&self) -> u64 {
        self.sum(|object| object.records, |leaf| leaf.records)
    }

    /// Largest record timestamp of all objects listed.
    pub fn max_timestamp(&self) -> Option<Timestamp> {
        let of = |chunk: &Chunk| match chunk {
            Chunk::Inline(run) => run.iter().filter_map(|object| object.max_timestamp).max(),
            Chunk::Leaf(leaf) => leaf.max_timestamp,
        };
        self.chunks.iter().filter_map(of).max()
    }

    /// Where `object`, listed here or removed from here, lies in the bucket.
    pub fn key_of(&self, object: &RemoteObject) -> Key {
        object.key(self.partition, &self.topic)
    }

    fn sum(&self, object: fn(&RemoteObject) -> u64, leaf: fn(&LeafRef) -> u64) -> u64 {
        let of = |chunk: &Chunk| match chunk {
            Chunk::Inline(run) => run.iter().map(object).fold(0, u64::saturating_add),
            Chunk::Leaf(reference) => leaf(reference),
        };
        self.chunks.iter().map(of).fold(0, u64::saturating_add)
    }
}
