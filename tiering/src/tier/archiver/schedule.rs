//! Who is due when. Pure: the time comes in as an argument.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use varve_metadata::model::PartitionId;

/// All partitions, each waiting for its moment or being worked on. A partition is handed to one worker at a time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    waiting: BTreeSet<(Duration, PartitionId)>,
    state: HashMap<PartitionId, State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting(Duration),
    /// With a worker; woken meanwhile or not.
    Taken {
        again: bool,
    },
}

impl Schedule {
    /// Wants `partition` to be looked at now; adds it if it is new. One that is with a worker comes again right after.
    pub(super) fn wake(&mut self, partition: PartitionId, now: Duration) {
        match self.state.get(&partition) {
            Some(State::Taken { .. }) => drop(self.state.insert(partition, State::Taken { again: true })),
            Some(State::Waiting(due)) if *due <= now => {}
            _ => self.put(partition, now),
        }
    }

    /// Forgets `partition`. A worker that has it finishes, and brings it back in vain.
    pub(super) fn remove(&mut self, partition: PartitionId) {
        if let Some(State::Waiting(due)) = self.state.remove(&partition) {
            self.waiting.remove(&(due, partition));
        }
    }

    /// Hands out a partition that is due.
    pub(super) fn take(&mut self, now: Duration) -> Option<PartitionId> {
        let first = self.waiting.first().filter(|(due, _)| *due <= now).copied()?;
        self.waiting.remove(&first);
        self.state.insert(first.1, State::Taken { again: false });
        Some(first.1)
    }

    /// Takes `partition` back from its worker, to come again at `due`, or at once if it was woken meanwhile.
    pub(super) fn give_back(&mut self, partition: PartitionId, due: Duration, now: Duration) {
        match self.state.get(&partition) {
            Some(State::Taken { again: true }) => self.put(partition, now),
            Some(State::Taken { again: false }) => self.put(partition, due),
            // Removed, and perhaps added again, meanwhile.
            Some(State::Waiting(_)) | None => {}
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.first().map(|(due, _)| *due)
    }

    fn put(&mut self, partition: PartitionId, due: Duration) {
        if let Some(State::Waiting(before)) = self.state.insert(partition, State::Waiting(due)) {
            self.waiting.remove(&(before, partition));
        }
        self.waiting.insert((due, partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::partition;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_earliest_comes_first_and_nobody_before_its_time() {
        let (mut schedule, a, b) = (Schedule::default(), partition(), partition());
        schedule.wake(a, seconds(5));
        schedule.wake(b, seconds(3));
        assert_eq!((schedule.take(seconds(2)), schedule.next_due()), (None, Some(seconds(3))));
        assert_eq!(schedule.take(seconds(9)), Some(b));
        assert_eq!(schedule.take(seconds(9)), Some(a));
        assert_eq!((schedule.take(seconds(9)), schedule.next_due()), (None, None));
    }

    #[test]
    fn a_wake_brings_the_moment_forward_and_never_back() {
        let (mut schedule, a) = (Schedule::default(), partition());
        schedule.wake(a, seconds(1));
        assert_eq!(schedule.take(seconds(1)), Some(a));
        schedule.give_back(a, seconds(100), seconds(2));
        schedule.wake(a, seconds(10));
        schedule.wake(a, seconds(20));
        assert_eq!(schedule.next_due(), Some(seconds(10)));
    }

    #[test]
    fn who_is_woken_while_with_a_worker_comes_again_at_once_and_not_twice() {
        let (mut schedule, a) = (Schedule::default(), partition());
        schedule.wake(a, seconds(1));
        assert_eq!(schedule.take(seconds(1)), Some(a));
        schedule.wake(a, seconds(2));
        assert_eq!(schedule.take(seconds(2)), None);
        schedule.give_back(a, seconds(100), seconds(3));
        assert_eq!(schedule.take(seconds(3)), Some(a));
    }

    #[test]
    fn a_removed_partition_stays_away() {
        let (mut schedule, a) = (Schedule::default(), partition());
        schedule.wake(a, seconds(1));
        schedule.take(seconds(1));
        schedule.remove(a);
        schedule.give_back(a, seconds(2), seconds(2));
        assert_eq!((schedule.take(seconds(9)), schedule.next_due()), (None, None));
    }
}
