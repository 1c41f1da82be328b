//! The cluster as this node sees it, looked up when somebody asks.

use std::sync::Arc;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};
use varve_metadata::{
    image::{ClusterImage, Elections, PartitionImage},
    model::BrokerId,
};

use super::{Registry, keep};
use crate::{config::Listener, security::ListenerSecurity};

/// Brokers, who decides, who leads, and when certificates end.
#[derive(Clone, Debug)]
pub struct ClusterGauges {
    brokers: IntGaugeVec,
    controller: IntGauge,
    elections: IntCounterVec,
    leaderless: IntGauge,
    lost_logs: IntGauge,
    recovering: IntGauge,
    moving: IntGauge,
    not_preferred: IntGauge,
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
            controller: keep(
                registry,
                IntGauge::new(
                    "varve_controller",
                    "1 on the node that decides who leads, 0 on others, as this node sees it",
                ),
            ),
            elections: keep(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "varve_elections_total",
                        "Changes of partitions' leaders in the cluster that this node saw, by kind (clean; unclean: records may be lost)",
                    ),
                    &["kind"],
                ),
            ),
            leaderless: keep(
                registry,
                IntGauge::new(
                    "varve_leaderless_partitions",
                    "Partitions of the cluster that nobody leads, as this node sees them",
                ),
            ),
            lost_logs: keep(
                registry,
                IntGauge::new(
                    "varve_lost_log_partitions",
                    "Partitions of the cluster that nobody leads because a broker came back without the log that was the last one in sync, as this node sees them",
                ),
            ),
            recovering: keep(
                registry,
                IntGauge::new(
                    "varve_recovering_partitions",
                    "Partitions of the cluster that nobody leads before all their replicas have told what they have, because the cluster's state was restored from a backup, as this node sees them",
                ),
            ),
            moving: keep(
                registry,
                IntGauge::new(
                    "varve_moving_partitions",
                    "Partitions of the cluster whose replicas are being moved, as this node sees them",
                ),
            ),
            not_preferred: keep(
                registry,
                IntGauge::new(
                    "varve_not_preferred_leaders",
                    "Partitions of the cluster that another replica leads than the preferred one, as this node sees them",
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

    /// Sets those about the cluster. `decides_alone`: this node agrees with itself, and has no office to hold.
    pub(super) fn show(&self, image: &ClusterImage, node: BrokerId, decides_alone: bool) {
        let fenced = image.brokers().values().filter(|broker| broker.fenced).count();
        self.brokers.with_label_values(&["active"]).set((image.brokers().len() - fenced) as i64);
        self.brokers.with_label_values(&["fenced"]).set(fenced as i64);
        self.controller.set(i64::from(decides_alone || image.membership().controller() == Some(node)));
        let Elections { clean, unclean } = image.elections();
        for (kind, seen) in [("clean", clean), ("unclean", unclean)] {
            let counter = self.elections.with_label_values(&[kind]);
            counter.inc_by(seen.saturating_sub(counter.get()));
        }
        let (mut leaderless, mut lost_logs, mut recovering, mut moving, mut not_preferred) = (0, 0, 0, 0, 0);
        for partition in image.topics().values().flat_map(|topic| &topic.partitions) {
            leaderless += i64::from(partition.leader.is_none());
            lost_logs += i64::from(waits_for_a_lost_log(partition));
            recovering += i64::from(partition.recovery.is_some());
            moving += i64::from(!(partition.adding.is_empty() && partition.removing.is_empty()));
            not_preferred +=
                i64::from(partition.leader.is_some() && partition.leader.as_ref() != partition.replicas.first());
        }
        self.leaderless.set(leaderless);
        self.lost_logs.set(lost_logs);
        self.recovering.set(recovering);
        self.moving.set(moving);
        self.not_preferred.set(not_preferred);
        self.topics.set(image.topics().len() as i64);
    }

    /// Sets those about listeners that speak TLS.
    pub(super) fn show_certificates(&self, listeners: &[(Listener, Arc<ListenerSecurity>)]) {
        // Listeners come and go.
        self.certificates.reset();
        for (listener, security) in listeners {
            if let Some(end) = security.tls.as_ref().and_then(|tls| tls.not_after()) {
                let end = end.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let end = i64::try_from(end.as_secs()).unwrap_or(i64::MAX);
                self.certificates.with_label_values(&[&listener.name]).set(end);
            }
        }
    }
}

/// Nobody else is known to have all that was acknowledged.
fn waits_for_a_lost_log(partition: &PartitionImage) -> bool {
    let PartitionImage { leader, isr, elr, last_leader, emptied, .. } = partition;
    let knows_all = isr.iter().chain(elr).chain(last_leader).next();
    leader.is_none() && knows_all.is_none() && !emptied.is_empty()
}
