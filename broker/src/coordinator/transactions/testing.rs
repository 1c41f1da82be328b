//! A shard with its log, its clock and the partitions of its transactions at hand, for tests.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use varve_metadata::model::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp};

use super::{messages::Effect, records::TransactionRecord, *};
use crate::coordinator::{AppendFailure, AppendId, Batch, EndOfTransaction, Entry, LogRecord, Machine, Now, RequestId};

pub(super) const SECOND: Duration = Duration::from_secs(1);
const EPOCH_ZERO: i64 = 1_700_000_000_000;

/// A coordinator on a log that acknowledges at once, and on partitions that take markers at once, unless told to wait.
pub(super) struct Harness {
    pub(super) shard: Shard,
    pub(super) log: Vec<TransactionRecord>,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    /// Appends that are held back.
    pub(super) held: VecDeque<(AppendId, Batch<TransactionRecord>)>,
    pub(super) holds_appends: bool,
    pub(super) fails_appends: Option<AppendFailure>,
    /// Markers that are held back.
    pub(super) markers: VecDeque<Markers>,
    pub(super) holds_markers: bool,
    /// Markers that partitions have, in order.
    pub(super) written: Vec<(TopicPartition, EndOfTransaction)>,
    pub(super) has_producer_ids: bool,
    pub(super) waits_for_producer_id: bool,
    pub(super) next_producer: i64,
    pub(super) now: Duration,
    next_request: u64,
}

impl Harness {
    pub(super) fn new() -> Harness {
        let mut harness = Harness::with_log(Vec::new());
        harness.finish_load();
        harness
    }

    fn with_log(log: Vec<TransactionRecord>) -> Harness {
        Harness {
            shard: Shard::new(Arc::new(TransactionConfig::default()), 7),
            log,
            answers: BTreeMap::new(),
            held: VecDeque::new(),
            holds_appends: false,
            fails_appends: None,
            markers: VecDeque::new(),
            holds_markers: false,
            written: Vec::new(),
            has_producer_ids: true,
            waits_for_producer_id: false,
            next_producer: 1000,
            now: Duration::ZERO,
            next_request: 0,
        }
    }

    pub(super) fn moment(&self) -> Now {
        let wall = Timestamp::from_wire(EPOCH_ZERO + self.now.as_millis() as i64).unwrap();
        Now { elapsed: self.now, wall }
    }

    pub(super) fn step(&mut self, step: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        let now = self.moment();
        step(&mut self.shard, now, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let mut more = Vec::new();
            match effect {
                Effect::Answer { request, answer } => {
                    assert_eq!(self.answers.insert(request, answer), None, "a request is answered once");
                }
                Effect::Append { id, batch } if self.holds_appends || !self.held.is_empty() => {
                    self.held.push_back((id, batch));
                }
                Effect::Append { id, batch } => self.finish_append(id, &batch, self.fails_appends, &mut more),
                Effect::Order(Order::WriteMarkers(markers)) if self.holds_markers => self.markers.push_back(markers),
                Effect::Order(Order::WriteMarkers(markers)) => {
                    let outcomes = markers.partitions.iter().map(|at| (at.clone(), MarkerOutcome::Written)).collect();
                    self.report(markers, outcomes, &mut more);
                }
                Effect::Order(Order::FetchProducerId) if self.waits_for_producer_id => {}
                Effect::Order(Order::FetchProducerId) => {
                    let fetched = self.has_producer_ids.then(|| self.fresh_producer());
                    let now = self.moment();
                    self.shard.producer_id_fetched(now, fetched, &mut more);
                }
            }
            queue.extend(more);
        }
    }

    pub(super) fn fresh_producer(&mut self) -> ProducerId {
        self.next_producer += 1;
        ProducerId::from_wire(self.next_producer).unwrap()
    }

    fn report(&mut self, markers: Markers, outcomes: Vec<(TopicPartition, MarkerOutcome)>, effects: &mut Vec<Effect>) {
        for (at, outcome) in &outcomes {
            if *outcome == MarkerOutcome::Written {
                self.written.push((at.clone(), markers.end));
            }
        }
        let report = MarkerReport { transactional_id: markers.transactional_id, end: markers.end, outcomes };
        let now = self.moment();
        self.shard.markers_written(now, report, effects);
    }

    /// Has the oldest markers that were held back written, or not.
    pub(super) fn write_markers(&mut self, outcome: impl Fn(&TopicPartition) -> MarkerOutcome) {
        let markers = self.markers.pop_front().expect("markers are waiting");
        let outcomes = markers.partitions.iter().map(|at| (at.clone(), outcome(at))).collect();
        let mut effects = Vec::new();
        self.report(markers, outcomes, &mut effects);
        self.perform(effects);
    }

    fn finish_append(
        &mut self,
        id: AppendId,
        batch: &Batch<TransactionRecord>,
        failure: Option<AppendFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let base = Offset::new(self.log.len() as u64).unwrap();
        if failure.is_none() {
            let Batch::Records(records) = batch else { panic!("only plain records are written") };
            // Through bytes, as a real log would have it.
            self.log.extend(records.iter().map(|record| {
                let bytes = record.encode().unwrap();
                TransactionRecord::decode(&bytes.key, bytes.value.as_deref()).unwrap()
            }));
        }
        let now = self.moment();
        self.shard.appended(now, id, failure.map_or(Ok(base), Err), effects);
    }

