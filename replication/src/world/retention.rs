//! What is let go: by retention over both tiers, and by the sweep of what no manifest names.

use std::{convert::Infallible, ops::Range};

use varve_compactor::sweep::{may_yet_be_published, named_objects};
use varve_log::local::{Retained, SealedSegment};
use varve_metadata::model::{BrokerId, Offset, Timestamp};
use varve_tiering::{
    manifest::{Manifest, ObjectId, RemovedEntry},
    plan,
};

use super::{Action, Break, Role, Violation, World};
use crate::follower::ReplicaLog;

impl World {
    /// The same with `retention.bytes`, where each record is a byte.
    pub(crate) fn retaining(mut self, records: u64) -> World {
        self.retention = Some(records);
        self
    }

    pub(super) fn add_retention_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        if self.bucket.is_none() && self.expired_here(id).is_some() {
            actions.push(Action::Expire(id));
        }
    }

    pub(super) fn add_sweep_actions(&self, actions: &mut Vec<Action>) {
        let Some(bucket) = &self.bucket else { return };
        if bucket.listed.is_some() {
            actions.push(Action::Sweep);
        } else if self.budget.sweeps > 0 && bucket.has_objects() {
            actions.push(Action::List);
        }
    }

    /// The sealed segments of a log that reach beyond `archived`, and the active one with its size.
    pub(super) fn unarchived(&self, id: BrokerId, archived: Offset) -> (Vec<SealedSegment>, (Range<Offset>, u64)) {
        let width = World::segment_width(id);
        let mut segments = self.broker(id).log.segments(width);
        let active = segments.pop_if(|(_, end)| !end.get().is_multiple_of(width));
        let sealed = segments.into_iter().filter(|(_, end)| *end > archived);
        let sealed = sealed.map(|(base, end)| SealedSegment {
            base,
            end,
            bytes: end.since(base),
            max_timestamp: None,
            leader_epochs: Vec::new(),
            log_path: "log".into(),
            offset_index_path: "index".into(),
            time_index_path: "timeindex".into(),
            txn_index_path: None,
            producer_snapshot_path: None,
        });
        let end = self.broker(id).log.end();
        let (base, end) = active.unwrap_or((end, end));
        (sealed.collect(), (base..end, end.since(base)))
    }

    /// Where the local log begins once it has no more than it is to retain.
    fn expired_below(&self, id: BrokerId, bytes: u64) -> Offset {
        let broker = self.broker(id);
        let segments = broker.log.segments(World::segment_width(id));
        let segments: Vec<_> = segments.into_iter().map(|(base, end)| (end, end.since(base))).collect();
        let (now, limit) = (Timestamp::default(), broker.high_watermark);
        let retained = Retained { now, time: None, bytes: Some(bytes), limit };
        let expired = retained.expired_below(broker.log.start, &segments, |_| Ok::<_, Infallible>(None));
        expired.unwrap_or(broker.log.start)
    }

    /// Where retention has the log of a topic without archive start, if not where it does (`upkeep::sweep`).
    fn expired_here(&self, id: BrokerId) -> Option<Offset> {
        let (broker, bytes) = (self.broker(id), self.retention?);
        if !broker.up || broker.failed || broker.role == Role::Nothing {
            return None;
        }
        Some(self.expired_below(id, bytes)).filter(|expired| *expired > broker.log.local_start())
    }

    pub(super) fn expire_here(&mut self, id: BrokerId) {
        let Some(start) = self.expired_here(id) else { return };
        self.let_go(id, start);
        self.advance_log_start(id, start);
    }

    /// Where retention has both tiers start, if not where they do (`Look::retain`).
    pub(super) fn expired_in_both(&self, id: BrokerId, manifest: &Manifest) -> Option<Offset> {
        let bytes = self.retention?;
        let (sealed, active) = self.unarchived(id, manifest.end());
        let counted = if self.is(Break::CountsWhatBothTiersHaveTwice) { Offset::ZERO } else { manifest.end() };
        let local_only = plan::local_only_bytes(&sealed, active, counted);
        let start = plan::retained_from(manifest, Timestamp::default(), None, Some(bytes), local_only).ok()?;
        let is_whole = start >= manifest.end();
        let start = if is_whole { start.max(self.expired_below(id, bytes)) } else { start };
        Some(start).filter(|start| *start > self.broker(id).log.log_start)
    }

    /// Retention lets go what lies before `start`.
    pub(super) fn let_go(&mut self, id: BrokerId, start: Offset) {
        let (broker, bytes) = (self.broker(id), self.retention.unwrap_or(u64::MAX));
        let archived = broker.archiver.known.as_ref().map_or(Offset::ZERO, |known| known.0.end());
        let (end, committed) = (broker.log.end(), broker.high_watermark.max(archived));
        if end.since(start) < bytes || start > committed {
            let what = format!("{id} lets go what lies before {start} of a log that ends at {end}, to retain {bytes}");
            self.note(Violation(what));
        }
        self.deletions.may_go_below(start.min(committed));
    }

    /// Objects leave the bucket that are in the manifest still, unless others are to be told first.
    pub(super) fn delete_before(&mut self, manifest: &Manifest, start: Offset) {
        if let Some(bucket) = self.bucket.as_mut().filter(|_| self.broken == Some(Break::DeletesObjectsFirst)) {
            let dead = manifest.inline_objects().filter(|object| object.end <= start);
            dead.for_each(|object| bucket.delete(object.id));
        }
    }

    /// The sweep lists the bucket.
    pub(super) fn list(&mut self) {
        if let Some(bucket) = &mut self.bucket {
            bucket.listed = Some(bucket.ids());
        }
    }

    /// It reads the manifest, and deletes what that has removed, and what it does not name of what was listed.
    pub(super) fn sweep(&mut self) {
        let anything = self.is(Break::SweepsWhatMayYetBePublished);
        let (awaited, kept) = (self.published_in_time(), self.kept_of_the_archive());
        let Some(bucket) = &mut self.bucket else { return };
        let Some(mut unnamed) = bucket.listed.take() else { return };
        let newest = bucket.newest().0;
        for object in named_objects(&newest, Timestamp::default()) {
            unnamed.remove(&object.id);
        }
        unnamed.retain(|_, base| anything || !may_yet_be_published(*base, newest.end()));
        unnamed.retain(|id, _| !awaited.contains(id) && !kept.contains(id));
        let removed: Vec<ObjectId> = newest
            .removed()
            .iter()
            .filter_map(|removed| match &removed.entry {
                RemovedEntry::Object(object) => Some(object.id),
                RemovedEntry::Leaf(_) => None,
            })
            .collect();
        unnamed.keys().chain(&removed).for_each(|id| bucket.delete(*id));
        if removed.is_empty() {
            return;
        }
        let (nonce, seen) = (bucket.draw(), newest.version());
        let next = World::as_published(newest.swept(|_| true), seen, nonce);
        if let Err(violation) = bucket.create(None, next, false) {
            self.note(violation);
        }
    }
}
