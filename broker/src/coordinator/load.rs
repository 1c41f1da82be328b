//! From the log to memory: what a shard does before it serves.

use super::{
    Entry, Now, Shard,
    codec::RecordError,
    group::Group,
    rebalance::session_key,
    records::CoordinatorRecord,
    shard::Step,
    timers::{TimerAction, TimerKey},
};

impl Shard {
    /// A record that contradicts itself keeps the partition from being served: offsets would silently be lost.
    pub(super) fn replay_entry(&mut self, now: Now, entry: Entry<CoordinatorRecord>) -> Result<(), RecordError> {
        let (offset, producer, record) = match entry {
            Entry::Record { offset, producer, record } => (offset, producer, record),
            Entry::Marker { producer, committed } => {
                self.end_commits(producer, committed, now);
                return Ok(());
            }
        };
        match record {
            CoordinatorRecord::Offset(key, Some(committed)) => match producer {
                Some(producer) => self.put_pending(producer, key, offset, committed, now),
                None => self.put_offset(key, offset, committed, now),
            },
            CoordinatorRecord::Offset(key, None) => self.remove_offset(&key),
            CoordinatorRecord::Group(group_id, None) => self.remove_group(&group_id, now),
            CoordinatorRecord::Group(group_id, Some(metadata)) => {
                let group = Group::from_record(group_id.clone(), metadata).ok_or(RecordError::Malformed)?;
                self.consumers.remove(&group_id);
                self.shares.remove(&group_id);
                self.streams.remove(&group_id);
                self.groups.insert(group_id, group);
            }
            CoordinatorRecord::Consumer(record) => self.apply_consumer(record, now),
            CoordinatorRecord::Share(record) => self.apply_share(record, now),
            CoordinatorRecord::Streams(record) => self.apply_streams(record, now),
        }
        Ok(())
    }

    /// Sessions start to run, as if every member had been heard of just now.
    pub(super) fn start_timers(&mut self, step: &mut Step<'_>) {
        let now = step.now;
        let at = now.elapsed + self.config.offsets_retention_check_interval;
        self.timers.set(TimerKey::Expiry, at, TimerAction::Cleanup);
        self.start_consumer_timers(now);
        self.start_share_timers(now);
        self.start_streams_timers(now);
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
            self.prepare_rebalance(&group_id, "the group is larger than group.max.size", step);
        }
    }
}
