//! The node: everything started in order, and stopped in the opposite one.

mod catching_up;
mod compactor;
mod data_dir;
mod directories;
mod last_life;
mod last_store;
mod membership;
mod neighbours;
mod new_cluster;
mod start_error;
mod store;

use std::{collections::BTreeMap, future::Future, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use uuid::Uuid;
use varve_log::local::LogDirOwner;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::{BrokerImage, ClusterImage, Endpoint},
    model::{BrokerId, Feature},
};

use crate::{
    archive::Archive,
    config::{BrokerConfig, MetadataUrl, reachable_here},
    http::{Health, HttpServer},
    metrics::{Metrics, register_build_info, show_clock},
    partition::{
        Keeper, NoKeeper, NoPeers, Partitions, Peers, Storage, StorageSettings, Upkeep, UpkeepMetrics, UpkeepSettings,
        flush_when_due,
    },
    replicas::{IsrMetrics, Replicas},
    security::follow_settings,
    server::{Broker, Limits, LogLevels, Server, live, make_first_users, open_listeners, sweep_tokens},
};

pub use compactor::CompactorNode;
use data_dir::DataDir;
use membership::{LastWord, Membership, Place};
pub use start_error::StartError;
pub(crate) use store::open_store;

/// How often logs are looked at for `flush.ms` if `log.flush.scheduler.interval.ms` does not say. Kafka's default is never,
/// which makes a topic's `flush.ms` a promise that nobody keeps.
const FLUSH_TICK: Duration = Duration::from_secs(1);

/// A running node.
#[derive(Debug)]
pub struct Node {
    broker: Arc<Broker>,
    server: Server,
    storage: Arc<Storage>,
    archive: Option<Arc<Archive>>,
    /// Absent where one node agrees with itself.
    place: Place,
    is_replaced: Option<watch::Receiver<bool>>,
    node: BrokerId,
    addresses: Vec<String>,
    health: Health,
    tasks: TaskTracker,
    /// Ends the background work; the broker's own token ends the requests first.
    stop: CancellationToken,
    shutdown_timeout: Duration,
    /// Others may have it when all else is closed.
    _data_dir: DataDir,
}

impl Node {
    /// Starts a node and returns when clients are served.
    ///
    /// # Errors
    /// [`StartError`]: what stands in the way; nothing is left running.
    pub async fn start(config: Arc<BrokerConfig>, log_levels: LogLevels) -> Result<Node, StartError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (metrics, health) = (Metrics::new(), Health::starting());
        register_build_info(metrics.registry());
        show_clock(&metrics);
        serve_http(&config, &metrics, &health, &tasks, &stop).await?;

        let data_dir = DataDir::take(&config.data_dir)?;
        let indispensable = directories::indispensable(&config.logs.dirs, &config.data_dir);
        let is_one_of_many = matches!(config.metadata, MetadataUrl::Etcd { .. });
        let last_life = match is_one_of_many {
            true => Some(membership::look_at_last_life(&config)?),
            false => None,
        };
        let life = Uuid::new_v4();

        let metadata = store::follow_cluster(&config, &metrics, &health).await?;

        make_first_users(&metadata, &config.first_users).await?;

