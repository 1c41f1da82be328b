//! Accepts connections and bounds how many there are.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Broker,
    budget::RequestBudget,
    connection::{self, Closed},
    live::ConnectionLimits,
    measured::Measured,
    places::Places,
};
use crate::{metrics::Metrics, security::ListenerSecurity, traces::Sampler};

/// Name of a listener, as in `listeners` (`PLAINTEXT`, `INTERNAL`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerName(pub Arc<str>);

/// Where a connection came in, and what was asked of it there.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    pub(super) name: ListenerName,
    pub(super) security: Arc<ListenerSecurity>,
    /// Cancelled when those who came in are to leave: the node stops, or has the listener no more.
    pub(super) serving: CancellationToken,
}

impl Entrance {
    /// Counts somebody who did not get in.
    pub(super) fn failed(&self, shared: &Shared) {
        shared.measured.connections.authenticated(&self.name.0, false);
    }
}

/// What connections may take, all listeners together unless said.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest frame, in bytes (`socket.request.max.bytes`).
    pub frame_bytes: usize,
    /// Bytes of all requests being read or answered (`queued.max.request.bytes`).
    pub request_bytes: usize,
    /// Connections (`max.connections`). Beyond, whoever connects waits.
    pub connections: usize,
    /// The same for some listeners.
    pub connections_per_listener: HashMap<String, usize>,
    /// Connections from one address (`max.connections.per.ip`).
    pub connections_per_ip: usize,
    /// The same for some addresses (`max.connections.per.ip.overrides`).
    pub connections_per_ip_overrides: HashMap<IpAddr, usize>,
    /// A failed authentication is answered after that long (`connection.failed.authentication.delay.ms`).
    pub failed_authentication_delay: Duration,
    /// A connection without a request for so long is closed (`connections.max.idle.ms`).
    pub idle: Duration,
    /// Kernel buffers in bytes; `None` leaves them to the system (`socket.send.buffer.bytes`).
    pub send_buffer_bytes: Option<usize>,
    /// As above (`socket.receive.buffer.bytes`).
    pub receive_buffer_bytes: Option<usize>,
    /// Connections that wait to be accepted, per listener (`socket.listen.backlog.size`).
    pub backlog: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frame_bytes: 100 * 1024 * 1024,
            request_bytes: 64 * 1024 * 1024,
            connections: i32::MAX as usize,
            connections_per_listener: HashMap::new(),
            connections_per_ip: i32::MAX as usize,
            connections_per_ip_overrides: HashMap::new(),
            failed_authentication_delay: Duration::from_millis(100),
            idle: Duration::from_secs(600),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            backlog: 50,
        }
    }
}

/// The listeners and connections of one node.
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) broker: Arc<Broker>,
    pub(super) limits: Limits,
    pub(super) budget: RequestBudget,
    /// What they may hold who have not said yet who they are: nothing of the budget of requests.
    pub(super) logins: RequestBudget,
    pub(super) measured: Measured,
    tasks: TaskTracker,
    places: Arc<Places>,
    /// Room for connections that are refused and not closed yet.
    refused: Arc<Semaphore>,
    first_limits: Arc<ConnectionLimits>,
    pub(super) sampler: Sampler,
}

/// A connection on which nothing came for so long is probed.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// Time from one probe to the next.
const PROBE_EVERY: Duration = Duration::from_secs(15);
/// So many probes without an answer end it.
const PROBES: u32 = 4;

/// Bytes that logins may hold together. Those of 16 KiB and less, which all but the largest tokens are, are not counted.
const LOGIN_BYTES: usize = 4 * 1024 * 1024;

/// The most connections that are refused by their address's rate and wait to be closed.
const MOST_REFUSED: usize = 1024;

impl Shared {
    /// The limits in force: those given while running, or else those of the start.
    fn connection_limits(&self) -> Arc<ConnectionLimits> {
        self.broker.live.connection_limits().unwrap_or_else(|| Arc::clone(&self.first_limits))
    }

    /// Takes an address: clients that connect wait.
    pub(super) fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM.nonblocking(),
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // Inherited by every connection. A peer that is gone without a word is noticed within minutes. One that owes us its
        // acknowledgements is left to connections.max.idle.ms, and to the kernel's own retries beyond. TCP_USER_TIMEOUT would
        // be faster, but it also ends the connections of readers that only take their time: to a full window it counts the
        // same (Linux 5.11 and later).
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, PROBE_AFTER)?;
        sockopt::set_tcp_keepintvl(&socket, PROBE_EVERY)?;
        sockopt::set_tcp_keepcnt(&socket, PROBES)?;
        // Set before listening: accepted sockets inherit it, and a receive window cannot grow later.
        if let Some(bytes) = self.limits.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.limits.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(self.limits.backlog).unwrap_or(i32::MAX))?;
        TcpListener::from_std(socket.into())
    }

    /// Serves those who connect until `accepting` is cancelled.
    pub(super) fn accept(self: &Arc<Self>, entrance: Entrance, socket: TcpListener, accepting: CancellationToken) {
        self.tasks.spawn(accept(Arc::clone(self), entrance, socket, accepting));
    }

    /// Keeps the keys of an identity provider that a listener goes by up to date, until `serving` is cancelled.
    pub(super) fn follow_keys(&self, security: &ListenerSecurity, serving: &CancellationToken) {
        if let Some((keys, source)) = security.sasl.as_ref().and_then(|sasl| sasl.keys().cloned()) {
            self.tasks.spawn(keys.follow(source, serving.clone()));
        }
    }
}

impl Server {
    /// A server without listeners yet, which counts for nobody.
    pub fn new(broker: Arc<Broker>, limits: Limits) -> Server {
        Server::measured(broker, limits, &Metrics::new())
    }

