//! Fetch sessions (KIP-227): a consumer names its partitions once, and then only what changed.

mod news;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;

use self::news::{Due, News};
use crate::{
    partition::{Partition, Replica, Waiter},
    wire::fetch_response::{PartitionAnswer, TopicKey},
};

/// The request asks for a session, or is the first of one.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// The request wants no session, and ends the one it names.
pub(crate) const FINAL_EPOCH: i32 = -1;
/// A session younger than this, or used within it, is not pushed out by another.
const PROTECTED_TIME: Duration = Duration::from_secs(120);

/// A partition as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey {
    pub(crate) topic: TopicKey,
    pub(crate) index: i32,
}

/// What a consumer wants of a partition; numbers as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) current_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    /// Where a follower's log starts.
    pub(crate) log_start: i64,
    /// The high watermark and the log start that the session's last answer told; absent outside of a session.
    pub(crate) told: Option<(i64, i64)>,
}

/// One consumer's partitions, in the order in which they get their turn.
#[derive(Debug)]
pub(crate) struct Session {
    id: i32,
    epoch: i32,
    uses_topic_ids: bool,
    created: Instant,
    last_used: Instant,
    places: HashMap<PartitionKey, u64>,
    partitions: BTreeMap<u64, Cached>,
    next_place: u64,
    /// Of a follower's.
    news: Option<News>,
}

#[derive(Debug)]
struct Cached {
    key: PartitionKey,
    wanted: Wanted,
    /// As last told to the consumer.
    high_watermark: i64,
    log_start: i64,
}

impl Cached {
    fn wanted(&self) -> (&PartitionKey, Wanted) {
        (&self.key, Wanted { told: Some((self.high_watermark, self.log_start)), ..self.wanted })
    }
}

impl Session {
    /// Its partitions and what is wanted of them.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = (&PartitionKey, Wanted)> {
        self.partitions.values().map(Cached::wanted)
    }

    /// What a fetch is to look at that names `named`, in the order in which partitions get their turn.
    fn due(&mut self, named: &Named, now: Instant) -> Named {
        let own = |(key, wanted): (&PartitionKey, Wanted)| (key.clone(), wanted);
        match self.news.as_mut().map_or(Due::All, |news| news.take_due(now)) {
            Due::All => self.partitions().map(own).collect(),
            Due::These(mut keys) => {
                keys.extend(named.iter().map(|(key, _)| key.clone()));
                self.of(keys)
            }
        }
    }

    /// Those of `keys` that it has.
    fn of(&self, keys: impl IntoIterator<Item = PartitionKey>) -> Named {
        let mut places: Vec<u64> = keys.into_iter().filter_map(|key| self.places.get(&key).copied()).collect();
        places.sort_unstable();
        let found = places.iter().filter_map(|place| self.partitions.get(place)).map(Cached::wanted);
        found.map(|(key, wanted)| (key.clone(), wanted)).collect()
    }

    fn put(&mut self, key: PartitionKey, wanted: Wanted, high_watermark: i64, log_start: i64) {
        match self.places.get(&key) {
            Some(place) => {
                if let Some(cached) = self.partitions.get_mut(place) {
                    cached.wanted = wanted;
                }
            }
            None => {
                let place = self.next_place;
                self.next_place += 1;
                self.places.insert(key.clone(), place);
                self.partitions.insert(place, Cached { key, wanted, high_watermark, log_start });
            }
        }
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(place) = self.places.remove(key) {
            self.partitions.remove(&place);
        }
        if let Some(news) = &mut self.news {
            news.forget(key);
        }
    }

    /// Whether the consumer has to be told: there are records, an error, or an offset that it does not know. Partitions
    /// with records go to the end, so that others have their turn first next time.
    fn must_tell(&mut self, key: &PartitionKey, answer: &PartitionAnswer) -> bool {
        let Some(&place) = self.places.get(key) else { return false };
        let Some(mut cached) = self.partitions.remove(&place) else { return false };
        let has_records = answer.records.len() > 0;
        let tell = has_records
            || answer.error != 0
            || answer.diverging.is_some()
            || answer.preferred.is_some()
            || cached.high_watermark != answer.high_watermark
            || cached.log_start != answer.log_start;
        // After an error the next answer without one is told again.
        cached.high_watermark = if answer.error == 0 { answer.high_watermark } else { -1 };
        cached.log_start = answer.log_start;
        let place = if has_records {
            let last = self.next_place;
            self.next_place += 1;
            self.places.insert(key.clone(), last);
            last
        } else {
            place
        };
        self.partitions.insert(place, cached);
        tell
    }
}

