//! Proposals on their way to the store, and its answers on their way back.

use super::{Ask, Break, Role, World};
use crate::{Input, Outcome};

impl World {
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

    pub(super) fn take_proposal(&mut self, place: usize) {
        let ask = self.asks[place].clone();
        let blind = self.is(Break::StoreComparesNothing);
        let same_life = ask.proposal.joins.is_none_or(|(id, incarnation)| {
            let registration = self.registrations[id.0 as usize];
            registration.incarnation == incarnation && !registration.fenced || self.is(Break::CountsEarlierLives)
        });
        let unchanged = self.partition.partition_epoch == ask.proposal.base;
        let outcome = if blind || unchanged && same_life {
            let mut next = ask.proposal.next.clone();
            if self.is(Break::ForgetsTheEligible) {
                next.elr.clear();
            }
            self.partition = next;
            Outcome::Taken
        } else if unchanged {
            Outcome::Refused
        } else if ask.repeated && self.partition == ask.proposal.next {
            // Read after the conflict: the attempt without an answer was taken.
            Outcome::Taken
        } else {
            Outcome::Overtaken
        };
        self.asks[place].outcome = Some(outcome);
    }

    pub(super) fn take_outcome(&mut self, ask: Ask, outcome: Outcome) {
        let broker = self.broker(ask.from);
        if !broker.up || broker.incarnation != ask.incarnation {
            return;
        }
        let Role::Leader(leader) = &broker.role else { return };
        if leader.pending.as_ref() != Some(&ask.proposal) {
            return;
        }
        let forgets = self.is(Break::ForgetsLostAnswers) && outcome == Outcome::Overtaken;
        let outcome = if forgets { Outcome::Refused } else { outcome };
        self.step(ask.from, &Input::Answered(outcome));
        // What was overtaken is read from the store at once.
        if outcome == Outcome::Overtaken {
            let shown = self.partition.clone();
            self.step(ask.from, &Input::Shown(&shown));
        }
    }
}
