//! What happens to brokers: their images follow, they lead or follow, they end and come back.

use std::time::Duration;

use varve_metadata::{
    controller::in_sync,
    model::{BrokerId, HighWatermark, Offset},
};

use super::{
    Action, Break, LAG, Registration, Role, World,
    log::{Log, Record},
};
use crate::{Incarnation, Input, Leader, follower::ReplicaLog};

impl World {
    /// Does what `action` says.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Append(id) => self.append(id),
            Action::Show(id) => self.show(id),
            Action::Fetch(id) => self.fetch(id),
            Action::Deliver(place) => {
                let message = self.messages.swap_remove(place);
                self.deliver(message);
            }
            Action::Duplicate(place) => {
                self.budget.duplicates -= 1;
                self.deliver(self.messages[place].clone());
            }
            Action::Drop(place) => drop(self.messages.swap_remove(place)),
            Action::Store(place) => self.store(place),
            Action::LoseAnswer(place) => {
                self.budget.lost_answers -= 1;
                self.lose_answer(place);
            }
            Action::SendNothing(place) => {
                self.budget.outages -= 1;
                self.send_nothing(place);
            }
            Action::Arrive(place) => self.arrive(place),
            Action::Review(id) => self.step(id, &Input::Tick),
            Action::Lag => {
                self.budget.lags -= 1;
                self.pass(LAG + Duration::from_secs(1));
            }
            Action::Crash(id) => {
                self.budget.crashes -= 1;
                self.end(id);
            }
            Action::PowerCut(id, lost) => {
                self.budget.power_cuts -= 1;
                self.end(id);
                self.lose(id, lost);
            }
            Action::FailDirectory(id, lost) => {
                match self.budget.power_cuts.checked_sub(1) {
                    Some(left) => self.budget.power_cuts = left,
                    None => self.budget.failures -= 1,
                }
                let broker = self.broker_mut(id);
                broker.failed = true;
                broker.fetching = false;
                if matches!(broker.role, Role::Follower { .. }) {
                    broker.role = Role::Nothing;
                }
                // A leader learns from its image that others lead; until then it refuses everything.
                self.lose(id, lost);
                self.end_archiver(id);
            }
            Action::TellOffline(id) => {
                if let Some(next) = self.offline(id) {
                    self.partition = next;
                    self.broker_mut(id).told = !self.is(Break::TrustsAfterDirectoriesFailed);
                }
            }
            Action::TellOnline(id) => {
                if let Some(next) = in_sync::with_online(&self.partition, id) {
                    self.partition = next;
                }
            }
            Action::Restart(id) => self.restart(id),
            Action::TakeDisk(id) => self.take_disk(id),
            Action::ReturnDisk(id, place) => self.return_disk(id, place),
            Action::Enter(id) => self.enter(id),
            Action::TellFound(id) => self.tell_found(id),
            Action::Fence(id) => {
                let broker = self.broker(id);
                if broker.up && broker.incarnation == self.registrations[id.0 as usize].incarnation {
                    self.budget.false_alarms -= 1;
                }
                self.fence(id, true);
            }
            Action::Tend(id) => {
                if let Some(next) = self.tended_by(id) {
                    self.write(next);
                }
            }
            Action::Unfence(id) => {
                self.fence(id, false);
                // What is lost since it registered is told when it registers again.
                let broker = self.broker_mut(id);
                broker.lost_records &= broker.failed;
            }
            Action::Aside(id) => {
                self.budget.asides -= 1;
                self.set_aside(id, true);
            }
            Action::Return(id) => self.set_aside(id, false),
            Action::Reassign(target) => {
                self.budget.moves -= 1;
                self.reassign(target);
            }
            Action::Cancel => {
                self.budget.cancels -= 1;
                if let Some(next) = self.cancelled() {
                    self.write(next);
                }
            }
            Action::LowerMinimum => {
                self.budget.lowered -= 1;
                self.min_in_sync -= 1;
            }
            Action::BackUp => self.backup = Some(self.now()),
            Action::PutBack => self.put_back(),
            Action::TellLog(id) => self.tell_log(id),
            Action::Prefer => {
                self.budget.preferred -= 1;
                self.prefer();
            }
            Action::Archive(id) => self.archive(id),
            Action::Learn(id) => drop(self.learn(id)),
            Action::GiveUp(id) => {
                self.budget.bucket_outages -= 1;
                self.give_up(id);
            }
            Action::DropLocal(id) => {
                self.budget.drops -= 1;
                self.drop_local(id);
            }
            Action::Bucket(place) => self.reach_bucket(place),
            Action::LoseReply(place) => {
                self.budget.lost_replies -= 1;
                self.lose_reply(place);
            }
            Action::WriteNothing(place) => {
                self.budget.bucket_outages -= 1;
                self.write_nothing(place);
            }
            Action::BucketLate(place) => self.reach_bucket_late(place),
            Action::DeleteRecords(id, count) => {
                self.budget.deletes -= 1;
                self.delete_records(id, count);
            }
            Action::KeepStart(id) => self.keep_start(id),
            Action::Expire(id) => self.expire_here(id),
            Action::List => {
                self.budget.sweeps -= 1;
                self.list();
            }
            Action::Sweep => self.sweep(),
            Action::Compact(place) => self.compact(place),
            Action::EndCompactor(place) => {
                self.budget.compactor_ends -= 1;
                self.end_compactor(place);
            }
            Action::Part => {
                self.budget.partings -= 1;
                self.part();
            }
            Action::ConfirmPart => self.confirm_part(),
        }
        self.forget_what_is_in_vain();
        self.forget_what_comes_too_late();
        self.messages.sort_unstable();
    }

    /// Lets time pass for every broker.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.brokers.iter_mut().for_each(|broker| broker.clock += time);
    }

    /// Lets one broker's clock jump ahead.
    pub(crate) fn jump(&mut self, id: BrokerId, time: Duration) {
        self.broker_mut(id).clock += time;
    }

    /// The last records of a log are gone, so many of them.
    fn lose(&mut self, id: BrokerId, lost: usize) {
        let broker = self.broker_mut(id);
        broker.log.lose(lost);
        broker.high_watermark = broker.high_watermark.min(broker.log.end());
        broker.lost_records |= lost > 0;
    }

    fn append(&mut self, id: BrokerId) {
        self.budget.appends -= 1;
        let value = self.next_value;
        self.next_value += 1;
        let broker = self.broker_mut(id);
        let Role::Leader(leader) = &broker.role else { return };
        let at = broker.log.end();
        broker.log.append(Record { epoch: leader.epoch(), value });
        broker.waiting.push((at, value));
        let end = broker.log.end();
        self.step(id, &Input::Appended(end));
    }

    /// The broker's image shows what is in the store now.
    pub(super) fn show(&mut self, id: BrokerId) {
        let view = self.now();
        let broker = self.broker_mut(id);
        let before = std::mem::replace(&mut broker.view, view);
        let own = broker.view.registrations[id.0 as usize];
        broker.admitted |= own.incarnation == broker.incarnation && !own.fenced;
        let now = &broker.view.partition;
        let same = now.leader == before.partition.leader && now.leader_epoch == before.partition.leader_epoch;
        if same && now.replicas.contains(&id) && broker.role != Role::Nothing {
            let shown = now.clone();
            self.step(id, &Input::Shown(&shown));
        } else {
            self.take_role(id);
        }
    }

    /// Leads or follows as the image says.
    pub(super) fn take_role(&mut self, id: BrokerId) {
        let (to_high_watermark, from_the_start) =
            (self.is(Break::TruncatesToHighWatermark), self.is(Break::JoinsBeforeTheEpochBegan));
        let is_held = self.broker(id).view.partition.replicas.contains(&id);
        if !is_held {
            self.end_archiver(id);
        }
        let broker = self.broker_mut(id);
        let partition = broker.view.partition.clone();
        broker.waiting.clear();
        broker.deleting.clear();
        broker.fetching = false;
        if !is_held && !broker.failed && broker.entered {
            (broker.log, broker.high_watermark) = (Log::default(), Offset::ZERO);
        }
        broker.role = match partition.leader {
            _ if !broker.admitted || broker.failed || !is_held => Role::Nothing,
            Some(leader) if leader == id => {
                let epoch = partition.leader_epoch;
                let end = broker.log.end();
                broker.log.begin_epoch(epoch, end);
                let high_watermark = HighWatermark(broker.high_watermark);
                let mut leader = Leader::new(id, partition, end, high_watermark, broker.clock);
                if from_the_start {
                    leader.epoch_start = Offset::ZERO;
                }
                Role::Leader(Box::new(leader))
            }
            Some(leader) => {
                if to_high_watermark {
                    let cut = broker.high_watermark;
                    broker.log.truncate(cut);
                }
                Role::Follower { leader, epoch: partition.leader_epoch }
            }
            None => Role::Nothing,
        };
        let broker = self.broker(id);
        if let Role::Leader(leader) = &broker.role {
            let led = (leader.epoch(), id, broker.incarnation);
            self.led.insert(led);
            self.step(id, &Input::Tick);
        }
    }

    pub(super) fn end(&mut self, id: BrokerId) {
        let broker = self.broker_mut(id);
        broker.up = false;
        broker.role = Role::Nothing;
        broker.waiting.clear();
        broker.deleting.clear();
        broker.fetching = false;
        self.end_archiver(id);
    }

    fn restart(&mut self, id: BrokerId) {
        let incarnation = Incarnation(self.broker(id).incarnation.0 + 1);
        let distrusted = self.registrations[id.0 as usize].distrusted;
        let broker = self.broker(id);
        let lost =
            if self.is(Break::TrustsAfterDirectoriesFailed) { false } else { broker.lost_records || broker.failed };
        self.fence(id, !self.is(Break::TrustsAfterPowerCuts));
        let registration = &mut self.registrations[id.0 as usize];
        *registration = Registration { incarnation, distrusted: lost || distrusted, ..*registration };
        let disk = registration.disk;
        let found_log = self.leaves_a_log(id);
        self.broker_mut(id).found_log = found_log;
        let has_to_look = self.has_to_look(id);
        let view = self.now();
        let resumes = self.is(Break::ResumesItsRole) || self.is(Break::TrustsAfterPowerCuts);
        let broker = self.broker_mut(id);
        broker.up = true;
        broker.entered = broker.disk == disk && !has_to_look;
        (broker.failed, broker.told) = (false, false);
        broker.admitted = resumes;
        broker.incarnation = incarnation;
        broker.view = view;
        broker.log.reopened();
        self.take_role(id);
    }
}
