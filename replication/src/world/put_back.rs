//! The store is put back to an older state, with all brokers down: what was restored from a backup.

use std::collections::BTreeSet;

use varve_metadata::{
    controller::{
        in_sync::Circumstances,
        recovery::{self, Extent},
    },
    image::{LogExtent, PartitionImage},
    model::{BrokerId, LeaderEpoch},
};

use super::{Action, Break, World, log::Log};
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
        // An epoch that no log knows any more, because nothing was written in it and its leader's log is gone, may come again.
        let logs = self.brokers.iter().map(|broker| &broker.log);
        let known: BTreeSet<LeaderEpoch> =
            logs.flat_map(|log| log.epochs().entries().to_vec()).map(|(epoch, _)| epoch).collect();
        self.led.retain(|(epoch, ..)| known.contains(epoch));
        // Nobody knows any more who was not in sync when records were deleted, and who has the most may be one of those.
        let lowest = self.brokers.iter().map(|broker| broker.log.kept_start).min();
        self.deletions.may_be_back_from(lowest.unwrap_or_default());
        // The topic's settings are as they were, too.
        self.min_in_sync = backup.min_in_sync;
        self.registrations = backup.registrations;
        self.awaited = self.ids().collect();
        let store = self.restored.to_string();
        self.partition = match self.is(Break::TrustsTheBackup) {
            true => {
                let LeaderEpoch(epoch) = backup.partition.leader_epoch;
                self.awaited.clear();
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
        let extent = if broker.found_log { Extent::Log(log) } else { Extent::NoLog };
        recovery::with_told(&self.partition, id, extent)
    }

    /// Whether a broker that starts has to look for a log that the restored state does not know of, before it takes part.
    pub(super) fn has_to_look(&self, id: BrokerId) -> bool {
        self.awaited.contains(&id) || self.with_stray(id).is_some()
    }

    fn with_stray(&self, id: BrokerId) -> Option<PartitionImage> {
        let has_log = self.broker(id).found_log && !self.is(Break::SetsStraysAside);
        recovery::with_stray(&self.partition, id).filter(|_| has_log)
    }

    /// A broker that starts has the store take it what it finds. `false`: there is nothing left to say.
    pub(super) fn look(&mut self, id: BrokerId) -> bool {
        if let Some(next) = self.with_stray(id) {
            self.partition = next;
            return true;
        }
        self.awaited.remove(&id)
    }

    /// Whether the partition has no leader before an operator says so, as everybody who can tell has: who was in sync has no log.
    pub(super) fn waits_for_an_operator(&self) -> bool {
        let Some(recovery) = &self.partition.recovery else { return false };
        let has_told = |id: BrokerId| recovery.told.iter().any(|one| one.broker == id);
        self.awaited.is_empty()
            && self.partition.replicas.iter().all(|id| has_told(*id) && self.in_service(*id))
            && self.recovered(false).is_none()
    }

    fn recovered(&self, unclean: bool) -> Option<PartitionImage> {
        let is_active = |id: BrokerId| self.in_service(id);
        let circumstances = Circumstances { is_active: &is_active, min_in_sync: self.min_in_sync, unclean };
        recovery::with_recovered(&self.partition, &circumstances, unclean)
    }

    /// The operator has the best of those that have told lead.
    pub(super) fn elect_uncleanly(&mut self) {
        if let Some(next) = self.recovered(true) {
            self.partition = next;
        }
    }

    /// Whether a broker that ends now leaves a log, be it empty.
    pub(super) fn leaves_a_log(&self, id: BrokerId) -> bool {
        let broker = self.broker(id);
        broker.log != Log::default() || broker.view.partition.replicas.contains(&id)
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
