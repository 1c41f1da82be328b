//! The follower's side: where it fetches, and where it cuts its log when that parted from the leader's.

use varve_metadata::model::{LeaderEpoch, Offset};

/// A replica's log, as far as these rules look at it.
pub trait ReplicaLog {
    /// The offset that the next record will get.
    fn end(&self) -> Offset;
    /// Epoch of the last record, if any is known.
    fn latest_epoch(&self) -> Option<LeaderEpoch>;
    /// The first epoch known, and where it begins.
    fn earliest_epoch(&self) -> Option<(LeaderEpoch, Offset)>;
    /// The largest known epoch not above `epoch`, and the offset behind its last record (KIP-279).
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)>;
}

/// What a follower asks for: the leader compares its own log with it (KIP-595).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// First offset wanted.
    pub from: Offset,
    /// Epoch of the record before it.
    pub last_epoch: Option<LeaderEpoch>,
}

impl Position {
    /// Where `log` goes on.
    pub fn of(log: &impl ReplicaLog) -> Position {
        Position { from: log.end(), last_epoch: log.latest_epoch() }
    }
}

/// Whether an answer to a fetch that was sent at `asked` in `epoch` may still be acted on: the leader is the same, and the
/// log stands where it stood. Anything else is late.
pub fn is_current(asked: (LeaderEpoch, Position), now: (LeaderEpoch, Position)) -> bool {
    asked == now
}

/// Where the log is cut, if the leader says that its records up to the epoch asked for end with `epoch` at `end`. What is left
/// agrees with the leader, or the next fetch learns where to cut further.
pub fn truncation(log: &impl ReplicaLog, epoch: LeaderEpoch, end: Offset) -> Offset {
    let cut = match log.end_of_epoch(epoch) {
        // We know that epoch: both have its records, as far as both go.
        Some((known, known_end)) if known == epoch => known_end.min(end),
        // We do not: what we have of epochs before it may still have parted from the leader's.
        Some((_, known_end)) => known_end,
        None => end,
    };
    cut.min(log.end())
}

#[cfg(test)]
pub(crate) mod tests {
    use varve_log::local::EpochCache;

    use super::*;

    /// A log of these epochs.
    pub(crate) struct Log(EpochCache, Offset);

    impl ReplicaLog for Log {
        fn end(&self) -> Offset {
            self.1
        }
        fn latest_epoch(&self) -> Option<LeaderEpoch> {
            self.0.latest().map(|(epoch, _)| epoch)
        }
        fn earliest_epoch(&self) -> Option<(LeaderEpoch, Offset)> {
            self.0.earliest()
        }
        fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
            self.0.end_offset_for(epoch, self.1)
        }
    }

    pub(crate) fn log(epochs: &[(u32, u64)], end: u64) -> Log {
        let entry = |(epoch, start): &(u32, u64)| (LeaderEpoch(*epoch), offset(*start));
        Log(epochs.iter().map(entry).collect(), offset(end))
    }

    pub(crate) fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    #[test]
    fn records_that_the_leader_never_had_are_cut() {
        let follower = log(&[(1, 0)], 10);
        assert_eq!(Position::of(&follower), Position { from: offset(10), last_epoch: Some(LeaderEpoch(1)) });
        assert_eq!(truncation(&follower, LeaderEpoch(1), offset(7)), offset(7));
        assert_eq!(truncation(&follower, LeaderEpoch(1), offset(12)), offset(10), "never beyond the end");
    }

    #[test]
    fn an_epoch_that_only_the_follower_has_goes_whole() {
        // The leader has no record of epoch 2: its epoch 1 ends at 20, ours at 10.
        let follower = log(&[(1, 0), (2, 10)], 15);
        assert_eq!(truncation(&follower, LeaderEpoch(1), offset(20)), offset(10));
    }

    #[test]
    fn where_the_leader_names_an_epoch_that_we_lack_we_go_back_and_ask_again() {
        // KIP-279: several quick elections. The leader has 1 and 3, we have 1, 2 and 4.
        let follower = log(&[(1, 0), (2, 10), (4, 20)], 25);
        assert_eq!(truncation(&follower, LeaderEpoch(3), offset(18)), offset(20));
        let follower = log(&[(1, 0), (2, 10)], 20);
        assert_eq!(truncation(&follower, LeaderEpoch(1), offset(12)), offset(10));
    }
}
