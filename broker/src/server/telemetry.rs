//! The clients that push metrics to this node, with its clock and the subscriptions of the image.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::{ConfigImage, ConfigResource},
};

use super::RequestContext;
use crate::{
    metrics::Metrics,
    share::ConnectionId,
    telemetry::{ClientInfo, ClientMetrics, Denied, Pushed, Subscribed, Subscription},
};

/// Longest text that is kept of a client's id, and of the name and version of its library; of longer ones the beginning.
const MOST_NAME_BYTES: usize = 255;
/// How often clients are looked for that fell silent.
const EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// What a connection says of its client beyond single requests.
#[derive(Debug)]
pub(crate) struct Peer {
    id: ConnectionId,
    state: Mutex<PeerState>,
}

impl Default for Peer {
    fn default() -> Peer {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Peer { id: ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed)), state: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct PeerState {
    software: Option<(String, String)>,
    pushes_as: Option<Uuid>,
}

impl Peer {
    /// The connection's number.
    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client named its library (KIP-511).
    pub(super) fn set_software(&self, name: &str, version: &str) {
        self.state.lock().software = Some((bounded(name), bounded(version)));
    }

    pub(super) fn software(&self) -> (String, String) {
        let unknown = || ("unknown".to_owned(), "unknown".to_owned());
        self.state.lock().software.clone().unwrap_or_else(unknown)
    }
}

/// The metrics that clients push to this node.
#[derive(Debug)]
pub struct Telemetry {
    clients: Mutex<ClientMetrics>,
    started: Instant,
}

impl Telemetry {
    /// Nobody is asked for anything. A push has at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Telemetry {
        Telemetry { clients: Mutex::new(ClientMetrics::new(max_bytes)), started: Instant::now() }
    }

    /// Shows what clients push at /metrics.
    pub fn register(self: &Arc<Telemetry>, metrics: &Metrics) {
        let telemetry = Arc::clone(self);
        metrics.append(move |out| out.push_str(&telemetry.clients.lock().text()));
    }

    /// Keeps to the subscriptions that `metadata` shows, until `stop` is cancelled.
    pub async fn follow(self: Arc<Telemetry>, metadata: Arc<ClusterMetadata>, stop: CancellationToken) {
        let mut images = metadata.subscribe();
        let mut shown = BTreeMap::new();
        loop {
            let wanted = settings(images.borrow_and_update().configs());
            if wanted != shown {
                self.subscribe(&wanted);
                shown = wanted;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = images.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(EXPIRE_EVERY) => self.clients.lock().expire(self.now()),
            }
        }
    }

    /// From now on the subscriptions of `configs` hold. Whoever changed them calls this before it answers.
    pub(crate) fn apply(&self, configs: &ConfigImage) {
        self.subscribe(&settings(configs));
    }

    fn subscribe(&self, wanted: &BTreeMap<String, BTreeMap<String, String>>) {
        let parse = |(name, settings): (&String, &BTreeMap<String, String>)| match Subscription::parse(settings) {
            Ok(subscription) => Some((name.clone(), subscription)),
            Err(error) => {
                // Checked before it was stored: by an older version, with another opinion.
                warn!(subscription = %name, %error, "ignored");
                None
            }
        };
        self.clients.lock().subscribe(wanted.iter().filter_map(parse).collect());
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.clients.lock().max_bytes()
    }

    pub(super) fn get(&self, context: &RequestContext, id: Uuid) -> Result<Subscribed, Denied> {
        let told = self.clients.lock().get(id, &info(context), self.now())?;
        context.connection.state.lock().pushes_as = Some(told.id);
        Ok(told)
    }

    pub(super) fn push(&self, context: &RequestContext, pushed: &Pushed<'_>) -> Result<(), Denied> {
        let outcome = self.take(context, pushed);
        if outcome != Err(Denied::Invalid) {
            context.connection.state.lock().pushes_as = Some(pushed.id);
        }
        outcome
    }

    fn take(&self, context: &RequestContext, pushed: &Pushed<'_>) -> Result<(), Denied> {
        let codec = self.clients.lock().admit(pushed, &info(context), self.now())?;
        // Nobody else waits for this.
        let (series, outcome) = pushed.read(codec, self.max_bytes());
        self.clients.lock().take(pushed.id, series);
        outcome
    }

    /// The connection of `peer` is gone.
    pub(super) fn disconnected(&self, peer: &Peer) {
        let pushes_as = peer.state.lock().pushes_as;
        if let Some(id) = pushes_as {
            self.clients.lock().forget(id);
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// The settings of each subscription, by name.
fn settings(configs: &ConfigImage) -> BTreeMap<String, BTreeMap<String, String>> {
    let of = |(resource, settings): (&ConfigResource, &BTreeMap<String, String>)| match resource {
        ConfigResource::ClientMetrics(name) => Some((name.clone(), settings.clone())),
        _ => None,
    };
    configs.iter().filter_map(of).collect()
}

fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(MOST_NAME_BYTES)].to_owned()
}

fn info(context: &RequestContext) -> ClientInfo {
    let (software_name, software_version) = context.connection.software();
    ClientInfo {
        client_id: bounded(context.client_id()),
        software_name,
        software_version,
        address: context.peer.ip().to_string(),
        port: context.peer.port(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_name_the_beginning_is_kept() {
        assert_eq!(bounded("app"), "app");
        assert_eq!(bounded(&"x".repeat(32_000)).len(), MOST_NAME_BYTES);
        assert_eq!(bounded(&"ü".repeat(200)), "ü".repeat(127), "never half a character");
    }
}
