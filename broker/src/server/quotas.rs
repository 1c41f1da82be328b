//! The node's quotas: those of the image, in force, and the clock that they need.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::net::lookup_host;
use tokio_util::sync::CancellationToken;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::QuotaImage,
    model::{QuotaEntity, QuotaKey, QuotaName},
};

use super::RequestContext;
use crate::{
    config::QuotaConfig,
    metrics::Metrics,
    quota::{Asker, ConnectionQuotas, ListenerRates, Millis, QuotaMetrics, Quotas},
};

/// What clients may do, and what they did.
#[derive(Debug)]
pub struct NodeQuotas {
    pub(crate) clients: Quotas,
    pub(crate) connections: ConnectionQuotas,
    started: Instant,
    applying: tokio::sync::Mutex<()>,
    metrics: OnceLock<QuotaMetrics>,
}

impl NodeQuotas {
    /// No quotas yet but those of the node itself.
    pub fn new(config: &QuotaConfig, rates: ListenerRates) -> NodeQuotas {
        let connections = ConnectionQuotas::new(config.window);
        connections.set_listeners(rates);
        NodeQuotas {
            clients: Quotas::new(config.window, config.mutation_window),
            connections,
            started: Instant::now(),
            applying: tokio::sync::Mutex::default(),
            metrics: OnceLock::new(),
        }
    }

    /// Counts from now on who is throttled.
    pub fn register(self: &Arc<NodeQuotas>, metrics: &Metrics) {
        let counters = self.metrics.get_or_init(|| QuotaMetrics::new(metrics.registry())).clone();
        let quotas = Arc::clone(self);
        metrics.before_scrape(move || quotas.clients.refresh(&counters, quotas.now()));
    }

    /// Keeps to the quotas that `metadata` shows, until `stop` is cancelled.
    pub async fn follow(self: Arc<NodeQuotas>, metadata: Arc<ClusterMetadata>, stop: CancellationToken) {
        let mut images = metadata.subscribe();
        let mut shown: Option<Arc<QuotaImage>> = None;
        loop {
            let quotas = Arc::clone(images.borrow_and_update().quotas());
            if shown.as_ref().is_none_or(|shown| !Arc::ptr_eq(shown, &quotas)) {
                self.apply(&metadata).await;
                shown = Some(quotas);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = images.changed() => if changed.is_err() { return },
            }
        }
    }

    /// From now on the quotas of `metadata` hold. Whoever changed them calls this before it answers.
    pub(crate) async fn apply(&self, metadata: &ClusterMetadata) {
        // One at a time, each with what holds when its turn comes: looking names up takes a while, and whoever began with older
        // quotas must not end last.
        let _turn = self.applying.lock().await;
        let quotas = Arc::clone(metadata.image().quotas());
        self.clients.set(&quotas);
        let (mut own, mut any) = (HashMap::new(), None);
        for (entity, quotas) in quotas.iter() {
            let (QuotaEntity::Ip(ip), Some(rate)) = (entity, quotas.get(&QuotaKey::ConnectionRate)) else { continue };
            match ip {
                QuotaName::Default => any = Some(*rate),
                QuotaName::Named(name) => own.extend(addresses(name).await.into_iter().map(|ip| (ip, *rate))),
            }
        }
        self.connections.set(own, any);
    }

    pub(crate) fn now(&self) -> Millis {
        Millis(self.started.elapsed().as_millis() as u64)
    }

    /// What the request `context` takes of thread time is held against its client. How long it is to wait.
    pub(super) fn note_time(&self, context: &RequestContext, spent: Duration) -> Duration {
        // A second of one thread within a second is 100 percent.
        let percent = spent.as_secs_f64() * 100.0;
        let wait = self.clients.request.record(asker(context), percent, self.now());
        self.count(QuotaKey::RequestPercentage, wait)
    }

    pub(super) fn note_produced(&self, context: &RequestContext, bytes: usize) -> Duration {
        let wait = self.clients.produce.record(asker(context), bytes as f64, self.now());
        self.count(QuotaKey::ProducerByteRate, wait)
    }

    /// An answer of `bytes` is ready. If the client is to wait, it is not sent, and so not counted.
    pub(super) fn note_fetched(&self, context: &RequestContext, bytes: usize) -> Duration {
        let now = self.now();
        let wait = self.clients.fetch.record(asker(context), bytes as f64, now);
        if !wait.is_zero() {
            self.clients.fetch.take_back(asker(context), bytes as f64, now);
        }
        self.count(QuotaKey::ConsumerByteRate, wait)
    }

    /// The most bytes that one answer to this client may have.
    pub(super) fn fetch_limit(&self, context: &RequestContext) -> u32 {
        self.clients.fetch.burst(asker(context)).map_or(u32::MAX, |bytes| bytes as u32)
    }

    /// `partitions` are made or deleted. With `strict` nothing is while the client is above its quota.
    ///
    /// # Errors
    /// How long to wait first.
    pub(super) fn note_mutation(
        &self,
        context: &RequestContext,
        partitions: usize,
        strict: bool,
    ) -> Result<Duration, Duration> {
        let now = self.now();
        let outcome = if strict {
            self.clients.mutation.try_record(asker(context), partitions, now).map(|()| Duration::ZERO)
        } else {
            Ok(self.clients.mutation.record(asker(context), partitions, now))
        };
        let (Ok(wait) | Err(wait)) = outcome;
        self.count(QuotaKey::ControllerMutationRate, wait);
        outcome
    }

    fn count(&self, key: QuotaKey, wait: Duration) -> Duration {
        if let Some(metrics) = self.metrics.get() {
            metrics.note(key, wait);
        }
        wait
    }
}

fn asker(context: &RequestContext) -> Asker<'_> {
    Asker { user: context.principal.name(), client: context.client_id() }
}

/// The addresses that a quota is meant for. A name was looked up when the quota was set; if it has none now, it is nobody's.
async fn addresses(name: &str) -> BTreeSet<IpAddr> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return BTreeSet::from([ip.to_canonical()]);
    }
    lookup_host((name, 0))
        .await
        .map(|found| found.map(|address: SocketAddr| address.ip()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, pin::pin};

    use varve_metadata::{controller::AlterQuota, model::BrokerId, store::MemoryStore};

    use super::*;

    async fn limit_connections(metadata: &ClusterMetadata, per_second: f64) {
        let change = AlterQuota {
            entity: BTreeMap::from([("ip".to_owned(), None)]),
            changes: vec![("connection_creation_rate".to_owned(), Some(per_second))],
        };
        let altered = metadata.alter_client_quotas(&[change], &BTreeSet::new(), false).await.unwrap();
        assert!(altered.into_values().all(|entity| entity.is_ok()));
    }

    #[tokio::test]
    async fn quotas_whose_turn_comes_late_are_the_newest() {
        let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), BrokerId(1), Default::default()).await;
        let metadata = metadata.unwrap();
        let (window, mutation_window) = Default::default();
        let quotas = NodeQuotas::new(&QuotaConfig { window, mutation_window }, ListenerRates::default());
        limit_connections(&metadata, 1000.0).await;
        let somebody_else = quotas.applying.lock().await;
        let mut late = pin!(quotas.apply(&metadata));
        tokio::select! {
            biased;
            () = &mut late => panic!("two at a time"),
            () = std::future::ready(()) => {}
        }
        limit_connections(&metadata, 1.0).await;
        drop(somebody_else);
        late.await;
        let ip = IpAddr::from([127, 0, 0, 1]);
        assert!((0..100).any(|_| !quotas.connections.admit("L", ip, Millis(0)).is_zero()));
    }
}
