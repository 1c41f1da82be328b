//! ConsumerGroupHeartbeat: a member joins, says what it wants and has, hears what it shall have, or leaves.

use std::{borrow::Cow, collections::BTreeSet};

use uuid::Uuid;

use super::{
    group::ConsumerGroup,
    member::{ConsumerMember, MemberState, OwnedPartitions},
    plan::{Outcome, Plan},
    reconcile::Situation,
    regex::Asker,
    target::MemberTarget,
};
use crate::coordinator::{
    Answer, Effect, GroupError, GroupState, GroupType, HeartbeatAnswer, MemberEpoch, ModernGroupError, Now, RequestId,
    Shard,
    assignor::{Assignor, PartitionSet},
    locks::{Need, Task},
    membership::is_valid_group_id,
    modern::{TimerChange, check_epoch, known_member, revocation_key},
    rebalance::session_key,
    records::{ConsumerRecord, CoordinatorRecord},
    shard::{Completion, Step},
    timers::TimerAction,
};

/// A member's request.
#[derive(Clone, Debug)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group_id: String,
    /// Chosen by the member; in version 0 empty on first contact.
    pub member_id: String,
    /// Where it stands.
    pub epoch: MemberEpoch,
    /// Static membership (KIP-345).
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// How long it may take to give partitions up, in milliseconds; absent if it did not change.
    pub rebalance_timeout_ms: Option<i32>,
    /// Topics by name; absent if they did not change.
    pub topics: Option<BTreeSet<String>>,
    /// Topics by pattern; absent if it did not change.
    pub regex: Option<String>,
    /// The assignor it asks for; absent if that did not change.
    pub assignor: Option<String>,
    /// What it has; absent if that did not change.
    pub owned: Option<Owned>,
    /// From the request header.
    pub client_id: String,
    /// The client's address, as descriptions show it.
    pub client_host: String,
    /// Who looks for topics behind patterns.
    pub asker: Asker,
    /// Whether the member chooses its id itself (versions from 1).
    pub requires_member_id: bool,
    /// Random; becomes the member's id if it has none.
    pub fresh_id: Uuid,
}

/// Partitions that a member says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Those whose topic and index could be some.
    pub partitions: PartitionSet,
    /// There were others.
    pub has_impossible: bool,
}

impl Owned {
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty() && !self.has_impossible
    }

    fn is_part_of(&self, assigned: &OwnedPartitions) -> bool {
        !self.has_impossible
            && self.partitions.iter().all(|(topic, owned)| {
                assigned
                    .get(topic)
                    .is_some_and(|assigned| owned.iter().all(|partition| assigned.contains_key(partition)))
            })
    }
}

