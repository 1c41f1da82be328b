//! Committed offsets: commit, read, delete.

use varve_metadata::model::{PartitionIndex, Timestamp};

use super::{
    Answer, CommitAnswer, CommitPartition, CommitRequest, CommittedOffset, Effect, GroupError, GroupState,
    MemberIdentity, Now, PartitionOutcomes, RequestId, Shard, TopicOffsets, TopicPartitions,
    modern::Committer,
    records::{CoordinatorRecord, OffsetKey},
    shard::{Completion, Step},
};

impl Shard {
    /// Commits offsets, for a member of the group or for a consumer that keeps its place by itself.
    /// Answered with [`Answer::Commit`] once they are in the log.
    pub fn commit(&mut self, now: Now, id: RequestId, request: CommitRequest, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        if self.shares.contains_key(&request.group_id) {
            // Where members of a share group have come to is kept elsewhere.
            return step.answer(id, Answer::Commit(CommitAnswer(Err(GroupError::GroupIdNotFound))));
        }
        let checked = match request.group_id.len() > i16::MAX as usize {
            true => Err(GroupError::InvalidGroupId),
            false => self
                .check_modern_commit(&request, Committer::of(&request), |topic| topic.id)
                .unwrap_or_else(|| self.check_commit(&request)),
        };
        if let Err(error) = checked {
            return step.answer(id, Answer::Commit(CommitAnswer(Err(error))));
        }
        if let Some(group) = self.groups.get(&request.group_id) {
            // In these states a commit counts as a heartbeat.
            let counts = matches!(group.state, GroupState::Stable | GroupState::PreparingRebalance);
            if counts {
                self.extend_session(now, &request.group_id, &request.member.member_id);
            }
        }
        let (records, outcomes) = self.offset_records(request, now);
        let answer = CommitAnswer(Ok(outcomes));
        if records.is_empty() {
            return step.answer(id, Answer::Commit(answer));
        }
        self.append(records, Completion::Commit(id, answer), &mut step);
    }

