//! The leader's side of truncation: whether a reader's log is a beginning of the leader's, over both tiers (KIP-101, 279, 320, 595).

use varve_metadata::model::{LeaderEpoch, Offset};

use crate::follower::{Position, ReplicaLog};

/// How a reader's log stands to the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// It is a beginning of the leader's, as far as can be told.
    Agrees,
    /// The leader has other records: what it has of `epoch`, the reader's last one or the largest before it, ends at `end`.
    Parted {
        /// The largest epoch of the leader's that is not newer than the reader's.
        epoch: LeaderEpoch,
        /// The offset behind that epoch's last record.
        end: Offset,
    },
    /// It ends behind the leader's, or no epoch is known where it should end.
    OutOfRange,
}

/// Compares the log of a reader at `position` with `log`, that of the leader of `own`. `archived` is [`end_of_epoch`] of what the
/// leader knows of the archive.
pub fn compare(
    log: &impl ReplicaLog,
    own: LeaderEpoch,
    position: Position,
    archived: impl Fn(LeaderEpoch) -> Option<(LeaderEpoch, Offset)>,
) -> Lineage {
    if let Some(last) = position.last_epoch {
        let Some((epoch, end)) = end_of_epoch(log, own, last, || archived(last)) else { return Lineage::OutOfRange };
        if epoch < last || end < position.from {
            return Lineage::Parted { epoch, end };
        }
    }
    if position.from > log.end() { Lineage::OutOfRange } else { Lineage::Agrees }
}

/// The largest epoch not above `epoch` in any tier, and the offset behind its last record (KIP-279). `None` if all known epochs are
/// newer. `log` is that of the leader of `own`; `archived` asks the same of the archive.
pub fn end_of_epoch(
    log: &impl ReplicaLog,
    own: LeaderEpoch,
    epoch: LeaderEpoch,
    archived: impl Fn() -> Option<(LeaderEpoch, Offset)>,
) -> Option<(LeaderEpoch, Offset)> {
    let end = log.end();
    if epoch == own {
        // Ours ends where the log ends, whether or not it has a record yet.
        return Some((epoch, end));
    }
    let Some((earliest, start)) = log.earliest_epoch() else {
        // No record is here: whatever was before ours was over where ours begins.
        let (known, ended) = archived().or_else(|| (epoch < own).then_some((epoch, end)))?;
        return Some((known, ended.min(end)));
    };
    if epoch < earliest
        && let Some((known, end)) = archived()
    {
        // The local log only knows that it was over when its own first one began.
        return Some((known, end.min(start)));
    }
    // One that the local log has nothing of was over before ours began, whatever the archive has of it: after an unclean
    // election that may be of another lineage.
    let newest = || log.latest_epoch().map(|latest| (latest, end));
    log.end_of_epoch(epoch).or_else(|| if epoch < own { newest() } else { archived() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::tests::{log, offset};

    const OWN: LeaderEpoch = LeaderEpoch(7);

    fn at(from: u64, last: u32) -> Position {
        Position { from: offset(from), last_epoch: Some(LeaderEpoch(last)) }
    }

    fn parted(epoch: u32, end: u64) -> Lineage {
        Lineage::Parted { epoch: LeaderEpoch(epoch), end: offset(end) }
    }

    #[test]
    fn the_local_log_tells_where_a_reader_parted_from_it() {
        let leader = log(&[(2, 0), (5, 20), (7, 30)], 40);
        let compared = |position| compare(&leader, OWN, position, |_| None);
        assert_eq!(compared(at(30, 5)), Lineage::Agrees);
        assert_eq!(compared(at(35, 5)), parted(5, 30));
        assert_eq!(compared(at(35, 6)), parted(5, 30), "it has nothing of epoch 6");
        assert_eq!(compared(at(40, 7)), Lineage::Agrees);
        assert_eq!(compared(Position { from: offset(41), last_epoch: None }), Lineage::OutOfRange);
    }

    #[test]
    fn the_archive_tells_it_of_what_the_local_log_never_had() {
        let leader = log(&[(5, 20), (7, 30)], 40);
        let compared = |position| {
            compare(&leader, OWN, position, |epoch| {
                Some((epoch.min(LeaderEpoch(3)), offset(12))).filter(|_| epoch.0 >= 3)
            })
        };
        assert_eq!(compared(at(12, 3)), Lineage::Agrees);
        assert_eq!(compared(at(15, 3)), parted(3, 12));
        assert_eq!(compared(at(15, 4)), parted(3, 12));
        assert_eq!(
            compared(at(20, 2)),
            Lineage::Agrees,
            "older than all that is known: it deleted no more than we did"
        );
    }
}
