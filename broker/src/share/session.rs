//! Share sessions: which partitions a member reads, kept between its requests, on one connection.
//!
//! A member says in its first request what it wants, and later only what changes; each request counts on. A session ends
//! by the member's last request or with its connection, and then what the member has is given to others.

use std::collections::{BTreeSet, HashMap};

use varve_metadata::model::PartitionId;

/// The place of a request in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEpoch {
    /// The first: a session begins, in the place of the one before.
    First,
    /// One of those between.
    Next(u32),
    /// The last.
    Last,
}

impl SessionEpoch {
    /// `None` for what the protocol does not know.
    pub fn from_wire(raw: i32) -> Option<SessionEpoch> {
        match raw {
            0 => Some(SessionEpoch::First),
            -1 => Some(SessionEpoch::Last),
            raw => u32::try_from(raw).ok().map(SessionEpoch::Next),
        }
    }
}

/// Whose session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
}

/// Names a connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// Why a request does not fit its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is none: begin one.
    #[error("no such share session")]
    NotFound,
    /// It is not the next one: begin anew.
    #[error("the share session epoch is not the next")]
    InvalidEpoch,
    /// `group.share.max.share.sessions` is reached.
    #[error("there are as many share sessions as may be")]
    LimitReached,
    /// A first request cannot speak of records: nothing was given out yet.
    #[error("a first request of a share session acknowledges records")]
    Invalid,
}

/// What a request changes about the partitions of its session.
#[derive(Clone, Debug, Default)]
pub struct SessionChange {
    /// Those it names.
    pub wanted: Vec<PartitionId>,
    /// Those it does not want any more.
    pub forgotten: Vec<PartitionId>,
    /// It speaks of records that it was given.
    pub acknowledges: bool,
}

#[derive(Debug)]
struct Session {
    connection: ConnectionId,
    /// Of the next request.
    epoch: u32,
    partitions: BTreeSet<PartitionId>,
}

/// The share sessions of a node.
#[derive(Debug)]
pub struct ShareSessions {
    max: usize,
    sessions: HashMap<SessionKey, Session>,
}