    /// The records of a commit that is allowed, and the outcome for each partition.
    pub(super) fn offset_records(
        &self,
        request: CommitRequest,
        now: Now,
    ) -> (Vec<CoordinatorRecord>, PartitionOutcomes) {
        let mut records = Vec::new();
        let mut outcomes: PartitionOutcomes = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let mut of_topic = Vec::with_capacity(topic.partitions.len());
            for CommitPartition { partition, offset, leader_epoch, metadata } in topic.partitions {
                if is_longer(&metadata, self.config.offset_metadata_max) {
                    of_topic.push((partition, Err(GroupError::OffsetMetadataTooLarge)));
                    continue;
                }
                of_topic.push((partition, Ok(())));
                let key = OffsetKey { group: request.group_id.clone(), topic: topic.name.clone(), partition };
                let committed = CommittedOffset {
                    offset,
                    leader_epoch,
                    metadata,
                    committed_at: now.wall,
                    expires_at: request.retention.and_then(|kept| later(now.wall, kept.as_millis())),
                    topic_id: topic.id,
                };
                records.push(CoordinatorRecord::Offset(key, Some(committed)));
            }
            outcomes.push((topic.name, of_topic));
        }
        (records, outcomes)
    }

    fn check_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        let Some(group) = self.groups.get(&request.group_id) else {
            return match request.generation {
                None => Ok(()),
                Some(_) if request.knows_group_id_not_found => Err(GroupError::GroupIdNotFound),
                Some(_) => Err(GroupError::IllegalGeneration),
            };
        };
        let MemberIdentity { member_id, instance_id } = &request.member;
        match (group.state, request.generation) {
            (GroupState::Dead, _) => return Err(GroupError::CoordinatorNotAvailable),
            // An administrator, or a consumer that assigns partitions to itself.
            (GroupState::Empty, None) => return Ok(()),
            (_, generation) if generation.is_some() || !member_id.is_empty() || instance_id.is_some() => {
                group.check_member(&request.member)?;
                if generation != Some(group.generation) {
                    return Err(GroupError::IllegalGeneration);
                }
            }
            _ => return Err(GroupError::UnknownMemberId),
        }
        // The member knows the new generation but not its assignment: what it commits belongs to the old one.
        match group.state {
            GroupState::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// The committed offsets of a group; `None` if there is no such group. Offsets on their way to the log are not
    /// among them: use [`Shard::settle`] first where they must be.
    pub fn committed(&self, group_id: &str) -> Option<&TopicOffsets> {
        const NONE: &TopicOffsets = &TopicOffsets::new();
        let is_classic = self.groups.get(group_id).is_some_and(|group| group.state != GroupState::Dead);
        let exists = is_classic || self.consumers.contains_key(group_id) || self.streams.contains_key(group_id);
        exists.then(|| self.offsets.get(group_id).unwrap_or(NONE))
    }

    /// Whether a member of a consumer or streams group may read its offsets (KIP-848). Others may always.
    ///
    /// # Errors
    /// [`GroupError::UnknownMemberId`], [`GroupError::StaleMemberEpoch`], and for members of the classic protocol
    /// [`GroupError::IllegalGeneration`].
    pub fn check_fetch(&self, group_id: &str, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        match (self.consumers.get(group_id), self.streams.get(group_id)) {
            (Some(group), _) => group.check_fetch(member_id, epoch),
            (None, Some(group)) => group.check_fetch(member_id, epoch),
            (None, None) => Ok(()),
        }
    }

    /// Deletes offsets of topics that no member subscribes to (KIP-496). Answered with [`Answer::DeleteOffsets`].
    pub fn delete_offsets(
        &mut self,
        now: Now,
        id: RequestId,
        group_id: &str,
        topics: Vec<TopicPartitions>,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        if let Err(error) = self.check_offset_delete(group_id) {
            return step.answer(id, Answer::DeleteOffsets(CommitAnswer(Err(error))));
        }
        let is_subscribed = |topic: &str| {
            self.consumers.get(group_id).is_some_and(|group| group.is_subscribed(topic))
                || self.streams.get(group_id).is_some_and(|group| group.is_subscribed(topic))
                || self.groups.get(group_id).is_some_and(|group| group.is_subscribed(topic))
        };
        let mut records = Vec::new();
        let mut outcomes: PartitionOutcomes = Vec::with_capacity(topics.len());
        for TopicPartitions { topic, partitions } in topics {
            let outcome = if is_subscribed(&topic) { Err(GroupError::SubscribedToTopic) } else { Ok(()) };
            let mut of_topic: Vec<(PartitionIndex, _)> = Vec::with_capacity(partitions.len());
            for partition in partitions {
                of_topic.push((partition, outcome));
                let key = OffsetKey { group: group_id.to_owned(), topic: topic.clone(), partition };
                if outcome.is_ok() && self.may_have_offset(&key) {
                    records.push(CoordinatorRecord::Offset(key, None));
                }
            }
            outcomes.push((topic, of_topic));
        }
        let answer = CommitAnswer(Ok(outcomes));
        if records.is_empty() {
            return self.answer_after_pending(id, Answer::DeleteOffsets(answer), step.effects);
        }
        self.append(records, Completion::DeleteOffsets(id, answer), &mut step);
    }

    fn check_offset_delete(&self, group_id: &str) -> Result<(), GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if self.consumers.contains_key(group_id) || self.streams.contains_key(group_id) {
            return Ok(());
        }
        let group = self.groups.get(group_id).ok_or(GroupError::GroupIdNotFound)?;
        match group.state {
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            GroupState::Empty => Ok(()),
            // What members of another protocol read cannot be known.
            _ if !group.uses_consumer_protocol() => Err(GroupError::NonEmptyGroup),
            _ => Ok(()),
        }
    }
}

/// Whether `text` has more than `limit` UTF-16 units.
fn is_longer(text: &str, limit: usize) -> bool {
    text.len() > limit && text.encode_utf16().count() > limit
}

fn later(time: Timestamp, millis: u128) -> Option<Timestamp> {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    Timestamp::from_wire(time.to_wire().saturating_add(millis))
}
