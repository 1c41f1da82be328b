//! The groups of one partition of `__consumer_offsets`: state, pending appends, timers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use varve_metadata::model::{Offset, ProducerId};

use super::{
    Answer, AppendFailure, AppendId, Batch, CommitAnswer, CommittedOffset, Effect, Effects, Entry, Generation,
    GroupConfig, GroupError, GroupOrder, GroupState, JoinRequest, Machine, Now, RequestId, TopicOffsets,
    cluster::ClusterView,
    codec::RecordError,
    consumer::{self, ConsumerGroup},
    group::{Group, Member},
    locks::{Locks, Need, Task},
    machine,
    modern::Outcome,
    open_commits::{OpenCommits, Settled},
    rebalance::refused_join,
    records::{CoordinatorRecord, OffsetKey},
    share_group::{self, ShareGroup},
    streams::{self, StreamsGroup},
    timers::{TimerAction, TimerKey, Timers},
};

/// The coordinator of the groups that live in one partition.
///
/// Its life is that of every [`Machine`].
#[derive(Debug)]
pub struct Shard {
    pub(super) config: Arc<GroupConfig>,
    /// Classic groups, those made by a commit alone included.
    pub(super) groups: BTreeMap<String, Group>,
    /// Consumer groups (KIP-848).
    pub(super) consumers: BTreeMap<String, ConsumerGroup>,
    /// Share groups (KIP-932).
    pub(super) shares: BTreeMap<String, ShareGroup>,
    /// Streams groups (KIP-1071). No id is in two of these.
    pub(super) streams: BTreeMap<String, StreamsGroup>,
    pub(super) cluster: Arc<dyn ClusterView>,
    /// The version of the cluster in which the newest topic came.
    pub(super) newest_topic_at: i64,
    pub(super) locks: Locks,
    pub(super) offsets: HashMap<String, TopicOffsets>,
    pub(super) open_commits: OpenCommits,
    pub(super) timers: Timers,
    /// In the order of the log.
    pub(super) pending: VecDeque<PendingAppend>,
    next_append: u64,
    pub(super) completed_rebalances: u64,
}

/// An append that is not acknowledged yet.
#[derive(Debug)]
pub(super) struct PendingAppend {
    id: AppendId,
    pub(super) batch: Batch<CoordinatorRecord>,
    then: Completion,
    /// Answers that may go out only after this append, however it ends.
    waiting: Vec<(RequestId, Answer)>,
}

/// What an append was for.
#[derive(Debug)]
pub(super) enum Completion {
    Nothing,
    NewGroup(String),
    Commit(RequestId, CommitAnswer),
    DeleteOffsets(RequestId, CommitAnswer),
    EndTransaction(RequestId),
    DeleteGroup(RequestId, String),
    ExpireGroup(String),
    Assignment {
        group: String,
        generation: Generation,
        assignments: HashMap<String, Bytes>,
    },
    StaticRejoin(Box<StaticRejoin>),
    Consumer(Box<Outcome<consumer::Soft>>),
    Share(Box<Outcome<share_group::Soft>>),
    Streams(Box<Outcome<Option<streams::Soft>>>),
    /// A group of another type made room for the classic one that this member joins.
    MadeRoom(RequestId, Box<JoinRequest>),
}

/// A static member that came back under a new id without disturbing the group (KIP-345).
#[derive(Debug)]
pub(super) struct StaticRejoin {
    pub(super) group: String,
    pub(super) instance: String,
    pub(super) new_id: String,
    /// The member as it was, should the log refuse the change.
    pub(super) old: Member,
    /// Clients that cannot be told to skip the assignment are told the leader of before, so that none assigns anew.
    pub(super) leader_before: Option<String>,
    pub(super) supports_skip_assignment: bool,
}

/// One step of a shard.
pub(super) type Step<'a> = machine::Step<'a, Shard>;

/// Numbers for the metrics of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Groups, of every state.
    pub groups: u64,
    /// Groups that are stable.
    pub stable_groups: u64,
    /// Groups between two generations.
    pub rebalancing_groups: u64,
    /// Groups without members.
    pub empty_groups: u64,
    /// Members, of all groups.
    pub members: u64,
    /// Committed offsets, of all groups.
    pub offsets: u64,
    /// Rebalances completed since the shard was made.
    pub completed_rebalances: u64,
}

impl Shard {
    /// A shard without groups, ready to be loaded.
    pub fn new(config: Arc<GroupConfig>, cluster: Arc<dyn ClusterView>) -> Shard {
        Shard {
            config,
            groups: BTreeMap::new(),
            consumers: BTreeMap::new(),
            shares: BTreeMap::new(),
            streams: BTreeMap::new(),
            newest_topic_at: cluster.version(),
            cluster,
            locks: Locks::default(),
            offsets: HashMap::new(),
            open_commits: OpenCommits::default(),
            timers: Timers::default(),
            pending: VecDeque::new(),
            next_append: 0,
            completed_rebalances: 0,
        }
    }

