//! Settings of the broker that take effect while it runs (KIP-226), beside the defaults of topics, which are part of the image.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use varve_metadata::{config::ConfigErrors, image::ClusterImage};

use super::{Broker, listener_rules::with_first_sockets};
use crate::{
    config::{BrokerConfig, CleanerConfig, ListenerConfig, NetworkConfig},
    partition::Storage,
    quota::ListenerRates,
};

/// What a change of takes effect at once. Kafka lets more of them change; those are refused, so that nobody waits for an effect.
pub(crate) const LIVE: [&str; 27] = [
    "cordoned.log.dirs",
    "follower.replication.throttled.rate",
    "group.consumer.assignment.interval.ms",
    "group.share.assignment.interval.ms",
    "group.streams.assignment.interval.ms",
    "leader.replication.throttled.rate",
    "listener.security.protocol.map",
    "listeners",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.threads",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "producer.id.expiration.ms",
    "remote.fetch.max.wait.ms",
    "remote.list.offsets.request.timeout.ms",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.copy.max.bytes.per.second",
    "remote.log.manager.fetch.max.bytes.per.second",
    "remote.log.reader.threads",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "transaction.partition.verification.enable",
];

/// How many connections there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    pub(crate) connections: usize,
    pub(crate) by_listener: HashMap<String, usize>,
    pub(crate) per_ip: usize,
    pub(crate) per_ip_overrides: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    fn of(network: &NetworkConfig) -> ConnectionLimits {
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let overrides = network.max_connections_per_ip_overrides.iter();
        let by_listener = network.max_connections_per_listener.iter();
        ConnectionLimits {
            by_listener: by_listener.map(|(listener, limit)| (listener.clone(), size(*limit))).collect(),
            connections: network.max_connections.map_or(usize::MAX, size),
            per_ip: network.max_connections_per_ip.map_or(usize::MAX, size),
            per_ip_overrides: overrides.map(|(ip, limit)| (*ip, size(*limit))).collect(),
        }
    }
}

/// The settings of a node that was `started_with` those, as they are with the dynamic ones of `image`. Listeners are those of the
/// start where the dynamic ones do not go together with it: by themselves they are no reason to ignore everything else.
///
/// # Errors
/// What is wrong with them: they were checked before they were stored, but perhaps by another version, or beside another file.
pub(crate) fn effective(started_with: &BrokerConfig, image: &ClusterImage) -> Result<BrokerConfig, ConfigErrors> {
    let texts = image.configs().of_broker(started_with.node, &started_with.settings.texts());
    let mut config = match started_with.with_settings(&texts) {
        Ok(config) => config,
        Err(errors) => match with_first_sockets(started_with, &texts) {
            Ok(config) => {
                warn!(%errors, "listeners by dynamic settings do not fit those of the start: listeners are as those say");
                config
            }
            Err(_) => return Err(errors),
        },
    };
    let [now, wanted] = [&started_with.listeners, &config.listeners].map(ListenerConfig::between_brokers);
    if now != wanted {
        warn!(%now, %wanted, "the listener of brokers is another one by dynamic settings than by those of the start: listeners are as those say");
        config.listeners = started_with.listeners.clone();
    }
    Ok(config)
}

/// How fast there may be more.
pub(super) fn connection_rates(config: &BrokerConfig) -> ListenerRates {
    let (network, listeners) = (&config.network, &config.listeners);
    let own = network.max_connection_rate_per_listener.iter();
    ListenerRates {
        total: network.max_connection_rate.map(|rate| rate as f64),
        own: own.map(|(listener, rate)| (listener.clone(), *rate as f64)).collect(),
        protected: listeners
            .listeners
            .get(listeners.inter_broker)
            .filter(|_| listeners.listeners.len() > 1)
            .map(|listener| listener.name.clone()),
    }
}

/// The broker's settings as they are now.
#[derive(Debug)]
pub struct Live {
    started_with: Arc<BrokerConfig>,
    config: ArcSwap<BrokerConfig>,
    cleaner: Arc<ArcSwap<CleanerConfig>>,
    /// Absent while they are those of the start.
    connections: ArcSwapOption<ConnectionLimits>,
    /// Held while they change, so that an older image never comes after a newer one.
    turn: Mutex<()>,
    /// Hears of each change.
    applied: watch::Sender<()>,
}

impl Live {
    /// The settings of the start.
    pub fn new(config: Arc<BrokerConfig>) -> Live {
        Live {
            config: ArcSwap::new(Arc::clone(&config)),
            cleaner: Arc::new(ArcSwap::from_pointee(config.cleaner.clone())),
            connections: ArcSwapOption::empty(),
            turn: Mutex::default(),
            applied: watch::Sender::new(()),
            started_with: config,
        }
    }

    /// All settings as they would be read now. Only those of `LIVE` are meant to be looked up here.
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.config.load_full()
    }

    /// The cleaner's settings, which follow.
    pub fn cleaner(&self) -> Arc<ArcSwap<CleanerConfig>> {
        Arc::clone(&self.cleaner)
    }

    pub(super) fn connection_limits(&self) -> Option<Arc<ConnectionLimits>> {
        self.connections.load_full()
    }

    /// Shows that settings were taken up, after they were.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.applied.subscribe()
    }

    /// From now on the dynamic settings of the newest image hold. Whoever changed them calls this before it answers.
    pub(crate) fn apply(&self, broker: &Broker) {
        let _turn = self.turn.lock();
        let config = match effective(&self.started_with, &broker.metadata.image()) {
            Ok(config) => config,
            Err(errors) => {
                // Checked before they were stored: by an older version, with another opinion.
                warn!(%errors, "dynamic broker settings ignored");
                return;
            }
        };
        broker.throttles.set_rates(&config.replication);
        let limits = ConnectionLimits::of(&config.network);
        let is_first = limits == ConnectionLimits::of(&self.started_with.network);
        self.connections.store((!is_first).then(|| Arc::new(limits)));
        broker.partitions.cordon(&config.logs.cordoned);
        broker.partitions.moves().set_bytes_per_second(config.move_bytes_per_second);
        broker.quotas.connections.set_listeners(connection_rates(&config));
        if let Some(archive) = &broker.archive {
            archive.set_limits(&config);
        }
        let enabled = self.started_with.cleaner.enabled;
        self.cleaner.store(Arc::new(CleanerConfig { enabled, ..config.cleaner.clone() }));
        self.config.store(Arc::new(config));
        self.applied.send_replace(());
    }
}

/// Keeps to the dynamic settings that the image shows, until `stop` is cancelled.
pub(crate) async fn follow(broker: Arc<Broker>, storage: Arc<Storage>, stop: CancellationToken) {
    let mut images = broker.metadata.subscribe();
    let mut shown = None;
    loop {
        let image = images.borrow_and_update().clone();
        let given = image.configs().of_broker(broker.node, &Default::default());
        if shown.as_ref() != Some(&given) {
            broker.live.apply(&broker);
            storage.set_recovery_threads(broker.live.config().logs.recovery_threads).await;
            let config = broker.live.config();
            storage.set_fetchers(config.replication.fetchers);
            storage.set_producer_rules(config.producer_expiry, config.transactions.verify_partitions).await;
            if shown.is_some() {
                info!("dynamic settings taken");
            }
            shown = Some(given);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}