        health.waiting_for("recovery of logs");
        let partitions = Arc::new(Partitions::default());
        partitions.moves().set_threads(config.move_threads);
        let archive = match config.archive.enabled {
            true => Some(Archive::open(&config, metadata.image().cluster_id(), metrics.registry()).await?),
            false => None,
        };
        let image = metadata.image();
        let now = effective(&config, &image);
        let listeners = open_listeners::protect_all(&config, &now, &image)?;
        let broker = Broker::new(config.clone(), metadata.clone(), partitions.clone(), log_levels);
        let broker = Arc::new(broker.with_archive(archive.clone()).with_listeners(listeners));
        let owner = LogDirOwner { cluster_id: metadata.image().cluster_id().to_owned(), node: config.node };
        let settings = StorageSettings {
            dirs: config.logs.dirs.clone(),
            recovery_threads: now.logs.recovery_threads,
            producer_expiry: config.producer_expiry,
            max_transaction_timeout: config.transactions.max_timeout,
            verify_transactions: config.transactions.verify_partitions,
        };
        let keeper: Arc<dyn Keeper> = match &archive {
            Some(archive) => archive.clone(),
            None => Arc::new(NoKeeper),
        };
        let peers: Arc<dyn Peers> = match is_one_of_many {
            true => {
                let (us, links) = ((config.node, life), broker.links.clone());
                let replication = now.replication.clone();
                let reach = (links, broker.throttles.clone(), IsrMetrics::new(metrics.registry()));
                let replicas = Replicas::new(us, metadata.clone(), replication, reach, tasks.clone(), stop.clone());
                tasks.spawn(replicas.clone().tick(partitions.clone()));
                replicas
            }
            false => Arc::new(NoPeers),
        };
        let storage = Storage::open_among(peers, &owner, partitions, settings, keeper)?;
        if let Some(last_life) = &last_life {
            membership::note_life(&config, last_life)?;
        }
        let found = match is_one_of_many {
            true => {
                let seen = last_store::look(&config.data_dir);
                let recovered = async { Ok(metadata.recover_if_restored(seen.as_ref()).await?) };
                unless_put_back(&metadata, recovered).await?;
                tasks.spawn(last_store::keep(config.data_dir.clone(), metadata.clone(), stop.clone()));
                unless_put_back(&metadata, membership::look_at_logs((config.node, life), &storage, &metadata)).await?
            }
            false => Arc::default(),
        };
        // New logs keep out of cordoned directories from the first one on.
        broker.live.apply(&broker);
        storage.apply(&metadata.image()).await;
        metrics.watch_cluster(&broker);
        metrics.watch_storage(broker.partitions.clone(), config.logs.dirs.clone());
        tasks.spawn(storage.clone().follow(metadata.clone(), stop.clone()));
        tasks.spawn(storage.clone().settle(stop.clone()));
        let upkeep_metrics = UpkeepMetrics::new(metrics.registry());
        let cleaning = broker.live.cleaner();
        tasks.spawn(storage.clone().clean_logs(cleaning, upkeep_metrics.clone(), stop.clone()));
        let (logs, settings) = (broker.partitions.clone(), UpkeepSettings::of(&config));
        Upkeep::new(logs, metadata.clone(), settings, upkeep_metrics).start(&tasks, &stop);
        let flush_tick = config.logs.flush_check_interval.unwrap_or(FLUSH_TICK);
        tasks.spawn(flush_when_due(broker.partitions.clone(), flush_tick, stop.clone()));
        tasks.spawn(storage.clone().checkpoint_every(config.logs.recovery_checkpoint_interval, stop.clone()));

        if let Some(archive) = archive.as_ref().filter(|_| config.roles.compactor) {
            archive.compact_in_background(&metadata, &tasks, &stop);
        }
        if let Some(archive) = &archive {
            archive.started(&metadata, &tasks, &stop);
        }

        broker.telemetry.register(&metrics);
        tasks.spawn(broker.telemetry.clone().follow(metadata.clone(), stop.clone()));
        tasks.spawn(live::follow(broker.clone(), storage.clone(), stop.clone()));
        broker.quotas.register(&metrics);
        broker.quotas.apply(&metadata).await;
        tasks.spawn(broker.quotas.clone().follow(metadata.clone(), stop.clone()));

        broker.groups.register(&metrics);
        tasks.spawn(broker.groups.clone().follow(broker.clone()));
        tasks.spawn(broker.groups.clone().follow_lag(broker.clone()));
        broker.transactions.register(&metrics);
        tasks.spawn(broker.transactions.clone().follow(broker.clone()));
        tasks.spawn(broker.share_states.clone().follow(broker.clone()));
        tasks.spawn(broker.shares.clone().follow(broker.clone()));

