//! A producer introduces itself (InitProducerId): it gets an identity, and whoever had it before is fenced.

use super::{
    Answer, InitProducer, TransactionError, TransactionState,
    messages::Effect,
    shard::{Completion, Parked, Shard, Step},
    transaction::Transaction,
};
use crate::coordinator::{Now, RequestId};

impl Shard {
    /// Gives a producer its identity. A transaction that another left open is aborted first: the producer is told to come
    /// again. Answered with [`Answer::Producer`].
    pub fn init_producer(&mut self, now: Now, id: RequestId, request: InitProducer, effects: &mut Vec<Effect>) {
        self.init(id, request, &mut Step { now, effects });
    }

    pub(super) fn init(&mut self, id: RequestId, request: InitProducer, step: &mut Step<'_>) {
        if let Err(error) = self.try_init(id, request, step) {
            step.answer(id, Answer::Producer(Err(error)));
        }
    }

    fn try_init(&mut self, id: RequestId, request: InitProducer, step: &mut Step<'_>) -> Result<(), TransactionError> {
        if request.transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        // A longer one could not be written.
        if request.transactional_id.len() > i16::MAX as usize {
            return Err(TransactionError::Unexpected);
        }
        let timeout_ms = request.timeout_ms;
        let timeout = u128::try_from(timeout_ms).unwrap_or(0);
        if timeout == 0 || timeout > self.config.max_timeout.as_millis() {
            return Err(TransactionError::InvalidTimeout);
        }
        if !self.transactions.contains_key(&request.transactional_id) {
            let parked = || Parked::Init(id, request.clone());
            let Some(producer) = self.take_producer_id(parked, step) else { return Ok(()) };
            let transaction = Transaction::new(producer, timeout_ms, step.now.wall);
            self.transactions.insert(request.transactional_id.clone(), transaction);
        }
        let transaction = self.find(&request.transactional_id)?;
        if transaction.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if request.expected.is_some_and(|expected| !transaction.knows(expected)) {
            return Err(TransactionError::ProducerFenced);
        }
        match transaction.state() {
            TransactionState::PrepareCommit | TransactionState::PrepareAbort => {
                return Err(TransactionError::ConcurrentTransactions);
            }
            TransactionState::Ongoing => {
                let parked = || Parked::Init(id, request.clone());
                self.fence(&request.transactional_id, Some(id), parked, step);
                return Ok(());
            }
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort => {}
            TransactionState::Dead | TransactionState::PrepareEpochFence => return Err(TransactionError::Unexpected),
        }
        let transition = if transaction.must_rotate(request.expected) {
            let parked = || Parked::Init(id, request.clone());
            let Some(producer) = self.take_producer_id(parked, step) else { return Ok(()) };
            let transaction = self.find(&request.transactional_id)?;
            transaction.rotate(producer, timeout_ms, request.expected.is_some(), step.now.wall)
        } else {
            let expected = request.expected.map(|expected| expected.epoch);
            transaction.raise_epoch(timeout_ms, expected, step.now.wall)?
        };
        let transactional_id = request.transactional_id;
        let then = Completion::Init { transactional_id: transactional_id.clone(), request: id };
        self.begin(&transactional_id, transition, then, step);
        Ok(())
    }

    pub(super) fn find(&self, transactional_id: &str) -> Result<&Transaction, TransactionError> {
        self.transactions.get(transactional_id).ok_or(TransactionError::InvalidProducerIdMapping)
    }
}
