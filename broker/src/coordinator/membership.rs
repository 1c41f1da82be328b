//! Members of classic groups: join, sync, heartbeat. Leaving is a matter of its own ([`super::departure`]).

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    Answer, Effect, Generation, GroupConfig, GroupError, GroupState, JoinAnswer, JoinRequest, MemberIdentity, Now,
    RequestId, Shard, SyncAnswer, SyncRequest,
    group::{Group, Member},
    locks::Task,
    messages::{JoinedGroup, SyncedMember},
    rebalance::{joined, refused_join, refused_sync, session_key, sync_key},
    records::CoordinatorRecord,
    shard::{Completion, StaticRejoin, Step},
    timers::TimerAction,
};

/// Group ids are written with a 16-bit length, and name a group only if they are not empty.
pub(super) fn is_valid_group_id(group_id: &str) -> bool {
    !group_id.is_empty() && group_id.len() <= i16::MAX as usize
}

impl Shard {
    /// A member joins, for the first time or again. Answered with [`Answer::Join`], often only when the rebalance ends.
    pub fn join(&mut self, now: Now, id: RequestId, request: JoinRequest, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        let member_id = request.member_id.clone().unwrap_or_default();
        let sessions = self.config.min_session_timeout..=self.config.max_session_timeout;
        let refusal = if !is_valid_group_id(&request.group_id) {
            Some(GroupError::InvalidGroupId)
        } else if !sessions.contains(&request.session_timeout) {
            Some(GroupError::InvalidSessionTimeout)
        } else {
            None
        };
        if let Some(error) = refusal {
            return step.answer(id, refused_join(&member_id, error));
        }
        let group_id = request.group_id.clone();
        let need = self.need_of(&group_id);
        self.run_or_wait(&group_id, need, Task::Join(id, Box::new(request)), &mut step);
    }

    /// Joins a group of whatever type it is.
    pub(super) fn join_any(&mut self, id: RequestId, request: JoinRequest, step: &mut Step<'_>) {
        if self.shares.contains_key(&request.group_id) {
            return step.answer(id, refused_join("", GroupError::InconsistentProtocol));
        }
        let end_records: Vec<CoordinatorRecord> =
            match (self.consumers.get(&request.group_id), self.streams.get(&request.group_id)) {
                (None, None) => return self.join_classic(id, request, step),
                (Some(group), _) if !group.is_empty() => return self.join_consumer(id, request, step),
                (Some(group), _) => {
                    group.end_records([].into_iter()).into_iter().map(CoordinatorRecord::Consumer).collect()
                }
                // Only Kafka Streams itself joins such a group, and by another request.
                (None, Some(group)) if !group.is_empty() => {
                    return step.answer(id, refused_join("", GroupError::InconsistentProtocol));
                }
                (None, Some(group)) => group.end_records().into_iter().map(CoordinatorRecord::Streams).collect(),
            };
        // Nobody is in it: it ends, and a classic one takes its place.
        let refusal = if request.member_id.is_some() {
            Some(GroupError::UnknownMemberId)
        } else if !Group::new(String::new(), step.now.wall).supports(&request.protocol_type, &request.protocols) {
            Some(GroupError::InconsistentProtocol)
        } else {
            None
        };
        if let Some(error) = refusal {
            return step.answer(id, refused_join(request.member_id.as_deref().unwrap_or_default(), error));
        }
        self.append(end_records, Completion::MadeRoom(id, Box::new(request)), step);
    }

    fn join_classic(&mut self, id: RequestId, request: JoinRequest, step: &mut Step<'_>) {
        let member_id = request.member_id.clone().unwrap_or_default();
        let is_new_group = !self.groups.contains_key(&request.group_id);
        if is_new_group {
            if request.member_id.is_some() {
                return step.answer(id, refused_join(&member_id, GroupError::UnknownMemberId));
            }
            let group = Group::new(request.group_id.clone(), step.now.wall);
            if !group.supports(&request.protocol_type, &request.protocols) {
                return step.answer(id, refused_join("", GroupError::InconsistentProtocol));
            }
            self.groups.insert(request.group_id.clone(), group);
        }
        let Some(group) = self.groups.get(&request.group_id) else { return };
        let group_id = request.group_id.clone();
        if !accepts(group, &member_id, self.config.max_size) {
            self.drop_member(&group_id, &member_id, step);
            step.answer(id, refused_join("", GroupError::MaxSizeReached));
            return self.complete_join_if_all_joined(&group_id, step);
        }
        if group.state == GroupState::Dead {
            return step.answer(id, refused_join(&member_id, GroupError::CoordinatorNotAvailable));
        }
        if !group.supports(&request.protocol_type, &request.protocols) {
            return step.answer(id, refused_join(&member_id, GroupError::InconsistentProtocol));
        }
        match request.member_id {
            None => self.join_new(id, request, step),
            Some(_) => self.join_known(id, request, member_id, step),
        }
        if is_new_group && let Some(group) = self.groups.get(&group_id) {
            // The group exists from here on, so its log says so, before any generation is formed.
            let records = vec![CoordinatorRecord::Group(group_id.clone(), Some(group.to_empty_record()))];
            self.append(records, Completion::NewGroup(group_id), step);
        }
    }

