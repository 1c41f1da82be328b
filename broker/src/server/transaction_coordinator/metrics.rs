//! What is counted about transactions.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::TransactionCoordinator;
use crate::{
    coordinator::transactions::{Shard, ShardStats},
    metrics::Metrics,
};

struct TransactionMetrics {
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
        let registry = metrics.registry();
        let valid = "names are distinct and valid";
        let open = Opts::new(
            "varve_transactions",
            "Transactions that this node coordinates and that have not ended, by state.",
        );
        let ended = Opts::new("varve_transactions_ended_total", "Transactions that ended, since this node leads them.");
        let counters = TransactionMetrics {
            ids: IntGauge::new("varve_transactional_ids", "Transactional ids that this node coordinates.")
                .expect(valid),
            open: IntGaugeVec::new(open, &["state"]).expect(valid),
            ended: IntCounterVec::new(ended, &["how"]).expect(valid),
        };
        registry.register(Box::new(counters.ids.clone())).expect(valid);
        registry.register(Box::new(counters.open.clone())).expect(valid);
        registry.register(Box::new(counters.ended.clone())).expect(valid);
        let coordinator = Arc::downgrade(self);
        metrics.before_scrape(move || {
            if let Some(coordinator) = coordinator.upgrade() {
                counters.refresh(&coordinator.stats());
            }
        });
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
