//! Whether brokers may be stopped now, and for how long to ask. Pure: looks at the cluster and the time go in.

use std::{collections::BTreeSet, time::Duration};

use super::view::{PartitionView, View};

/// Between two looks, at least; and so many times as long as a look took, so that a large cluster is not asked all the time.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const REST: u32 = 10;
/// So long nobody may answer before waiting is given up: who waits for a cluster that is gone waits for nothing.
const FAILED_FOR: Duration = Duration::from_secs(30);

/// A partition that the stop of some brokers would be felt in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Felt {
    pub(super) topic: String,
    pub(super) index: i32,
    pub(super) why: Why,
    /// Its other replicas that are not in sync, or whose brokers do not answer.
    pub(super) lagging: Vec<i32>,
    /// It would be no better if all of those were in sync: it has no replica to spare.
    pub(super) is_unavoidable: bool,
}

/// How it would be felt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    #[error("has no leader")]
    NoLeader,
    #[error("would have no leader")]
    NobodyInSync,
    #[error("would have {in_sync} in sync, and min.insync.replicas is {min}")]
    TooFewInSync { in_sync: usize, min: usize },
}

/// What is left of a partition, from whole to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    None,
    NoWrites,
    NoLeader,
}

/// The partitions in which the stop of `stopping`, all at once, would be felt. Brokers that do not serve anyway take nothing away.
///
/// A partition that has too few in sync already counts as well, also where the broker itself lags: it may be the next one that
/// catches up.
pub(super) fn felt(view: &View, stopping: &BTreeSet<i32>) -> Vec<Felt> {
    let serves = |id: &i32| view.brokers.get(id).is_some_and(|broker| !broker.is_fenced);
    let ending: BTreeSet<i32> = stopping.iter().copied().filter(serves).collect();
    let held = view.partitions.iter().filter(|one| one.replicas.iter().any(|id| ending.contains(id)));
    held.filter_map(|partition| felt_in(view, partition, stopping)).collect()
}

fn felt_in(view: &View, partition: &PartitionView, stopping: &BTreeSet<i32>) -> Option<Felt> {
    let answers = |id: &i32| view.brokers.get(id).is_some_and(|broker| !broker.is_fenced && !broker.is_silent);
    let others: Vec<i32> = partition.replicas.iter().copied().filter(|id| !stopping.contains(id)).collect();
    let (in_sync, lagging): (Vec<i32>, Vec<i32>) =
        others.iter().copied().partition(|id| partition.in_sync.contains(id) && answers(id));
    // One that asks for more than there are replicas asks for all of them.
    let min = partition.min_in_sync.min(partition.replicas.len());
    let harm = |in_sync: usize| match in_sync {
        0 => Harm::NoLeader,
        few if few < min => Harm::NoWrites,
        _ => Harm::None,
    };
    let (now, why) = match (partition.leader, harm(in_sync.len())) {
        (None, _) => (Harm::NoLeader, Why::NoLeader),
        (Some(_), Harm::None) => return None,
        (Some(_), Harm::NoLeader) => (Harm::NoLeader, Why::NobodyInSync),
        (Some(_), Harm::NoWrites) => (Harm::NoWrites, Why::TooFewInSync { in_sync: in_sync.len(), min }),
    };
    let is_unavoidable = now <= harm(others.len());
    Some(Felt { topic: partition.topic.clone(), index: partition.index, why, lagging, is_unavoidable })
}

/// For how long to look again. Times are since the first look began.
#[derive(Debug)]
pub(super) struct Patience {
    wait: Duration,
    hold: Duration,
    safe_since: Option<Duration>,
    failing_since: Option<Duration>,
}

/// What one look comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Yes,
    No,
    LookAgain,
}

impl Patience {
    /// `wait`: until they may be stopped, at most. `hold`: so long that has to be so before it counts, without a break.
    pub(super) fn new(wait: Duration, hold: Duration) -> Patience {
        Patience { wait, hold, safe_since: None, failing_since: None }
    }

