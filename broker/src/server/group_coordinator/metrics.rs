//! What is counted about groups.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};

use super::{GroupCoordinator, lag};
use crate::{
    coordinator::{Shard, ShardStats},
    metrics::{Metrics, Registry, keep},
};

/// What is counted about the groups of this node.
#[derive(Debug)]
pub(crate) struct GroupMetrics {
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
        lag::register(&self.lags, metrics);
        let counters = GroupMetrics::new(metrics.registry());
        metrics.before_scrape_of(self, move |coordinator| counters.refresh(&coordinator.stats()));
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
    pub(crate) fn new(registry: &Registry) -> GroupMetrics {
        let groups = Opts::new("varve_groups", "Consumer groups that this node coordinates, by state");
        GroupMetrics {
            groups: keep(registry, IntGaugeVec::new(groups, &["state"])),
            members: keep(registry, IntGauge::new("varve_group_members", "Members of those groups")),
            offsets: keep(registry, IntGauge::new("varve_group_offsets", "Offsets committed by those groups")),
            rebalances: keep(
                registry,
                IntCounter::new(
                    "varve_group_rebalances_total",
                    "Rebalances that ended with an assignment, since this node leads the groups",
                ),
            ),
        }
    }

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