impl ConsumerHeartbeat {
    fn check(&self, assignors: &[Assignor]) -> Result<(), ModernGroupError> {
        let invalid = |why: &str| Err(ModernGroupError::invalid(why));
        let is_blank = |text: &str| text.trim().is_empty();
        let needs_id = self.requires_member_id || self.epoch.0 > 0 || self.epoch == MemberEpoch::LEAVING;
        if needs_id && is_blank(&self.member_id) {
            return invalid("MemberId can't be empty.");
        }
        if is_blank(&self.group_id) {
            return invalid("GroupId can't be empty.");
        }
        if self.instance_id.as_deref().is_some_and(is_blank) {
            return invalid("InstanceId can't be empty.");
        }
        if self.rack_id.as_deref().is_some_and(is_blank) {
            return invalid("RackId can't be empty.");
        }
        match self.epoch {
            MemberEpoch::JOINING if self.rebalance_timeout_ms.is_none() => {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            MemberEpoch::JOINING if self.owned.as_ref().is_none_or(|owned| !owned.is_empty()) => {
                return invalid("TopicPartitions must be empty when (re-)joining.");
            }
            MemberEpoch::JOINING if self.topics.is_none() && self.regex.is_none() => {
                return invalid(
                    "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
                );
            }
            MemberEpoch::LEAVING_FOR_A_WHILE if self.instance_id.is_none() => {
                return invalid("InstanceId can't be null.");
            }
            epoch if epoch < MemberEpoch::LEAVING_FOR_A_WHILE => return invalid("MemberEpoch is invalid."),
            _ => {}
        }
        if let Some(name) = &self.assignor
            && !assignors.iter().any(|assignor| assignor.name() == name)
        {
            let supported: Vec<&str> = assignors.iter().map(|assignor| assignor.name()).collect();
            return Err(ModernGroupError::UnsupportedAssignor { name: name.clone(), supported: supported.join(", ") });
        }
        // What does not fit into a record's key or field cannot be kept.
        let texts = [Some(&self.member_id), self.instance_id.as_ref(), self.rack_id.as_ref(), self.regex.as_ref()];
        let names = self.topics.iter().flatten();
        let fits = |text: &String| text.len() <= i16::MAX as usize;
        if !is_valid_group_id(&self.group_id) || !texts.into_iter().flatten().chain(names).all(fits) {
            return Err(GroupError::Unexpected.into());
        }
        Ok(())
    }

    /// Whether the member said all there is to say: it wants to hear all there is to hear.
    fn is_full(&self) -> bool {
        self.epoch == MemberEpoch::JOINING
            || self.rebalance_timeout_ms.is_some()
                && (self.topics.is_some() || self.regex.is_some())
                && self.owned.is_some()
    }

    /// The member with what the request says of it.
    fn update(&self, member: &ConsumerMember) -> ConsumerMember {
        let or = |new: &Option<String>, old: &Option<String>| new.clone().or_else(|| old.clone());
        ConsumerMember {
            instance_id: or(&self.instance_id, &member.instance_id),
            rack_id: or(&self.rack_id, &member.rack_id),
            rebalance_timeout_ms: self.rebalance_timeout_ms.unwrap_or(member.rebalance_timeout_ms),
            assignor: or(&self.assignor, &member.assignor),
            topics: self.topics.as_ref().unwrap_or(&member.topics).clone(),
            regex: or(&self.regex, &member.regex),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            classic: None,
            ..member.clone()
        }
    }
}

impl Shard {
    /// A member of a consumer group is heard of. Answered with [`Answer::Heartbeat`].
    pub fn consumer_heartbeat(
        &mut self,
        now: Now,
        id: RequestId,
        request: ConsumerHeartbeat,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        if let Err(error) = request.check(&self.config.consumer_assignors) {
            return step.answer(id, Answer::Heartbeat(Err(error)));
        }
        let group_id = request.group_id.clone();
        self.run_or_wait(&group_id, Need::Alone, Task::Heartbeat(id, Box::new(request)), &mut step);
    }

    pub(in crate::coordinator) fn heartbeat_consumer(
        &mut self,
        id: RequestId,
        request: &ConsumerHeartbeat,
        step: &mut Step<'_>,
    ) {
        let leaves = matches!(request.epoch, MemberEpoch::LEAVING | MemberEpoch::LEAVING_FOR_A_WHILE);
        let plan =
            if leaves { self.plan_leave(id, request, step.now) } else { self.plan_heartbeat(id, request, step.now) };
        match plan {
            Ok(plan) => {
                // Those who wait for a rebalance of the classic group come back to the consumer group.
                self.release_classic(&request.group_id, step);
                self.carry_out(plan, Completion::Consumer, step);
            }
            Err(error) => step.answer(id, Answer::Heartbeat(Err(error))),
        }
    }

