//! What can be read about share groups without changing them (ShareGroupDescribe).

use std::collections::BTreeSet;

use super::group::ShareMember;
use crate::coordinator::{MemberEpoch, ModernGroupError, Shard, assignor::PartitionSet};

/// A share group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedShareGroup {
    /// The name of its state.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of its target assignment; -1 if there is none.
    pub assignment_epoch: i32,
    /// Its members.
    pub members: Vec<DescribedShareMember>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedShareMember {
    /// Its id.
    pub member_id: String,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// How far it has come.
    pub epoch: MemberEpoch,
    /// From the header of its last request.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// The topics that it subscribes to.
    pub topics: BTreeSet<String>,
    /// What it reads.
    pub assignment: PartitionSet,
}

impl Shard {
    /// A share group in full.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn describe_share(&self, group_id: &str) -> Result<DescribedShareGroup, ModernGroupError> {
        let group = self.existing_share(group_id)?;
        let described = |member: &ShareMember| DescribedShareMember {
            member_id: member.id.clone(),
            rack_id: member.about.rack_id.clone(),
            epoch: member.epoch,
            client_id: member.about.client_id.clone(),
            client_host: member.about.client_host.clone(),
            topics: member.about.topics.clone(),
            assignment: member.assigned.clone(),
        };
        Ok(DescribedShareGroup {
            state: group.state(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            members: group.members.values().map(described).collect(),
        })
    }
}
