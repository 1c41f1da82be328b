//! Leaves: immutable pages of older entries, and how entries move between them and the manifest.

use serde::Serialize;
use uuid::Uuid;
use varve_metadata::model::{Offset, Timestamp};

use super::{
    edit::ManifestError,
    encode::FormatError,
    entry::RemoteObject,
    version::{Chunk, Manifest},
};

/// Older entries of one partition, in offset order, without gap. Immutable once written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaf {
    pub(super) objects: Vec<RemoteObject>,
}

impl Leaf {
    /// Its entries in offset order; never empty.
    pub fn objects(&self) -> &[RemoteObject] {
        &self.objects
    }

    /// This leaf, if it is what `reference` says.
    ///
    /// # Errors
    /// [`FormatError::Corrupt`] if it is another one.
    pub fn matching(self, reference: &LeafRef) -> Result<Leaf, FormatError> {
        let same = LeafRef::to(reference.id, &self) == *reference;
        if same { Ok(self) } else { Err(FormatError::Corrupt("not the leaf that the manifest refers to")) }
    }
}

/// What a manifest says of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeafRef {
    /// Names the leaf in the bucket ([`crate::layout::leaf`]).
    pub id: Uuid,
    /// First offset its entries answer for.
    pub base: Offset,
    /// First offset after them.
    pub end: Offset,
    /// Number of entries, at least 1.
    pub objects: u64,
    /// Sum of [`RemoteObject::bytes`].
    pub bytes: u64,
    /// Sum of [`RemoteObject::log_bytes`].
    pub log_bytes: u64,
    /// Sum of [`RemoteObject::records`].
    pub records: u64,
    /// Largest record timestamp of all.
    pub max_timestamp: Option<Timestamp>,
}

impl LeafRef {
    pub(super) fn to(id: Uuid, leaf: &Leaf) -> LeafRef {
        let sum = |of: fn(&RemoteObject) -> u64| leaf.objects.iter().map(of).fold(0, u64::saturating_add);
        LeafRef {
            id,
            base: leaf.objects.first().map_or(Offset::ZERO, |first| first.base),
            end: leaf.objects.last().map_or(Offset::ZERO, |last| last.end),
            objects: leaf.objects.len() as u64,
            bytes: sum(|object| object.bytes),
            log_bytes: sum(|object| object.log_bytes),
            records: sum(|object| object.records),
            max_timestamp: leaf.objects.iter().filter_map(|object| object.max_timestamp).max(),
        }
    }
}

/// How many entries lie where.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries inline before older ones move out.
    pub inline: usize,
    /// Newest entries that then stay.
    pub keep: usize,
    /// Entries of one leaf at most.
    pub leaf: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { inline: 1024, keep: 256, leaf: 4096 }
    }
}

impl Manifest {
    /// Takes the entries of `leaf` inline. Says the same as before.
    ///
    /// # Errors
    /// [`ManifestError::ForeignLeaf`] if this manifest does not refer to it, or it is not what the reference says.
    pub fn inline(mut self, reference: &LeafRef, leaf: &Leaf) -> Result<Manifest, ManifestError> {
        let place = self.chunks.iter().position(|chunk| matches!(chunk, Chunk::Leaf(found) if found == reference));
        match place {
            Some(place) if LeafRef::to(reference.id, leaf) == *reference => {
                self.chunks[place] = Chunk::Inline(leaf.objects.clone());
                self.join_inline();
                Ok(self)
            }
            _ => Err(ManifestError::ForeignLeaf(reference.id)),
        }
    }

    /// The small leaves to take inline before [`Manifest::pack`], so that leaves fill up instead of multiplying.
    pub fn leaves_to_fill(&self, limits: Limits) -> Vec<LeafRef> {
        if self.inline_len() <= limits.inline {
            return Vec::new();
        }
        let fits = |leaf: &LeafRef, run: &[RemoteObject]| leaf.objects as usize + run.len() <= limits.leaf;
        let mut leaves: Vec<LeafRef> = Vec::new();
        for pair in self.chunks.windows(2) {
            match pair {
                [Chunk::Leaf(leaf), Chunk::Inline(run)] | [Chunk::Inline(run), Chunk::Leaf(leaf)]
                    if fits(leaf, run) =>
                {
                    leaves.push(leaf.clone());
                }
                _ => {}
            }
        }
        // A leaf between two runs is met twice.
        leaves.dedup();
        leaves
    }

    /// Moves older entries into new leaves if there are more than `limits.inline`. Says the same as before.
    /// The leaves must be in the bucket before the manifest is published. `new_id` gives a random id.
    pub fn pack(mut self, limits: Limits, mut new_id: impl FnMut() -> Uuid) -> (Manifest, Vec<(LeafRef, Leaf)>) {
        let mut leaves = Vec::new();
        if self.inline_len() <= limits.inline {
            return (self, leaves);
        }
        let last = self.chunks.len().saturating_sub(1);
        let chunks = std::mem::take(&mut self.chunks);
        for (place, chunk) in chunks.into_iter().enumerate() {
            let Chunk::Inline(mut objects) = chunk else {
                self.chunks.push(chunk);
                continue;
            };
            let kept =
                if place == last { objects.split_off(objects.len().saturating_sub(limits.keep)) } else { Vec::new() };
            for page in objects.chunks(limits.leaf.max(1)) {
                let leaf = Leaf { objects: page.to_vec() };
                let reference = LeafRef::to(new_id(), &leaf);
                self.chunks.push(Chunk::Leaf(reference.clone()));
                leaves.push((reference, leaf));
            }
            if !kept.is_empty() {
                self.chunks.push(Chunk::Inline(kept));
            }
        }
        (self, leaves)
    }

    /// Entries inline.
    pub fn inline_len(&self) -> usize {
        self.chunks.iter().map(|chunk| if let Chunk::Inline(run) = chunk { run.len() } else { 0 }).sum()
    }

    /// Joins neighbouring inline runs and drops empty ones.
    pub(super) fn join_inline(&mut self) {
        let mut joined: Vec<Chunk> = Vec::with_capacity(self.chunks.len());
        for chunk in std::mem::take(&mut self.chunks) {
            match (joined.last_mut(), chunk) {
                (_, Chunk::Inline(run)) if run.is_empty() => {}
                (Some(Chunk::Inline(before)), Chunk::Inline(run)) => before.extend(run),
                (_, chunk) => joined.push(chunk),
            }
        }
        self.chunks = joined;
    }
}
