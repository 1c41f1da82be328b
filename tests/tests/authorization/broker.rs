//! A broker with an authorizer, Kafka's or ours, an administrator, and a caller whose rights change.
//!
//! Nobody logs in: everybody is `User:ANONYMOUS`. The administrator's address may do everything; the caller comes from
//! another one, which may do what a test grants to it. Rules for somebody else on every resource see to
//! it that `allow.everyone.if.no.acl.found`, which let the administrator make its first rules, lets nobody in any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiVersionsRequest, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest,
        create_acls_request::AclCreation, delete_acls_request::DeleteAclsFilter,
    },
    protocol::{Request, StrBytes},
};
use serde_json::Value;
use varve_metadata::model::acl::{CLUSTER_NAME, Operation, PatternType, Permission, ResourceType};
use varve_tests::{
    differential::{decode, frame},
    node::eventually,
};

/// Settings that both brokers need for this.
pub(crate) const SETTINGS: [&str; 10] = [
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found=true",
    "offsets.topic.num.partitions=1",
    "offsets.topic.replication.factor=1",
    "group.initial.rebalance.delay.ms=0",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "share.coordinator.state.topic.num.partitions=1",
];

/// Where one of them comes from; the other from 127.0.0.1.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const ANYBODY: &str = "User:ANONYMOUS";
/// Kafka's number for "any" in filters.
const ANY: i8 = 1;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    Topic(&'static str),
    Group(&'static str),
    Cluster,
    TransactionalId(&'static str),
}

impl Resource {
    pub(crate) fn resource_type(self) -> ResourceType {
        match self {
            Resource::Topic(_) => ResourceType::Topic,
            Resource::Group(_) => ResourceType::Group,
            Resource::Cluster => ResourceType::Cluster,
            Resource::TransactionalId(_) => ResourceType::TransactionalId,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Resource::Cluster => CLUSTER_NAME,
            Resource::Topic(name) | Resource::Group(name) | Resource::TransactionalId(name) => name,
        }
    }

    /// Kafka's code where access is denied.
    pub(crate) fn refusal(self) -> i64 {
        match self {
            Resource::Topic(_) => 29,
            Resource::Group(_) => 30,
            Resource::Cluster => 31,
            Resource::TransactionalId(_) => 53,
        }
    }
}

/// A right to do something with something.
pub(crate) type Right = (Operation, Resource);

/// A request, and how its answer is read.
pub(crate) struct Prepared {
    pub(crate) key: i16,
    version: i16,
    frame: Vec<u8>,
    decode: fn(i16, i16, Bytes) -> Result<Value>,
}

/// Makes ready to ask `request` in `version`.
pub(crate) fn ask<Q: Request>(version: i16, request: Q) -> Result<Prepared>
where
    Q::Response: std::fmt::Debug,
{
    Ok(Prepared { key: Q::KEY, version, frame: frame(version, &request)?, decode: decode::<Q::Response> })
}

pub(crate) struct Broker {
    address: SocketAddr,
    pub(crate) is_kafka: bool,
    caller_host: Ipv4Addr,
    administrator: TcpStream,
    caller: TcpStream,
    /// The newest version of every request that the broker advertises.
    pub(crate) served: BTreeMap<i16, i16>,
    granted: Vec<Right>,
    /// What was found on the way, by name: ids of topics.
    pub(crate) found: BTreeMap<String, String>,
}

impl Broker {
    /// Connects to a broker without any rule yet, and gives it those that the module describes. Kafka's own connections
    /// come from 127.0.0.1, and so does the administrator.
    pub(crate) fn prepare(address: SocketAddr, is_kafka: bool) -> Result<Broker> {
        Broker::new(address, is_kafka, Ipv4Addr::LOCALHOST, ELSEWHERE)
    }

    /// The same with an administrator from elsewhere, so that programs that connect as they like are callers.
    pub(crate) fn prepare_for_tools(address: SocketAddr) -> Result<Broker> {
        Broker::new(address, false, ELSEWHERE, Ipv4Addr::LOCALHOST)
    }

    fn new(address: SocketAddr, is_kafka: bool, administrator: Ipv4Addr, caller: Ipv4Addr) -> Result<Broker> {
        let mut broker = Broker {
            address,
            is_kafka,
            caller_host: caller,
            administrator: connect(address, administrator)?,
            caller: connect(address, caller)?,
            served: BTreeMap::new(),
            granted: Vec::new(),
            found: BTreeMap::new(),
        };
        let types = ResourceType::ALL.map(|kind| match kind {
            ResourceType::Cluster => (kind, CLUSTER_NAME),
            _ => (kind, "*"),
        });
        let everything = |(kind, name): &(ResourceType, &str)| creation(*kind, name, administrator, Operation::All);
        let mut creations: Vec<AclCreation> = types.iter().map(everything).collect();
        creations.extend(types.iter().map(|(kind, name)| {
            let nobody = StrBytes::from_static_str("User:nobody");
            creation(*kind, name, administrator, Operation::All).with_principal(nobody)
        }));
        broker.create(creations)?;
        let versions = broker.administer(&ask(0, ApiVersionsRequest::default())?)?;
        for api in versions["api_keys"].as_array().into_iter().flatten() {
            let number = |name: &str| api[name].as_i64().map(|number| number as i16);
            broker.served.insert(number("api_key").context("a key")?, number("max_version").context("a version")?);
        }
        Ok(broker)
    }

    /// Asks as the administrator.
    pub(crate) fn administer(&mut self, prepared: &Prepared) -> Result<Value> {
        exchange(&mut self.administrator, prepared)
    }

    /// Asks as the caller; a connection that was closed over it is opened anew.
    pub(crate) fn call(&mut self, prepared: &Prepared) -> Result<Value> {
        let answer = exchange(&mut self.caller, prepared);
        if answer.is_err() {
            self.caller = connect(self.address, self.caller_host)?;
        }
        answer
    }

    /// Gives the caller these rights and no others.
    pub(crate) fn grant(&mut self, rights: &[Right]) -> Result<()> {
        let gone: Vec<Right> = self.granted.iter().copied().filter(|right| !rights.contains(right)).collect();
        let new: Vec<Right> = rights.iter().copied().filter(|right| !self.granted.contains(right)).collect();
        if !gone.is_empty() {
            let filters = gone.iter().map(|(operation, resource)| {
                DeleteAclsFilter::default()
                    .with_resource_type_filter(resource.resource_type().to_wire())
                    .with_resource_name_filter(Some(text(resource.name())))
                    .with_pattern_type_filter(PatternType::Literal.to_wire())
                    .with_principal_filter(None)
                    .with_host_filter(Some(text(&self.caller_host.to_string())))
                    .with_operation(operation.to_wire())
                    .with_permission_type(ANY)
            });
            let request = DeleteAclsRequest::default().with_filters(filters.collect());
            let answer = self.administer(&ask(3, request)?)?;
            let failed = |result: &Value| result["error_code"] != 0;
            ensure!(!answer["filter_results"].as_array().into_iter().flatten().any(failed), "{answer}");
        }
        let rules = new.iter().map(|(operation, resource)| {
            creation(resource.resource_type(), resource.name(), self.caller_host, *operation)
        });
        self.create(rules.collect())?;
        self.granted = rights.to_vec();
        self.wait_for_rules()
    }

    fn create(&mut self, creations: Vec<AclCreation>) -> Result<()> {
        if creations.is_empty() {
            return Ok(());
        }
        let answer = self.administer(&ask(3, CreateAclsRequest::default().with_creations(creations))?)?;
        let failed = |result: &Value| result["error_code"] != 0;
        ensure!(!answer["results"].as_array().into_iter().flatten().any(failed), "{answer}");
        Ok(())
    }

    /// A broker of Kafka's learns of new rules a moment after its controller made them. Ours must not need a moment.
    fn wait_for_rules(&mut self) -> Result<()> {
        let filter = DescribeAclsRequest::default()
            .with_resource_type_filter(ANY)
            .with_resource_name_filter(None)
            .with_pattern_type_filter(ANY)
            .with_principal_filter(None)
            .with_host_filter(Some(text(&self.caller_host.to_string())))
            .with_operation(ANY)
            .with_permission_type(ANY);
        let is_kafka = self.is_kafka;
        let prepared = ask(3, filter)?;
        // Which rules, and not only how many: one may stand in for another.
        let named = |(operation, resource): &Right| {
            (i64::from(resource.resource_type().to_wire()), resource.name().to_owned(), i64::from(operation.to_wire()))
        };
        let wanted: BTreeSet<(i64, String, i64)> = self.granted.iter().map(named).collect();
        let mut look = || -> Result<Option<()>> {
            let answer = self.administer(&prepared)?;
            let resources = answer["resources"].as_array().into_iter().flatten();
            let rules = resources.flat_map(|resource| {
                let (kind, name) = (&resource["resource_type"], &resource["resource_name"]);
                let acls = resource["acls"].as_array().into_iter().flatten();
                acls.map(move |acl| Some((kind.as_i64()?, name.as_str()?.to_owned(), acl["operation"].as_i64()?)))
            });
            Ok((rules.collect::<Option<BTreeSet<_>>>().as_ref() == Some(&wanted)).then_some(()))
        };
        if is_kafka {
            return eventually("the rules are known", look);
        }
        look()?.ok_or_else(|| anyhow!("the rules are not known at once"))
    }
}

fn creation(kind: ResourceType, name: &str, host: Ipv4Addr, operation: Operation) -> AclCreation {
    AclCreation::default()
        .with_resource_type(kind.to_wire())
        .with_resource_name(text(name))
        .with_resource_pattern_type(PatternType::Literal.to_wire())
        .with_principal(text(ANYBODY))
        .with_host(text(&host.to_string()))
        .with_operation(operation.to_wire())
        .with_permission_type(Permission::Allow.to_wire())
}

fn connect(to: SocketAddr, from: Ipv4Addr) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, prepared: &Prepared) -> Result<Value> {
    stream.write_all(&prepared.frame)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).with_context(|| format!("waiting for the answer to {:?}", prepared.key))?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    (prepared.decode)(prepared.key, prepared.version, answer.into())
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
