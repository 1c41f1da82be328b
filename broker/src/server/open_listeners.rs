//! The listeners of a node: opened at its start, and while it runs added, moved and taken away (KIP-226).
//!
//! ```text
//! alter ─► prepare: protect, bind ─► store ─► open ─► announce ─► close what is gone
//!             │ refused: nothing has changed             │ failed: what is gone stays open, `settle` tries again
//! ```
//! Clients and other brokers hear of a new address before the old one is gone.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, lookup_host},
    sync::MutexGuard,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;
use varve_metadata::image::{ClusterImage, Endpoint};

use super::{
    Broker,
    listener::{Entrance, ListenerName, Shared},
};
use crate::{
    config::{BrokerConfig, Listener, ListenerConfig},
    security::{ListenerSecurity, SecurityError, chain},
};

/// How often a listener that cannot be opened is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// Why a listener does not open.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The listener as configured.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be protected as its settings say.
    #[error("the listener {listener} cannot be protected")]
    Security {
        /// Its name.
        listener: String,
        /// Why.
        #[source]
        source: SecurityError,
    },
}

/// A listener whose address is taken, and that nobody is served at yet.
pub(crate) struct Bound {
    pub(crate) listener: Listener,
    pub(crate) security: Arc<ListenerSecurity>,
    pub(crate) socket: TcpListener,
}

/// The listeners of one node.
#[derive(Default)]
pub(crate) struct OpenListeners {
    state: Mutex<State>,
    server: OnceLock<Weak<Shared>>,
    /// This life of the node, under which others are told of addresses.
    life: OnceLock<Uuid>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// In the order in which they came.
    known: Vec<Known>,
    /// Others do not know yet what changed.
    is_untold: bool,
    /// Sockets that others took the place of. They are closed when others know.
    moved: Vec<CancellationToken>,
    /// What stood in the way last, by listener: it is told once.
    trouble: BTreeMap<String, String>,
}

struct Known {
    listener: Listener,
    security: Arc<ListenerSecurity>,
    /// Absent while its address cannot be had.
    open: Option<Open>,
}

struct Open {
    address: SocketAddr,
    /// Cancelled when its socket closes.
    accepting: CancellationToken,
    /// Cancelled when its connections are to end.
    serving: CancellationToken,
}

impl OpenListeners {
    /// None is open yet; each of these has its protection.
    pub(crate) fn protected(listeners: Vec<(Listener, Arc<ListenerSecurity>)>) -> OpenListeners {
        let known =
            listeners.into_iter().map(|(listener, security)| Known { listener, security, open: None }).collect();
        let state = State { known, ..State::default() };
        OpenListeners { state: Mutex::new(state), ..OpenListeners::default() }
    }

    /// Connections go to this server.
    pub(super) fn serve(&self, server: &Arc<Shared>) {
        let _ = self.server.set(Arc::downgrade(server));
    }

    /// The node is registered in this life of it.
    pub(crate) fn registered(&self, life: Uuid) {
        let _ = self.life.set(life);
    }

    /// The listeners as they are, open or not.
    pub(crate) fn known(&self) -> Vec<(Listener, Arc<ListenerSecurity>)> {
        self.state.lock().known.iter().map(|known| (known.listener.clone(), Arc::clone(&known.security))).collect()
    }

