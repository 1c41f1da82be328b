//! One connection to a broker.

use std::{io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use varve_metadata::model::BrokerId;

use super::{login, stream::LinkStream};
use crate::security::{ListenerSecurity, chain, sasl::TokenError};

/// The largest answer that is believed.
const LARGEST_ANSWER: u32 = 1 << 30;
/// Bytes that are made room for at a time: a length that is claimed costs nothing.
const STEP: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The broker is not registered, or not with the listener that brokers use.
    #[error("broker {0} is not known to listen where brokers connect")]
    Unknown(BrokerId),
    /// The connection cannot be made, or broke.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// One side does not take the other's certificate.
    #[error(
        "TLS between brokers failed: {0}. Each broker's certificate (ssl.keystore) must come from somebody whom the others' \
         ssl.truststore has, be valid now, and name the host of advertised.listeners unless \
         ssl.endpoint.identification.algorithm is empty"
    )]
    Tls(rustls::Error),
    /// This node was not told how to log in.
    #[error("sasl.mechanism.inter.broker.protocol of the listener that brokers use does not say how to log in")]
    NoLogin,
    /// There is no token to log in with.
    #[error(
        "there is no token to log in to other brokers with: {}. See sasl.oauthbearer.token.endpoint.url of the listener that \
         brokers use, and the client's id and secret",
        chain(.0)
    )]
    NoToken(#[from] TokenError),
    /// The other broker does not take this node's name and password, or token, or the other way round.
    #[error("the login as {user} by {mechanism} failed: {reason}. See {see}")]
    Refused {
        /// Whom this node says that it is.
        user: String,
        /// By which mechanism.
        mechanism: &'static str,
        /// Why.
        reason: String,
        /// Where to look.
        see: &'static str,
    },
    /// The other broker's authorizer does not take this node for a broker.
    #[error(
        "the other broker does not allow it: as whom brokers connect must be in super.users, or have CLUSTER_ACTION \
         (kafka-acls.sh --add --cluster --operation ClusterAction --allow-principal User:NAME)"
    )]
    NotAllowed,
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// What came is no answer.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => LinkError::Tls(error.clone()),
            None => LinkError::Io(error),
        }
    }
}

/// How long somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkLimits {
    /// For a connection.
    pub(crate) setup: Duration,
    /// For an answer.
    pub(crate) answer: Duration,
}

/// One connection. What is dropped in the middle of a request is of no use any more.
#[derive(Debug)]
pub(crate) struct Link {
    stream: LinkStream,
    security: Arc<ListenerSecurity>,
    /// When the session ends soon, so that it must be said again who this is.
    renewed_at: Option<Instant>,
    client: StrBytes,
    next: i32,
    limit: Duration,
    /// A request was sent whose answer has not come.
    is_busy: bool,
}

impl Link {
    /// Connects and logs in as `security` says, as a client that calls itself `client`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(crate) async fn connect(
        host: &str,
        port: u16,
        security: Arc<ListenerSecurity>,
        client: String,
        limits: LinkLimits,
    ) -> Result<Link, LinkError> {
        let tls = security.tls.as_ref().and_then(|tls| tls.client());
        let connecting = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            match tls {
                Some(config) => LinkStream::secure(stream, host, config).await,
                None => Ok(LinkStream::Plain(stream)),
            }
        };
        let stream = timeout(limits.setup, connecting).await.map_err(|_| LinkError::TimedOut)??;
        let (client, limit) = (StrBytes::from_string(client), limits.answer);
        let mut link = Link { stream, security, renewed_at: None, client, next: 0, limit, is_busy: false };
        link.log_in().await?;
        Ok(link)
    }

    async fn log_in(&mut self) -> Result<(), LinkError> {
        let security = self.security.clone();
        if let Some(sasl) = &security.sasl {
            self.renewed_at = login::log_in(self, sasl).await?;
        }
        Ok(())
    }

    /// Whether the other side has not closed it, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_busy && self.stream.is_silent()
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no use any more, and the request may have been carried out.
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, LinkError> {
        self.renew().await?;
        self.exchange(version, request).await
    }

    /// Says again who this is, if it is time to.
    async fn renew(&mut self) -> Result<(), LinkError> {
        match self.renewed_at {
            Some(at) if at <= Instant::now() => self.log_in().await,
            Some(_) | None => Ok(()),
        }
    }

    /// One request and its answer, whatever has become of the session.
    pub(super) async fn exchange<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, LinkError> {
        let key = ApiKey::try_from(R::KEY).map_err(|()| LinkError::Malformed("no such request".to_owned()))?;
        let mut body = BytesMut::with_capacity(1024);
        request.encode(&mut body, version).map_err(malformed)?;
        let mut answer = self.exchange_raw(key, version, &body).await?;
        R::Response::decode(&mut answer, version).map_err(malformed)
    }

    /// The same with a body that is written already; gives the body of the answer.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) async fn ask_raw(&mut self, key: ApiKey, version: i16, body: &[u8]) -> Result<Bytes, LinkError> {
        self.renew().await?;
        self.exchange_raw(key, version, body).await
    }

    async fn exchange_raw(&mut self, key: ApiKey, version: i16, body: &[u8]) -> Result<Bytes, LinkError> {
        self.next = self.next.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(self.client.clone()));
        let mut frame = BytesMut::with_capacity(64 + body.len());
        frame.put_i32(0);
        header.encode(&mut frame, key.request_header_version(version)).map_err(malformed)?;
        frame.extend_from_slice(body);
        let length = i32::try_from(frame.len() - 4).map_err(malformed)?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let deadline = Instant::now() + self.limit;
        self.is_busy = true;
        let exchange = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await?;
            read_frame(&mut self.stream).await
        };
        let mut answer = timeout_at(deadline, exchange).await.map_err(|_| LinkError::TimedOut)??;
        let header = ResponseHeader::decode(&mut answer, key.response_header_version(version)).map_err(malformed)?;
        if header.correlation_id != self.next {
            return Err(LinkError::Malformed("it is the answer to another request".to_owned()));
        }
        self.is_busy = false;
        Ok(answer)
    }
}

async fn read_frame(stream: &mut LinkStream) -> Result<Bytes, LinkError> {
    let length = stream.read_u32().await?;
    if length > LARGEST_ANSWER {
        return Err(LinkError::Malformed(format!("{length} bytes are too many")));
    }
    let mut left = length as usize;
    let mut frame = BytesMut::new();
    while left > 0 {
        frame.reserve(left.min(STEP));
        let mut part = (&mut frame).limit(left);
        let read = stream.read_buf(&mut part).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        left -= read;
    }
    Ok(frame.freeze())
}

fn malformed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Malformed(error.to_string())
}
