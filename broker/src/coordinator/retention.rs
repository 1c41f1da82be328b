//! What ends groups and offsets: deletion on request, expiry (KIP-211), topics that go away.

use std::sync::Arc;

use varve_metadata::model::{Timestamp, TopicId};

use super::{
    Answer, CommittedOffset, Effect, GroupError, GroupState, Now, RequestId, Shard,
    cluster::{ClusterView, TopicsChange},
    group::Group,
    locks::Task,
    records::{CoordinatorRecord, OffsetKey},
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// Tombstones per append: a group with very many offsets must not need a batch larger than the topic takes.
const TOMBSTONES_PER_APPEND: usize = 1000;

impl Shard {
    /// Deletes groups that have no members, with their offsets (KIP-229). Answered with [`Answer::DeleteGroups`].
    pub fn delete_groups(&mut self, now: Now, id: RequestId, group_ids: Vec<String>, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        // A group that changes right now is waited for.
        let waits_for = group_ids.iter().find(|group| self.locks.is_held(group)).or(group_ids.first()).cloned();
        let Some(group_id) = waits_for else { return step.answer(id, Answer::DeleteGroups(Vec::new())) };
        let need = self.need_of(&group_id);
        self.run_or_wait(&group_id, need, Task::DeleteGroups(id, group_ids), &mut step);
    }

    pub(super) fn delete_now(&mut self, id: RequestId, group_ids: Vec<String>, step: &mut Step<'_>) {
        let mut records = Vec::new();
        let mut outcomes = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let outcome = self.check_delete(&group_id);
            if outcome.is_ok() {
                self.bury(&group_id, &mut records);
            }
            outcomes.push((group_id, outcome));
        }
        if records.is_empty() {
            return step.answer(id, Answer::DeleteGroups(outcomes));
        }
        self.append(records, Completion::DeleteGroups(id, outcomes), step);
    }

    fn check_delete(&self, group_id: &str) -> Result<(), GroupError> {
        if let Some(group) = self.consumers.get(group_id) {
            return if group.is_empty() { Ok(()) } else { Err(GroupError::NonEmptyGroup) };
        }
        match self.groups.get(group_id).map(|group| group.state) {
            None | Some(GroupState::Dead) => Err(GroupError::GroupIdNotFound),
            Some(GroupState::Empty) => Ok(()),
            Some(_) => Err(GroupError::NonEmptyGroup),
        }
    }

    /// Marks the group as being deleted and collects the tombstones that do it.
    fn bury(&mut self, group_id: &str, records: &mut Vec<CoordinatorRecord>) {
        let mut keys: Vec<OffsetKey> = self.offset_keys(group_id).collect();
        // Commits on their way would otherwise outlive the group.
        keys.extend(self.pending_offsets(group_id).cloned());
        keys.extend(self.open_commits.keys_of(group_id));
        keys.sort();
        keys.dedup();
        records.extend(keys.into_iter().map(|key| CoordinatorRecord::Offset(key, None)));
        if let Some(group) = self.consumers.get(group_id) {
            records.extend(group.end_records([].into_iter()).into_iter().map(CoordinatorRecord::Consumer));
            return;
        }
        records.push(CoordinatorRecord::Group(group_id.to_owned(), None));
        if let Some(group) = self.groups.get_mut(group_id) {
            group.previous_state = group.state;
            group.state = GroupState::Dead;
        }
    }

    fn offset_keys<'a>(&'a self, group_id: &'a str) -> impl Iterator<Item = OffsetKey> + 'a {
        self.offsets.get(group_id).into_iter().flatten().flat_map(move |(topic, partitions)| {
            partitions.keys().map(move |partition| OffsetKey {
                group: group_id.to_owned(),
                topic: topic.clone(),
                partition: *partition,
            })
        })
    }

    /// Removes what has expired, and groups of which nothing is left; then waits for the next look.
    pub(super) fn clean_up(&mut self, step: &mut Step<'_>) {
        let next = step.now.elapsed + self.config.offsets_retention_check_interval;
        self.timers.set(TimerKey::Expiry, next, TimerAction::Cleanup);
        let group_ids: Vec<String> = self.groups.keys().cloned().collect();
        for group_id in group_ids {
            let Some(group) = self.groups.get(&group_id).filter(|group| group.state != GroupState::Dead) else {
                continue;
            };
            // What changes right now is looked at the next time.
            if self.locks.is_held(&group_id) {
                continue;
            }
            let (expired, none_left) = self.expired_offsets(group, step.now.wall);
            if none_left
                && group.state == GroupState::Empty
                && group.pending_join.is_empty()
                && self.pending_offsets(&group_id).next().is_none()
                && !self.open_commits.concern_group(&group_id)
                && expired.len() < TOMBSTONES_PER_APPEND
            {
                let mut records = Vec::new();
                self.bury(&group_id, &mut records);
                tracing::info!(group = group_id, offsets = expired.len(), "removing an expired group");
                self.append(records, Completion::ExpireGroup(group_id), step);
            } else {
                self.append_tombstones(expired, step);
            }
        }
        self.clean_up_consumers(step);
    }

    fn clean_up_consumers(&mut self, step: &mut Step<'_>) {
        let at_rest = self.consumers.keys().filter(|group| !self.locks.is_held(group)).cloned();
        let group_ids: Vec<String> = at_rest.collect();
        for group_id in group_ids {
            let Some(group) = self.consumers.get(&group_id) else { continue };
            let retention = self.config.offsets_retention.as_millis();
            let is_expired = |topic: &str, offset: &CommittedOffset| {
                !group.is_subscribed(topic)
                    && has_passed(offset.committed_at, offset.expires_at, step.now.wall, retention)
            };
            let topics = self.offsets.get(&group_id).into_iter().flatten();
            let all = topics
                .flat_map(|(topic, partitions)| partitions.iter().map(move |(index, offset)| (topic, index, offset)));
            let total = all.clone().count();
            let expired: Vec<OffsetKey> = all
                .filter(|(topic, _, offset)| is_expired(topic, offset))
                .map(|(topic, partition, _)| OffsetKey {
                    group: group_id.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                })
                .collect();
            let none_left = expired.len() == total && self.pending_offsets(&group_id).next().is_none();
            if group.is_empty() && none_left && expired.len() < TOMBSTONES_PER_APPEND {
                let mut records = Vec::new();
                tracing::info!(group = group_id, offsets = expired.len(), "removing an expired group");
                self.bury(&group_id, &mut records);
                self.append(records, Completion::Nothing, step);
            } else {
                self.append_tombstones(expired, step);
            }
        }
    }

    /// The group's expired offsets, and whether it has no others.
    fn expired_offsets(&self, group: &Group, now: Timestamp) -> (Vec<OffsetKey>, bool) {
        let Some(topics) = self.offsets.get(&group.id) else { return (Vec::new(), true) };
        let mut expired = Vec::new();
        let mut total = 0;
        for (topic, partitions) in topics {
            total += partitions.len();
            if group.is_subscribed(topic) {
                continue;
            }
            for (partition, offset) in partitions {
                let key = OffsetKey { group: group.id.clone(), topic: topic.clone(), partition: *partition };
                // A transaction that is open may still say that the offset is used.
                if self.has_expired(group, offset, now) && !self.open_commits.concern(&key) {
                    expired.push(key);
                }
            }
        }
        let none_left = expired.len() == total;
        (expired, none_left)
    }

    fn has_expired(&self, group: &Group, offset: &CommittedOffset, now: Timestamp) -> bool {
        let unused_since = match (&group.protocol_type, group.state) {
            // A simple consumer: nobody but its commits tells that it is there.
            (None, _) => offset.committed_at,
            (Some(_), GroupState::Empty) => group.state_since.unwrap_or(offset.committed_at),
            // Topics that the members no longer subscribe to, where subscriptions are known.
            (Some(_), GroupState::Stable) if group.uses_consumer_protocol() && group.subscribed_topics.is_some() => {
                offset.committed_at
            }
            _ => return false,
        };
        has_passed(unused_since, offset.expires_at, now, self.config.offsets_retention.as_millis())
    }

    /// The cluster is another than before. Groups that subscribe to a topic that changed look at it with their next heartbeat.
    pub fn cluster_changed(
        &mut self,
        now: Now,
        cluster: Arc<dyn ClusterView>,
        change: &TopicsChange,
        effects: &mut Vec<Effect>,
    ) {
        self.cluster = cluster;
        if change.has_new {
            self.newest_topic_at = self.cluster.version();
        }
        for group in self.consumers.values_mut() {
            group.must_look_at_topics |= change.touched.iter().any(|topic| group.is_subscribed(topic));
        }
        if !change.deleted.is_empty() {
            self.topics_deleted(now, &change.deleted, effects);
        }
    }

    /// Removes the offsets of topics that were deleted. An offset committed for another topic of the same name stays.
    pub fn topics_deleted(&mut self, now: Now, deleted: &[(String, TopicId)], effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        let mut keys = Vec::new();
        for (group, topics) in &self.offsets {
            for (topic, id) in deleted {
                let partitions = topics.get(topic).into_iter().flatten();
                let gone = partitions.filter(|(_, offset)| offset.topic_id.is_none_or(|committed| committed == *id));
                keys.extend(gone.map(|(partition, _)| OffsetKey {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                }));
            }
        }
        for (key, offset) in self.open_commits.all() {
            let is_gone = |(topic, id): &(String, TopicId)| {
                key.topic == *topic && offset.topic_id.is_none_or(|committed| committed == *id)
            };
            keys.extend(deleted.iter().any(is_gone).then(|| key.clone()));
        }
        keys.sort();
        keys.dedup();
        self.append_tombstones(keys, &mut step);
    }

    fn append_tombstones(&mut self, keys: Vec<OffsetKey>, step: &mut Step<'_>) {
        for chunk in keys.chunks(TOMBSTONES_PER_APPEND) {
            let records = chunk.iter().map(|key| CoordinatorRecord::Offset(key.clone(), None)).collect();
            self.append(records, Completion::Nothing, step);
        }
    }
}

/// Whether an offset is past its own end, or unused for longer than offsets are kept.
fn has_passed(unused_since: Timestamp, expires_at: Option<Timestamp>, now: Timestamp, retention_ms: u128) -> bool {
    match expires_at {
        Some(at) => now >= at,
        None => {
            let unused = now.to_wire().saturating_sub(unused_since.to_wire());
            u128::try_from(unused).is_ok_and(|millis| millis >= retention_ms)
        }
    }
}