    /// A server without listeners yet, which counts connections and requests in `metrics`.
    pub fn measured(broker: Arc<Broker>, limits: Limits, metrics: &Metrics) -> Server {
        let budget = RequestBudget::new(limits.request_bytes);
        let logins = RequestBudget::new(LOGIN_BYTES);
        let (budgets, memory) = ([budget.clone(), logins.clone()], metrics.requests.memory_bytes.clone());
        metrics.before_scrape(move || {
            let taken: usize = budgets.iter().map(RequestBudget::taken_bytes).sum();
            memory.set(i64::try_from(taken).unwrap_or(i64::MAX));
        });
        let measured = Measured::new(metrics);
        broker.register_access(metrics);
        broker.register_reads(metrics);
        let (tasks, places) = (TaskTracker::new(), Arc::new(Places::default()));
        let refused = Arc::new(Semaphore::new(MOST_REFUSED));
        let first_limits = Arc::new(ConnectionLimits {
            connections: limits.connections,
            by_listener: limits.connections_per_listener.clone(),
            per_ip: limits.connections_per_ip,
            per_ip_overrides: limits.connections_per_ip_overrides.clone(),
        });
        let sampler = Sampler::new(&broker.config.traces);
        let shared = Shared { broker, limits, budget, logins, measured, tasks, places, refused, first_limits, sampler };
        let shared = Arc::new(shared);
        shared.broker.listeners.serve(&shared);
        Server { shared }
    }

    /// Opens a listener without protection and accepts in the background until the broker's shutdown token is cancelled.
    /// Port 0 takes a free one; the address that was bound is returned.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn listen(&self, name: ListenerName, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = self.bind(address)?;
        let bound = socket.local_addr()?;
        self.accept(name, ListenerSecurity::plaintext(), socket);
        Ok(bound)
    }

    /// The first half of [`listen`](Self::listen): the address is taken, and clients that connect wait.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.shared.bind(address)
    }

    /// The second half: serves those who connect and do what `security` asks of them.
    pub fn accept(&self, name: ListenerName, security: Arc<ListenerSecurity>, listener: TcpListener) {
        let serving = self.shared.broker.shutdown.child_token();
        let accepting = serving.child_token();
        self.shared.accept(Entrance { name, security, serving }, listener, accepting);
    }

    /// Waits until every listener and connection has ended. Cancel the broker's shutdown token first.
    pub async fn stopped(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

/// An IPv4 address as such: a socket for both versions of IP shows it as `::ffff:a.b.c.d`, which no limit and no quota names.
fn canonical(mut peer: SocketAddr) -> SocketAddr {
    peer.set_ip(peer.ip().to_canonical());
    peer
}

async fn accept(shared: Arc<Shared>, entrance: Entrance, listener: TcpListener, closed: CancellationToken) {
    loop {
        if !shared.places.has_room(&entrance.name.0, &shared.connection_limits()) {
            shared.measured.connections.refused("total");
            warn!(listener = %entrance.name.0, "max.connections are open: whoever connects waits");
        }
        let accepted = async {
            shared.places.room(&entrance.name.0, || shared.connection_limits()).await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            () = closed.cancelled() => return,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, canonical(peer)),
            // Out of file descriptors, or the client was gone already: pause, so that a lasting fault does not spin.
            Err(error) => {
                warn!(listener = %entrance.name.0, %error, "cannot accept a connection");
                tokio::select! {
                    () = closed.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(50)) => continue,
                }
            }
        };
        let quotas = &shared.broker.quotas;
        let wait = quotas.connections.accept(&entrance.name.0, quotas.now());
        if !wait.is_zero() {
            shared.measured.connections.throttled(&entrance.name.0);
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
        let wait = quotas.connections.admit(&entrance.name.0, peer.ip(), quotas.now());
        if !wait.is_zero() {
            shared.measured.connections.refused("rate");
            debug!(listener = %entrance.name.0, %peer, ?wait, "connection refused: its address opens too many");
            // Closed only when it may try again, so that a client that comes back at once gains nothing; unless so many wait
            // already that they would take the place of others.
            if let Ok(turn) = Arc::clone(&shared.refused).try_acquire_owned() {
                shared.tasks.spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop((stream, turn));
                });
            }
            continue;
        }
        let Some(place) = shared.places.take(&entrance.name.0, peer.ip(), &shared.connection_limits()) else {
            shared.measured.connections.refused("address");
            warn!(listener = %entrance.name.0, %peer, "connection refused: its address has too many open");
            continue;
        };
        shared.measured.connections.accepted.inc();
        shared.measured.connections.open.inc();
        let (shared, entrance) = (shared.clone(), entrance.clone());
        shared.tasks.clone().spawn(async move {
            if let Err(reason) = connection::serve(&shared, stream, peer, &entrance).await {
                shared.measured.closed(&reason);
                match reason {
                    Closed::Unwelcome(reason) => {
                        info!(listener = %entrance.name.0, %peer, %reason, "connection refused");
                    }
                    reason => debug!(%peer, %reason, "connection closed"),
                }
            }
            shared.measured.connections.open.dec();
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::TestNode;

    #[tokio::test]
    async fn silent_peers_are_probed_and_slow_readers_left_to_the_idle_limit() {
        let node = TestNode::start().await;
        let listener = Server::new(node.broker.clone(), Limits::default()).bind(([127, 0, 0, 1], 0).into()).unwrap();
        let (_client, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (stream, _) = accepted.unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let silence = sockopt::tcp_keepidle(&stream).unwrap() + PROBES * sockopt::tcp_keepintvl(&stream).unwrap();
        assert_eq!(silence, Duration::from_secs(120));
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 0, "the kernel's clock ends no connection before ours");
    }
}
