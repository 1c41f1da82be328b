//! What is asked of the keeper of share partitions, and what it answers.

use std::{convert::Infallible, time::Duration};

use varve_metadata::model::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::{ShareRecord, StateBatch};

/// A partition, as one share group has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareKey {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
}

impl ShareKey {
    /// Whether `text` is the spelling of a share partition, be there such a topic or not; see [`text`](Self::text). The
    /// group may have colons in its name.
    pub fn is_spelled(text: &str) -> bool {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let Some((rest, partition)) = text.rsplit_once(':') else { return false };
        let Some((group, topic)) = rest.rsplit_once(':') else { return false };
        let is_id = URL_SAFE_NO_PAD.decode(topic).is_ok_and(|id| id.len() == 16);
        !group.trim().is_empty() && is_id && partition.parse::<u32>().is_ok_and(|index| i32::try_from(index).is_ok())
    }

    /// What decides which partition of the topic holds it, as Kafka spells it.
    pub fn text(&self) -> String {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let topic = URL_SAFE_NO_PAD.encode(self.topic.to_wire().as_bytes());
        format!("{}:{topic}:{}", self.group, self.partition)
    }
}

/// How often the group began anew at the partition: fences those who read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateEpoch(pub u32);

impl StateEpoch {
    /// `None` for -1: whoever asks does not know it.
    pub fn from_wire(raw: i32) -> Option<StateEpoch> {
        u32::try_from(raw).ok().map(StateEpoch)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }
}

/// The rules.
#[derive(Clone, Debug)]
pub struct ShareStateConfig {
    /// So many changes before another snapshot (`share.coordinator.snapshot.update.records.per.snapshot`).
    pub updates_per_snapshot: u32,
    /// A share partition that is quiet for so long gets a snapshot (`share.coordinator.cold.partition.snapshot.interval.ms`).
    pub cold_after: Duration,
}

impl Default for ShareStateConfig {
    fn default() -> ShareStateConfig {
        ShareStateConfig { updates_per_snapshot: 500, cold_after: Duration::from_secs(300) }
    }
}

/// What is kept of a share partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// In which the group reads it.
    pub state_epoch: StateEpoch,
    /// The last leader of the partition that read or wrote.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The first record that is not settled; `None` while nobody has read.
    pub start: Option<Offset>,
    /// How many records from there on are settled.
    pub settled: Option<u32>,
    /// What became of records from there on.
    pub batches: Vec<StateBatch>,
}

/// What a leader has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// In which the group reads; `None`: not checked.
    pub state_epoch: Option<StateEpoch>,
    /// Of the partition's leader; `None`: not checked.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The first record that is not settled; `None` if that did not change.
    pub start: Option<Offset>,
    /// How many records from there on are settled.
    pub settled: Option<u32>,
    /// What became of records.
    pub batches: Vec<StateBatch>,
}

/// What is asked about one share partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateRequest {
    /// A group begins to read the partition, or begins anew (InitializeShareGroupState).
    Initialize {
        /// From now on.
        state_epoch: StateEpoch,
        /// Where; `None`: by the group's setting.
        start: Option<Offset>,
    },
    /// WriteShareGroupState.
    Write(StateChange),
    /// A leader begins (ReadShareGroupState).
    Read {
        /// Fences the leaders before; `None`: nobody is fenced.
        leader_epoch: Option<LeaderEpoch>,
    },
    /// The group does not read the partition any more (DeleteShareGroupState).
    Delete,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareStateError {
    /// No group has begun to read the partition.
    #[error("the share partition is not initialized")]
    NotInitialized,
    /// A newer leader of the partition is known.
    #[error("the leader epoch is not the newest")]
    FencedLeaderEpoch,
    /// The group began anew.
    #[error("the state epoch is not the newest")]
    FencedStateEpoch,
    /// Retry.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Look the coordinator up again.
    #[error("this is not the correct coordinator")]
    NotCoordinator,
    /// The partition is being replayed; retry.
    #[error("the coordinator is loading")]
    LoadInProgress,
    /// It has not heard of the topic, or not yet.
    #[error("there is no such topic or partition")]
    UnknownTopic,
    /// The log will never take it.
    #[error("the state cannot be kept")]
    Unexpected,
}

impl ShareStateError {
    /// Whether the same request may succeed soon.
    pub fn may_pass(self) -> bool {
        match self {
            ShareStateError::CoordinatorNotAvailable
            | ShareStateError::NotCoordinator
            | ShareStateError::LoadInProgress
            | ShareStateError::UnknownTopic => true,
            ShareStateError::NotInitialized
            | ShareStateError::FencedLeaderEpoch
            | ShareStateError::FencedStateEpoch
            | ShareStateError::Unexpected => false,
        }
    }
}

/// The answer to a [`StateRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What is kept, to [`StateRequest::Read`].
    Read(Result<KeptState, ShareStateError>),
    /// To all others.
    Done(Result<(), ShareStateError>),
}

/// What a shard asks of the server.
pub type Effect = crate::coordinator::machine::Effect<ShareRecord, Answer, Infallible>;
