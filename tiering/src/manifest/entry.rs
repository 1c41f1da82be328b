//! One remote object as a manifest lists it.

use serde::Serialize;
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, Timestamp, TopicName};

use super::leaf::LeafRef;
use crate::{
    layout::{self, Key},
    raw::RawSummary,
};

/// Identity of one object in the bucket, made at random by who uploads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ObjectId(pub Uuid);

impl ObjectId {
    /// A new random id.
    pub fn random() -> ObjectId {
        ObjectId(Uuid::new_v4())
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// Record batches as the local log had them, then indexes and a footer ([`crate::raw`]).
    Raw,
    /// Columns, with what is needed to rebuild the batches (`varve_table`).
    Parquet,
}

/// One object (or one partition's part of a shared one) and the offsets it answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteObject {
    /// Identity of the stored object; two parts of one shared object have the same.
    pub id: ObjectId,
    /// How it is read.
    pub kind: ObjectKind,
    /// First offset it answers for. Its first record may be later (compaction), and its first batch may begin earlier.
    pub base: Offset,
    /// First offset it no longer answers for: the base of what follows.
    pub end: Offset,
    /// Stored bytes: of the object, or of the part if it is shared.
    pub bytes: u64,
    /// Bytes of its record batches as the local log had them; what `retention.bytes` counts, in any kind.
    pub log_bytes: u64,
    /// Records, control records included.
    pub records: u64,
    /// Largest record timestamp; `None` if no record has one.
    pub max_timestamp: Option<Timestamp>,
    /// Epoch of the leader that uploaded the records.
    pub writer_epoch: LeaderEpoch,
    /// Leader epochs of its batches with the first offset of each, both strictly ascending; the first may start before `base`.
    pub leader_epochs: Vec<(LeaderEpoch, Offset)>,
    /// CRC-32C of the stored bytes (of the part, if shared).
    pub crc32c: u32,
    /// Where its part begins, in bytes, if it lies in an object shared by several partitions.
    pub shared_at: Option<u64>,
}

impl RemoteObject {
    /// A raw object of its own, of which `summary` tells, put there by the leader of `writer_epoch`.
    pub fn raw(id: ObjectId, writer_epoch: LeaderEpoch, summary: RawSummary) -> RemoteObject {
        RemoteObject {
            id,
            kind: ObjectKind::Raw,
            base: summary.base,
            end: summary.end,
            bytes: summary.bytes,
            log_bytes: summary.log_bytes,
            records: summary.records,
            max_timestamp: summary.max_timestamp,
            writer_epoch,
            leader_epochs: summary.leader_epochs,
            crc32c: summary.crc32c,
            shared_at: None,
        }
    }

    /// Where the object lies in the bucket.
    pub fn key(&self, partition: PartitionId, topic: &TopicName) -> Key {
        match (self.shared_at, self.kind) {
            (Some(_), _) => layout::shared(self.id.0),
            (None, ObjectKind::Raw) => layout::raw(partition, self.base, self.writer_epoch, self.id.0),
            (None, ObjectKind::Parquet) => layout::table(topic, partition.index, self.base, self.last(), self.id.0),
        }
    }

    /// Last offset it answers for.
    pub fn last(&self) -> Offset {
        // `end > base >= 0` holds for every object that a manifest took in.
        Offset::new(self.end.get().saturating_sub(1)).unwrap_or(Offset::ZERO)
    }

    /// Byte range of the part within the stored object.
    pub fn range(&self) -> std::ops::Range<u64> {
        let start = self.shared_at.unwrap_or(0);
        start..start.saturating_add(self.bytes)
    }
}

/// What a manifest no longer lists, but readers of an older version may still be reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovedEntry {
    /// One object.
    Object(RemoteObject),
    /// A leaf with all that it lists.
    Leaf(LeafRef),
}

/// Something removed, and when: it may be deleted from the bucket after the grace period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// What was removed.
    pub entry: RemovedEntry,
    /// When the manifest without it was made.
    pub at: Timestamp,
}
