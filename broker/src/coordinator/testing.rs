//! A shard with its log and clock at hand, for tests.

mod cluster;
mod requests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use uuid::Uuid;
use varve_metadata::model::{Offset, PartitionIndex, Timestamp, TopicId};

use super::{records::CoordinatorRecord, *};

pub(super) use cluster::TestCluster;
pub(super) use requests::{
    committed_offset, identity, instance, join_request, member_commit, protocol, simple_commit, static_join,
};

/// A coordinator on a log that acknowledges at once, unless told to wait or to fail.
pub(super) struct Harness {
    pub(super) shard: Shard,
    /// The log, and whose transaction each record belongs to.
    pub(super) log: Vec<Entry<CoordinatorRecord>>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) held: Vec<(AppendId, Batch<CoordinatorRecord>)>,
    pub(super) holds_appends: bool,
    pub(super) fails_appends: Option<AppendFailure>,
    pub(super) now: Duration,
    pub(super) cluster: TestCluster,
    /// Patterns that the shard asked to be resolved.
    pub(super) to_resolve: Vec<RegexJob>,
    /// Keepers of share partitions that the shard asked to begin.
    pub(super) to_begin: Vec<BeginShares>,
    next_request: u64,
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

impl Harness {
    pub(super) fn new() -> Harness {
        Harness::with(GroupConfig::default())
    }

    pub(super) fn with(config: GroupConfig) -> Harness {
        Harness::on(config, TestCluster::default())
    }

    pub(super) fn on(config: GroupConfig, cluster: TestCluster) -> Harness {
        let mut harness = Harness {
            shard: Shard::new(Arc::new(config), Arc::new(cluster.clone())),
            cluster,
            to_resolve: Vec::new(),
            to_begin: Vec::new(),
            log: Vec::new(),
            answers: BTreeMap::new(),
            held: Vec::new(),
            holds_appends: false,
            fails_appends: None,
            now: Duration::ZERO,
            next_request: 0,
        };
        harness.with_effects(|shard, now, effects| shard.finish_load(now, effects));
        harness
    }

    pub(super) fn moment(&self) -> Now {
        let wall = Timestamp::from_wire(1_700_000_000_000 + self.now.as_millis() as i64).unwrap();
        Now { elapsed: self.now, wall }
    }

