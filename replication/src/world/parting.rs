//! An archive that holds other records than the leader's log, after an election that lost some, and what an operator does about that
//! (`varve tier lineage`).

use varve_metadata::model::{BrokerId, LeaderEpoch, Offset, Timestamp};

use super::{
    Role, World,
    bucket::{Piece, Published},
    log::Record,
};

/// The archive goes on with the leader's log.
pub(super) struct Parting {
    epoch: LeaderEpoch,
    from: Offset,
    seen: Published,
}

impl World {
    /// The same, where a replica without all records may lead if no other can.
    pub(crate) fn unclean(mut self) -> World {
        self.unclean = true;
        self
    }

    /// Whether the manifest in force holds other records than the log of a broker.
    pub(super) fn has_parted(&self, id: BrokerId) -> bool {
        self.bucket.as_ref().is_some_and(|bucket| self.parted(id, &bucket.newest()).is_some())
    }

    /// Where the archive may go on with the log of the leader, if they have parted. What it would not hold any more has to be on the
    /// disks of all who may lead next.
    pub(super) fn parting(&self) -> Option<Parting> {
        let seen = self.bucket.as_ref().filter(|_| self.unclean)?.newest();
        let id = self.partition.leader?;
        let Role::Leader(leader) = &self.broker(id).role else { return None };
        let from = self.parted(id, &seen)?;
        let is_kept = self.brokers.iter().all(|broker| broker.log.start <= from);
        let is_newest = leader.epoch() == self.partition.leader_epoch && leader.epoch() >= seen.0.leader_epoch();
        (is_kept && is_newest && !self.broker(id).failed).then(|| Parting { epoch: leader.epoch(), from, seen })
    }

    /// It does, with the part of the object across that place in an object of its own.
    pub(super) fn part(&mut self) {
        let Some(Parting { epoch, from, seen }) = self.parting() else { return };
        let Some(bucket) = &mut self.bucket else { return };
        let across = seen.0.inline_objects().find(|object| object.base < from && from < object.end);
        let mut kept = Vec::new();
        if let Some(base) = across.map(|object| object.base) {
            let records = bucket.records_of(&seen.0).unwrap_or_default();
            let part = records.get(base.get() as usize..from.get() as usize).unwrap_or_default();
            let records: Vec<Record> = part.iter().copied().cloned().collect();
            let piece = Piece { id: bucket.draw(), base, end: from, epoch, records };
            kept.push(piece.object());
            bucket.put(piece);
        }
        let claimed = seen.0.claimed_by(epoch);
        let parted = claimed.and_then(|claimed| claimed.parted_at(epoch, from, kept, Timestamp::default()));
        let nonce = bucket.draw();
        let done = match parted {
            Ok(next) => bucket.create(epoch, World::as_published(next, seen.0.version(), nonce), false).map(drop),
            Err(error) => Err(super::Violation(format!("the archive cannot go on at {from}: {error}"))),
        };
        if let Err(violation) = done {
            self.note(violation);
        }
    }
}