        tasks.spawn(sweep_tokens(metadata.clone(), config.delegation_tokens.check_interval, stop.clone()));
        let server = Server::measured(broker.clone(), limits(&config), &metrics);
        let bound = open_listeners::bind_all(&broker).await?;
        let registration = registration(&config, life, open_listeners::endpoints_of(&bound, &broker));
        let membership = match last_life {
            Some(last_life) => {
                health.waiting_for("a place among the brokers");
                let looked_at = (&*storage, found.clone());
                let joining = Membership::join(metadata.clone(), &config, registration, last_life, looked_at);
                Some(unless_put_back(&metadata, joining).await?)
            }
            None => {
                metadata.register(registration).await?;
                None
            }
        };
        broker.listeners.registered(life);
        broker.listeners.open(bound);
        let addresses = broker.listeners.addresses();
        let addresses = addresses.into_iter().map(|address| reachable_here(address).to_string()).collect();
        let following = broker.clone();
        let listeners = move || following.listeners.known();
        tasks.spawn(follow_settings(listeners, config.clone(), metadata.clone(), stop.clone()));
        tasks.spawn(open_listeners::follow(broker.clone(), stop.clone()));
        if let Some(membership) = &membership {
            unless_put_back(&metadata, membership.admitted(&storage)).await?;
            let watcher = neighbours::Watcher {
                metadata: metadata.clone(),
                us: config.node,
                listener: config.listeners.listeners[config.listeners.inter_broker].name.clone(),
                setup_limit: config.replication.setup_limit,
            };
            tasks.spawn(neighbours::watch_neighbours(watcher, stop.clone()));
            if let Some(interval) = config.replication.rebalance_interval {
                tasks.spawn(membership::rebalance_every(interval, metadata.clone(), config.node, stop.clone()));
            }
        }
        let is_replaced = membership.as_ref().map(Membership::is_replaced);
        let last_life = membership.as_ref().map(Membership::last_life);
        let place: Place = Arc::new(tokio::sync::Mutex::new(membership));
        let directories = directories::Directories {
            storage: storage.clone(),
            metadata: metadata.clone(),
            health: health.clone(),
            us: (config.node, life),
            indispensable,
            among_others: last_life.map(|last_life| (place.clone(), last_life)),
            found,
        };
        tasks.spawn(directories.watch(stop.clone()));
        tasks.spawn(membership::step_aside_while_full(place.clone(), storage.clone(), stop.clone()));
        tasks.spawn(catching_up::watch(metadata.clone(), config.node, health.clone(), stop.clone()));
        health.ready();
        Ok(Node {
            broker,
            server,
            storage,
            archive,
            place,
            is_replaced,
            node: config.node,
            addresses,
            health,
            tasks,
            stop,
            shutdown_timeout: config.shutdown_timeout,
            _data_dir: data_dir,
        })
    }

    /// Where clients on this machine connect: the address of the first listener.
    pub fn address(&self) -> &str {
        self.addresses.first().map_or("?", String::as_str)
    }

    /// Returns when this node cannot go on, and says why: it is to be stopped then. Cancel-safe.
    pub async fn failed(&self) -> StartError {
        let replaced = async {
            if let Some(mut is_replaced) = self.is_replaced.clone()
                && is_replaced.wait_for(|is_so| *is_so).await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = replaced => {
                self.health.broken("another process has registered as this node");
                StartError::Replaced { node: self.node }
            }
            unserved = self.broker.metadata.outdated() => {
                self.health.broken("the cluster has agreed on a feature that this version does not serve");
                unserved.into()
            }
            how = self.broker.metadata.put_back() => {
                self.health.broken("the metadata store was put back to an older state, or is another one");
                how.into()
            }
        }
    }

    /// Stops: no new requests, those under way are answered, logs are closed and marked as clean. All waits together end with
    /// `varve.shutdown.timeout.ms`; each may use its third, and what those before it left.
    pub async fn stop(self) {
        info!("stopping");
        self.health.waiting_for("the stop");
        let (begun, third) = (Instant::now(), self.shutdown_timeout / 3);
        let membership = self.place.lock().await.take();
        // Whoever was replaced has nothing to hand over: what others know under this id is not ours. Nor is what a store knows that
        // was put back.
        let is_replaced = self.is_replaced.as_ref().is_some_and(|is_replaced| *is_replaced.borrow());
        let is_nobody = is_replaced || self.broker.metadata.is_put_back();
        if let Some(membership) = membership.as_ref().filter(|_| !is_nobody) {
            membership.hand_over(third).await;
        }
        if let Some(membership) = &membership {
            membership.ends();
        }
        self.broker.shutdown.cancel();
        if timeout_at(begun + 2 * third, self.server.stopped()).await.is_err() {
            warn!(seconds = begun.elapsed().as_secs(), "connections did not end in time");
        }
        self.stop.cancel();
        if let Some(archive) = &self.archive {
            archive.close().await;
        }
        self.tasks.close();
        if timeout_at(begun + self.shutdown_timeout, self.tasks.wait()).await.is_err() {
            warn!(seconds = begun.elapsed().as_secs(), "background work did not end in time");
        }
        let storage = self.storage;
        let closed = tokio::task::spawn_blocking(move || storage.close()).await;
        if let Err(error) = &closed {
            warn!(%error, "logs were not closed");
        }
        if let Some(membership) = membership {
            let is_whole = closed.unwrap_or(false);
            membership.leave(if is_whole { LastWord::Closed } else { LastWord::MayHaveLost }).await;
        }
        info!("stopped");
    }
}

