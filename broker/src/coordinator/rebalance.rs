//! How a group goes from one generation to the next: who is waited for, for how long, and what follows.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;

use super::{
    Answer, Generation, GroupError, GroupState, JoinAnswer, RequestId, Shard, SyncAnswer,
    group::Group,
    messages::{JoinedGroup, SyncedMember},
    records::CoordinatorRecord,
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

pub(super) fn join_key(group: &str) -> TimerKey {
    TimerKey::Join { group: group.to_owned() }
}

pub(super) fn sync_key(group: &str) -> TimerKey {
    TimerKey::Sync { group: group.to_owned() }
}

pub(super) fn session_key(group: &str, member: &str) -> TimerKey {
    TimerKey::Session { group: group.to_owned(), member: member.to_owned() }
}

impl Shard {
    pub(super) fn rebalance_or_complete_join(&mut self, group_id: &str, reason: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get(group_id) else { return };
        if group.can_rebalance() {
            self.prepare_rebalance(group_id, reason, step);
        } else {
            self.complete_join_if_all_joined(group_id, step);
        }
    }

    /// Calls all members to join the next generation.
    pub(super) fn prepare_rebalance(&mut self, group_id: &str, reason: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get(group_id) else { return };
        let is_first = group.state == GroupState::Empty;
        if group.state == GroupState::CompletingRebalance {
            self.distribute(group_id, &HashMap::new(), Err(GroupError::RebalanceInProgress), step);
        }
        self.timers.cancel(&sync_key(group_id));
        let Some(group) = self.groups.get_mut(group_id) else { return };
        group.pending_sync.clear();
        group.transition(GroupState::PreparingRebalance, step.now.wall);
        tracing::info!(group = group_id, generation = group.generation.0, reason, "preparing to rebalance");
        if is_first {
            // Members of a new group tend to start together: one rebalance for all of them (KIP-134).
            let delay = self.config.initial_rebalance_delay;
            let remaining = group.rebalance_timeout().saturating_sub(delay);
            let action = TimerAction::CompleteInitialJoin { delay, remaining };
            self.timers.set(join_key(group_id), step.now.elapsed + delay, action);
        } else if group.has_all_joined() {
            self.complete_join(group_id, step);
        } else {
            let at = step.now.elapsed + group.rebalance_timeout();
            self.timers.set(join_key(group_id), at, TimerAction::CompleteJoin);
        }
    }

    pub(super) fn complete_initial_join(
        &mut self,
        group_id: &str,
        delay: Duration,
        remaining: Duration,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if !group.new_member_added || remaining.is_zero() {
            return self.complete_join(group_id, step);
        }
        group.new_member_added = false;
        let next = self.config.initial_rebalance_delay.min(remaining);
        let action = TimerAction::CompleteInitialJoin { delay: next, remaining: remaining.saturating_sub(delay) };
        self.timers.set(join_key(group_id), step.now.elapsed + next, action);
    }

    /// Goes on as soon as nobody is missing; the first rebalance of a group waits for its time instead.
    pub(super) fn complete_join_if_all_joined(&mut self, group_id: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get(group_id) else { return };
        let waits = group.state == GroupState::PreparingRebalance && group.previous_state != GroupState::Empty;
        if waits && group.has_all_joined() {
            self.complete_join(group_id, step);
        }
    }

    /// The time to join is over: forms the next generation from those who joined.
    pub(super) fn complete_join(&mut self, group_id: &str, step: &mut Step<'_>) {
        self.timers.cancel(&join_key(group_id));
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.state != GroupState::PreparingRebalance {
            return;
        }
        // Static members are expected back under their instance id; their session alone removes them (KIP-345).
        let missing: Vec<String> = group
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for member_id in missing {
            tracing::info!(group = group_id, member = member_id, "removing a member that did not join in time");
            self.drop_member(group_id, &member_id, step);
        }
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if !group.elect_joined_leader() && !group.members.is_empty() {
            // Only static members are left and none joined: wait for one, or for their sessions to end.
            let at = step.now.elapsed + group.rebalance_timeout();
            self.timers.set(join_key(group_id), at, TimerAction::CompleteJoin);
            return;
        }
        group.start_generation(step.now.wall);
        if group.state == GroupState::Empty {
            tracing::info!(group = group_id, generation = group.generation.0, "the group is empty");
            let record = group.to_record(|_| Bytes::new());
            // Should the log refuse it, the generation before comes back after a restart, and its sessions end.
            let records = vec![CoordinatorRecord::Group(group_id.to_owned(), Some(record))];
            return self.append(records, Completion::Nothing, step);
        }
        self.welcome_generation(group_id, step);
    }

    fn welcome_generation(&mut self, group_id: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        tracing::info!(
            group = group_id,
            generation = group.generation.0,
            members = group.members.len(),
            "formed a generation"
        );
        group.pending_sync = group.members.keys().cloned().collect();
        let sync_by = step.now.elapsed + group.rebalance_timeout();
        let sync_action = TimerAction::ExpireSync(group.generation);
        let member_ids: Vec<String> = group.members.keys().cloned().collect();
        for member_id in member_ids {
            if let Some(request) = group.take_join(&member_id) {
                step.answer(request, joined(group, &member_id));
            }
            if let Some(member) = group.members.get_mut(&member_id) {
                member.is_new = false;
                let at = step.now.elapsed + member.session_timeout;
                self.timers.set(session_key(group_id, &member_id), at, TimerAction::ExpireSession);
            }
        }
        self.timers.set(sync_key(group_id), sync_by, sync_action);
    }

    /// Members of the generation that never asked for their assignment hold it up, and are removed.
    pub(super) fn expire_sync(&mut self, group_id: &str, generation: Generation, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let is_formed = matches!(group.state, GroupState::CompletingRebalance | GroupState::Stable);
        if generation != group.generation || !is_formed || group.pending_sync.is_empty() {
            return;
        }
        for member_id in std::mem::take(&mut group.pending_sync) {
            self.drop_member(group_id, &member_id, step);
        }
        self.prepare_rebalance(group_id, "members did not ask for their assignment in time", step);
    }

    /// The leader's assignment is in the log, or could not be written.
    pub(super) fn assignment_appended(
        &mut self,
        group_id: &str,
        generation: Generation,
        assignments: HashMap<String, Bytes>,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.groups.get(group_id) else { return };
        // A join or a lost member may have called the next rebalance meanwhile.
        if group.state != GroupState::CompletingRebalance || group.generation != generation {
            return;
        }
        self.distribute(group_id, &assignments, result, step);
        if result.is_err() {
            return self.rebalance_or_complete_join(group_id, "the assignment could not be stored", step);
        }
        if let Some(group) = self.groups.get_mut(group_id) {
            group.transition(GroupState::Stable, step.now.wall);
            self.completed_rebalances += 1;
        }
    }

    /// Gives every member its part of `assignments` and answers those that wait for it, with it or with the error.
    fn distribute(
        &mut self,
        group_id: &str,
        assignments: &HashMap<String, Bytes>,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let protocol_type = group.protocol_type.clone();
        let protocol_name = group.protocol_name.clone();
        for member in group.members.values_mut() {
            member.assignment = assignments.get(&member.id).cloned().unwrap_or_default();
            let Some(request) = member.awaiting_sync.take() else { continue };
            let outcome = result.map(|()| SyncedMember {
                protocol_type: protocol_type.clone(),
                protocol_name: protocol_name.clone(),
                assignment: member.assignment.clone(),
            });
            step.answer(request, Answer::Sync(SyncAnswer(outcome)));
            // Its session may have run out unnoticed while it waited for us.
            let at = step.now.elapsed + member.session_timeout;
            self.timers.set(session_key(group_id, &member.id), at, TimerAction::ExpireSession);
        }
    }

    /// Takes a member out, answers whoever waits in its name, and forgets its session. The caller decides what follows.
    pub(super) fn drop_member(&mut self, group_id: &str, member_id: &str, step: &mut Step<'_>) {
        self.timers.cancel(&session_key(group_id, member_id));
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let Some(member) = group.remove(member_id) else { return };
        if let Some(request) = member.awaiting_join {
            step.answer(request, refused_join("", GroupError::UnknownMemberId));
        }
        if let Some(request) = member.awaiting_sync {
            step.answer(request, refused_sync(GroupError::UnknownMemberId));
        }
    }

    /// A member that was awaited elsewhere asks again: the older request must not wait for ever.
    pub(super) fn supersede_join(member_id: &str, superseded: Option<RequestId>, step: &mut Step<'_>) {
        if let Some(request) = superseded {
            step.answer(request, refused_join(member_id, GroupError::RebalanceInProgress));
        }
    }
}

pub(super) fn refused_join(member_id: &str, error: GroupError) -> Answer {
    Answer::Join(JoinAnswer { member_id: member_id.to_owned(), outcome: Err(error) })
}

pub(super) fn refused_sync(error: GroupError) -> Answer {
    Answer::Sync(SyncAnswer(Err(error)))
}

/// The answer to a member of the present generation; its leader learns of all members.
pub(super) fn joined(group: &Group, member_id: &str) -> Answer {
    let members = if group.is_leader(member_id) { group.members_for_leader() } else { Vec::new() };
    Answer::Join(JoinAnswer {
        member_id: member_id.to_owned(),
        outcome: Ok(JoinedGroup {
            generation: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            leader: group.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members,
        }),
    })
}
