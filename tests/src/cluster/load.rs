//! A crew at work while something happens to a cluster, and what became of its records.

use std::path::Path;

use anyhow::{Context, Result};

use super::Cluster;
use crate::{
    history::Recorder,
    workload::{Crew, Faults, Random},
};

/// The shortest time after which etcd takes a silent broker for dead; internal topics on all brokers.
pub const SETTINGS: [&str; 12] = [
    "broker.session.timeout.ms=2000",
    "replica.lag.time.max.ms=3000",
    "offsets.topic.replication.factor=3",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.min.isr=2",
    "offsets.topic.num.partitions=3",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=1000",
    "varve.archive.lag.ms=200",
    "remote.log.manager.task.interval.ms=500",
    "varve.compactor.interval.ms=200",
    "log.segment.delete.delay.ms=0",
];
/// What brokers are told besides where none of them fails: a machine with much else to do makes none of them dead or slow, and
/// leaves them the time to stop in order.
pub const UNHURRIED: [&str; 3] =
    ["broker.session.timeout.ms=3600000", "replica.lag.time.max.ms=30000", "varve.shutdown.timeout.ms=120000"];
/// What is written and read.
pub const TOPIC: &str = "ledger";
/// Who is at work.
pub const CREW: Crew = Crew { topic: TOPIC, partitions: 3, writers: 3, groups: &["audit", "balance"], members: 2 };
/// Small segments, so that they roll, move to the archive and leave the local disk.
pub const CONFIGS: [(&str, &str); 4] = [
    ("min.insync.replicas", "2"),
    ("internal.segment.bytes", "20000"),
    ("local.retention.bytes", "40000"),
    ("retention.ms", "-1"),
];

/// The number that an environment variable gives, or else `default`.
///
/// # Errors
/// It is none.
pub fn setting(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// What happens to the brokers while clients work. Ends early when a client has found a fault.
pub type Trouble<'a> = dyn Fn(&mut Cluster, &mut Random, &Faults) -> Result<()> + 'a;

/// How much is there at the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Brokers.
    pub brokers: usize,
    /// Replicas of each partition.
    pub replicas: usize,
    /// Replicas of each partition when everything is over.
    pub replicas_after: usize,
    /// What brokers are told besides [`SETTINGS`].
    pub settings: &'static [&'static str],
}

/// Writers and groups at work during `trouble`; then everything is read, and judged.
///
/// # Errors
/// A promise was broken, or a client or `trouble` failed.
pub fn judged(load: Load, seed: u64, trouble: &Trouble<'_>) -> Result<()> {
    judged_from(None, load, seed, trouble)
}

/// The same with brokers of another version, if one is given.
///
/// # Errors
/// As [`judged`].
pub fn judged_from(binary: Option<&Path>, load: Load, seed: u64, trouble: &Trouble<'_>) -> Result<()> {
    let mut random = Random(seed);
    let folder = tempfile::tempdir()?;
    let settings = [&SETTINGS, load.settings].concat();
    let mut cluster = Cluster::start_from(binary, folder.path(), load.brokers, &settings)?;
    cluster.create(TOPIC, CREW.partitions, load.replicas as i16, &CONFIGS)?;
    let (routes, recorder) = (cluster.routes(), Recorder::default());
    CREW.work(&routes, &recorder, &mut random, |random, faults| trouble(&mut cluster, random, faults))
        .and_then(|()| {
            cluster.await_isr(TOPIC, load.replicas_after)?;
            CREW.judge(&routes, &recorder)
        })
        .with_context(|| format!("VARVE_CLUSTER_SEED={seed}"))
}
