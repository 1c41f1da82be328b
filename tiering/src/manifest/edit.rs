//! How a manifest may change. Each change gives a new value; publishing it is another matter.

use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

use super::{
    entry::{ObjectId, RemoteObject, Removed, RemovedEntry},
    leaf::LeafRef,
    version::{Chunk, Manifest},
};
use crate::layout::Version;

/// Removed entries that wait for the sweep, at most. Beyond it the sweep must catch up before more may go.
const MAX_REMOVED: usize = 65_536;

/// Who changes the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The partition's leader in this epoch, which it announced by [`Manifest::claimed_by`].
    Leader(LeaderEpoch),
    /// The compactor, which the race for the next version alone fences.
    Compactor,
}

/// Why a manifest does not take a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A newer leader announced itself: stop writing for this partition.
    #[error("fenced: epoch {current} leads, this writer is of epoch {mine}")]
    Fenced {
        /// The newest leader's.
        current: LeaderEpoch,
        /// The writer's.
        mine: LeaderEpoch,
    },
    /// The leader has not announced its epoch: publish [`Manifest::claimed_by`] first.
    #[error("epoch {0} has not been announced")]
    Unclaimed(LeaderEpoch),
    /// The topic was deleted: drop the work.
    #[error("the topic was deleted")]
    Deleted,
    /// The object does not begin where coverage ends: somebody else uploaded, derive the work anew.
    #[error("the next object must begin at {expected}, not at {found}")]
    Gap {
        /// Where coverage ends.
        expected: Offset,
        /// Where the object begins.
        found: Offset,
    },
    /// An object answers for no offset, or its parts contradict each other.
    #[error("object {0} is not well formed")]
    Malformed(ObjectId),
    /// What should be replaced is no longer listed as it was: derive the work anew.
    #[error("object {0} is no longer listed")]
    Gone(ObjectId),
    /// The new objects do not cover exactly what the old ones did, or the old ones are no unbroken stretch.
    #[error("the new objects do not cover exactly what they replace")]
    Coverage,
    /// The change touches entries in this leaf: read it, [`Manifest::inline`] it, and try again.
    #[error("leaf {} is needed", .0.id)]
    LeafNeeded(Box<LeafRef>),
    /// The leaf is not one of this manifest's.
    #[error("leaf {0} does not belong here")]
    ForeignLeaf(Uuid),
    /// The sweep has not deleted what was removed before: wait for it.
    #[error("{0} removed entries wait for the sweep")]
    SweepBehind(usize),
}

impl Manifest {
    /// This manifest with `epoch` announced: from its publication on, older leaders are fenced. A new leader publishes it
    /// before its first upload.
    ///
    /// # Errors
    /// [`ManifestError::Fenced`], [`ManifestError::Deleted`].
    pub fn claimed_by(&self, epoch: LeaderEpoch) -> Result<Manifest, ManifestError> {
        self.check_alive()?;
        if epoch < self.leader_epoch {
            return Err(ManifestError::Fenced { current: self.leader_epoch, mine: epoch });
        }
        Ok(Manifest { leader_epoch: epoch, ..self.clone() })
    }

    /// This manifest with `object` at its end, uploaded by the leader of `epoch`.
    ///
    /// # Errors
    /// [`ManifestError::Gap`] if it does not begin at [`Manifest::end`]; [`ManifestError::Malformed`]; or the writer may not.
    pub fn with(&self, epoch: LeaderEpoch, object: RemoteObject) -> Result<Manifest, ManifestError> {
        self.check_writer(Writer::Leader(epoch))?;
        check_object(&object)?;
        if object.base != self.end {
            return Err(ManifestError::Gap { expected: self.end, found: object.base });
        }
        let mut next = self.clone();
        for &(epoch, start) in &object.leader_epochs {
            if next.epochs.last().is_none_or(|(newest, from)| epoch > *newest && start > *from) {
                next.epochs.push((epoch, start));
            }
        }
        next.end = object.end;
        next.chunks.push(Chunk::Inline(vec![object]));
        next.join_inline();
        Ok(next)
    }