    fn fire(&mut self, key: TimerKey, action: TimerAction, step: &mut Step<'_>) {
        match (key, action) {
            // Set anew while it waited for its turn.
            (key, _) if self.timers.is_set(&key) => {}
            (key, action) if key.group().is_some_and(|group| self.consumers.contains_key(group)) => {
                self.expire_member(&key, action, step);
            }
            (key, action) if key.group().is_some_and(|group| self.shares.contains_key(group)) => {
                self.expire_share_member(&key, action, step);
            }
            (key, action) if key.group().is_some_and(|group| self.streams.contains_key(group)) => {
                self.fire_streams(&key, action, step);
            }
            (TimerKey::Session { group, member }, _) => self.expire_session(&group, &member, step),
            (TimerKey::Join { group }, TimerAction::CompleteInitialJoin { delay, remaining }) => {
                self.complete_initial_join(&group, delay, remaining, step);
            }
            (TimerKey::Join { group }, _) => self.complete_join(&group, step),
            (TimerKey::Sync { group }, TimerAction::ExpireSync(generation)) => {
                self.expire_sync(&group, generation, step);
            }
            _ => {}
        }
    }

    /// How much of the group somebody needs who does not change its type.
    pub(super) fn need_of(&self, group_id: &str) -> Need {
        // All others change only by what their log holds.
        if self.is_not_classic(group_id) { Need::Alone } else { Need::Shared }
    }

    /// Does it now, or when nothing is on its way that it has to wait for.
    pub(super) fn run_or_wait(&mut self, group_id: &str, need: Need, task: Task, step: &mut Step<'_>) {
        if let Some(task) = self.locks.pass(group_id, need, task) {
            self.run(task, step);
        }
    }

    fn run(&mut self, task: Task, step: &mut Step<'_>) {
        match task {
            Task::Heartbeat(id, request) => self.heartbeat_consumer(id, &request, step),
            Task::StreamsHeartbeat(id, request) => self.heartbeat_streams(id, &request, step),
            Task::Join(id, request) => self.join_any(id, *request, step),
            Task::Sync(id, request) => self.sync_any(id, *request, step),
            Task::Leave(id, request) => self.leave_any(id, &request, step),
            Task::DeleteGroup(id, group) => self.delete_now(id, group, step),
            Task::Resolved(group, found) => self.take_resolved(&group, found, step),
            Task::ShareHeartbeat(id, request) => self.heartbeat_share(id, &request, step),
            Task::AlterShares(id, group, places) => self.alter_shares(id, &group, &places, step),
            Task::SharesBegun(id, group, partitions, all) => self.take_begun(id, &group, &partitions, all, step),
            Task::EndShares(id, group, topics) => self.begin_end(id, &group, topics, step),
            Task::SharesEnded(id, group, topics) => self.take_ended(id, &group, &topics, step),
            Task::Timer(key, action) => self.fire(key, action, step),
        }
    }

    /// Answers `request` with [`Answer::Settled`] once everything asked of the log so far is decided: what is read
    /// then includes it (KIP-447, "require stable").
    pub fn settle(&mut self, request: RequestId, effects: &mut Vec<Effect>) {
        self.answer_after_pending(request, Answer::Settled, effects);
    }

    pub(super) fn answer_after_pending(&mut self, request: RequestId, answer: Answer, effects: &mut Vec<Effect>) {
        match self.pending.back_mut() {
            Some(pending) => pending.waiting.push((request, answer)),
            None => effects.push(Effect::Answer { request, answer }),
        }
    }

    pub(super) fn append(&mut self, records: Vec<CoordinatorRecord>, then: Completion, step: &mut Step<'_>) {
        self.append_batch(Batch::Records(records.into()), then, step);
    }

