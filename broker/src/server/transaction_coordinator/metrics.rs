//! What is counted about transactions.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::TransactionCoordinator;
use crate::{
    coordinator::transactions::{Shard, ShardStats},
    metrics::{Metrics, Registry, keep},
};

/// What is counted about the transactions of this node.
#[derive(Debug)]
pub(crate) struct TransactionMetrics {
    ids: IntGauge,
    open: IntGaugeVec,
    ended: IntCounterVec,
}

impl TransactionCoordinator {
    /// Registers the counters of transactions; they are brought up to date right before they are read.
    ///
    /// # Panics
    /// If called twice for the same `metrics`.
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        let counters = TransactionMetrics::new(metrics.registry());
        metrics.before_scrape_of(self, move |coordinator| counters.refresh(&coordinator.stats()));
    }

    fn stats(&self) -> ShardStats {
        let mut total = ShardStats::default();
        for stats in self.seats.read_each(Shard::stats) {
            total.transactional_ids += stats.transactional_ids;
            total.ongoing += stats.ongoing;
            total.completing += stats.completing;
            total.committed += stats.committed;
            total.aborted += stats.aborted;
            total.overdue += stats.overdue;
        }
        total
    }
}

impl TransactionMetrics {
    pub(crate) fn new(registry: &Registry) -> TransactionMetrics {
        let open = Opts::new(
            "varve_transactions",
            "Transactions that this node coordinates and that have not ended, by state (ongoing, completing)",
        );
        let ended = Opts::new(
            "varve_transactions_ended_total",
            "Transactions that ended since this node leads them, by how (committed, aborted; overdue: aborted by timeout)",
        );
        TransactionMetrics {
            ids: keep(
                registry,
                IntGauge::new("varve_transactional_ids", "Transactional ids that this node coordinates"),
            ),
            open: keep(registry, IntGaugeVec::new(open, &["state"])),
            ended: keep(registry, IntCounterVec::new(ended, &["how"])),
        }
    }

    fn refresh(&self, stats: &ShardStats) {
        self.ids.set(stats.transactional_ids as i64);
        self.open.with_label_values(&["ongoing"]).set(stats.ongoing as i64);
        self.open.with_label_values(&["completing"]).set(stats.completing as i64);
        let ends = [("committed", stats.committed), ("aborted", stats.aborted), ("overdue", stats.overdue)];
        for (how, count) in ends {
            let counter = self.ended.with_label_values(&[how]);
            // Seats that moved away take their count with them; the counter itself never goes back.
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