    fn plan_heartbeat(&self, id: RequestId, request: &ConsumerHeartbeat, now: Now) -> Result<Plan, ModernGroupError> {
        let joins = request.epoch == MemberEpoch::JOINING;
        let mut records = Vec::new();
        let mut outcome = Outcome::of(&request.group_id);
        let group = self.group_to_join(&request.group_id, joins, &mut records, &mut outcome)?;
        let group = group.as_ref();
        self.check_room(group, &request.member_id)?;
        let member_id =
            if request.member_id.is_empty() { request.fresh_id.to_string() } else { request.member_id.clone() };
        let member = match &request.instance_id {
            None => find_dynamic(group, &member_id, joins)?,
            Some(instance) => find_static(group, &member_id, instance, joins, false, &mut records)?,
        };
        check_epoch(GroupType::Consumer, request.epoch, (member.epoch, member.previous_epoch), || {
            request.owned.as_ref().is_some_and(|owned| owned.is_part_of(&member.assigned))
        })?;
        let updated = request.update(&member);
        let change =
            self.plan_member(now, group, &member, &updated, Some(&request.asker), &mut records, &mut outcome)?;
        let target = self.plan_target(now, group, change.epoch, &updated, &mut records);
        let updated = self.plan_step(
            group,
            &updated,
            &target,
            change.subscription,
            request.owned.as_ref(),
            &mut records,
            &mut outcome,
        )?;

        let times = self.cluster.consumer_times(&request.group_id);
        let session = session_key(&request.group_id, &updated.id);
        outcome.timers.push(TimerChange::Set(session, times.session_timeout, TimerAction::ExpireSession));
        let tells = request.is_full() || member.assigned != updated.assigned;
        let answer = HeartbeatAnswer {
            epoch: updated.epoch,
            heartbeat_interval: times.heartbeat_interval,
            assignment: tells.then(|| without_epochs(&updated.assigned)),
            member_id: updated.id,
        };
        outcome.answer = Some((id, Answer::Heartbeat(Ok(answer))));
        Ok(Plan { records, outcome })
    }

    /// The group that a member wants to be in: as it is, or as the records to be appended make it.
    fn group_to_join(
        &self,
        group_id: &str,
        joins: bool,
        records: &mut Vec<CoordinatorRecord>,
        outcome: &mut Outcome,
    ) -> Result<Cow<'_, ConsumerGroup>, ModernGroupError> {
        if let Some(group) = self.consumers.get(group_id) {
            return Ok(Cow::Borrowed(group));
        }
        match self.groups.get(group_id) {
            None if self.is_not_classic(group_id) => {
                Err(ModernGroupError::OtherType(GroupType::Consumer, group_id.to_owned()))
            }
            None if joins => Ok(Cow::Owned(ConsumerGroup::new(group_id.to_owned()))),
            None => Err(ModernGroupError::NotMade(GroupType::Consumer, group_id.to_owned())),
            Some(_) if !joins => Err(ModernGroupError::OtherType(GroupType::Consumer, group_id.to_owned())),
            Some(classic) if classic.state == GroupState::Empty => {
                records.push(CoordinatorRecord::Group(group_id.to_owned(), None));
                Ok(Cow::Owned(ConsumerGroup::new(group_id.to_owned())))
            }
            Some(classic) => self.upgrade(classic, records, outcome).map(Cow::Owned),
        }
    }

    pub(super) fn check_room(&self, group: &ConsumerGroup, member_id: &str) -> Result<(), ModernGroupError> {
        let max = self.config.consumer_max_size;
        if group.member_count() >= max && !group.members.contains_key(member_id) {
            return Err(ModernGroupError::Full(GroupType::Consumer, max));
        }
        Ok(())
    }

