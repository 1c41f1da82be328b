//! One connection to one leader, over which all partitions are fetched that it leads: which ones to ask for now, what the
//! leader's fetch session knows of them already (KIP-227), and what to do with each answer.
//!
//! ```text
//! follow ─► ready ─ next_ask ─► asked ─ take ─► Append, Truncate ─ moved ─► ready
//!             ▲                   │ an error of this partition
//!             └── after a pause ◄─┘ (fenced: until the image shows another epoch)
//! ```
//! A session saves naming every partition in every fetch: only what changed is said. When the leader does not know it any
//! more, or the connection broke, the next fetch names everything and asks for a new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use varve_metadata::model::{HighWatermark, LeaderEpoch, LogStartOffset, Offset, PartitionId};

use crate::follower::{Position, is_current};

/// What is asked of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The epoch in which its leader leads, as the follower's image shows it.
    pub epoch: LeaderEpoch,
    /// Where the follower's log goes on.
    pub position: Position,
    /// Where it starts: the leader knows from it what every replica has deleted.
    pub log_start: LogStartOffset,
}

/// A leader's session, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// Everything is named, and a session asked for.
    New {
        /// The one before, which the leader can end if it has it still; 0: there is none.
        ends: i32,
    },
    /// The session of that number; this is its so-and-so-many-th fetch.
    Known {
        /// As the leader gave it.
        id: i32,
        /// 1 for the first fetch after the one that made it.
        epoch: i32,
    },
}

/// One fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its session.
    pub session: Session,
    /// Partitions that are new to the session, or stand elsewhere than in the fetch before.
    pub named: Vec<(PartitionId, Wanted)>,
    /// Partitions that are not wanted any more.
    pub forgotten: Vec<PartitionId>,
}

/// What the leader says of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionAnswer<R> {
    /// The next records, if there are any.
    Records {
        /// Whole batches.
        records: R,
        /// What is committed.
        high_watermark: HighWatermark,
        /// The leader's log start.
        log_start: LogStartOffset,
    },
    /// The logs parted: what the leader has of the epoch asked for, or of the largest before it, ends here.
    Diverged {
        /// That epoch.
        epoch: LeaderEpoch,
        /// Its end.
        end: Offset,
    },
    /// Nothing was read.
    Failed(Fault),
}

/// Why nothing was read, by what a follower does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The leader leads in a later epoch, or not at all: the image will show it (FENCED_LEADER_EPOCH,
    /// NOT_LEADER_OR_FOLLOWER).
    Fenced,
    /// The leader has not heard of this epoch yet, or of this replica (UNKNOWN_LEADER_EPOCH).
    NotYet,
    /// The position lies outside of the leader's log (OFFSET_OUT_OF_RANGE).
    OutOfRange,
    /// What comes next is in the archive only (OFFSET_MOVED_TO_TIERED_STORAGE).
    Tiered,
    /// Anything else: a failed disk, a damaged batch, a version that does not fit.
    Other,
}

