//! Members go: by their own wish, because nothing is heard of them, or because they hold others up.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    classic_members::{join_key, sync_key},
    group::ConsumerGroup,
    heartbeat::tombstones,
    member::{ConsumerMember, MemberState},
    migration::Downgrade,
    plan::{Outcome, Plan},
};
use crate::coordinator::{
    Answer, Now, RequestId, Shard,
    modern::{TimerChange, revocation_key},
    rebalance::session_key,
    records::{ConsumerRecord, CoordinatorRecord},
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

impl Shard {
    /// Takes members out of a group. If only members of the classic protocol are left, the group becomes a classic one.
    pub(super) fn plan_fence(
        &self,
        group: &ConsumerGroup,
        gone: &BTreeSet<String>,
        answer: Option<(RequestId, Answer)>,
        now: Now,
    ) -> Plan {
        let mut outcome = Outcome { answer, ..Outcome::of(&group.id) };
        let mut records = Vec::new();
        if gone.is_empty() {
            return Plan { records, outcome };
        }
        let drop_timers = gone.iter().flat_map(|member| {
            let keys = [session_key, revocation_key, join_key, sync_key].map(|key| key(&group.id, member));
            keys.map(TimerChange::Cancel)
        });
        outcome.timers.extend(drop_timers);
        if self.may_downgrade_without(group, gone) {
            let downgrade =
                Downgrade { gone, joining: None, rebalance: Some("the last member of the consumer protocol left") };
            self.downgrade(group, &downgrade, now, &mut records, &mut outcome);
            return Plan { records, outcome };
        }
        records.extend(gone.iter().flat_map(|member| tombstones(&group.id, member)).map(CoordinatorRecord::Consumer));
        let remaining = group.members.values().filter(|member| !gone.contains(&member.id));
        let mut patterns: BTreeMap<&str, usize> = BTreeMap::new();
        for pattern in gone.iter().filter_map(|member| group.members.get(member)?.pattern()) {
            *patterns.entry(pattern).or_default() += 1;
        }
        let was_last = |(pattern, count): &(&str, usize)| group.subscribers_of(pattern) == *count;
        let dropped: BTreeSet<String> =
            patterns.into_iter().filter(was_last).map(|(pattern, _)| pattern.to_owned()).collect();
        let forgotten = dropped.iter().map(|pattern| ConsumerRecord::Regex(group.id.clone(), pattern.clone(), None));
        records.extend(forgotten.map(CoordinatorRecord::Consumer));
        self.plan_epoch(group, remaining, &dropped, true, &mut records);
        Plan { records, outcome }
    }

    /// After a load: every member of a consumer group was heard of just now.
    pub(in crate::coordinator) fn start_consumer_timers(&mut self, now: Now) {
        for (group_id, group) in &self.consumers {
            let session = self.cluster.consumer_times(group_id).session_timeout;
            let members = group.members.values().map(ConsumerMember::watched);
            self.timers.watch_members(now, group_id, session, members);
        }
    }

    /// A timer of a member of a consumer group fell due.
    pub(in crate::coordinator) fn expire_member(&mut self, key: &TimerKey, action: TimerAction, step: &mut Step<'_>) {
        let (TimerKey::Session { group, member }
        | TimerKey::Revocation { group, member }
        | TimerKey::MemberJoin { group, member }
        | TimerKey::MemberSync { group, member }) = key
        else {
            return;
        };
        let Some(group) = self.consumers.get(group) else { return };
        let Some(found) = group.members.get(member) else { return };
        if let TimerAction::ExpireRevocation(epoch) = action
            && (found.epoch != epoch || found.state != MemberState::UnrevokedPartitions)
        {
            return;
        }
        let why = match key {
            TimerKey::Session { .. } => "its session ran out",
            TimerKey::Revocation { .. } => "it did not give up partitions in time",
            TimerKey::MemberJoin { .. } => "it did not join again in time",
            _ => "it did not ask for its assignment in time",
        };
        tracing::info!(group = group.id, member, why, "removing a member");
        let mut plan = self.plan_fence(group, &[member.clone()].into(), None, step.now);
        plan.outcome.retry = Some((key.clone(), action));
        self.carry_out(plan, Completion::Consumer, step);
    }
}