    /// What the member's new description of itself leads to, before anybody is assigned anything.
    #[expect(clippy::too_many_arguments, reason = "the parts of one plan")]
    pub(super) fn plan_member(
        &self,
        now: Now,
        group: &ConsumerGroup,
        member: &ConsumerMember,
        updated: &ConsumerMember,
        asker: Option<&Asker>,
        records: &mut Vec<CoordinatorRecord>,
        outcome: &mut Outcome,
    ) -> Result<MemberChange, ModernGroupError> {
        if updated != member {
            let record = ConsumerRecord::Member(group.id.clone(), updated.id.clone(), Some(updated.to_record()));
            records.push(CoordinatorRecord::Consumer(record));
        }
        let has_other_topics = updated.topics != member.topics;
        let patterns = self.plan_patterns(now, group, member, updated, asker, records)?;
        outcome.soft.resolve = patterns.resolve;
        // A pattern that still has to be resolved leads to an epoch of its own once it is.
        let is_classic = updated.classic.is_some();
        let must_rise = has_other_topics || patterns.is_resolved || (is_classic && patterns.is_changed);
        let mut epoch = group.epoch;
        if must_rise || group.must_look_at_topics {
            epoch = self.plan_epoch(group, group.with_member(updated), &patterns.dropped, must_rise, records);
            outcome.soft.looked_at = Some(self.cluster.version());
        }
        Ok(MemberChange { epoch, subscription: has_other_topics || patterns.is_changed })
    }

    /// The member's next step toward its target.
    #[expect(clippy::too_many_arguments, reason = "the parts of one plan")]
    pub(super) fn plan_step(
        &self,
        group: &ConsumerGroup,
        member: &ConsumerMember,
        target: &MemberTarget,
        subscription_changed: bool,
        owned: Option<&Owned>,
        records: &mut Vec<CoordinatorRecord>,
        outcome: &mut Outcome,
    ) -> Result<ConsumerMember, ModernGroupError> {
        if !subscription_changed && member.is_reconciled_to(target.epoch) {
            return Ok(member.clone());
        }
        let situation = Situation {
            epoch: target.epoch,
            target: &target.partitions,
            subscribed: group.topic_ids(member, self.cluster.as_ref()),
            subscription_changed,
            owned,
            is_held: &|topic, partition| group.is_held(topic, partition),
        };
        let next = situation.step(member)?;
        if next != *member {
            let record = ConsumerRecord::Current(group.id.clone(), next.id.clone(), Some(next.to_current()));
            records.push(CoordinatorRecord::Consumer(record));
            if next.classic.is_none() {
                let key = revocation_key(&group.id, &next.id);
                outcome.timers.push(match next.state {
                    MemberState::UnrevokedPartitions => {
                        TimerChange::Set(key, next.rebalance_timeout(), TimerAction::ExpireRevocation(next.epoch))
                    }
                    _ => TimerChange::Cancel(key),
                });
            }
        }
        Ok(next)
    }

    fn plan_leave(&self, id: RequestId, request: &ConsumerHeartbeat, now: Now) -> Result<Plan, ModernGroupError> {
        let group = self.existing_consumer(&request.group_id)?;
        let answer = HeartbeatAnswer::farewell(&request.member_id, request.epoch);
        let answer = Some((id, Answer::Heartbeat(Ok(answer))));
        let member = match &request.instance_id {
            None => group.known_member(&request.member_id)?,
            Some(instance) => group.known_static(&request.member_id, instance)?,
        };
        if request.epoch == MemberEpoch::LEAVING_FOR_A_WHILE {
            tracing::info!(group = group.id, member = member.id, "a static member left for a while");
            let mut away = member.clone();
            away.epoch = MemberEpoch::LEAVING_FOR_A_WHILE;
            away.pending_revocation.clear();
            // Whoever comes back under another id has its partitions from the beginning; nobody commits under the old.
            away.assigned.values_mut().flat_map(|partitions| partitions.values_mut()).for_each(|epoch| *epoch = 0);
            let record = ConsumerRecord::Current(group.id.clone(), away.id.clone(), Some(away.to_current()));
            let outcome = Outcome { answer, ..Outcome::of(&group.id) };
            return Ok(Plan { records: vec![CoordinatorRecord::Consumer(record)], outcome });
        }
        tracing::info!(group = group.id, member = member.id, "a member left");
        Ok(self.plan_fence(group, &[member.id.clone()].into(), answer, now))
    }

    pub(super) fn existing_consumer(&self, group_id: &str) -> Result<&ConsumerGroup, ModernGroupError> {
        self.existing(&self.consumers, GroupType::Consumer, group_id)
    }
}

