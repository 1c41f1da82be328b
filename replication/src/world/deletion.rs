//! Records that a client has deleted (DeleteRecords, KIP-107): the log starts later, on all who may come to lead, for good.

use varve_metadata::model::{BrokerId, HighWatermark, Offset};

use super::{Action, Break, Role, Violation, World, log::offset};
use crate::follower::ReplicaLog;

/// What was deleted, or let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Deletions {
    /// Below it somebody asked for that, or retention did: it may be gone.
    asked: Offset,
    /// Below it somebody was told that it is gone.
    done: Offset,
}

impl Deletions {
    /// What lies before `start` may be gone.
    pub(super) fn may_go_below(&mut self, start: Offset) {
        self.asked = self.asked.max(start);
    }

    /// Whoever leads next may start at `lowest`, whatever clients were told.
    pub(super) fn may_be_back_from(&mut self, lowest: Offset) {
        self.done = self.done.min(lowest);
    }

    /// Below it records may be gone, also where a crash has forgotten that the log starts behind them: readers are refused there.
    pub(super) fn may_be_gone_below(&self) -> Offset {
        self.asked
    }
}

impl World {
    pub(super) fn add_deletion_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let broker = self.broker(id);
        if broker.failed {
            return;
        }
        if let Role::Leader(leader) = &broker.role
            && self.budget.deletes > 0
        {
            let HighWatermark(below) = leader.high_watermark();
            let below = if self.is(Break::DeletesWhatIsNotCommitted) { broker.log.end() } else { below };
            let deletable = below.get().saturating_sub(broker.log.log_start.get()) as usize;
            actions.extend((deletable > 0).then_some(Action::DeleteRecords(id, 1)));
            actions.extend((deletable > 1).then_some(Action::DeleteRecords(id, deletable)));
        }
        if broker.log.kept_start != broker.log.log_start && !self.is(Break::TellsWhatARestartForgets) {
            actions.push(Action::KeepStart(id));
        }
    }

    /// A client has the next `count` records deleted.
    pub(super) fn delete_records(&mut self, id: BrokerId, count: usize) {
        let broker = self.broker_mut(id);
        let Role::Leader(leader) = &broker.role else { return };
        let HighWatermark(committed) = leader.high_watermark();
        let before = offset(broker.log.log_start.get() as usize + count);
        broker.deleting.push(before);
        self.advance_log_start(id, before);
        self.deletions.may_go_below(before.min(committed));
        self.tell_deleted(id);
    }

    /// What lies before `start` is not read any more. A restart forgets that until it is written down.
    pub(super) fn advance_log_start(&mut self, id: BrokerId, start: Offset) {
        let forgets = self.is(Break::ForgetsEpochsBeforeTheStartIsKept);
        let log = &mut self.broker_mut(id).log;
        log.advance_log_start(start);
        if forgets {
            log.forget_epochs();
        }
    }

    /// A broker writes down where its log starts.
    pub(super) fn keep_start(&mut self, id: BrokerId) {
        self.broker_mut(id).log.keep_start();
        self.tell_deleted(id);
    }

    /// The first offset that a reader finds in any tier (`Partition::log_start`).
    pub(super) fn visible_start(&self, id: BrokerId) -> Offset {
        let log = &self.broker(id).log;
        if self.bucket.is_none() {
            return log.local_start();
        }
        let archived = self.broker(id).archiver.known.as_ref().map(|known| known.0.log_start().0);
        log.log_start.max(archived.unwrap_or_default().min(log.end()))
    }

    /// Tells clients that their records are deleted, where the leader knows that they are.
    pub(super) fn tell_deleted(&mut self, id: BrokerId) {
        let (start, broker) = (self.visible_start(id), self.broker(id));
        let Role::Leader(leader) = &broker.role else { return };
        if broker.deleting.is_empty() || broker.failed {
            return;
        }
        let mut leader = leader.clone();
        if self.is(Break::DeletesWhereOthersLive) {
            leader.pending = None;
            (leader.partition.isr, leader.partition.elr) = (vec![id], Vec::new());
        }
        let everywhere = match self.is(Break::DeletesOnTheLeaderAlone) {
            true => start,
            false => self.around(id, |around| leader.low_watermark(around, start)),
        };
        let kept = if self.is(Break::TellsWhatARestartForgets) { start } else { broker.log.kept_start };
        let done = everywhere.min(kept);
        let broker = self.broker_mut(id);
        if let Role::Leader(known) = &mut broker.role {
            known.log_start = leader.log_start;
        }
        let told = broker.deleting.extract_if(.., |before| *before <= done).max();
        self.deletions.done = self.deletions.done.max(told.unwrap_or_default());
    }

    /// Who may lead shows nothing again that was deleted, also after it restarts; and nobody deletes what nobody asked for.
    pub(super) fn what_was_deleted_stays_so(&self) -> Result<(), Violation> {
        let Deletions { asked, done } = self.deletions;
        for id in self.trusted() {
            let log = &self.broker(id).log;
            let start = log.log_start.min(log.kept_start);
            if start < done {
                return Err(Violation(format!("{id} may lead and starts at {start}, all below {done} was deleted")));
            }
        }
        for id in self.ids() {
            let start = self.visible_start(id);
            if start > asked {
                return Err(Violation(format!("{id} starts at {start}, and nothing beyond {asked} was to be deleted")));
            }
        }
        let archived = self.archived_start();
        if archived > asked {
            return Err(Violation(format!("the archive starts at {archived}, and all from {asked} on is to stay")));
        }
        Ok(())
    }
}
