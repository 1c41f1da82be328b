//! What leaders are told, and what comes of it.

use varve_metadata::model::{BrokerId, HighWatermark, Offset};

use super::{Ask, Break, LAG, Role, World, log::offset};
use crate::{Effect, Input, Leader, Outcome, Proposal, Surroundings};

impl World {
    pub(super) fn effects_of_review(&self, id: BrokerId) -> Vec<Effect> {
        let Role::Leader(leader) = &self.broker(id).role else { return Vec::new() };
        let mut leader = leader.clone();
        let mut effects = Vec::new();
        self.around(id, |around| leader.step(around, Input::Tick, &mut effects));
        effects
    }

    pub(super) fn around<T>(&self, id: BrokerId, act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let broker = self.broker(id);
        let active = |other: BrokerId| {
            let registration = broker.view.registrations[other.0 as usize];
            (!registration.fenced && !registration.aside).then_some(registration.incarnation)
        };
        let registered = |other: BrokerId| Some(broker.view.registrations[other.0 as usize].incarnation);
        act(&Surroundings {
            now: broker.clock,
            active: &active,
            registered: &registered,
            min_in_sync: self.minimum_of(id),
            lag_max: LAG,
        })
    }

    /// Tells a leader what happened and does what it says.
    pub(super) fn step(&mut self, id: BrokerId, input: &Input<'_>) {
        let Role::Leader(leader) = &self.broker(id).role else { return };
        let mut leader = leader.clone();
        if self.is(Break::CommitsPastTheEligible) {
            leader.partition.elr.clear();
        }
        if self.is(Break::LetsWhoIsOfflineJoin) {
            leader.partition.offline.clear();
        }
        if self.is(Break::LetsJoinWhoDeletedLess) {
            leader.log_start = Offset::ZERO;
        }
        let failed = self.broker(id).failed;
        let mut effects = Vec::new();
        self.around(id, |around| leader.step(around, input.clone(), &mut effects));
        // Who cannot read its log decides nothing any more.
        for effect in effects.iter().filter(|_| !failed) {
            if let Effect::Propose(proposal) = effect {
                self.propose(id, &mut leader, proposal);
            }
        }
        if self.is(Break::CommitsWithoutWhoJoins) && leader.pending.is_some() {
            leader.pending = None;
            self.around(id, |around| leader.step(around, Input::Tick, &mut Vec::new()));
        }
        let minimum = self.minimum_of(id);
        let HighWatermark(high_watermark) = leader.high_watermark();
        let may_acknowledge = leader.check_committed(minimum).is_ok();
        let broker = self.broker_mut(id);
        if !failed {
            broker.high_watermark = broker.high_watermark.max(high_watermark);
        }
        broker.role = Role::Leader(leader);
        if !failed && self.bucket.is_some() && !self.unclean {
            self.note_committed(id);
        }
        let broker = self.broker_mut(id);
        if may_acknowledge {
            let (done, waiting): (Vec<_>, Vec<_>) =
                broker.waiting.drain(..).partition(|(offset, _)| *offset < high_watermark);
            broker.waiting = waiting;
            self.acknowledge(done);
        }
        self.tell_deleted(id);
    }

    /// What is below a leader's high watermark is committed, for good.
    fn note_committed(&mut self, id: BrokerId) {
        let broker = &self.brokers[id.0 as usize];
        let below = broker.high_watermark.get() as usize;
        for place in broker.log.local_start().get() as usize..below {
            let here = broker.log.get(offset(place));
            match (here, self.committed.get(place)) {
                (Some(here), Some(before)) if here == before => {}
                (Some(here), None) if place == self.committed.len() => self.committed.push(here.clone()),
                (here, before) => {
                    let what = format!("{id} calls {here:?} committed at {place}, where {before:?} was");
                    self.violation.get_or_insert(what);
                }
            }
        }
    }

    pub(super) fn propose(&mut self, id: BrokerId, leader: &mut Leader, proposal: &Proposal) {
        let incarnation = self.broker(id).incarnation;
        let same = |ask: &&mut Ask| ask.from == id && ask.proposal == *proposal;
        let repeated = self.asks.iter_mut().any(|ask| same(&ask)) || self.was_lost(proposal);
        let attempt = self.attempt(id, proposal.joins);
        let ask = Ask { from: id, incarnation, proposal: proposal.clone(), repeated, attempt, outcome: None };
        self.asks.push(ask);
        if self.is(Break::ActsBeforeTheAnswer) {
            let taken = Input::Answered { base: proposal.base, outcome: Outcome::Taken };
            self.around(id, |around| leader.step(around, taken, &mut Vec::new()));
        }
    }

    /// Whether the store holds the proposal already, though nobody told its leader.
    pub(super) fn was_lost(&self, proposal: &Proposal) -> bool {
        self.partition == proposal.next
    }

    pub(super) fn acknowledge(&mut self, records: Vec<(Offset, u16)>) {
        if self.unclean {
            return;
        }
        for (at, value) in records {
            if let Some((_, other)) = self.acknowledged.iter().find(|(known, other)| *known == at && *other != value) {
                self.violation = Some(format!("offset {at} was acknowledged as {other} and as {value}"));
            }
            self.acknowledged.insert((at, value));
        }
    }
}