/// What a member's description of itself changed.
pub(super) struct MemberChange {
    /// The group's epoch from then on.
    pub(super) epoch: i32,
    /// Whether the member subscribes to something else.
    pub(super) subscription: bool,
}

impl ConsumerGroup {
    pub(super) fn known_member(&self, member_id: &str) -> Result<&ConsumerMember, ModernGroupError> {
        known_member(&self.members, &self.id, member_id)
    }

    /// The static member of `instance`, if it is the one that asks.
    pub(super) fn known_static(&self, member_id: &str, instance: &str) -> Result<&ConsumerMember, ModernGroupError> {
        let member = self.static_member(instance);
        let member = member.ok_or_else(|| ModernGroupError::UnknownInstance(instance.to_owned()))?;
        if member.id != member_id {
            let (instance, holder) = (instance.to_owned(), member.id.clone());
            return Err(ModernGroupError::FencedInstance { member: member_id.to_owned(), instance, holder });
        }
        Ok(member)
    }
}

/// A member without an instance id, made if it may be.
pub(super) fn find_dynamic(
    group: &ConsumerGroup,
    member_id: &str,
    joins: bool,
) -> Result<ConsumerMember, ModernGroupError> {
    match group.known_member(member_id) {
        Ok(member) => Ok(member.clone()),
        Err(_) if joins => Ok(ConsumerMember::new(member_id.to_owned())),
        Err(error) => Err(error),
    }
}

/// A static member. One that joins takes the place of whoever had its instance id before, if that one went.
pub(super) fn find_static(
    group: &ConsumerGroup,
    member_id: &str,
    instance: &str,
    joins: bool,
    is_classic: bool,
    records: &mut Vec<CoordinatorRecord>,
) -> Result<ConsumerMember, ModernGroupError> {
    if !joins {
        return group.known_static(member_id, instance).cloned();
    }
    let Some(holder) = group.static_member(instance) else { return find_dynamic(group, member_id, true) };
    let must_have_left = !is_classic && holder.classic.is_none();
    if must_have_left && holder.epoch != MemberEpoch::LEAVING_FOR_A_WHILE {
        let (instance, holder) = (instance.to_owned(), holder.id.clone());
        return Err(ModernGroupError::UnreleasedInstance { member: member_id.to_owned(), instance, holder });
    }
    let successor = ConsumerMember {
        id: member_id.to_owned(),
        epoch: MemberEpoch::JOINING,
        previous_epoch: MemberEpoch::JOINING,
        ..holder.clone()
    };
    tracing::info!(group = group.id, instance, member = member_id, before = holder.id, "a static member came back");
    records.extend(tombstones(&group.id, &holder.id).map(CoordinatorRecord::Consumer));
    let of = |record: ConsumerRecord| CoordinatorRecord::Consumer(record);
    let (group_id, id) = (group.id.clone(), successor.id.clone());
    records.push(of(ConsumerRecord::Member(group_id.clone(), id.clone(), Some(successor.to_record()))));
    let target = group.target_of(&holder.id).clone();
    records.push(of(ConsumerRecord::MemberTarget(group_id.clone(), id.clone(), Some(target))));
    records.push(of(ConsumerRecord::Current(group_id, id, Some(successor.to_current()))));
    Ok(successor)
}

/// The records that end a member, in the order in which a replay needs them.
pub(super) fn tombstones(group: &str, member: &str) -> impl Iterator<Item = ConsumerRecord> {
    let names = || (group.to_owned(), member.to_owned());
    let ((a, b), (c, d), (e, f)) = (names(), names(), names());
    [ConsumerRecord::Current(a, b, None), ConsumerRecord::MemberTarget(c, d, None), ConsumerRecord::Member(e, f, None)]
        .into_iter()
}

pub(super) fn without_epochs(owned: &OwnedPartitions) -> PartitionSet {
    owned.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}
