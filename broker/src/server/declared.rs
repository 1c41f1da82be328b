//! Everything that the server counts, declared without a server: for the reference of metrics.

use super::{
    authorizer,
    group_coordinator::{GroupMetrics, LagMetrics},
    transaction_coordinator::TransactionMetrics,
};
use crate::metrics::Registry;

/// Declares it in `registry`.
pub(crate) fn declare(registry: &Registry) {
    GroupMetrics::new(registry);
    LagMetrics::new(registry);
    TransactionMetrics::new(registry);
    authorizer::declare(registry);
}
