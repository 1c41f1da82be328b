//! What a record of a streams group changes: when it is acknowledged, and when it is read at start.

use varve_metadata::model::Timestamp;

use super::{group::StreamsGroup, member::StreamsMember, tasks::AssignedTasks};
use crate::coordinator::{MemberEpoch, Now, Shard, modern::group_of_record, records::StreamsRecord};

impl Shard {
    pub(in crate::coordinator) fn apply_streams(&mut self, record: StreamsRecord, now: Now) {
        let id = record.group();
        if let StreamsRecord::Group(_, None) = record {
            if self.streams.remove(id).is_some() {
                self.remove_group(id, now);
            }
        } else if let Some(group) =
            group_of_record(&mut self.streams, &mut self.groups, id, record.is_tombstone(), StreamsGroup::new)
        {
            group.apply(record);
        }
    }
}

impl StreamsRecord {
    fn is_tombstone(&self) -> bool {
        match self {
            StreamsRecord::Group(_, value) => value.is_none(),
            StreamsRecord::Topology(_, value) => value.is_none(),
            StreamsRecord::Member(_, _, value) => value.is_none(),
            StreamsRecord::Target(_, value) => value.is_none(),
            StreamsRecord::MemberTarget(_, _, value) => value.is_none(),
            StreamsRecord::Current(_, _, value) => value.is_none(),
        }
    }
}

impl StreamsGroup {
    fn apply(&mut self, record: StreamsRecord) {
        match record {
            StreamsRecord::Group(_, Some(group)) => {
                self.epoch = group.epoch;
                self.metadata_hash = group.metadata_hash;
                self.validated_topology_epoch = group.validated_topology_epoch;
                self.assignment_configs = group.assignment_configs;
            }
            // The end of a group is the shard's business.
            StreamsRecord::Group(_, None) => {}
            StreamsRecord::Topology(_, topology) => self.topology = topology,
            StreamsRecord::Target(_, target) => {
                self.assignment_epoch = target.map_or(-1, |target| target.epoch);
                self.assigned_at =
                    target.and_then(|target| target.assigned_at).filter(|at| *at != Timestamp::default());
            }
            StreamsRecord::MemberTarget(_, member, Some(target)) => {
                self.targets.insert(member, target);
            }
            StreamsRecord::MemberTarget(_, member, None) => {
                self.targets.remove(&member);
            }
            StreamsRecord::Member(_, id, Some(record)) => self.member(id).describe(record),
            StreamsRecord::Member(_, id, None) => {
                self.members.remove(&id);
                if self.members.is_empty() {
                    // Whoever comes next starts an application anew.
                    self.shutdown_by = None;
                }
            }
            StreamsRecord::Current(_, id, Some(current)) => self.member(id).set_current(current),
            StreamsRecord::Current(_, id, None) => {
                if let Some(member) = self.members.get_mut(&id) {
                    (member.epoch, member.previous_epoch) = (MemberEpoch::LEAVING, MemberEpoch::LEAVING);
                    member.assigned = AssignedTasks::default();
                    member.pending_revocation = AssignedTasks::default();
                }
            }
        }
    }

    fn member(&mut self, id: String) -> &mut StreamsMember {
        self.members.entry(id.clone()).or_insert_with(|| StreamsMember::new(id))
    }
}
