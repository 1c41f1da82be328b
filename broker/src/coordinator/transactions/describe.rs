//! What can be read about transactions without changing them (KIP-664).

use super::{
    DescribedTransaction, ListedTransaction, Shard, TransactionFilter, TransactionState, transaction::Transaction,
};
use crate::coordinator::Now;

impl Shard {
    /// The transaction in full; `None` if the transactional id is not known.
    pub fn describe(&self, transactional_id: &str) -> Option<DescribedTransaction> {
        let metadata = &self.transactions.get(transactional_id)?.metadata;
        Some(DescribedTransaction {
            state: metadata.state,
            producer: metadata.producer,
            epoch: metadata.epoch,
            timeout_ms: metadata.timeout_ms,
            started: metadata.started,
            partitions: metadata.partitions.clone(),
        })
    }

    /// The transactions that pass `filter`, by transactional id.
    pub fn list(&self, now: Now, filter: &TransactionFilter) -> Vec<ListedTransaction> {
        let is_wanted = |transaction: &Transaction| {
            let metadata = &transaction.metadata;
            let asks_for_states = !filter.states.is_empty() || filter.has_unknown_states;
            // One that has not begun counts as old as time, as in Kafka.
            let began = metadata.started.map_or(-1, |started| started.to_wire());
            let lasts = u128::try_from(now.wall.to_wire().saturating_sub(began)).unwrap_or(0);
            metadata.state != TransactionState::Dead
                && (filter.producers.is_empty() || filter.producers.contains(&metadata.producer.to_wire()))
                && (!asks_for_states || filter.states.contains(&metadata.state))
                && filter.longer_than.is_none_or(|longer| lasts > longer.as_millis())
        };
        let listed = |(transactional_id, transaction): (&String, &Transaction)| ListedTransaction {
            transactional_id: transactional_id.clone(),
            producer: transaction.metadata.producer,
            state: transaction.state(),
        };
        self.transactions.iter().filter(|(_, transaction)| is_wanted(transaction)).map(listed).collect()
    }
}