    fn join_new(&mut self, id: RequestId, request: JoinRequest, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(&request.group_id) else { return };
        let prefix = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let new_id = format!("{prefix}-{}", request.fresh_id);
        match &request.instance_id {
            Some(instance) => match group.static_members.get(instance).cloned() {
                Some(old_id) => self.rejoin_static(id, request, &old_id, new_id, step),
                None => self.add_member(id, request, new_id, step),
            },
            None if request.requires_known_member_id => {
                // A client that never hears its id cannot fill the group with members that are gone (KIP-394).
                group.pending_join.insert(new_id.clone());
                let at = step.now.elapsed + request.session_timeout;
                self.timers.set(session_key(&request.group_id, &new_id), at, TimerAction::ExpireSession);
                step.answer(id, refused_join(&new_id, GroupError::MemberIdRequired));
            }
            None => self.add_member(id, request, new_id, step),
        }
    }

    fn add_member(&mut self, id: RequestId, request: JoinRequest, member_id: String, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(&request.group_id) else { return };
        if group.state == GroupState::PreparingRebalance && group.previous_state == GroupState::Empty {
            group.new_member_added = true;
        }
        if group.members.is_empty() {
            group.protocol_type = Some(request.protocol_type);
        }
        group.add(Member {
            id: member_id.clone(),
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout: request.rebalance_timeout,
            session_timeout: request.session_timeout,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(id),
            awaiting_sync: None,
            is_new: true,
        });
        let at = step.now.elapsed + GroupConfig::NEW_MEMBER_JOIN_TIMEOUT;
        self.timers.set(session_key(&request.group_id, &member_id), at, TimerAction::ExpireSession);
        let reason = request.reason.as_deref().unwrap_or("a member joined");
        self.rebalance_or_complete_join(&request.group_id, reason, step);
    }

    fn join_known(&mut self, id: RequestId, request: JoinRequest, member_id: String, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(&request.group_id) else { return };
        if group.pending_join.contains(&member_id) {
            // Ids are only given out to dynamic members.
            return match request.instance_id {
                Some(_) => step.answer(id, refused_join("", GroupError::Unexpected)),
                None => self.add_member(id, request, member_id, step),
            };
        }
        let identity = MemberIdentity { member_id, instance_id: request.instance_id.clone() };
        if let Err(error) = group.check_member(&identity) {
            return step.answer(id, refused_join(&identity.member_id, error));
        }
        let member_id = identity.member_id;
        let is_unchanged = group.members.get(&member_id).is_some_and(|member| member.protocols == request.protocols);
        match group.state {
            // It may only have missed the answer: tell it again.
            GroupState::CompletingRebalance if is_unchanged => step.answer(id, joined(group, &member_id)),
            // A follower finds its assignment by asking for it; a leader that joins wants to assign anew.
            GroupState::Stable if is_unchanged && !group.is_leader(&member_id) => {
                step.answer(id, joined(group, &member_id));
            }
            GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {
                let superseded = group.update(
                    &member_id,
                    request.protocols,
                    request.rebalance_timeout,
                    request.session_timeout,
                    Some(id),
                );
                Shard::supersede_join(&member_id, superseded, step);
                let reason = request.reason.as_deref().unwrap_or("a member joined again");
                self.rebalance_or_complete_join(&request.group_id, reason, step);
            }
            GroupState::Empty | GroupState::Dead => {
                step.answer(id, refused_join(&member_id, GroupError::UnknownMemberId));
            }
        }
    }

