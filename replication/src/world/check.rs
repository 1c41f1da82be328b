//! What must hold at every moment, and what shall come true in the end.

use std::time::Duration;

use varve_metadata::{
    image::PartitionImage,
    model::{BrokerId, LeaderEpoch},
};

use super::{Action, Budget, Role, Violation, World, log::offset};
use crate::{Incarnation, follower::ReplicaLog};

impl World {
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        if let Some(violation) = &self.violation {
            return Err(Violation(violation.clone()));
        }
        self.one_leader_per_epoch()?;
        self.who_is_offline_is_believed_by_nobody()?;
        self.the_archive_is_there()?;
        if self.unclean {
            // Records are lost. What the archive has stays all the same, which is looked at where something is published or dropped.
            return Ok(());
        }
        self.who_is_trusted_has_what_was_acknowledged()?;
        self.what_was_deleted_stays_so()?;
        self.logs_agree_below_their_high_watermarks()?;
        self.the_archive_holds_what_was_committed()
    }

    fn one_leader_per_epoch(&self) -> Result<(), Violation> {
        let mut before: Option<&(LeaderEpoch, BrokerId, Incarnation)> = None;
        for led in &self.led {
            if before.is_some_and(|before| before.0 == led.0 && before.1 != led.1) {
                return Err(Violation(format!("two brokers led in epoch {}", led.0)));
            }
            before = Some(led);
        }
        Ok(())
    }

    fn who_is_offline_is_believed_by_nobody(&self) -> Result<(), Violation> {
        let PartitionImage { isr, elr, leader, .. } = &self.partition;
        for id in self.ids().filter(|id| self.broker(*id).told) {
            if isr.contains(&id) || elr.contains(&id) || *leader == Some(id) {
                return Err(Violation(format!("{id} is known to be offline in {:?}", self.partition)));
            }
        }
        Ok(())
    }

    /// Everybody whom an election may choose, unless it lost records and the controller has not heard of that yet; and the leader in
    /// any case.
    pub(super) fn trusted(&self) -> impl Iterator<Item = BrokerId> {
        let knows_all = self.partition.isr.iter().chain(&self.partition.elr).copied();
        let leader = self.partition.leader.into_iter().filter(|leader| {
            let (broker, registration) = (self.broker(*leader), self.registrations[leader.0 as usize]);
            broker.up
                && !broker.failed
                && broker.incarnation == registration.incarnation
                && matches!(broker.role, Role::Leader(_))
        });
        let has_its_log = |id: &BrokerId| !self.broker(*id).lost_records && !self.broker(*id).failed;
        knows_all.filter(has_its_log).chain(leader)
    }

    /// They have every acknowledged record that nobody deleted or let go.
    fn who_is_trusted_has_what_was_acknowledged(&self) -> Result<(), Violation> {
        for id in self.trusted() {
            let (log, start) = (&self.broker(id).log, self.deletions.may_be_gone_below());
            for (at, value) in self.acknowledged.iter().filter(|(at, _)| *at >= start) {
                let found = if *at < log.start { self.archived_at(*at) } else { log.get(*at).cloned() };
                // Which record of each key is archived is looked at there.
                if found.is_none() && self.is_compacted() && *at < self.archived_end() {
                    continue;
                }
                let found = found.map(|record| record.value);
                if found != Some(*value) {
                    return Err(Violation(format!("{id} may lead and has {found:?} at {at} instead of {value}")));
                }
            }
        }
        Ok(())
    }

    fn logs_agree_below_their_high_watermarks(&self) -> Result<(), Violation> {
        for (place, one) in self.brokers.iter().enumerate() {
            for other in &self.brokers[place + 1..] {
                let both = one.high_watermark.min(other.high_watermark);
                let mut shared = one.log.local_start().max(other.log.local_start()).get()..both.get();
                if shared.any(|at| one.log.get(offset(at as usize)) != other.log.get(offset(at as usize))) {
                    return Err(Violation(format!("logs differ below {both}: {:?} {:?}", one.log, other.log)));
                }
            }
        }
        Ok(())
    }
}

impl World {
    /// Which broker an action is at, and with whom it talks: for networks that are cut.
    pub(crate) fn route(&self, action: Action) -> Option<(BrokerId, BrokerId)> {
        match action {
            Action::Deliver(place) | Action::Duplicate(place) => {
                let message = &self.messages[place];
                Some((message.from, message.to))
            }
            _ => None,
        }
    }

    /// Whether the store has a part in an action, so that it cannot be while that is away.
    pub(crate) fn is_at_the_store(&self, action: Action) -> bool {
        match action {
            Action::Store(place) => self.asks[place].outcome.is_none(),
            Action::Append(_) | Action::Fetch(_) | Action::Deliver(_) | Action::Duplicate(_) | Action::Drop(_) => false,
            Action::Review(_) | Action::Lag | Action::Crash(_) | Action::PowerCut(..) => false,
            Action::FailDirectory(..) | Action::TakeDisk(_) | Action::ReturnDisk(..) => false,
            Action::SendNothing(_) | Action::LoseAnswer(_) => false,
            Action::Archive(_) | Action::Learn(_) | Action::GiveUp(_) | Action::DropLocal(_) => false,
            Action::Bucket(_) | Action::LoseReply(_) | Action::WriteNothing(_) | Action::BucketLate(_) => false,
            Action::DeleteRecords(..) | Action::KeepStart(_) | Action::Expire(_) => false,
            Action::List | Action::Sweep | Action::Part | Action::ConfirmPart => false,
            Action::Compact(_) | Action::EndCompactor(_) => false,
            _ => true,
        }
    }

