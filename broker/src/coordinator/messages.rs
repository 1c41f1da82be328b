//! What goes into a shard and what comes out, in our own words: the wire's sentinels stop before this.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, PartitionIndex, Timestamp, TopicId};

use super::{
    GroupError, GroupState, Protocol,
    consumer::RegexJob,
    modern::{HeartbeatAnswer, ModernGroupError},
    records::CoordinatorRecord,
    share_group::{BeginShares, SharesToEnd},
    streams::StreamsAnswer,
};

/// How often a classic group has been put together; fences members of earlier rebalances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// `None` for negative numbers: the protocol's "not a member".
    pub fn from_wire(raw: i32) -> Option<Generation> {
        u32::try_from(raw).ok().map(Generation)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }

    pub(super) const fn next(self) -> Generation {
        Generation(self.0.wrapping_add(1) & i32::MAX as u32)
    }
}

/// What a shard of groups asks of the server.
pub type Effect = super::machine::Effect<CoordinatorRecord, Answer, GroupOrder>;

/// What a shard of groups asks to be done beside the log.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupOrder {
    /// Topics are to be found for patterns; reported with [`Shard::regexes_resolved`](super::Shard::regexes_resolved).
    Resolve(RegexJob),
    /// Keepers of share partitions are to begin; reported with [`Shard::shares_begun`](super::Shard::shares_begun).
    BeginShares(BeginShares),
}

/// The answer to a waiting request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Shard::join`](super::Shard::join).
    Join(JoinAnswer),
    /// To [`Shard::sync`](super::Shard::sync).
    Sync(SyncAnswer),
    /// To [`Shard::leave`](super::Shard::leave).
    Leave(LeaveAnswer),
    /// To [`Shard::commit`](super::Shard::commit).
    Commit(CommitAnswer),
    /// To [`Shard::delete_group`](super::Shard::delete_group).
    DeleteGroup(Result<(), GroupError>),
    /// To [`Shard::delete_offsets`](super::Shard::delete_offsets): an outcome per partition.
    DeleteOffsets(CommitAnswer),
    /// To [`Shard::consumer_heartbeat`](super::Shard::consumer_heartbeat) and
    /// [`Shard::share_heartbeat`](super::Shard::share_heartbeat).
    Heartbeat(Result<HeartbeatAnswer, ModernGroupError>),
    /// To [`Shard::alter_share_offsets`](super::Shard::alter_share_offsets): whom to ask.
    BeginShares(Result<BeginShares, ModernGroupError>),
    /// To [`Shard::end_shares`](super::Shard::end_shares): whom to ask.
    EndShares(Result<SharesToEnd, ModernGroupError>),
    /// To [`Shard::shares_begun`](super::Shard::shares_begun) and [`Shard::shares_ended`](super::Shard::shares_ended).
    SharesSettled(Result<(), ModernGroupError>),
    /// To [`Shard::streams_heartbeat`](super::Shard::streams_heartbeat).
    StreamsHeartbeat(Result<StreamsAnswer, ModernGroupError>),
    /// To [`Shard::settle`](super::Shard::settle).
    Settled,
    /// To [`Shard::end_transaction`](super::Shard::end_transaction).
    TransactionEnded(Result<(), GroupError>),
}

impl Answer {
    /// The same kind of answer, with an error in place of what would have been.
    pub(super) fn refused(self, error: GroupError) -> Answer {
        match self {
            Answer::Join(_) => Answer::Join(JoinAnswer { member_id: String::new(), outcome: Err(error) }),
            Answer::Sync(_) => Answer::Sync(SyncAnswer(Err(error))),
            Answer::Leave(_) => Answer::Leave(LeaveAnswer(Err(error))),
            Answer::Commit(_) => Answer::Commit(CommitAnswer(Err(error))),
            Answer::DeleteGroup(_) => Answer::DeleteGroup(Err(error)),
            Answer::DeleteOffsets(_) => Answer::DeleteOffsets(CommitAnswer(Err(error))),
            Answer::Heartbeat(_) => Answer::Heartbeat(Err(error.into())),
            Answer::BeginShares(_) => Answer::BeginShares(Err(error.into())),
            Answer::EndShares(_) => Answer::EndShares(Err(error.into())),
            Answer::SharesSettled(_) => Answer::SharesSettled(Err(error.into())),
            Answer::StreamsHeartbeat(_) => Answer::StreamsHeartbeat(Err(error.into())),
            Answer::Settled => Answer::Settled,
            Answer::TransactionEnded(_) => Answer::TransactionEnded(Err(error)),
        }
    }
}

/// A member asks to join (JoinGroup).
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group_id: String,
    /// `None` on first contact.
    pub member_id: Option<String>,
    /// Static membership (KIP-345).
    pub instance_id: Option<String>,
    /// From the request header.
    pub client_id: String,
    /// The client's address, as `DescribeGroups` shows it.
    pub client_host: String,
    /// The member is removed when not heard of for so long.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// For example `consumer`.
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// The client's own words, for the log.
    pub reason: Option<String>,
    /// Whether a first contact is sent back with a member id (versions from 4, KIP-394).
    pub requires_known_member_id: bool,
    /// Whether a leader can be told to skip the assignment (versions from 9, KIP-814).
    pub supports_skip_assignment: bool,
    /// Random; becomes part of the member id if one is given out.
    pub fresh_id: Uuid,
}