    /// A static member comes back without its id: it takes the place, and the assignment, of who held its instance id.
    fn rejoin_static(
        &mut self,
        id: RequestId,
        request: JoinRequest,
        old_id: &str,
        new_id: String,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.groups.get_mut(&request.group_id) else { return };
        let instance = request.instance_id.unwrap_or_default();
        let leader_before = group.leader.clone();
        let Some(old) = group.replace_static(&instance, old_id, &new_id) else { return };
        // Should the client of before still be there, it learns that it has been replaced.
        if let Some(waiting) = old.awaiting_join {
            step.answer(waiting, refused_join(old_id, GroupError::FencedInstanceId));
        }
        if let Some(waiting) = old.awaiting_sync {
            step.answer(waiting, refused_sync(GroupError::FencedInstanceId));
        }
        group.update(&new_id, request.protocols, request.rebalance_timeout, request.session_timeout, Some(id));
        self.timers.cancel(&session_key(&request.group_id, old_id));
        let at = step.now.elapsed + request.session_timeout;
        self.timers.set(session_key(&request.group_id, &new_id), at, TimerAction::ExpireSession);

        let keeps_protocol = group.protocol_name.is_some() && group.select_protocol() == group.protocol_name;
        let reason = request.reason.as_deref().unwrap_or("a static member joined again");
        match group.state {
            GroupState::Stable if keeps_protocol => {
                let record = group.to_record(|member| member.assignment.clone());
                let records = vec![CoordinatorRecord::Group(request.group_id.clone(), Some(record))];
                let rejoin = StaticRejoin {
                    group: request.group_id,
                    instance,
                    new_id,
                    old,
                    leader_before,
                    supports_skip_assignment: request.supports_skip_assignment,
                };
                self.append(records, Completion::StaticRejoin(Box::new(rejoin)), step);
            }
            GroupState::Stable => self.rebalance_or_complete_join(&request.group_id, reason, step),
            // The leader may already be assigning to the id of before.
            GroupState::CompletingRebalance => self.prepare_rebalance(&request.group_id, reason, step),
            GroupState::PreparingRebalance | GroupState::Empty | GroupState::Dead => {
                self.complete_join_if_all_joined(&request.group_id, step);
            }
        }
    }

    pub(super) fn static_rejoin_appended(
        &mut self,
        rejoin: StaticRejoin,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        let StaticRejoin { group: group_id, instance, new_id, old, leader_before, supports_skip_assignment } = rejoin;
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        if result.is_ok() && group.state != GroupState::Stable {
            // A rebalance began meanwhile: this join is part of it, and is answered with the others.
            return;
        }
        let Some(request) = group.take_join(&new_id) else { return };
        if let Err(error) = result {
            // The log still knows the old id, so memory goes back to it.
            group.update(&new_id, old.protocols, old.rebalance_timeout, old.session_timeout, None);
            group.replace_static(&instance, &new_id, &old.id);
            self.timers.cancel(&session_key(&group_id, &new_id));
            let at = step.now.elapsed + old.session_timeout;
            self.timers.set(session_key(&group_id, &old.id), at, TimerAction::ExpireSession);
            return step.answer(request, refused_join("", error));
        }
        let is_leader = group.is_leader(&new_id);
        let (leader, members) = if supports_skip_assignment {
            let members = if is_leader { group.members_for_leader() } else { Vec::new() };
            (group.leader.clone(), members)
        } else {
            (leader_before, Vec::new())
        };
        let outcome = JoinedGroup {
            generation: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            leader: leader.unwrap_or_default(),
            skip_assignment: supports_skip_assignment && is_leader,
            members,
        };
        step.answer(request, Answer::Join(JoinAnswer { member_id: new_id, outcome: Ok(outcome) }));
    }

    /// A group whose first record the log refused never existed: whoever joined it meanwhile has to start over.
    pub(super) fn abandon_new_group(&mut self, group_id: &str, error: GroupError, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.generation != Generation(0) || self.offsets.contains_key(group_id) {
            return;
        }
        let member_ids: Vec<String> = group.members.keys().cloned().collect();
        for member_id in member_ids {
            if let Some(request) = group.take_join(&member_id) {
                step.answer(request, refused_join("", error));
            }
        }
        self.remove_group(group_id, step.now);
    }

    /// A member asks for its assignment. Answered with [`Answer::Sync`] once the leader's part is in the log.
    pub fn sync(&mut self, now: Now, id: RequestId, request: SyncRequest, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        if !is_valid_group_id(&request.group_id) {
            return step.answer(id, refused_sync(GroupError::InvalidGroupId));
        }
        let group_id = request.group_id.clone();
        let need = self.need_of(&group_id);
        self.run_or_wait(&group_id, need, Task::Sync(id, Box::new(request)), &mut step);
    }

