//! Which leader epoch wrote which offsets (KIP-101), in memory and in the file `leader-epoch-checkpoint`.

use varve_metadata::model::{LeaderEpoch, Offset};

use super::checkpoint::{self, CheckpointError};

/// Name of the file in a partition's directory.
pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";

/// The epochs of one log with the first offset of each: both rise from entry to entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochCache {
    /// Reads the text of the checkpoint file.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn parse(text: &str) -> Result<EpochCache, CheckpointError> {
        let entries = checkpoint::parse(text, |line| {
            let mut words = line.split_ascii_whitespace();
            let (epoch, start) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            words.next().is_none().then_some((LeaderEpoch::from_wire(epoch)?, Offset::from_wire(start)?))
        })?;
        Ok(EpochCache::from_iter(entries))
    }

    /// The text of the checkpoint file.
    pub fn render(&self) -> String {
        checkpoint::render(self.entries.iter().map(|(epoch, start)| format!("{epoch} {start}")))
    }

    /// Notes that `epoch` starts at `start`, and drops what contradicts it: entries of this or a later epoch, or that start
    /// at or after `start`. Returns whether anything changed and so has to be written.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if self.latest().is_some_and(|(latest, known)| latest == epoch && known <= start) {
            return false;
        }
        while self.latest().is_some_and(|(latest, known)| latest >= epoch || known >= start) {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
        true
    }

    /// The epochs with their first offsets, oldest first.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The oldest epoch and its first offset.
    pub fn earliest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.first().copied()
    }

    /// The newest epoch and its first offset.
    pub fn latest(&self) -> Option<(LeaderEpoch, Offset)> {
        self.entries.last().copied()
    }

    /// The epoch that wrote `offset`; `None` if that is older than any epoch known.
    pub fn epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map(|index| self.entries[index].0)
    }

    /// Where the largest known epoch up to `requested` ends, for OffsetForLeaderEpoch: that epoch, and the first offset that
    /// is not its own. `log_end` ends the newest epoch.
    ///
    /// An epoch older than all known ends where the oldest known begins, so that a follower which has only deleted data goes
    /// on there. `None` for an epoch newer than all known.
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if self.latest().is_some_and(|(latest, _)| latest == requested) {
            return Some((requested, log_end));
        }
        let higher = self.entries.partition_point(|(epoch, _)| *epoch <= requested);
        let end = self.entries.get(higher)?.1;
        let epoch = higher.checked_sub(1).map_or(requested, |index| self.entries[index].0);
        Some((epoch, end))
    }

    /// Drops the epochs that start at or after `end`. Returns whether anything changed.
    pub fn truncate_from_end(&mut self, end: Offset) -> bool {
        let kept = self.entries.partition_point(|(_, start)| *start < end);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Drops the epochs that end at or before `start`, and lets the one that spans it begin there. Returns whether anything
    /// changed.
    pub fn truncate_from_start(&mut self, start: Offset) -> bool {
        let begun = self.entries.partition_point(|(_, known)| *known <= start);
        let Some(first) = begun.checked_sub(1) else { return false };
        let changed = first > 0 || self.entries[first].1 != start;
        self.entries.drain(..first);
        self.entries[0].1 = start;
        changed
    }

    /// The epochs of the records in `start..end`, the first of them beginning at `start`.
    pub fn within(&self, start: Offset, end: Offset) -> Vec<(LeaderEpoch, Offset)> {
        let mut part = self.clone();
        part.truncate_from_start(start);
        part.truncate_from_end(end);
        part.entries
    }

    /// Forgets every epoch.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl FromIterator<(LeaderEpoch, Offset)> for EpochCache {
    /// Assigns one entry after another; entries that a later one contradicts are dropped.
    fn from_iter<I: IntoIterator<Item = (LeaderEpoch, Offset)>>(entries: I) -> EpochCache {
        let mut cache = EpochCache::default();
        for (epoch, start) in entries {
            cache.assign(epoch, start);
        }
        cache
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    fn entry(epoch: u32, start: u64) -> (LeaderEpoch, Offset) {
        (LeaderEpoch(epoch), offset(start))
    }

    fn cache(entries: &[(u32, u64)]) -> EpochCache {
        entries.iter().map(|(epoch, start)| entry(*epoch, *start)).collect()
    }

    #[test]
    fn the_checkpoint_has_kafkas_text() {
        let epochs = cache(&[(0, 0), (2, 17)]);
        assert_eq!(epochs.render(), "0\n2\n0 0\n2 17\n");
        assert_eq!(EpochCache::parse("0\n2\n0 0\n2 17\n").unwrap(), epochs);
        assert!(EpochCache::parse("0\n1\n0 0 0\n").is_err());
        assert!(EpochCache::parse("0\n1\n-1 0\n").is_err());
    }

    #[test]
    fn an_epoch_is_assigned_once_and_a_newer_truth_wins() {
        let mut epochs = cache(&[(1, 10)]);
        assert!(!epochs.assign(LeaderEpoch(1), offset(11)), "an epoch keeps its first offset");
        assert!(epochs.assign(LeaderEpoch(3), offset(20)));
        assert!(epochs.assign(LeaderEpoch(2), offset(15)), "a log cut back by an older leader");
        assert_eq!(epochs.entries(), [entry(1, 10), entry(2, 15)]);
        assert!(epochs.assign(LeaderEpoch(4), offset(15)), "epoch 2 wrote nothing");
        assert_eq!(epochs.entries(), [entry(1, 10), entry(4, 15)]);
    }

    #[test]
    fn the_end_of_an_epoch_is_where_the_next_known_begins() {
        let epochs = cache(&[(2, 10), (5, 20)]);
        let end = |requested| epochs.end_offset_for(LeaderEpoch(requested), offset(30));
        assert_eq!(end(5), Some(entry(5, 30)));
        assert_eq!(end(2), Some(entry(2, 20)));
        assert_eq!(end(3), Some(entry(2, 20)), "no record of epoch 3: the largest before it");
        assert_eq!(end(1), Some(entry(1, 10)), "older than the log: where it begins");
        assert_eq!(end(6), None);
        assert_eq!(EpochCache::default().end_offset_for(LeaderEpoch(0), offset(0)), None);
    }

    #[test]
    fn truncation_moves_the_epoch_that_spans_the_start() {
        let mut epochs = cache(&[(2, 10), (5, 20), (7, 30)]);
        assert!(!epochs.clone().truncate_from_start(offset(10)), "nothing lies before");
        assert!(epochs.truncate_from_start(offset(25)));
        assert_eq!(epochs.entries(), [entry(5, 25), entry(7, 30)]);
        assert!(epochs.truncate_from_end(offset(30)));
        assert_eq!(epochs.entries(), [entry(5, 25)]);
        assert!(!epochs.truncate_from_end(offset(30)));
    }

    proptest! {
        #[test]
        fn epochs_and_offsets_rise_whatever_is_assigned(steps in proptest::collection::vec((0_u32..20, 0_u64..100), 0..50)) {
            let epochs = cache(&steps);
            prop_assert!(epochs.entries().windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
            prop_assert_eq!(EpochCache::parse(&epochs.render()).unwrap(), epochs);
        }

        #[test]
        fn a_part_knows_the_epoch_of_each_of_its_offsets(
            steps in proptest::collection::vec((0_u32..20, 0_u64..100), 0..20), from in 0_u64..100, len in 1_u64..50,
        ) {
            let epochs = cache(&steps);
            let part: EpochCache = epochs.within(offset(from), offset(from + len)).into_iter().collect();
            for at in from..from + len {
                prop_assert_eq!(part.epoch_for(offset(at)), epochs.epoch_for(offset(at)));
            }
        }
    }
}