    /// Whether the bucket has a part in an action, so that it cannot be while that is away.
    pub(crate) fn is_at_the_bucket(&self, action: Action) -> bool {
        match action {
            Action::Bucket(place) => {
                let request = self.bucket.as_ref().and_then(|bucket| bucket.requests.get(place));
                request.is_some_and(|request| request.reply.is_none())
            }
            Action::Archive(_) | Action::Learn(_) | Action::LoseReply(_) | Action::WriteNothing(_) => true,
            Action::Compact(_)
            | Action::BucketLate(_)
            | Action::List
            | Action::Sweep
            | Action::Part
            | Action::ConfirmPart => true,
            Action::Deliver(place) | Action::Duplicate(place) => self.needs_archive(&self.messages[place]),
            _ => false,
        }
    }

    /// Nothing fails any more: everybody comes back, everything is delivered, until nothing is left to do. Brokers whose directory
    /// failed are started again when the others have gone on without that.
    ///
    /// # Errors
    /// A rule is broken on the way, or the cluster does not become whole.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.budget = Budget::NONE;
        self.ids().for_each(|id| self.set_aside(id, false));
        let failed: Vec<BrokerId> = self.ids().filter(|id| self.broker(*id).failed && self.broker(*id).up).collect();
        if !failed.is_empty() {
            self.go_on_until(World::goes_on_without_who_failed)?;
            failed.into_iter().for_each(|id| self.end(id));
        }
        self.go_on_until(|world| world.is_whole() || world.waits_for_disks() || world.waits_for_an_operator())?;
        if self.waits_for_an_operator() {
            self.elect_uncleanly();
            self.check()?;
        }
        if self.waits_for_disks() {
            self.return_disks();
        }
        self.go_on_until(World::is_whole)?;
        self.confirm_part();
        if self.parting().is_some() {
            self.part();
            self.confirm_part();
            self.check()?;
            self.go_on_until(World::is_whole)?;
        }
        Ok(())
    }

    fn go_on_until(&mut self, is_so: impl Fn(&World) -> bool) -> Result<(), Violation> {
        for _ in 0..400 {
            if is_so(self) {
                return Ok(());
            }
            self.round(|_| true, |_| true)?;
        }
        Err(Violation(format!("the cluster does not become whole: {:?}", self.partition)))
    }

    /// A second passes, what is due on the brokers that are there happens, if it `happens` at all, and what is under way arrives.
    ///
    /// # Errors
    /// A rule is broken on the way.
    pub(super) fn round(
        &mut self,
        is_there: impl Fn(BrokerId) -> bool,
        happens: impl Fn(Action) -> bool,
    ) -> Result<(), Violation> {
        self.pass(Duration::from_secs(1));
        for id in self.ids().filter(|id| is_there(*id)) {
            let mut due = Vec::new();
            self.add_controller_actions(id, &mut due);
            self.add_broker_actions(id, &mut due);
            for action in due.into_iter().filter(|action| happens(*action)) {
                // What one action does may make the next one pointless; those are harmless.
                self.act(action);
                self.check()?;
            }
        }
        while let Some(message) = self.messages.first() {
            let arrives = is_there(message.from) && is_there(message.to);
            self.act(if arrives { Action::Deliver(0) } else { Action::Drop(0) });
            self.check()?;
        }
        while !self.under_way.is_empty() {
            self.act(Action::Arrive(0));
            self.check()?;
        }
        while !self.asks.is_empty() {
            self.act(Action::Store(0));
            self.check()?;
        }
        while self.bucket.as_ref().is_some_and(|bucket| !bucket.late.is_empty()) {
            self.act(Action::BucketLate(0));
            self.check()?;
        }
        while self.bucket.as_ref().is_some_and(|bucket| !bucket.requests.is_empty()) {
            self.act(Action::Bucket(0));
            self.check()?;
        }
        // An answer that is lost for good is given up.
        self.brokers.iter_mut().for_each(|broker| broker.fetching = false);
        Ok(())
    }

    /// Whether others lead and all of them are in sync, or nobody is left who may have what was acknowledged.
    fn goes_on_without_who_failed(&self) -> bool {
        let works = |id: &BrokerId| !self.broker(*id).failed;
        let PartitionImage { replicas, isr, elr, leader, last_leader, .. } = &self.partition;
        match leader {
            Some(leader) => works(leader) && replicas.iter().all(|id| isr.contains(id) == works(id)),
            None => !isr.iter().chain(elr).chain(last_leader).any(works),
        }
    }

    /// Whether the partition is where it was sent, and every replica is in sync, has the same records, and knows that they are committed;
    /// and what its leader has sealed is archived, unless that has other records than the archive; and nobody waits for records to be
    /// deleted.
    fn is_whole(&self) -> bool {
        let PartitionImage { replicas, isr, leader, adding, removing, .. } = &self.partition;
        let brokers: Vec<_> = replicas.iter().map(|id| self.broker(*id)).collect();
        leader.is_some()
            && adding.is_empty()
            && removing.is_empty()
            && isr.len() == replicas.len()
            && brokers.iter().all(|broker| broker.deleting.is_empty())
            && brokers
                .iter()
                .all(|broker| broker.log.end() == brokers[0].log.end() && broker.high_watermark == broker.log.end())
            && (self.bucket.is_none()
                || leader.is_some_and(|leader| !self.is_look_due(leader) || self.has_parted(leader)))
    }
}
