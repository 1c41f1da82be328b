//! How far groups are behind, without an exporter beside the brokers.
//!
//! The coordinator of a group knows what it committed. Where partitions end it looks up, beside the path of requests and every
//! `varve.group.lag.interval.ms`: here, if it has a replica in sync, else by asking their leaders, one request for all
//! partitions of a leader. What is shown is one value for a group and a topic, of those that are furthest behind.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures::future::join_all;
use kafka_protocol::{
    messages::{
        ListOffsetsRequest, TopicName,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec, Opts};
use varve_metadata::model::{BrokerId, HighWatermark, Offset, PartitionIndex};

use super::GroupCoordinator;
use crate::{
    coordinator::Shard,
    links::LinkError,
    metrics::{Metrics, Registry, keep},
    server::Broker,
};

/// Pairs of a group and a topic that are shown: those furthest behind. More would be more than Prometheus should keep.
const SHOWN: usize = 1000;
/// The version in which leaders are asked, and their words for "the end" and "a client".
const LIST_OFFSETS_VERSION: i16 = 7;
const LATEST: i64 = -1;
const CONSUMER: i32 = -1;

/// What one group committed of one topic.
struct Committed {
    group: String,
    topic: String,
    offsets: Vec<(PartitionIndex, Offset)>,
}

/// Where partitions end, by topic and number.
type Ends = HashMap<String, BTreeMap<PartitionIndex, Offset>>;

/// How far one group is behind in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lag {
    group: String,
    topic: String,
    /// Records, over all partitions that it committed an offset of.
    records: u64,
    /// Records of the partition that it is furthest behind in.
    most: u64,
}

/// The outcome of one look.
#[derive(Debug, Default)]
pub(super) struct Lags {
    shown: Vec<Lag>,
    unshown: usize,
    unknown: usize,
}

/// Families of metrics about lag.
#[derive(Debug)]
pub(crate) struct LagMetrics {
    records: IntGaugeVec,
    most: IntGaugeVec,
    unshown: IntGauge,
    unknown: IntGauge,
}

impl LagMetrics {
    pub(crate) fn new(registry: &Registry) -> LagMetrics {
        let lags = |name, help| keep(registry, IntGaugeVec::new(Opts::new(name, help), &["group", "topic"]));
        LagMetrics {
            records: lags(
                "varve_group_lag_records",
                "Records between what a group committed and the high watermark, over all partitions of a topic that it \
                 committed; of the 1000 groups and topics that are furthest behind, at the last look",
            ),
            most: lags(
                "varve_group_partition_lag_max_records",
                "The same of the one partition in which the group is furthest behind",
            ),
            unshown: keep(
                registry,
                IntGauge::new(
                    "varve_group_lag_unshown",
                    "Groups and topics left out above because others are further behind",
                ),
            ),
            unknown: keep(
                registry,
                IntGauge::new(
                    "varve_group_lag_unknown_partitions",
                    "Partitions with committed offsets whose end no leader has told since this node coordinates them",
                ),
            ),
        }
    }

    fn show(&self, lags: &Lags) {
        self.records.reset();
        self.most.reset();
        for Lag { group, topic, records, most } in &lags.shown {
            self.records.with_label_values(&[group, topic]).set(signed(*records));
            self.most.with_label_values(&[group, topic]).set(signed(*most));
        }
        self.unshown.set(lags.unshown as i64);
        self.unknown.set(lags.unknown as i64);
    }
}

/// What the last look found.
pub(super) type LastLags = Arc<Mutex<Lags>>;

pub(super) fn register(last: &LastLags, metrics: &Metrics) {
    let (last, shown) = (last.clone(), LagMetrics::new(metrics.registry()));
    metrics.before_scrape(move || shown.show(&last.lock()));
}

impl GroupCoordinator {
    /// Looks how far groups are behind, again and again until `broker` stops.
    pub async fn follow_lag(self: Arc<Self>, broker: Arc<Broker>) {
        let mut known = Ends::new();
        loop {
            self.look_at_lag(&broker, &mut known).await;
            tokio::select! {
                () = broker.shutdown.cancelled() => return,
                () = tokio::time::sleep(broker.config.groups.lag_interval) => {}
            }
        }
    }

    /// One look. `known` are the ends that were found before: a leader that does not answer leaves those in place.
    async fn look_at_lag(&self, broker: &Broker, known: &mut Ends) {
        let committed: Vec<Committed> = self.seats.read_each(committed).into_iter().flatten().collect();
        find_ends(broker, &committed, known).await;
        *self.lags.lock() = lags(committed, known);
    }
}

/// What the groups of a shard committed.
fn committed(shard: &Shard) -> Vec<Committed> {
    let mut found = Vec::new();
    for (group, topics) in shard.all_committed() {
        for (topic, partitions) in topics {
            let offsets =
                partitions.iter().filter_map(|(at, committed)| Some((*at, Offset::from_wire(committed.offset)?)));
            found.push(Committed { group: group.clone(), topic: topic.clone(), offsets: offsets.collect() });
        }
    }
    found
}

