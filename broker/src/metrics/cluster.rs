//! The cluster as this node sees it, looked up when somebody asks.

use std::sync::Arc;

use prometheus::{IntGauge, IntGaugeVec, Opts};
use varve_metadata::image::ClusterImage;

use super::{Registry, keep};
use crate::{config::ListenerConfig, security::ListenerSecurity};

/// Brokers, partitions without a leader, and when certificates end.
#[derive(Clone, Debug)]
pub struct ClusterGauges {
    brokers: IntGaugeVec,
    leaderless: IntGauge,
    topics: IntGauge,
    certificates: IntGaugeVec,
}

impl ClusterGauges {
    pub(super) fn new(registry: &Registry) -> ClusterGauges {
        ClusterGauges {
            brokers: keep(
                registry,
                IntGaugeVec::new(
                    Opts::new("varve_brokers", "Registered brokers, by state (active, fenced), as this node sees them"),
                    &["state"],
                ),
            ),
            leaderless: keep(
                registry,
                IntGauge::new(
                    "varve_leaderless_partitions",
                    "Partitions of the cluster that nobody leads, as this node sees them",
                ),
            ),
            topics: keep(registry, IntGauge::new("varve_topics", "Topics of the cluster, as this node sees them")),
            certificates: keep(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "varve_certificate_not_after_timestamp_seconds",
                        "When the certificate of a listener ends, in seconds since 1970",
                    ),
                    &["listener"],
                ),
            ),
        }
    }

    /// Sets those about the cluster.
    pub(super) fn show(&self, image: &ClusterImage) {
        let fenced = image.brokers().values().filter(|broker| broker.fenced).count();
        self.brokers.with_label_values(&["active"]).set((image.brokers().len() - fenced) as i64);
        self.brokers.with_label_values(&["fenced"]).set(fenced as i64);
        let partitions = image.topics().values().flat_map(|topic| &topic.partitions);
        self.leaderless.set(partitions.filter(|partition| partition.leader.is_none()).count() as i64);
        self.topics.set(image.topics().len() as i64);
    }

    /// Sets those about listeners that speak TLS.
    pub(super) fn show_certificates(&self, listeners: &ListenerConfig, security: &[Arc<ListenerSecurity>]) {
        for (listener, security) in listeners.listeners.iter().zip(security) {
            if let Some(end) = security.tls.as_ref().and_then(|tls| tls.not_after()) {
                let end = end.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let end = i64::try_from(end.as_secs()).unwrap_or(i64::MAX);
                self.certificates.with_label_values(&[&listener.name]).set(end);
            }
        }
    }
}
