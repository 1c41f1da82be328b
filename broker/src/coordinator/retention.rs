//! What ends groups and offsets: deletion on request, expiry (KIP-211), topics that go away.

use std::{collections::HashSet, sync::Arc};

use varve_metadata::model::{Timestamp, TopicId};

use super::{
    Answer, CommittedOffset, Effect, GroupError, GroupState, Now, RequestId, Shard,
    cluster::{ClusterView, TopicsChange},
    consumer::ConsumerGroup,
    group::Group,
    locks::Task,
    records::{CoordinatorRecord, OffsetKey},
    shard::{Completion, Step},
    streams::StreamsGroup,
    timers::{TimerAction, TimerKey},
    tombstones,
};

impl Shard {
    /// Deletes a group that has no members, with its offsets (KIP-229). Answered with [`Answer::DeleteGroup`].
    pub fn delete_group(&mut self, now: Now, id: RequestId, group_id: String, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        let need = self.need_of(&group_id);
        self.run_or_wait(&group_id.clone(), need, Task::DeleteGroup(id, group_id), &mut step);
    }

    pub(super) fn delete_now(&mut self, id: RequestId, group_id: String, step: &mut Step<'_>) {
        if let Err(error) = self.check_delete(&group_id) {
            return step.answer(id, Answer::DeleteGroup(Err(error)));
        }
        let mut records = Vec::new();
        self.bury(&group_id, &mut records);
        self.append(records, Completion::DeleteGroup(id, group_id), step);
    }

