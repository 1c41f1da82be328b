//! Members go: by their own wish, because nothing is heard of them, or because they hold others up. And the first assignment
//! of a group that waited for more members.

use super::{
    group::StreamsGroup,
    member::{StreamsMember, StreamsMemberState},
    plan::{Outcome, Plan},
};
use crate::coordinator::{
    Answer, Now, RequestId, Shard,
    modern::{TimerChange, revocation_key},
    rebalance::session_key,
    records::{CoordinatorRecord, StreamsGroupRecord, StreamsRecord},
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// The key of the time that a group waits for more members before its first assignment.
pub(super) fn delay_key(group: &str) -> TimerKey {
    TimerKey::FirstAssignment { group: group.to_owned() }
}

impl StreamsGroup {
    /// Takes a member out of the group, which enters a new epoch.
    pub(super) fn plan_fence(&self, member: &str, answer: Option<(RequestId, Answer)>) -> Plan {
        let names = || (self.id.clone(), member.to_owned());
        let ((a, b), (c, d), (e, f)) = (names(), names(), names());
        let group = StreamsGroupRecord {
            epoch: self.epoch + 1,
            metadata_hash: self.metadata_hash,
            validated_topology_epoch: self.validated_topology_epoch,
            assignment_configs: self.assignment_configs.clone(),
        };
        let records = [
            StreamsRecord::Current(a, b, None),
            StreamsRecord::MemberTarget(c, d, None),
            StreamsRecord::Member(e, f, None),
            StreamsRecord::Group(self.id.clone(), Some(group)),
        ];
        let timers = [session_key, revocation_key].map(|key| TimerChange::Cancel(key(&self.id, member)));
        let outcome = Outcome { timers: timers.into(), answer, ..Outcome::of(&self.id) };
        Plan { records: records.map(CoordinatorRecord::from).into(), outcome }
    }
}

impl Shard {
    /// After a load: every member of a streams group was heard of just now.
    pub(in crate::coordinator) fn start_streams_timers(&mut self, now: Now) {
        for (group_id, group) in &self.streams {
            let session = self.cluster.streams_settings(group_id).session_timeout;
            let members = group.members.values().map(StreamsMember::watched);
            self.timers.watch_members(now, group_id, session, members);
        }
    }

    /// A timer of a streams group fell due.
    pub(in crate::coordinator) fn fire_streams(&mut self, key: &TimerKey, action: TimerAction, step: &mut Step<'_>) {
        let plan = match key {
            TimerKey::FirstAssignment { group } => self.plan_first_assignment(group, step.now),
            TimerKey::Session { group, member } | TimerKey::Revocation { group, member } => {
                self.plan_expiry(group, member, action)
            }
            _ => None,
        };
        if let Some(mut plan) = plan {
            plan.outcome.retry = Some((key.clone(), action));
            self.carry_out(plan, Completion::Streams, step);
        }
    }

    fn plan_expiry(&self, group: &str, member: &str, action: TimerAction) -> Option<Plan> {
        let group = self.streams.get(group)?;
        let found = group.members.get(member)?;
        let why = match action {
            TimerAction::ExpireRevocation(epoch)
                if found.epoch != epoch || found.state != StreamsMemberState::UnrevokedTasks =>
            {
                return None;
            }
            TimerAction::ExpireRevocation(_) => "it did not give up tasks in time",
            _ => "its session ran out",
        };
        tracing::info!(group = group.id, member, why, "removing a member of a streams group");
        Some(group.plan_fence(member, None))
    }

    /// The group waited long enough for more members.
    fn plan_first_assignment(&self, group: &str, now: Now) -> Option<Plan> {
        let group = self.streams.get(group).filter(|group| !group.is_empty())?;
        let configured = group.configured.clone()?;
        let mut records = Vec::new();
        let configs = &group.assignment_configs;
        self.plan_streams_target(now, group, group.epoch, None, &configured, configs, &mut records)?;
        Some(Plan { records, outcome: Outcome::of(&group.id) })
    }
}
