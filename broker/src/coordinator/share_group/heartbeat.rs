//! ShareGroupHeartbeat: a member joins, says what it wants, hears what it shall read, or leaves.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    group::{ShareGroup, ShareMember, topic_ids},
    plan::{Outcome, Plan},
};
use crate::coordinator::{
    Answer, Effect, GroupError, GroupType, HeartbeatAnswer, MemberEpoch, ModernGroupError, Now, RequestId, Shard,
    assignor::{self, Candidate, Division, PartitionSet},
    cluster::metadata_hash,
    locks::{Need, Task},
    membership::is_valid_group_id,
    modern::{TimerChange, is_due_for_assignment, known_member},
    rebalance::session_key,
    records::{CoordinatorRecord, GroupEpochRecord, ShareGroupRecord, TargetRecord},
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// What a member says.
#[derive(Clone, Debug)]
pub struct ShareHeartbeat {
    /// The group.
    pub group_id: String,
    /// The member, who chose its id itself.
    pub member_id: String,
    /// How far it has come.
    pub epoch: MemberEpoch,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// The topics that it subscribes to; absent if that did not change.
    pub topics: Option<BTreeSet<String>>,
    /// From the request header.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
}

impl ShareHeartbeat {
    fn check(&self) -> Result<(), ModernGroupError> {
        let invalid = |why: &str| Err(ModernGroupError::invalid(why));
        let is_blank = |text: &str| text.trim().is_empty();
        if is_blank(&self.member_id) {
            return invalid("MemberId can't be empty.");
        }
        if is_blank(&self.group_id) {
            return invalid("GroupId can't be empty.");
        }
        if self.rack_id.as_deref().is_some_and(is_blank) {
            return invalid("RackId can't be empty.");
        }
        if self.epoch == MemberEpoch::JOINING && self.topics.as_ref().is_none_or(BTreeSet::is_empty) {
            return invalid("SubscribedTopicNames must be set in first request.");
        }
        if self.epoch < MemberEpoch::LEAVING {
            return invalid("MemberEpoch is invalid.");
        }
        // What does not fit into a record's key or field cannot be kept.
        let fits = |text: &String| text.len() <= i16::MAX as usize;
        let names = self.topics.iter().flatten();
        if !is_valid_group_id(&self.group_id)
            || ![&self.member_id].into_iter().chain(&self.rack_id).chain(names).all(fits)
        {
            return Err(GroupError::Unexpected.into());
        }
        Ok(())
    }

    /// The member with what the request says of it.
    fn update(&self, member: &ShareMember) -> ShareMember {
        let mut updated = member.clone();
        if self.rack_id.is_some() {
            updated.about.rack_id.clone_from(&self.rack_id);
        }
        if let Some(topics) = &self.topics {
            updated.about.topics.clone_from(topics);
        }
        updated.about.client_id.clone_from(&self.client_id);
        updated.about.client_host.clone_from(&self.client_host);
        updated
    }
}

impl Shard {
    /// A member of a share group is heard of. Answered with [`Answer::Heartbeat`].
    pub fn share_heartbeat(&mut self, now: Now, id: RequestId, request: ShareHeartbeat, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        if let Err(error) = request.check() {
            return step.answer(id, Answer::Heartbeat(Err(error)));
        }
        let group_id = request.group_id.clone();
        self.run_or_wait(&group_id, Need::Alone, Task::ShareHeartbeat(id, Box::new(request)), &mut step);
    }

    pub(in crate::coordinator) fn heartbeat_share(
        &mut self,
        id: RequestId,
        request: &ShareHeartbeat,
        step: &mut Step<'_>,
    ) {
        let plan = match request.epoch {
            MemberEpoch::LEAVING => self.plan_share_leave(id, request),
            _ => self.plan_share_heartbeat(id, request, step.now),
        };
        match plan {
            Ok(plan) => self.carry_out(plan, Completion::Share, step),
            Err(error) => step.answer(id, Answer::Heartbeat(Err(error))),
        }
    }

    fn plan_share_heartbeat(
        &self,
        id: RequestId,
        request: &ShareHeartbeat,
        now: Now,
    ) -> Result<Plan, ModernGroupError> {
        let joins = request.epoch == MemberEpoch::JOINING;
        let group = self.share_to_join(&request.group_id, joins)?;
        let group = group.as_ref();
        let max = self.config.share_max_size;
        if group.member_count() >= max && !group.members.contains_key(&request.member_id) {
            return Err(ModernGroupError::Full(GroupType::Share, max));
        }
        let member = match known_member(&group.members, &group.id, &request.member_id) {
            Ok(member) => member.clone(),
            Err(_) if joins => ShareMember::new(request.member_id.clone()),
            Err(unknown) => return Err(unknown),
        };
        check_epoch(&member, request.epoch)?;
        let updated = request.update(&member);
        let mut plan = Plan { records: Vec::new(), outcome: Outcome::of(&group.id) };
        if updated.about != member.about {
            let record = ShareGroupRecord::Member(group.id.clone(), updated.id.clone(), Some(updated.about.clone()));
            plan.records.push(record.into());
        }
        let (epoch, rises) = self.plan_share_epoch(group, &member, &updated, &mut plan);
        let (target_epoch, target) = self.plan_share_target(now, group, epoch, &updated, &mut plan);
        let settled = self.plan_share_step(group, updated, (target_epoch, target), rises, &mut plan);
        self.plan_begin(now, group, epoch, &settled, &mut plan);

        let times = self.cluster.share_times(&group.id);
        let session = session_key(&group.id, &settled.id);
        plan.outcome.timers.push(TimerChange::Set(session, times.session_timeout, TimerAction::ExpireSession));
        let tells = joins || request.topics.is_some() || member.assigned != settled.assigned;
        let answer = HeartbeatAnswer {
            epoch: settled.epoch,
            heartbeat_interval: times.heartbeat_interval,
            assignment: tells.then(|| settled.assigned.clone()),
            member_id: settled.id,
        };
        plan.outcome.answer = Some((id, Answer::Heartbeat(Ok(answer))));
        Ok(plan)
    }

    /// Raises the group's epoch if it must be. Returns it, and whether it rose.
    fn plan_share_epoch(
        &self,
        group: &ShareGroup,
        member: &ShareMember,
        updated: &ShareMember,
        plan: &mut Plan,
    ) -> (i32, bool) {
        let cluster = self.cluster.as_ref();
        let is_pending = group.assignment_epoch >= group.epoch && !group.is_empty() && group.has_unassigned(cluster);
        let mut rises = updated.about.topics != member.about.topics || is_pending;
        if !rises && !group.must_look_at_topics {
            return (group.epoch, false);
        }
        let topics = group.with_member(updated).flat_map(|member| member.about.topics.iter().cloned()).collect();
        let metadata_hash = metadata_hash(cluster, &topics);
        rises |= metadata_hash != group.metadata_hash;
        let epoch = if rises { group.epoch + 1 } else { group.epoch };
        if rises {
            tracing::info!(group = group.id, epoch, "the share group enters a new epoch");
            let record = GroupEpochRecord { epoch, metadata_hash };
            plan.records.push(ShareGroupRecord::Group(group.id.clone(), Some(record)).into());
        }
        plan.outcome.soft.looked_at = Some(cluster.version());
        (epoch, rises)
    }

    /// Assigns anew if the group is in a newer epoch than its target, and the last time is long enough ago. Returns what
    /// `updated` shall have, and of which epoch that is.
    fn plan_share_target(
        &self,
        now: Now,
        group: &ShareGroup,
        epoch: i32,
        updated: &ShareMember,
        plan: &mut Plan,
    ) -> (i32, PartitionSet) {
        let interval = self.cluster.share_times(&group.id).assignment_interval;
        if group.assignment_epoch >= epoch || !is_due_for_assignment(group.assigned_at, interval, now) {
            return (group.assignment_epoch, group.target_of(&updated.id));
        }
        let members = group.with_member(updated).map(|member| {
            let candidate = Candidate {
                instance_id: None,
                topics: topic_ids(member, self.cluster.as_ref()),
                target: group.target_of(&member.id),
            };
            (member.id.clone(), candidate)
        });
        let division = Division { members: members.collect(), topics: group.assignable() };
        let mut targets: BTreeMap<String, PartitionSet> = assignor::share(&division);
        tracing::info!(group = group.id, epoch, "assigned partitions to a share group");
        for (member, target) in &targets {
            if group.targets.get(member) != Some(target) {
                let record = ShareGroupRecord::MemberTarget(group.id.clone(), member.clone(), Some(target.clone()));
                plan.records.push(record.into());
            }
        }
        let record = TargetRecord { epoch, assigned_at: Some(now.wall) };
        plan.records.push(ShareGroupRecord::Target(group.id.clone(), Some(record)).into());
        (epoch, targets.remove(&updated.id).unwrap_or_default())
    }

    /// The member at its target.
    fn plan_share_step(
        &self,
        group: &ShareGroup,
        member: ShareMember,
        (target_epoch, target): (i32, PartitionSet),
        rises: bool,
        plan: &mut Plan,
    ) -> ShareMember {
        if !rises && member.epoch.0 == target_epoch {
            return member;
        }
        let subscribed = topic_ids(&member, self.cluster.as_ref());
        let mut next = member.clone();
        next.assigned = target.into_iter().filter(|(topic, _)| subscribed.contains(topic)).collect();
        if member.epoch.0 != target_epoch {
            (next.previous_epoch, next.epoch) = (member.epoch, MemberEpoch(target_epoch));
        }
        if next != member {
            let record = ShareGroupRecord::Current(group.id.clone(), next.id.clone(), Some(next.to_current()));
            plan.records.push(record.into());
        }
        next
    }

    /// The group that a member wants to be in: as it is, or as the records to be appended make it.
    pub(super) fn share_to_join(&self, group_id: &str, makes: bool) -> Result<Cow<'_, ShareGroup>, ModernGroupError> {
        match self.shares.get(group_id) {
            Some(group) => Ok(Cow::Borrowed(group)),
            None if self.has_group(group_id) => Err(ModernGroupError::OtherType(GroupType::Share, group_id.to_owned())),
            None if makes => Ok(Cow::Owned(ShareGroup::new(group_id.to_owned()))),
            None => Err(ModernGroupError::NotMade(GroupType::Share, group_id.to_owned())),
        }
    }

    /// The share group of that name.
    pub(super) fn existing_share(&self, group_id: &str) -> Result<&ShareGroup, ModernGroupError> {
        self.existing(&self.shares, GroupType::Share, group_id)
    }

    fn plan_share_leave(&self, id: RequestId, request: &ShareHeartbeat) -> Result<Plan, ModernGroupError> {
        let group = self.existing_share(&request.group_id)?;
        known_member(&group.members, &group.id, &request.member_id)?;
        tracing::info!(group = group.id, member = request.member_id, "a member left");
        let answer = HeartbeatAnswer::farewell(&request.member_id, request.epoch);
        let mut plan = self.plan_share_fence(group, &request.member_id);
        plan.outcome.answer = Some((id, Answer::Heartbeat(Ok(answer))));
        Ok(plan)
    }

    /// Takes a member out of the group.
    fn plan_share_fence(&self, group: &ShareGroup, gone: &str) -> Plan {
        let (id, member) = (|| group.id.clone(), || gone.to_owned());
        let others = group.members.values().filter(|member| member.id != gone);
        let topics = others.flat_map(|member| member.about.topics.iter().cloned()).collect();
        let metadata_hash = metadata_hash(self.cluster.as_ref(), &topics);
        let epoch = GroupEpochRecord { epoch: group.epoch + 1, metadata_hash };
        let records = [
            ShareGroupRecord::Current(id(), member(), None),
            ShareGroupRecord::MemberTarget(id(), member(), None),
            ShareGroupRecord::Member(id(), member(), None),
            ShareGroupRecord::Group(id(), Some(epoch)),
        ];
        let timers = vec![TimerChange::Cancel(session_key(&group.id, gone))];
        Plan {
            records: records.map(CoordinatorRecord::from).into(),
            outcome: Outcome { timers, ..Outcome::of(&group.id) },
        }
    }

    /// Nothing was heard of a member for too long.
    pub(in crate::coordinator) fn expire_share_member(
        &mut self,
        key: &TimerKey,
        action: TimerAction,
        step: &mut Step<'_>,
    ) {
        let TimerKey::Session { group, member } = key else { return };
        let Some(group) = self.shares.get(group).filter(|group| group.members.contains_key(member)) else { return };
        tracing::info!(group = group.id, member, "removing a member: its session ran out");
        let mut plan = self.plan_share_fence(group, member);
        plan.outcome.retry = Some((key.clone(), action));
        self.carry_out(plan, Completion::Share, step);
    }
}

/// Whether the member may go on from where it says it stands. The answer with the new epoch may have been lost.
fn check_epoch(member: &ShareMember, received: MemberEpoch) -> Result<(), ModernGroupError> {
    let (known, previous) = (member.epoch, member.previous_epoch);
    if received == MemberEpoch::JOINING || received == known || received == previous {
        return Ok(());
    }
    let (received, known, previous) = (received.0, known.0, previous.0);
    Err(match received > known {
        true => ModernGroupError::EpochAhead { kind: GroupType::Share, received, known },
        false => ModernGroupError::EpochBehindBoth { received, known, previous },
    })
}
