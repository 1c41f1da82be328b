//! Three brokers that are one cluster, and whatever they agree in: controllers in the same processes, or an etcd.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kafka_protocol::{
    messages::{MetadataRequest, MetadataResponse, TopicName, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};
use varve_tests::{client::Client, workload::Routes};

use crate::{
    Settings,
    process::Process,
    servers::{Kind, Quorum, await_answer, folder_for, free_port, kafka_command, tools, varve_command},
};

const BROKERS: usize = 3;
/// Longest wait for the cluster to come to a state.
const LIMIT: Duration = Duration::from_secs(120);

/// The cluster; ended when dropped.
pub(crate) struct Trio<'a> {
    settings: &'a Settings,
    kind: Kind,
    overrides: Vec<&'a str>,
    brokers: Vec<Broker>,
    controllers: Vec<SocketAddr>,
    etcd: Option<(Process, SocketAddr)>,
    folder: tempfile::TempDir,
}

struct Broker {
    address: SocketAddr,
    process: Option<Process>,
}

impl<'a> Trio<'a> {
    /// Starts all of it on empty folders; `overrides` are configuration lines for Varve only.
    pub(crate) fn start(settings: &'a Settings, kind: Kind, overrides: &[&'a str]) -> Result<Trio<'a>> {
        let folder = folder_for(settings)?;
        fs::create_dir_all(folder.path().join("bucket"))?;
        let brokers = (0..BROKERS).map(|_| Ok(Broker { address: free_port()?, process: None }));
        let mut trio = Trio {
            settings,
            kind,
            overrides: overrides.to_vec(),
            brokers: brokers.collect::<Result<_>>()?,
            controllers: (0..BROKERS).map(|_| free_port()).collect::<Result<_>>()?,
            etcd: (kind == Kind::Varve).then(|| start_etcd(settings, folder.path())).transpose()?,
            folder,
        };
        // Kafka's controllers need a majority of them before any answers.
        for at in 0..BROKERS {
            trio.launch(at)?;
        }
        for at in 0..BROKERS {
            trio.await_broker(at)?;
        }
        trio.await_metadata("all brokers are known", |metadata| metadata.brokers.len() == BROKERS)?;
        Ok(trio)
    }

    fn launch(&mut self, at: usize) -> Result<()> {
        let folder = self.folder_of(at);
        fs::create_dir_all(&folder)?;
        let listeners = format!("PLAINTEXT://{}", self.brokers[at].address);
        let command = match &self.etcd {
            Some((_, etcd)) => {
                let own = [
                    format!("node.id={}", at + 1),
                    format!("varve.metadata.url=etcd://{etcd}/varve"),
                    format!("varve.object.store.url=file://{}", self.folder.path().join("bucket").display()),
                ];
                let all: Vec<&str> = own.iter().map(String::as_str).chain(self.overrides.iter().copied()).collect();
                varve_command(self.settings, &folder, &listeners, &all)?
            }
            None => {
                let quorum = Quorum { id: at + 1, controllers: self.controllers.as_slice().into() };
                kafka_command(self.settings, &folder, &listeners, &quorum, &[])?
            }
        };
        self.brokers[at].process = Some(Process::start(command, &self.log_of(at))?);
        Ok(())
    }

    fn await_broker(&self, at: usize) -> Result<()> {
        await_answer(self.kind, self.brokers[at].address, &self.log_of(at))
    }

    fn folder_of(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("broker-{}", at + 1))
    }

    fn log_of(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("broker-{}.out", at + 1))
    }

    /// Ends a broker without a chance to say good-bye.
    pub(crate) fn kill(&mut self, at: usize) {
        self.brokers[at].process = None;
    }

    /// Starts a broker that was killed again, on what it has on its disk or on an empty one.
    pub(crate) fn restart(&mut self, at: usize, is_disk_new: bool) -> Result<()> {
        if is_disk_new {
            fs::remove_dir_all(self.folder_of(at))?;
        }
        self.launch(at)?;
        self.await_broker(at)
    }

    /// Bytes of files in a broker's folder.
    pub(crate) fn megabytes_on_disk(&self, at: usize) -> Result<f64> {
        Ok(bytes_below(&self.folder_of(at))? as f64 / 1e6)
    }

    /// Clients' way to the brokers that run.
    pub(crate) fn routes(&self) -> Routes {
        let running = self.brokers.iter().filter(|broker| broker.process.is_some());
        Routes::new(running.map(|broker| broker.address).collect())
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.brokers.iter().filter_map(|broker| broker.process.as_ref()).chain(self.etcd.iter().map(|(etcd, _)| etcd))
    }

    /// CPU time of all brokers and of what they agree in.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.processes().map(Process::cpu).sum()
    }

    /// Resident memory of the same.
    pub(crate) fn resident_megabytes(&self) -> Result<f64> {
        self.processes().map(Process::resident_megabytes).sum()
    }

    /// A topic with a replica on every broker, two of which acknowledge; returns when all are in sync.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<()> {
        let configs = [&[("min.insync.replicas", "2")], configs].concat();
        self.routes().to_any()?.create_replicated(name, partitions, BROKERS as i16, &configs)?;
        self.await_in_sync(name, BROKERS)
    }

    /// Waits until each partition of a topic has a leader and `count` replicas in sync.
    pub(crate) fn await_in_sync(&self, topic: &str, count: usize) -> Result<()> {
        self.await_metadata(&format!("{count} replicas of {topic} are in sync"), |metadata| {
            let found = metadata.topics.iter().find(|one| one.name.as_ref().is_some_and(|name| name.as_str() == topic));
            found.is_some_and(|found| {
                !found.partitions.is_empty()
                    && found.partitions.iter().all(|one| one.leader_id.0 >= 0 && one.isr_nodes.len() == count)
            })
        })
    }

    /// By index, who leads each partition, if anybody does.
    pub(crate) fn leaders_of(&self, topic: &str) -> Result<Vec<Option<usize>>> {
        let metadata = ask(&mut self.routes().to_any()?, topic)?;
        let found = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let led = found.map(|one| (one.partition_index, usize::try_from(one.leader_id.0 - 1).ok()));
        let led: BTreeMap<i32, Option<usize>> = led.collect();
        Ok(led.into_values().collect())
    }

    /// A connection to the broker of that index.
    pub(crate) fn client(&self, broker: usize) -> Result<Client> {
        Client::connect(self.brokers[broker].address)
    }

    /// Asks every broker that runs until each says what is waited for.
    fn await_metadata(&self, what: &str, is_there: impl Fn(&MetadataResponse) -> bool) -> Result<()> {
        let started = Instant::now();
        for broker in self.brokers.iter().filter(|broker| broker.process.is_some()) {
            while !Client::connect(broker.address)
                .and_then(|mut client| client.ask(9, &MetadataRequest::default().with_topics(None)))
                .is_ok_and(|answer| is_there(&answer))
            {
                ensure!(started.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

fn ask(client: &mut Client, topic: &str) -> Result<MetadataResponse> {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(topic.to_owned()))));
    client.ask(9, &MetadataRequest::default().with_topics(Some(vec![topic])))
}

/// One member: the brokers' work is compared, not an etcd's copies on one disk.
fn start_etcd(settings: &Settings, folder: &Path) -> Result<(Process, SocketAddr)> {
    let (address, peer) = (free_port()?, free_port()?);
    let url = format!("http://{address}");
    let mut command = Command::new(tools(settings)?.join("bin/etcd"));
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &format!("http://{peer}"), "--logger", "zap"]);
    let process = Process::start(command, &folder.join("etcd.out"))?;
    let started = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        ensure!(started.elapsed() < LIMIT, "etcd does not answer on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((process, address))
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Segments are deleted meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
