//! Finding the object for an offset, a timestamp or a leader epoch.

use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

use super::{
    entry::RemoteObject,
    leaf::{Leaf, LeafRef},
    version::{Chunk, Manifest},
};

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// It is inline.
    Object(&'a RemoteObject),
    /// It is in this leaf, if anywhere: ask the leaf the same question.
    Leaf(&'a LeafRef),
    /// There is none.
    Nowhere,
}

impl Manifest {
    /// The object that answers for `offset`. [`Place::Nowhere`] below the log start and from [`Manifest::end`] on.
    pub fn find(&self, offset: Offset) -> Place<'_> {
        if offset < self.log_start {
            return Place::Nowhere;
        }
        let place = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        match self.chunks.get(place) {
            Some(Chunk::Inline(run)) => find_in(run, offset).map_or(Place::Nowhere, Place::Object),
            Some(Chunk::Leaf(leaf)) if leaf.base <= offset => Place::Leaf(leaf),
            _ => Place::Nowhere,
        }
    }

    /// The first object at or after offset `from` with a record at or after `timestamp`.
    ///
    /// A leaf may turn out to hold it only before `from`: then go on with the leaf's end as `from`.
    pub fn find_timestamp(&self, timestamp: Timestamp, from: Offset) -> Place<'_> {
        let from = from.max(self.log_start);
        let first = self.chunks.partition_point(|chunk| chunk.end() <= from);
        for chunk in &self.chunks[first..] {
            match chunk {
                Chunk::Inline(run) => {
                    if let Some(object) = find_timestamp_in(run, timestamp, from) {
                        return Place::Object(object);
                    }
                }
                Chunk::Leaf(leaf) if leaf.max_timestamp >= Some(timestamp) => return Place::Leaf(leaf),
                Chunk::Leaf(_) => {}
            }
        }
        Place::Nowhere
    }

    /// The largest leader epoch not above `epoch`, and where the next one begins (KIP-101). The end is `None` for the
    /// newest epoch here, which may go on in the local log; the answer is `None` if all epochs here are newer.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Option<Offset>)> {
        let next = self.epochs.partition_point(|(known, _)| *known <= epoch);
        let (found, _) = self.epochs.get(next.checked_sub(1)?)?;
        Some((*found, self.epochs.get(next).map(|(_, start)| *start)))
    }

    /// The leaves that hold entries for offsets in `from..to`.
    pub fn leaves_in(&self, from: Offset, to: Offset) -> impl Iterator<Item = &LeafRef> {
        self.leaves().filter(move |leaf| leaf.base < to && leaf.end > from)
    }
}

impl Leaf {
    /// The object that answers for `offset`.
    pub fn find(&self, offset: Offset) -> Option<&RemoteObject> {
        find_in(&self.objects, offset)
    }

    /// The first object at or after offset `from` with a record at or after `timestamp`.
    pub fn find_timestamp(&self, timestamp: Timestamp, from: Offset) -> Option<&RemoteObject> {
        find_timestamp_in(&self.objects, timestamp, from)
    }
}

fn find_in(run: &[RemoteObject], offset: Offset) -> Option<&RemoteObject> {
    let place = run.partition_point(|object| object.end <= offset);
    run.get(place).filter(|object| object.base <= offset)
}

fn find_timestamp_in(run: &[RemoteObject], timestamp: Timestamp, from: Offset) -> Option<&RemoteObject> {
    let first = run.partition_point(|object| object.end <= from);
    run[first..].iter().find(|object| object.max_timestamp >= Some(timestamp))
}
