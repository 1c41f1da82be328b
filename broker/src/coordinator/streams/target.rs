//! Who shall have which tasks: decided anew whenever the group is in a newer epoch than its target.

use std::collections::BTreeMap;

use super::{
    assignor::{Candidate, Division, Work},
    configure::Configured,
    group::StreamsGroup,
    member::StreamsMember,
    tasks::Tasks,
};
use crate::coordinator::{
    Now, Shard,
    modern::is_due_for_assignment,
    records::{CoordinatorRecord, StreamsRecord, TargetRecord},
};

/// The name under which the group's record keeps how many standby tasks each stateful task has.
pub(super) const STANDBY_REPLICAS: &str = "num.standby.replicas";

/// What a member shall have, and of which epoch that is.
pub(super) struct Target {
    pub(super) epoch: i32,
    pub(super) tasks: Tasks,
}

impl Shard {
    /// Assigns anew if the group is in a newer epoch than its target, and the last time is long enough ago. Returns what
    /// `updated` shall have; `None` if the target stays.
    #[expect(clippy::too_many_arguments, reason = "the parts of one plan")]
    pub(super) fn plan_streams_target(
        &self,
        now: Now,
        group: &StreamsGroup,
        epoch: i32,
        updated: Option<&StreamsMember>,
        configured: &Configured,
        configs: &BTreeMap<String, String>,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Option<Target> {
        let interval = self.cluster.streams_settings(&group.id).assignment_interval;
        if group.assignment_epoch >= epoch || !is_due_for_assignment(group.assigned_at, interval, now) {
            return None;
        }
        let mut targets = division(group, updated, configured, configs).assign();
        tracing::info!(group = group.id, epoch, "assigned tasks");
        for (member, target) in &targets {
            if group.targets.get(member) != Some(target) {
                let record = StreamsRecord::MemberTarget(group.id.clone(), member.clone(), Some(target.clone()));
                records.push(record.into());
            }
        }
        let record = TargetRecord { epoch, assigned_at: Some(now.wall) };
        records.push(StreamsRecord::Target(group.id.clone(), Some(record)).into());
        let tasks = updated.and_then(|updated| targets.remove(&updated.id)).unwrap_or_default();
        Some(Target { epoch, tasks })
    }
}

/// The members and the work to be divided among them; none while the topology's topics are not in order.
fn division(
    group: &StreamsGroup,
    updated: Option<&StreamsMember>,
    configured: &Configured,
    configs: &BTreeMap<String, String>,
) -> Division {
    let others = group.members.values().filter(|member| updated.is_none_or(|updated| member.id != updated.id));
    let members = others.chain(updated).map(|member| {
        let candidate = Candidate { process: member.process_id.clone(), before: group.target_of(&member.id) };
        (member.id.clone(), candidate)
    });
    let of = |(id, subtopology): (&String, &super::configure::ConfiguredSubtopology)| {
        (id.clone(), Work { tasks: subtopology.tasks, is_stateful: subtopology.is_stateful() })
    };
    Division {
        members: members.collect(),
        work: if configured.is_ready() { configured.subtopologies.iter().map(of).collect() } else { BTreeMap::new() },
        standby_replicas: configs.get(STANDBY_REPLICAS).and_then(|number| number.parse().ok()).unwrap_or(0),
    }
}