    /// After a look that succeeded. `may_help`: waiting may change what it found.
    pub(super) fn after_look(&mut self, now: Duration, is_safe: bool, may_help: bool) -> Next {
        self.failing_since = None;
        if is_safe {
            let since = *self.safe_since.get_or_insert(now);
            return if now.saturating_sub(since) >= self.hold { Next::Yes } else { Next::LookAgain };
        }
        self.safe_since = None;
        if may_help && now < self.wait { Next::LookAgain } else { Next::No }
    }

    /// After one that failed: whether to look again.
    pub(super) fn after_failure(&mut self, now: Duration) -> bool {
        self.safe_since = None;
        let since = *self.failing_since.get_or_insert(now);
        now < self.wait && now.saturating_sub(since) < FAILED_FOR
    }

    /// How long the next look is away, after one that took `took`.
    pub(super) fn pause(&self, now: Duration, took: Duration) -> Duration {
        (took * REST).min(self.left(now)).max(LOOK_EVERY)
    }

    /// What is left of the time in question.
    pub(super) fn left(&self, now: Duration) -> Duration {
        self.safe_since.map_or(self.wait, |since| since + self.hold).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::view::BrokerView, *};

    fn partition(replicas: &[i32], in_sync: &[i32], min_in_sync: usize) -> PartitionView {
        PartitionView {
            topic: "t".to_owned(),
            leader: in_sync.first().copied(),
            replicas: replicas.to_vec(),
            in_sync: in_sync.to_vec(),
            min_in_sync,
            ..PartitionView::default()
        }
    }

    /// Brokers 1 to 4 with one partition.
    fn cluster(partition: PartitionView) -> View {
        View { brokers: (1..=4).map(|id| (id, BrokerView::default())).collect(), partitions: vec![partition] }
    }

    /// How the stop would be felt, and whether that is unavoidable.
    fn stop(view: &View, stopping: &[i32]) -> Option<(Why, bool)> {
        let mut felt = felt(view, &stopping.iter().copied().collect());
        assert!(felt.len() <= 1, "{felt:?}");
        felt.pop().map(|felt| (felt.why, felt.is_unavoidable))
    }

    const NOBODY: Option<(Why, bool)> = Some((Why::NobodyInSync, false));

    fn too_few(in_sync: usize, min: usize) -> Option<(Why, bool)> {
        Some((Why::TooFewInSync { in_sync, min }, false))
    }

    #[test]
    fn a_broker_may_go_while_enough_others_are_in_sync() {
        let view = cluster(partition(&[1, 2, 3], &[1, 2, 3], 2));
        assert_eq!(stop(&view, &[1]), None);
        assert_eq!(stop(&view, &[4]), None, "it holds nothing");
        let behind = cluster(partition(&[1, 2, 3], &[1, 2], 2));
        assert_eq!(stop(&behind, &[1]), too_few(1, 2));
        assert_eq!(stop(&behind, &[3]), None, "it is not in sync: the others are enough");
        assert_eq!(felt(&behind, &[1].into())[0].lagging, [3]);
        let last = cluster(partition(&[1, 2, 3], &[1], 1));
        assert_eq!(stop(&last, &[1]), NOBODY);
        assert_eq!(stop(&last, &[2]), None);
    }

    #[test]
    fn a_partition_that_lacks_replicas_already_keeps_those_who_may_catch_up_next() {
        let view = cluster(partition(&[1, 2, 3], &[1], 2));
        assert_eq!(stop(&view, &[2]), too_few(1, 2));
        let mut leaderless = cluster(partition(&[1, 2, 3], &[1], 2));
        leaderless.partitions[0].leader = None;
        assert_eq!(stop(&leaderless, &[2]), Some((Why::NoLeader, false)));
        assert_eq!(stop(&leaderless, &[4]), None, "it is no business of that broker");
    }