    /// Acknowledges, or fails, the oldest append that was held back.
    pub(super) fn release_one(&mut self, failure: Option<AppendFailure>) {
        let (id, batch) = self.held.pop_front().expect("an append is held back");
        let mut effects = Vec::new();
        self.finish_append(id, &batch, failure, &mut effects);
        self.perform(effects);
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.shard.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.step(Shard::tick);
        }
        self.now = end;
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(super) fn init(&mut self, id: &str, expected: Option<ProducerIdentity>) -> RequestId {
        let request = self.request();
        let init = InitProducer { transactional_id: id.to_owned(), timeout_ms: 60_000, expected };
        self.step(|shard, now, effects| shard.init_producer(now, request, init, effects));
        request
    }

    pub(super) fn initialised(&mut self, request: RequestId) -> Result<ProducerIdentity, TransactionError> {
        match self.answers.remove(&request) {
            Some(Answer::Producer(outcome)) => outcome,
            other => panic!("no answer to init: {other:?}"),
        }
    }

    /// A producer with its identity.
    pub(super) fn producer(&mut self, id: &str) -> ProducerIdentity {
        let request = self.init(id, None);
        self.initialised(request).unwrap()
    }

    pub(super) fn add(
        &mut self,
        id: &str,
        producer: ProducerIdentity,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> RequestId {
        let request = self.request();
        let add = AddPartitions {
            transactional_id: id.to_owned(),
            producer: Some(producer.id),
            epoch: Some(producer.epoch),
            partitions: partitions.iter().cloned().collect(),
            version,
        };
        self.step(|shard, now, effects| shard.add_partitions(now, request, add, effects));
        request
    }

    pub(super) fn added(&mut self, request: RequestId) -> Result<(), TransactionError> {
        match self.answers.remove(&request) {
            Some(Answer::Added(outcome)) => outcome,
            other => panic!("no answer to add: {other:?}"),
        }
    }

    /// A transaction with one partition in it.
    pub(super) fn begin(&mut self, id: &str, producer: ProducerIdentity, version: TransactionVersion) {
        let request = self.add(id, producer, &[at(0)], version);
        assert_eq!(self.added(request), Ok(()));
    }

    pub(super) fn end(
        &mut self,
        id: &str,
        producer: ProducerIdentity,
        commit: bool,
        version: TransactionVersion,
    ) -> RequestId {
        let request = self.request();
        let end = EndTransaction {
            transactional_id: id.to_owned(),
            producer: Some(producer.id),
            epoch: Some(producer.epoch),
            commit,
            version,
        };
        self.step(|shard, now, effects| shard.end(now, request, end, effects));
        request
    }

    pub(super) fn ended(&mut self, request: RequestId) -> Result<Option<ProducerIdentity>, TransactionError> {
        match self.answers.remove(&request) {
            Some(Answer::Ended(outcome)) => outcome,
            other => panic!("no answer to end: {other:?}"),
        }
    }

    pub(super) fn ends(
        &mut self,
        id: &str,
        producer: ProducerIdentity,
        commit: bool,
        version: TransactionVersion,
    ) -> Result<Option<ProducerIdentity>, TransactionError> {
        let request = self.end(id, producer, commit, version);
        self.ended(request)
    }

    pub(super) fn is_waiting(&self, request: RequestId) -> bool {
        !self.answers.contains_key(&request)
    }

    pub(super) fn state(&self, id: &str) -> Option<TransactionState> {
        self.shard.describe(id).map(|described| described.state)
    }

    /// Writes the epoch of a transactional id into the log as if its producer had come so far.
    pub(super) fn set_epoch(&mut self, id: &str, epoch: ProducerEpoch) {
        let mut record = self.log.iter().rfind(|record| record.transactional_id == id).unwrap().clone();
        record.metadata.as_mut().unwrap().epoch = Some(epoch);
        self.log.push(record);
        *self = self.restarted();
        self.finish_load();
    }

    /// Another coordinator, which has replayed this one's log and not finished loading yet.
    pub(super) fn restarted(&self) -> Harness {
        let mut harness = Harness::with_log(self.log.clone());
        (harness.now, harness.next_request) = (self.now, self.next_request);
        (harness.next_producer, harness.written) = (self.next_producer, self.written.clone());
        for (offset, record) in (0..).zip(&self.log) {
            let entry = Entry::Record { offset: Offset::new(offset).unwrap(), producer: None, record: record.clone() };
            let now = harness.moment();
            harness.shard.replay(now, entry).unwrap();
        }
        harness
    }

    pub(super) fn finish_load(&mut self) {
        self.step(|shard, now, effects| shard.finish_load(now, effects));
    }
}

pub(super) fn at(partition: u32) -> TopicPartition {
    TopicPartition { topic: "t".to_owned(), partition: PartitionIndex(partition) }
}

pub(super) fn identity(id: i64, epoch: u16) -> ProducerIdentity {
    ProducerIdentity { id: ProducerId::from_wire(id).unwrap(), epoch: ProducerEpoch(epoch) }
}
