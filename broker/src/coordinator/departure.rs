//! Members of classic groups go: by their own wish, removed by an administrator, or because nothing is heard of them.

use super::{
    Answer, Effect, GroupError, GroupState, LeaveAnswer, LeaveRequest, LeavingMember, Now, RequestId, Shard,
    locks::Task, membership::is_valid_group_id, rebalance::session_key, shard::Step,
};

impl Shard {
    /// Members leave. Answered with [`Answer::Leave`].
    pub fn leave(&mut self, now: Now, id: RequestId, request: LeaveRequest, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        if !is_valid_group_id(&request.group_id) {
            return step.answer(id, Answer::Leave(LeaveAnswer(Err(GroupError::InvalidGroupId))));
        }
        let group_id = request.group_id.clone();
        let need = self.need_of(&group_id);
        self.run_or_wait(&group_id, need, Task::Leave(id, Box::new(request)), &mut step);
    }

    /// Members leave a group of whatever type.
    pub(super) fn leave_any(&mut self, id: RequestId, request: &LeaveRequest, step: &mut Step<'_>) {
        if self.consumers.contains_key(&request.group_id) {
            return self.leave_consumer(id, request, step);
        }
        let Some(group) = self.groups.get(&request.group_id) else {
            let unknown = request.members.iter().map(|_| Err(GroupError::UnknownMemberId)).collect();
            return step.answer(id, Answer::Leave(LeaveAnswer(Ok(unknown))));
        };
        if group.state == GroupState::Dead {
            return step.answer(id, Answer::Leave(LeaveAnswer(Err(GroupError::CoordinatorNotAvailable))));
        }
        let outcomes: Vec<Result<(), GroupError>> =
            request.members.iter().map(|leaving| self.leave_one(&request.group_id, leaving, step)).collect();
        if outcomes.iter().any(Result::is_ok) {
            let reason = request.members.iter().find_map(|leaving| leaving.reason.as_deref());
            self.member_gone(&request.group_id, reason.unwrap_or("members left"), step);
        }
        self.answer_after_pending(id, Answer::Leave(LeaveAnswer(Ok(outcomes))), step.effects);
    }

    fn leave_one(&mut self, group_id: &str, leaving: &LeavingMember, step: &mut Step<'_>) -> Result<(), GroupError> {
        let group = self.groups.get_mut(group_id).ok_or(GroupError::UnknownMemberId)?;
        let identity = &leaving.member;
        let member_id = if identity.member_id.is_empty() {
            // An administrator removes whoever holds the instance id.
            let instance = identity.instance_id.as_ref().ok_or(GroupError::UnknownMemberId)?;
            group.static_members.get(instance).cloned().ok_or(GroupError::UnknownMemberId)?
        } else if group.pending_join.remove(&identity.member_id) {
            self.timers.cancel(&session_key(group_id, &identity.member_id));
            return Ok(());
        } else {
            group.check_member(identity)?;
            identity.member_id.clone()
        };
        self.drop_member(group_id, &member_id, step);
        Ok(())
    }

    /// After members left: the others rebalance, or need not wait for them any longer.
    fn member_gone(&mut self, group_id: &str, reason: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get(group_id) else { return };
        match group.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(group_id, reason, step),
            GroupState::PreparingRebalance => self.complete_join_if_all_joined(group_id, step),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    pub(super) fn expire_session(&mut self, group_id: &str, member_id: &str, step: &mut Step<'_>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        if group.state == GroupState::Dead {
            return;
        }
        let was_pending = group.pending_join.remove(member_id);
        if !was_pending {
            match group.members.get(member_id) {
                Some(member) if !member.owes_no_heartbeat() => {}
                _ => return,
            }
            tracing::info!(group = group_id, member = member_id, "removing a member whose session ran out");
            self.drop_member(group_id, member_id, step);
        }
        let Some(group) = self.groups.get(group_id) else { return };
        match group.state {
            GroupState::Stable | GroupState::CompletingRebalance if !was_pending => {
                self.prepare_rebalance(group_id, "a member's session ran out", step);
            }
            // Even a first rebalance need not wait when nobody is missing any more.
            GroupState::PreparingRebalance if group.has_all_joined() => self.complete_join(group_id, step),
            _ => {}
        }
    }
}
