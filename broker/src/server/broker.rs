//! What every handler works on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus::IntCounter;

use tokio_util::sync::CancellationToken;
use varve_metadata::{cluster::ClusterMetadata, model::BrokerId};

use super::{
    GroupCoordinator, Live, NodeQuotas, ShareStates, Shares, Telemetry, TransactionCoordinator, answers::AnswerMetrics,
    authorizer::Authorizer, auto_create::FirstUses, fetch_session::FetchSessions, live::connection_rates,
    log_levels::LogLevels, open_listeners::OpenListeners, producer_ids::ProducerIds, streams_topics::StreamsTopics,
    transaction_coordinator::Surroundings,
};
use crate::{
    archive::Archive,
    config::{BrokerConfig, Listener},
    links::{LinkOptions, Links},
    metrics::{Metrics, Registry, keep},
    partition::Partitions,
    replicas::Throttles,
    security::ListenerSecurity,
};

/// Fetch sessions of followers: more than any cluster has brokers and fetchers.
const FOLLOWER_SESSIONS: usize = 10_000;

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
    /// Where clients connect.
    pub(crate) listeners: OpenListeners,
    /// Consumer groups and their offsets.
    pub groups: Arc<GroupCoordinator>,
    /// How much clients may do.
    pub quotas: Arc<NodeQuotas>,
    /// Transactions.
    pub transactions: Arc<TransactionCoordinator>,
    /// Share partitions that are read here.
    pub shares: Arc<Shares>,
    /// The state of share partitions.
    pub share_states: Arc<ShareStates>,
    /// Metrics that clients push.
    pub telemetry: Arc<Telemetry>,
    /// Settings that changed since the start.
    pub live: Live,
    /// Levels of the node's own log.
    pub log_levels: LogLevels,
    pub(crate) producer_ids: Arc<ProducerIds>,
    /// What copying between brokers may take.
    pub(crate) throttles: Arc<Throttles>,
    /// Connections to other brokers.
    pub(crate) links: Arc<Links>,
    /// Cancelled when the node stops; long polls end then.
    pub shutdown: CancellationToken,
    /// Most bytes of one fetch response (`fetch.max.bytes`).
    pub(crate) fetch_max_bytes: u32,
    pub(crate) fetch_sessions: FetchSessions,
    /// Those of followers, which compete with no consumer's.
    follower_sessions: FetchSessions,
    /// Partitions that consumers were given records of which another broker leads.
    follower_reads: AtomicU64,
    /// Errors that producers and readers were told.
    pub(super) answers: AnswerMetrics,
    /// Internal topics of Kafka Streams applications that are being made.
    pub(crate) streams_topics: StreamsTopics,
    /// Topics that are being made because clients named them.
    pub(super) first_uses: FirstUses,
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
        let share_states = ShareStates::new(
            config.groups.share.state,
            config.node,
            metadata.clone(),
            partitions.clone(),
            links.clone(),
        );
        Broker {
            node: config.node,
            metadata,
            shares: Shares::new(config.groups.share.clone()),
            share_states,
            groups,
            transactions: TransactionCoordinator::new(config.transactions.clone(), around),
            partitions,
            archive: None,
            listeners: OpenListeners::default(),
            quotas: Arc::new(NodeQuotas::new(&config.quotas, connection_rates(&config))),
            telemetry: Arc::new(Telemetry::new(config.telemetry_max_bytes as usize)),
            live: Live::new(Arc::clone(&config)),
            log_levels,
            producer_ids,
            throttles: Arc::new(Throttles::new(&config.replication)),
            links,
            shutdown: CancellationToken::new(),
            fetch_max_bytes: config.network.fetch_max_bytes,
            fetch_sessions: FetchSessions::new(config.network.fetch_sessions as usize),
            follower_sessions: FetchSessions::new(FOLLOWER_SESSIONS),
            follower_reads: AtomicU64::new(0),
            answers: AnswerMetrics::default(),
            streams_topics: StreamsTopics::default(),
            first_uses: FirstUses::default(),
            authorizer: config.authorizer.as_ref().map(Authorizer::new),
            config,
        }
    }

    /// Where the session of a fetch is, if that is of another broker.
    pub(super) fn sessions(&self, is_of_broker: bool) -> &FetchSessions {
        if is_of_broker { &self.follower_sessions } else { &self.fetch_sessions }
    }

    pub(super) fn note_follower_reads(&self, partitions: u64) {
        self.follower_reads.fetch_add(partitions, Ordering::Relaxed);
    }

    /// Counts reads from followers, and errors that were told, in `metrics`.
    pub(super) fn register_reads(self: &Arc<Self>, metrics: &Metrics) {
        let counter = follower_reads(metrics.registry());
        self.throttles.register(metrics);
        self.answers.register(metrics.registry());
        metrics.before_scrape_of(self, move |broker| {
            counter.inc_by(broker.follower_reads.load(Ordering::Relaxed).saturating_sub(counter.get()));
        });
    }

    /// The same node with an archive.
    pub fn with_archive(self, archive: Option<Arc<Archive>>) -> Broker {
        Broker { archive, ..self }
    }

    /// The same node with its listeners and their protection.
    pub fn with_listeners(self, listeners: Vec<(Listener, Arc<ListenerSecurity>)>) -> Broker {
        let between = &self.config.listeners.listeners[self.config.listeners.inter_broker].name;
        if let Some((_, security)) = listeners.iter().find(|(listener, _)| listener.name == *between) {
            self.links.protect(security.clone());
        }
        Broker { listeners: OpenListeners::protected(listeners), ..self }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Declares the count of reads from followers in `registry`.
pub(super) fn follower_reads(registry: &Registry) -> IntCounter {
    let help = "Partitions that consumers were given records of by a follower (KIP-392)";
    keep(registry, IntCounter::new("varve_follower_reads_total", help))
}