    /// Where those that are open listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.state.lock().known.iter().filter_map(|known| Some(known.open.as_ref()?.address)).collect()
    }

    /// One change at a time.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// What `wanted` has beside `now`, ready to be opened. Nothing that is open changes.
    ///
    /// # Errors
    /// [`ListenError`]: one of them cannot be opened.
    pub(super) async fn prepare(
        &self,
        now: &ListenerConfig,
        wanted: &ListenerConfig,
        texts: &BTreeMap<String, String>,
    ) -> Result<Vec<Bound>, ListenError> {
        let mut bound = Vec::new();
        for listener in wanted.listeners.iter().filter(|listener| !now.listeners.contains(listener)) {
            bound.push(self.bind(listener, wanted, texts).await?);
        }
        Ok(bound)
    }

    /// Takes the address of one of `config`'s listeners. It keeps the protection that it has under its name.
    pub(crate) async fn bind(
        &self,
        listener: &Listener,
        config: &ListenerConfig,
        texts: &BTreeMap<String, String>,
    ) -> Result<Bound, ListenError> {
        let known = || {
            let state = self.state.lock();
            let same =
                |known: &&Known| known.listener.name == listener.name && known.listener.protocol == listener.protocol;
            state.known.iter().find(same).map(|known| known.security.clone())
        };
        let security = match known() {
            Some(security) => security,
            None => protect(listener, config, texts)?,
        };
        let host = listener.host.as_deref().unwrap_or("0.0.0.0");
        let shown = format!("{}://{host}:{}", listener.name, listener.port);
        let failed = |source| ListenError::Listen { address: shown.clone(), source };
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let address: SocketAddr = lookup_host((host, listener.port))
            .await
            .and_then(|mut found| found.next().ok_or_else(nothing))
            .map_err(failed)?;
        let server = self.server.get().and_then(Weak::upgrade);
        let server = server.ok_or_else(|| failed(io::Error::other("the node is not serving")))?;
        let socket = server.bind(address).map_err(failed)?;
        Ok(Bound { listener: listener.clone(), security, socket })
    }

    /// Serves at these addresses from now on. Where a listener of that name was open, the old socket takes connections until
    /// [`change`](Self::change) has told others of the new one; the old one's connections stay.
    pub(crate) fn open(&self, bound: Vec<Bound>) {
        let Some(server) = self.server.get().and_then(Weak::upgrade) else { return };
        let mut state = self.state.lock();
        for Bound { listener, security, socket } in bound {
            let Ok(address) = socket.local_addr() else { continue };
            let known = state.known.iter().position(|known| known.listener.name == listener.name);
            let before = known.and_then(|known| {
                let known = &mut state.known[known];
                Some((known.open.take()?, Arc::ptr_eq(&known.security, &security)))
            });
            let serving = match before {
                Some((before, true)) => {
                    state.moved.push(before.accepting);
                    before.serving
                }
                before => {
                    // Whoever was let in by another protection has to come by this one.
                    if let Some((before, _)) = before {
                        before.serving.cancel();
                    }
                    let serving = server.broker.shutdown.child_token();
                    server.follow_keys(&security, &serving);
                    serving
                }
            };
            let accepting = serving.child_token();
            let name = ListenerName(listener.name.as_str().into());
            let entrance = Entrance { name, security: security.clone(), serving: serving.clone() };
            info!(protocol = %"kafka", name = %listener.name, security = %listener.protocol, %address, "listening");
            server.accept(entrance, socket, accepting.clone());
            let open = Some(Open { address, accepting, serving });
            state.trouble.remove(&listener.name);
            match known {
                Some(known) => state.known[known] = Known { listener, security, open },
                None => state.known.push(Known { listener, security, open }),
            }
        }
    }

    /// Goes over to the listeners that `broker`'s settings have by now, of which `bound` were not open. Whether others know.
    pub(super) async fn change(&self, broker: &Broker, bound: Vec<Bound>) -> bool {
        let config = broker.live.config();
        let opened: Vec<_> = bound.iter().map(|one| (one.listener.name.clone(), one.security.clone())).collect();
        self.open(bound);
        catch_up(broker, &opened);
        self.state.lock().is_untold = true;
        let endpoints = self.endpoints(&[&config.listeners, &broker.config.listeners]);
        let is_known = match self.announce(broker, endpoints).await {
            Ok(is_known) => is_known,
            Err(error) => {
                warn!(%error, "others do not know of changed listeners yet, trying again");
                false
            }
        };
        if is_known {
            self.close_gone(&config.listeners);
        }
        is_known
    }

    async fn announce(
        &self,
        broker: &Broker,
        endpoints: BTreeMap<String, Endpoint>,
    ) -> Result<bool, varve_metadata::cluster::MetadataError> {
        let life = self.life.get().copied().unwrap_or_default();
        broker.metadata.announce(broker.node, life, endpoints).await
    }

    /// Others know.
    fn close_gone(&self, wanted: &ListenerConfig) {
        let mut state = self.state.lock();
        state.is_untold = false;
        state.moved.drain(..).for_each(|accepting| accepting.cancel());
        state.trouble.retain(|name, _| wanted.listener(name).is_some());
        state.known.retain(|known| {
            let is_wanted = wanted.listener(&known.listener.name).is_some();
            if !is_wanted {
                info!(name = %known.listener.name, "no longer listening");
                if let Some(open) = &known.open {
                    open.serving.cancel();
                }
            }
            is_wanted
        });
    }

    /// Where others reach the listeners that are open, as the first of `configs` has it that knows the listener as it is.
    pub(crate) fn endpoints(&self, configs: &[&ListenerConfig]) -> BTreeMap<String, Endpoint> {
        let state = self.state.lock();
        let is_wanted = |listener: &Listener| configs[0].listener(&listener.name).is_some();
        let open = state.known.iter().filter(|known| is_wanted(&known.listener));
        open.filter_map(|known| {
            let port = known.open.as_ref()?.address.port();
            Some((known.listener.name.clone(), endpoint(&known.listener, port, configs)))
        })
        .collect()
    }

    /// Opens what the settings have and could not be opened before, and closes what they no longer have. Whether all is done.
    pub(super) async fn settle(&self, broker: &Broker) -> bool {
        let _turn = self.turn().await;
        let config = broker.live.config();
        let missing: Vec<&Listener> =
            config.listeners.listeners.iter().filter(|wanted| !self.is_open(wanted)).collect();
        if missing.is_empty() && self.is_settled(&config.listeners) {
            return true;
        }
        let texts = newest_texts(broker);
        let (mut bound, mut is_whole) = (Vec::new(), true);
        for listener in missing {
            match self.bind(listener, &config.listeners, &texts).await {
                Ok(one) => bound.push(one),
                Err(error) => {
                    is_whole = false;
                    self.note_trouble(listener, &error);
                }
            }
        }
        self.change(broker, bound).await && is_whole
    }

    /// It stays closed for now.
    pub(crate) fn note_trouble(&self, listener: &Listener, error: &ListenError) {
        let error = chain(error);
        let before = self.state.lock().trouble.insert(listener.name.clone(), error.clone());
        if before.as_ref() != Some(&error) {
            warn!(name = %listener.name, %error, "a listener that was given while running cannot be opened, trying again");
        }
    }

    fn is_open(&self, wanted: &Listener) -> bool {
        self.state.lock().known.iter().any(|known| known.listener == *wanted && known.open.is_some())
    }

    fn is_settled(&self, wanted: &ListenerConfig) -> bool {
        let state = self.state.lock();
        !state.is_untold && state.known.iter().all(|known| wanted.listener(&known.listener.name).is_some())
    }
}

