//! Sizes of logs and archive by topic, looked up when somebody asks.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Registry, keep};
use crate::partition::Partitions;

/// Logs on the local disk and in the archive, by topic.
#[derive(Clone, Debug)]
pub struct StorageMetrics {
    /// Record bytes appended since the node opened the partitions.
    appended_bytes: IntCounterVec,
    /// Bytes of logs on the local disk.
    local_bytes: IntGaugeVec,
    /// Bytes of objects that manifests name.
    archive_bytes: IntGaugeVec,
    /// Partitions that this node has a replica of.
    partitions: IntGauge,
    /// Those that it leads.
    led: IntGauge,
    /// Those of them that lack a replica in sync.
    under_replicated: IntGauge,
    /// Those of them that have fewer in sync than `min.insync.replicas`.
    under_min_isr: IntGauge,
    /// Partitions that take no writes because of their disk.
    offline_partitions: IntGauge,
}

#[derive(Debug, Default)]
struct Sizes {
    appended: u64,
    local: u64,
    archive: u64,
}

impl StorageMetrics {
    pub(super) fn new(registry: &Registry) -> StorageMetrics {
        let gauges = |name, help| keep(registry, IntGaugeVec::new(Opts::new(name, help), &["topic"]));
        let appended =
            Opts::new("varve_appended_bytes_total", "Bytes of record batches appended since the node started");
        StorageMetrics {
            appended_bytes: keep(registry, IntCounterVec::new(appended, &["topic"])),
            local_bytes: gauges("varve_local_log_bytes", "Bytes of logs on the local disk"),
            archive_bytes: gauges("varve_archive_bytes", "Bytes of objects that manifests name"),
            partitions: keep(registry, IntGauge::new("varve_partitions", "Partitions that this node has a replica of")),
            led: keep(registry, IntGauge::new("varve_led_partitions", "Partitions that this node leads")),
            under_replicated: keep(
                registry,
                IntGauge::new(
                    "varve_under_replicated_partitions",
                    "Partitions that this node leads and that lack a replica in sync",
                ),
            ),
            under_min_isr: keep(
                registry,
                IntGauge::new(
                    "varve_under_min_isr_partitions",
                    "Partitions that this node leads and that take no acks=all writes: fewer are in sync than min.insync.replicas",
                ),
            ),
            offline_partitions: keep(
                registry,
                IntGauge::new("varve_offline_partitions", "Partitions that take no writes because of their disk"),
            ),
        }
    }

    /// Asks every partition for its sizes. A deleted topic's last numbers go.
    pub fn measure(&self, partitions: &Partitions) {
        let (mut topics, mut here, mut failed) = (BTreeMap::<String, Sizes>::new(), 0, partitions.offline() as i64);
        let (mut led, mut lacking, mut too_few) = (0, 0, 0);
        for partition in partitions.all() {
            here += 1;
            led += i64::from(partition.is_leader());
            lacking += i64::from(partition.in_sync().is_some_and(|(in_sync, replicas)| in_sync < replicas));
            too_few += i64::from(partition.in_sync().is_some_and(|(in_sync, _)| in_sync < partition.min_in_sync()));
            failed += i64::from(partition.log_dir().is_failed());
            let sizes = topics.entry(partition.topic().as_str().to_owned()).or_default();
            sizes.appended += partition.appended_bytes();
            sizes.local += partition.log().size();
            sizes.archive += partition.remote().map_or(0, |remote| remote.size());
        }
        self.partitions.set(here);
        self.led.set(led);
        self.under_replicated.set(lacking);
        self.under_min_isr.set(too_few);
        self.offline_partitions.set(failed);
        self.appended_bytes.reset();
        self.local_bytes.reset();
        self.archive_bytes.reset();
        for (topic, sizes) in topics {
            self.appended_bytes.with_label_values(&[&topic]).inc_by(sizes.appended);
            self.local_bytes.with_label_values(&[&topic]).set(signed(sizes.local));
            self.archive_bytes.with_label_values(&[&topic]).set(signed(sizes.archive));
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
