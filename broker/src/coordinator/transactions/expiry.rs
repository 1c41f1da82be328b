//! What ends transactions and transactional ids that nobody ends: timeouts, and disuse.

use super::{
    TransactionError, TransactionState,
    records::TransactionRecord,
    shard::{Completion, Due, Parked, Shard, Step},
    transaction::Transaction,
};
use crate::coordinator::tombstones;

impl Shard {
    /// Aborts every transaction that takes longer than its producer allowed, and waits for the next look.
    pub(super) fn abort_all_overdue(&mut self, step: &mut Step<'_>) {
        self.set_due(step.now.elapsed + self.config.abort_interval, Due::Overdue);
        let overdue = self.transactions.iter().filter(|(_, transaction)| is_overdue(transaction, step));
        let overdue: Vec<String> = overdue.map(|(transactional_id, _)| transactional_id.clone()).collect();
        for transactional_id in overdue {
            self.abort_overdue(&transactional_id, step);
        }
    }

    pub(super) fn abort_overdue(&mut self, transactional_id: &str, step: &mut Step<'_>) {
        // It may have ended while it waited for a producer id.
        let still = self.transactions.get(transactional_id).is_some_and(|transaction| is_overdue(transaction, step));
        if still {
            tracing::info!(transactional_id, "aborting a transaction that took too long");
            self.fence(transactional_id, None, || Parked::Overdue(transactional_id.to_owned()), step);
        }
    }

    /// Forgets transactional ids that were not used for `transactional.id.expiration.ms`, and waits for the next look.
    pub(super) fn forget_unused(&mut self, step: &mut Step<'_>) {
        self.set_due(step.now.elapsed + self.config.expiration_interval, Due::Expired);
        let expiration = self.config.id_expiration.as_millis();
        let now = step.now.wall.to_wire();
        let is_unused = |transaction: &Transaction| {
            let unused = now.saturating_sub(transaction.metadata.updated.to_wire());
            transaction.pending.is_none()
                && transaction.state().is_idle()
                && u128::try_from(unused).is_ok_and(|unused| unused >= expiration)
        };
        let unused = self.transactions.iter().filter(|(_, transaction)| is_unused(transaction));
        let unused: Vec<String> = unused.map(|(transactional_id, _)| transactional_id.clone()).collect();
        for ids in tombstones::batches(unused, String::len) {
            let tombstone = |transactional_id: &String| TransactionRecord {
                transactional_id: transactional_id.clone(),
                metadata: None,
            };
            for transactional_id in &ids {
                if let Some(transaction) = self.transactions.get_mut(transactional_id) {
                    transaction.pending = Some(transaction.forget());
                }
            }
            let records = ids.iter().map(tombstone).collect();
            self.append(records, Completion::Forget { transactional_ids: ids }, step);
        }
    }

    pub(super) fn forgotten(&mut self, transactional_ids: Vec<String>, outcome: Result<(), TransactionError>) {
        for transactional_id in transactional_ids {
            match outcome {
                Ok(()) => {
                    self.transactions.remove(&transactional_id);
                }
                Err(_) => {
                    if let Some(transaction) = self.transactions.get_mut(&transactional_id) {
                        transaction.pending = None;
                    }
                }
            }
        }
    }
}

fn is_overdue(transaction: &Transaction, step: &Step<'_>) -> bool {
    let metadata = &transaction.metadata;
    let Some(started) = metadata.started else { return false };
    let due = started.to_wire().saturating_add(i64::from(metadata.timeout_ms));
    transaction.pending.is_none() && metadata.state == TransactionState::Ongoing && due < step.now.wall.to_wire()
}
