//! Connections to other brokers, over the listener that `inter.broker.listener.name` names.
//!
//! What the listener asks of those who connect, this node has ready for the others': TLS with its own certificate, a login by
//! SASL, again whenever a session ends (KIP-368). A [`Link`] is one connection with one request at a time. [`Links`] knows where brokers are, and keeps those that nobody
//! uses for the next request.

mod link;
mod login;
#[cfg(test)]
mod secured_test;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kafka_protocol::protocol::Request;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;
use varve_metadata::{cluster::ClusterMetadata, model::BrokerId};

use crate::security::ListenerSecurity;

pub(crate) use link::{Link, LinkError, LinkLimits};

/// Connections to one broker that are kept for later.
const KEPT: usize = 4;
/// Requests to one broker that are under way at a time, besides fetches: each has a connection of its own, and one broker that
/// does not answer must not take all that a node may open.
const TURNS: usize = 8;

/// How other brokers are reached.
#[derive(Clone, Debug)]
pub(crate) struct LinkOptions {
    /// The listener.
    pub(crate) listener: String,
    /// Who we are.
    pub(crate) node: BrokerId,
    /// `socket.connection.setup.timeout.ms`.
    pub(crate) setup_limit: Duration,
    /// How long an answer may take, and before it the wait for a free connection (`replica.socket.timeout.ms`).
    pub(crate) answer_limit: Duration,
}

/// Connections to all other brokers.
pub(crate) struct Links {
    metadata: Arc<ClusterMetadata>,
    options: LinkOptions,
    /// The protection of the listener. In the clear if never set.
    security: OnceLock<Arc<ListenerSecurity>>,
    targets: Mutex<HashMap<BrokerId, Target>>,
}

/// One broker that is asked.
struct Target {
    /// Each of the life of the broker that it leads to.
    idle: Vec<(Uuid, Link)>,
    turns: Arc<Semaphore>,
}

impl Default for Target {
    fn default() -> Target {
        Target { idle: Vec::new(), turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

/// A connection in use.
struct Lent {
    to: BrokerId,
    life: Uuid,
    link: Link,
    _turn: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Links {
    pub(crate) fn new(metadata: Arc<ClusterMetadata>, options: LinkOptions) -> Links {
        Links { metadata, options, security: OnceLock::new(), targets: Mutex::default() }
    }

    /// Speaks with other brokers as they do, whose listener is protected as ours: `security`. Before the first connection.
    pub(crate) fn protect(&self, security: Arc<ListenerSecurity>) {
        let _ = self.security.set(security);
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn connect(&self, to: BrokerId) -> Result<Link, LinkError> {
        let image = self.metadata.image();
        let broker = image.brokers().get(&to).ok_or(LinkError::Unknown(to))?;
        let endpoint = broker.endpoints.get(&self.options.listener).ok_or(LinkError::Unknown(to))?;
        let security = self.security.get_or_init(ListenerSecurity::plaintext).clone();
        let limits = LinkLimits { setup: self.options.setup_limit, answer: self.options.answer_limit };
        let client = format!("broker-{}", self.options.node);
        Link::connect(&endpoint.host, endpoint.port, security, client, limits).await
    }

    /// Asks a broker over whichever connection is free.
    ///
    /// # Errors
    /// [`LinkError`]: the request may have been carried out.
    pub(crate) async fn ask<R: Request>(
        &self,
        to: BrokerId,
        version: i16,
        request: &R,
    ) -> Result<R::Response, LinkError> {
        let mut lent = self.borrow(to).await?;
        let answer = lent.link.ask(version, request).await?;
        self.keep(lent);
        Ok(answer)
    }

    /// The same with a body that is written already; gives the body of the answer.
    ///
    /// # Errors
    /// [`LinkError`]: the request may have been carried out.
    pub(crate) async fn ask_raw(
        &self,
        to: BrokerId,
        key: kafka_protocol::messages::ApiKey,
        version: i16,
        body: &[u8],
    ) -> Result<bytes::Bytes, LinkError> {
        let mut lent = self.borrow(to).await?;
        let answer = lent.link.ask_raw(key, version, body).await?;
        self.keep(lent);
        Ok(answer)
    }

    /// A connection that leads to the life of the broker that the image shows, once not too many are in use.
    async fn borrow(&self, to: BrokerId) -> Result<Lent, LinkError> {
        let turns = self.targets.lock().entry(to).or_default().turns.clone();
        let turn = timeout(self.options.answer_limit, turns.acquire_owned()).await;
        // Never closed.
        let turn = turn.ok().and_then(Result::ok).ok_or(LinkError::TimedOut)?;
        let life = self.metadata.image().brokers().get(&to).ok_or(LinkError::Unknown(to))?.incarnation;
        let kept = {
            let mut targets = self.targets.lock();
            let idle = &mut targets.entry(to).or_default().idle;
            idle.retain(|(of, _)| *of == life);
            idle.pop()
        };
        let link = match kept {
            Some((_, link)) if link.is_open() => link,
            Some(_) | None => self.connect(to).await?,
        };
        Ok(Lent { to, life, link, _turn: turn })
    }

    fn keep(&self, lent: Lent) {
        let mut targets = self.targets.lock();
        let idle = &mut targets.entry(lent.to).or_default().idle;
        if idle.len() < KEPT {
            idle.push((lent.life, lent.link));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::{FutureExt, future};
    use kafka_protocol::messages::ApiVersionsRequest;
    use tokio::net::TcpListener;
    use varve_metadata::{
        image::{BrokerImage, Endpoint},
        store::MemoryStore,
    };

    use super::*;

    const SILENT: BrokerId = BrokerId(2);

    #[tokio::test]
    async fn a_broker_that_does_not_answer_takes_a_few_connections_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), BrokerId(1), BTreeMap::new());
        let metadata = metadata.await.unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let endpoints = BTreeMap::from([("B".to_owned(), endpoint)]);
        let silent = BrokerImage {
            id: SILENT,
            incarnation: Uuid::new_v4(),
            endpoints,
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        metadata.register(silent).await.unwrap();
        let limit = Duration::from_secs(3600);
        let options =
            LinkOptions { listener: "B".to_owned(), node: BrokerId(1), setup_limit: limit, answer_limit: limit };
        let links = Links::new(metadata, options);
        let request = ApiVersionsRequest::default();
        let asks = (0..=TURNS).map(|_| Box::pin(links.ask(SILENT, 0, &request)));
        let mut asks = future::select_all(asks);
        let mut accepted = Vec::new();
        while accepted.len() < TURNS {
            tokio::select! {
                biased;
                connection = listener.accept() => accepted.push(connection.unwrap().0),
                (answer, ..) = &mut asks => panic!("nobody answers: {answer:?}"),
            }
        }
        assert!(listener.accept().now_or_never().is_none(), "the ninth waits for one of them");
        // One breaks: its turn goes to who waits.
        accepted.pop();
        let (broken, _, rest) = (&mut asks).await;
        assert!(matches!(broken, Err(LinkError::Io(_))));
        let mut rest = future::select_all(rest);
        tokio::select! {
            connection = listener.accept() => drop(connection.unwrap()),
            (answer, ..) = &mut rest => panic!("nobody answers: {answer:?}"),
        }
    }
}
