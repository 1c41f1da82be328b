//! From the decision to the end: markers to every partition, then the last word in the log.

use std::time::Duration;

use varve_metadata::model::ProducerEpoch;

use super::{
    MarkerOutcome, MarkerReport, Markers, Order, TransactionState, TransactionVersion,
    messages::Effect,
    shard::{Completion, Due, Shard, Step},
    transaction::Transaction,
};
use crate::coordinator::{AppendFailure, EndOfTransaction, Now};

/// How long a marker that could not be written waits before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Shard {
    /// The end of the transaction is decided: has its markers written, where they are missing.
    pub(super) fn write_markers(&mut self, transactional_id: &str, step: &mut Step<'_>) {
        let coordinator_epoch = self.coordinator_epoch;
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        if !transaction.state().is_prepared() {
            return;
        }
        if transaction.pending.is_none() {
            transaction.pending = Some(transaction.complete(step.now.wall));
        }
        if transaction.metadata.partitions.is_empty() {
            return self.append_completion(transactional_id, step);
        }
        let markers = Markers {
            transactional_id: transactional_id.to_owned(),
            end: end_of(transaction, coordinator_epoch),
            partitions: transaction.metadata.partitions.iter().cloned().collect(),
        };
        step.effects.push(Effect::Order(Order::WriteMarkers(markers)));
    }

    /// The server had markers written. Those that are not are tried again after a pause.
    pub fn markers_written(&mut self, now: Now, report: MarkerReport, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        let coordinator_epoch = self.coordinator_epoch;
        let Some(transaction) = self.transactions.get_mut(&report.transactional_id) else { return };
        // Of a transaction before this one, if markers were written twice.
        if !transaction.state().is_prepared() || end_of(transaction, coordinator_epoch) != report.end {
            return;
        }
        let had_some = !transaction.metadata.partitions.is_empty();
        for (at, outcome) in report.outcomes {
            match outcome {
                MarkerOutcome::Written => {
                    transaction.metadata.partitions.remove(&at);
                }
                MarkerOutcome::ProducerFenced => {
                    tracing::warn!(
                        transactional_id = report.transactional_id, topic = at.topic, partition = %at.partition,
                        "the partition is past this transaction: its marker is not needed"
                    );
                    transaction.metadata.partitions.remove(&at);
                }
                MarkerOutcome::Unavailable => {}
                MarkerOutcome::CoordinatorFenced => {
                    tracing::warn!(
                        transactional_id = report.transactional_id, topic = at.topic, partition = %at.partition,
                        coordinator_epoch, "another coordinator has taken this transaction over"
                    );
                    return;
                }
            }
        }
        if transaction.metadata.partitions.is_empty() {
            if had_some {
                self.append_completion(&report.transactional_id, &mut step);
            }
        } else {
            self.set_due(now.elapsed + RETRY_PAUSE, Due::Retry(report.transactional_id));
        }
    }

    fn append_completion(&mut self, transactional_id: &str, step: &mut Step<'_>) {
        let Some(transaction) = self.transactions.get(transactional_id) else { return };
        let Some(to) = transaction.pending.clone() else { return };
        let then = Completion::Complete { transactional_id: transactional_id.to_owned() };
        self.begin(transactional_id, to, then, step);
    }

    pub(super) fn completion_appended(
        &mut self,
        transactional_id: &str,
        result: Result<(), AppendFailure>,
        step: &mut Step<'_>,
    ) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else { return };
        match result {
            Ok(()) => {
                transaction.apply();
                match transaction.state() {
                    TransactionState::CompleteCommit => self.stats.committed += 1,
                    _ => self.stats.aborted += 1,
                }
            }
            Err(AppendFailure::Unavailable) => {
                self.set_due(step.now.elapsed + RETRY_PAUSE, Due::Retry(transactional_id.to_owned()));
            }
            // Whoever coordinates next finds the decision, writes the markers once more, and completes it.
            Err(error) => tracing::error!(transactional_id, %error, "the end of a transaction could not be written"),
        }
    }

    pub(super) fn retry(&mut self, transactional_id: &str, step: &mut Step<'_>) {
        self.write_markers(transactional_id, step);
    }
}

fn end_of(transaction: &Transaction, coordinator_epoch: i32) -> EndOfTransaction {
    let metadata = &transaction.metadata;
    EndOfTransaction {
        producer: metadata.producer,
        epoch: metadata.epoch.unwrap_or(ProducerEpoch(0)),
        coordinator_epoch,
        committed: metadata.state == TransactionState::PrepareCommit,
        raises_epoch: metadata.version == TransactionVersion::Raising,
    }
}
