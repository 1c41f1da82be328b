//! One member of a consumer group.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use varve_metadata::model::{PartitionIndex, TopicId};

use crate::coordinator::{
    MemberEpoch,
    modern::{Watched, rebalance_timeout},
    records::{ClassicMetadata, ConsumerMemberRecord, CurrentRecord},
};

/// What a member waits for; drawn in the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Nothing: it has what it shall have in its epoch.
    Stable,
    /// That it gives up partitions.
    UnrevokedPartitions,
    /// That others give up partitions.
    UnreleasedPartitions,
    /// Written by a later version: the member has to start over.
    Unknown,
}

impl MemberState {
    pub(in crate::coordinator) const fn to_log(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    pub(in crate::coordinator) const fn from_log(raw: i8) -> MemberState {
        match raw {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// Partitions that a member has, each with the epoch in which it was given to the member: commits of an older epoch are
/// refused (KIP-1251).
pub type OwnedPartitions = BTreeMap<TopicId, BTreeMap<PartitionIndex, i32>>;

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::coordinator) struct ConsumerMember {
    pub(super) id: String,
    pub(super) epoch: MemberEpoch,
    pub(super) previous_epoch: MemberEpoch,
    pub(super) state: MemberState,
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) topics: BTreeSet<String>,
    pub(super) regex: Option<String>,
    /// -1 until it says.
    pub(super) rebalance_timeout_ms: i32,
    pub(super) assignor: Option<String>,
    pub(super) assigned: OwnedPartitions,
    pub(super) pending_revocation: OwnedPartitions,
    /// Present if it speaks the classic protocol.
    pub(super) classic: Option<ClassicMetadata>,
}

impl ConsumerMember {
    /// A member that nothing is known of yet.
    pub(super) fn new(id: String) -> ConsumerMember {
        ConsumerMember {
            id,
            epoch: MemberEpoch::JOINING,
            previous_epoch: MemberEpoch::LEAVING,
            state: MemberState::Stable,
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            topics: BTreeSet::new(),
            regex: Some(String::new()),
            rebalance_timeout_ms: -1,
            assignor: None,
            assigned: OwnedPartitions::new(),
            pending_revocation: OwnedPartitions::new(),
            classic: None,
        }
    }

    /// The pattern that it subscribes to, if it does.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.regex.as_deref().filter(|regex| !regex.is_empty())
    }

    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch.0 == epoch
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        rebalance_timeout(self.rebalance_timeout_ms)
    }

    pub(super) fn watched(&self) -> Watched<'_> {
        let revokes = self.state == MemberState::UnrevokedPartitions;
        Watched { id: &self.id, revokes: revokes.then(|| (self.epoch, self.rebalance_timeout())) }
    }

    /// Its own session timeout, if it speaks the classic protocol: others have that of the group.
    pub(super) fn classic_session_timeout(&self) -> Option<Duration> {
        self.classic.as_ref().map(|classic| classic.session_timeout)
    }

    /// In which epoch the partition was given to it, while it may still commit for it.
    pub(in crate::coordinator) fn epoch_of(&self, topic: TopicId, partition: PartitionIndex) -> Option<i32> {
        let of = |owned: &OwnedPartitions| owned.get(&topic)?.get(&partition).copied();
        of(&self.assigned).or_else(|| of(&self.pending_revocation))
    }

    pub(super) fn to_record(&self) -> ConsumerMemberRecord {
        ConsumerMemberRecord {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            topics: self.topics.clone(),
            regex: self.regex.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            assignor: self.assignor.clone(),
            classic: self.classic.clone(),
        }
    }

    pub(super) fn describe(&mut self, record: ConsumerMemberRecord) {
        self.instance_id = record.instance_id;
        self.rack_id = record.rack_id;
        self.client_id = record.client_id;
        self.client_host = record.client_host;
        self.topics = record.topics;
        self.regex = record.regex;
        self.rebalance_timeout_ms = record.rebalance_timeout_ms;
        self.assignor = record.assignor;
        self.classic = record.classic;
    }

    pub(super) fn to_current(&self) -> CurrentRecord {
        CurrentRecord {
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            state: self.state,
            assigned: self.assigned.clone(),
            pending_revocation: self.pending_revocation.clone(),
        }
    }

    pub(super) fn set_current(&mut self, current: CurrentRecord) {
        self.epoch = current.epoch;
        self.previous_epoch = current.previous_epoch;
        self.state = current.state;
        self.assigned = current.assigned;
        self.pending_revocation = current.pending_revocation;
    }

    /// Moves on to `epoch`, and remembers the one before.
    pub(super) fn move_to(&mut self, epoch: MemberEpoch) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }
}
