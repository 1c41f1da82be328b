//! What each broker does for the archive: the looks of its archiver (`tiering/src/tier/archiver/tend.rs`), one write after the other.
//!
//! A look is begun where the broker leads, and goes on in that epoch whoever leads meanwhile, as the real one does.

use varve_log::local::SealedSegment;
use varve_metadata::model::{BrokerId, LeaderEpoch, Offset, Timestamp};
use varve_tiering::{
    layout::Version,
    manifest::{Manifest, ManifestError, Writer},
    plan,
};

use super::{
    Action, Break, Role, Violation, World,
    bucket::{Piece, Published, Reply, Sender, Write},
    log::offset,
};
use crate::follower::ReplicaLog;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Archiver {
    /// The newest manifest that this process has seen; `None` before it has asked.
    pub(super) known: Option<Published>,
    /// In the bucket and, as far as is known, in no manifest.
    unpublished: Option<Piece>,
    look: Option<Look>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Look {
    epoch: LeaderEpoch,
    doing: Doing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Doing {
    /// It decides what comes next.
    Nothing,
    /// An object is on its way.
    Puts,
    /// A version of the manifest is.
    Publishes { change: Change, nonce: u16 },
    /// A version that was to be created is somebody's, or may be ours.
    Asks { change: Change, nonce: u16, tried: Published },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Change {
    /// The epoch is announced.
    Claim,
    /// What is unpublished is listed.
    Append,
    /// What lies before that is deleted.
    Expire(Offset),
}

impl World {
    pub(super) fn add_archive_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let broker = self.broker(id);
        if !broker.up || broker.failed {
            return;
        }
        if self.budget.drops > 0 && self.may_leave(id).is_some() {
            actions.push(Action::DropLocal(id));
        }
        let Some(bucket) = &self.bucket else { return };
        if self.is_look_due(id) {
            actions.push(Action::Archive(id));
        }
        let archiver = &broker.archiver;
        if archiver.look.is_none() && archiver.known.as_ref() != Some(&bucket.newest()) {
            actions.push(Action::Learn(id));
        }
        let asks = matches!(&archiver.look, Some(Look { doing: Doing::Asks { .. }, .. }));
        if asks && self.budget.bucket_outages > 0 {
            actions.push(Action::GiveUp(id));
        }
    }

    pub(super) fn add_bucket_actions(&self, actions: &mut Vec<Action>) {
        let Some(bucket) = &self.bucket else { return };
        for (place, request) in bucket.requests.iter().enumerate() {
            actions.push(Action::Bucket(place));
            if request.reply.is_none() && self.budget.lost_replies > 0 {
                actions.push(Action::LoseReply(place));
            }
            if request.reply.is_none() && self.budget.bucket_outages > 0 {
                actions.push(Action::WriteNothing(place));
            }
        }
        actions.extend((0..bucket.late.len()).map(Action::BucketLate));
    }

    /// The archiver of a broker has something to do.
    pub(super) fn is_look_due(&self, id: BrokerId) -> bool {
        let broker = self.broker(id);
        match (&broker.archiver.look, &broker.role) {
            (Some(look), _) => matches!(look.doing, Doing::Nothing | Doing::Asks { .. }),
            (None, Role::Leader(leader)) => {
                let Some(known) = &broker.archiver.known else { return true };
                let has_changed = self.bucket.as_ref().is_some_and(|bucket| bucket.newest() != *known);
                is_old(&known.0, leader.epoch()) && has_changed
                    || self.next_upload(id, &known.0).is_some()
                    || self.next_start(id, &known.0).is_some()
                    || self.expired_in_both(id, &known.0).is_some()
            }
            (None, _) => false,
        }
    }

    /// The first segments are longer on some brokers than on others.
    pub(super) fn segment_width(id: BrokerId) -> u64 {
        u64::from(id.0 % 3) + 1
    }

    fn next_upload(&self, id: BrokerId, manifest: &Manifest) -> Option<SealedSegment> {
        let broker = self.broker(id);
        let (sealed, _) = self.unarchived(id, manifest.end());
        let stable = if self.is(Break::ArchivesWhatIsNotCommitted) { broker.log.end() } else { broker.high_watermark };
        plan::next_upload(sealed, manifest.end(), stable)
    }

    /// Where the archive is to start, if it starts before the log.
    fn next_start(&self, id: BrokerId, manifest: &Manifest) -> Option<Offset> {
        let start = self.broker(id).log.log_start;
        Some(start).filter(|start| *start > manifest.log_start().0 && manifest.version() != Version::NONE)
    }

    /// The manifest in force is read.
    pub(super) fn learn(&mut self, id: BrokerId) -> Published {
        let newest = self.bucket.as_ref().map_or_else(Published::nothing, |bucket| bucket.newest());
        self.broker_mut(id).archiver.known = Some(newest.clone());
        self.follow_archived_start(id);
        newest
    }

    /// The log starts where the archive does, unless it is another one by then.
    fn follow_archived_start(&mut self, id: BrokerId) {
        let log = &self.broker(id).log;
        let Some(known) = &self.broker(id).archiver.known else { return };
        let start = known.0.log_start().0;
        if start <= plan::common_end(&known.0, &log.epochs(), log.end()).min(log.end()) {
            self.advance_log_start(id, start);
        }
    }

    /// The archiver goes on to its next write.
    pub(super) fn archive(&mut self, id: BrokerId) {
        if !self.is_look_due(id) || self.broker(id).failed {
            return;
        }
        let archiver = self.broker(id).archiver.clone();
        let known = match archiver.known {
            Some(known) => known,
            None => self.learn(id),
        };
        match archiver.look {
            None => self.begin_look(id, known),
            Some(Look { epoch, doing: Doing::Nothing }) => self.go_on(id, epoch, &known),
            Some(Look { epoch, doing: Doing::Asks { change, nonce, tried } }) => {
                self.settle_version(id, epoch, (change, nonce), &tried);
            }
            Some(Look { doing: Doing::Puts | Doing::Publishes { .. }, .. }) => {}
        }
    }

    fn begin_look(&mut self, id: BrokerId, mut known: Published) {
        let Role::Leader(leader) = &self.broker(id).role else { return };
        let epoch = leader.epoch();
        if is_old(&known.0, epoch) {
            known = self.learn(id);
        }
        if self.parted(id, &known).is_some() || self.lacks_what_was_set_aside(id, &known.0) {
            known = self.learn(id);
        }
        // Deposed, and not heard of it.
        if known.0.leader_epoch() > epoch && !self.is(Break::LooksBehindItsSuccessor) {
            return;
        }
        if !self.ends_for_another_lineage(id, &known) && !self.stops_at_what_was_set_aside(id, &known.0) {
            self.broker_mut(id).archiver.look = Some(Look { epoch, doing: Doing::Nothing });
        }
    }

    pub(super) fn parted(&self, id: BrokerId, known: &Published) -> Option<Offset> {
        let log = &self.broker(id).log;
        plan::parted(&known.0, &log.epochs(), log.end())
    }

    /// Where no election chooses who lacks what is committed, leader and archive never part.
    fn ends_for_another_lineage(&mut self, id: BrokerId, known: &Published) -> bool {
        let Some(from) = self.parted(id, known) else { return false };
        if self.is(Break::ArchivesBehindOtherRecords) {
            return false;
        }
        self.broker_mut(id).archiver.look = None;
        if !self.unclean {
            let log = &self.broker(id).log;
            let what = format!("{id} takes the archive for another's from {from} on: {log:?} {:?}", known.0);
            self.note(Violation(what));
        }
        true
    }

    fn go_on(&mut self, id: BrokerId, epoch: LeaderEpoch, known: &Published) {
        let (upload, mut start) = (self.next_upload(id, &known.0), self.next_start(id, &known.0));
        if upload.is_none() && start.is_none() {
            start = self.expired_in_both(id, &known.0);
            let Some(start) = start else {
                self.broker_mut(id).archiver.look = None;
                return;
            };
            self.let_go(id, start);
            if known.0.is_empty() {
                self.advance_log_start(id, start);
                return;
            }
        }
        if !(known.0.leader_epoch() == epoch && known.0.version() != Version::NONE) {
            let nonce = self.draw();
            self.publish(id, epoch, Change::Claim, nonce);
            return;
        }
        if self.ends_for_another_lineage(id, known) {
            return;
        }
        if self.stops_at_what_was_set_aside(id, &known.0) {
            self.broker_mut(id).archiver.look = None;
            return;
        }
        if let Some(start) = start {
            self.delete_before(&known.0, start);
            let nonce = self.draw();
            self.publish(id, epoch, Change::Expire(start), nonce);
            return;
        }
        let Some(segment) = upload else { return };
        let (base, end) = (known.0.end(), segment.end);
        let is_there = |piece: &Piece| (piece.base, piece.end, piece.epoch) == (base, end, epoch);
        if self.broker(id).archiver.unpublished.as_ref().is_some_and(is_there) {
            let nonce = self.draw();
            self.publish(id, epoch, Change::Append, nonce);
            return;
        }
        self.compare_with_archive(id, known, base, "archives behind");
        let log = &self.broker(id).log;
        if log.start > base.max(log.log_start.min(log.kept_start)) {
            let what = format!("{id} archives its log from {base} on, which begins at {}", log.start);
            return self.note(Violation(what));
        }
        let here = base.max(log.start).get()..end.get();
        let record = |at| Some((at, log.get(at)?.clone()));
        let records = here.filter_map(|at| record(offset(at as usize))).collect();
        let piece = Piece { id: self.draw(), base, end, epoch, is_raw: true, records };
        if self.is(Break::PublishesBeforeTheUpload) {
            let nonce = self.draw();
            self.broker_mut(id).archiver.unpublished = Some(piece);
            self.publish(id, epoch, Change::Append, nonce);
            return;
        }
        self.send(id, epoch, Doing::Puts, Write::Put(piece));
    }

    pub(super) fn draw(&mut self) -> u16 {
        self.bucket.as_mut().map_or(0, |bucket| bucket.draw())
    }

    fn send(&mut self, id: BrokerId, epoch: LeaderEpoch, doing: Doing, write: Write) {
        self.broker_mut(id).archiver.look = Some(Look { epoch, doing });
        self.request(Sender::Leader(id, epoch), write);
    }

    /// One try at the version after the newest known one (`RemotePartition::update`).
    fn publish(&mut self, id: BrokerId, epoch: LeaderEpoch, change: Change, nonce: u16) {
        let Archiver { known, unpublished, .. } = self.broker(id).archiver.clone();
        let base = known.unwrap_or_else(Published::nothing).0;
        let own = if self.is(Break::PublishesInAnyEpoch) { epoch.max(base.leader_epoch()) } else { epoch };
        let next = match (change, &unpublished) {
            (Change::Claim, _) => base.claimed_by(own),
            (Change::Append, Some(piece)) => plan::with_uploaded(&base, own, &piece.object()),
            (Change::Append, None) => Ok(Manifest::clone(&base)),
            (Change::Expire(start), _) => base.expire(Writer::Leader(own), start, Timestamp::default()),
        };
        match next {
            Ok(next) if next == *base && base.version() != Version::NONE => self.published(id, epoch, change),
            Ok(next) => {
                let next = Write::Create(World::as_published(next, base.version(), nonce));
                self.send(id, epoch, Doing::Publishes { change, nonce }, next);
            }
            Err(error) => {
                let archiver = &mut self.broker_mut(id).archiver;
                archiver.look = None;
                if matches!(error, ManifestError::Fenced { .. }) {
                    archiver.unpublished = None;
                }
            }
        }
    }

    /// The change is in the newest manifest known.
    fn published(&mut self, id: BrokerId, epoch: LeaderEpoch, change: Change) {
        let archiver = &mut self.broker_mut(id).archiver;
        if change == Change::Append {
            archiver.unpublished = None;
        }
        archiver.look = Some(Look { epoch, doing: Doing::Nothing });
        // The manifest first, then the log.
        self.follow_archived_start(id);
    }

    /// What the bucket holds tells what became of a version.
    fn settle_version(&mut self, id: BrokerId, epoch: LeaderEpoch, change: (Change, u16), tried: &Published) {
        let newest = self.learn(id);
        let (change, nonce) = change;
        let version = tried.0.version();
        let there = self.bucket.as_ref().and_then(|bucket| bucket.version(version).cloned());
        if there.is_some_and(|there| there.0.nonce() == tried.0.nonce()) {
            self.published(id, epoch, change);
        } else if self.is(Break::PublishesWhatWasOvertaken) && newest.0.version() >= version {
            let next = World::as_published(Manifest::clone(&tried.0), newest.0.version(), nonce);
            self.send(id, epoch, Doing::Publishes { change, nonce }, Write::Create(next));
        } else {
            // It is not there (yet), or another one is: derived anew, and only one of both tries can win.
            self.publish(id, epoch, change, nonce);
        }
    }

    /// The bucket's reply reaches the archiver that waits for it.
    pub(super) fn take_reply(&mut self, (id, epoch): (BrokerId, LeaderEpoch), write: Write, reply: Reply) {
        let doing = self.broker(id).archiver.look.as_ref().map(|look| look.doing.clone());
        let is_done = reply == Reply::Done || reply == Reply::Unknown && self.is(Break::TakesLostRepliesForDone);
        match (doing, write) {
            (Some(Doing::Puts), Write::Put(piece)) if reply == Reply::Done => {
                self.broker_mut(id).archiver.unpublished = Some(piece);
                let nonce = self.draw();
                self.publish(id, epoch, Change::Append, nonce);
            }
            (Some(Doing::Publishes { change, .. }), Write::Create(next)) if is_done => {
                self.broker_mut(id).archiver.known = Some(next);
                self.published(id, epoch, change);
            }
            (Some(Doing::Publishes { change, nonce }), Write::Create(tried)) if reply != Reply::Away => {
                self.broker_mut(id).archiver.look = Some(Look { epoch, doing: Doing::Asks { change, nonce, tried } });
            }
            // What was put is an orphan, if it is there: the next look puts another one.
            _ => self.give_up(id),
        }
    }

    /// The bucket cannot be asked: the look ends, and what is in the bucket is published by a later one.
    pub(super) fn give_up(&mut self, id: BrokerId) {
        self.broker_mut(id).archiver.look = None;
    }

    /// The process, or its care for the partition, is gone.
    pub(super) fn end_archiver(&mut self, id: BrokerId) {
        self.leave_requests(|from| matches!(from, Sender::Leader(of, _) if of == id));
        self.broker_mut(id).archiver = Archiver::default();
    }

    /// Where the first segment ends that may leave the disk.
    fn may_leave(&self, id: BrokerId) -> Option<Offset> {
        let broker = self.broker(id);
        let log = &broker.log;
        let mut covered = Offset::ZERO;
        if let Some(known) = &broker.archiver.known {
            covered = covered.max(match self.is(Break::DropsInFavourOfOtherRecords) {
                true => known.0.end().min(broker.high_watermark),
                false => plan::may_leave_below(&known.0, &log.epochs(), log.end(), broker.high_watermark),
            });
        }
        if self.is(Break::DropsWhatIsNotPublished) {
            covered = covered.max(broker.archiver.unpublished.as_ref().map_or(covered, |piece| piece.end));
        }
        covered = covered.max(match self.is(Break::DropsBeforeTheStartIsKept) {
            true => log.log_start,
            false => log.log_start.min(log.kept_start),
        });
        let (_, end) = log.segments(World::segment_width(id)).first().copied()?;
        Some(end).filter(|end| *end <= covered)
    }

    /// Local retention: a copy leaves the disk of which the archive has the record.
    pub(super) fn drop_local(&mut self, id: BrokerId) {
        let Some(end) = self.may_leave(id) else { return };
        if let Some(known) = self.broker(id).archiver.known.clone() {
            self.compare_with_archive(id, &known, end, "drops in favour of");
        }
        self.broker_mut(id).log.drop_below(end);
    }

    /// Below `end`, whatever a broker has on its disk has to be what it finds in the archive.
    fn compare_with_archive(&mut self, id: BrokerId, known: &Published, end: Offset, what: &str) {
        let Some(bucket) = &self.bucket else { return };
        let log = &self.broker(id).log;
        let archived = bucket.records_of(&known.0);
        let is_same = |at: u64| {
            let at = offset(at as usize);
            let found = archived.as_ref().map(|records| records.get(&at).copied());
            found.is_ok_and(|found| found == log.get(at) || found.is_none() && self.is_compacted())
        };
        let start = log.local_start().max(known.0.log_start().0);
        if !(start.get()..end.get()).all(is_same) {
            let violation = Violation(format!("{id} {what} other records below {end}: {log:?} {archived:?}"));
            self.note(violation);
        }
    }

    /// Where an epoch ends in the archive, as this broker knows that.
    pub(super) fn archived_end_of_epoch(&self, id: BrokerId, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        if self.visible_start(id) >= self.broker(id).log.local_start() {
            return None;
        }
        let manifest = &self.broker(id).archiver.known.as_ref()?.0;
        let (found, end) = manifest.end_of_epoch(epoch)?;
        Some((found, end.unwrap_or(manifest.end())))
    }
}

/// Whether another leader may have written to the archive since.
fn is_old(known: &Manifest, epoch: LeaderEpoch) -> bool {
    known.version() != Version::NONE && known.leader_epoch() < epoch
}
