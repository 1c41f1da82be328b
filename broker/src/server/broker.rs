//! What every handler works on.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use varve_metadata::{cluster::ClusterMetadata, model::BrokerId};

use super::{
    GroupCoordinator, Live, NodeQuotas, Telemetry, TransactionCoordinator, authorizer::Authorizer,
    fetch_session::FetchSessions, log_levels::LogLevels, producer_ids::ProducerIds,
    transaction_coordinator::Surroundings,
};
use crate::{
    archive::Archive,
    config::BrokerConfig,
    links::{LinkOptions, Links},
    partition::Partitions,
    security::ListenerSecurity,
};

/// The node: everything that a request may touch.
pub struct Broker {
    /// This node's `node.id`.
    pub node: BrokerId,
    /// What it was told at its start. Dynamic settings are in the metadata's image.
    pub config: Arc<BrokerConfig>,
    /// Topics, partitions, brokers and settings of the cluster, and the way to change them.
    pub metadata: Arc<ClusterMetadata>,
    /// The partitions that this node leads.
    pub partitions: Arc<Partitions>,
    /// What this node keeps in the object store; absent if it keeps nothing there.
    pub archive: Option<Arc<Archive>>,
    /// The protection of the listeners in `config`, in order.
    pub(crate) listeners: Vec<Arc<ListenerSecurity>>,
    /// Consumer groups and their offsets.
    pub groups: Arc<GroupCoordinator>,
    /// How much clients may do.
    pub quotas: Arc<NodeQuotas>,
    /// Transactions.
    pub transactions: Arc<TransactionCoordinator>,
    /// Metrics that clients push.
    pub telemetry: Arc<Telemetry>,
    /// Settings that changed since the start.
    pub live: Live,
    /// Levels of the node's own log.
    pub log_levels: LogLevels,
    pub(crate) producer_ids: Arc<ProducerIds>,
    /// Connections to other brokers.
    pub(crate) links: Arc<Links>,
    /// Cancelled when the node stops; long polls end then.
    pub shutdown: CancellationToken,
    /// Most bytes of one fetch response (`fetch.max.bytes`).
    pub(crate) fetch_max_bytes: u32,
    pub(crate) fetch_sessions: FetchSessions,
    /// `None`: everybody may do everything. Ask [`access`](Broker::access).
    pub(super) authorizer: Option<Authorizer>,
}

impl Broker {
    /// A node that leads `partitions`. `log_levels` are those of the process.
    pub fn new(
        config: Arc<BrokerConfig>,
        metadata: Arc<ClusterMetadata>,
        partitions: Arc<Partitions>,
        log_levels: LogLevels,
    ) -> Broker {
        let groups = GroupCoordinator::new(config.groups.clone(), config.node, metadata.clone(), partitions.clone());
        let producer_ids = Arc::new(ProducerIds::default());
        let options = LinkOptions {
            listener: config.listeners.listeners[config.listeners.inter_broker].name.clone(),
            node: config.node,
            setup_limit: config.replication.setup_limit,
            answer_limit: config.replication.answer_limit,
        };
        let links = Arc::new(Links::new(metadata.clone(), options));
        let around = Surroundings {
            node: config.node,
            links: links.clone(),
            partitions: partitions.clone(),
            metadata: metadata.clone(),
            producer_ids: producer_ids.clone(),
            groups: groups.clone(),
        };
        Broker {
            node: config.node,
            metadata,
            groups,
            transactions: TransactionCoordinator::new(config.transactions.clone(), around),
            partitions,
            archive: None,
            listeners: Vec::new(),
            quotas: Arc::new(NodeQuotas::new(&config.quotas)),
            telemetry: Arc::new(Telemetry::new(config.telemetry_max_bytes as usize)),
            live: Live::new(Arc::clone(&config)),
            log_levels,
            producer_ids,
            links,
            shutdown: CancellationToken::new(),
            fetch_max_bytes: config.network.fetch_max_bytes,
            fetch_sessions: FetchSessions::new(config.network.fetch_sessions as usize),
            authorizer: config.authorizer.as_ref().map(Authorizer::new),
            config,
        }
    }

    /// The same node with an archive.
    pub fn with_archive(self, archive: Option<Arc<Archive>>) -> Broker {
        Broker { archive, ..self }
    }

    /// The same node with its listeners' protection.
    pub fn with_listeners(self, listeners: Vec<Arc<ListenerSecurity>>) -> Broker {
        if let Some(security) = listeners.get(self.config.listeners.inter_broker) {
            self.links.protect(security.clone());
        }
        Broker { listeners, ..self }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("node", &self.node).finish_non_exhaustive()
    }
}
