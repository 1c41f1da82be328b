//! A running group changes its protocol (`group.consumer.migration.policy`): up when the first member of the consumer
//! protocol joins, down when the last one goes.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    group::ConsumerGroup,
    member::{ConsumerMember, MemberState, OwnedPartitions},
    plan::Outcome,
};
use crate::coordinator::{
    Generation, GroupError, MemberEpoch, ModernGroupError, Now, Shard,
    assignor::PartitionSet,
    cluster::metadata_hash,
    group::{Group, Member},
    modern::TimerChange,
    rebalance::{refused_join, refused_sync, session_key},
    records::{ClassicMetadata, ConsumerRecord, CoordinatorRecord, GroupEpochRecord, TargetRecord},
    shard::Step,
    subscription::{MemberAssignment, NamedPartitions, Subscription, encode_assignment, version_of},
    timers::TimerAction,
};

/// Who stays when a consumer group becomes a classic one.
pub(super) struct Downgrade<'a> {
    /// Those who go.
    pub(super) gone: &'a BTreeSet<String>,
    /// A static member that takes the place of the one who held its instance id.
    pub(super) joining: Option<&'a ConsumerMember>,
    /// Why the members have to rebalance at once, if they have to.
    pub(super) rebalance: Option<&'static str>,
}

/// The classic group that takes the place of a consumer group.
#[derive(Debug)]
pub(in crate::coordinator) struct Downgraded {
    group: Group,
    rebalance: Option<&'static str>,
}

impl Shard {
    /// The consumer group that a classic group becomes, with the records that make it so.
    pub(super) fn upgrade(
        &self,
        classic: &Group,
        records: &mut Vec<CoordinatorRecord>,
        outcome: &mut Outcome,
    ) -> Result<ConsumerGroup, ModernGroupError> {
        let refused = |why| ModernGroupError::NoUpgrade { group: classic.id.clone(), why };
        if !self.config.migration.upgrades() {
            return Err(refused("online upgrade is disabled"));
        }
        if !classic.uses_consumer_protocol() {
            return Err(refused("the group does not use the consumer embedded protocol"));
        }
        if classic.members.len() > self.config.consumer_max_size {
            return Err(refused("the group size exceeds the consumer group maximum size"));
        }
        let mut group = ConsumerGroup::new(classic.id.clone());
        group.epoch = classic.generation.to_wire();
        group.assignment_epoch = group.epoch;
        for member in classic.members.values() {
            let (member, target) = self.upgraded_member(classic, member).map_err(refused)?;
            group.targets.insert(member.id.clone(), target);
            group.put_member(member);
        }
        let topics = group.topics_of(group.members.values(), &BTreeSet::new());
        group.metadata_hash = metadata_hash(self.cluster.as_ref(), &topics);
        tracing::info!(group = group.id, "a classic group becomes a consumer group");
        records.push(CoordinatorRecord::Group(group.id.clone(), None));
        records.extend(group.creation_records().into_iter().map(CoordinatorRecord::Consumer));
        for member in group.members.values() {
            let timeout = member.classic_session_timeout().unwrap_or_default();
            let key = session_key(&group.id, &member.id);
            outcome.timers.push(TimerChange::Set(key, timeout, TimerAction::ExpireSession));
        }
        Ok(group)
    }

