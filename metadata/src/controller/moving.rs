//! A partition on its way to other brokers (KIP-455): the rules for one partition.
//!
//! ```text
//! replicas [1,2] ─ towards [2,3] ─► replicas [2,3,1] adding [3] removing [1] ─ 3 is in sync ─► replicas [2,3]
//!                                        │ cancelled                                         (`completed`)
//!                                        └─► replicas [2,1]
//! ```
//! Neither end costs what `min.insync.replicas` promises: as many replicas as that have every committed record afterwards, or no fewer
//! than before. Kafka asks for that only where replicas become fewer. Of two replicas that have a record it takes one away although the
//! third, which stays, still lacks it; then the loss of a single machine costs the record.

use super::in_sync::{Circumstances, changed, led};
use crate::{
    image::{PartitionImage, Recovery},
    model::BrokerId,
};

/// Why a partition stays on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelError {
    /// It is not on its way anywhere.
    NothingInProgress,
    /// Of the replicas that would be left none is in sync, or none that is can lead.
    Unclean,
    /// Of the replicas that would be left fewer than `min.insync.replicas` have every committed record.
    TooFewInSync,
}

/// The partition on its way to `target`, or there, if nobody has to catch up. `None`: nothing changes.
pub fn towards(
    partition: &PartitionImage,
    target: &[BrokerId],
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    let mut removing: Vec<BrokerId> = partition.replicas.iter().copied().filter(|id| !target.contains(id)).collect();
    // Who is on its way already is still to come: to ask for the same again changes nothing.
    let is_new = |id: &BrokerId| !partition.replicas.contains(id) || partition.adding.contains(id);
    let mut adding: Vec<BrokerId> = target.iter().copied().filter(is_new).collect();
    removing.sort_unstable();
    adding.sort_unstable();
    let replicas = target.iter().chain(&removing).copied().collect();
    let moving = PartitionImage { replicas, adding, removing, ..partition.clone() };
    completed(&moving, circumstances).or_else(|| changed(partition, moving))
}

/// The partition behind its move, if the replicas in sync allow it to end. `None`: it goes on, or nothing moves.
pub fn completed(partition: &PartitionImage, circumstances: &Circumstances<'_>) -> Option<PartitionImage> {
    let PartitionImage { replicas, isr, adding, removing, .. } = partition;
    if adding.is_empty() && removing.is_empty() {
        return None;
    }
    let staying: Vec<BrokerId> = replicas.iter().copied().filter(|id| !removing.contains(id)).collect();
    let are_in_sync = |wanted: &[BrokerId]| wanted.iter().all(|id| isr.contains(id));
    // With fewer replicas than before, none of those that stay may be missing.
    let is_ready = are_in_sync(adding) && (adding.len() >= removing.len() || are_in_sync(&staying));
    if is_ready { held_by(partition, staying, circumstances).ok() } else { None }
}

/// The partition with the replicas that it had before its move.
///
/// # Errors
/// [`CancelError`]: it stays on its way. Where an unclean election is allowed, only if nothing moves.
pub fn cancelled(partition: &PartitionImage, circumstances: &Circumstances<'_>) -> Result<PartitionImage, CancelError> {
    let PartitionImage { replicas, adding, removing, .. } = partition;
    if adding.is_empty() && removing.is_empty() {
        return Err(CancelError::NothingInProgress);
    }
    let before: Vec<BrokerId> = replicas.iter().copied().filter(|id| !adding.contains(id)).collect();
    let clean = held_by(partition, before.clone(), circumstances);
    if clean.is_ok() || !circumstances.unclean {
        return clean;
    }
    // Records may be lost, as the topic allows.
    let mut next = only(partition, before);
    if next.isr.is_empty() && next.elr.is_empty() && next.recovery.is_none() {
        next.isr.extend(next.replicas.iter().copied().find(|id| !next.offline.contains(id)));
    }
    changed(partition, led_on(next, circumstances)).ok_or(CancelError::NothingInProgress)
}

/// The partition held by `replicas`, which are some of its own, and by nobody else.
fn held_by(
    partition: &PartitionImage,
    replicas: Vec<BrokerId>,
    circumstances: &Circumstances<'_>,
) -> Result<PartitionImage, CancelError> {
    let next = only(partition, replicas);
    if next.isr.is_empty() {
        return Err(CancelError::Unclean);
    }
    let have_all = |partition: &PartitionImage| partition.isr.len() + partition.elr.len();
    if have_all(&next) < circumstances.effective_min(&next).min(have_all(partition)) {
        return Err(CancelError::TooFewInSync);
    }
    // A move is no reason to lose records, also where an election might.
    let next = led_on(next, &Circumstances { unclean: false, ..*circumstances });
    if next.leader.is_none() && partition.leader.is_some() {
        return Err(CancelError::Unclean);
    }
    changed(partition, next).ok_or(CancelError::NothingInProgress)
}