    /// A member of a group of whatever type asks for its assignment.
    pub(super) fn sync_any(&mut self, id: RequestId, request: SyncRequest, step: &mut Step<'_>) {
        if self.consumers.contains_key(&request.group_id) {
            return self.sync_consumer(id, &request, step);
        }
        let Some(group) = self.groups.get_mut(&request.group_id) else {
            return step.answer(id, refused_sync(GroupError::UnknownMemberId));
        };
        if let Err(error) = check_sync(group, &request) {
            return step.answer(id, refused_sync(error));
        }
        let member_id = &request.member.member_id;
        group.pending_sync.remove(member_id);
        let has_all_synced = group.pending_sync.is_empty();
        let is_leader = group.is_leader(member_id);
        let is_completing = group.state == GroupState::CompletingRebalance;
        let Some(member) = group.members.get_mut(member_id) else { return };
        if is_completing {
            if let Some(superseded) = member.awaiting_sync.replace(id) {
                step.answer(superseded, refused_sync(GroupError::RebalanceInProgress));
            }
        } else {
            let outcome = SyncedMember {
                assignment: member.assignment.clone(),
                protocol_type: group.protocol_type.clone(),
                protocol_name: group.protocol_name.clone(),
            };
            step.answer(id, Answer::Sync(SyncAnswer(Ok(outcome))));
        }
        if has_all_synced {
            self.timers.cancel(&sync_key(&request.group_id));
        }
        if is_completing && is_leader {
            let Some(group) = self.groups.get(&request.group_id) else { return };
            // Members that the leader left out get an empty assignment; strangers are ignored.
            let assignments: HashMap<String, Bytes> = request.assignments.into_iter().collect();
            let record = group.to_record(|member| assignments.get(&member.id).cloned().unwrap_or_default());
            let records = vec![CoordinatorRecord::Group(request.group_id.clone(), Some(record))];
            let generation = group.generation;
            let then = Completion::Assignment { group: request.group_id, generation, assignments };
            self.append(records, then, step);
        }
    }

    /// A member shows that it is alive.
    ///
    /// # Errors
    /// [`GroupError::RebalanceInProgress`] calls it to join again; the others say why it is no member any more.
    pub fn heartbeat(
        &mut self,
        now: Now,
        group_id: &str,
        member: &MemberIdentity,
        generation: Option<Generation>,
    ) -> Result<(), GroupError> {
        if !is_valid_group_id(group_id) {
            return Err(GroupError::InvalidGroupId);
        }
        if self.consumers.contains_key(group_id) {
            return self.heartbeat_of_classic(now, group_id, member, generation);
        }
        let group = self.groups.get(group_id).ok_or(GroupError::UnknownMemberId)?;
        if group.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        group.check_member(member)?;
        if generation != Some(group.generation) {
            return Err(GroupError::IllegalGeneration);
        }
        let is_rebalancing = group.state == GroupState::PreparingRebalance;
        self.extend_session(now, group_id, &member.member_id);
        if is_rebalancing { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
    }

    pub(super) fn extend_session(&mut self, now: Now, group_id: &str, member_id: &str) {
        let member = self.groups.get(group_id).and_then(|group| group.members.get(member_id));
        if let Some(member) = member {
            let at = now.elapsed + member.session_timeout;
            self.timers.set(session_key(group_id, member_id), at, TimerAction::ExpireSession);
        }
    }
}

/// Whether there is room. While a rebalance is on, those who joined count, not those who may: if the limit was
/// lowered, the last to come back are left out (KIP-389).
fn accepts(group: &Group, member_id: &str, max_size: usize) -> bool {
    let member = group.members.get(member_id);
    match group.state {
        GroupState::Empty | GroupState::Dead => true,
        GroupState::PreparingRebalance => {
            member.is_some_and(|member| member.awaiting_join.is_some()) || group.awaiting_join < max_size
        }
        GroupState::CompletingRebalance | GroupState::Stable => member.is_some() || group.members.len() < max_size,
    }
}

fn check_sync(group: &Group, request: &SyncRequest) -> Result<(), GroupError> {
    match group.state {
        GroupState::Dead => return Err(GroupError::CoordinatorNotAvailable),
        GroupState::Empty => return Err(GroupError::UnknownMemberId),
        GroupState::PreparingRebalance | GroupState::CompletingRebalance | GroupState::Stable => {}
    }
    group.check_member(&request.member)?;
    if request.generation != Some(group.generation) {
        return Err(GroupError::IllegalGeneration);
    }
    let differs = |given: &Option<String>, own: &Option<String>| given.is_some() && own.is_some() && given != own;
    if differs(&request.protocol_type, &group.protocol_type) || differs(&request.protocol_name, &group.protocol_name) {
        return Err(GroupError::InconsistentProtocol);
    }
    if group.state == GroupState::PreparingRebalance {
        return Err(GroupError::RebalanceInProgress);
    }
    Ok(())
}