    #[test]
    fn whoever_does_not_serve_or_answer_is_not_counted_on() {
        let mut view = cluster(partition(&[1, 2, 3], &[1, 2, 3], 2));
        view.brokers.get_mut(&3).unwrap().is_silent = true;
        assert_eq!(stop(&view, &[1]), too_few(1, 2), "it has just died, and is in the ISR still");
        view.brokers.get_mut(&2).unwrap().is_fenced = true;
        assert_eq!(stop(&view, &[1]), NOBODY);
        assert_eq!(stop(&view, &[2]), None, "its stop takes nothing away: it does not serve");
    }

    #[test]
    fn several_are_looked_at_as_one() {
        let view = cluster(partition(&[1, 2, 3], &[1, 2, 3], 2));
        assert_eq!(stop(&view, &[1, 4]), None);
        assert_eq!(stop(&view, &[1, 2]), Some((Why::TooFewInSync { in_sync: 1, min: 2 }, true)), "whoever is in sync");
    }

    #[test]
    fn a_partition_without_a_replica_to_spare_is_told_apart_from_one_that_lags() {
        assert_eq!(stop(&cluster(partition(&[1], &[1], 1)), &[1]), Some((Why::NobodyInSync, true)));
        let pair = cluster(partition(&[1, 2], &[1, 2], 2));
        assert_eq!(stop(&pair, &[1]), Some((Why::TooFewInSync { in_sync: 1, min: 2 }, true)));
        let behind = cluster(partition(&[1, 2], &[1], 2));
        assert_eq!(stop(&behind, &[1]), NOBODY, "it would at least be led once the other one is in sync");
        let three = cluster(partition(&[1, 2], &[1, 2], 3));
        assert_eq!(
            stop(&three, &[2]),
            Some((Why::TooFewInSync { in_sync: 1, min: 2 }, true)),
            "no more than there are"
        );
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn without_patience_one_look_decides() {
        let once = || Patience::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(once().after_look(seconds(0), true, true), Next::Yes);
        assert_eq!(once().after_look(seconds(0), false, true), Next::No);
        assert!(!once().after_failure(seconds(0)));
    }

    #[test]
    fn waiting_ends_with_its_time_or_where_it_cannot_help() {
        let mut patience = Patience::new(seconds(60), Duration::ZERO);
        assert_eq!(patience.after_look(seconds(59), false, true), Next::LookAgain);
        assert_eq!(patience.after_look(seconds(60), false, true), Next::No);
        assert_eq!(Patience::new(seconds(60), seconds(0)).after_look(seconds(1), false, false), Next::No);
    }

    #[test]
    fn it_counts_once_it_has_held_without_a_break() {
        let mut patience = Patience::new(seconds(60), seconds(5));
        assert_eq!(patience.after_look(seconds(1), true, true), Next::LookAgain);
        assert_eq!(patience.after_look(seconds(5), true, true), Next::LookAgain);
        assert_eq!(patience.after_look(seconds(5), false, true), Next::LookAgain);
        assert_eq!(patience.after_look(seconds(57), true, true), Next::LookAgain);
        assert_eq!(
            patience.left(seconds(58)),
            seconds(4),
            "it may end later than waiting does, by what it has to hold"
        );
        assert_eq!(patience.after_look(seconds(62), true, true), Next::Yes);
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_waited_for_no_longer_than_half_a_minute() {
        let mut patience = Patience::new(seconds(600), seconds(5));
        assert!(patience.after_failure(seconds(1)));
        assert_eq!(patience.after_look(seconds(20), false, true), Next::LookAgain);
        assert!(patience.after_failure(seconds(21)) && patience.after_failure(seconds(50)));
        assert!(!patience.after_failure(seconds(51)));
    }

    #[test]
    fn a_large_cluster_is_asked_less_often_and_no_later_than_it_matters() {
        let patience = Patience::new(seconds(60), Duration::ZERO);
        assert_eq!(patience.pause(seconds(1), Duration::from_millis(3)), LOOK_EVERY);
        assert_eq!(patience.pause(seconds(1), seconds(2)), seconds(20));
        assert_eq!(patience.pause(seconds(55), seconds(2)), seconds(5));
    }
}
