//! What a record of a consumer group changes: when it is acknowledged, and when it is read at start.

use varve_metadata::model::Timestamp;

use super::{
    group::ConsumerGroup,
    member::{ConsumerMember, OwnedPartitions},
};
use crate::coordinator::{MemberEpoch, Now, Shard, modern::group_of_record, records::ConsumerRecord};

impl Shard {
    pub(in crate::coordinator) fn apply_consumer(&mut self, record: ConsumerRecord, now: Now) {
        let id = record.group();
        if let ConsumerRecord::Group(_, None) = record {
            if self.consumers.remove(id).is_some() {
                self.remove_group(id, now);
            }
        } else if let Some(group) =
            group_of_record(&mut self.consumers, &mut self.groups, id, record.is_tombstone(), ConsumerGroup::new)
        {
            group.apply(record);
        }
    }
}

impl ConsumerRecord {
    fn is_tombstone(&self) -> bool {
        match self {
            ConsumerRecord::Group(_, value) => value.is_none(),
            ConsumerRecord::TopicsMetadata(_, is_there) => !is_there,
            ConsumerRecord::Member(_, _, value) => value.is_none(),
            ConsumerRecord::Target(_, value) => value.is_none(),
            ConsumerRecord::MemberTarget(_, _, value) => value.is_none(),
            ConsumerRecord::Current(_, _, value) => value.is_none(),
            ConsumerRecord::Regex(_, _, value) => value.is_none(),
        }
    }
}

impl ConsumerGroup {
    fn apply(&mut self, record: ConsumerRecord) {
        match record {
            ConsumerRecord::Group(_, Some(group)) => {
                self.epoch = group.epoch;
                self.metadata_hash = group.metadata_hash;
            }
            // The end of a group is the shard's business.
            ConsumerRecord::Group(_, None) => {}
            ConsumerRecord::TopicsMetadata(_, is_there) => self.has_topics_metadata = is_there,
            ConsumerRecord::Target(_, target) => {
                self.assignment_epoch = target.map_or(-1, |target| target.epoch);
                self.assigned_at =
                    target.and_then(|target| target.assigned_at).filter(|at| *at != Timestamp::default());
            }
            ConsumerRecord::MemberTarget(_, member, Some(target)) => {
                self.targets.insert(member, target);
            }
            ConsumerRecord::MemberTarget(_, member, None) => {
                self.targets.remove(&member);
            }
            ConsumerRecord::Member(_, id, Some(record)) => {
                let mut member = self.member_or_new(id);
                member.describe(record);
                self.put_member(member);
            }
            ConsumerRecord::Member(_, id, None) => self.remove_member(&id),
            ConsumerRecord::Current(_, id, Some(current)) => {
                let mut member = self.member_or_new(id);
                member.set_current(current);
                self.put_member(member);
            }
            ConsumerRecord::Current(_, id, None) => {
                if let Some(member) = self.members.get(&id) {
                    let mut member = member.clone();
                    (member.epoch, member.previous_epoch) = (MemberEpoch::LEAVING, MemberEpoch::LEAVING);
                    (member.assigned, member.pending_revocation) = (OwnedPartitions::new(), OwnedPartitions::new());
                    self.put_member(member);
                }
            }
            ConsumerRecord::Regex(_, pattern, Some(resolved)) => {
                self.regexes.insert(pattern, resolved);
            }
            ConsumerRecord::Regex(_, pattern, None) => {
                self.regexes.remove(&pattern);
            }
        }
    }

    fn member_or_new(&self, id: String) -> ConsumerMember {
        self.members.get(&id).cloned().unwrap_or_else(|| ConsumerMember::new(id))
    }
}
