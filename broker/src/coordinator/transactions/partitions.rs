//! What is part of a transaction (AddPartitionsToTxn, AddOffsetsToTxn).

use std::collections::BTreeSet;

use varve_metadata::model::{ProducerEpoch, ProducerId};

use super::{
    AddPartitions, Answer, PartitionVerdicts, TopicPartition, TransactionError, TransactionState,
    messages::Effect,
    shard::{Completion, Shard, Step},
    transaction::Transaction,
};
use crate::coordinator::{Now, RequestId};

impl Shard {
    /// Adds partitions to the producer's transaction, and begins it if there is none. Answered with [`Answer::Added`], at
    /// once if they are part of it already.
    pub fn add_partitions(&mut self, now: Now, id: RequestId, request: AddPartitions, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        match self.check_add(&request) {
            Err(error) => step.answer(id, Answer::Added(Err(error))),
            Ok(transaction) if has_all(transaction, &request.partitions) => step.answer(id, Answer::Added(Ok(()))),
            Ok(transaction) => {
                let transition = transaction.add(request.partitions, request.version, now.wall);
                let transactional_id = request.transactional_id;
                let then = Completion::Add { transactional_id: transactional_id.clone(), request: id };
                self.begin(&transactional_id, transition, then, &mut step);
            }
        }
    }

    fn check_add(&self, request: &AddPartitions) -> Result<&Transaction, TransactionError> {
        if request.transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let transaction = self.find(&request.transactional_id)?;
        // First: the producer may already write under the id that is only pending.
        if transaction.pending.is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        check_producer(transaction, request.producer, request.epoch)?;
        Ok(transaction)
    }

    /// Which of `partitions` are part of the producer's transaction, without adding any (KIP-890).
    ///
    /// # Errors
    /// What is wrong with all of them.
    pub fn verify(
        &self,
        transactional_id: &str,
        producer: Option<ProducerId>,
        epoch: Option<ProducerEpoch>,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<PartitionVerdicts, TransactionError> {
        if transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let transaction = self.find(transactional_id)?;
        // What is pending does not matter: the log looks once more when it appends.
        check_producer(transaction, producer, epoch)?;
        let added = &transaction.metadata.partitions;
        let verdict = |at: TopicPartition| {
            let verdict = if added.contains(&at) { Ok(()) } else { Err(TransactionError::Abortable) };
            (at, verdict)
        };
        Ok(partitions.into_iter().map(verdict).collect())
    }
}

fn check_producer(
    transaction: &Transaction,
    producer: Option<ProducerId>,
    epoch: Option<ProducerEpoch>,
) -> Result<(), TransactionError> {
    if Some(transaction.metadata.producer) != producer {
        return Err(TransactionError::InvalidProducerIdMapping);
    }
    if transaction.metadata.epoch != epoch {
        return Err(TransactionError::ProducerFenced);
    }
    if transaction.state().is_prepared() {
        return Err(TransactionError::ConcurrentTransactions);
    }
    Ok(())
}

fn has_all(transaction: &Transaction, partitions: &BTreeSet<TopicPartition>) -> bool {
    transaction.state() == TransactionState::Ongoing && partitions.is_subset(&transaction.metadata.partitions)
}
