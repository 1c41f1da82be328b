//! What is counted about groups.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};

use super::GroupCoordinator;
use crate::{
    coordinator::{Shard, ShardStats},
    metrics::Metrics,
};

struct GroupMetrics {
    groups: IntGaugeVec,
    members: IntGauge,
    offsets: IntGauge,
    rebalances: IntCounter,
}

impl GroupCoordinator {
    /// Registers the counters of groups; they are brought up to date right before they are read.
    ///
    /// # Panics
    /// If called twice for the same `metrics`.
    pub fn register(self: &Arc<Self>, metrics: &Metrics) {
        let registry = metrics.registry();
        let valid = "names are distinct and valid";
        let groups = Opts::new("varve_groups", "Consumer groups that this node coordinates, by state.");
        let counters = GroupMetrics {
            groups: IntGaugeVec::new(groups, &["state"]).expect(valid),
            members: IntGauge::new("varve_group_members", "Members of those groups.").expect(valid),
            offsets: IntGauge::new("varve_group_offsets", "Offsets committed by those groups.").expect(valid),
            rebalances: IntCounter::new(
                "varve_group_rebalances_total",
                "Rebalances that ended with an assignment, since this node leads the groups.",
            )
            .expect(valid),
        };
        registry.register(Box::new(counters.groups.clone())).expect(valid);
        registry.register(Box::new(counters.members.clone())).expect(valid);
        registry.register(Box::new(counters.offsets.clone())).expect(valid);
        registry.register(Box::new(counters.rebalances.clone())).expect(valid);
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
            total.stable_groups += stats.stable_groups;
            total.rebalancing_groups += stats.rebalancing_groups;
            total.empty_groups += stats.empty_groups;
            total.groups += stats.groups;
            total.members += stats.members;
            total.offsets += stats.offsets;
            total.completed_rebalances += stats.completed_rebalances;
        }
        total
    }
}

impl GroupMetrics {
    fn refresh(&self, stats: &ShardStats) {
        let states =
            [("stable", stats.stable_groups), ("rebalancing", stats.rebalancing_groups), ("empty", stats.empty_groups)];
        for (state, count) in states {
            self.groups.with_label_values(&[state]).set(count as i64);
        }
        self.members.set(stats.members as i64);
        self.offsets.set(stats.offsets as i64);
        // Seats that moved away take their count with them; the counter itself never goes back.
        self.rebalances.inc_by(stats.completed_rebalances.saturating_sub(self.rebalances.get()));
    }
}
