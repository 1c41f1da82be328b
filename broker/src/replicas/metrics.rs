//! How often leaders here changed who is in sync.

use prometheus::{IntCounterVec, Opts};

use crate::metrics::{Registry, keep};

/// Changes of ISRs that were taken.
#[derive(Clone, Debug)]
pub(crate) struct IsrMetrics(IntCounterVec);

impl IsrMetrics {
    /// Declares them in `registry`.
    pub(crate) fn new(registry: &Registry) -> IsrMetrics {
        let help = "Changes of the ISR by leaders on this node, by kind: a replica that lagged left (shrink), or caught up (expand)";
        let changes = keep(registry, IntCounterVec::new(Opts::new("varve_isr_changes_total", help), &["change"]));
        // There from the start: the first change is an increase.
        ["shrink", "expand"].iter().for_each(|change| drop(changes.with_label_values(&[change])));
        IsrMetrics(changes)
    }

    pub(super) fn note(&self, is_expansion: bool) {
        self.0.with_label_values(&[if is_expansion { "expand" } else { "shrink" }]).inc();
    }
}