/// Nothing moves, and who is none of `replicas` is nothing to the partition any more.
fn only(partition: &PartitionImage, replicas: Vec<BrokerId>) -> PartitionImage {
    let those = |ids: &[BrokerId]| ids.iter().copied().filter(|id| replicas.contains(id)).collect();
    PartitionImage {
        isr: those(&partition.isr),
        elr: those(&partition.elr),
        offline: those(&partition.offline),
        last_leader: partition.last_leader.filter(|last| replicas.contains(last)),
        adding: Vec::new(),
        removing: Vec::new(),
        recovery: partition.recovery.clone().map(|recovery| Recovery {
            told: recovery.told.into_iter().filter(|one| replicas.contains(&one.broker)).collect(),
            ..recovery
        }),
        replicas,
        ..partition.clone()
    }
}

/// Whoever leads stays, also if it is about to stop: to take it out is for another decision.
fn led_on(next: PartitionImage, circumstances: &Circumstances<'_>) -> PartitionImage {
    match next.leader {
        Some(leader) if next.isr.contains(&leader) => next,
        _ => led(next, circumstances),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LeaderEpoch;

    fn ids(ids: &[u32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    /// On its way from 1 and 2 to 3 and 2.
    fn moving(leader: u32, isr: &[u32], elr: &[u32]) -> PartitionImage {
        PartitionImage {
            replicas: ids(&[3, 2, 1]),
            isr: ids(isr),
            elr: ids(elr),
            leader: Some(BrokerId(leader)),
            adding: ids(&[3]),
            removing: ids(&[1]),
            ..PartitionImage::default()
        }
    }

    /// With `min_in_sync` and these brokers in service.
    fn with<T>(active: &[u32], min_in_sync: usize, unclean: bool, act: impl FnOnce(&Circumstances<'_>) -> T) -> T {
        let is_active = |broker: BrokerId| active.contains(&broker.0);
        act(&Circumstances { is_active: &is_active, min_in_sync, unclean })
    }

    #[test]
    fn who_is_added_is_waited_for_and_who_leaves_hands_over() {
        let now = PartitionImage {
            replicas: ids(&[1, 2]),
            isr: ids(&[1, 2]),
            leader: Some(BrokerId(1)),
            ..PartitionImage::default()
        };
        let begun = with(&[1, 2, 3], 2, false, |around| towards(&now, &ids(&[3, 2]), around)).unwrap();
        assert_eq!(begun, PartitionImage { partition_epoch: 1, ..moving(1, &[1, 2], &[]) });
        assert_eq!(with(&[1, 2, 3], 2, false, |around| completed(&begun, around)), None);
        let caught_up = PartitionImage { isr: ids(&[3, 2, 1]), ..begun };
        let done = with(&[1, 2, 3], 2, false, |around| completed(&caught_up, around)).unwrap();
        assert_eq!((done.replicas.clone(), done.isr.clone()), (ids(&[3, 2]), ids(&[3, 2])));
        assert_eq!((done.leader, done.leader_epoch, done.partition_epoch), (Some(BrokerId(3)), LeaderEpoch(1), 2));
        assert_eq!((&done.adding, &done.removing), (&ids(&[]), &ids(&[])));
        assert_eq!(with(&[1, 2, 3], 2, false, |around| towards(&done, &ids(&[3, 2]), around)), None, "it is there");
    }

    #[test]
    fn to_ask_for_a_move_again_changes_nothing_of_it() {
        let now = moving(1, &[1], &[]);
        assert_eq!(with(&[1, 3], 1, false, |around| towards(&now, &ids(&[3, 2]), around)), None);
        // Also where the order is another one, 3 is still who is added.
        let turned = with(&[1, 3], 1, false, |around| towards(&now, &ids(&[2, 3]), around)).unwrap();
        assert_eq!(
            (&turned.replicas, &turned.adding, &turned.removing),
            (&ids(&[2, 3, 1]), &now.adding, &now.removing)
        );
        let back = with(&[1, 3], 1, false, |around| cancelled(&turned, around)).unwrap();
        assert_eq!(back.replicas, ids(&[2, 1]));
    }

    /// Acknowledged by two of three, a record must not be left on one.
    #[test]
    fn nobody_leaves_whose_records_fewer_than_the_minimum_would_have() {
        let two_have_all = moving(1, &[1, 3], &[]);
        let one_may_come_back = moving(3, &[3], &[1]);
        for now in [&two_have_all, &one_may_come_back] {
            assert_eq!(with(&[1, 3], 2, false, |around| completed(now, around)), None, "2 lacks them");
        }
        assert!(with(&[1, 3], 1, false, |around| completed(&two_have_all, around)).is_some());
        // Where there were fewer before, the move does not make it worse.
        let alone = moving(3, &[3], &[]);
        assert!(with(&[1, 3], 2, false, |around| completed(&alone, around)).is_some());
        let back = PartitionImage { isr: ids(&[1, 2, 3]), ..two_have_all.clone() };
        assert!(with(&[1, 2, 3], 2, false, |around| completed(&back, around)).is_some());

        let refused = with(&[1, 3], 2, false, |around| cancelled(&two_have_all, around));
        assert_eq!(refused, Err(CancelError::TooFewInSync));
        let kafkas = with(&[1, 3], 1, false, |around| cancelled(&two_have_all, around)).unwrap();
        assert_eq!((kafkas.replicas, kafkas.isr), (ids(&[2, 1]), ids(&[1])));
        // Nobody who moves it elsewhere has to wait: those two have what they need.
        let elsewhere = with(&[1, 3], 2, false, |around| towards(&two_have_all, &ids(&[1, 3]), around)).unwrap();
        assert_eq!((elsewhere.replicas, elsewhere.isr, elsewhere.removing), (ids(&[1, 3]), ids(&[1, 3]), ids(&[])));
    }

    #[test]
    fn a_move_ends_only_where_somebody_leads_after_it() {
        let now = moving(1, &[1, 3], &[]);
        assert_eq!(with(&[1, 2], 1, false, |around| completed(&now, around)), None, "3 is about to stop");
        assert_eq!(with(&[1, 2], 1, true, |around| completed(&now, around)), None, "2 lacks records");
        assert_eq!(with(&[1, 3], 1, false, |around| completed(&now, around)).unwrap().leader, Some(BrokerId(3)));
        let led_by_3 = moving(3, &[1, 3], &[]);
        assert!(with(&[1], 1, false, |around| completed(&led_by_3, around)).is_some(), "it leads already");
        assert_eq!(with(&[3], 1, false, |around| cancelled(&led_by_3, around)), Err(CancelError::Unclean));
        // Nobody leads before and after it.
        let nobody = PartitionImage { leader: None, last_leader: Some(BrokerId(1)), ..now };
        let done = with(&[], 1, false, |around| completed(&nobody, around)).unwrap();
        assert_eq!((done.leader, done.last_leader), (None, None));
    }

    #[test]
    fn cancelled_by_force_whoever_is_left_goes_on() {
        let now = moving(3, &[3], &[]);
        assert_eq!(with(&[1, 2, 3], 1, false, |around| cancelled(&now, around)), Err(CancelError::Unclean));
        let next = with(&[1, 2, 3], 1, true, |around| cancelled(&now, around)).unwrap();
        assert_eq!((next.leader, next.isr, next.replicas), (Some(BrokerId(2)), ids(&[2]), ids(&[2, 1])));
        let other = with(&[1, 3], 1, true, |around| cancelled(&now, around)).unwrap();
        assert_eq!((other.leader, other.isr), (Some(BrokerId(1)), ids(&[1])), "2 is not there");
        let still = PartitionImage { replicas: ids(&[2, 1]), adding: Vec::new(), removing: Vec::new(), ..now };
        assert_eq!(with(&[1], 1, true, |around| cancelled(&still, around)), Err(CancelError::NothingInProgress));
    }

    #[test]
    fn a_replica_on_its_way_does_not_raise_the_minimum() {
        let now = PartitionImage {
            replicas: ids(&[1]),
            isr: ids(&[1]),
            leader: Some(BrokerId(1)),
            ..PartitionImage::default()
        };
        with(&[1, 2], 2, false, |around| {
            let begun = towards(&now, &ids(&[2]), around).unwrap();
            assert_eq!((begun.replicas.len(), around.effective_min(&begun)), (2, 1));
            let in_sync = PartitionImage { isr: ids(&[1, 2]), ..begun };
            assert_eq!(completed(&in_sync, around).unwrap().leader, Some(BrokerId(2)));
        });
    }
}