    fn check_delete(&self, group_id: &str) -> Result<(), GroupError> {
        if let Some(group) = self.consumers.get(group_id) {
            return if group.is_empty() { Ok(()) } else { Err(GroupError::NonEmptyGroup) };
        }
        if let Some(group) = self.shares.get(group_id) {
            return if group.is_empty() { Ok(()) } else { Err(GroupError::NonEmptyGroup) };
        }
        if let Some(group) = self.streams.get(group_id) {
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
        if let Some(group) = self.shares.get(group_id) {
            records.extend(group.end_records().into_iter().map(CoordinatorRecord::Share));
            return;
        }
        if let Some(group) = self.streams.get(group_id) {
            records.extend(group.end_records().into_iter().map(CoordinatorRecord::Streams));
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
        for Expired { group, offsets, is_all } in self.find_expired(step.now.wall) {
            let count = offsets.len();
            let batches = batches_of(offsets);
            // A group that is too large for one batch ends at the next look, when its offsets are gone.
            if is_all && batches.len() <= 1 {
                tracing::info!(group, offsets = count, "removing an expired group");
                let mut records = Vec::new();
                self.bury(&group, &mut records);
                self.append(records, Completion::ExpireGroup(group), step);
            } else {
                self.append_tombstones(batches, step);
            }
        }
    }

    /// What has expired of each group, of whatever type.
    fn find_expired(&self, now: Timestamp) -> Vec<Expired> {
        let on_their_way: HashSet<&OffsetKey> = self.offsets_on_their_way().collect();
        let awaited: HashSet<&str> = on_their_way.iter().map(|key| key.group.as_str()).collect();
        let groups = self.groups.keys().chain(self.consumers.keys()).chain(self.streams.keys());
        // What changes right now is looked at the next time.
        let at_rest = groups.filter(|group| !self.locks.is_held(group));
        at_rest
            .map(|group| {
                let total: usize =
                    self.offsets.get(group).into_iter().flatten().map(|(_, offsets)| offsets.len()).sum();
                let mut offsets = self.unused_offsets(group, now);
                // What is on its way or in an open transaction may still say that the offset is used.
                offsets.retain(|key| !on_their_way.contains(key) && !self.open_commits.concern(key));
                let is_awaited = awaited.contains(group.as_str()) || self.open_commits.concern_group(group);
                let is_all = offsets.len() == total && !is_awaited && self.is_deserted(group);
                Expired { group: group.clone(), offsets, is_all }
            })
            .collect()
    }

    /// Whether nobody would miss the group but for its offsets.
    fn is_deserted(&self, group_id: &str) -> bool {
        match self.groups.get(group_id) {
            Some(group) => group.state == GroupState::Empty && group.pending_join.is_empty(),
            None => {
                self.consumers.get(group_id).is_some_and(ConsumerGroup::is_empty)
                    || self.streams.get(group_id).is_some_and(StreamsGroup::is_empty)
            }
        }
    }

    /// The committed offsets of the group that have been unused for longer than offsets are kept.
    fn unused_offsets(&self, group_id: &str, now: Timestamp) -> Vec<OffsetKey> {
        let classic = self.groups.get(group_id);
        let consumer = self.consumers.get(group_id);
        let streams = self.streams.get(group_id);
        let retention = self.config.offsets_retention.as_millis();
        let mut unused = Vec::new();
        for (topic, partitions) in self.offsets.get(group_id).into_iter().flatten() {
            let is_subscribed = classic.is_some_and(|group| group.is_subscribed(topic))
                || consumer.is_some_and(|group| group.is_subscribed(topic))
                || streams.is_some_and(|group| group.is_subscribed(topic));
            if is_subscribed {
                continue;
            }
            let is_unused = |offset: &CommittedOffset| {
                let since = classic.map_or(Some(offset.committed_at), |group| unused_since(group, offset));
                since.is_some_and(|since| has_passed(since, offset.expires_at, now, retention))
            };
            let found = partitions.iter().filter(|(_, offset)| is_unused(offset));
            unused.extend(found.map(|(partition, _)| OffsetKey {
                group: group_id.to_owned(),
                topic: topic.clone(),
                partition: *partition,
            }));
        }
        unused
    }

    /// What the cluster has become since the shard was made. Only for a shard that does not serve yet: its groups look at
    /// their topics anyway.
    pub fn see(&mut self, cluster: Arc<dyn ClusterView>) {
        self.newest_topic_at = cluster.version();
        self.cluster = cluster;
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
        for group in self.shares.values_mut() {
            group.must_look_at_topics |= change.touched.iter().any(|topic| group.is_subscribed(topic));
        }
        for group in self.streams.values_mut() {
            group.must_look_at_topics |= change.touched.iter().any(|topic| group.requires(topic));
        }
        if !change.deleted.is_empty() {
            self.topics_deleted(now, &change.deleted, effects);
            let ids = change.deleted.iter().map(|(_, id)| *id).collect();
            self.forget_share_topics(&ids, &mut Step { now, effects });
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
        self.append_tombstones(batches_of(keys), &mut step);
    }

    fn append_tombstones(&mut self, batches: Vec<Vec<OffsetKey>>, step: &mut Step<'_>) {
        for batch in batches {
            let records = batch.into_iter().map(|key| CoordinatorRecord::Offset(key, None)).collect();
            self.append(records, Completion::Nothing, step);
        }
    }
}

fn batches_of(keys: Vec<OffsetKey>) -> Vec<Vec<OffsetKey>> {
    tombstones::batches(keys, |key| key.group.len() + key.topic.len())
}

/// What has expired of one group.
struct Expired {
    group: String,
    offsets: Vec<OffsetKey>,
    /// Nothing is left of the group without them.
    is_all: bool,
}

/// Since when nobody has used an offset of a topic to which the classic group does not subscribe; `None` if somebody may.
fn unused_since(group: &Group, offset: &CommittedOffset) -> Option<Timestamp> {
    match (&group.protocol_type, group.state) {
        // A simple consumer: nobody but its commits tells that it is there.
        (None, _) => Some(offset.committed_at),
        (Some(_), GroupState::Empty) => Some(group.state_since.unwrap_or(offset.committed_at)),
        // Topics that the members no longer subscribe to, where subscriptions are known.
        (Some(_), GroupState::Stable) if group.uses_consumer_protocol() && group.subscribed_topics.is_some() => {
            Some(offset.committed_at)
        }
        _ => None,
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
