//! What follows in memory once the records of a change of a consumer group are in the log.

use super::{migration::Downgraded, regex::RegexJob};
use crate::coordinator::{Effect, GroupError, GroupOrder, Shard, modern, shard::Step};

pub(super) type Plan = modern::Plan<Soft>;
pub(super) type Outcome = modern::Outcome<Soft>;

/// What changes that the log does not keep.
#[derive(Debug, Default)]
pub(in crate::coordinator) struct Soft {
    /// The version of the cluster with which the group's topics were compared.
    pub(super) looked_at: Option<i64>,
    pub(super) resolve: Option<RegexJob>,
    /// The classic group that takes the place of this one.
    pub(super) downgraded: Option<Box<Downgraded>>,
}

impl Shard {
    pub(in crate::coordinator) fn settle_consumer(
        &mut self,
        outcome: Outcome,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        self.settle_plan(outcome, result, step, |shard, group, soft, step| {
            if let Some(downgraded) = soft.downgraded {
                shard.install_classic(*downgraded, step);
            } else if let Some(group) = shard.consumers.get_mut(group) {
                // Topics that changed since were shown to the group as it was before.
                if let Some(version) = soft.looked_at {
                    group.must_look_at_topics = version != shard.cluster.version();
                }
                if let Some(job) = soft.resolve {
                    group.resolves_regexes = true;
                    step.effects.push(Effect::Order(GroupOrder::Resolve(job)));
                }
            }
        });
    }
}
