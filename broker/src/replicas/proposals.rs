//! Leaders' wishes for other ISRs on their way to the store: those that come while some are under way go together.

use std::{mem, sync::Arc};

use futures::future::join_all;
use parking_lot::Mutex;
use tracing::warn;
use varve_metadata::{
    cluster::{IsrProposal, ProposalOutcome},
    model::LeaderEpoch,
};
use varve_replication::{Outcome, Proposal};

use super::{Replicas, incarnation_of};
use crate::partition::Partition;

/// Most that go together. What etcd takes at once is more than each of them writes and expects.
const TOGETHER: usize = 60;

/// What waits. There is one for each partition at most, until it is answered.
pub(super) struct Proposals<T = (Arc<Partition>, Proposal)>(Mutex<Waiting<T>>);

struct Waiting<T> {
    proposals: Vec<T>,
    /// Somebody takes them to the store, and those that come meanwhile.
    are_carried: bool,
}

impl<T> Default for Proposals<T> {
    fn default() -> Self {
        Proposals(Mutex::new(Waiting { proposals: Vec::new(), are_carried: false }))
    }
}

impl<T> Proposals<T> {
    /// `true` for who is to [carry](Replicas::carry) it.
    pub(super) fn add(&self, proposal: T) -> bool {
        let mut waiting = self.0.lock();
        waiting.proposals.push(proposal);
        !mem::replace(&mut waiting.are_carried, true)
    }

    /// The oldest ones. Empty: nobody carries any more.
    fn next(&self) -> Vec<T> {
        let mut waiting = self.0.lock();
        let count = waiting.proposals.len().min(TOGETHER);
        waiting.are_carried = count > 0;
        waiting.proposals.drain(..count).collect()
    }
}

impl Replicas {
    /// Puts to the store what waits, until nothing does.
    pub(super) async fn carry(self: Arc<Replicas>) {
        loop {
            let proposals = self.proposals.next();
            if proposals.is_empty() {
                return;
            }
            let this = self.clone();
            // A task of its own: a bug that one of them meets holds up none that come later.
            let _ = self.tasks.spawn(async move { this.put_forward(proposals).await }).await;
        }
    }

    async fn put_forward(&self, proposals: Vec<(Arc<Partition>, Proposal)>) {
        let image = self.metadata.image();
        let (mut asked, mut ended) = (Vec::new(), Vec::new());
        let (mut askers, mut late) = (Vec::new(), Vec::new());
        for (partition, Proposal { base, next, joins }) in proposals {
            let life = |(broker, incarnation)| {
                let life = image.brokers().get(&broker).map(|broker| broker.incarnation);
                life.filter(|life| incarnation_of(*life) == incarnation).map(|life| (broker, life))
            };
            let id = partition.id();
            let asker = Asker { partition, replaces: (next.leader_epoch, base), is_expansion: joins.is_some() };
            match joins.map(life) {
                // Who caught up has ended since. Nothing takes the proposal any more, but an attempt before this one, whose answer
                // was lost, may have been taken.
                Some(None) => {
                    late.push(asker);
                    ended.push(self.metadata.read_fate(id, base));
                }
                joins => {
                    askers.push(asker);
                    asked.push(IsrProposal { partition: id, base, next, joins: joins.flatten() });
                }
            }
        }
        let (outcomes, fates) = tokio::join!(self.metadata.propose_isrs(&asked), join_all(ended));
        for (asker, outcome) in askers.into_iter().chain(late).zip(outcomes.into_iter().chain(fates)) {
            self.answer(&asker, outcome);
        }
    }

    fn answer(&self, asker: &Asker, outcome: ProposalOutcome) {
        let Asker { partition, replaces, is_expansion } = asker;
        match outcome {
            ProposalOutcome::Taken => {
                self.changes.note(*is_expansion);
                partition.answered(*replaces, Outcome::Taken, None);
            }
            ProposalOutcome::Unsent => partition.answered(*replaces, Outcome::Unsent, None),
            ProposalOutcome::Refused => partition.answered(*replaces, Outcome::Refused, None),
            ProposalOutcome::Overtaken(now) => partition.answered(*replaces, Outcome::Overtaken, now.as_deref()),
            ProposalOutcome::Unknown => {
                warn!(topic = %partition.topic(), partition = %partition.id().index, "it is not known whether an ISR was taken: asking again");
                partition.answered(*replaces, Outcome::Unknown, None);
            }
        }
    }
}

/// Who waits for an answer.
struct Asker {
    partition: Arc<Partition>,
    /// The leader epoch and the partition epoch for which the proposal was made.
    replaces: (LeaderEpoch, u32),
    is_expansion: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_others_are_carried_goes_with_the_next_and_nothing_is_left_behind() {
        let proposals = Proposals::default();
        assert!(proposals.add(0));
        assert_eq!(proposals.next(), [0]);
        let more = TOGETHER as u32 + 1;
        assert!((1..=more).all(|number| !proposals.add(number)), "the first one's carrier comes back for them");
        assert_eq!(proposals.next(), (1..more).collect::<Vec<_>>());
        assert_eq!(proposals.next(), [more]);
        assert!(!proposals.add(7));
        assert_eq!(proposals.next(), [7]);
        assert!(proposals.next().is_empty());
        assert!(proposals.add(8), "nobody would come for it");
    }
}
