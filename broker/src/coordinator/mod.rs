//! The classic group protocol and committed offsets, as a state machine without IO.
//!
//! A [`Shard`] holds the groups whose state lives in one partition of `__consumer_offsets`. What happened goes in
//! (a request, a finished append, the passing of time), what to do comes out as [`Effect`]s: append these records,
//! answer that request. Nothing is answered as done before its records are acknowledged, and committed offsets become
//! visible only then, by the same step that replays them at start ([`Shard::replay`]).
//!
//! ```text
//!   Empty ──join──► PreparingRebalance ──all joined / time is up──► CompletingRebalance ──leader's sync──► Stable
//!     ▲                │          ▲                                          │                               │
//!     └── nobody left ─┘          └───────── join, leave, lost member ───────┴───────────────────────────────┘
//!   Dead: being deleted; the group is gone once its tombstone is acknowledged.
//! ```
//!
//! Owns: membership, rebalances, generations, offsets, their expiry, and the record formats (those of Kafka 4.3).
//! Leaves to others: which partitions this broker leads, sockets, clocks, the log.

pub mod assignor;
mod cluster;
pub mod codec;
mod consumer;
mod departure;
mod describe;
mod error;
mod group;
mod load;
mod locks;
pub mod machine;
mod membership;
mod messages;
mod modern;
mod offsets;
mod open_commits;
mod placement;
mod rebalance;
pub mod records;
mod retention;
mod settings;
mod shard;
mod share_group;
pub mod share_state;
mod streams;
mod subscription;
mod timers;
mod tombstones;
mod transactional;
pub mod transactions;

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod storm;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use cluster::{ClusterView, ConsumerTimes, ShareTimes, StreamsSettings, TopicFacts, TopicsChange};
pub use consumer::{
    Asker, ConsumerGroupState, ConsumerHeartbeat, DescribedConsumer, DescribedConsumerGroup, MemberState, Owned,
    OwnedPartitions, RegexJob, compile, find_topics,
};
pub use error::GroupError;
pub use group::{GroupState, Protocol};
pub use machine::{
    AppendFailure, AppendId, Batch, Effects, EndOfTransaction, Entry, LogRecord, Machine, Now, RequestId,
};
pub use messages::{
    Answer, CommitAnswer, CommitPartition, CommitRequest, CommitTopic, CommittedOffset, DescribedGroup,
    DescribedMember, Effect, Generation, GroupFilter, GroupOrder, GroupType, JoinAnswer, JoinRequest, JoinedGroup,
    JoinedMember, LeaveAnswer, LeaveRequest, LeavingMember, ListedGroup, MemberIdentity, PartitionOutcomes, SyncAnswer,
    SyncRequest, SyncedMember, TopicOffsets, TopicPartitions,
};
pub use modern::{HeartbeatAnswer, MemberEpoch, ModernGroupError};
pub use placement::partition_for;
pub use settings::{GroupConfig, MigrationPolicy};
pub use shard::{Shard, ShardStats};
pub use share_group::{
    BeginShares, DescribedShareGroup, DescribedShareMember, ShareHeartbeat, SharePlace, SharesToEnd,
};
pub use streams::{
    AssignedTasks, CopartitionGroup, DescribedStreams, DescribedStreamsGroup, DescribedSubtopology, DescribedTopic,
    DescribedTopology, Endpoint, EndpointPartitions, EpochTasks, InternalTopic, InternalTopicPlan, OwnedKind,
    StreamsAnswer, StreamsGroupState, StreamsHeartbeat, StreamsMemberState, StreamsStatus, Subtopology, TaskSet, Tasks,
    Topology,
};
pub use transactional::TransactionalCommit;

/// The internal topic that holds groups and their committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