    pub(super) fn append_batch(&mut self, batch: Batch<CoordinatorRecord>, then: Completion, step: &mut Step<'_>) {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        for group in memberships(&batch) {
            let of_group = |record: &&CoordinatorRecord| record.membership_of() == Some(group);
            self.locks.hold(group, records_of(&batch).iter().filter(of_group).any(CoordinatorRecord::is_exclusive));
        }
        self.pending.push_back(PendingAppend { id, batch: batch.clone(), then, waiting: Vec::new() });
        step.effects.push(Effect::Append { id, batch });
    }

    /// What an acknowledged batch changes.
    fn apply_batch(&mut self, base: Offset, batch: &Batch<CoordinatorRecord>, now: Now) {
        match batch {
            Batch::Records(records) => {
                // Replay does not come by here: what it finds was counted before.
                self.completed_rebalances += u64::from(records.iter().any(CoordinatorRecord::is_target));
                for (at, record) in (0..).zip(records.iter()) {
                    self.apply(record, base.plus(at), now);
                }
            }
            Batch::Transactional { producer, records, .. } => {
                for (at, record) in (0..).zip(records.iter()) {
                    if let CoordinatorRecord::Offset(key, Some(offset)) = record {
                        self.put_pending(*producer, key.clone(), base.plus(at), offset.clone(), now);
                    }
                }
            }
            Batch::Marker(end) => self.end_commits(end.producer, end.committed, now),
        }
    }

    /// What an acknowledged record changes; replay at start takes the same way. Group metadata is not among it:
    /// there, memory is ahead of the log.
    fn apply(&mut self, record: &CoordinatorRecord, at: Offset, now: Now) {
        match record {
            CoordinatorRecord::Offset(key, Some(offset)) => self.put_offset(key.clone(), at, offset.clone(), now),
            CoordinatorRecord::Offset(key, None) => self.remove_offset(key),
            CoordinatorRecord::Group(group, None) => self.remove_group(group, now),
            CoordinatorRecord::Group(_, Some(_)) => {}
            CoordinatorRecord::Consumer(record) => self.apply_consumer(record.clone(), now),
            CoordinatorRecord::Share(record) => self.apply_share(record.clone(), now),
            CoordinatorRecord::Streams(record) => self.apply_streams(record.clone(), now),
        }
    }

    pub(super) fn put_offset(&mut self, key: OffsetKey, at: Offset, offset: CommittedOffset, now: Now) {
        self.ensure_group(&key.group, now);
        self.open_commits.supersede(&key, at);
        self.offsets.entry(key.group).or_default().entry(key.topic).or_default().insert(key.partition, offset);
    }

    pub(super) fn put_pending(
        &mut self,
        producer: ProducerId,
        key: OffsetKey,
        at: Offset,
        offset: CommittedOffset,
        now: Now,
    ) {
        self.ensure_group(&key.group, now);
        self.open_commits.add(producer, key, at, offset);
    }

    /// The transaction of `producer` ended: what it committed becomes visible, or is forgotten.
    pub(super) fn end_commits(&mut self, producer: ProducerId, committed: bool, now: Now) {
        for Settled { key, record, offset } in self.open_commits.end(producer) {
            if committed {
                self.put_offset(key, record, offset, now);
            }
        }
    }

    /// A commit without membership makes a simple group: empty, without a protocol type.
    fn ensure_group(&mut self, group_id: &str, now: Now) {
        if !self.has_group(group_id) {
            self.groups.insert(group_id.to_owned(), Group::new(group_id.to_owned(), now.wall));
        }
    }

    pub(super) fn remove_offset(&mut self, key: &OffsetKey) {
        self.open_commits.remove(key);
        let Some(topics) = self.offsets.get_mut(&key.group) else { return };
        let Some(partitions) = topics.get_mut(&key.topic) else { return };
        partitions.remove(&key.partition);
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.offsets.remove(&key.group);
        }
    }

    pub(super) fn remove_group(&mut self, group_id: &str, now: Now) {
        self.timers.cancel_group(group_id);
        self.groups.remove(group_id);
        // A commit may have been on its way while the group was deleted: what it left must stay within reach of expiry.
        if self.offsets.contains_key(group_id) || self.open_commits.concern_group(group_id) {
            self.groups.insert(group_id.to_owned(), Group::new(group_id.to_owned(), now.wall));
        }
    }

    pub(super) fn complete(&mut self, completion: Completion, result: Result<(), GroupError>, step: &mut Step<'_>) {
        match completion {
            Completion::Nothing => {}
            Completion::NewGroup(group) => {
                if let Err(error) = result {
                    self.abandon_new_group(&group, error, step);
                }
            }
            Completion::Commit(request, answer) => {
                step.answer(request, Answer::Commit(CommitAnswer(result.and(answer.0))));
            }
            Completion::DeleteOffsets(request, answer) => {
                step.answer(request, Answer::DeleteOffsets(CommitAnswer(result.and(answer.0))));
            }
            Completion::EndTransaction(request) => step.answer(request, Answer::TransactionEnded(result)),
            Completion::DeleteGroup(request, group) => {
                if result.is_err() {
                    self.revive_group(&group);
                }
                step.answer(request, Answer::DeleteGroup(result));
            }
            Completion::ExpireGroup(group) => {
                if result.is_err() {
                    self.revive_group(&group);
                }
            }
            Completion::Assignment { group, generation, assignments } => {
                self.assignment_appended(&group, generation, assignments, result, step);
            }
            Completion::StaticRejoin(rejoin) => self.static_rejoin_appended(*rejoin, result, step),
            Completion::Consumer(outcome) => self.settle_consumer(*outcome, result, step),
            Completion::Share(outcome) => self.settle_share(*outcome, result, step),
            Completion::Streams(outcome) => self.settle_streams(*outcome, result, step),
            Completion::MadeRoom(request, join) => match result {
                Ok(()) => self.locks.put_first(&join.group_id.clone(), Task::Join(request, join)),
                Err(error) => step.answer(request, refused_join("", error)),
            },
        }
    }

    /// Undoes the mark of a deletion that did not reach the log.
    fn revive_group(&mut self, group_id: &str) {
        if let Some(group) = self.groups.get_mut(group_id).filter(|group| group.state == GroupState::Dead) {
            group.state = group.previous_state;
        }
    }

    /// Whether an offset is committed, or on its way.
    pub(super) fn may_have_offset(&self, key: &OffsetKey) -> bool {
        let committed = self
            .offsets
            .get(&key.group)
            .and_then(|topics| topics.get(&key.topic))
            .is_some_and(|partitions| partitions.contains_key(&key.partition));
        committed || self.open_commits.concern(key) || self.pending_offsets(&key.group).any(|pending| pending == key)
    }

    /// Offsets of `group` in appends that are not acknowledged yet.
    pub(super) fn pending_offsets<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a OffsetKey> {
        self.offsets_on_their_way().filter(move |key| key.group == group)
    }

    /// Offsets of all groups in appends that are not acknowledged yet.
    pub(super) fn offsets_on_their_way(&self) -> impl Iterator<Item = &OffsetKey> {
        let batches = self.pending.iter().map(|pending| records_of(&pending.batch));
        batches.flatten().filter_map(|record| match record {
            CoordinatorRecord::Offset(key, Some(_)) => Some(key),
            _ => None,
        })
    }
}

