//! Everything that the server counts, declared without a server: for the reference of metrics.

use super::{
    answers::AnswerMetrics,
    authorizer,
    broker::follower_reads,
    group_coordinator::{GroupMetrics, LagMetrics},
    transaction_coordinator::TransactionMetrics,
};
use crate::{
    metrics::Registry,
    replicas::{IsrMetrics, ThrottleMetrics},
};

/// Declares it in `registry`.
pub(crate) fn declare(registry: &Registry) {
    GroupMetrics::new(registry);
    LagMetrics::new(registry);
    TransactionMetrics::new(registry);
    authorizer::declare(registry);
    follower_reads(registry);
    ThrottleMetrics::new(registry);
    IsrMetrics::new(registry);
    AnswerMetrics::default().register(registry);
}