/// The settings of `broker` by the newest image. Listeners are protected by all of them, also where others of them do not hold
/// because they do not fit together.
fn newest_texts(broker: &Broker) -> BTreeMap<String, String> {
    broker.metadata.image().configs().of_broker(broker.node, &broker.config.settings.texts())
}

/// What changed while these were made ready, when nobody could tell them, they take up now.
fn catch_up(broker: &Broker, opened: &[(String, Arc<ListenerSecurity>)]) {
    let mut known = None;
    while !opened.is_empty() {
        let newest = newest_texts(broker);
        // Had it changed meanwhile, the older would have come after the newer.
        if known.as_ref() == Some(&newest) {
            return;
        }
        for (name, security) in opened {
            for error in security.follow(name, &newest) {
                warn!(listener = %name, error = %chain(&error), "the listener stays as it was");
            }
        }
        known = Some(newest);
    }
}

/// What one of `config`'s listeners asks of those who connect, by the settings `texts`.
pub(crate) fn protect(
    listener: &Listener,
    config: &ListenerConfig,
    texts: &BTreeMap<String, String>,
) -> Result<Arc<ListenerSecurity>, ListenError> {
    let index = config.listeners.iter().position(|one| one.name == listener.name);
    let security = match index.is_some_and(|index| config.is_between_brokers(index)) {
        true => ListenerSecurity::open_between_brokers(&listener.name, listener.protocol, texts),
        false => ListenerSecurity::open(&listener.name, listener.protocol, texts),
    };
    security.map_err(|source| ListenError::Security { listener: listener.name.clone(), source })
}

