//! Everything that the server counts, declared without a server: for the reference of metrics.

use super::{
    authorizer,
    broker::follower_reads,
    group_coordinator::{GroupMetrics, LagMetrics},
    transaction_coordinator::TransactionMetrics,
};
use crate::{metrics::Registry, replicas::ThrottleMetrics};

/// Declares it in `registry`.
pub(crate) fn declare(registry: &Registry) {
    GroupMetrics::new(registry);
    LagMetrics::new(registry);
    TransactionMetrics::new(registry);
    authorizer::declare(registry);
    follower_reads(registry);
    ThrottleMetrics::new(registry);
}