/// The outcome of a join.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinAnswer {
    /// The member the answer is for; empty where the protocol leaves it so.
    pub member_id: String,
    /// The generation joined, or why not.
    pub outcome: Result<JoinedGroup, GroupError>,
}

/// The group as a member finds it after joining.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedGroup {
    /// The generation joined.
    pub generation: Generation,
    /// As the members gave it.
    pub protocol_type: Option<String>,
    /// The protocol chosen.
    pub protocol_name: Option<String>,
    /// The member that assigns.
    pub leader: String,
    /// The leader keeps the assignment that exists (KIP-814).
    pub skip_assignment: bool,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

/// One member, as its leader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// What it sent for the chosen protocol.
    pub metadata: Bytes,
}

/// A member, as its requests name it.
#[derive(Clone, Debug)]
pub struct MemberIdentity {
    /// Empty if unknown.
    pub member_id: String,
    /// Static membership (KIP-345).
    pub instance_id: Option<String>,
}

/// A member asks for its assignment; the leader brings everyone's (SyncGroup).
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group_id: String,
    /// Who asks.
    pub member: MemberIdentity,
    /// The generation it joined; `None` if negative.
    pub generation: Option<Generation>,
    /// Checked if given (versions from 5).
    pub protocol_type: Option<String>,
    /// Checked if given (versions from 5).
    pub protocol_name: Option<String>,
    /// From the leader: member id and assignment.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncAnswer(pub Result<SyncedMember, GroupError>);

/// What a member is to do in this generation.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncedMember {
    /// As the members gave it.
    pub protocol_type: Option<String>,
    /// The protocol chosen.
    pub protocol_name: Option<String>,
    /// In the leader's encoding; empty if the leader left the member out.
    pub assignment: Bytes,
}

/// Members leave, or are removed by an administrator (LeaveGroup, KIP-345).
#[derive(Clone, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// One of the members that leave.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    /// Its names; an instance id alone removes whoever holds it.
    pub member: MemberIdentity,
    /// The client's own words, for the log.
    pub reason: Option<String>,
}

/// An outcome per member, in the order of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaveAnswer(pub Result<Vec<Result<(), GroupError>>, GroupError>);

/// Offsets to be committed (OffsetCommit).
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The group; may be empty, as in Kafka.
    pub group_id: String,
    /// Empty names for consumers that are no members.
    pub member: MemberIdentity,
    /// `None` for consumers that are no members.
    pub generation: Option<Generation>,
    /// Versions 2 to 4 could ask for a time of their own.
    pub retention: Option<Duration>,
    /// Whether an unknown group is told apart from a stale generation (versions from 9).
    pub knows_group_id_not_found: bool,
    /// What to commit.
    pub topics: Vec<CommitTopic>,
}

/// Offsets of one topic.
#[derive(Clone, Debug)]
pub struct CommitTopic {
    /// Its name.
    pub name: String,
    /// Its id, if it exists.
    pub id: Option<TopicId>,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// The offset of one partition.
#[derive(Clone, Debug)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// As the client sent it: Kafka keeps it without judging.
    pub offset: i64,
    /// Of the last record consumed (KIP-320).
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own words.
    pub metadata: String,
}

/// An outcome per topic and partition, in the order of the request, or one for all.
pub type PartitionOutcomes = Vec<(String, Vec<(PartitionIndex, Result<(), GroupError>)>)>;

/// The outcome of a commit or of deleting offsets.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitAnswer(pub Result<PartitionOutcomes, GroupError>);

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// As the client sent it.
    pub offset: i64,
    /// Of the last record consumed (KIP-320).
    pub leader_epoch: Option<LeaderEpoch>,
    /// The client's own words.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// A time of its own, asked for by an old client.
    pub expires_at: Option<Timestamp>,
    /// The topic committed for; unknown in records of older brokers (KIP-848).
    pub topic_id: Option<TopicId>,
}

/// Committed offsets of one group: by topic, by partition.
pub type TopicOffsets = BTreeMap<String, BTreeMap<PartitionIndex, CommittedOffset>>;

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic's name.
    pub topic: String,
    /// Some of its partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// Which groups to list (KIP-518, KIP-848).
#[derive(Clone, Debug, Default)]
pub struct GroupFilter {
    /// Names of states, in any case; empty means all.
    pub states: Vec<String>,
    /// Names of types, in any case; empty means all.
    pub types: Vec<String>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group_id: String,
    /// Empty for a simple consumer.
    pub protocol_type: String,
    /// The name of its state.
    pub state: &'static str,
    /// Its type.
    pub group_type: GroupType,
}

/// Which protocol a group speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupType {
    /// Members assign among themselves.
    Classic,
    /// The coordinator assigns (KIP-848).
    Consumer,
    /// Members share partitions record by record (KIP-932).
    Share,
    /// The coordinator assigns the tasks of a Kafka Streams application (KIP-1071).
    Streams,
}

impl GroupType {
    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
            GroupType::Share => "share",
            GroupType::Streams => "streams",
        }
    }
}

/// A group in full.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedGroup {
    /// Its state.
    pub state: GroupState,
    /// Empty for a simple consumer.
    pub protocol_type: String,
    /// The chosen protocol while the group is stable, else empty.
    pub protocol_name: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// From the header of the join.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// What it sent for the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}
