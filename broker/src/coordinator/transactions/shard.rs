//! The transactional ids of one partition of `__transaction_state`: state, pending appends, what is due.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use varve_metadata::model::{Offset, ProducerId};

use super::{
    Answer, EndTransaction, InitProducer, Order, ProducerIdentity, TransactionConfig, TransactionError,
    TransactionState,
    messages::Effect,
    records::TransactionRecord,
    transaction::{Transaction, Transition},
};
use crate::coordinator::{
    AppendFailure, AppendId, Batch, Effects, Entry, Machine, Now, RequestId, codec::RecordError, machine,
};

/// The coordinator of the transactional ids that live in one partition. Its life is that of every [`Machine`].
#[derive(Debug)]
pub struct Shard {
    pub(super) config: Arc<TransactionConfig>,
    /// Goes into markers, so that an older coordinator cannot end what a newer one began.
    pub(super) coordinator_epoch: i32,
    pub(super) transactions: BTreeMap<String, Transaction>,
    /// In the order of the log.
    pending: VecDeque<PendingAppend>,
    next_append: u64,
    due: BTreeSet<(Duration, Due)>,
    /// A producer id that was fetched and not needed yet.
    spare_producer: Option<ProducerId>,
    is_fetching: bool,
    /// What waits for a producer id.
    parked: VecDeque<Parked>,
    pub(super) stats: ShardStats,
}

#[derive(Debug)]
struct PendingAppend {
    id: AppendId,
    then: Completion,
}

/// What an append was for.
#[derive(Debug)]
pub(super) enum Completion {
    /// A producer introduced itself.
    Init { transactional_id: String, request: RequestId },
    /// Partitions were added.
    Add { transactional_id: String, request: RequestId },
    /// A producer ended its transaction; told what it goes on with, if `is_raising`.
    End { transactional_id: String, request: RequestId, is_raising: bool },
    /// The coordinator aborted a transaction: for a producer that introduces itself, or because it was overdue.
    Fence { transactional_id: String, request: Option<RequestId> },
    /// Every marker is written.
    Complete { transactional_id: String },
    /// Nobody used these for long.
    Forget { transactional_ids: Vec<String> },
}

/// What waits for a producer id.
#[derive(Debug)]
pub(super) enum Parked {
    Init(RequestId, InitProducer),
    End(RequestId, EndTransaction),
    Overdue(String),
}

/// What the clock brings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A look at transactions that take too long.
    Overdue,
    /// A look at transactional ids that nobody uses.
    Expired,
    /// Markers that could not be written, or a completion that could not be appended.
    Retry(String),
}

/// One step of a shard.
pub(super) type Step<'a> = machine::Step<'a, Shard>;

/// Numbers for the metrics of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Transactional ids that are known.
    pub transactional_ids: u64,
    /// Transactions that are open.
    pub ongoing: u64,
    /// Transactions whose end is decided and whose markers are not all written.
    pub completing: u64,
    /// Transactions that have committed since the shard was made.
    pub committed: u64,
    /// Transactions that have aborted since the shard was made, for whatever reason.
    pub aborted: u64,
    /// Those of them that took too long.
    pub overdue: u64,
}

impl Shard {
    /// A shard without transactions, ready to be loaded. `coordinator_epoch` is the partition's leader epoch.
    pub fn new(config: Arc<TransactionConfig>, coordinator_epoch: i32) -> Shard {
        Shard {
            config,
            coordinator_epoch,
            transactions: BTreeMap::new(),
            pending: VecDeque::new(),
            next_append: 0,
            due: BTreeSet::new(),
            spare_producer: None,
            is_fetching: false,
            parked: VecDeque::new(),
            stats: ShardStats::default(),
        }
    }

    /// Numbers for metrics; costs a walk over all transactions.
    pub fn stats(&self) -> ShardStats {
        let count = |wanted: fn(TransactionState) -> bool| {
            self.transactions.values().filter(|transaction| wanted(transaction.state())).count() as u64
        };
        ShardStats {
            transactional_ids: self.transactions.len() as u64,
            ongoing: count(|state| state == TransactionState::Ongoing),
            completing: count(TransactionState::is_prepared),
            ..self.stats
        }
    }

    pub(super) fn set_due(&mut self, at: Duration, due: Due) {
        self.due.insert((at, due));
    }

    /// Begins a change: the log is told, and nothing else may happen to the transactional id until it answered.
    pub(super) fn begin(&mut self, transactional_id: &str, to: Transition, then: Completion, step: &mut Step<'_>) {
        let record = TransactionRecord { transactional_id: transactional_id.to_owned(), metadata: Some(to.to.clone()) };
        if let Some(transaction) = self.transactions.get_mut(transactional_id) {
            transaction.pending = Some(to);
        }
        self.append(vec![record], then, step);
    }

    pub(super) fn append(&mut self, records: Vec<TransactionRecord>, then: Completion, step: &mut Step<'_>) {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        self.pending.push_back(PendingAppend { id, then });
        step.effects.push(Effect::Append { id, batch: Batch::Records(records.into()) });
    }

    /// A producer id that nobody has, or `None` if `parked` has to wait for one.
    pub(super) fn take_producer_id(
        &mut self,
        parked: impl FnOnce() -> Parked,
        step: &mut Step<'_>,
    ) -> Option<ProducerId> {
        let taken = self.spare_producer.take();
        if taken.is_none() {
            self.parked.push_back(parked());
            if !std::mem::replace(&mut self.is_fetching, true) {
                step.effects.push(Effect::Order(Order::FetchProducerId));
            }
        }
        taken
    }

