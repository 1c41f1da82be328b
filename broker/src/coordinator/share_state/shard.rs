//! The share partitions whose state lies in one partition of `__share_group_state`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use varve_metadata::model::{LeaderEpoch, Offset, TopicId};

use super::{
    Answer, Effect, KeptState, ShareKey, ShareRecord, ShareStateConfig, ShareStateError, Snapshot, StateChange,
    StateEpoch, StateRequest, Update, combine,
};
use crate::coordinator::{
    AppendFailure, AppendId, Batch, Effects, Entry, Machine, Now, RequestId, codec::RecordError, machine,
};

/// One step of a shard.
type Step<'a> = machine::Step<'a, Shard>;

/// The keeper of what lives in one partition. Its life is that of every [`Machine`].
#[derive(Debug)]
pub struct Shard {
    config: Arc<ShareStateConfig>,
    shares: BTreeMap<ShareKey, Share>,
    /// Share partitions of which something is on its way, and what waits for that: each for its client's connection.
    busy: HashMap<ShareKey, VecDeque<(RequestId, StateRequest)>>,
    /// In the order of the log.
    pending: VecDeque<Pending>,
    next_append: u64,
    /// Behind the last record.
    end: Offset,
    next_look: Option<Duration>,
    /// Topics that are known to be gone when it begins to serve.
    gone: BTreeSet<TopicId>,
}

/// A share partition.
#[derive(Clone, Debug)]
struct Share {
    state: KeptState,
    /// The newest epochs that anybody named.
    leader_epoch: Option<LeaderEpoch>,
    state_epoch: StateEpoch,
    snapshot_epoch: i32,
    snapshot_at: Offset,
    snapshot: Snapshot,
    /// Changes since the snapshot.
    updates: u32,
}

#[derive(Debug)]
struct Pending {
    id: AppendId,
    records: Arc<[ShareRecord]>,
    answer: Option<(RequestId, Answer)>,
}

impl Shard {
    /// A shard without share partitions, ready to be loaded.
    pub fn new(config: Arc<ShareStateConfig>) -> Shard {
        Shard {
            config,
            shares: BTreeMap::new(),
            busy: HashMap::new(),
            pending: VecDeque::new(),
            next_append: 0,
            end: Offset::ZERO,
            next_look: None,
            gone: BTreeSet::new(),
        }
    }

    /// Asks something about a share partition. Answered with [`Answer`] once everything before is in the log.
    pub fn ask(&mut self, now: Now, id: RequestId, key: ShareKey, request: StateRequest, effects: &mut Vec<Effect>) {
        match self.busy.get_mut(&key) {
            Some(waiting) => waiting.push_back((id, request)),
            None => self.run(id, key, request, &mut Step { now, effects }),
        }
    }

    /// What is kept of a share partition; `None` if nothing is (ReadShareGroupStateSummary).
    pub fn read(&self, key: &ShareKey) -> Option<&KeptState> {
        self.shares.get(key).map(|share| &share.state)
    }