/// What to do with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<R> {
    /// Append the records, then take over what is committed and where the log starts; then [`Fetcher::moved`].
    Append {
        /// Whole batches; may be empty.
        records: R,
        /// Committed, as far as the log goes.
        high_watermark: HighWatermark,
        /// The leader's log start.
        log_start: LogStartOffset,
    },
    /// Cut the log by [`truncation`](crate::follower::truncation); then [`Fetcher::moved`].
    Truncate {
        /// Of the leader's answer.
        epoch: LeaderEpoch,
        /// Of the leader's answer.
        end: Offset,
    },
    /// Ask the leader where its log, or its local part, begins, and start there; then [`Fetcher::moved`].
    StartOver {
        /// The offsets before the leader's local log are in the archive.
        is_tiered: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// A step is being done, or the image has to show another epoch.
    Held,
    /// Not before then.
    Paused(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Following {
    wanted: Wanted,
    state: State,
}

/// The partitions that are fetched over one connection, and the session on it. What a fetch costs depends on what changed since the
/// one before, not on how many are followed.
#[derive(Debug)]
pub struct Fetcher {
    partitions: BTreeMap<PartitionId, Following>,
    session: Session,
    /// What the leader's session holds: all that the fetch under way asks for.
    told: BTreeMap<PartitionId, Wanted>,
    /// Where `told` may be another thing than what is wanted now.
    changed: BTreeSet<PartitionId>,
    /// Partitions that paused until then, and may do so still.
    paused: BTreeSet<(Duration, PartitionId)>,
    is_asking: bool,
    pause: Duration,
}

impl Fetcher {
    /// Nothing to fetch yet. `pause`: `replica.fetch.backoff.ms`.
    pub fn new(pause: Duration) -> Fetcher {
        Fetcher {
            partitions: BTreeMap::new(),
            session: Session::New { ends: 0 },
            told: BTreeMap::new(),
            changed: BTreeSet::new(),
            paused: BTreeSet::new(),
            is_asking: false,
            pause,
        }
    }

    /// Fetches the partition from now on, from where its log goes on.
    pub fn follow(&mut self, id: PartitionId, wanted: Wanted) {
        self.partitions.insert(id, Following { wanted, state: State::Ready });
        self.changed.insert(id);
    }

    /// Fetches it no more: another broker leads it, or this one, or it is gone.
    pub fn forget(&mut self, id: PartitionId) {
        self.partitions.remove(&id);
        self.changed.insert(id);
    }

    /// Whether anything is followed: else the connection can be closed.
    pub fn is_idle(&self) -> bool {
        self.partitions.is_empty()
    }

    /// The step that an answer asked for in `epoch` was done, and the log goes on here. Says nothing once another epoch is
    /// followed.
    pub fn moved(&mut self, id: PartitionId, epoch: LeaderEpoch, position: Position, log_start: LogStartOffset) {
        if let Some(following) = self.followed_in(id, epoch) {
            following.wanted = Wanted { position, log_start, ..following.wanted };
            self.put(id, State::Ready);
        }
    }

    /// The step of `epoch` could not be done, or a disk is full: tried again after a pause.
    pub fn hold_back(&mut self, id: PartitionId, epoch: LeaderEpoch, now: Duration) {
        if self.followed_in(id, epoch).is_some() {
            self.put(id, State::Paused(now + self.pause));
        }
    }

    /// Does not ask for the partition before `until`, if it would now. Whether it would.
    pub fn rest(&mut self, id: PartitionId, until: Duration) -> bool {
        let is_ready = self.partitions.get(&id).is_some_and(|following| following.state == State::Ready);
        if is_ready {
            self.put(id, State::Paused(until));
        }
        is_ready
    }

    fn followed_in(&mut self, id: PartitionId, epoch: LeaderEpoch) -> Option<&mut Following> {
        self.partitions.get_mut(&id).filter(|following| following.wanted.epoch == epoch)
    }

    fn put(&mut self, id: PartitionId, state: State) {
        let Some(following) = self.partitions.get_mut(&id) else { return };
        following.state = state;
        self.changed.insert(id);
        if let State::Paused(until) = state {
            self.paused.insert((until, id));
        }
    }

    /// The next fetch, if no other is under way and there is anything to ask for. An empty one keeps a session that stands
    /// where it stood: the leader answers when there is more.
    pub fn next_ask(&mut self, now: Duration) -> Option<Ask> {
        if self.is_asking {
            return None;
        }
        while let Some((until, id)) = self.first_paused().filter(|(until, _)| *until <= now) {
            self.paused.remove(&(until, id));
            self.put(id, State::Ready);
        }
        if matches!(self.session, Session::New { .. }) {
            self.told.clear();
            self.changed = self.partitions.keys().copied().collect();
        }
        let (mut named, mut forgotten, mut added) = (Vec::new(), Vec::new(), 0);
        for id in &self.changed {
            let ready = self.partitions.get(id).filter(|following| following.state == State::Ready);
            match (ready.map(|following| following.wanted), self.told.get(id)) {
                (Some(wanted), Some(told)) if wanted == *told => {}
                (Some(wanted), told) => {
                    added += usize::from(told.is_none());
                    named.push((*id, wanted));
                }
                (None, Some(_)) => forgotten.push(*id),
                (None, None) => {}
            }
        }
        // Nothing is said where nothing is left to ask for: the session has to be told later.
        if self.told.len() + added == forgotten.len() {
            return None;
        }
        self.changed.clear();
        self.told.extend(named.iter().copied());
        for id in &forgotten {
            self.told.remove(id);
        }
        self.is_asking = true;
        Some(Ask { session: self.session, named, forgotten })
    }

    /// When a paused partition may be asked for again, if any is paused: [`next_ask`](Self::next_ask) gives it then.
    pub fn wakes(&mut self) -> Option<Duration> {
        self.first_paused().map(|(until, _)| until)
    }

    fn first_paused(&mut self) -> Option<(Duration, PartitionId)> {
        while let Some(&(until, id)) = self.paused.first() {
            if self.partitions.get(&id).is_some_and(|following| following.state == State::Paused(until)) {
                return Some((until, id));
            }
            self.paused.remove(&(until, id));
        }
        None
    }

    /// Takes the answer to the fetch under way. `session` is the number that the leader gave, 0 for none. Each step comes with
    /// what was asked: it is to be done only in that epoch, and where the log still stands there.
    pub fn take<R>(
        &mut self,
        session: i32,
        answers: Vec<(PartitionId, PartitionAnswer<R>)>,
        now: Duration,
    ) -> Vec<(PartitionId, Wanted, Step<R>)> {
        if !std::mem::take(&mut self.is_asking) {
            return Vec::new();
        }
        self.session = match (session, self.session) {
            (0, _) => Session::New { ends: 0 },
            (id, Session::Known { id: known, epoch }) if id == known => Session::Known { id, epoch: next_epoch(epoch) },
            (id, _) => Session::Known { id, epoch: 1 },
        };
        let mut steps = Vec::with_capacity(answers.len());
        let mut seen: BTreeSet<PartitionId> = BTreeSet::new();
        for (id, answer) in answers {
            let Some(&asked) = self.told.get(&id).filter(|_| seen.insert(id)) else { continue };
            let Some(following) = self.partitions.get(&id) else { continue };
            // Taken up anew since, or cut: the answer is about a log that is none any more.
            let stands = (following.wanted.epoch, following.wanted.position);
            if !is_current((asked.epoch, asked.position), stands) || following.state != State::Ready {
                continue;
            }
            let mut state = State::Held;
            match answer {
                PartitionAnswer::Records { records, high_watermark, log_start } => {
                    steps.push((id, asked, Step::Append { records, high_watermark, log_start }));
                }
                PartitionAnswer::Diverged { epoch, end } => steps.push((id, asked, Step::Truncate { epoch, end })),
                PartitionAnswer::Failed(Fault::OutOfRange) => {
                    steps.push((id, asked, Step::StartOver { is_tiered: false }))
                }
                PartitionAnswer::Failed(Fault::Tiered) => steps.push((id, asked, Step::StartOver { is_tiered: true })),
                // Until `follow` is called with what the image shows.
                PartitionAnswer::Failed(Fault::Fenced) => {}
                // One of the two hears of the new leader within moments.
                PartitionAnswer::Failed(Fault::NotYet) => state = State::Paused(now + self.pause / 10),
                PartitionAnswer::Failed(Fault::Other) => state = State::Paused(now + self.pause),
            }
            self.put(id, state);
        }
        steps
    }

    /// The connection broke, the leader refused the fetch as a whole, or did not know the session: everything is named anew
    /// next time. `pauses`: not before `replica.fetch.backoff.ms` have passed.
    pub fn broken(&mut self, now: Duration, pauses: bool) {
        self.is_asking = false;
        self.session = match self.session {
            Session::Known { id, .. } => Session::New { ends: id },
            before @ Session::New { .. } => before,
        };
        if pauses {
            let ready = self.partitions.iter().filter(|(_, following)| following.state == State::Ready);
            let ready: Vec<PartitionId> = ready.map(|(id, _)| *id).collect();
            ready.into_iter().for_each(|id| self.put(id, State::Paused(now + self.pause)));
        }
    }
}

/// Kafka's: from the largest number back to 1, because 0 asks for a new session.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::{PartitionIndex, TopicId};

    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);
    const NOW: Duration = Duration::from_secs(100);

    fn ids(count: u32) -> Vec<PartitionId> {
        let topic = TopicId::random();
        (0..count).map(|index| PartitionId { topic, index: PartitionIndex(index) }).collect()
    }

    fn at(offset: u64) -> Position {
        Position { from: Offset::new(offset).unwrap(), last_epoch: Some(LeaderEpoch(1)) }
    }

    fn wanted(epoch: u32, offset: u64) -> Wanted {
        Wanted { epoch: LeaderEpoch(epoch), position: at(offset), log_start: LogStartOffset(Offset::ZERO) }
    }

    fn records(records: &'static str) -> PartitionAnswer<&'static str> {
        let (high_watermark, log_start) = (HighWatermark(Offset::ZERO), LogStartOffset(Offset::ZERO));
        PartitionAnswer::Records { records, high_watermark, log_start }
    }

    fn following(ids: &[PartitionId]) -> Fetcher {
        let mut fetcher = Fetcher::new(PAUSE);
        ids.iter().for_each(|id| fetcher.follow(*id, wanted(1, 0)));
        fetcher
    }

    #[test]
    fn a_partition_rests_and_the_others_are_fetched_meanwhile() {
        let ids = ids(2);
        let mut fetcher = following(&ids);
        assert!(fetcher.rest(ids[0], NOW + PAUSE));
        assert!(!fetcher.rest(ids[0], NOW + 2 * PAUSE), "it rests already");
        let named = |ask: Ask| ask.named.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(named(fetcher.next_ask(NOW).unwrap()), [ids[1]]);
        assert_eq!(fetcher.wakes(), Some(NOW + PAUSE));
        fetcher.take::<&str>(0, vec![], NOW);
        assert_eq!(named(fetcher.next_ask(NOW + PAUSE).unwrap()).len(), 2);
    }

    #[test]
    fn a_session_is_told_only_what_changed() {
        let ids = ids(3);
        let mut fetcher = following(&ids);
        let first = fetcher.next_ask(NOW).unwrap();
        assert_eq!((first.session, first.named.len()), (Session::New { ends: 0 }, 3));
        assert_eq!(fetcher.next_ask(NOW), None, "one at a time");
        let steps = fetcher.take(7, vec![(ids[1], records("abc"))], NOW);
        assert!(
            matches!(steps.as_slice(), [(id, asked, Step::Append { records: "abc", .. })] if (*id, *asked) == (ids[1], wanted(1, 0)))
        );
        // While its records are appended, the others are waited for.
        let second = fetcher.next_ask(NOW).unwrap();
        assert_eq!((second.session, second.named.len()), (Session::Known { id: 7, epoch: 1 }, 0));
        assert_eq!(second.forgotten, [ids[1]]);
        fetcher.moved(ids[1], LeaderEpoch(1), at(3), LogStartOffset(Offset::ZERO));
        fetcher.forget(ids[2]);
        fetcher.take::<&str>(7, vec![], NOW);
        let third = fetcher.next_ask(NOW).unwrap();
        assert_eq!((third.session, third.forgotten), (Session::Known { id: 7, epoch: 2 }, vec![ids[2]]));
        assert_eq!(third.named, [(ids[1], wanted(1, 3))]);
    }

    #[test]
    fn a_session_that_the_leader_lost_is_begun_anew() {
        let ids = ids(2);
        let mut fetcher = following(&ids);
        fetcher.next_ask(NOW);
        fetcher.take::<&str>(7, vec![], NOW);
        fetcher.next_ask(NOW);
        fetcher.broken(NOW, true);
        assert_eq!((fetcher.next_ask(NOW), fetcher.wakes()), (None, Some(NOW + PAUSE)));
        let again = fetcher.next_ask(NOW + PAUSE).unwrap();
        assert_eq!((again.session, again.named.len()), (Session::New { ends: 7 }, 2));
    }

    #[test]
    fn an_answer_about_a_log_that_is_none_any_more_is_dropped() {
        let ids = ids(2);
        let mut fetcher = following(&ids);
        fetcher.next_ask(NOW);
        fetcher.follow(ids[0], wanted(2, 0));
        fetcher.forget(ids[1]);
        let late = vec![(ids[0], records("late")), (ids[1], records("late"))];
        assert_eq!(fetcher.take(7, late, NOW), []);
    }

    #[test]
    fn a_step_that_ends_in_a_later_epoch_changes_nothing() {
        let ids = ids(1);
        let mut fetcher = following(&ids);
        fetcher.next_ask(NOW);
        let diverged = PartitionAnswer::Diverged::<&str> { epoch: LeaderEpoch(0), end: at(0).from };
        assert_eq!(fetcher.take(7, vec![(ids[0], diverged.clone())], NOW).len(), 1);
        fetcher.follow(ids[0], wanted(2, 5));
        fetcher.next_ask(NOW).unwrap();
        assert_eq!(fetcher.take(7, vec![(ids[0], diverged)], NOW).len(), 1);
        // The first of the two is done only now: the second still is not.
        fetcher.moved(ids[0], LeaderEpoch(1), at(0), LogStartOffset(Offset::ZERO));
        fetcher.hold_back(ids[0], LeaderEpoch(1), NOW);
        assert_eq!((fetcher.next_ask(NOW + PAUSE), fetcher.wakes()), (None, None));
        fetcher.moved(ids[0], LeaderEpoch(2), at(3), LogStartOffset(Offset::ZERO));
        assert_eq!(fetcher.next_ask(NOW).unwrap().named, [(ids[0], wanted(2, 3))]);
    }

    #[test]
    fn each_fault_is_met_as_it_asks_for() {
        let ids = ids(5);
        let mut fetcher = following(&ids);
        fetcher.next_ask(NOW);
        let faults = [Fault::Fenced, Fault::NotYet, Fault::OutOfRange, Fault::Tiered, Fault::Other];
        let answers = ids.iter().zip(faults).map(|(id, fault)| (*id, PartitionAnswer::<&str>::Failed(fault)));
        let steps = fetcher.take(7, answers.collect(), NOW);
        let over = |is_tiered| Step::StartOver { is_tiered };
        assert_eq!(steps, [(ids[2], wanted(1, 0), over(false)), (ids[3], wanted(1, 0), over(true))]);
        assert_eq!(fetcher.next_ask(NOW), None, "nobody is ready");
        let later = fetcher.next_ask(NOW + PAUSE).unwrap();
        let named: Vec<PartitionId> = later.named.iter().map(|(id, _)| *id).collect();
        assert_eq!((named, later.forgotten.len()), (Vec::new(), 3), "the session has those two where they stand");
        fetcher.take::<&str>(7, vec![], NOW);
        fetcher.follow(ids[0], wanted(2, 0));
        fetcher.moved(ids[2], LeaderEpoch(1), at(50), LogStartOffset(Offset::ZERO));
        let named: Vec<PartitionId> = fetcher.next_ask(NOW + PAUSE).unwrap().named.iter().map(|(id, _)| *id).collect();
        assert_eq!(named, [ids[0], ids[2]]);
    }

    /// A leader's session as KIP-227 describes it, which must always hold exactly what the fetcher wants.
    #[test]
    fn the_leaders_session_holds_what_is_wanted_whatever_happens() {
        let ids = ids(6);
        for seed in 0..300_u64 {
            let mut fetcher = Fetcher::new(PAUSE);
            let mut chance = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut draw = |limit: u64| {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                chance % limit
            };
            let mut session: BTreeMap<PartitionId, Wanted> = BTreeMap::new();
            let (mut number, mut expected, mut now) = (0, 0, NOW);
            for _ in 0..60 {
                let id = ids[draw(6) as usize];
                match draw(6) {
                    0 => fetcher.follow(id, wanted(draw(3) as u32, draw(9))),
                    1 => fetcher.forget(id),
                    2 => fetcher.moved(id, LeaderEpoch(draw(3) as u32), at(draw(9)), LogStartOffset(Offset::ZERO)),
                    3 => fetcher.hold_back(id, LeaderEpoch(draw(3) as u32), now),
                    4 => now += PAUSE / 2,
                    _ => {}
                }
                let Some(ask) = fetcher.next_ask(now) else { continue };
                match ask.session {
                    Session::New { .. } => {
                        session.clear();
                        (number, expected) = (number + 1, 1);
                    }
                    Session::Known { id, epoch } => {
                        assert_eq!((id, epoch), (number, expected));
                        expected += 1;
                    }
                }
                ask.forgotten.iter().for_each(|id| assert!(session.remove(id).is_some()));
                session.extend(ask.named);
                let ready = |following: &&Following| following.state == State::Ready;
                let wanted: Vec<Wanted> =
                    fetcher.partitions.values().filter(ready).map(|following| following.wanted).collect();
                assert_eq!(session.values().copied().collect::<Vec<_>>(), wanted, "seed {seed}");
                match draw(5) {
                    0 => fetcher.broken(now, draw(2) == 0),
                    1 => drop(fetcher.take::<&str>(0, vec![], now)),
                    _ => {
                        let answer = PartitionAnswer::Failed(Fault::Other);
                        let answers = session.keys().filter(|_| draw(2) == 0).map(|id| (*id, answer.clone()));
                        drop(fetcher.take::<&str>(number, answers.collect(), now));
                    }
                }
            }
        }
    }
}
