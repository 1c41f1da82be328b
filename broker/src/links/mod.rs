//! Connections to other brokers, over the listener that `inter.broker.listener.name` names.
//!
//! A [`Link`] is one connection with one request at a time. [`Links`] knows where brokers are, and keeps those that nobody
//! uses for the next request.

mod link;

use std::{collections::HashMap, sync::Arc, time::Duration};

use kafka_protocol::protocol::Request;
use parking_lot::Mutex;
use uuid::Uuid;
use varve_metadata::{cluster::ClusterMetadata, model::BrokerId};

pub(crate) use link::{Link, LinkError};

/// Connections to one broker that are kept for later.
const KEPT: usize = 4;

/// How other brokers are reached.
#[derive(Clone, Debug)]
pub(crate) struct LinkOptions {
    /// The listener.
    pub(crate) listener: String,
    /// Who we are.
    pub(crate) node: BrokerId,
    /// `socket.connection.setup.timeout.ms`.
    pub(crate) setup_limit: Duration,
    /// How long an answer may take (`request.timeout.ms`).
    pub(crate) answer_limit: Duration,
}

/// Connections to all other brokers.
pub(crate) struct Links {
    metadata: Arc<ClusterMetadata>,
    options: LinkOptions,
    /// By broker; each of the life of the broker that it leads to.
    idle: Mutex<HashMap<BrokerId, Vec<(Uuid, Link)>>>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Links {
    pub(crate) fn new(metadata: Arc<ClusterMetadata>, options: LinkOptions) -> Links {
        Links { metadata, options, idle: Mutex::default() }
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn connect(&self, to: BrokerId) -> Result<Link, LinkError> {
        let image = self.metadata.image();
        let broker = image.brokers().get(&to).ok_or(LinkError::Unknown(to))?;
        let endpoint = broker.endpoints.get(&self.options.listener).ok_or(LinkError::Unknown(to))?;
        Link::connect(&endpoint.host, endpoint.port, &self.options).await
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
        let (life, mut link) = self.free(to).await?;
        let answer = link.ask(version, request).await?;
        self.keep(to, life, link);
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
        let (life, mut link) = self.free(to).await?;
        let answer = link.ask_raw(key, version, body).await?;
        self.keep(to, life, link);
        Ok(answer)
    }

    /// A connection that leads to the life of the broker that the image shows.
    async fn free(&self, to: BrokerId) -> Result<(Uuid, Link), LinkError> {
        let life = self.metadata.image().brokers().get(&to).ok_or(LinkError::Unknown(to))?.incarnation;
        let kept = {
            let mut idle = self.idle.lock();
            let links = idle.entry(to).or_default();
            links.retain(|(of, _)| *of == life);
            links.pop()
        };
        match kept {
            Some((_, link)) if link.is_open() => Ok((life, link)),
            Some(_) | None => Ok((life, self.connect(to).await?)),
        }
    }

    fn keep(&self, to: BrokerId, life: Uuid, link: Link) {
        let mut idle = self.idle.lock();
        let links = idle.entry(to).or_default();
        if links.len() < KEPT {
            links.push((life, link));
        }
    }
}
