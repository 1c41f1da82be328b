//! An archive that holds other records than the leader's log, after an election that lost some, and what an operator does about that
//! (`varve tier lineage`): looks, and then decides. Others may lead by then.

use std::collections::BTreeSet;

use varve_metadata::model::{BrokerId, LeaderEpoch, Offset, Timestamp};
use varve_tiering::{
    manifest::{Manifest, ObjectId},
    plan,
};

use super::{
    Action, Break, Role, World,
    bucket::{Piece, Published},
    log::Record,
};

/// The archive is to go on with the leader's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parting {
    epoch: LeaderEpoch,
    from: Offset,
    seen: Published,
    /// The part in front of that place of the object across it.
    kept: Option<Piece>,
}

impl World {
    /// The same, where a replica without all records may lead if no other can.
    pub(crate) fn unclean(mut self) -> World {
        self.unclean = true;
        self
    }

    pub(super) fn add_parting_actions(&self, actions: &mut Vec<Action>) {
        if self.under_decision.is_some() {
            actions.push(Action::ConfirmPart);
        } else if self.budget.partings > 0 && self.parting().is_some() {
            actions.push(Action::Part);
        }
    }

    /// Whether the manifest in force holds other records than the log of a broker, or lacks what that has given up in its favour.
    pub(super) fn has_parted(&self, id: BrokerId) -> bool {
        self.bucket.as_ref().is_some_and(|bucket| {
            let newest = bucket.newest();
            self.parted(id, &newest).is_some() || self.lacks_what_was_set_aside(id, &newest.0)
        })
    }

    /// Whether a log begins behind what the archive has, because that went on with another one.
    pub(super) fn lacks_what_was_set_aside(&self, id: BrokerId, manifest: &Manifest) -> bool {
        let log = &self.broker(id).log;
        plan::set_aside_before(manifest, log.log_start, log.local_start()).is_some()
    }

    /// Where the archive may go on with the log of the leader, if they have parted. What it would not hold any more has to be on the
    /// leader's disk.
    pub(super) fn parting(&self) -> Option<Parting> {
        let seen = self.bucket.as_ref().filter(|_| self.unclean)?.newest();
        let id = self.partition.leader?;
        let broker = self.broker(id);
        let Role::Leader(leader) = &broker.role else { return None };
        let from = self.parted(id, &seen)?;
        let is_kept = broker.log.local_start() <= from.max(broker.log.log_start);
        let is_newest = leader.epoch() == self.partition.leader_epoch && leader.epoch() >= seen.0.leader_epoch();
        let epoch = leader.epoch();
        (is_kept && is_newest && !broker.failed).then_some(Parting { epoch, from, seen, kept: None })
    }

    /// The operator looks, and has the part that stays of an object across that place put in an object of its own.
    pub(super) fn part(&mut self) {
        let Some(mut parting) = self.parting() else { return };
        let Some(bucket) = &mut self.bucket else { return };
        let Parting { epoch, from, seen, .. } = &parting;
        let (epoch, from) = (*epoch, *from);
        let across = seen.0.inline_objects().find(|object| object.base < from && from < object.end);
        if let Some(base) = across.map(|object| object.base).filter(|_| from > seen.0.log_start().0) {
            let records = bucket.records_of(&seen.0).unwrap_or_default();
            let part = records.range(base..from);
            let records = part.map(|(at, record)| (*at, Record::clone(record))).collect();
            let piece = Piece { id: bucket.draw(), base, end: from, epoch, is_raw: true, records };
            bucket.put(piece.clone());
            parting.kept = Some(piece);
        }
        self.under_decision = Some(parting);
    }

    /// The archive goes on so, if it is as it was seen.
    pub(super) fn confirm_part(&mut self) {
        let (Some(parting), Some(bucket)) = (self.under_decision.take(), &mut self.bucket) else { return };
        let Parting { epoch, from, seen, kept } = parting;
        if bucket.newest().0.version() != seen.0.version() {
            return;
        }
        let kept = kept.iter().map(Piece::object).collect();
        let claimed = seen.0.claimed_by(epoch);
        let parted = claimed.and_then(|claimed| claimed.parted_at(epoch, from, kept, Timestamp::default()));
        let nonce = bucket.draw();
        let done = match parted {
            Ok(next) => bucket.create(Some(epoch), World::as_published(next, seen.0.version(), nonce), false).map(drop),
            Err(error) => Err(super::Violation(format!("the archive cannot go on at {from}: {error}"))),
        };
        if let Err(violation) = done {
            self.note(violation);
        }
    }

    /// What stays of an object is published soon after it was put, or never.
    pub(super) fn kept_of_the_archive(&self) -> BTreeSet<ObjectId> {
        let kept = self.under_decision.iter().flat_map(|parting| &parting.kept);
        kept.map(|piece| piece.object().id).collect()
    }

    /// Whether the archiver of a broker leaves alone what was set aside of its log.
    pub(super) fn stops_at_what_was_set_aside(&self, id: BrokerId, manifest: &Manifest) -> bool {
        !self.is(Break::ArchivesBehindWhatWasSetAside) && self.lacks_what_was_set_aside(id, manifest)
    }
}