impl Machine for Shard {
    type Record = CoordinatorRecord;
    type Answer = Answer;
    type Order = GroupOrder;

    fn replay(&mut self, now: Now, entry: Entry<CoordinatorRecord>) -> Result<(), RecordError> {
        self.replay_entry(now, entry)
    }

    fn finish_load(&mut self, now: Now, effects: &mut Effects<Shard>) {
        self.start_timers(&mut Step { now, effects });
    }

    fn appended(
        &mut self,
        now: Now,
        id: AppendId,
        result: Result<Offset, AppendFailure>,
        effects: &mut Effects<Shard>,
    ) {
        let mut step = Step { now, effects };
        let pending = self.pending.pop_front().expect("an append is reported once");
        assert_eq!(pending.id, id, "appends are acknowledged in the order of the log");
        if let Ok(base) = result {
            self.apply_batch(base, &pending.batch, now);
        }
        self.complete(pending.then, result.map(|_| ()).map_err(append_error), &mut step);
        for (request, answer) in pending.waiting {
            step.answer(request, answer);
        }
        for group in memberships(&pending.batch) {
            self.locks.release(group);
            while let Some(task) = self.locks.next(group) {
                self.run(task, &mut step);
            }
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Effects<Shard>) {
        let mut step = Step { now, effects };
        while let Some((key, action)) = self.timers.take_due(now.elapsed) {
            match key.group().map(str::to_owned) {
                None => self.clean_up(&mut step),
                Some(group) => {
                    let need = self.need_of(&group);
                    self.run_or_wait(&group, need, Task::Timer(key, action), &mut step);
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }
}

fn records_of(batch: &Batch<CoordinatorRecord>) -> &[CoordinatorRecord] {
    match batch {
        Batch::Records(records) | Batch::Transactional { records, .. } => records,
        Batch::Marker(_) => &[],
    }
}

/// The groups whose membership the batch is about, each once.
fn memberships(batch: &Batch<CoordinatorRecord>) -> BTreeSet<&str> {
    records_of(batch).iter().filter_map(CoordinatorRecord::membership_of).collect()
}

fn append_error(failure: AppendFailure) -> GroupError {
    match failure {
        AppendFailure::Unavailable => GroupError::CoordinatorNotAvailable,
        AppendFailure::NotLeader => GroupError::NotCoordinator,
        AppendFailure::Refused => GroupError::Unexpected,
        AppendFailure::ProducerFenced => GroupError::InvalidProducerEpoch,
        AppendFailure::NoTransaction => GroupError::InvalidTransactionState,
        AppendFailure::CoordinatorFenced => GroupError::TransactionCoordinatorFenced,
    }
}