    /// This manifest with the objects named by `sources`, an unbroken stretch in offset order, replaced by `objects`,
    /// which cover exactly the same offsets. None at all are allowed only for a stretch at the very start, which `expire`
    /// does better.
    ///
    /// # Errors
    /// [`ManifestError::Gone`] if a source is not listed (the work was overtaken); [`ManifestError::Coverage`];
    /// [`ManifestError::LeafNeeded`]; [`ManifestError::SweepBehind`].
    pub fn replace(
        &self,
        sources: &[RemoteObject],
        objects: Vec<RemoteObject>,
        now: Timestamp,
    ) -> Result<Manifest, ManifestError> {
        self.check_writer(Writer::Compactor)?;
        let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
            return Err(ManifestError::Coverage);
        };
        check_covers(&objects, first.base, last.end)?;
        if let Some(leaf) = self.leaves_in(first.base, last.end).next() {
            return Err(ManifestError::LeafNeeded(Box::new(leaf.clone())));
        }
        let place = self.chunks.partition_point(|chunk| chunk.end() <= first.base);
        let Some(Chunk::Inline(run)) = self.chunks.get(place) else {
            return Err(ManifestError::Gone(first.id));
        };
        let from = run.partition_point(|object| object.end <= first.base);
        if let Some(gone) = sources.iter().enumerate().find(|(nth, source)| run.get(from + nth) != Some(source)) {
            return Err(ManifestError::Gone(gone.1.id));
        }
        let mut run = run.clone();
        let old: Vec<RemoteObject> = run.splice(from..from + sources.len(), objects).collect();
        // The log start may have moved on since the sources were read: what now lies below it is dead on arrival.
        let dead: Vec<RemoteObject> = run.extract_if(.., |object| object.end <= self.log_start).collect();
        let mut next = self.clone();
        next.chunks[place] = Chunk::Inline(run);
        // An object that stays as it is may stand among sources and replacements.
        let kept: Vec<ObjectId> = next.inline_objects().map(|object| object.id).collect();
        let gone = old.into_iter().chain(dead).filter(|object| !kept.contains(&object.id));
        next.remove(gone.map(RemovedEntry::Object), now)?;
        Ok(next)
    }

    /// This manifest with the log start at `start` and without the objects that lie wholly below it. A start beyond
    /// [`Manifest::end`] is legal (DeleteRecords reaches into the local log): the next object then begins there. A start
    /// below the present one changes nothing.
    ///
    /// # Errors
    /// [`ManifestError::LeafNeeded`] if `start` lies inside a leaf; [`ManifestError::SweepBehind`]; or the writer may not.
    pub fn expire(&self, writer: Writer, start: Offset, now: Timestamp) -> Result<Manifest, ManifestError> {
        self.check_writer(writer)?;
        let start = start.max(self.log_start);
        if let Some(leaf) = self.leaves().find(|leaf| leaf.base < start && start < leaf.end) {
            return Err(ManifestError::LeafNeeded(Box::new(leaf.clone())));
        }
        let mut next = self.clone();
        let mut gone = Vec::new();
        for chunk in std::mem::take(&mut next.chunks) {
            match chunk {
                Chunk::Leaf(leaf) if leaf.end <= start => gone.push(RemovedEntry::Leaf(leaf)),
                Chunk::Inline(run) if run.first().is_some_and(|object| object.end <= start) => {
                    let (dead, alive): (Vec<_>, Vec<_>) = run.into_iter().partition(|object| object.end <= start);
                    gone.extend(dead.into_iter().map(RemovedEntry::Object));
                    next.chunks.push(Chunk::Inline(alive));
                }
                chunk => next.chunks.push(chunk),
            }
        }
        next.join_inline();
        next.remove(gone, now)?;
        (next.log_start, next.end) = (start, next.end.max(start));
        next.clean_until = next.clean_until.max(start);
        // The newest epoch that began at or before the start still has records. Behind the end nothing tells which that is.
        let dead = next.epochs.iter().skip(1).take_while(|(_, from)| *from <= start).count();
        next.epochs.drain(..if start > self.end { next.epochs.len() } else { dead });
        Ok(next)
    }

    /// This manifest without objects, because archiving was turned off: the log starts at `start`, from where on the local
    /// log has it all, and coverage would begin there again. What was listed goes after the grace period, also what lies
    /// above `start`.
    ///
    /// # Errors
    /// [`ManifestError::SweepBehind`]; or the writer may not.
    pub fn emptied(&self, writer: Writer, start: Offset, now: Timestamp) -> Result<Manifest, ManifestError> {
        self.check_writer(writer)?;
        if self.chunks.is_empty() {
            return Ok(self.clone());
        }
        let start = start.max(self.log_start);
        let mut next = self.clone();
        next.take_all(now);
        if next.removed.len() > MAX_REMOVED {
            return Err(ManifestError::SweepBehind(self.removed.len()));
        }
        (next.log_start, next.end, next.clean_until) = (start, start, start);
        // Epochs of what the local log has are announced again with whatever is archived again.
        next.epochs.retain(|(_, from)| *from < start);
        let dead = next.epochs.len().saturating_sub(1);
        next.epochs.drain(..dead);
        Ok(next)
    }

    /// This manifest up to `offset`, from where on the leader of `epoch`, which has announced itself, has other records. What is
    /// listed beyond is set aside: no reader sees it any more, and no sweep takes it. `kept` stands for the part below `offset` of the
    /// object that reaches across it, and covers exactly that part; none if no object does, or if `offset` is not beyond the log
    /// start: then all goes. An `offset` at or beyond [`Manifest::end`] changes nothing.
    ///
    /// # Errors
    /// [`ManifestError::Coverage`]; [`ManifestError::LeafNeeded`] if `offset` lies inside a leaf; [`ManifestError::SweepBehind`] if
    /// too much is set aside already; or the writer may not.
    pub fn parted_at(
        &self,
        epoch: LeaderEpoch,
        offset: Offset,
        kept: Vec<RemoteObject>,
        now: Timestamp,
    ) -> Result<Manifest, ManifestError> {
        self.check_writer(Writer::Leader(epoch))?;
        let offset = offset.max(self.log_start);
        if offset >= self.end {
            return Ok(self.clone());
        }
        if let Some(leaf) = self.leaves().find(|leaf| leaf.base < offset && offset < leaf.end) {
            return Err(ManifestError::LeafNeeded(Box::new(leaf.clone())));
        }
        let mut next = self.clone();
        let mut beyond = Vec::new();
        let mut across = None;
        for chunk in std::mem::take(&mut next.chunks) {
            match chunk {
                Chunk::Leaf(leaf) if leaf.base >= offset => beyond.push(RemovedEntry::Leaf(leaf)),
                Chunk::Inline(run) => {
                    let (stays, goes): (Vec<_>, Vec<_>) = run.into_iter().partition(|object| object.end <= offset);
                    across = across.or(goes.first().map(|object| object.base).filter(|base| *base < offset));
                    beyond.extend(goes.into_iter().map(RemovedEntry::Object));
                    if !stays.is_empty() {
                        next.chunks.push(Chunk::Inline(stays));
                    }
                }
                chunk => next.chunks.push(chunk),
            }
        }
        // Below the log start nothing is read: of an object that the log start lies in, nothing need stay.
        match across.filter(|_| offset > self.log_start) {
            Some(base) => check_covers(&kept, base, offset)?,
            None if kept.is_empty() => {}
            None => return Err(ManifestError::Coverage),
        }
        if !kept.is_empty() {
            next.chunks.push(Chunk::Inline(kept));
        }
        next.join_inline();
        if next.set_aside.len() + beyond.len() > MAX_REMOVED {
            return Err(ManifestError::SweepBehind(self.set_aside.len()));
        }
        next.set_aside.extend(beyond.into_iter().map(|entry| Removed { entry, at: now }));
        (next.end, next.clean_until) = (offset, next.clean_until.min(offset));
        next.epochs.retain(|(_, start)| *start < offset);
        Ok(next)
    }

    /// This manifest with key compaction done up to `offset` (exclusive).
    ///
    /// # Errors
    /// [`ManifestError::Deleted`].
    pub fn cleaned(&self, offset: Offset) -> Result<Manifest, ManifestError> {
        self.check_alive()?;
        Ok(Manifest { clean_until: offset.max(self.clean_until).min(self.end), ..self.clone() })
    }

    /// This manifest without the removed entries for which `deleted` says that they have left the bucket.
    #[must_use]
    pub fn swept(&self, deleted: impl Fn(&Removed) -> bool) -> Manifest {
        let mut next = self.clone();
        next.removed.retain(|removed| !deleted(removed));
        next
    }

    /// This manifest with the leave to delete versions below `oldest`. Publish it before deleting them: a writer that slept
    /// that long learns from it that "no such version" did not mean "nobody was first".
    #[must_use]
    pub fn pruned_below(&self, oldest: Version) -> Manifest {
        Manifest { oldest_version: oldest.max(self.oldest_version).min(self.version), ..self.clone() }
    }

    /// This manifest with its topic deleted: everything is removed, and nothing can be published after it.
    #[must_use]
    pub fn deleted(&self, now: Timestamp) -> Manifest {
        let mut next = self.clone();
        next.take_all(now);
        next.log_start = next.end;
        next.clean_until = next.end;
        next.epochs.clear();
        next.deleted_at = Some(self.deleted_at.unwrap_or(now));
        next
    }

    fn take_all(&mut self, now: Timestamp) {
        let gone = std::mem::take(&mut self.chunks).into_iter().flat_map(|chunk| match chunk {
            Chunk::Inline(run) => run.into_iter().map(RemovedEntry::Object).collect(),
            Chunk::Leaf(leaf) => vec![RemovedEntry::Leaf(leaf)],
        });
        self.removed.extend(gone.map(|entry| Removed { entry, at: now }));
        let aside = std::mem::take(&mut self.set_aside).into_iter();
        self.removed.extend(aside.map(|removed| Removed { at: now, ..removed }));
    }

    fn remove(&mut self, gone: impl IntoIterator<Item = RemovedEntry>, at: Timestamp) -> Result<(), ManifestError> {
        let before = self.removed.len();
        self.removed.extend(gone.into_iter().map(|entry| Removed { entry, at }));
        // What removes nothing is always taken, so that uploads go on while the sweep is behind.
        if self.removed.len() > MAX_REMOVED && self.removed.len() > before {
            return Err(ManifestError::SweepBehind(before));
        }
        Ok(())
    }

    fn check_writer(&self, writer: Writer) -> Result<(), ManifestError> {
        self.check_alive()?;
        match writer {
            Writer::Leader(mine) if mine < self.leader_epoch => {
                Err(ManifestError::Fenced { current: self.leader_epoch, mine })
            }
            Writer::Leader(mine) if mine > self.leader_epoch => Err(ManifestError::Unclaimed(mine)),
            Writer::Leader(_) | Writer::Compactor => Ok(()),
        }
    }

    fn check_alive(&self) -> Result<(), ManifestError> {
        if self.deleted_at.is_some() { Err(ManifestError::Deleted) } else { Ok(()) }
    }
}

/// An object answers for at least one offset, and its epochs ascend.
pub(super) fn check_object(object: &RemoteObject) -> Result<(), ManifestError> {
    let ascending = object.leader_epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    let within = object.leader_epochs.iter().all(|(_, start)| *start < object.end);
    let whole = object.shared_at.unwrap_or(0).checked_add(object.bytes).is_some();
    if object.base < object.end && ascending && within && whole {
        Ok(())
    } else {
        Err(ManifestError::Malformed(object.id))
    }
}

fn check_covers(objects: &[RemoteObject], base: Offset, end: Offset) -> Result<(), ManifestError> {
    let mut expected = base;
    for object in objects {
        check_object(object)?;
        if object.base != expected {
            return Err(ManifestError::Coverage);
        }
        expected = object.end;
    }
    if expected == end { Ok(()) } else { Err(ManifestError::Coverage) }
}
