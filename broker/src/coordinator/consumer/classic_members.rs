//! Members of the classic protocol in a consumer group, while a group changes from one protocol to the other. They join,
//! ask for their assignment and show that they are alive as in a classic group, but it is the coordinator that assigns, and
//! their generation is their member epoch.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    group::ConsumerGroup,
    heartbeat::{Owned, find_dynamic, find_static},
    member::{ConsumerMember, MemberState},
    migration::Downgrade,
    plan::{Outcome, Plan},
};
use crate::coordinator::{
    Answer, Generation, GroupError, JoinAnswer, JoinRequest, JoinedGroup, LeaveAnswer, LeaveRequest, LeavingMember,
    MemberIdentity, ModernGroupError, Now, RequestId, Shard, SyncAnswer, SyncRequest, SyncedMember,
    modern::TimerChange,
    rebalance::{refused_join, refused_sync, session_key},
    records::ClassicMetadata,
    shard::{Completion, Step},
    subscription::{CONSUMER, NamedPartitions, Subscription, encode_assignment, version_of},
    timers::{TimerAction, TimerKey},
};

/// The key of the time that a member has to join again.
pub(super) fn join_key(group: &str, member: &str) -> TimerKey {
    TimerKey::MemberJoin { group: group.to_owned(), member: member.to_owned() }
}

/// The key of the time that a member has to ask for its assignment.
pub(super) fn sync_key(group: &str, member: &str) -> TimerKey {
    TimerKey::MemberSync { group: group.to_owned(), member: member.to_owned() }
}

impl Shard {
    /// JoinGroup to a consumer group that has members.
    pub(in crate::coordinator) fn join_consumer(&mut self, id: RequestId, request: JoinRequest, step: &mut Step<'_>) {
        let Some(group) = self.consumers.get(&request.group_id) else { return };
        match self.plan_join(group, id, request, step.now) {
            Ok(plan) => self.carry_out(plan, Completion::Consumer, step),
            Err(Refusal { member_id, error }) => step.answer(id, refused_join(&member_id, error)),
        }
    }

    fn plan_join(&self, group: &ConsumerGroup, id: RequestId, request: JoinRequest, now: Now) -> Result<Plan, Refusal> {
        let is_unknown = request.member_id.is_none();
        let member_id = request.member_id.clone().unwrap_or_else(|| request.fresh_id.to_string());
        self.check_room(group, &member_id)?;
        if !group.takes_classic(&request) {
            return Err(GroupError::InconsistentProtocol.into());
        }
        if is_unknown && request.instance_id.is_none() && request.requires_known_member_id {
            return Err(Refusal { member_id, error: GroupError::MemberIdRequired });
        }
        // All protocols of a consumer carry the same subscription.
        let subscription = request.protocols.first().and_then(|first| Subscription::parse(&first.metadata));
        let subscription = subscription.ok_or(GroupError::Unexpected)?;

        let mut records = Vec::new();
        let mut outcome = Outcome::of(&group.id);
        let member = match &request.instance_id {
            None => find_dynamic(group, &member_id, true)?,
            Some(instance) => find_static(group, &member_id, instance, is_unknown, true, &mut records)?,
        };
        let replaced = request.instance_id.as_deref().and_then(|instance| group.static_member(instance));
        let downgrades = replaced.is_some_and(|replaced| self.may_downgrade_in_place_of(group, replaced));
        let protocol = request.protocols.first().map(|first| first.name.clone());
        let updated = classic_member(&member, &request, &subscription);
        let change = self.plan_member(now, group, &member, &updated, None, &mut records, &mut outcome)?;
        let owned = self.owned(&subscription.owned);

        let updated = if downgrades {
            let rebalance = group.assignment_epoch < change.epoch;
            let mut next = updated;
            if !rebalance {
                let partitions = group.inherited_target(&next).clone();
                let target = super::target::MemberTarget { epoch: group.assignment_epoch, partitions };
                next = self.plan_step(
                    group,
                    &next,
                    &target,
                    change.subscription,
                    Some(&owned),
                    &mut records,
                    &mut outcome,
                )?;
            }
            let why = rebalance.then_some("the assignment of the consumer group was out of date");
            let downgrade = Downgrade { gone: &BTreeSet::new(), joining: Some(&next), rebalance: why };
            self.downgrade(group, &downgrade, now, &mut records, &mut outcome);
            next
        } else {
            let target = self.plan_target(now, group, change.epoch, &updated, &mut records);
            self.plan_step(group, &updated, &target, change.subscription, Some(&owned), &mut records, &mut outcome)?
        };

        outcome.timers.push(TimerChange::Cancel(join_key(&group.id, &updated.id)));
        if !downgrades {
            let session = session_key(&group.id, &updated.id);
            outcome.timers.push(TimerChange::Set(session, request.session_timeout, TimerAction::ExpireSession));
            let sync = sync_key(&group.id, &updated.id);
            outcome.timers.push(TimerChange::Set(sync, request.rebalance_timeout, TimerAction::ExpireMember));
        }
        let joined = JoinedGroup {
            generation: Generation::from_wire(updated.epoch.0).unwrap_or_default(),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: protocol,
            leader: String::new(),
            skip_assignment: false,
            members: Vec::new(),
        };
        outcome.answer = Some((id, Answer::Join(JoinAnswer { member_id: updated.id, outcome: Ok(joined) })));
        Ok(Plan { records, outcome })
    }