/// What waits for others, as long as their word can come: the image of a store that was put back changes no more.
async fn unless_put_back<T>(
    metadata: &ClusterMetadata,
    waiting: impl Future<Output = Result<T, StartError>>,
) -> Result<T, StartError> {
    tokio::select! {
        done = waiting => done,
        how = metadata.put_back() => Err(how.into()),
    }
}

async fn serve_http(
    config: &BrokerConfig,
    metrics: &Metrics,
    health: &Health,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let Some(address) = config.http else { return Ok(()) };
    let failed = |source| StartError::Listen { address: address.to_string(), source };
    let http = HttpServer::bind(address).await.map_err(failed)?;
    info!(protocol = %"http", address = %http.local_addr(), "listening");
    let serving = http.serve(metrics.clone(), health.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            warn!(%error, "the HTTP listener ended");
        }
    });
    Ok(())
}

fn limits(config: &BrokerConfig) -> Limits {
    let network = &config.network;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let count = |limit: Option<u64>| limit.map_or(usize::MAX, size);
    Limits {
        frame_bytes: network.request_max_bytes as usize,
        request_bytes: size(network.request_memory_bytes),
        connections: count(network.max_connections),
        connections_per_listener: network
            .max_connections_per_listener
            .iter()
            .map(|(name, limit)| (name.clone(), size(*limit)))
            .collect(),
        connections_per_ip: count(network.max_connections_per_ip),
        connections_per_ip_overrides: network
            .max_connections_per_ip_overrides
            .iter()
            .map(|(ip, limit)| (*ip, size(*limit)))
            .collect(),
        failed_authentication_delay: network.failed_authentication_delay,
        idle: network.idle_timeout.unwrap_or(Duration::MAX),
        send_buffer_bytes: network.send_buffer_bytes.map(size),
        receive_buffer_bytes: network.receive_buffer_bytes.map(size),
        backlog: network.listen_backlog,
    }
}

/// The settings as the dynamic ones have them, for what is read once.
fn effective(config: &Arc<BrokerConfig>, image: &ClusterImage) -> Arc<BrokerConfig> {
    // What cannot be taken is told when it is taken up.
    live::effective(config, image).map_or_else(|_| config.clone(), Arc::new)
}

/// What the cluster is told of this node: each listener under the address that clients shall use.
fn registration(config: &BrokerConfig, life: Uuid, endpoints: BTreeMap<String, Endpoint>) -> BrokerImage {
    let shown = |dirs: &[PathBuf]| dirs.iter().map(|dir| dir.display().to_string()).collect();
    BrokerImage {
        id: config.node,
        incarnation: life,
        endpoints,
        rack: config.rack.clone(),
        fenced: false,
        log_dirs: shown(&config.logs.dirs),
        log_dir_ids: Default::default(),
        cordoned_log_dirs: shown(&config.logs.cordoned),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: Feature::served(),
    }
}
