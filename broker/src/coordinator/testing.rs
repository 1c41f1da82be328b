//! A shard with its log and clock at hand, for tests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use uuid::Uuid;
use varve_metadata::model::{Offset, PartitionIndex, Timestamp, TopicId};

use super::{records::CoordinatorRecord, *};

/// Topics at will.
#[derive(Clone, Debug, Default)]
pub(super) struct TestCluster {
    topics: BTreeMap<String, TopicFacts>,
    /// Of every topic's partitions.
    pub(super) racks: Vec<Vec<String>>,
    pub(super) version: i64,
    pub(super) times: ConsumerTimes,
    pub(super) streams: StreamsSettings,
}

impl TestCluster {
    pub(super) fn put(&mut self, name: &str, id: TopicId, partitions: u32) {
        self.topics.insert(name.to_owned(), TopicFacts { id, partitions });
        self.version += 1;
    }

    /// How many partitions the topic has; none if there is no such topic.
    pub(super) fn partitions_of(&self, name: &str) -> u32 {
        self.topics.get(name).map_or(0, |topic| topic.partitions)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.topics.remove(name);
        self.version += 1;
    }
}

impl ClusterView for TestCluster {
    fn topic(&self, name: &str) -> Option<TopicFacts> {
        self.topics.get(name).copied()
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.as_str())
    }

    fn topic_names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn racks(&self, _name: &str) -> Vec<Vec<String>> {
        self.racks.clone()
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn consumer_times(&self, _group_id: &str) -> ConsumerTimes {
        self.times
    }

    fn share_times(&self, _group_id: &str) -> ShareTimes {
        ShareTimes::default()
    }

    fn streams_settings(&self, _group_id: &str) -> StreamsSettings {
        self.streams
    }
}

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
        let id = self.request();
        let request = SyncRequest {
            group_id: group.to_owned(),
            member: identity(member),
            generation: Some(Generation(generation)),
            protocol_type: None,
            protocol_name: None,
            assignments: parts
                .iter()
                .map(|(member, part)| ((*member).to_owned(), Bytes::copy_from_slice(part.as_bytes())))
                .collect(),
        };
        self.with_effects(|shard, now, effects| shard.sync(now, id, request, effects));
        id
    }

    /// The leader's sync, or a follower's, with assignments as they are.
    pub(super) fn sync_with(
        &mut self,
        group: &str,
        member: &str,
        generation: u32,
        parts: Vec<(String, Bytes)>,
    ) -> RequestId {
        let id = self.request();
        let request = SyncRequest {
            group_id: group.to_owned(),
            member: identity(member),
            generation: Some(Generation(generation)),
            protocol_type: None,
            protocol_name: None,
            assignments: parts,
        };
        self.with_effects(|shard, now, effects| shard.sync(now, id, request, effects));
        id
    }

    pub(super) fn sync_static(&mut self, group: &str, member: &str, instance: &str, generation: u32) -> RequestId {
        let id = self.request();
        let member = MemberIdentity { member_id: member.to_owned(), instance_id: Some(instance.to_owned()) };
        let request = SyncRequest {
            group_id: group.to_owned(),
            member,
            generation: Some(Generation(generation)),
            protocol_type: None,
            protocol_name: None,
            assignments: Vec::new(),
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

pub(super) fn join_request(group: &str) -> JoinRequest {
    JoinRequest {
        group_id: group.to_owned(),
        member_id: None,
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SECOND * 10,
        rebalance_timeout: SECOND * 60,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", &["orders"])],
        reason: None,
        requires_known_member_id: true,
        supports_skip_assignment: true,
        fresh_id: Uuid::from_u128(0),
    }
}

pub(super) fn static_join(group: &str, instance: &str, fresh: u128) -> JoinRequest {
    JoinRequest { instance_id: Some(instance.to_owned()), fresh_id: Uuid::from_u128(fresh), ..join_request(group) }
}

/// A protocol with a consumer subscription.
pub(super) fn protocol(name: &str, topics: &[&str]) -> Protocol {
    let mut metadata = vec![0, 0];
    metadata.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend((topic.len() as i16).to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend([0xff; 4]); // no user data
    Protocol { name: name.to_owned(), metadata: metadata.into() }
}

pub(super) fn identity(member: &str) -> MemberIdentity {
    MemberIdentity { member_id: member.to_owned(), instance_id: None }
}

pub(super) fn instance(instance: &str) -> MemberIdentity {
    MemberIdentity { member_id: String::new(), instance_id: Some(instance.to_owned()) }
}

/// A commit of `offset` for partition 0 of `topic`, by nobody in particular.
pub(super) fn simple_commit(group: &str, topic: &str, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: group.to_owned(),
        member: identity(""),
        generation: None,
        retention: None,
        knows_group_id_not_found: true,
        topics: vec![CommitTopic {
            name: topic.to_owned(),
            id: TopicId::from_wire(Uuid::from_u128(7)),
            partitions: vec![CommitPartition {
                partition: PartitionIndex(0),
                offset,
                leader_epoch: None,
                metadata: String::new(),
            }],
        }],
    }
}

pub(super) fn member_commit(group: &str, member: &str, generation: u32, offset: i64) -> CommitRequest {
    CommitRequest {
        member: identity(member),
        generation: Some(Generation(generation)),
        ..simple_commit(group, "orders", offset)
    }
}

/// `offset`, committed by nobody in particular.
pub(super) fn committed_offset(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset,
        leader_epoch: None,
        metadata: String::new(),
        committed_at: Timestamp::default(),
        expires_at: None,
        topic_id: None,
    }
}