    /// SyncGroup to a consumer group.
    pub(in crate::coordinator) fn sync_consumer(&mut self, id: RequestId, request: &SyncRequest, step: &mut Step<'_>) {
        match self.assignment_of(request) {
            Ok((member, session_timeout, outcome)) => {
                self.timers.cancel(&sync_key(&request.group_id, &member));
                let at = step.now.elapsed + session_timeout;
                self.timers.set(session_key(&request.group_id, &member), at, TimerAction::ExpireSession);
                step.answer(id, Answer::Sync(SyncAnswer(Ok(outcome))));
            }
            Err(error) => {
                self.call_to_join(&request.group_id, &request.member.member_id, error, step.now);
                step.answer(id, refused_sync(error));
            }
        }
    }

    fn assignment_of(&self, request: &SyncRequest) -> Result<(String, std::time::Duration, SyncedMember), GroupError> {
        let group = self.consumers.get(&request.group_id).ok_or(GroupError::UnknownMemberId)?;
        let (member, classic) = group.classic_member(&request.member)?;
        if request.generation.map(Generation::to_wire) != Some(member.epoch.0) {
            return Err(GroupError::IllegalGeneration);
        }
        let protocol = classic.protocols.first();
        let is_other_type = request.protocol_type.as_deref().is_some_and(|given| given != CONSUMER);
        let is_other_name = request
            .protocol_name
            .as_deref()
            .is_some_and(|given| protocol.is_none_or(|protocol| protocol.name != given));
        if is_other_type || is_other_name {
            return Err(GroupError::InconsistentProtocol);
        }
        // A member that gives partitions up has joined already: it goes on to the newest target by itself.
        if group.assignment_epoch > member.epoch.0 && member.state != MemberState::UnrevokedPartitions {
            return Err(GroupError::RebalanceInProgress);
        }
        let version = protocol.and_then(|protocol| version_of(&protocol.metadata)).unwrap_or(0);
        let mut partitions = NamedPartitions::new();
        for (topic, of_topic) in &member.assigned {
            if let Some(name) = self.cluster.topic_name(*topic) {
                partitions.insert(name.to_owned(), of_topic.keys().copied().collect());
            }
        }
        let outcome = SyncedMember {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: encode_assignment(version, &partitions),
        };
        Ok((member.id.clone(), classic.session_timeout, outcome))
    }

