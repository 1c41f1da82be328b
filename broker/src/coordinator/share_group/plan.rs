//! What follows in memory once the records of a change of a share group are in the log.

use super::partitions::BeginShares;
use crate::coordinator::{Effect, GroupError, GroupOrder, Shard, modern, shard::Step};

pub(super) type Plan = modern::Plan<Soft>;
pub(super) type Outcome = modern::Outcome<Soft>;

/// What changes that the log does not keep.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Soft {
    /// The version of the cluster with which the group's topics were compared.
    pub(super) looked_at: Option<i64>,
    /// Keepers that are to begin.
    pub(super) begin: Option<BeginShares>,
}

impl Shard {
    pub(in crate::coordinator) fn settle_share(
        &mut self,
        outcome: Outcome,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        self.settle_plan(outcome, result, step, |shard, group, soft, step| {
            let Some(group) = shard.shares.get_mut(group) else { return };
            // Topics that changed since were shown to the group as it was before.
            if let Some(version) = soft.looked_at {
                group.must_look_at_topics = version != shard.cluster.version();
            }
            if let Some(begin) = soft.begin {
                for topic in begin.partitions.keys() {
                    group.begun_at.insert(*topic, step.now.wall);
                }
                step.effects.push(Effect::Order(GroupOrder::BeginShares(begin)));
            }
        });
    }
}
