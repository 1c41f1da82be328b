//! What can be read about consumer groups without changing them (ConsumerGroupDescribe).

use std::collections::BTreeSet;

use super::{
    group::{ConsumerGroup, ConsumerGroupState},
    heartbeat::without_epochs,
    member::ConsumerMember,
};
use crate::coordinator::{MemberEpoch, ModernGroupError, Shard, assignor::PartitionSet};

/// A consumer group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumerGroup {
    /// Its state.
    pub state: ConsumerGroupState,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of its target assignment; -1 if there is none.
    pub assignment_epoch: i32,
    /// The assignor that most of its members ask for, or else the broker's.
    pub assignor: String,
    /// Its members.
    pub members: Vec<DescribedConsumer>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumer {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// How far it has come.
    pub epoch: MemberEpoch,
    /// From the header of its last request.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Topics subscribed to by name.
    pub topics: BTreeSet<String>,
    /// Topics subscribed to by pattern.
    pub regex: Option<String>,
    /// What it has, what it is to give up included.
    pub assignment: PartitionSet,
    /// What it shall have.
    pub target: PartitionSet,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
}

impl Shard {
    /// A consumer group in full.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn describe_consumer(&self, group_id: &str) -> Result<DescribedConsumerGroup, ModernGroupError> {
        let group = self.existing_consumer(group_id)?;
        let assignor = ConsumerGroup::preferred_assignor(group.members.values());
        Ok(DescribedConsumerGroup {
            state: group.state(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            assignor: assignor.unwrap_or_else(|| self.default_assignor()).name().to_owned(),
            members: group.members.values().map(|member| described(group, member)).collect(),
        })
    }
}

fn described(group: &ConsumerGroup, member: &ConsumerMember) -> DescribedConsumer {
    let mut assignment = without_epochs(&member.assigned);
    for (topic, partitions) in without_epochs(&member.pending_revocation) {
        assignment.entry(topic).or_default().extend(partitions);
    }
    DescribedConsumer {
        member_id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        epoch: member.epoch,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topics: member.topics.clone(),
        regex: member.regex.clone(),
        assignment,
        target: group.target_of(&member.id).clone(),
        is_classic: member.classic.is_some(),
    }
}
