//! Several `varve` processes that are one cluster: an etcd, a bucket in a directory, brokers on loopback ports; or each of them on a
//! host of its own ([`rig`](crate::rig)).

pub mod broker_command;
pub mod load;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    error::ResponseError,
    messages::{MetadataRequest, TopicName, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};

use crate::{
    client::Refusal,
    etcd::Etcd,
    network::Host,
    node::{Node, eventually, stable_address, until, varve, varve_at},
    workload::Routes,
};

/// Where brokers listen that have a host of their own.
const PORTS: (u16, u16) = (9092, 9644);
/// A broker that does not say within this time what it knows is passed over.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A cluster; all of it is killed when dropped.
pub struct Cluster {
    folder: PathBuf,
    /// The members of what its brokers agree in.
    pub etcd: Vec<Etcd>,
    brokers: Vec<Broker>,
    settings: Vec<String>,
    own: Box<OwnSettings>,
    variables: Vec<(String, String)>,
    /// Ours, for looking at it.
    routes: Routes,
}

/// What one broker, by its index, is told beside what all are.
type OwnSettings = dyn Fn(usize) -> Vec<String> + Send + Sync;

struct Broker {
    address: SocketAddr,
    /// Absent: where the test runs.
    host: Option<Host>,
    /// Another version than the one under test.
    binary: Option<PathBuf>,
    node: Option<Node>,
}

/// What a cluster is made of besides brokers.
pub struct Surroundings<'a> {
    /// Where all of it keeps what it has.
    pub folder: &'a Path,
    /// At least one member.
    pub etcd: Vec<Etcd>,
    /// What all brokers are told.
    pub settings: &'a [&'a str],
    /// Variables of every broker.
    pub variables: &'a [(&'a str, &'a str)],
}

