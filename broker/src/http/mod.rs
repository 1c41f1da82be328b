//! `/metrics`, `/healthz`, `/readyz` and `/insyncz`, for whoever watches the node. Nothing here changes it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How far the node is. Alive from its start to its end; ready while it serves; in sync, for good, once its replicas were.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    waiting_for: Option<String>,
    ready: bool,
    behind: Option<String>,
    failed: Option<String>,
    broken: Option<String>,
}

impl Health {
    /// A node that starts.
    pub fn starting() -> Health {
        Health::default()
    }

    /// Not ready (any more): the node waits for this, as in "recovery of logs".
    pub fn waiting_for(&self, what: &str) {
        let mut state = self.0.lock();
        state.ready = false;
        state.waiting_for = Some(what.to_owned());
    }

    /// The node serves.
    pub fn ready(&self) {
        let mut state = self.0.lock();
        state.ready = true;
        state.waiting_for = None;
    }

    /// Replicas that were not in sync since the start, as in "t-0, t-1"; `None` once none is left, or if there are no others.
    pub fn behind(&self, replicas: Option<String>) {
        self.0.lock().behind = replicas;
    }

    /// A part of the node failed, and the rest serves: both pages say so, and succeed.
    pub fn degraded(&self, what: &str) {
        self.0.lock().failed = Some(what.to_owned());
    }

    /// Something is wrong that only a restart mends. `/healthz` fails from now on.
    pub fn broken(&self, why: &str) {
        self.0.lock().broken = Some(why.to_owned());
    }

    fn health(&self) -> (StatusCode, String) {
        let state = self.0.lock();
        match (&state.broken, &state.failed) {
            (Some(why), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("broken: {why}\n")),
            (None, Some(what)) => (StatusCode::OK, format!("degraded: {what}\n")),
            (None, None) => (StatusCode::OK, "ok\n".into()),
        }
    }

    fn in_sync(&self) -> (StatusCode, String) {
        match (self.readiness(), &self.0.lock().behind) {
            ((StatusCode::OK, _), Some(replicas)) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("ready, and waiting for replicas to be in sync: {replicas}\n"),
            ),
            (ready, _) => ready,
        }
    }

    fn readiness(&self) -> (StatusCode, String) {
        let state = self.0.lock();
        match (&state.broken, state.ready) {
            (Some(why), _) => (StatusCode::SERVICE_UNAVAILABLE, format!("broken: {why}\n")),
            (None, true) => match &state.failed {
                Some(what) => (StatusCode::OK, format!("ready, but degraded: {what}\n")),
                None => (StatusCode::OK, "ready\n".into()),
            },
            (None, false) => {
                let what = state.waiting_for.as_deref().unwrap_or("the start");
                (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {what}\n"))
            }
        }
    }
}

/// The listener of the pages.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    local: SocketAddr,
}

impl HttpServer {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// As the operating system says: in use, not permitted, not an address of this machine.
    pub async fn bind(address: SocketAddr) -> std::io::Result<HttpServer> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok(HttpServer { listener, local })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `stop` is cancelled and answers under way are done.
    ///
    /// # Errors
    /// If the listening socket fails.
    pub async fn serve(self, metrics: Metrics, health: Health, stop: CancellationToken) -> std::io::Result<()> {
        self.serve_page(move || metrics.text(), health, stop).await
    }

    /// The same with another `/metrics`.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn serve_page(
        self,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        health: Health,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let pages = pages(Arc::new(metrics), health);
        axum::serve(self.listener, pages).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

/// What `/metrics` says.
type Page = Arc<dyn Fn() -> String + Send + Sync>;

fn pages(metrics: Page, health: Health) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics).with_state(metrics))
        .route(
            "/healthz",
            get(|State(health): State<Health>| async move { health.health() }).with_state(health.clone()),
        )
        .route(
            "/readyz",
            get(|State(health): State<Health>| async move { health.readiness() }).with_state(health.clone()),
        )
        .route("/insyncz", get(|State(health): State<Health>| async move { health.in_sync() }).with_state(health))
}

async fn show_metrics(State(metrics): State<Page>) -> Response {
    // Gathering thousands of topics takes milliseconds, and asks file systems: not on a thread that serves clients.
    match tokio::task::spawn_blocking(move || metrics()).await {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Running {
        address: SocketAddr,
        health: Health,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    async fn running() -> Running {
        let server = HttpServer::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, health, stop) = (server.local_addr(), Health::starting(), CancellationToken::new());
        let task = tokio::spawn(server.serve(Metrics::new(), health.clone(), stop.clone()));
        Running { address, health, stop, task }
    }

    impl Running {
        /// Status line and body.
        async fn get(&self, path: &str) -> (String, String) {
            let mut socket = tokio::net::TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.lines().next().unwrap().to_owned(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn a_node_is_healthy_from_the_start_and_ready_when_it_serves() {
        let node = running().await;
        assert_eq!(node.get("/healthz").await, ("HTTP/1.1 200 OK".into(), "ok\n".into()));
        node.health.waiting_for("recovery of logs");
        let (status, body) = node.get("/readyz").await;
        assert_eq!(
            (status.as_str(), body.as_str()),
            ("HTTP/1.1 503 Service Unavailable", "waiting for recovery of logs\n")
        );
        node.health.ready();
        assert_eq!(node.get("/readyz").await.1, "ready\n");
        assert_eq!(node.get("/insyncz").await, ("HTTP/1.1 200 OK".into(), "ready\n".into()));
        node.health.behind(Some("t-0".to_owned()));
        assert_eq!(node.get("/readyz").await.1, "ready\n", "it serves, if not in place of others");
        let behind = (
            "HTTP/1.1 503 Service Unavailable".to_owned(),
            "ready, and waiting for replicas to be in sync: t-0\n".to_owned(),
        );
        assert_eq!(node.get("/insyncz").await, behind);
        node.health.behind(None);
        assert!(node.get("/insyncz").await.0.contains("200"));
        node.health.degraded("a part failed");
        assert_eq!(node.get("/healthz").await, ("HTTP/1.1 200 OK".into(), "degraded: a part failed\n".into()));
        let ready = ("HTTP/1.1 200 OK".to_owned(), "ready, but degraded: a part failed\n".to_owned());
        assert_eq!(node.get("/readyz").await, ready);
        node.health.broken("no log directory is left");
        for page in ["/healthz", "/readyz", "/insyncz"] {
            assert!(node.get(page).await.0.contains("503"), "{page}");
        }
    }

    #[tokio::test]
    async fn metrics_are_served_as_text_and_the_server_stops_when_told() {
        let node = running().await;
        let (status, body) = node.get("/metrics").await;
        assert!(status.contains("200") && body.contains("# TYPE varve_connections gauge"), "{status}\n{body}");
        assert!(node.get("/other").await.0.contains("404"));
        node.stop.cancel();
        node.task.await.unwrap().unwrap();
    }
}
