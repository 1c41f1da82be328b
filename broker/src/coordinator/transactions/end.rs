//! The end of a transaction: a producer's word (EndTxn), or the coordinator's when a producer is fenced.
//!
//! A producer whose epoch rises with every transaction may ask again after it lost the answer; it then still has the epoch
//! before. What a request of each kind finds, where the transaction is not under way:
//!
//! ```text
//!                    abort                        commit
//!                    again       anew             again       anew
//!   Empty            fenced      epoch raised     fenced      invalid
//!   CompleteAbort    done        epoch raised     invalid     invalid
//!   CompleteCommit   invalid     epoch raised     done        invalid
//! ```
//! One whose epoch stays cannot be told apart so: the same end again is done, another is invalid, and so is any in Empty.

use super::{
    Answer, EndTransaction, ProducerIdentity, TransactionError, TransactionState, TransactionVersion,
    messages::Effect,
    shard::{Completion, Parked, Shard, Step},
    transaction::{EXHAUSTED_EPOCH, Ending, Transaction, identity},
};
use crate::coordinator::{Now, RequestId};

/// What is to be done about a request that may be carried out.
#[derive(Debug, PartialEq)]
enum Decision {
    /// It was carried out before.
    Done,
    /// The transaction ends.
    End,
    /// There is nothing to end, and the epoch rises all the same.
    EndNothing,
}

impl Shard {
    /// Ends the producer's transaction. Answered with [`Answer::Ended`] once the decision is in the log; markers follow.
    pub fn end(&mut self, now: Now, id: RequestId, request: EndTransaction, effects: &mut Vec<Effect>) {
        self.end_transaction(id, request, &mut Step { now, effects });
    }

    pub(super) fn end_transaction(&mut self, id: RequestId, request: EndTransaction, step: &mut Step<'_>) {
        if let Err(error) = self.try_end(id, request, step) {
            step.answer(id, Answer::Ended(Err(error)));
        }
    }

    fn try_end(&mut self, id: RequestId, request: EndTransaction, step: &mut Step<'_>) -> Result<(), TransactionError> {
        if request.transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let transaction = self.find(&request.transactional_id)?;
        let is_raising = request.version == TransactionVersion::Raising;
        let decision =
            if is_raising { decide_raising(transaction, &request) } else { decide_fixed(transaction, &request) };
        let is_empty = match decision? {
            Decision::Done => {
                let goes_on = transaction.identity().filter(|_| is_raising);
                step.answer(id, Answer::Ended(Ok(goes_on)));
                return Ok(());
            }
            Decision::End => false,
            Decision::EndNothing => true,
        };
        let mut ending = Ending { commit: request.commit, version: request.version, is_empty, next_producer: None };
        if is_raising && transaction.is_exhausted() {
            let parked = || Parked::End(id, request.clone());
            let Some(producer) = self.take_producer_id(parked, step) else { return Ok(()) };
            ending.next_producer = Some(producer);
        }
        let transition = self.find(&request.transactional_id)?.end(ending, step.now.wall);
        let transactional_id = request.transactional_id;
        let then = Completion::End { transactional_id: transactional_id.clone(), request: id, is_raising };
        self.begin(&transactional_id, transition, then, step);
        Ok(())
    }

    /// Aborts the open transaction in an epoch that its producer does not have, so that nothing of it comes late. `request`
    /// is a new producer's, which is told to come again.
    pub(super) fn fence(
        &mut self,
        transactional_id: &str,
        request: Option<RequestId>,
        parked: impl FnOnce() -> Parked,
        step: &mut Step<'_>,
    ) {
        let Some(transaction) = self.transactions.get(transactional_id) else { return };
        let mut next_producer = None;
        if transaction.is_exhausted() {
            let Some(producer) = self.take_producer_id(parked, step) else { return };
            next_producer = Some(producer);
        }
        let Some(transaction) = self.transactions.get(transactional_id) else { return };
        let version = TransactionVersion::Raising;
        let ending = Ending { commit: false, version, is_empty: false, next_producer };
        let transition = transaction.end(ending, step.now.wall);
        let then = Completion::Fence { transactional_id: transactional_id.to_owned(), request };
        self.begin(transactional_id, transition, then, step);
    }

    /// What the producer goes on with after the transaction that is being completed.
    pub(super) fn goes_on_as(&self, transactional_id: &str) -> Option<ProducerIdentity> {
        let transaction = self.transactions.get(transactional_id)?;
        let after = transaction.pending.as_ref().map_or(&transaction.metadata, |pending| &pending.to);
        identity(after)
    }
}

/// For producers whose epoch stays (KIP-98).
fn decide_fixed(transaction: &Transaction, request: &EndTransaction) -> Result<Decision, TransactionError> {
    if Some(transaction.metadata.producer) != request.producer {
        return Err(TransactionError::InvalidProducerIdMapping);
    }
    if transaction.metadata.epoch != request.epoch {
        return Err(TransactionError::ProducerFenced);
    }
    if transaction.pending.is_some() {
        return Err(TransactionError::ConcurrentTransactions);
    }
    match (transaction.state(), request.commit) {
        (TransactionState::Ongoing, _) => Ok(Decision::End),
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => Ok(Decision::Done),
        (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
            Err(TransactionError::ConcurrentTransactions)
        }
        _ => Err(TransactionError::InvalidState),
    }
}

/// For producers whose epoch rises with every transaction (KIP-890).
fn decide_raising(transaction: &Transaction, request: &EndTransaction) -> Result<Decision, TransactionError> {
    let metadata = &transaction.metadata;
    // First: the producer may already write under the id that is only pending.
    if transaction.pending.is_some() {
        return Err(TransactionError::ConcurrentTransactions);
    }
    let is_same_producer = Some(metadata.producer) == request.producer;
    let epoch_before = metadata.epoch.and_then(|epoch| epoch.0.checked_sub(1));
    // The epoch also rises where a producer begins. Then one of the epoch before, whose last end was undone, must not take the
    // end of one whose epoch stays for its own; Kafka's coordinator does.
    let was_raised = metadata.version == TransactionVersion::Raising;
    let after_overflow = was_raised
        && metadata.previous_producer == request.producer
        && request.epoch == Some(EXHAUSTED_EPOCH)
        && metadata.epoch.is_some_and(|epoch| epoch.0 == 0);
    let after_raise = was_raised && epoch_before.is_some() && request.epoch.map(|epoch| epoch.0) == epoch_before;
    if !is_same_producer && !after_overflow {
        return Err(TransactionError::InvalidProducerIdMapping);
    }
    let is_current = metadata.epoch == request.epoch;
    let is_valid = match transaction.state() {
        TransactionState::PrepareCommit | TransactionState::PrepareAbort => after_raise,
        TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
            after_raise || after_overflow || is_current
        }
        _ => is_current,
    };
    if !is_valid {
        return Err(TransactionError::ProducerFenced);
    }
    let is_again = after_raise || after_overflow;
    match (transaction.state(), request.commit) {
        (TransactionState::Ongoing, _) => Ok(Decision::End),
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) if is_again => {
            Ok(Decision::Done)
        }
        (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false) if !is_again => {
            Ok(Decision::EndNothing)
        }
        (TransactionState::Empty, false) => Ok(Decision::EndNothing),
        (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
            Err(TransactionError::ConcurrentTransactions)
        }
        _ => Err(TransactionError::InvalidState),
    }
}
