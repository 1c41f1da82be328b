//! One rule each, with its numbers.

use std::time::Duration;

use varve_metadata::model::Offset;

use super::*;
use crate::coordinator::{
    RequestId,
    share_state::{DeliveryState, StateBatch},
};

const SECOND: Duration = Duration::from_secs(1);
const LOCK: Duration = Duration::from_secs(30);

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

fn terms() -> ShareTerms {
    ShareTerms { lock_duration: LOCK, max_deliveries: 5, max_in_flight: 200, allows_renewal: true }
}

fn batch(first: u64, last: u64, state: DeliveryState, deliveries: u16) -> StateBatch {
    StateBatch { first: offset(first), last: offset(last), state, deliveries }
}

/// A partition at hand, whose writes wait to be reported.
struct World {
    share: SharePartition,
    now: Duration,
    writes: Vec<(WriteId, StateWrite)>,
    answers: Vec<(RequestId, Result<(), AcknowledgeError>)>,
    has_more: bool,
}

impl World {
    fn new() -> World {
        World::loaded(0, &[])
    }

    fn loaded(start: u64, batches: &[StateBatch]) -> World {
        let kept = PersistedState { start: offset(start), batches: batches.to_vec() };
        let share = SharePartition::load(&kept, terms()).unwrap();
        World { share, now: Duration::ZERO, writes: Vec::new(), answers: Vec::new(), has_more: false }
    }

    fn step(&mut self, step: impl FnOnce(&mut SharePartition, Duration, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        step(&mut self.share, self.now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Write { id, state } => self.writes.push((id, state)),
                Effect::Answer { request, outcome } => self.answers.push((request, outcome)),
                Effect::Wake => self.has_more = true,
            }
        }
    }

    /// Acquires of batches `(first, last)`; `(first, last, deliveries)` of what came of it.
    fn acquire(&mut self, member: &str, most: u64, batches: &[(u64, u64)]) -> Vec<(u64, u64, u16)> {
        self.acquire_as(member, most, false, &[], batches)
    }

    fn acquire_as(
        &mut self,
        member: &str,
        most: u64,
        is_strict: bool,
        hidden: &[(u64, u64)],
        batches: &[(u64, u64)],
    ) -> Vec<(u64, u64, u16)> {
        let want = Want { member: member.into(), max_records: most, batch_size: 100, is_strict };
        let range = |(first, last): &(u64, u64)| (offset(*first), offset(*last));
        let fetched = Fetched {
            from: self.share.next_fetch().map_or(self.share.end(), |next| next.from),
            batches: batches.iter().map(range).collect(),
            hidden: hidden.iter().map(range).collect(),
        };
        let acquired = self.share.acquire(self.now, &want, &fetched);
        acquired.iter().map(|one| (one.first.get(), one.last.get(), one.deliveries)).collect()
    }

    fn say(&mut self, member: &str, first: u64, last: u64, words: &[Settle]) -> Option<Result<(), AcknowledgeError>> {
        let said = Acknowledgement { first: offset(first), last: offset(last), words: words.to_vec() };
        self.step(|share, now, effects| share.acknowledge(now, RequestId(1), member, &[said], effects));
        self.answers.pop().map(|(_, outcome)| outcome)
    }

    fn report(&mut self, outcome: Result<(), AcknowledgeError>) -> Option<Result<(), AcknowledgeError>> {
        let (id, _) = self.writes.remove(0);
        self.step(|share, now, effects| share.written(now, id, outcome, effects));
        self.answers.pop().map(|(_, outcome)| outcome)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(SharePartition::tick);
    }

    fn next(&self) -> Option<u64> {
        self.share.next_fetch().map(|next| next.from.get())
    }

    fn flight(&self) -> (u64, u64) {
        (self.share.start().get(), self.share.end().get())
    }
}

#[test]
fn what_one_member_has_no_other_gets_and_what_is_accepted_is_done_with() {
    let mut world = World::new();
    assert_eq!(world.acquire("a", 10, &[(0, 4), (5, 9)]), [(0, 9, 1)]);
    assert_eq!(world.acquire("b", 10, &[(0, 4), (5, 9)]), []);
    assert_eq!(world.next(), Some(10));
    assert_eq!(world.say("b", 0, 9, &[Settle::Accept]), Some(Err(AcknowledgeError::RecordState)));
    assert_eq!(world.say("a", 0, 9, &[Settle::Accept]), None, "not before it is kept");
    let kept = StateWrite { start: offset(0), settled: 10, batches: vec![batch(0, 9, DeliveryState::Acknowledged, 1)] };
    assert_eq!(world.writes[0].1, kept);
    assert_eq!((world.flight(), world.report(Ok(()))), ((0, 10), Some(Ok(()))));
    assert_eq!(world.flight(), (10, 10));
}