/// What clients are told of a listener whose socket has `port`.
fn endpoint(listener: &Listener, port: u16, configs: &[&ListenerConfig]) -> Endpoint {
    let advertised = configs.iter().find_map(|config| {
        let at = config.listeners.iter().position(|one| one == listener)?;
        config.advertised.get(at)
    });
    // One that moves, and cannot yet, listens where no setting has it any more.
    let by_name = || configs.iter().find_map(|config| config.told_of(&listener.name));
    let advertised = advertised.or_else(by_name);
    let host = match advertised {
        Some(advertised) => advertised.host.clone(),
        None => listener.own_host().map(str::to_owned),
    };
    let host = host.unwrap_or_else(host_name);
    Endpoint { host, port: advertised.and_then(|advertised| advertised.port).unwrap_or(port) }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which listeners a node starts with: those of its settings as they are now, `now`, each with its protection, by all
/// dynamic settings of `image`. One that is not in the file `started_with` and cannot be protected is left out: a node that does not
/// start could not be told otherwise.
pub(crate) fn protect_all(
    started_with: &BrokerConfig,
    now: &BrokerConfig,
    image: &ClusterImage,
) -> Result<Vec<(Listener, Arc<ListenerSecurity>)>, ListenError> {
    let texts = image.configs().of_broker(started_with.node, &started_with.settings.texts());
    let mut protected = Vec::new();
    for listener in &now.listeners.listeners {
        match protect(listener, &now.listeners, &texts) {
            Ok(security) => protected.push((listener.clone(), security)),
            Err(error) if started_with.listeners.listener(&listener.name).is_some() => return Err(error),
            Err(error) => {
                let error = chain(&error);
                warn!(name = %listener.name, %error, "a listener that was given while running is left out for now");
            }
        }
    }
    Ok(protected)
}

/// Takes the addresses of all protected listeners of a node that starts. Where one that was given while running cannot be had,
/// the file's takes its place, or else the listener stays closed for now.
///
/// # Errors
/// [`ListenError`]: one that the file has cannot be opened.
pub(crate) async fn bind_all(broker: &Broker) -> Result<Vec<Bound>, ListenError> {
    let (listeners, config) = (&broker.listeners, broker.live.config());
    let texts = newest_texts(broker);
    let mut bound = Vec::new();
    for (listener, _) in listeners.known() {
        let in_file = broker.config.listeners.listener(&listener.name);
        let error = match listeners.bind(&listener, &config.listeners, &texts).await {
            Ok(one) => {
                bound.push(one);
                continue;
            }
            Err(error) => error,
        };
        match in_file {
            Some(same) if *same == listener => return Err(error),
            Some(other) => {
                listeners.note_trouble(&listener, &error);
                bound.push(listeners.bind(other, &config.listeners, &texts).await?);
            }
            None => listeners.note_trouble(&listener, &error),
        }
    }
    Ok(bound)
}

/// Where others reach the listeners of `bound`.
pub(crate) fn endpoints_of(bound: &[Bound], broker: &Broker) -> BTreeMap<String, Endpoint> {
    let config = broker.live.config();
    let configs = [&config.listeners, &broker.config.listeners];
    let port = |one: &Bound| one.socket.local_addr().map_or(one.listener.port, |address| address.port());
    bound.iter().map(|one| (one.listener.name.clone(), endpoint(&one.listener, port(one), &configs))).collect()
}

/// Keeps to the listeners that the settings in force have, until `stop` is cancelled.
pub(crate) async fn follow(broker: Arc<Broker>, stop: CancellationToken) {
    let mut settings = broker.live.subscribe();
    let following = async {
        loop {
            settings.borrow_and_update();
            let news = match broker.listeners.settle(&broker).await {
                true => settings.changed().await,
                false => timeout(TRY_AGAIN, settings.changed()).await.unwrap_or(Ok(())),
            };
            if news.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = following => {}
    }
}
