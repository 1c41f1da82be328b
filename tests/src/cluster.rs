//! Several `varve` processes that are one cluster: an etcd, a bucket in a directory, brokers on loopback ports.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    messages::{MetadataRequest, TopicName, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};

use crate::{
    etcd::Etcd,
    node::{Node, eventually, stable_address},
    workload::Routes,
};

/// A cluster; all of it is killed when dropped.
pub struct Cluster {
    folder: PathBuf,
    /// What its brokers agree in.
    pub etcd: Etcd,
    brokers: Vec<Broker>,
    settings: Vec<String>,
    own: Box<OwnSettings>,
}

/// What one broker, by its index, is told beside what all are.
type OwnSettings = dyn Fn(usize) -> Vec<String> + Send + Sync;

struct Broker {
    address: SocketAddr,
    node: Option<Node>,
}

/// One partition as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Who leads, by index; `None`: nobody.
    pub leader: Option<usize>,
    /// Who is in sync, by index.
    pub isr: Vec<usize>,
}

impl Cluster {
    /// Starts `count` brokers, all with `settings`, in `folder`.
    ///
    /// # Errors
    /// One does not answer.
    pub fn start(folder: &Path, count: usize, settings: &[&str]) -> Result<Cluster> {
        Cluster::start_each(folder, count, settings, |_| Vec::new())
    }

    /// The same with settings of each broker's own. They are asked for at each start of a broker, and `listeners` among them are
    /// beside the one for clients.
    ///
    /// # Errors
    /// One does not answer.
    pub fn start_each(
        folder: &Path,
        count: usize,
        settings: &[&str],
        own: impl Fn(usize) -> Vec<String> + Send + Sync + 'static,
    ) -> Result<Cluster> {
        let place = folder.join("etcd");
        fs::create_dir_all(&place)?;
        let etcd = Etcd::start(&place)?;
        let brokers = (0..count).map(|_| Ok(Broker { address: stable_address()?, node: None }));
        let mut cluster = Cluster {
            folder: folder.to_owned(),
            etcd,
            brokers: brokers.collect::<Result<_>>()?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            own: Box::new(own),
        };
        cluster.start_all(&(0..count).collect::<Vec<_>>())?;
        Ok(cluster)
    }

    /// Starts these brokers, side by side.
    ///
    /// # Errors
    /// One does not answer.
    pub fn start_all(&mut self, which: &[usize]) -> Result<()> {
        let started: Vec<(usize, Result<Node>)> = thread::scope(|scope| {
            let this = &*self;
            let starting: Vec<_> = which.iter().map(|&at| (at, scope.spawn(move || this.launch(at)))).collect();
            starting.into_iter().map(|(at, node)| (at, node.join().expect("starting does not panic"))).collect()
        });
        for (at, node) in started {
            self.brokers[at].node = Some(node.with_context(|| format!("broker {at}"))?);
        }
        self.await_admission()
    }

    /// Waits until every broker that runs was let in, as each of them sees it.
    fn await_admission(&self) -> Result<()> {
        let running: Vec<usize> = (0..self.brokers.len()).filter(|&at| self.brokers[at].node.is_some()).collect();
        for &at in &running {
            eventually(&format!("broker {at} sees brokers {running:?}"), || {
                let request = MetadataRequest::default().with_topics(Some(Vec::new()));
                let mut seen: Vec<usize> = match Routes::new(vec![self.brokers[at].address]).to_any()?.ask(9, &request)
                {
                    Ok(answer) => {
                        answer.brokers.iter().filter_map(|broker| usize::try_from(broker.node_id.0).ok()).collect()
                    }
                    Err(_) => Vec::new(),
                };
                seen.sort_unstable();
                // One that was killed may be there until its lease has ended.
                Ok(running.iter().all(|at| seen.contains(at)).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Where a broker keeps what it has.
    pub fn folder(&self, at: usize) -> PathBuf {
        self.folder.join(format!("broker-{at}"))
    }

    fn launch(&self, at: usize) -> Result<Node> {
        let folder = self.folder(at);
        fs::create_dir_all(&folder)?;
        let own = [
            format!("node.id={at}"),
            format!("varve.metadata.url=etcd://{}/varve", self.etcd.address()),
            format!("varve.object.store.url=file://{}", self.folder.join("bucket").display()),
        ];
        let mut listeners = format!("listeners=PLAINTEXT://{}", self.brokers[at].address);
        let mut more = (self.own)(at);
        more.retain(|setting| match setting.strip_prefix("listeners=") {
            Some(others) => {
                listeners = format!("{listeners},{others}");
                false
            }
            None => true,
        });
        let all: Vec<&str> =
            own.iter().chain(&self.settings).chain(&more).chain([&listeners]).map(String::as_str).collect();
        Node::start(&folder, &all)
    }

    /// Where brokers are.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.brokers.iter().map(|broker| broker.address).collect()
    }

    /// Clients' way to them.
    pub fn routes(&self) -> Routes {
        Routes::new(self.addresses())
    }

    /// A broker that runs.
    ///
    /// # Panics
    /// It does not.
    pub fn node(&self, at: usize) -> &Node {
        self.brokers[at].node.as_ref().expect("the broker runs")
    }

    /// Ends a broker without a chance to say good-bye. Its machine goes on: what it wrote is in the page cache.
    pub fn kill(&mut self, at: usize) {
        if let Some(node) = self.brokers[at].node.take() {
            node.kill();
        }
    }

    /// Everything that a broker has printed, over all its lives.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn printed(&self, at: usize) -> Result<String> {
        Ok(fs::read_to_string(self.folder(at).join("varve.log"))?)
    }

    /// Asks a broker to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not, or not with success.
    pub fn stop(&mut self, at: usize) -> Result<()> {
        self.brokers[at].node.take().context("the broker runs")?.stop()
    }

    /// The partitions of a topic, as whichever broker answers describes them.
    ///
    /// # Errors
    /// None answers, or there is no such topic.
    pub fn describe(&self, topic: &str) -> Result<Vec<Described>> {
        let running = self.brokers.iter().filter(|broker| broker.node.is_some()).map(|broker| broker.address);
        let name = TopicName(StrBytes::from_string(topic.to_owned()));
        let asked = MetadataRequestTopic::default().with_name(Some(name));
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
        let answer = Routes::new(running.collect()).to_any()?.ask(9, &request)?;
        let topic = answer.topics.first().context("one topic")?;
        ensure!(topic.error_code == 0, "Metadata says {}", topic.error_code);
        let index = |id: i32| usize::try_from(id).ok();
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        let described = partitions.into_iter().map(|partition| Described {
            leader: index(partition.leader_id.0),
            isr: partition.isr_nodes.iter().filter_map(|id| index(id.0)).collect(),
        });
        Ok(described.collect())
    }

    /// Waits until every partition of the topic has a leader and `count` replicas in sync.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn await_isr(&self, topic: &str, count: usize) -> Result<()> {
        eventually(&format!("{count} replicas of each partition of {topic} are in sync"), || {
            let partitions = self.describe(topic).unwrap_or_default();
            let is_whole = |one: &Described| one.leader.is_some() && one.isr.len() == count;
            Ok((!partitions.is_empty() && partitions.iter().all(is_whole)).then_some(()))
        })
    }
}