    fn upgraded_member(
        &self,
        classic: &Group,
        member: &Member,
    ) -> Result<(ConsumerMember, PartitionSet), &'static str> {
        const MALFORMED: &str = "the embedded consumer protocol is malformed";
        let assignment = MemberAssignment::parse(&member.assignment).ok_or(MALFORMED)?;
        if assignment.has_user_data {
            return Err(
                "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default \
                        assignor before re-attempting the upgrade",
            );
        }
        let chosen = classic.protocol_name.as_deref();
        let metadata = match chosen {
            Some(name) => member.metadata(name),
            // The group never formed a generation: all protocols of a consumer say the same.
            None => member.protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default(),
        };
        let subscription = Subscription::parse(&metadata).ok_or(MALFORMED)?;
        let known = assignment.partitions.into_iter();
        let target: PartitionSet =
            known.filter_map(|(name, partitions)| Some((self.cluster.topic(&name)?.id, partitions))).collect();
        let epoch = classic.generation.to_wire();
        let mut assigned = OwnedPartitions::new();
        for (topic, partitions) in &target {
            assigned.insert(*topic, partitions.iter().map(|partition| (*partition, epoch)).collect());
        }
        let upgraded = ConsumerMember {
            epoch: MemberEpoch(epoch),
            previous_epoch: MemberEpoch(epoch),
            state: MemberState::Stable,
            instance_id: member.instance_id.clone(),
            rack_id: subscription.rack,
            rebalance_timeout_ms: i32::try_from(member.rebalance_timeout.as_millis()).unwrap_or(i32::MAX),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: subscription.topics,
            assigned,
            classic: Some(ClassicMetadata {
                session_timeout: member.session_timeout,
                protocols: member.protocols.clone(),
            }),
            ..ConsumerMember::new(member.id.clone())
        };
        Ok((upgraded, target))
    }

    /// Whoever waits in a classic group that is about to become a consumer group is called to join anew.
    pub(super) fn release_classic(&mut self, group_id: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let members: Vec<String> = group.members.keys().cloned().collect();
        for member in members {
            if let Some(request) = group.take_join(&member) {
                step.answer(request, refused_join(&member, GroupError::RebalanceInProgress));
            }
            if let Some(request) = group.members.get_mut(&member).and_then(|member| member.awaiting_sync.take()) {
                step.answer(request, refused_sync(GroupError::RebalanceInProgress));
            }
        }
    }

    /// Whether only members of the classic protocol are left without `gone`, and the group may follow them.
    pub(super) fn may_downgrade_without(&self, group: &ConsumerGroup, gone: &BTreeSet<String>) -> bool {
        let mut left = group.members.values().filter(|member| !gone.contains(&member.id)).peekable();
        left.peek().is_some()
            && left.all(|member| member.classic.is_some())
            && self.config.migration.downgrades()
            && group.member_count() - gone.len() <= self.config.max_size
    }

    /// Whether only members of the classic protocol are left once `replaced` speaks it too.
    pub(super) fn may_downgrade_in_place_of(&self, group: &ConsumerGroup, replaced: &ConsumerMember) -> bool {
        replaced.classic.is_none()
            && group.classic_members().count() == group.member_count() - 1
            && self.config.migration.downgrades()
            && group.member_count() <= self.config.max_size
    }

    pub(super) fn downgrade(
        &self,
        group: &ConsumerGroup,
        change: &Downgrade<'_>,
        now: Now,
        records: &mut Vec<CoordinatorRecord>,
        outcome: &mut Outcome,
    ) {
        let replaced = change.joining.and_then(|joining| group.static_members.get(joining.instance_id.as_deref()?));
        // The records of the change so far speak of the new member already: it, not the old one, is to be taken back.
        let ids =
            group.members.keys().filter(|id| Some(*id) != replaced).chain(change.joining.map(|joining| &joining.id));
        records.extend(group.end_records(ids).into_iter().map(CoordinatorRecord::Consumer));
        let staying =
            group.members.values().filter(|member| !change.gone.contains(&member.id) && Some(&member.id) != replaced);
        let members = staying.chain(change.joining).filter_map(downgraded_member).collect();
        let classic = Group::formed(group.id.clone(), Generation(group.epoch.unsigned_abs()), now.wall, members);
        let classic = self.with_assignments(group, classic, replaced, change.joining);
        tracing::info!(group = group.id, "a consumer group becomes a classic group");
        let record = classic.to_record(|member| member.assignment.clone());
        records.push(CoordinatorRecord::Group(group.id.clone(), Some(record)));
        outcome.soft.downgraded = Some(Box::new(Downgraded { group: classic, rebalance: change.rebalance }));
    }

    /// The classic group, each member with its target of the consumer group in the version that it subscribed in.
    fn with_assignments(
        &self,
        group: &ConsumerGroup,
        mut classic: Group,
        replaced: Option<&String>,
        joining: Option<&ConsumerMember>,
    ) -> Group {
        let protocol = classic.protocol_name.clone().unwrap_or_default();
        for member in classic.members.values_mut() {
            let is_joining = joining.is_some_and(|joining| joining.id == member.id);
            let holder = replaced.filter(|_| is_joining).unwrap_or(&member.id);
            let mut partitions = NamedPartitions::new();
            for (topic, of_topic) in group.target_of(holder) {
                if let Some(name) = self.cluster.topic_name(*topic) {
                    partitions.insert(name.to_owned(), of_topic.clone());
                }
            }
            let version = version_of(&member.metadata(&protocol)).unwrap_or(0);
            member.assignment = encode_assignment(version, &partitions);
        }
        classic
    }

    /// The records of a downgrade are in the log: the classic group serves from now on.
    pub(super) fn install_classic(&mut self, downgraded: Downgraded, step: &mut Step<'_>) {
        let Downgraded { group, rebalance } = downgraded;
        let group_id = group.id.clone();
        for member in group.members.values() {
            let at = step.now.elapsed + member.session_timeout;
            self.timers.set(session_key(&group_id, &member.id), at, TimerAction::ExpireSession);
        }
        self.groups.insert(group_id.clone(), group);
        if let Some(reason) = rebalance {
            self.prepare_rebalance(&group_id, reason, step);
        }
    }
}

