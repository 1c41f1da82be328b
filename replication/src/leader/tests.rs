//! A leader on a bench: inputs in, effects out.

use super::*;

const LAG: Duration = Duration::from_secs(10);

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

fn ids(ids: &[u32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// A leader on broker 0 with a clock, in a cluster where everybody is in their first life.
struct Bench {
    leader: Leader,
    now: Duration,
    min_in_sync: usize,
    /// Where the leader's log starts and ends.
    start: u64,
    end: u64,
    /// The followers are about to stop.
    is_stopping: bool,
}

impl Bench {
    fn new(replicas: &[u32], isr: &[u32], end: u64) -> Bench {
        Bench::begun_at(Duration::from_secs(100), replicas, isr, end)
    }

    fn begun_at(now: Duration, replicas: &[u32], isr: &[u32], end: u64) -> Bench {
        let partition = PartitionImage {
            replicas: ids(replicas),
            isr: ids(isr),
            leader: Some(BrokerId(0)),
            ..PartitionImage::default()
        };
        let leader = Leader::new(BrokerId(0), partition, offset(end), HighWatermark(Offset::ZERO), now);
        Bench { leader, now, min_in_sync: 1, start: 0, end, is_stopping: false }
    }

    fn around<T>(&mut self, act: impl FnOnce(&mut Leader, &Surroundings<'_>) -> T) -> T {
        let registered = |_| Some(Incarnation(1));
        let active = |id| registered(id).filter(|_| !self.is_stopping);
        let around = Surroundings {
            now: self.now,
            active: &active,
            registered: &registered,
            min_in_sync: self.min_in_sync,
            lag_max: LAG,
        };
        act(&mut self.leader, &around)
    }

    fn step(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.around(|leader, around| leader.step(around, input, &mut effects));
        effects
    }

    fn low_watermark(&mut self) -> u64 {
        let start = offset(self.start);
        self.around(|leader, around| leader.low_watermark(around, start)).get()
    }

    /// The store answers what is pending.
    fn answered(&mut self, outcome: Outcome) -> Vec<Effect> {
        let base = self.leader.pending.as_ref().expect("something is pending").base;
        self.step(Input::Answered { base, outcome })
    }

    fn appended(&mut self, end: u64) -> Vec<Effect> {
        self.end = end;
        self.step(Input::Appended(offset(end)))
    }

    fn fetched(&mut self, replica: u32, end: u64) -> Vec<Effect> {
        self.fetched_in(Incarnation(1), replica, end)
    }

    fn fetched_in(&mut self, incarnation: Incarnation, replica: u32, end: u64) -> Vec<Effect> {
        self.fetched_by(incarnation, replica, 0, end)
    }

    /// A fetch of a follower whose log starts at `start`.
    fn fetched_from(&mut self, replica: u32, start: u64, end: u64) -> Vec<Effect> {
        self.fetched_by(Incarnation(1), replica, start, end)
    }

    fn fetched_by(&mut self, incarnation: Incarnation, replica: u32, start: u64, end: u64) -> Vec<Effect> {
        self.step(Input::Fetched(FollowerFetch {
            replica: BrokerId(replica),
            incarnation: Some(incarnation),
            end: offset(end),
            log_start: offset(start),
            leader_start: offset(self.start),
            leader_end: offset(self.end),
        }))
    }
}

fn committed(end: u64) -> Effect {
    Effect::AdvanceHighWatermark(HighWatermark(offset(end)))
}

fn proposed(effects: &[Effect]) -> Vec<BrokerId> {
    match effects {
        [Effect::Propose(proposal)] => proposal.next.isr.clone(),
        other => panic!("no single proposal: {other:?}"),
    }
}

#[test]
fn a_leader_alone_commits_what_it_appends() {
    let mut bench = Bench::new(&[0], &[0], 0);
    assert_eq!(bench.appended(10), [committed(10)]);
}

#[test]
fn the_high_watermark_waits_for_the_slowest_follower_in_sync() {
    let mut bench = Bench::new(&[0, 1, 2], &[0, 1, 2], 0);
    assert_eq!(bench.appended(10), []);
    assert_eq!(bench.fetched(1, 10), []);
    assert_eq!(bench.fetched(2, 7), [committed(7)]);
    assert_eq!(bench.fetched(2, 10), [committed(10)]);
}

/// Right after the start of its leader's process, too: never is not a time before that.
#[test]
fn a_new_replica_that_is_far_behind_holds_up_nothing_however_young_its_leader_is() {
    let mut bench = Bench::begun_at(Duration::from_secs(1), &[0, 1, 2], &[0, 1], 0);
    bench.appended(10);
    assert_eq!(bench.fetched(1, 10), [committed(10)]);
    assert_eq!(bench.fetched(2, 3), []);
    bench.appended(20);
    assert_eq!(bench.fetched(1, 20), [committed(20)]);
}

#[test]
fn a_laggard_leaves_once_the_store_has_said_so_and_not_before() {
    let mut bench = Bench::new(&[0, 1, 2], &[0, 1, 2], 0);
    bench.appended(10);
    bench.fetched(1, 10);
    bench.now += LAG + Duration::from_millis(1);
    bench.fetched(1, 10);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0, 1]));
    assert_eq!(bench.step(Input::Tick), [], "one proposal at a time");
    assert_eq!(bench.answered(Outcome::Taken), [committed(10)]);
    assert_eq!(bench.leader.partition().partition_epoch, 1);
}

