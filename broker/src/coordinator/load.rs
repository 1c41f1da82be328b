//! From the log to memory: what a shard does before it serves.

use super::{
    Effect, Now, Shard,
    group::Group,
    rebalance::session_key,
    records::{CoordinatorRecord, RecordError},
    shard::Step,
    timers::{TimerAction, TimerKey},
};

impl Shard {
    /// Takes in one record of the partition, in the order of the log.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] if the record contradicts itself: the partition must then not be served, or offsets
    /// would silently be lost.
    pub fn replay(&mut self, now: Now, record: CoordinatorRecord) -> Result<(), RecordError> {
        match record {
            CoordinatorRecord::Offset(key, Some(offset)) => self.put_offset(key, offset, now),
            CoordinatorRecord::Offset(key, None) => self.remove_offset(&key),
            CoordinatorRecord::Group(group_id, None) => self.remove_group(&group_id, now),
            CoordinatorRecord::Group(group_id, Some(metadata)) => {
                let group = Group::from_record(group_id.clone(), metadata).ok_or(RecordError::Malformed)?;
                self.groups.insert(group_id, group);
            }
        }
        Ok(())
    }

    /// Every record has been replayed: sessions start to run, as if every member had been heard of just now.
    pub fn finish_load(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        let at = now.elapsed + self.config.offsets_retention_check_interval;
        self.timers.set(TimerKey::Expiry, at, TimerAction::Cleanup);
        let mut too_large = Vec::new();
        for (group_id, group) in &self.groups {
            for (member_id, member) in &group.members {
                let at = now.elapsed + member.session_timeout;
                self.timers.set(session_key(group_id, member_id), at, TimerAction::ExpireSession);
            }
            if group.members.len() > self.config.max_size {
                too_large.push(group_id.clone());
            }
        }
        for group_id in too_large {
            // The limit was lowered: a rebalance lets everyone commit before some are left out.
            self.prepare_rebalance(&group_id, "the group is larger than group.max.size", &mut step);
        }
    }
}