/// How one request is to be answered.
#[derive(Debug)]
pub(crate) enum Turn {
    /// All partitions are answered; no session.
    Sessionless,
    /// All partitions are answered, and a session is made of them.
    New,
    /// What changed is answered.
    Incremental(Arc<Mutex<Session>>, i32),
}

impl Turn {
    /// Woken by news of a follower's session, which looks at those only; `None` for all others.
    pub(crate) fn waiter(&self) -> Option<Waiter> {
        let Turn::Incremental(session, _) = self else { return None };
        session.lock().news.as_ref().map(News::waiter)
    }

    /// To be called with those of a follower's session that are looked at, before they are.
    pub(crate) fn watch<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a PartitionKey, &'a Arc<Partition>)>,
        wakes_by_commits: bool,
    ) {
        let Turn::Incremental(session, _) = self else { return };
        let mut session = session.lock();
        if let Some(news) = &mut session.news {
            partitions.for_each(|(key, partition)| news.watch(key, partition, wakes_by_commits));
        }
    }

    /// Partitions of a follower's session that had news since this was last asked.
    pub(crate) fn take_news(&self) -> Named {
        let Turn::Incremental(session, _) = self else { return Named::new() };
        let session = session.lock();
        session.news.as_ref().map_or_else(Named::new, |news| session.of(news.take()))
    }

    /// Of these a follower's session is to be told more with its next fetch.
    pub(crate) fn unfinished<'a>(&self, keys: impl Iterator<Item = &'a PartitionKey>) {
        let Turn::Incremental(session, _) = self else { return };
        let mut session = session.lock();
        if let Some(news) = &mut session.news {
            keys.for_each(|key| news.unfinished(key.clone()));
        }
    }
}

/// The partitions a request names, in order.
pub(crate) type Named = Vec<(PartitionKey, Wanted)>;

/// All sessions of this broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    sessions: Mutex<HashMap<i32, Arc<Mutex<Session>>>>,
}