#[test]
fn a_proposal_without_an_answer_is_made_again_and_counts_meanwhile() {
    let mut bench = Bench::new(&[0, 1], &[0], 0);
    bench.min_in_sync = 1;
    assert_eq!(proposed(&bench.fetched(1, 0)), ids(&[0, 1]));
    assert_eq!(bench.appended(5), [], "1 may be in the ISR by now");
    assert_eq!(bench.answered(Outcome::Unknown), []);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0, 1]));
    assert_eq!(bench.answered(Outcome::Overtaken), []);
    bench.now += 3 * LAG;
    assert_eq!(bench.step(Input::Tick), [], "still not known");
    let shown = PartitionImage { partition_epoch: 1, ..bench.leader.partition().clone() };
    assert_eq!(bench.step(Input::Shown(&shown)), [committed(5)]);
}

#[test]
fn a_refused_proposal_is_made_again_when_time_has_passed_and_not_with_every_fetch() {
    let mut bench = Bench::new(&[0, 1], &[0], 0);
    assert_eq!(proposed(&bench.fetched(1, 0)), ids(&[0, 1]));
    assert_eq!(bench.answered(Outcome::Refused), []);
    assert_eq!(bench.fetched(1, 0), []);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0, 1]));
}

/// The image may be quicker than the answer, and time passes between them.
#[test]
fn an_answer_is_for_the_proposal_that_was_put_and_for_no_later_one() {
    let mut bench = Bench::new(&[0, 1], &[0], 0);
    let effects = bench.fetched(1, 0);
    let [Effect::Propose(joining)] = &effects[..] else { panic!("{effects:?}") };
    bench.step(Input::Shown(&joining.next));
    bench.appended(5);
    bench.now += LAG + Duration::from_millis(1);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0]), "1 is slow");
    let late = Input::Answered { base: joining.base, outcome: Outcome::Taken };
    assert_eq!(bench.step(late), [], "1 is in the ISR still");
    assert_eq!(bench.leader.partition().isr, ids(&[0, 1]));
    assert_eq!(bench.answered(Outcome::Taken), [committed(5)]);
}

#[test]
fn what_was_not_sent_is_refused_only_if_nothing_was_sent_before() {
    let mut bench = Bench::new(&[0, 1], &[0], 0);
    bench.fetched(1, 0);
    bench.answered(Outcome::Unsent);
    assert_eq!(bench.leader.pending, None);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0, 1]));
    bench.answered(Outcome::Unknown);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0, 1]));
    bench.answered(Outcome::Unsent);
    assert_eq!(bench.appended(5), [], "the attempt before may be under way still");
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0, 1]));
    bench.answered(Outcome::Refused);
    assert_eq!(bench.leader.pending, None);
}

#[test]
fn a_replica_that_is_added_does_not_raise_the_minimum() {
    let mut bench = Bench::new(&[0], &[0], 0);
    bench.min_in_sync = 2;
    let now = bench.leader.partition().clone();
    let moving =
        PartitionImage { replicas: ids(&[1, 0]), adding: ids(&[1]), removing: ids(&[0]), partition_epoch: 1, ..now };
    bench.step(Input::Shown(&moving));
    assert_eq!(bench.leader.check_append(2), Ok(()));
    assert_eq!(bench.appended(5), [committed(5)]);
}

#[test]
fn a_follower_joins_with_all_that_earlier_leaders_may_have_committed() {
    // The log goes to 8; what of it was committed the new leader does not know.
    let mut bench = Bench::new(&[0, 1], &[0], 8);
    bench.min_in_sync = 2;
    assert_eq!(bench.fetched(1, 7), []);
    assert_eq!(proposed(&bench.fetched(1, 8)), ids(&[0, 1]));
    assert_eq!(bench.answered(Outcome::Taken), [committed(8)]);
}

#[test]
fn a_restarted_follower_does_not_count_with_what_it_had() {
    let mut bench = Bench::new(&[0, 1], &[0, 1], 0);
    bench.appended(10);
    assert_eq!(bench.fetched_in(Incarnation(2), 1, 10), [], "the image does not know that life");
    assert_eq!(bench.fetched(1, 10), [committed(10)]);
}

#[test]
fn a_follower_that_is_about_to_stop_counts_with_what_it_has_and_does_not_join() {
    let mut bench = Bench::new(&[0, 1], &[0, 1], 0);
    bench.is_stopping = true;
    assert_eq!(bench.appended(10), []);
    assert_eq!(bench.fetched(1, 10), [committed(10)], "nobody may be there who takes it out of the ISR");
    let mut bench = Bench::new(&[0, 1], &[0], 0);
    bench.is_stopping = true;
    assert_eq!(bench.fetched(1, 0), []);
}