impl ConsumerGroup {
    /// The records that make this group.
    fn creation_records(&self) -> Vec<ConsumerRecord> {
        let id = || self.id.clone();
        let mut records = Vec::new();
        let described = self.members.values();
        records
            .extend(described.map(|member| ConsumerRecord::Member(id(), member.id.clone(), Some(member.to_record()))));
        let epoch = GroupEpochRecord { epoch: self.epoch, metadata_hash: self.metadata_hash };
        records.push(ConsumerRecord::Group(id(), Some(epoch)));
        let targets = self.targets.iter();
        records.extend(
            targets.map(|(member, target)| ConsumerRecord::MemberTarget(id(), member.clone(), Some(target.clone()))),
        );
        let target = TargetRecord { epoch: self.assignment_epoch, assigned_at: self.assigned_at };
        records.push(ConsumerRecord::Target(id(), Some(target)));
        let current = self.members.values();
        records
            .extend(current.map(|member| ConsumerRecord::Current(id(), member.id.clone(), Some(member.to_current()))));
        records
    }

    /// The records that end this group and the members `ids`, in the order in which a replay needs them.
    pub(in crate::coordinator) fn end_records<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Vec<ConsumerRecord> {
        let id = || self.id.clone();
        let ids: Vec<&String> = ids.collect();
        let mut records: Vec<ConsumerRecord> = Vec::new();
        records.extend(ids.iter().map(|member| ConsumerRecord::Current(id(), (*member).clone(), None)));
        records.extend(ids.iter().map(|member| ConsumerRecord::MemberTarget(id(), (*member).clone(), None)));
        records.push(ConsumerRecord::Target(id(), None));
        records.extend(ids.iter().map(|member| ConsumerRecord::Member(id(), (*member).clone(), None)));
        records.extend(self.regexes.keys().map(|pattern| ConsumerRecord::Regex(id(), pattern.clone(), None)));
        records.push(ConsumerRecord::TopicsMetadata(id(), false));
        records.push(ConsumerRecord::Group(id(), None));
        records
    }
}

/// The member as a classic group keeps it. `None` if it does not speak the classic protocol.
fn downgraded_member(member: &ConsumerMember) -> Option<Member> {
    let classic = member.classic.clone()?;
    Some(Member {
        id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout: member.rebalance_timeout(),
        session_timeout: classic.session_timeout,
        protocols: classic.protocols,
        assignment: Bytes::new(),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    })
}