impl FetchSessions {
    /// At most `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub(crate) fn new(slots: usize) -> FetchSessions {
        FetchSessions { slots, sessions: Mutex::default() }
    }

    /// Opens the turn of a request that names its session by `id` and `epoch`: keeps what it changes in the session.
    /// Returns the partitions to read, too.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR: the consumer starts a new
    /// session.
    pub(crate) fn begin(
        &self,
        (id, epoch): (i32, i32),
        uses_topic_ids: bool,
        named: Named,
        forgotten: &[PartitionKey],
        now: Instant,
    ) -> Result<(Turn, Named), ResponseError> {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            self.sessions.lock().remove(&id);
            let turn = if epoch == FINAL_EPOCH { Turn::Sessionless } else { Turn::New };
            return Ok((turn, named));
        }
        let found = self.sessions.lock().get(&id).cloned().ok_or(ResponseError::FetchSessionIdNotFound)?;
        let mut session = found.lock();
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        for (key, wanted) in &named {
            session.put(key.clone(), *wanted, -1, -1);
        }
        for key in forgotten {
            session.forget(key);
        }
        if session.partitions.is_empty() {
            drop(session);
            self.sessions.lock().remove(&id);
            return Ok((Turn::Sessionless, named));
        }
        session.last_used = now;
        session.epoch = next_epoch(epoch);
        let due = session.due(&named, now);
        let expected = session.epoch;
        drop(session);
        Ok((Turn::Incremental(found, expected), due))
    }

    /// Closes the turn: makes the session, or drops from `answers` what the consumer knows. Returns the session's id, 0
    /// for none. A session of a `follower` looks at what is new only.
    ///
    /// # Errors
    /// INVALID_FETCH_SESSION_EPOCH, with the session's id: another request of the session came in between.
    pub(crate) fn end(
        &self,
        turn: Turn,
        (uses_topic_ids, follower): (bool, Option<Replica>),
        named: &Named,
        answers: &mut Vec<(PartitionKey, PartitionAnswer)>,
        now: Instant,
    ) -> Result<i32, (i32, ResponseError)> {
        match turn {
            Turn::Sessionless => Ok(0),
            Turn::New => Ok(self.create((uses_topic_ids, follower), named, answers, now)),
            Turn::Incremental(session, expected) => {
                let mut session = session.lock();
                if session.epoch != expected {
                    return Err((session.id, ResponseError::InvalidFetchSessionEpoch));
                }
                answers.retain(|(key, answer)| session.must_tell(key, answer));
                Ok(session.id)
            }
        }
    }

    /// Closes the turn of a request whose answer is held back: the session stays as it was, and none is made. Returns as
    /// [`end`](Self::end).
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub(crate) fn end_throttled(&self, turn: Turn) -> Result<i32, (i32, ResponseError)> {
        let Turn::Incremental(session, expected) = turn else { return Ok(0) };
        let session = session.lock();
        if session.epoch == expected {
            Ok(session.id)
        } else {
            Err((session.id, ResponseError::InvalidFetchSessionEpoch))
        }
    }

    fn create(
        &self,
        (uses_topic_ids, follower): (bool, Option<Replica>),
        named: &Named,
        answers: &[(PartitionKey, PartitionAnswer)],
        now: Instant,
    ) -> i32 {
        let mut sessions = self.sessions.lock();
        if let Some(replica) = follower {
            // A follower asks all the time.
            let is_left = |session: &Session| now.saturating_duration_since(session.last_used) > PROTECTED_TIME;
            let is_over = |session: &Session| {
                session.news.as_ref().is_some_and(|news| news.is_of_earlier_life(replica) || is_left(session))
            };
            sessions.retain(|_, session| session.try_lock().is_none_or(|session| !is_over(&session)));
        }
        if sessions.len() >= self.slots && !evict(&mut sessions, named.len(), now) {
            return 0;
        }
        let id = loop {
            // Any 31 bits that are not zero: an id that one client cannot guess of another.
            let id = (uuid::Uuid::new_v4().as_u128() as u32 & i32::MAX as u32) as i32;
            if id != 0 && !sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            id,
            epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids,
            created: now,
            last_used: now,
            places: HashMap::with_capacity(named.len()),
            partitions: BTreeMap::new(),
            next_place: 0,
            // Partitions tell their news by id.
            news: follower.filter(|_| uses_topic_ids).map(News::of),
        };
        let wanted: HashMap<&PartitionKey, Wanted> = named.iter().map(|(key, wanted)| (key, *wanted)).collect();
        for (key, answer) in answers {
            if let Some(wanted) = wanted.get(key) {
                session.put(key.clone(), *wanted, answer.high_watermark, answer.log_start);
            }
        }
        sessions.insert(id, Arc::new(Mutex::new(session)));
        id
    }
}

/// Makes room for a session of `size` partitions: the one unused longest goes if it is stale; else the smallest of those
/// no longer protected, if it is smaller than the new one.
fn evict(sessions: &mut HashMap<i32, Arc<Mutex<Session>>>, size: usize, now: Instant) -> bool {
    let mut oldest: Option<(Instant, i32)> = None;
    let mut smallest: Option<(usize, i32)> = None;
    for (&id, session) in sessions.iter() {
        // A session that is in use right now stays.
        let Some(session) = session.try_lock() else { continue };
        if oldest.is_none_or(|(used, _)| session.last_used < used) {
            oldest = Some((session.last_used, id));
        }
        let is_protected = now.saturating_duration_since(session.created) <= PROTECTED_TIME;
        if !is_protected && smallest.is_none_or(|(size, _)| session.partitions.len() < size) {
            smallest = Some((session.partitions.len(), id));
        }
    }
    let stale = oldest.filter(|(used, _)| now.saturating_duration_since(*used) > PROTECTED_TIME).map(|(_, id)| id);
    let victim = stale.or_else(|| smallest.filter(|(smallest, _)| *smallest < size).map(|(_, id)| id));
    victim.is_some_and(|id| sessions.remove(&id).is_some())
}