    /// The server has a producer id, or could not get one: what waits goes on, or is told to come again.
    pub fn producer_id_fetched(&mut self, now: Now, fetched: Option<ProducerId>, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        self.is_fetching = false;
        self.spare_producer = fetched.or(self.spare_producer);
        let is_empty_handed = fetched.is_none();
        for parked in std::mem::take(&mut self.parked) {
            let error = TransactionError::LoadInProgress;
            match parked {
                Parked::Init(request, _) if is_empty_handed => step.answer(request, Answer::Producer(Err(error))),
                Parked::End(request, _) if is_empty_handed => step.answer(request, Answer::Ended(Err(error))),
                // The next look finds it again.
                Parked::Overdue(_) if is_empty_handed => {}
                Parked::Init(request, init) => self.init(request, init, &mut step),
                Parked::End(request, end) => self.end_transaction(request, end, &mut step),
                Parked::Overdue(transactional_id) => self.abort_overdue(&transactional_id, &mut step),
            }
        }
    }

    /// The log has the change of the transactional id, or refused it.
    fn settle(&mut self, transactional_id: &str, result: Result<(), TransactionError>) -> Option<ProducerIdentity> {
        let transaction = self.transactions.get_mut(transactional_id)?;
        match result {
            Ok(()) => transaction.apply(),
            Err(_) => {
                transaction.pending = None;
                // Nothing of it ever reached the log.
                if transaction.metadata.epoch.is_none() {
                    self.transactions.remove(transactional_id);
                    return None;
                }
            }
        }
        self.transactions.get(transactional_id).and_then(Transaction::identity)
    }

    fn complete_append(&mut self, then: Completion, result: Result<(), AppendFailure>, step: &mut Step<'_>) {
        let outcome = result.map_err(append_error);
        match then {
            Completion::Init { transactional_id, request } => {
                let identity = self.settle(&transactional_id, outcome);
                let producer = outcome.and_then(|()| identity.ok_or(TransactionError::NotCoordinator));
                step.answer(request, Answer::Producer(producer));
            }
            Completion::Add { transactional_id, request } => {
                self.settle(&transactional_id, outcome);
                step.answer(request, Answer::Added(outcome));
            }
            Completion::End { transactional_id, request, is_raising } => {
                self.settle(&transactional_id, outcome);
                if outcome.is_ok() {
                    self.write_markers(&transactional_id, step);
                }
                // What the producer goes on with is known before its markers are written.
                let goes_on = self.goes_on_as(&transactional_id).filter(|_| is_raising);
                step.answer(request, Answer::Ended(outcome.map(|()| goes_on)));
            }
            Completion::Fence { transactional_id, request } => {
                self.settle(&transactional_id, outcome);
                if outcome.is_ok() {
                    self.write_markers(&transactional_id, step);
                }
                match request {
                    Some(request) => {
                        // Its own turn comes when the transaction of the one before has ended.
                        let error = outcome.err().unwrap_or(TransactionError::ConcurrentTransactions);
                        step.answer(request, Answer::Producer(Err(error)));
                    }
                    None => self.stats.overdue += u64::from(outcome.is_ok()),
                }
            }
            Completion::Complete { transactional_id } => self.completion_appended(&transactional_id, result, step),
            Completion::Forget { transactional_ids } => self.forgotten(transactional_ids, outcome),
        }
    }
}

impl Machine for Shard {
    type Record = TransactionRecord;
    type Answer = Answer;
    type Order = Order;

    fn replay(&mut self, _now: Now, entry: Entry<TransactionRecord>) -> Result<(), RecordError> {
        // Nobody writes the state of transactions in transactions.
        let Entry::Record { record, .. } = entry else { return Ok(()) };
        match record.metadata {
            Some(metadata) if metadata.state == TransactionState::Dead => return Err(RecordError::Malformed),
            Some(metadata) => {
                self.transactions.insert(record.transactional_id, Transaction::loaded(metadata));
            }
            None => {
                self.transactions.remove(&record.transactional_id);
            }
        }
        Ok(())
    }

    fn finish_load(&mut self, now: Now, effects: &mut Effects<Shard>) {
        let mut step = Step { now, effects };
        self.set_due(now.elapsed + self.config.abort_interval, Due::Overdue);
        self.set_due(now.elapsed + self.config.expiration_interval, Due::Expired);
        let is_decided = |transaction: &Transaction| transaction.state().is_prepared();
        let decided = self.transactions.iter().filter(|(_, transaction)| is_decided(transaction));
        let decided: Vec<String> = decided.map(|(transactional_id, _)| transactional_id.clone()).collect();
        for transactional_id in decided {
            tracing::info!(transactional_id, "completing a transaction whose end was decided before");
            self.write_markers(&transactional_id, &mut step);
        }
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
        self.complete_append(pending.then, result.map(|_| ()), &mut step);
    }

    fn tick(&mut self, now: Now, effects: &mut Effects<Shard>) {
        let mut step = Step { now, effects };
        while self.due.first().is_some_and(|(at, _)| *at <= now.elapsed) {
            let Some((_, due)) = self.due.pop_first() else { return };
            match due {
                Due::Overdue => self.abort_all_overdue(&mut step),
                Due::Expired => self.forget_unused(&mut step),
                Due::Retry(transactional_id) => self.retry(&transactional_id, &mut step),
            }
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }
}

pub(super) fn append_error(failure: AppendFailure) -> TransactionError {
    match failure {
        AppendFailure::Unavailable => TransactionError::CoordinatorNotAvailable,
        AppendFailure::NotLeader => TransactionError::NotCoordinator,
        AppendFailure::Refused
        | AppendFailure::ProducerFenced
        | AppendFailure::NoTransaction
        | AppendFailure::CoordinatorFenced => TransactionError::Unexpected,
    }
}