#[test]
fn what_is_released_goes_to_another_and_what_is_rejected_to_nobody() {
    let mut world = World::new();
    world.acquire("a", 10, &[(0, 9)]);
    let words = [Settle::Accept, Settle::Release, Settle::Reject, Settle::Gap];
    assert_eq!(world.say("a", 0, 3, &words), None);
    assert_eq!(world.say("a", 0, 0, &[Settle::Accept]), Some(Err(AcknowledgeError::RecordState)), "said before");
    assert_eq!(world.next(), Some(10), "nothing is available before it is kept");
    world.report(Ok(()));
    assert!(world.has_more);
    assert_eq!((world.flight(), world.next()), ((1, 10), Some(1)));
    assert_eq!(world.acquire("b", 10, &[(0, 9)]), [(1, 1, 2)]);
}

#[test]
fn a_word_that_could_not_be_kept_is_forgotten() {
    let mut world = World::new();
    world.acquire("a", 10, &[(0, 9)]);
    world.say("a", 0, 9, &[Settle::Accept]);
    assert_eq!(world.report(Err(AcknowledgeError::NotKept)), Some(Err(AcknowledgeError::NotKept)));
    assert_eq!(world.say("a", 0, 9, &[Settle::Accept]), None, "the member has them still");
    world.now += LOCK;
    world.report(Err(AcknowledgeError::NotKept));
    assert_eq!(world.acquire("b", 10, &[(0, 9)]), [(0, 9, 2)], "unless its time is up");
}

#[test]
fn a_lock_that_runs_out_makes_records_available_until_they_were_delivered_too_often() {
    let mut world = World::new();
    world.acquire("a", 1, &[(0, 0)]);
    for deliveries in 2..=5 {
        world.pass(LOCK - SECOND);
        assert_eq!(world.acquire("b", 1, &[(0, 0)]), []);
        world.pass(SECOND);
        assert_eq!(world.writes.pop().unwrap().1.batches, [batch(0, 0, DeliveryState::Available, deliveries - 1)]);
        assert_eq!(world.acquire("b", 1, &[(0, 0)]), [(0, 0, deliveries)]);
    }
    world.pass(LOCK);
    assert_eq!(world.writes.pop().unwrap().1.batches, [batch(0, 0, DeliveryState::Archived, 5)]);
    assert_eq!(world.flight(), (1, 1));
}

#[test]
fn a_member_may_ask_for_more_time() {
    let mut world = World::new();
    world.acquire("a", 10, &[(0, 9)]);
    world.pass(LOCK - SECOND);
    assert_eq!(world.say("a", 0, 4, &[Settle::Renew]), Some(Ok(())), "that need not be kept");
    world.pass(SECOND);
    assert_eq!(world.acquire("b", 10, &[(0, 9)]), [(5, 9, 2)]);
    world.share.set_terms(ShareTerms { allows_renewal: false, ..terms() });
    assert_eq!(world.say("a", 0, 4, &[Settle::Renew]), Some(Err(AcknowledgeError::RecordState)));
}

#[test]
fn what_a_member_that_is_gone_had_goes_to_others() {
    let mut world = World::new();
    world.acquire("a", 5, &[(0, 4)]);
    world.acquire("b", 5, &[(5, 9)]);
    world.step(|share, _, effects| share.release("a", effects));
    assert_eq!(world.writes[0].1.batches, [batch(0, 4, DeliveryState::Available, 1)]);
    world.report(Ok(()));
    assert_eq!(world.acquire("c", 10, &[(0, 9)]), [(0, 4, 2)]);
}

#[test]
fn a_word_about_what_was_never_given_out_is_invalid() {
    let mut world = World::new();
    world.acquire("a", 10, &[(0, 9)]);
    let invalid = Some(Err(AcknowledgeError::Invalid));
    assert_eq!(world.say("a", 5, 10, &[Settle::Accept]), invalid);
    assert_eq!(world.say("a", 5, 4, &[Settle::Accept]), invalid);
    assert_eq!(world.say("a", 0, 9, &[Settle::Accept, Settle::Release]), invalid);
    let twice = [(0, 5), (5, 9)].map(|(first, last)| Acknowledgement {
        first: offset(first),
        last: offset(last),
        words: vec![Settle::Accept],
    });
    world.step(|share, now, effects| share.acknowledge(now, RequestId(1), "a", &twice, effects));
    assert_eq!(world.answers.pop().unwrap().1, Err(AcknowledgeError::RecordState));
    assert_eq!(world.writes, [], "all or nothing");
}