/// Epochs count from 1 and wrap to 1.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::BrokerId;
    use varve_replication::Incarnation;

    use super::*;
    use crate::wire::fetch_response::Records;

    fn key(index: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Named("t".into()), index }
    }
    fn named(indexes: &[i32]) -> Named {
        let wanted =
            Wanted { offset: 0, max_bytes: 1000, current_epoch: -1, last_fetched_epoch: -1, log_start: -1, told: None };
        indexes.iter().map(|&index| (key(index), wanted)).collect()
    }
    fn answers(indexes: &[i32], high_watermark: i64) -> Vec<(PartitionKey, PartitionAnswer)> {
        let answer = |index| PartitionAnswer { high_watermark, log_start: 0, ..PartitionAnswer::failed(index, 0) };
        indexes.iter().map(|&index| (key(index), answer(index))).collect()
    }
    fn replica(life: u64) -> Replica {
        Replica { id: BrokerId(2), incarnation: Some(Incarnation(life)) }
    }
    fn told(answers: &[(PartitionKey, PartitionAnswer)]) -> Vec<i32> {
        answers.iter().map(|(key, _)| key.index).collect()
    }
    fn open(sessions: &FetchSessions, indexes: &[i32], now: Instant) -> i32 {
        let (turn, named) = sessions.begin((0, INITIAL_EPOCH), false, named(indexes), &[], now).unwrap();
        sessions.end(turn, (false, None), &named, &mut answers(indexes, 5), now).unwrap()
    }

    #[test]
    fn a_session_tells_only_what_changed() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, &[0, 1, 2], now);
        let (turn, all) = sessions.begin((id, 1), false, Vec::new(), &[], now).unwrap();
        assert_eq!(all.len(), 3);
        let mut seen = answers(&[0, 1, 2], 5);
        seen[1].1.high_watermark = 6;
        assert_eq!(sessions.end(turn, (false, None), &all, &mut seen, now), Ok(id));
        assert_eq!(told(&seen), [1]);
    }

    #[test]
    fn a_follower_is_answered_what_it_names_and_now_and_then_all() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let of = |index| PartitionKey { topic: TopicKey::Id(uuid::Uuid::from_u128(7)), index };
        let named = |indexes: &[i32]| -> Named {
            named(indexes).into_iter().map(|(key, wanted)| (of(key.index), wanted)).collect()
        };
        let looked_at = |at, says: &[i32], later: u64| {
            let now = now + Duration::from_millis(later);
            let (turn, due) = sessions.begin(at, true, named(says), &[], now).unwrap();
            (turn, due.iter().map(|(key, _)| key.index).collect::<Vec<_>>())
        };
        let (turn, all) = sessions.begin((0, INITIAL_EPOCH), true, named(&[0, 1, 2]), &[], now).unwrap();
        let mut first: Vec<_> =
            answers(&[0, 1, 2], 5).into_iter().map(|(key, answer)| (of(key.index), answer)).collect();
        let id = sessions.end(turn, (true, Some(replica(1))), &all, &mut first, now).unwrap();

        assert_eq!(looked_at((id, 1), &[], 0).1, [0, 1, 2]);
        let (turn, due) = looked_at((id, 2), &[2, 3], 100);
        assert_eq!(due, [2, 3]);
        turn.unfinished([of(1), of(9)].iter());
        let (turn, due) = looked_at((id, 3), &[], 200);
        assert_eq!(due, [1], "it has no 9");
        assert!(turn.waiter().is_some());
        assert_eq!(looked_at((id, 4), &[], 300).1, [0; 0]);
        assert_eq!(looked_at((id, 5), &[], 600).1, [0, 1, 2, 3]);

        // In its next life it has no use for that one.
        let (turn, all) = sessions.begin((0, INITIAL_EPOCH), true, named(&[0]), &[], now).unwrap();
        let mut first = vec![(of(0), PartitionAnswer::failed(0, 0))];
        assert!(sessions.end(turn, (true, Some(replica(2))), &all, &mut first, now).is_ok());
        let gone = sessions.begin((id, 6), true, Vec::new(), &[], now).map(|_| ());
        assert_eq!(gone, Err(ResponseError::FetchSessionIdNotFound));
    }

    #[test]
    fn an_error_is_told_and_so_is_its_end() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, &[0], now);
        for (epoch, error, expected) in [(1, 3, 1), (2, 3, 1), (3, 0, 1), (4, 0, 0)] {
            let (turn, all) = sessions.begin((id, epoch), false, Vec::new(), &[], now).unwrap();
            let mut seen = answers(&[0], 5);
            seen[0].1.error = error;
            sessions.end(turn, (false, None), &all, &mut seen, now).unwrap();
            assert_eq!(seen.len(), expected, "epoch {epoch}");
        }
    }

    #[test]
    fn a_partition_with_records_waits_for_the_others() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, &[0, 1], now);
        let (turn, all) = sessions.begin((id, 1), false, Vec::new(), &[], now).unwrap();
        let mut seen = answers(&[0, 1], 5);
        seen[0].1.records = Records::Remote(vec![bytes::Bytes::from_static(b"x")]);
        sessions.end(turn, (false, None), &all, &mut seen, now).unwrap();
        let (_, all) = sessions.begin((id, 2), false, Vec::new(), &[], now).unwrap();
        assert_eq!(all.iter().map(|(key, _)| key.index).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn wrong_ids_epochs_and_names_are_refused_as_kip_227_and_516_say() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, &[0], now);
        let begin = |at, ids| sessions.begin(at, ids, Vec::new(), &[], now).map(|_| ());
        assert_eq!(begin((id ^ 1, 1), false), Err(ResponseError::FetchSessionIdNotFound));
        assert_eq!(begin((id, 2), false), Err(ResponseError::InvalidFetchSessionEpoch));
        assert_eq!(begin((id, 1), true), Err(ResponseError::FetchSessionTopicIdError));
        assert_eq!(begin((id, 1), false), Ok(()));
    }

    #[test]
    fn a_session_whose_partitions_are_all_forgotten_ends() {
        let (sessions, now) = (FetchSessions::new(10), Instant::now());
        let id = open(&sessions, &[0], now);
        let (turn, _) = sessions.begin((id, 1), false, Vec::new(), &[key(0)], now).unwrap();
        assert!(matches!(turn, Turn::Sessionless));
        let gone = sessions.begin((id, 2), false, Vec::new(), &[], now).map(|_| ());
        assert_eq!(gone, Err(ResponseError::FetchSessionIdNotFound));
    }

    #[test]
    fn a_full_cache_gives_up_a_stale_session_or_a_smaller_one_or_none() {
        let (sessions, start) = (FetchSessions::new(1), Instant::now());
        let small = open(&sessions, &[0], start);
        assert_eq!(open(&sessions, &[0, 1], start), 0, "the first is still protected");
        let later = start + PROTECTED_TIME + Duration::from_secs(1);
        sessions.begin((small, 1), false, Vec::new(), &[], later).unwrap();
        assert_eq!(open(&sessions, &[0], later), 0, "in use, and not smaller");
        let large = open(&sessions, &[0, 1], later);
        assert_ne!(large, 0);
        let much_later = later + PROTECTED_TIME + Duration::from_secs(1);
        assert_ne!(open(&sessions, &[0], much_later), 0, "stale");
    }
}