    /// How many share partitions there are.
    pub fn len(&self) -> usize {
        self.shares.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Which topics are gone. Only for a shard that does not serve yet: it ends what is kept of them when it does.
    pub fn forget_topics(&mut self, is_gone: &dyn Fn(TopicId) -> bool) {
        self.gone = self.shares.keys().map(|key| key.topic).filter(|topic| is_gone(*topic)).collect();
    }

    /// Ends what is kept of partitions of topics that are gone.
    pub fn topics_deleted(&mut self, now: Now, deleted: &BTreeSet<TopicId>, effects: &mut Vec<Effect>) {
        let gone = self.shares.keys().filter(|key| deleted.contains(&key.topic) && !self.busy.contains_key(key));
        let gone: Vec<ShareKey> = gone.cloned().collect();
        for key in gone {
            self.append(vec![ShareRecord::Snapshot(key, None)], None, &mut Step { now, effects });
        }
    }

    /// Records before this one say nothing any more: the log may begin there.
    pub fn redundant_before(&self) -> Offset {
        self.shares.values().map(|share| share.snapshot_at).min().unwrap_or(self.end)
    }

    fn run(&mut self, id: RequestId, key: ShareKey, request: StateRequest, step: &mut Step<'_>) {
        let is_read = matches!(request, StateRequest::Read { .. });
        match self.plan(&key, request, step.now) {
            Ok((record, answer)) => match record {
                Some(record) => self.append(vec![record], Some((id, answer)), step),
                None => step.answer(id, answer),
            },
            Err(error) => step.answer(id, if is_read { Answer::Read(Err(error)) } else { Answer::Done(Err(error)) }),
        }
    }

    /// The record to be written, if one is, and the answer once it is there.
    fn plan(
        &self,
        key: &ShareKey,
        request: StateRequest,
        now: Now,
    ) -> Result<(Option<ShareRecord>, Answer), ShareStateError> {
        let share = self.shares.get(key);
        match request {
            StateRequest::Initialize { state_epoch, start } => {
                if share.is_some_and(|share| share.state_epoch > state_epoch) {
                    return Err(ShareStateError::FencedStateEpoch);
                }
                let settled = start.map(|_| 0);
                let state = KeptState { state_epoch, leader_epoch: None, start, settled, batches: Vec::new() };
                let epoch = share.map_or(0, |share| share.snapshot_epoch + 1);
                let snapshot = Snapshot { epoch, state, made_at: now.wall, written_at: now.wall };
                Ok((Some(ShareRecord::Snapshot(key.clone(), Some(snapshot))), Answer::Done(Ok(()))))
            }
            StateRequest::Write(change) => {
                let share = share.ok_or(ShareStateError::NotInitialized)?;
                if change.leader_epoch.is_some() {
                    share.check_leader(change.leader_epoch)?;
                }
                if change.state_epoch.is_some_and(|epoch| epoch < share.state_epoch) {
                    return Err(ShareStateError::FencedStateEpoch);
                }
                // Who leads is noted by who reads. A word that comes late does not bring back what was settled since.
                let start = change.start.map(|start| share.state.start.map_or(start, |known| known.max(start)));
                let change = StateChange { leader_epoch: share.state.leader_epoch, start, ..change };
                Ok((Some(self.changed(key, share, change, now)), Answer::Done(Ok(()))))
            }
            StateRequest::Read { leader_epoch } => {
                let share = share.ok_or(ShareStateError::NotInitialized)?;
                share.check_leader(leader_epoch)?;
                let is_new = leader_epoch.is_some() && leader_epoch != share.leader_epoch;
                let record = is_new.then(|| {
                    let (start, settled) = (share.state.start, share.state.settled);
                    let change = StateChange { state_epoch: None, leader_epoch, start, settled, batches: Vec::new() };
                    self.changed(key, share, change, now)
                });
                Ok((record, Answer::Read(Ok(share.state.clone()))))
            }
            StateRequest::Delete => Ok((share.map(|_| ShareRecord::Snapshot(key.clone(), None)), Answer::Done(Ok(())))),
        }
    }

    /// The change as a record: of its own, or as a part of everything when there were many.
    fn changed(&self, key: &ShareKey, share: &Share, change: StateChange, now: Now) -> ShareRecord {
        let batches = combine(&change.batches, &[], Offset::ZERO);
        let update = Update {
            snapshot_epoch: share.snapshot_epoch,
            leader_epoch: change.leader_epoch,
            start: change.start,
            settled: change.settled,
            batches,
        };
        if share.updates < self.config.updates_per_snapshot {
            return ShareRecord::Update(key.clone(), update);
        }
        let snapshot = Snapshot {
            epoch: share.snapshot_epoch + 1,
            state: share.state.with(&update),
            made_at: now.wall,
            written_at: now.wall,
        };
        ShareRecord::Snapshot(key.clone(), Some(snapshot))
    }

    fn append(&mut self, records: Vec<ShareRecord>, answer: Option<(RequestId, Answer)>, step: &mut Step<'_>) {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        for record in &records {
            self.busy.entry(record.key().clone()).or_default();
        }
        let records: Arc<[ShareRecord]> = records.into();
        self.pending.push_back(Pending { id, records: records.clone(), answer });
        step.effects.push(Effect::Append { id, batch: Batch::Records(records) });
    }

    fn apply(&mut self, record: &ShareRecord, at: Offset) {
        self.end = at.plus(1);
        match record {
            ShareRecord::Snapshot(key, None) => {
                self.shares.remove(key);
            }
            ShareRecord::Snapshot(key, Some(snapshot)) => {
                let state = &snapshot.state;
                let before = self.shares.get(key);
                let share = Share {
                    leader_epoch: before.and_then(|before| before.leader_epoch).max(state.leader_epoch),
                    state_epoch: before.map_or(state.state_epoch, |before| before.state_epoch.max(state.state_epoch)),
                    state: state.clone(),
                    snapshot_epoch: snapshot.epoch,
                    snapshot_at: at,
                    snapshot: snapshot.clone(),
                    updates: 0,
                };
                self.shares.insert(key.clone(), share);
            }
            ShareRecord::Update(key, update) => {
                // What is left of a share partition whose snapshot is gone says nothing.
                if let Some(share) = self.shares.get_mut(key) {
                    share.leader_epoch = share.leader_epoch.max(update.leader_epoch);
                    share.state = share.state.with(update);
                    share.updates += 1;
                }
            }
        }
    }

