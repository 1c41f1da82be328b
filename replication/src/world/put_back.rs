//! The store is put back to an older state, with all brokers down: what was restored from a backup.

use varve_metadata::{
    controller::recovery::{self, Extent},
    image::{LogExtent, PartitionImage},
    model::{BrokerId, LeaderEpoch},
};

use super::{Action, Break, World};
use crate::follower::ReplicaLog;

impl World {
    pub(super) fn add_backup_actions(&self, actions: &mut Vec<Action>) {
        match &self.backup {
            None if self.budget.put_backs > 0 => actions.push(Action::BackUp),
            Some(_) if self.budget.put_backs > 0 => actions.push(Action::PutBack),
            _ => {}
        }
    }

    pub(super) fn put_back(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.budget.put_backs -= 1;
        self.restored += 1;
        self.ids().for_each(|id| self.end(id));
        // What was on its way to the store, or to a broker, arrives nowhere.
        self.messages.clear();
        self.asks.clear();
        self.under_way.clear();
        // The topic's settings are as they were, too.
        self.min_in_sync = backup.min_in_sync;
        self.registrations = backup.registrations;
        let store = self.restored.to_string();
        self.partition = match self.is(Break::TrustsTheBackup) {
            true => {
                let LeaderEpoch(epoch) = backup.partition.leader_epoch;
                let leader_epoch = LeaderEpoch(epoch + recovery::EPOCHS_SKIPPED);
                PartitionImage { leader_epoch, ..backup.partition }
            }
            false => recovery::with_recovery(&backup.partition, &store).unwrap_or(backup.partition),
        };
    }

    /// What a broker that was let in would tell of its log.
    fn told(&self, id: BrokerId) -> Option<PartitionImage> {
        let broker = self.broker(id);
        let log = LogExtent { epoch: broker.log.latest_epoch(), end: broker.log.end() };
        recovery::with_told(&self.partition, id, Extent::Log(log))
    }

    pub(super) fn add_recovery_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let (broker, registration) = (self.broker(id), self.registrations[id.0 as usize]);
        let is_in = broker.incarnation == registration.incarnation && !registration.fenced;
        if is_in && !broker.failed && self.told(id).is_some() {
            actions.push(Action::TellLog(id));
        }
    }

    pub(super) fn tell_log(&mut self, id: BrokerId) {
        if let Some(next) = self.told(id) {
            self.partition = next;
        }
    }
}
