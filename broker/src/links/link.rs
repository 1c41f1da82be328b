//! One connection to another broker.

use std::{io, time::Duration};

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

use super::LinkOptions;

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
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// What came is no answer.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// One connection. What is dropped in the middle of a request is of no use any more.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    client: StrBytes,
    next: i32,
    limit: Duration,
    /// A request was sent whose answer has not come.
    is_busy: bool,
}

impl Link {
    pub(super) async fn connect(host: &str, port: u16, options: &LinkOptions) -> Result<Link, LinkError> {
        let connecting = TcpStream::connect((host, port));
        let stream = timeout(options.setup_limit, connecting).await.map_err(|_| LinkError::TimedOut)??;
        stream.set_nodelay(true)?;
        let client = StrBytes::from_string(format!("broker-{}", options.node));
        Ok(Link { stream, client, next: 0, limit: options.answer_limit, is_busy: false })
    }

    /// Whether the other side has not closed it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0; 1];
        !self.is_busy
            && matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is of no use any more, and the request may have been carried out.
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, LinkError> {
        let key = ApiKey::try_from(R::KEY).map_err(|()| LinkError::Malformed("no such request".to_owned()))?;
        let mut body = BytesMut::with_capacity(1024);
        request.encode(&mut body, version).map_err(malformed)?;
        let mut answer = self.ask_raw(key, version, &body).await?;
        R::Response::decode(&mut answer, version).map_err(malformed)
    }

    /// The same with a body that is written already; gives the body of the answer.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) async fn ask_raw(&mut self, key: ApiKey, version: i16, body: &[u8]) -> Result<Bytes, LinkError> {
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

async fn read_frame(stream: &mut TcpStream) -> Result<Bytes, LinkError> {
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
