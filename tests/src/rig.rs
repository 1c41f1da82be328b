//! Three brokers, and a fourth one to move things to, three members of etcd, an S3 server and the clients, each on a host of its
//! own, and everything that can go wrong with them.

mod directories;
mod disks;
mod fault;
mod moves;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use disks::Disks;

pub use fault::{Fault, Outage};

use crate::{
    cluster::{Cluster, Surroundings},
    etcd::Etcd,
    history::Place,
    network::Network,
    node::eventually,
    s3::S3Emulator,
    workload::{Probe, Random, Routes},
};

/// How many brokers, and how many members of etcd.
pub const MEMBERS: usize = 3;
/// The broker more: it runs while something moves to it.
const SPARE: usize = MEMBERS;
/// The host of the clients.
const CLIENT: usize = 0;
/// The host of the first broker.
const BROKER: usize = 1;
/// The host of the first member of etcd, behind all brokers.
const ETCD: usize = BROKER + SPARE + 1;
/// The host of the S3 server.
const STORE: usize = ETCD + MEMBERS;
const BUCKET: &str = "varve";
/// What every broker is told besides what the test says: internal topics on all of them, and all archived soon.
const SETTINGS: [&str; 12] = [
    "varve.object.store.url=s3://varve/rig",
    "replica.lag.time.max.ms=3000",
    "offsets.topic.replication.factor=3",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.min.isr=2",
    "transaction.state.log.num.partitions=3",
    "offsets.topic.num.partitions=3",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=1000",
    "varve.archive.lag.ms=200",
    "remote.log.manager.task.interval.ms=500",
    "varve.compactor.interval.ms=500",
];
/// Region and credentials as AWS's tools take them.
const VARIABLES: [(&str, &str); 3] =
    [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// All of it; gone when dropped, and at the latest with the process, which is to be [`alone`](crate::network::alone).
pub struct Rig {
    /// Before what runs on it: it ends last.
    pub cluster: Cluster,
    store: S3Emulator,
    disks: Vec<Disks>,
    routes: Routes,
    network: Network,
    lasting: Duration,
}

/// What a rig is like.
#[derive(Clone, Copy, Debug)]
pub struct RigOptions<'a> {
    /// What brokers are told.
    pub settings: &'a [&'a str],
    /// Room on each of the two disks of each broker.
    pub disk_mib: u32,
    /// How long what goes wrong lasts: longer than leases, or a broker that hangs is not missed.
    pub lasting: Duration,
    /// Decides which packets are lost.
    pub seed: u64,
}

impl Rig {
    /// Starts all of it in `folder`.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(folder: &Path, options: RigOptions<'_>) -> Result<Rig> {
        let RigOptions { settings, disk_mib, lasting, seed } = options;
        let brokers = (0..=SPARE).map(|at| format!("broker-{at}"));
        let etcd = (0..MEMBERS).map(|at| format!("etcd-{at}"));
        let names: Vec<String> =
            ["client".to_owned()].into_iter().chain(brokers).chain(etcd).chain(["store".to_owned()]).collect();
        let network = Network::of(&names, seed)?;
        let hosts = |first: usize| -> Vec<_> { (first..first + MEMBERS).map(|at| network.host(at)).collect() };
        let place = folder.join("etcd");
        let members = Etcd::cluster_on(&place, &hosts(ETCD)).context("etcd")?;
        let store = S3Emulator::start_on(network.host(STORE)).context("the S3 server")?;
        store.make_bucket(BUCKET)?;
        let disks = (0..=SPARE).map(|at| Disks::mount(&folder.join(format!("broker-{at}")), disk_mib));
        let disks = disks.collect::<Result<_>>()?;
        let endpoint = format!("varve.object.store.endpoint=http://{}", store.address());
        let settings = [&SETTINGS[..], &disks::SETTINGS, settings, &[endpoint.as_str()]].concat();
        let surroundings = Surroundings { folder, etcd: members, settings: &settings, variables: &VARIABLES };
        let mut cluster = Cluster::start_on(&hosts(BROKER), surroundings)?;
        let routes = cluster.routes();
        cluster.make_room_on(network.host(BROKER + SPARE));
        Ok(Rig { cluster, store, disks, routes, network, lasting })
    }

    /// Clients' way to the brokers.
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Makes `fault` happen, waits until it has lasted and everything is as before, and tells how long `probe` could not
    /// write. All partitions of `topics` are led and in sync then.
    ///
    /// # Errors
    /// It cannot be made to happen, things do not become as before within five minutes, or some partition was stuck.
    pub fn suffer(&mut self, fault: Fault, probe: &Probe, topics: &[&str], random: &mut Random) -> Result<Outage> {
        for topic in topics {
            self.cluster.await_isr(topic, MEMBERS)?;
        }
        probe.reset();
        let began = Instant::now();
        fault.happen(self, topics, random).with_context(|| format!("{fault}"))?;
        let over = Instant::now();
        eventually(&format!("after {fault}, every partition takes records"), || {
            Ok(probe.is_whole_since(over).then_some(()))
        })?;
        for topic in topics {
            self.cluster.await_isr(topic, MEMBERS).with_context(|| format!("after {fault}"))?;
        }
        let outage = Outage { fault, unavailable: probe.longest(), lasted: over - began, whole_after: over.elapsed() };
        outage.judge().map(|()| outage)
    }

    /// What all brokers have printed.
    pub fn printed(&self) -> String {
        let of = |at| format!("broker {at}:\n{}\n", self.cluster.printed(at).unwrap_or_default());
        (0..=SPARE).map(of).collect()
    }

    /// The leader of a partition.
    fn leader(&self, place: &Place) -> Result<usize> {
        eventually(&format!("{place} has a leader"), || {
            let described = self.cluster.look(&place.topic);
            Ok(described.get(place.partition as usize).and_then(|one| one.leader))
        })
    }

    fn controller(&self) -> Result<usize> {
        eventually("there is a controller", || Ok(self.cluster.controller().ok().flatten()))
    }

    fn etcd_leader(&self) -> Result<usize> {
        eventually("etcd has a leader", || Ok(self.cluster.etcd.iter().position(Etcd::leads)))
    }
}