#[test]
fn only_so_many_records_are_in_flight() {
    let mut world = World::new();
    world.share.set_terms(ShareTerms { max_in_flight: 10, ..terms() });
    assert_eq!(world.acquire("a", 100, &[(0, 4), (5, 14), (15, 19)]), [(0, 14, 1)], "batches are whole");
    assert_eq!((world.next(), world.flight()), (None, (0, 15)));
    world.say("a", 7, 7, &[Settle::Release]);
    world.report(Ok(()));
    assert_eq!(world.next(), Some(7));
    assert_eq!(world.acquire("b", 100, &[(5, 14), (15, 19)]), [(7, 7, 2)]);
}

#[test]
fn a_strict_limit_splits_batches() {
    let mut world = World::new();
    assert_eq!(world.acquire_as("a", 3, true, &[], &[(0, 4), (5, 9)]), [(0, 2, 1)]);
    assert_eq!(world.next(), Some(3));
    assert_eq!(world.acquire_as("b", 3, true, &[], &[(0, 4), (5, 9)]), [(3, 5, 1)]);
}

#[test]
fn records_that_failed_often_go_out_in_ever_smaller_parts() {
    let mut world = World::loaded(0, &[batch(0, 99, DeliveryState::Available, 3)]);
    assert_eq!(world.acquire("a", 100, &[(0, 99)]), [(0, 49, 4)], "half of them");
    world.pass(LOCK);
    assert_eq!(world.acquire("b", 100, &[(0, 99)]), [(0, 0, 5)], "alone, for the last time");
    assert_eq!(world.acquire("c", 100, &[(0, 99)]), [(1, 1, 5)]);
}

#[test]
fn what_the_log_does_not_have_any_more_holds_nobody_up() {
    let mut world = World::new();
    assert_eq!(world.acquire("a", 10, &[(3, 4), (7, 9)]), [(3, 4, 1), (7, 9, 1)], "compacted");
    assert_eq!(world.flight(), (3, 10));
    world.say("a", 3, 4, &[Settle::Release]);
    world.report(Ok(()));
    // Meanwhile those were compacted away too.
    assert_eq!(world.acquire("b", 10, &[(10, 11)]), [(10, 11, 1)]);
    assert_eq!(world.flight(), (7, 12));
    world.step(|share, _, effects| share.log_start_moved(offset(8), effects));
    assert_eq!(world.flight(), (8, 12));
    assert_eq!(world.say("a", 7, 9, &[Settle::Accept]), None);
    assert_eq!(world.writes[0].1.batches, [batch(8, 9, DeliveryState::Acknowledged, 1)]);
    world.step(|share, _, effects| share.log_start_moved(offset(20), effects));
    assert_eq!((world.flight(), world.report(Ok(()))), ((20, 20), Some(Ok(()))));
}

#[test]
fn records_of_aborted_transactions_are_passed_over() {
    let mut world = World::new();
    assert_eq!(world.acquire_as("a", 10, false, &[(2, 3)], &[(0, 1), (2, 3), (4, 5)]), [(0, 1, 1), (4, 5, 1)]);
    world.say("a", 0, 1, &[Settle::Accept]);
    world.report(Ok(()));
    assert_eq!(world.flight(), (4, 6));
}

#[test]
fn after_a_restart_what_was_out_is_available_again() {
    let kept = [batch(2, 3, DeliveryState::Acknowledged, 1), batch(6, 7, DeliveryState::Available, 2)];
    let mut world = World::loaded(0, &kept);
    assert_eq!((world.flight(), world.next()), ((0, 8), Some(0)));
    assert_eq!(world.acquire("a", 10, &[(0, 7)]), [(0, 1, 1), (4, 5, 1), (6, 7, 3)]);
    assert_eq!(World::loaded(2, &kept).flight(), (4, 8), "what is done with at the front is done with");
}

#[test]
fn a_state_that_contradicts_itself_is_refused() {
    for batches in [[(0, 3), (2, 5)], [(4, 5), (0, 1)], [(0, 1), (5, 4)]] {
        let batches = batches.map(|(first, last)| batch(first, last, DeliveryState::Archived, 1));
        let kept = PersistedState { start: offset(0), batches: batches.to_vec() };
        assert!(SharePartition::load(&kept, terms()).is_err(), "{batches:?}");
    }
}
