//! What a record of a share group changes: when it is acknowledged, and when it is read at start.

use super::group::{ShareGroup, ShareMember};
use crate::coordinator::{
    MemberEpoch, Now, Shard,
    assignor::PartitionSet,
    modern::{Watched, group_of_record},
    records::ShareGroupRecord,
};

impl Shard {
    pub(in crate::coordinator) fn apply_share(&mut self, record: ShareGroupRecord, now: Now) {
        let id = record.group();
        if let ShareGroupRecord::Group(_, None) = record {
            if self.shares.remove(id).is_some() {
                self.remove_group(id, now);
            }
        } else if let Some(group) =
            group_of_record(&mut self.shares, &mut self.groups, id, record.is_tombstone(), ShareGroup::new)
        {
            group.apply(record);
        }
    }

    /// After a load: every member was heard of just now.
    pub(in crate::coordinator) fn start_share_timers(&mut self, now: Now) {
        for (group_id, group) in &self.shares {
            let session = self.cluster.share_times(group_id).session_timeout;
            let members = group.members.keys().map(|id| Watched { id, revokes: None });
            self.timers.watch_members(now, group_id, session, members);
        }
    }
}

impl ShareGroup {
    fn apply(&mut self, record: ShareGroupRecord) {
        match record {
            ShareGroupRecord::Group(_, Some(group)) => {
                self.epoch = group.epoch;
                self.metadata_hash = group.metadata_hash;
            }
            // The end of a group is the shard's business.
            ShareGroupRecord::Group(_, None) => {}
            ShareGroupRecord::Target(_, target) => {
                self.assignment_epoch = target.map_or(-1, |target| target.epoch);
                self.assigned_at = target.and_then(|target| target.assigned_at);
            }
            ShareGroupRecord::MemberTarget(_, member, Some(target)) => drop(self.targets.insert(member, target)),
            ShareGroupRecord::MemberTarget(_, member, None) => drop(self.targets.remove(&member)),
            ShareGroupRecord::Member(_, id, Some(about)) => {
                self.members.entry(id.clone()).or_insert_with(|| ShareMember::new(id)).about = about;
            }
            ShareGroupRecord::Member(_, id, None) => drop(self.members.remove(&id)),
            ShareGroupRecord::Current(_, id, Some(current)) => {
                let member = self.members.entry(id.clone()).or_insert_with(|| ShareMember::new(id));
                (member.epoch, member.previous_epoch) = (current.epoch, current.previous_epoch);
                member.assigned = current.assigned;
            }
            ShareGroupRecord::Current(_, id, None) => {
                if let Some(member) = self.members.get_mut(&id) {
                    (member.epoch, member.previous_epoch) = (MemberEpoch::LEAVING, MemberEpoch::LEAVING);
                    member.assigned = PartitionSet::new();
                }
            }
            ShareGroupRecord::Partitions(_, kept) => {
                self.partitions = kept.unwrap_or_default();
                let begun = &self.partitions.begun;
                self.begun_at.retain(|topic, _| begun.contains_key(topic));
            }
        }
    }
}
