//! What follows in memory once the records of a change of a streams group are in the log.

use std::sync::Arc;

use super::configure::Configured;
use crate::coordinator::{GroupError, Shard, modern, shard::Step};

pub(super) type Plan = modern::Plan<Option<Soft>>;
pub(super) type Outcome = modern::Outcome<Option<Soft>>;

/// What changes that the log does not keep.
#[derive(Debug)]
pub(in crate::coordinator) struct Soft {
    pub(super) configured: Option<Arc<Configured>>,
    /// The version of the cluster with which the topology was compared.
    pub(super) looked_at: i64,
    pub(super) endpoint_epoch: i32,
    pub(super) shutdown_by: Option<String>,
}

impl Shard {
    pub(in crate::coordinator) fn settle_streams(
        &mut self,
        outcome: Outcome,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        self.settle_plan(outcome, result, step, |shard, group, soft, _| {
            let Some((group, soft)) = shard.streams.get_mut(group).zip(soft) else { return };
            // Topics that changed since were shown to the group as it was before.
            group.must_look_at_topics = soft.looked_at != shard.cluster.version();
            group.configured = soft.configured;
            group.endpoint_epoch = soft.endpoint_epoch;
            group.shutdown_by = soft.shutdown_by;
        });
    }
}