    pub(super) fn with_effects(&mut self, step: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let now = self.moment();
        step(&mut self.shard, now, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut queue: std::collections::VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Answer { request, answer } => {
                    assert_eq!(self.answers.insert(request, answer), None, "a request is answered once");
                }
                Effect::Order(GroupOrder::Resolve(job)) => self.to_resolve.push(job),
                Effect::Order(GroupOrder::BeginShares(job)) => self.to_begin.push(job),
                Effect::Append { id, batch } if self.holds_appends || !self.held.is_empty() => {
                    self.held.push((id, batch));
                }
                Effect::Append { id, batch } => {
                    let mut effects = Vec::new();
                    self.finish_append(id, &batch, self.fails_appends, &mut effects);
                    queue.extend(effects);
                }
            }
        }
    }

    fn finish_append(
        &mut self,
        id: AppendId,
        batch: &Batch<CoordinatorRecord>,
        failure: Option<AppendFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let base = Offset::new(self.log.len() as u64).unwrap();
        if failure.is_none() {
            self.write(batch);
        }
        let now = self.moment();
        self.shard.appended(now, id, failure.map_or(Ok(base), Err), effects);
    }

    fn write(&mut self, batch: &Batch<CoordinatorRecord>) {
        let (producer, records) = match batch {
            Batch::Records(records) => (None, records),
            Batch::Transactional { producer, records, .. } => (Some(*producer), records),
            Batch::Marker(EndOfTransaction { producer, committed, .. }) => {
                return self.log.push(Entry::Marker { producer: *producer, committed: *committed });
            }
        };
        for record in records.iter() {
            // Through bytes, as a real log would have it.
            let bytes = record.encode().unwrap();
            let record = CoordinatorRecord::decode(&bytes.key, bytes.value.as_deref()).unwrap();
            let offset = Offset::new(self.log.len() as u64).unwrap();
            self.log.push(Entry::Record { offset, producer, record });
        }
    }

    /// Acknowledges, or fails, the oldest append that was held back.
    pub(super) fn release_one(&mut self, failure: Option<AppendFailure>) {
        let (id, batch) = self.held.remove(0);
        let mut effects = Vec::new();
        self.finish_append(id, &batch, failure, &mut effects);
        self.perform(effects);
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.shard.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.with_effects(Shard::tick);
        }
        self.now = end;
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(super) fn join(&mut self, request: JoinRequest) -> RequestId {
        let id = self.request();
        self.with_effects(|shard, now, effects| shard.join(now, id, request, effects));
        id
    }

    /// Joins a dynamic member through both steps of KIP-394; returns its id and the waiting second join.
    pub(super) fn join_dynamic(&mut self, group: &str) -> (String, RequestId) {
        let fresh = Uuid::from_u128(u128::from(self.next_request) + 1);
        let first = self.join(JoinRequest { fresh_id: fresh, ..join_request(group) });
        let Some(Answer::Join(JoinAnswer { member_id, outcome: Err(GroupError::MemberIdRequired) })) =
            self.answers.remove(&first)
        else {
            panic!("a first join is sent back with a member id");
        };
        let second = self.join(JoinRequest { member_id: Some(member_id.clone()), ..join_request(group) });
        (member_id, second)
    }

    pub(super) fn rejoin(&mut self, group: &str, member_id: &str) -> RequestId {
        self.join(JoinRequest { member_id: Some(member_id.to_owned()), ..join_request(group) })
    }

    pub(super) fn joined(&mut self, request: RequestId) -> JoinedGroup {
        match self.answers.remove(&request) {
            Some(Answer::Join(JoinAnswer { outcome: Ok(joined), .. })) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    pub(super) fn join_error(&mut self, request: RequestId) -> GroupError {
        match self.answers.remove(&request) {
            Some(Answer::Join(JoinAnswer { outcome: Err(error), .. })) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(super) fn is_waiting(&self, request: RequestId) -> bool {
        !self.answers.contains_key(&request)
    }

    pub(super) fn sync(&mut self, group: &str, member: &str, generation: u32, parts: &[(&str, &str)]) -> RequestId {
        let parts = parts.iter().map(|(member, part)| ((*member).to_owned(), Bytes::copy_from_slice(part.as_bytes())));
        self.sync_with(group, identity(member), generation, parts.collect())
    }

    pub(super) fn sync_static(&mut self, group: &str, member: &str, instance: &str, generation: u32) -> RequestId {
        let member = MemberIdentity { member_id: member.to_owned(), instance_id: Some(instance.to_owned()) };
        self.sync_with(group, member, generation, Vec::new())
    }

    /// The leader's sync, or a follower's, with assignments as they are.
    pub(super) fn sync_with(
        &mut self,
        group: &str,
        member: MemberIdentity,
        generation: u32,
        assignments: Vec<(String, Bytes)>,
    ) -> RequestId {
        let id = self.request();
        let request = SyncRequest {
            group_id: group.to_owned(),
            member,
            generation: Some(Generation(generation)),
            protocol_type: None,
            protocol_name: None,
            assignments,
        };
        self.with_effects(|shard, now, effects| shard.sync(now, id, request, effects));
        id
    }

    pub(super) fn sync_error(&mut self, group: &str, member: &str, generation: u32) -> GroupError {
        let request = self.sync(group, member, generation, &[]);
        self.synced(request).unwrap_err()
    }

    pub(super) fn synced(&mut self, request: RequestId) -> Result<Bytes, GroupError> {
        match self.answers.remove(&request) {
            Some(Answer::Sync(SyncAnswer(outcome))) => outcome.map(|synced| synced.assignment),
            other => panic!("not synced: {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, group: &str, member: &str, generation: u32) -> Result<(), GroupError> {
        let now = self.moment();
        self.shard.heartbeat(now, group, &identity(member), Some(Generation(generation)))
    }

    pub(super) fn leave(&mut self, group: &str, members: &[MemberIdentity]) -> LeaveAnswer {
        let id = self.request();
        let members = members.iter().map(|member| LeavingMember { member: member.clone(), reason: None }).collect();
        let request = LeaveRequest { group_id: group.to_owned(), members };
        self.with_effects(|shard, now, effects| shard.leave(now, id, request, effects));
        match self.answers.remove(&id) {
            Some(Answer::Leave(answer)) => answer,
            other => panic!("no answer to leave: {other:?}"),
        }
    }

    pub(super) fn commit(&mut self, request: CommitRequest) -> RequestId {
        let id = self.request();
        self.with_effects(|shard, now, effects| shard.commit(now, id, request, effects));
        id
    }

    pub(super) fn committed(&mut self, request: RequestId) -> Result<PartitionOutcomes, GroupError> {
        match self.answers.remove(&request) {
            Some(Answer::Commit(CommitAnswer(outcome))) => outcome,
            other => panic!("no answer to commit: {other:?}"),
        }
    }

    pub(super) fn settle(&mut self) -> RequestId {
        let id = self.request();
        self.with_effects(|shard, _, effects| shard.settle(id, effects));
        id
    }

    pub(super) fn delete_group(&mut self, group: &str) -> RequestId {
        let id = self.request();
        self.with_effects(|shard, now, effects| shard.delete_group(now, id, group.to_owned(), effects));
        id
    }

    pub(super) fn delete_offset(&mut self, group: &str, topic: &str) -> Result<PartitionOutcomes, GroupError> {
        let id = self.request();
        let topics = vec![TopicPartitions { topic: topic.to_owned(), partitions: vec![PartitionIndex(0)] }];
        self.with_effects(|shard, now, effects| shard.delete_offsets(now, id, group, topics, effects));
        match self.answers.remove(&id) {
            Some(Answer::DeleteOffsets(CommitAnswer(outcome))) => outcome,
            other => panic!("no answer to delete: {other:?}"),
        }
    }

    /// Makes a topic, or has it grow.
    pub(super) fn put_topic(&mut self, name: &str, id: TopicId, partitions: u32) {
        let has_new = self.cluster.topic(name).is_none();
        self.cluster.put(name, id, partitions);
        let change = TopicsChange { has_new, touched: vec![name.to_owned()], deleted: Vec::new() };
        self.show_cluster(&change);
    }

    pub(super) fn remove_topic(&mut self, name: &str) {
        let Some(topic) = self.cluster.topic(name) else { return };
        self.cluster.remove(name);
        let deleted = vec![(name.to_owned(), topic.id)];
        self.show_cluster(&TopicsChange { has_new: false, touched: vec![name.to_owned()], deleted });
    }

    pub(super) fn show_cluster(&mut self, change: &TopicsChange) {
        let cluster = Arc::new(self.cluster.clone());
        self.with_effects(|shard, now, effects| shard.cluster_changed(now, cluster, change, effects));
    }

    /// Matches topics against patterns, as the server does beside the path of requests.
    pub(super) fn resolve_patterns(&mut self) {
        for job in std::mem::take(&mut self.to_resolve) {
            let found = find_topics(&job.patterns, &self.cluster, self.moment().wall, &|_| true);
            self.with_effects(|shard, now, effects| {
                shard.regexes_resolved(now, &job.group_id, Some(found), effects);
            });
        }
    }

    pub(super) fn heartbeat_consumer(&mut self, request: ConsumerHeartbeat) -> RequestId {
        let id = self.request();
        self.with_effects(|shard, now, effects| shard.consumer_heartbeat(now, id, request, effects));
        id
    }

    pub(super) fn heard(&mut self, request: RequestId) -> Result<HeartbeatAnswer, ModernGroupError> {
        match self.answers.remove(&request) {
            Some(Answer::Heartbeat(outcome)) => outcome,
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    pub(super) fn topic_deleted(&mut self, topic: &str, id: TopicId) {
        let deleted = [(topic.to_owned(), id)];
        self.with_effects(|shard, now, effects| shard.topics_deleted(now, &deleted, effects));
    }

    pub(super) fn offset(&self, group: &str, topic: &str) -> Option<i64> {
        let partitions = self.shard.committed(group)?.get(topic)?;
        partitions.get(&PartitionIndex(0)).map(|committed| committed.offset)
    }

    pub(super) fn state(&self, group: &str) -> Option<GroupState> {
        self.shard.describe(group).map(|described| described.state)
    }

    /// A stable group of `count` members with the assignments `part-0`, `part-1`, …; the leader's id is first.
    pub(super) fn stable_group(&mut self, group: &str, count: usize) -> Vec<String> {
        let joins: Vec<(String, RequestId)> = (0..count).map(|_| self.join_dynamic(group)).collect();
        while joins.iter().any(|(_, request)| self.is_waiting(*request)) {
            self.pass(SECOND);
        }
        let mut members = Vec::new();
        let mut generation = 0;
        for (member, request) in joins {
            let joined = self.joined(request);
            generation = joined.generation.0;
            let place = if joined.leader == member { 0 } else { members.len() };
            members.insert(place, member);
        }
        let parts: Vec<String> = (0..count).map(|part| format!("part-{part}")).collect();
        let assignments: Vec<(&str, &str)> =
            members.iter().zip(&parts).map(|(member, part)| (member.as_str(), part.as_str())).collect();
        for (place, member) in members.iter().enumerate() {
            let request = self.sync(group, member, generation, if place == 0 { &assignments } else { &[] });
            assert_eq!(self.synced(request), Ok(Bytes::from(parts[place].clone())));
            self.heartbeat(group, member, generation).unwrap();
        }
        members
    }

    /// Another coordinator, loaded from this one's log.
    pub(super) fn restarted(&self) -> Harness {
        let mut harness = Harness::on(GroupConfig::clone(&self.shard.config), self.cluster.clone());
        harness.now = self.now;
        harness.next_request = self.next_request;
        for entry in &self.log {
            let now = harness.moment();
            harness.shard.replay(now, entry.clone()).unwrap();
        }
        harness.log = self.log.clone();
        harness.with_effects(|shard, now, effects| shard.finish_load(now, effects));
        harness
    }
}