/// Brings `known` up to date: the ends of what is among `committed`, and no others.
async fn find_ends(broker: &Broker, committed: &[Committed], known: &mut Ends) {
    let image = broker.metadata.image();
    let (mut ends, mut elsewhere) =
        (Ends::new(), BTreeMap::<BrokerId, BTreeMap<&str, BTreeSet<PartitionIndex>>>::new());
    for Committed { topic, offsets, .. } in committed {
        // A topic that is gone has no lag; its offsets expire.
        let Some(described) = image.topic(topic) else { continue };
        let of_topic = ends.entry(topic.clone()).or_default();
        for (index, _) in offsets {
            let Some((_, partition)) = described.partition(*index) else { continue };
            if of_topic.contains_key(index) {
                continue;
            }
            let is_ours = partition.isr.contains(&broker.node);
            let here = broker.partitions.find(topic, *index).ok().filter(|_| is_ours);
            let before = known.get(topic).and_then(|before| before.get(index)).copied();
            match (here, partition.leader) {
                (Some(replica), _) => {
                    let HighWatermark(end) = replica.high_watermark();
                    of_topic.insert(*index, end);
                }
                (None, leader) => {
                    if let Some(before) = before {
                        of_topic.insert(*index, before);
                    }
                    if let Some(leader) = leader.filter(|leader| *leader != broker.node) {
                        elsewhere.entry(leader).or_default().entry(topic.as_str()).or_default().insert(*index);
                    }
                }
            }
        }
    }
    let asked = elsewhere.into_iter().map(|(leader, topics)| async move {
        let answer = ask_ends(broker, leader, &topics).await;
        answer.inspect_err(|error| tracing::debug!(%leader, %error, "a leader does not tell where its partitions end"))
    });
    for (topic, index, end) in join_all(asked).await.into_iter().flatten().flatten() {
        ends.entry(topic).or_default().insert(index, end);
    }
    *known = ends;
}

/// Where the leader says that partitions end.
async fn ask_ends(
    broker: &Broker,
    leader: BrokerId,
    topics: &BTreeMap<&str, BTreeSet<PartitionIndex>>,
) -> Result<Vec<(String, PartitionIndex, Offset)>, LinkError> {
    let topics = topics.iter().map(|(name, partitions)| {
        let partitions = partitions
            .iter()
            .map(|index| ListOffsetsPartition::default().with_partition_index(index.to_wire()).with_timestamp(LATEST));
        let name = TopicName(StrBytes::from_string((*name).to_owned()));
        ListOffsetsTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    let request = ListOffsetsRequest::default().with_replica_id(CONSUMER.into()).with_topics(topics.collect());
    let answer = broker.links.ask(leader, LIST_OFFSETS_VERSION, &request).await?;
    let each = answer.topics.into_iter().flat_map(|topic| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().filter_map(move |partition| {
            let index = PartitionIndex::from_wire(partition.partition_index)?;
            let end = Offset::from_wire(partition.offset).filter(|_| partition.error_code == 0)?;
            Some((name.clone(), index, end))
        })
    });
    Ok(each.collect())
}

/// How far each group is behind, those furthest behind first.
fn lags(committed: Vec<Committed>, ends: &Ends) -> Lags {
    let mut found = Vec::with_capacity(committed.len());
    let mut unknown = 0;
    for Committed { group, topic, offsets } in committed {
        let Some(ends) = ends.get(&topic) else { continue };
        // An offset ahead of the end is one of before an unclean election, or of before a replica here heard of newer records.
        let behind = offsets.iter().filter_map(|(at, offset)| Some(ends.get(at)?.get().saturating_sub(offset.get())));
        let behind: Vec<u64> = behind.collect();
        unknown += offsets.len() - behind.len();
        if let Some(most) = behind.iter().copied().max() {
            found.push(Lag { group, topic, records: behind.iter().sum(), most });
        }
    }
    found.sort_by(|a, b| (Reverse(a.records), &a.group, &a.topic).cmp(&(Reverse(b.records), &b.group, &b.topic)));
    let unshown = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    Lags { shown: found, unshown, unknown }
}

fn signed(records: u64) -> i64 {
    i64::try_from(records).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    fn committed(group: &str, topic: &str, offsets: &[(u32, u64)]) -> Committed {
        let offsets = offsets.iter().map(|&(at, raw)| (PartitionIndex(at), offset(raw))).collect();
        Committed { group: group.to_owned(), topic: topic.to_owned(), offsets }
    }

    fn ends(topic: &str, ends: &[(u32, u64)]) -> Ends {
        Ends::from([(topic.to_owned(), ends.iter().map(|&(at, raw)| (PartitionIndex(at), offset(raw))).collect())])
    }

    #[test]
    fn lag_is_summed_over_the_partitions_of_a_topic_whose_end_is_known() {
        let one = committed("a", "orders", &[(0, 5), (1, 100), (2, 7)]);
        let found = lags(vec![one], &ends("orders", &[(0, 25), (1, 90)]));
        let lag = Lag { group: "a".to_owned(), topic: "orders".to_owned(), records: 20, most: 20 };
        assert_eq!((found.shown, found.unshown, found.unknown), (vec![lag], 0, 1));
    }

    #[test]
    fn a_topic_that_is_gone_has_no_lag() {
        let found = lags(vec![committed("a", "gone", &[(0, 5)])], &ends("orders", &[(0, 25)]));
        assert_eq!((found.shown.len(), found.unknown), (0, 0));
    }

    #[test]
    fn only_those_that_are_furthest_behind_are_shown() {
        let groups: Vec<Committed> = (0..1010).map(|n| committed(&format!("g{n}"), "orders", &[(0, n)])).collect();
        let found = lags(groups, &ends("orders", &[(0, 2000)]));
        assert_eq!((found.shown.len(), found.unshown, found.shown[0].records), (SHOWN, 10, 2000));
        assert!(found.shown.iter().all(|lag| lag.records > 2000 - 1000));
    }
}