impl ShareSessions {
    /// No sessions yet, and no more than `max` (`group.share.max.share.sessions`).
    pub fn new(max: usize) -> ShareSessions {
        ShareSessions { max, sessions: HashMap::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether a member of the group has a session.
    pub fn has_group(&self, group: &str) -> bool {
        self.sessions.keys().any(|key| key.group == group)
    }

    /// A member reads (ShareFetch). Returns the partitions of its session from now on; none with its last request, after
    /// which [`end`](Self::end) is called.
    ///
    /// # Errors
    /// See [`SessionError`]; the session is then as it was.
    pub fn fetch(
        &mut self,
        key: &SessionKey,
        epoch: SessionEpoch,
        connection: ConnectionId,
        change: SessionChange,
    ) -> Result<Vec<PartitionId>, SessionError> {
        match epoch {
            SessionEpoch::First if change.acknowledges => Err(SessionError::Invalid),
            SessionEpoch::First => {
                if self.sessions.len() >= self.max && !self.sessions.contains_key(key) {
                    return Err(SessionError::LimitReached);
                }
                let partitions: BTreeSet<PartitionId> = change.wanted.into_iter().collect();
                let all = partitions.iter().copied().collect();
                self.sessions.insert(key.clone(), Session { connection, epoch: 1, partitions });
                Ok(all)
            }
            SessionEpoch::Next(epoch) => {
                let session = self.advance(key, epoch)?;
                session.partitions.extend(change.wanted);
                for partition in &change.forgotten {
                    session.partitions.remove(partition);
                }
                Ok(session.partitions.iter().copied().collect())
            }
            SessionEpoch::Last => self.sessions.get(key).map(|_| Vec::new()).ok_or(SessionError::NotFound),
        }
    }

    /// A member speaks of records without reading (ShareAcknowledge).
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch); no session begins so.
    pub fn acknowledge(&mut self, key: &SessionKey, epoch: SessionEpoch) -> Result<(), SessionError> {
        match epoch {
            SessionEpoch::First => Err(SessionError::InvalidEpoch),
            SessionEpoch::Next(epoch) => self.advance(key, epoch).map(drop),
            SessionEpoch::Last => self.sessions.get(key).map(drop).ok_or(SessionError::NotFound),
        }
    }

    /// The member is done. Returns the partitions in which it may still have records.
    pub fn end(&mut self, key: &SessionKey) -> Vec<PartitionId> {
        self.sessions.remove(key).map(|session| session.partitions.into_iter().collect()).unwrap_or_default()
    }

    /// The connection is gone, and with it its sessions: whose they were, and the partitions in which they may still have
    /// records.
    pub fn disconnected(&mut self, connection: ConnectionId) -> Vec<(SessionKey, Vec<PartitionId>)> {
        let gone = self.sessions.extract_if(|_, session| session.connection == connection);
        gone.map(|(key, session)| (key, session.partitions.into_iter().collect())).collect()
    }

    fn advance(&mut self, key: &SessionKey, epoch: u32) -> Result<&mut Session, SessionError> {
        let session = self.sessions.get_mut(key).ok_or(SessionError::NotFound)?;
        if session.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        // The first is none of those between.
        session.epoch = if epoch == i32::MAX as u32 { 1 } else { epoch + 1 };
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use varve_metadata::model::{PartitionIndex, TopicId};

    use super::{SessionEpoch::*, *};

    const HERE: ConnectionId = ConnectionId(1);

    fn key(member: &str) -> SessionKey {
        SessionKey { group: "g".to_owned(), member: member.to_owned() }
    }

    fn partition(index: u32) -> PartitionId {
        PartitionId { topic: TopicId::from_wire(Uuid::from_u128(7)).unwrap(), index: PartitionIndex(index) }
    }

    fn wants(indexes: &[u32]) -> SessionChange {
        SessionChange { wanted: indexes.iter().copied().map(partition).collect(), ..SessionChange::default() }
    }

    fn partitions(indexes: &[u32]) -> Vec<PartitionId> {
        indexes.iter().copied().map(partition).collect()
    }

    #[test]
    fn a_session_goes_on_from_what_was_said_before() {
        let mut sessions = ShareSessions::new(10);
        assert_eq!(sessions.fetch(&key("a"), First, HERE, wants(&[0, 1])), Ok(partitions(&[0, 1])));
        let change = SessionChange { forgotten: partitions(&[0]), ..wants(&[2]) };
        assert_eq!(sessions.fetch(&key("a"), Next(1), HERE, change), Ok(partitions(&[1, 2])));
        assert_eq!(sessions.acknowledge(&key("a"), Next(2)), Ok(()));
        assert_eq!(sessions.fetch(&key("a"), Next(2), HERE, wants(&[])), Err(SessionError::InvalidEpoch));
        assert_eq!(sessions.fetch(&key("a"), Next(3), HERE, wants(&[])), Ok(partitions(&[1, 2])));
        assert_eq!(sessions.fetch(&key("a"), Last, HERE, wants(&[])), Ok(vec![]));
        assert_eq!(sessions.end(&key("a")), partitions(&[1, 2]));
        assert_eq!(sessions.fetch(&key("a"), Last, HERE, wants(&[])), Err(SessionError::NotFound));
        assert_eq!(sessions.acknowledge(&key("a"), Last), Err(SessionError::NotFound));
    }

    #[test]
    fn a_first_request_begins_anew_and_speaks_of_no_records() {
        let mut sessions = ShareSessions::new(1);
        sessions.fetch(&key("a"), First, HERE, wants(&[0])).unwrap();
        let speaking = SessionChange { acknowledges: true, ..wants(&[1]) };
        assert_eq!(sessions.fetch(&key("a"), First, HERE, speaking), Err(SessionError::Invalid));
        assert_eq!(sessions.acknowledge(&key("a"), First), Err(SessionError::InvalidEpoch));
        assert_eq!(sessions.fetch(&key("a"), First, HERE, wants(&[1])), Ok(partitions(&[1])));
        assert_eq!(sessions.fetch(&key("b"), First, HERE, wants(&[1])), Err(SessionError::LimitReached));
        assert_eq!((sessions.len(), sessions.is_empty()), (1, false));
    }

    #[test]
    fn sessions_end_with_their_connection() {
        let mut sessions = ShareSessions::new(10);
        sessions.fetch(&key("a"), First, HERE, wants(&[0])).unwrap();
        sessions.fetch(&key("b"), First, ConnectionId(2), wants(&[0])).unwrap();
        assert_eq!(sessions.disconnected(HERE), [(key("a"), partitions(&[0]))]);
        assert_eq!(sessions.disconnected(HERE), []);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn after_the_largest_epoch_comes_the_second() {
        let mut sessions = ShareSessions::new(10);
        sessions.fetch(&key("a"), First, HERE, wants(&[0])).unwrap();
        sessions.sessions.get_mut(&key("a")).unwrap().epoch = i32::MAX as u32;
        assert_eq!(sessions.acknowledge(&key("a"), Next(i32::MAX as u32)), Ok(()));
        assert_eq!(sessions.acknowledge(&key("a"), Next(1)), Ok(()));
        assert_eq!(SessionEpoch::from_wire(-2), None);
    }
}
