//! Proposals on their way to the store, and its answers on their way back.
//!
//! An attempt without an answer goes on by itself: it arrives at some time, or never. The store takes it if what it expects still
//! holds, whatever its leader believes by then.

use varve_metadata::model::BrokerId;

use super::{Ask, Attempt, Break, Role, World};
use crate::{Incarnation, Input, Outcome, Proposal};

/// An attempt that nobody waits for any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UnderWay {
    proposal: Proposal,
    registered: Option<u16>,
}

impl World {
    /// How a proposal of `id` is put to the store, by what its image shows (`guarded_proposal` in the metadata crate).
    pub(super) fn attempt(&self, id: BrokerId, joins: Option<(BrokerId, Incarnation)>) -> Attempt {
        let Some((joins, incarnation)) = joins else { return Attempt::Write { registered: None } };
        let registration = self.broker(id).view.registrations[joins.0 as usize];
        let may_join = registration.incarnation == incarnation
            && !registration.fenced
            && !(self.is(Break::RefusesWhoIsAside) && registration.aside);
        match may_join || self.is(Break::CountsEarlierLives) {
            true => Attempt::Write { registered: Some(registration.written) },
            false => Attempt::Read,
        }
    }

    /// A proposal reaches the store, or the store's answer reaches the leader.
    pub(super) fn store(&mut self, place: usize) {
        match self.asks[place].outcome {
            None => self.take_proposal(place),
            Some(outcome) => {
                let ask = self.asks.swap_remove(place);
                self.take_outcome(ask, outcome);
            }
        }
    }

    /// What was asked gets no answer, and may arrive later.
    pub(super) fn lose_answer(&mut self, place: usize) {
        let ask = &mut self.asks[place];
        ask.outcome = Some(Outcome::Unknown);
        if let Attempt::Write { registered } = ask.attempt {
            let proposal = ask.proposal.clone();
            self.under_way.push(UnderWay { proposal, registered });
        }
    }

    /// The store cannot be reached, which is known at once.
    pub(super) fn send_nothing(&mut self, place: usize) {
        let forgets = self.is(Break::ForgetsWhatIsUnderWay);
        let ask = &mut self.asks[place];
        ask.outcome = Some(match ask.attempt {
            Attempt::Write { .. } if forgets => Outcome::Refused,
            Attempt::Write { .. } => Outcome::Unsent,
            Attempt::Read => Outcome::Unknown,
        });
    }

    /// An attempt arrives for which nobody waits.
    pub(super) fn arrive(&mut self, place: usize) {
        let UnderWay { proposal, registered } = self.under_way.swap_remove(place);
        if self.takes(&proposal, registered) {
            self.put(&proposal);
        }
    }

    /// Forgets attempts that can never be taken: what is written is never as it was before.
    pub(super) fn forget_what_is_in_vain(&mut self) {
        let under_way = std::mem::take(&mut self.under_way);
        self.under_way = under_way.into_iter().filter(|one| self.takes(&one.proposal, one.registered)).collect();
    }

    fn takes(&self, proposal: &Proposal, registered: Option<u16>) -> bool {
        let is_same_life = proposal.joins.zip(registered).is_none_or(|((id, _), registered)| {
            self.registrations[id.0 as usize].written == registered || self.is(Break::CountsEarlierLives)
        });
        self.is(Break::StoreComparesNothing) || self.partition.partition_epoch == proposal.base && is_same_life
    }

    fn put(&mut self, proposal: &Proposal) {
        let mut next = proposal.next.clone();
        if self.is(Break::ForgetsTheEligible) {
            next.elr.clear();
        }
        self.partition = next;
    }

    fn take_proposal(&mut self, place: usize) {
        let ask = self.asks[place].clone();
        let unchanged = self.partition.partition_epoch == ask.proposal.base;
        let outcome = match ask.attempt {
            Attempt::Write { registered } if self.takes(&ask.proposal, registered) => {
                self.put(&ask.proposal);
                Outcome::Taken
            }
            // Read after the conflict, as where nothing is written.
            _ if unchanged => Outcome::Refused,
            // The attempt without an answer was taken.
            Attempt::Write { .. } if ask.repeated && self.partition == ask.proposal.next => Outcome::Taken,
            Attempt::Write { .. } | Attempt::Read => Outcome::Overtaken,
        };
        self.asks[place].outcome = Some(outcome);
    }

    fn take_outcome(&mut self, ask: Ask, outcome: Outcome) {
        let broker = self.broker(ask.from);
        if !broker.up || broker.incarnation != ask.incarnation {
            return;
        }
        let Role::Leader(leader) = &broker.role else { return };
        // Answers are for a leadership, as in the broker.
        if leader.epoch() != ask.proposal.next.leader_epoch {
            return;
        }
        let base = match &leader.pending {
            Some(pending) if self.is(Break::TakesAnyAnswer) => pending.base,
            _ => ask.proposal.base,
        };
        let forgets = self.is(Break::ForgetsLostAnswers) && outcome == Outcome::Overtaken;
        let outcome = if forgets { Outcome::Refused } else { outcome };
        self.step(ask.from, &Input::Answered { base, outcome });
        // What was overtaken is read from the store at once.
        if outcome == Outcome::Overtaken {
            let shown = self.partition.clone();
            self.step(ask.from, &Input::Shown(&shown));
        }
    }
}
