//! Partitions that no topic counts. A topic of more partitions than one transaction takes is made, grown and deleted in several; who
//! does not come to the last of them leaves keys that nobody sees, and that cost room in the store and in the memory of all who follow
//! it. The controller clears them away.
//!
//! Time only tells when that is worth a try. That nobody goes on with what was cleared away is sure without it: each transaction of a
//! change expects the first partition that the change wrote (`Decision::anchor`), and that one goes first.

use std::{collections::HashMap, time::Duration};

use crate::{
    model::{PartitionId, PartitionIndex, TopicId},
    store::Revision,
};

/// For so long nothing is written of a topic before what it does not count is cleared away: its maker has given up by then, or comes
/// back to it from far away.
pub(crate) const QUIET: Duration = Duration::from_secs(600);

/// While nothing is due it is looked for no more often: there may be many, and an image changes often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Partitions that are cleared away at once: with what is expected of them and of their topic they are one transaction of etcd.
const BATCH: usize = 100;

/// Since when what topics do not count is as it is.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    topics: HashMap<TopicId, Quiet>,
    next_look: Duration,
}

#[derive(Debug)]
struct Quiet {
    newest: Revision,
    since: Duration,
}

impl Leftovers {
    /// What is to be cleared away next: partitions of one topic, the first ones first, with the revisions that wrote them. `uncounted`
    /// are all partitions that no topic counts. `now`: monotonic; it never runs backwards between calls.
    pub(crate) fn due(
        &mut self,
        uncounted: impl Iterator<Item = (PartitionId, Revision)> + Clone,
        now: Duration,
    ) -> Option<(TopicId, Vec<(PartitionIndex, Revision)>)> {
        if now < self.next_look {
            return None;
        }
        self.note(uncounted.clone(), now);
        let is_due = |quiet: &Quiet| now.saturating_sub(quiet.since) >= QUIET;
        let Some(topic) = self.topics.iter().find_map(|(topic, quiet)| is_due(quiet).then_some(*topic)) else {
            self.next_look = now + LOOK_EVERY;
            return None;
        };
        let ours = uncounted.filter(|(id, _)| id.topic == topic);
        let mut partitions: Vec<_> = ours.map(|(id, revision)| (id.index, revision)).collect();
        partitions.sort_unstable();
        partitions.truncate(BATCH);
        Some((topic, partitions))
    }

    fn note(&mut self, uncounted: impl Iterator<Item = (PartitionId, Revision)>, now: Duration) {
        let mut newest: HashMap<TopicId, Revision> = HashMap::new();
        for (id, revision) in uncounted {
            let known = newest.entry(id.topic).or_default();
            *known = revision.max(*known);
        }
        self.topics.retain(|topic, _| newest.contains_key(topic));
        for (topic, newest) in newest {
            let quiet = self.topics.entry(topic).or_insert(Quiet { newest, since: now });
            if quiet.newest < newest {
                *quiet = Quiet { newest, since: now };
            }
        }
    }

    /// The store says otherwise of that topic: it is looked at again after another [`QUIET`].
    pub(crate) fn put_off(&mut self, topic: TopicId, now: Duration) {
        if let Some(quiet) = self.topics.get_mut(&topic) {
            quiet.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(topic: TopicId, revisions: &[u64]) -> Vec<(PartitionId, Revision)> {
        let key = |(revision, index)| (PartitionId { topic, index: PartitionIndex(index) }, Revision(revision));
        revisions.iter().copied().zip(0..).map(key).collect()
    }

    #[test]
    fn what_is_left_is_due_once_nothing_was_written_for_long_and_goes_in_batches_from_the_first_on() {
        let (topic, mut leftovers) = (TopicId::random(), Leftovers::default());
        let mut due = |revisions: &[u64], now| leftovers.due(keys(topic, revisions).into_iter(), now);
        assert_eq!(due(&[5, 5], Duration::ZERO), None);
        assert_eq!(due(&[5, 5], QUIET / 2), None);
        assert_eq!(due(&[5, 5, 6], QUIET), None, "somebody works on it");
        let (found, first) = due(&[[5; 150].as_slice(), &[6]].concat(), QUIET * 2).expect("it was quiet");
        assert!(found == topic && first.len() == BATCH && first.is_sorted());
        assert_eq!(first[0], (PartitionIndex(0), Revision(5)));
        assert!(due(&[5; 51], QUIET * 2).is_some(), "what is left of it goes at once");
        assert_eq!(due(&[], QUIET * 3), None);
        assert_eq!(due(&[5], QUIET * 4), None, "that is seen for the first time");
    }

    #[test]
    fn what_turns_out_to_be_counted_waits_for_another_turn() {
        let (topic, mut leftovers) = (TopicId::random(), Leftovers::default());
        let mut look = |now| leftovers.due(keys(topic, &[5]).into_iter(), now).is_some();
        assert!(!look(Duration::ZERO) && look(QUIET));
        leftovers.put_off(topic, QUIET);
        let mut look = |now| leftovers.due(keys(topic, &[5]).into_iter(), now).is_some();
        assert!(!look(QUIET * 3 / 2) && look(QUIET * 2));
    }
}