    /// Snapshots of what has been quiet for long, so that the log need not be kept for its sake. None while all are quiet:
    /// then nothing grows.
    fn look(&mut self, step: &mut Step<'_>) {
        let cold = self.config.cold_after;
        self.next_look = Some(step.now.elapsed + cold);
        let age = |share: &Share| step.now.wall.to_wire().saturating_sub(share.snapshot.written_at.to_wire());
        let is_cold = |share: &Share| u128::try_from(age(share)).is_ok_and(|age| age >= cold.as_millis());
        if self.shares.values().all(|share| share.snapshot.made_at != share.snapshot.written_at) {
            return;
        }
        let quiet = self.shares.iter().filter(|(key, share)| is_cold(share) && !self.busy.contains_key(*key));
        let records: Vec<ShareRecord> = quiet
            .map(|(key, share)| {
                let snapshot = Snapshot {
                    epoch: share.snapshot_epoch + 1,
                    state: share.state.clone(),
                    made_at: share.snapshot.made_at,
                    written_at: step.now.wall,
                };
                ShareRecord::Snapshot(key.clone(), Some(snapshot))
            })
            .collect();
        for record in records {
            self.append(vec![record], None, step);
        }
    }

    /// Nothing of these is on its way any more: whoever waits has its turn.
    fn free(&mut self, records: &[ShareRecord], step: &mut Step<'_>) {
        for record in records {
            let key = record.key();
            let mut waiting = self.busy.remove(key).unwrap_or_default();
            while let Some((id, request)) = waiting.pop_front() {
                self.run(id, key.clone(), request, step);
                if let Some(busy) = self.busy.get_mut(key) {
                    busy.append(&mut waiting);
                    break;
                }
            }
        }
    }
}

impl Share {
    fn check_leader(&self, epoch: Option<LeaderEpoch>) -> Result<(), ShareStateError> {
        if epoch < self.leader_epoch { Err(ShareStateError::FencedLeaderEpoch) } else { Ok(()) }
    }
}

impl KeptState {
    /// The state after a change.
    fn with(&self, update: &Update) -> KeptState {
        let start = update.start.or(self.start);
        KeptState {
            state_epoch: self.state_epoch,
            leader_epoch: update.leader_epoch.or(self.leader_epoch),
            start,
            settled: update.settled,
            batches: combine(&self.batches, &update.batches, start.unwrap_or(Offset::ZERO)),
        }
    }
}

impl Machine for Shard {
    type Record = ShareRecord;
    type Answer = Answer;
    type Order = Infallible;

    fn replay(&mut self, _now: Now, entry: Entry<ShareRecord>) -> Result<(), RecordError> {
        // Nobody writes it in transactions.
        if let Entry::Record { offset, record, .. } = entry {
            self.apply(&record, offset);
        }
        Ok(())
    }

    fn finish_load(&mut self, now: Now, effects: &mut Effects<Shard>) {
        self.next_look = Some(now.elapsed + self.config.cold_after);
        let gone = std::mem::take(&mut self.gone);
        self.topics_deleted(now, &gone, effects);
    }

    fn appended(
        &mut self,
        now: Now,
        id: AppendId,
        result: Result<Offset, AppendFailure>,
        effects: &mut Effects<Shard>,
    ) {
        let mut step = Step { now, effects };
        let Pending { id: expected, records, answer } = self.pending.pop_front().expect("an append is reported once");
        assert_eq!(expected, id, "appends are acknowledged in the order of the log");
        if let Ok(base) = result {
            for (at, record) in (0..).zip(records.iter()) {
                self.apply(record, base.plus(at));
            }
        }
        if let Some((request, answer)) = answer {
            let answer = match (result, answer) {
                (Ok(_), answer) => answer,
                (Err(failure), Answer::Read(_)) => Answer::Read(Err(append_error(failure))),
                (Err(failure), Answer::Done(_)) => Answer::Done(Err(append_error(failure))),
            };
            step.answer(request, answer);
        }
        self.free(&records, &mut step);
    }

    fn tick(&mut self, now: Now, effects: &mut Effects<Shard>) {
        if self.next_look.is_some_and(|at| at <= now.elapsed) {
            self.look(&mut Step { now, effects });
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.next_look
    }
}

fn append_error(failure: AppendFailure) -> ShareStateError {
    match failure {
        AppendFailure::Unavailable => ShareStateError::CoordinatorNotAvailable,
        AppendFailure::NotLeader => ShareStateError::NotCoordinator,
        AppendFailure::Refused
        | AppendFailure::ProducerFenced
        | AppendFailure::NoTransaction
        | AppendFailure::CoordinatorFenced => ShareStateError::Unexpected,
    }
}
