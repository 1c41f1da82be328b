//! Share groups (KIP-932) on the leaders of partitions: which share partitions are read here, by whom, in which sessions.
//!
//! ```text
//!   ShareFetch ─► Shares::open(group, partition) ─► Share ─► SharePartition (pure) ─► Effect::Write ─► its keeper
//!        ▲                                            │            (share_states, on whichever broker)
//!        └──── records, cut to what was given out ◄───┘
//! ```

mod latest;
mod read;
mod round;
mod settings;
mod share;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use tokio::time::sleep;
use varve_metadata::model::PartitionId;

pub(crate) use latest::latest_offset;
pub(crate) use round::{Member, Taken};
pub(crate) use settings::{OFFSET_RESET, OffsetReset, ShareRules};

use super::Broker;
use crate::{
    config::ShareGroupConfig,
    coordinator::share_state::ShareKey,
    partition::Partition,
    share::{
        AcknowledgeError, Acknowledgement, ConnectionId, SessionChange, SessionEpoch, SessionError, SessionKey,
        ShareSessions,
    },
};
use share::Share;

/// Between two looks whether what a group that left wrote is kept.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Looks before its share partitions are given up as they are: their keepers are not there.
const LOOKS: usize = 300;

/// The share partitions that are read on this node.
pub struct Shares {
    settings: ShareGroupConfig,
    sessions: Mutex<ShareSessions>,
    open: Mutex<HashMap<(String, PartitionId), Arc<Share>>>,
    /// Unknown until the node serves.
    broker: OnceLock<Weak<Broker>>,
    /// Where every share partition's clock starts.
    started: Instant,
}

impl Shares {
    /// Nobody reads anything yet.
    pub(crate) fn new(settings: ShareGroupConfig) -> Arc<Shares> {
        let sessions = ShareSessions::new(settings.max_sessions as usize);
        Arc::new(Shares {
            settings,
            sessions: Mutex::new(sessions),
            open: Mutex::default(),
            broker: OnceLock::new(),
            started: Instant::now(),
        })
    }

    /// Serves until `broker` stops.
    pub async fn follow(self: Arc<Self>, broker: Arc<Broker>) {
        // Set once: there is one broker.
        let _ = self.broker.set(Arc::downgrade(&broker));
        let stop = broker.shutdown.clone();
        drop(broker);
        stop.cancelled().await;
        for share in std::mem::take(&mut *self.open.lock()).into_values() {
            share.close(ResponseError::NotLeaderOrFollower);
        }
    }

    /// The rules of a group at this moment.
    pub(crate) fn rules(&self, broker: &Broker, group: &str) -> ShareRules {
        ShareRules::of(&broker.metadata.image(), &self.settings, group)
    }

    /// A member reads. Returns the partitions of its session from now on.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(crate) fn fetch(
        &self,
        key: &SessionKey,
        epoch: SessionEpoch,
        connection: ConnectionId,
        change: SessionChange,
    ) -> Result<Vec<PartitionId>, SessionError> {
        self.sessions.lock().fetch(key, epoch, connection, change)
    }

    /// A member speaks of records without reading.
    ///
    /// # Errors
    /// [`SessionError`].
    pub(crate) fn acknowledge_in(&self, key: &SessionKey, epoch: SessionEpoch) -> Result<(), SessionError> {
        self.sessions.lock().acknowledge(key, epoch)
    }

    /// The member is done: what it has is given to others.
    pub(crate) fn end(self: &Arc<Self>, key: &SessionKey) {
        let partitions = self.sessions.lock().end(key);
        self.release(key, &partitions);
    }

    /// A connection is gone, and with it its sessions.
    pub(crate) fn disconnected(self: &Arc<Self>, connection: ConnectionId) {
        let gone = self.sessions.lock().disconnected(connection);
        for (key, partitions) in gone {
            self.release(&key, &partitions);
        }
    }

    fn release(self: &Arc<Self>, key: &SessionKey, partitions: &[PartitionId]) {
        for id in partitions {
            let share = self.open.lock().get(&(key.group.clone(), *id)).cloned();
            if let Some(share) = share {
                share.release(&key.member);
            }
        }
        if !self.sessions.lock().has_group(&key.group) {
            tokio::spawn(self.clone().close_group(key.group.clone()));
        }
    }

    /// Nobody of the group reads here: its share partitions are given up once what became of their records is kept.
    async fn close_group(self: Arc<Self>, group: String) {
        for _ in 0..LOOKS {
            {
                // Under both locks: nobody begins meanwhile.
                let sessions = self.sessions.lock();
                if sessions.has_group(&group) {
                    return;
                }
                let mut open = self.open.lock();
                let done = open.extract_if(|(of, _), share| *of == group && share.is_quiet());
                done.for_each(|(_, share)| share.close(ResponseError::NotLeaderOrFollower));
                if open.keys().all(|(of, _)| *of != group) {
                    return;
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The share partition of `group` of a partition that is led here; it begins to load if nobody read it before.
    fn open(&self, group: &str, partition: &Arc<Partition>, rules: ShareRules) -> Result<Arc<Share>, ResponseError> {
        let broker = self.broker.get().and_then(Weak::upgrade).ok_or(ResponseError::OffsetNotAvailable)?;
        let id = partition.id();
        let mut open = self.open.lock();
        let known = open.get(&(group.to_owned(), id));
        if let Some(known) = known
            && known.epoch == partition.leader_epoch()
            && Arc::ptr_eq(&known.partition, partition)
            && !known.is_gone()
        {
            return Ok(known.clone());
        }
        if let Some(before) = known {
            before.close(ResponseError::NotLeaderOrFollower);
        }
        let key = ShareKey { group: group.to_owned(), topic: id.topic, partition: id.index };
        let share = Share::load(&broker, key, partition.clone(), rules, self.started);
        open.insert((group.to_owned(), id), share.clone());
        Ok(share)
    }

    /// Takes a member's word about records of a partition.
    ///
    /// # Errors
    /// What stands against it; UNKNOWN_TOPIC_OR_PARTITION if the group does not read the partition here.
    pub(crate) async fn acknowledge(
        &self,
        group: &str,
        member: &str,
        partition: PartitionId,
        said: &[Acknowledgement],
    ) -> Result<(), (ResponseError, String)> {
        let unknown =
            || (ResponseError::UnknownTopicOrPartition, "This server does not host this topic-partition.".to_owned());
        let share = self.open.lock().get(&(group.to_owned(), partition)).cloned().ok_or_else(unknown)?;
        let word = share.acknowledge(member, said).ok_or_else(unknown)?;
        let outcome = word.await.unwrap_or(Err(AcknowledgeError::Fenced));
        outcome.map_err(|error| {
            let code = match error {
                AcknowledgeError::Invalid => ResponseError::InvalidRequest,
                AcknowledgeError::RecordState => ResponseError::InvalidRecordState,
                AcknowledgeError::NotKept => ResponseError::CoordinatorNotAvailable,
                AcknowledgeError::Fenced => ResponseError::NotLeaderOrFollower,
            };
            (code, error.to_string())
        })
    }
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shares").field("open", &self.open.lock().len()).finish_non_exhaustive()
    }
}
