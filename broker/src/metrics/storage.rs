//! Sizes of logs and archive by topic, looked up when somebody asks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};
use varve_metadata::model::PartitionId;

use super::{Registry, keep};
use crate::partition::{Partition, Partitions, TrafficTotals};

/// Logs on the local disk and in the archive, by topic.
#[derive(Clone, Debug)]
pub struct StorageMetrics {
    /// Record bytes appended, by producers and by replication.
    appended_bytes: IntCounterVec,
    /// Record bytes and records that producers wrote, record bytes that consumers were given.
    produced_bytes: IntCounterVec,
    produced_records: IntCounterVec,
    consumed_bytes: IntCounterVec,
    /// Record bytes copied, by direction.
    replicated_bytes: IntCounterVec,
    /// What of all that is counted already.
    counted: Arc<Mutex<Counted>>,
    /// Bytes of logs on the local disk.
    local_bytes: IntGaugeVec,
    /// Bytes of objects that manifests name, of partitions that this node leads.
    archive_bytes: IntGaugeVec,
    /// Partitions that this node has a replica of.
    partitions: IntGauge,
    /// Those that it leads.
    led: IntGauge,
    /// Those of them that lack a replica in sync.
    under_replicated: IntGauge,
    /// Those of them that have fewer in sync than `min.insync.replicas`.
    under_min_isr: IntGauge,
    /// Those of them that have exactly as many.
    at_min_isr: IntGauge,
    /// Partitions that take no writes because of their disk.
    offline_partitions: IntGauge,
    /// Log directories that failed.
    offline_log_dirs: IntGauge,
}

/// What each partition had counted at the last look. A topic's counters go on when a partition of it leaves this node.
#[derive(Debug, Default)]
struct Counted {
    partitions: HashMap<PartitionId, (u64, TrafficTotals)>,
    topics: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Sizes {
    local: u64,
    archive: u64,
}

impl StorageMetrics {
    pub(super) fn new(registry: &Registry) -> StorageMetrics {
        let gauges = |name, help| keep(registry, IntGaugeVec::new(Opts::new(name, help), &["topic"]));
        let counters = |name, help, label| keep(registry, IntCounterVec::new(Opts::new(name, help), &[label]));
        StorageMetrics {
            appended_bytes: counters(
                "varve_appended_bytes_total",
                "Bytes of record batches appended to logs of this node, by producers and by replication",
                "topic",
            ),
            produced_bytes: counters(
                "varve_produced_bytes_total",
                "Bytes of record batches that producers wrote to this node",
                "topic",
            ),
            produced_records: counters(
                "varve_produced_records_total",
                "Records that producers wrote to this node",
                "topic",
            ),
            consumed_bytes: counters(
                "varve_consumed_bytes_total",
                "Bytes of record batches that consumers were given by this node, from any tier",
                "topic",
            ),
            replicated_bytes: counters(
                "varve_replicated_bytes_total",
                "Bytes of record batches copied between brokers, by direction: in from leaders, out to followers",
                "direction",
            ),
            counted: Arc::default(),
            local_bytes: gauges("varve_local_log_bytes", "Bytes of logs on the local disk"),
            archive_bytes: gauges(
                "varve_archive_bytes",
                "Bytes of objects that manifests name, of partitions that this node leads: the sum over all nodes is the archive",
            ),
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
            at_min_isr: keep(
                registry,
                IntGauge::new(
                    "varve_at_min_isr_partitions",
                    "Partitions that this node leads and that take no acks=all writes once another replica goes: as many are in sync as min.insync.replicas",
                ),
            ),
            offline_partitions: keep(
                registry,
                IntGauge::new("varve_offline_partitions", "Partitions that take no writes because of their disk"),
            ),
            offline_log_dirs: keep(
                registry,
                IntGauge::new(
                    "varve_offline_log_directories",
                    "Log directories that failed: out of use until the node is started again",
                ),
            ),
        }
    }