    /// Heartbeat to a consumer group: also how its classic members learn that they have to join again.
    pub(in crate::coordinator) fn heartbeat_of_classic(
        &mut self,
        now: Now,
        group_id: &str,
        identity: &MemberIdentity,
        generation: Option<Generation>,
    ) -> Result<(), GroupError> {
        let group = self.consumers.get(group_id).ok_or(GroupError::UnknownMemberId)?;
        let (member, classic) = group.classic_member(identity)?;
        if generation.map(Generation::to_wire) != Some(member.epoch.0) {
            return Err(GroupError::IllegalGeneration);
        }
        let must_join = member.epoch.0 < group.assignment_epoch
            || member.state == MemberState::UnrevokedPartitions
            || member.state == MemberState::UnreleasedPartitions && !group.waits_for_release(member);
        let at = now.elapsed + classic.session_timeout;
        self.timers.set(session_key(group_id, &identity.member_id), at, TimerAction::ExpireSession);
        if must_join {
            self.call_to_join(group_id, &identity.member_id, GroupError::RebalanceInProgress, now);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// A member that was told to join again has its rebalance timeout to do so.
    fn call_to_join(&mut self, group_id: &str, member_id: &str, error: GroupError, now: Now) {
        let member = self.consumers.get(group_id).and_then(|group| group.members.get(member_id));
        let Some(member) = member.filter(|_| error == GroupError::RebalanceInProgress) else { return };
        let key = join_key(group_id, member_id);
        if !self.timers.is_set(&key) {
            self.timers.set(key, now.elapsed + member.rebalance_timeout(), TimerAction::ExpireMember);
        }
    }

    /// LeaveGroup to a consumer group: members of either protocol go, or are removed by an administrator.
    pub(in crate::coordinator) fn leave_consumer(
        &mut self,
        id: RequestId,
        request: &LeaveRequest,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.consumers.get(&request.group_id) else { return };
        let found: Vec<Result<&ConsumerMember, GroupError>> =
            request.members.iter().map(|leaving| group.leaving_member(leaving)).collect();
        let gone: BTreeSet<String> = found.iter().flatten().map(|member| member.id.clone()).collect();
        let outcomes = found.into_iter().map(|found| found.map(drop)).collect();
        let answer = Some((id, Answer::Leave(LeaveAnswer(Ok(outcomes)))));
        let plan = self.plan_fence(group, &gone, answer, step.now);
        self.carry_out(plan, Completion::Consumer, step);
    }

    /// Partitions by topic id; topics that are gone are left out.
    fn owned(&self, named: &NamedPartitions) -> Owned {
        let known =
            named.iter().filter_map(|(name, partitions)| Some((self.cluster.topic(name)?.id, partitions.clone())));
        Owned { partitions: known.collect(), has_impossible: false }
    }
}

/// Why a join is refused, and the member id in the answer.
struct Refusal {
    member_id: String,
    error: GroupError,
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Refusal {
        Refusal { member_id: String::new(), error }
    }
}

impl From<ModernGroupError> for Refusal {
    fn from(error: ModernGroupError) -> Refusal {
        error.kind().into()
    }
}

/// The member with what its join says of it.
fn classic_member(member: &ConsumerMember, request: &JoinRequest, subscription: &Subscription) -> ConsumerMember {
    ConsumerMember {
        instance_id: request.instance_id.clone().or_else(|| member.instance_id.clone()),
        rack_id: subscription.rack.clone().or_else(|| member.rack_id.clone()),
        rebalance_timeout_ms: i32::try_from(request.rebalance_timeout.as_millis()).unwrap_or(i32::MAX),
        topics: subscription.topics.clone(),
        regex: Some(String::new()),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        classic: Some(ClassicMetadata {
            session_timeout: request.session_timeout,
            protocols: request.protocols.clone(),
        }),
        ..member.clone()
    }
}

impl ConsumerGroup {
    /// Whether a protocol of the join is understood by all classic members.
    fn takes_classic(&self, request: &JoinRequest) -> bool {
        if request.protocol_type != CONSUMER {
            return false;
        }
        let mut supporters: HashMap<&str, usize> = HashMap::new();
        let mut count = 0;
        for classic in self.members.values().filter_map(|member| member.classic.as_ref()) {
            count += 1;
            // A name given twice counts once.
            let names: HashSet<&str> = classic.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
            names.into_iter().for_each(|name| *supporters.entry(name).or_default() += 1);
        }
        let understood = |name: &str| supporters.get(name).copied().unwrap_or_default() == count;
        request.protocols.iter().any(|protocol| understood(&protocol.name))
    }

    fn classic_member(&self, identity: &MemberIdentity) -> Result<(&ConsumerMember, &ClassicMetadata), GroupError> {
        let member = match &identity.instance_id {
            None => self.known_member(&identity.member_id),
            Some(instance) => self.known_static(&identity.member_id, instance),
        };
        let member = member.map_err(|error| error.kind())?;
        let classic = member.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
        Ok((member, classic))
    }

    fn leaving_member(&self, leaving: &LeavingMember) -> Result<&ConsumerMember, GroupError> {
        let MemberIdentity { member_id, instance_id } = &leaving.member;
        let found = match instance_id {
            None => self.known_member(member_id),
            // An administrator removes whoever holds the instance id.
            Some(instance) if member_id.is_empty() => {
                return self.static_member(instance).ok_or(GroupError::UnknownMemberId);
            }
            Some(instance) => self.known_static(member_id, instance),
        };
        found.map_err(|error| error.kind())
    }
}