#[test]
fn below_the_minimum_nothing_is_committed_or_accepted() {
    let mut bench = Bench::new(&[0, 1, 2], &[0, 1], 0);
    bench.min_in_sync = 2;
    assert_eq!(bench.leader.check_append(2), Ok(()));
    bench.appended(4);
    bench.now += LAG + Duration::from_millis(1);
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0]));
    assert_eq!(bench.answered(Outcome::Taken), []);
    assert_eq!(bench.leader.partition().elr, ids(&[1]));
    assert_eq!(bench.leader.check_append(2), Err(AckError { in_sync: 1, required: 2 }));
    // Lowered to 1, the minimum lets the leader go on alone: once nobody else is eligible any more.
    bench.min_in_sync = 1;
    assert_eq!(proposed(&bench.step(Input::Tick)), ids(&[0]));
    assert_eq!(bench.answered(Outcome::Taken), [committed(4)]);
    assert_eq!(bench.leader.partition().elr, ids(&[]));
}

#[test]
fn a_state_of_another_epoch_or_an_older_one_changes_nothing() {
    let mut bench = Bench::new(&[0, 1], &[0, 1], 0);
    let before = bench.leader.clone();
    let other = PartitionImage { leader_epoch: LeaderEpoch(1), partition_epoch: 9, ..before.partition().clone() };
    bench.step(Input::Shown(&other));
    assert_eq!(bench.leader, before);
}

#[test]
fn a_follower_whose_directory_failed_holds_up_nothing_and_does_not_join_by_what_it_had_fetched() {
    let mut bench = Bench::new(&[0, 1, 2], &[0, 1, 2], 0);
    bench.appended(10);
    assert_eq!(bench.fetched(1, 10), []);
    assert_eq!(bench.fetched(2, 10), [committed(10)]);
    let now = bench.leader.partition().clone();
    let failed = PartitionImage { isr: ids(&[0, 1]), offline: ids(&[2]), partition_epoch: 1, ..now };
    bench.appended(20);
    assert_eq!(bench.step(Input::Shown(&failed)), []);
    assert_eq!(bench.fetched(1, 20), [committed(20)], "it was caught up a moment ago, and is not waited for");
    assert_eq!(bench.fetched(2, 20), [], "sent before it failed");
    assert_eq!(bench.step(Input::Tick), []);
    // In its next life it catches up like any other.
    let back = PartitionImage { offline: Vec::new(), partition_epoch: 2, ..failed };
    assert_eq!(bench.step(Input::Shown(&back)), []);
    assert_eq!(proposed(&bench.fetched(2, 20)), ids(&[0, 1, 2]));
}

#[test]
fn who_may_come_to_lead_is_waited_for_until_it_has_deleted_too_whether_it_seems_to_live_or_not() {
    let mut bench = Bench::new(&[0, 1, 2], &[0, 1], 10);
    bench.start = 5;
    bench.fetched_from(1, 0, 10);
    assert_eq!(bench.low_watermark(), 0);
    bench.is_stopping = true;
    assert_eq!(bench.low_watermark(), 0, "an election may choose 1 all the same");
    bench.fetched_from(1, 5, 10);
    assert_eq!(bench.low_watermark(), 5, "2 is in no list that one is elected from");
    bench.is_stopping = false;
    assert_eq!(bench.low_watermark(), 0, "it is there, as far as is known");
}

#[test]
fn who_is_eligible_is_waited_for_as_well() {
    let mut bench = Bench::new(&[0, 1], &[0], 10);
    (bench.start, bench.is_stopping, bench.leader.partition.elr) = (5, true, ids(&[1]));
    assert_eq!(bench.low_watermark(), 0);
}

#[test]
fn a_follower_joins_once_it_has_deleted_what_the_leader_has() {
    let mut bench = Bench::new(&[0, 1], &[0], 10);
    bench.start = 5;
    assert_eq!(bench.fetched_from(1, 0, 10), [committed(10)]);
    assert_eq!(bench.step(Input::Tick), [], "it would show what was deleted");
    assert_eq!(proposed(&bench.fetched_from(1, 5, 10)), ids(&[0, 1]));
    // What is deleted while the proposal is under way counts as deleted once that one has deleted it.
    bench.start = 7;
    assert_eq!(bench.low_watermark(), 5);
}

#[test]
fn what_was_deleted_while_nobody_fetched_keeps_a_follower_out_as_well() {
    let mut bench = Bench::new(&[0, 1], &[0], 10);
    bench.is_stopping = true;
    bench.fetched_from(1, 0, 10);
    bench.start = 5;
    assert_eq!(bench.low_watermark(), 5);
    bench.is_stopping = false;
    assert_eq!(bench.step(Input::Tick), []);
    assert_eq!(proposed(&bench.fetched_from(1, 5, 10)), ids(&[0, 1]));
}