    /// Asks every partition for its sizes. A deleted topic's last numbers go.
    pub fn measure(&self, partitions: &Partitions) {
        let (mut topics, mut here, mut failed) = (BTreeMap::<String, Sizes>::new(), 0, partitions.offline() as i64);
        let (mut led, mut lacking, mut too_few, mut just_enough) = (0, 0, 0, 0);
        let all = partitions.all();
        for partition in &all {
            here += 1;
            led += i64::from(partition.is_leader());
            if let Some((in_sync, replicas)) = partition.in_sync() {
                lacking += i64::from(in_sync < replicas);
                too_few += i64::from(in_sync < partition.min_in_sync());
                just_enough += i64::from(in_sync == partition.min_in_sync());
            }
            failed += i64::from(partition.log_dir().is_failed());
            let sizes = topics.entry(partition.topic().as_str().to_owned()).or_default();
            sizes.local += partition.log().size();
            sizes.archive += partition.archived_bytes();
        }
        self.partitions.set(here);
        self.led.set(led);
        self.under_replicated.set(lacking);
        self.under_min_isr.set(too_few);
        self.at_min_isr.set(just_enough);
        self.offline_partitions.set(failed);
        let dirs = partitions.log_dirs();
        self.offline_log_dirs.set(dirs.iter().filter(|dir| dir.is_failed()).count() as i64);
        self.count(&all, topics.keys().cloned().collect());
        self.local_bytes.reset();
        self.archive_bytes.reset();
        for (topic, sizes) in topics {
            self.local_bytes.with_label_values(&[&topic]).set(signed(sizes.local));
            self.archive_bytes.with_label_values(&[&topic]).set(signed(sizes.archive));
        }
    }

    /// Adds what came since the last look. Topics of which nothing is here any more go.
    fn count(&self, all: &[Arc<Partition>], topics: BTreeSet<String>) {
        let mut counted = self.counted.lock();
        let before = std::mem::take(&mut counted.partitions);
        let [copied_in, copied_out] =
            ["in", "out"].map(|direction| self.replicated_bytes.with_label_values(&[direction]));
        for partition in all {
            let now = (partition.appended_bytes(), partition.traffic());
            let (appended, traffic) = before.get(&partition.id()).copied().unwrap_or_default();
            let (new, topic) = (now.1.since(traffic), partition.topic().as_str());
            let appended = now.0.checked_sub(appended).unwrap_or(now.0);
            self.appended_bytes.with_label_values(&[topic]).inc_by(appended);
            self.produced_bytes.with_label_values(&[topic]).inc_by(new.produced_bytes);
            self.produced_records.with_label_values(&[topic]).inc_by(new.produced_records);
            self.consumed_bytes.with_label_values(&[topic]).inc_by(new.consumed_bytes);
            copied_in.inc_by(new.copied_here_bytes);
            copied_out.inc_by(new.copied_away_bytes);
            counted.partitions.insert(partition.id(), now);
        }
        for gone in counted.topics.difference(&topics) {
            for counters in self.of_topic() {
                // It was shown at the last look.
                let _ = counters.remove_label_values(&[gone]);
            }
        }
        counted.topics = topics;
    }

    fn of_topic(&self) -> [&IntCounterVec; 4] {
        [&self.appended_bytes, &self.produced_bytes, &self.produced_records, &self.consumed_bytes]
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::server::testing::TestNode;
    use varve_metadata::model::PartitionIndex;

    #[tokio::test]
    async fn what_went_through_a_topic_is_not_counted_again_when_a_partition_of_it_leaves() {
        let node = TestNode::start().await;
        node.create_topic("logs", 2, &[]).await;
        let partitions = node.broker.partitions.all();
        partitions.iter().for_each(|partition| partition.note_consumed(100));
        let (storage, shown) = (&node.metrics.storage, |bytes: u64| {
            let line = format!("varve_consumed_bytes_total{{topic=\"logs\"}} {bytes}\n");
            let text = node.metrics.registry().text();
            assert!(text.contains(&line), "{line} is not in\n{text}");
        });
        storage.count(&partitions, ["logs".to_owned()].into());
        shown(200);
        let stays: Vec<_> = partitions.iter().filter(|one| one.id().index == PartitionIndex(0)).cloned().collect();
        stays[0].note_consumed(11);
        storage.count(&stays, ["logs".to_owned()].into());
        shown(211);
        storage.count(&[], Default::default());
        assert!(!node.metrics.registry().text().contains("topic=\"logs\""), "a topic that is gone is not shown");
    }
}