/// One partition as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Who leads, by index; `None`: nobody.
    pub leader: Option<usize>,
    /// Who holds it, by index, the preferred leader first.
    pub replicas: Vec<usize>,
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

    /// The same with brokers that `binary` is, if one is given.
    ///
    /// # Errors
    /// One does not answer.
    pub fn start_from(binary: Option<&Path>, folder: &Path, count: usize, settings: &[&str]) -> Result<Cluster> {
        Cluster::beside_an_etcd(binary, folder, count, settings, Box::new(|_| Vec::new()))
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
        Cluster::beside_an_etcd(None, folder, count, settings, Box::new(own))
    }

    fn beside_an_etcd(
        binary: Option<&Path>,
        folder: &Path,
        count: usize,
        settings: &[&str],
        own: Box<OwnSettings>,
    ) -> Result<Cluster> {
        let place = folder.join("etcd");
        fs::create_dir_all(&place)?;
        let etcd = vec![Etcd::start(&place)?];
        let bucket = folder.join("bucket");
        fs::create_dir_all(&bucket)?;
        let bucket = format!("varve.object.store.url=file://{}", bucket.display());
        let settings = [&[bucket.as_str()], settings].concat();
        let ways = (0..count).map(|_| Ok((stable_address()?, None))).collect::<Result<_>>()?;
        Cluster::among(binary, Surroundings { folder, etcd, settings: &settings, variables: &[] }, ways, own)
    }

    /// Starts a broker on each of `hosts`.
    ///
    /// # Errors
    /// One does not answer.
    pub fn start_on(hosts: &[&Host], surroundings: Surroundings<'_>) -> Result<Cluster> {
        let ways = hosts.iter().map(|&host| (host.at(PORTS.0), Some(host.clone()))).collect();
        Cluster::among(None, surroundings, ways, Box::new(|_| Vec::new()))
    }

    fn among(
        binary: Option<&Path>,
        surroundings: Surroundings<'_>,
        ways: Vec<(SocketAddr, Option<Host>)>,
        own: Box<OwnSettings>,
    ) -> Result<Cluster> {
        let Surroundings { folder, etcd, settings, variables } = surroundings;
        let routes = Routes::new(ways.iter().map(|(address, _)| *address).collect()).waiting_at_most(LOOK_LIMIT);
        let brokers: Vec<Broker> = ways
            .into_iter()
            .map(|(address, host)| Broker { address, host, binary: binary.map(Path::to_owned), node: None })
            .collect();
        let all: Vec<usize> = (0..brokers.len()).collect();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut cluster = Cluster {
            folder: folder.to_owned(),
            etcd,
            brokers,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            own,
            variables: variables.iter().map(pair).collect(),
            routes,
        };
        cluster.start_all(&all)?;
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

    /// Starts one more broker; its number.
    ///
    /// # Errors
    /// It does not answer.
    pub fn add(&mut self) -> Result<usize> {
        self.brokers.push(Broker { address: stable_address()?, host: None, binary: None, node: None });
        let at = self.brokers.len() - 1;
        self.start_all(&[at])?;
        Ok(at)
    }

    /// A place for one more broker, which does not run until it is started; its number.
    pub fn make_room_on(&mut self, host: &Host) -> usize {
        let (address, host) = (host.at(PORTS.0), Some(host.clone()));
        self.brokers.push(Broker { address, host, binary: None, node: None });
        self.brokers.len() - 1
    }

    /// From its next start on a broker is the version under test.
    pub fn upgrade(&mut self, at: usize) {
        self.brokers[at].binary = None;
    }

    /// Waits until every broker that runs was let in, as each of them sees it.
    fn await_admission(&self) -> Result<()> {
        let running = self.running();
        for &at in &running {
            until(&format!("broker {at} sees brokers {running:?}"), || {
                let request = MetadataRequest::default().with_topics(Some(Vec::new()));
                let answer = self.routes_to(at).ask_any(9, &request)?;
                let seen = answer.brokers.iter().filter_map(|broker| usize::try_from(broker.node_id.0).ok());
                let seen: Vec<usize> = seen.collect();
                // One that was killed may be there until its lease has ended.
                ensure!(running.iter().all(|at| seen.contains(at)), "it sees {seen:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Brokers that were started and neither killed nor stopped since.
    fn running(&self) -> Vec<usize> {
        (0..self.brokers.len()).filter(|&at| self.brokers[at].node.is_some()).collect()
    }

    fn routes_to(&self, at: usize) -> Routes {
        Routes::new(vec![self.brokers[at].address]).waiting_at_most(LOOK_LIMIT)
    }

    /// Where a broker keeps what it has.
    pub fn folder(&self, at: usize) -> PathBuf {
        self.folder.join(format!("broker-{at}"))
    }

    fn launch(&self, at: usize) -> Result<Node> {
        let folder = self.folder(at);
        fs::create_dir_all(&folder)?;
        let Broker { address, host, binary, .. } = &self.brokers[at];
        let members: Vec<String> = self.etcd.iter().map(|member| member.address().to_string()).collect();
        let mut own = vec![format!("node.id={at}"), format!("varve.metadata.url=etcd://{}/varve", members.join(","))];
        let mut command = binary.as_deref().map_or_else(varve, |binary| Ok(varve_at(binary)))?;
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(host) = host {
            own.push(format!("varve.http.listener={}", host.at(PORTS.1)));
            command = host.command(&command);
        }
        let mut listeners = format!("listeners=PLAINTEXT://{address}");
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
        Node::launch(&folder, command, &all)
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

    /// Waits until a broker has ended because it cannot go on.
    ///
    /// # Errors
    /// It goes on, or ends with success.
    pub fn await_failure(&mut self, at: usize) -> Result<()> {
        let status = self.brokers[at].node.take().context("the broker runs")?.ended()?;
        ensure!(!status.success(), "broker {at} ended with {status}");
        Ok(())
    }

    /// Makes a topic, and waits until every broker that runs knows it. Asks again while it is refused: a broker that is needed
    /// may have been silent for longer than its lease.
    ///
    /// # Errors
    /// It is refused for long.
    pub fn create(&self, topic: &str, partitions: i32, replicas: i16, configs: &[(&str, &str)]) -> Result<()> {
        let routes = self.routes();
        until(&format!("{topic} is made"), || {
            let made = routes.to_any()?.create_replicated(topic, partitions, replicas, configs);
            // By an attempt that nobody heard the answer to.
            let is_there = |error: &anyhow::Error| {
                Refusal::of(error).is_some_and(|refusal| refusal.name() == ResponseError::TopicAlreadyExists)
            };
            made.or_else(|error| if is_there(&error) { Ok(()) } else { Err(error) })
        })?;
        self.describe(topic).map(drop)
    }

    /// The partitions of a topic, once all brokers that run describe them alike: what one of them was told is what all say.
    ///
    /// # Errors
    /// They do not come to that: one does not answer, or there is no such topic.
    pub fn describe(&self, topic: &str) -> Result<Vec<Described>> {
        let running = self.running();
        until(&format!("brokers {running:?} describe {topic} alike"), || {
            let said: Vec<_> = running.iter().map(|&at| look(&self.routes_to(at), topic)).collect::<Result<_>>()?;
            let first = said.first().context("a broker runs")?;
            ensure!(said.iter().all(|other| other == first), "they say {said:?}");
            Ok(first.clone())
        })
    }

    /// The partitions of a topic as whichever broker answers describes them now: for a test that looks again and again. None if
    /// nobody answers, or there is no such topic.
    pub fn look(&self, topic: &str) -> Vec<Described> {
        look(&self.routes, topic).unwrap_or_default()
    }

    /// Who decides who leads, as whichever broker answers says; `None`: nobody does.
    ///
    /// # Errors
    /// None answers.
    pub fn controller(&self) -> Result<Option<usize>> {
        let answer = self.routes.ask_any(9, &MetadataRequest::default().with_topics(Some(Vec::new())))?;
        Ok(usize::try_from(answer.controller_id.0).ok())
    }

    /// Waits until every partition of the topic has a leader and `count` replicas in sync.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn await_isr(&self, topic: &str, count: usize) -> Result<()> {
        eventually(&format!("{count} replicas of each partition of {topic} are in sync"), || {
            let partitions = self.look(topic);
            let is_whole = |one: &Described| one.leader.is_some() && one.isr.len() == count;
            Ok((!partitions.is_empty() && partitions.iter().all(is_whole)).then_some(()))
        })
    }
}

/// One look at the partitions of a topic.
fn look(routes: &Routes, topic: &str) -> Result<Vec<Described>> {
    let name = TopicName(StrBytes::from_string(topic.to_owned()));
    let asked = MetadataRequestTopic::default().with_name(Some(name));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    let answer = routes.ask_any(9, &request)?;
    let topic = answer.topics.first().context("one topic")?;
    ensure!(topic.error_code == 0, "Metadata says {}", topic.error_code);
    let index = |id: i32| usize::try_from(id).ok();
    let mut partitions: Vec<_> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    let described = partitions.into_iter().map(|partition| Described {
        leader: index(partition.leader_id.0),
        replicas: partition.replica_nodes.iter().filter_map(|id| index(id.0)).collect(),
        isr: partition.isr_nodes.iter().filter_map(|id| index(id.0)).collect(),
    });
    Ok(described.collect())
}
