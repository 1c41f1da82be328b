//! One client: frames in, answers out, in order.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use varve_metadata::model::Principal;

use super::{
    RequestContext,
    budget::Reservation,
    dispatch::{self, DispatchError, Reply},
    listener::{Entrance, Shared},
    transfer,
    transport::Transport,
    welcome::{self, Unwelcome},
};
use crate::wire::frame::{self, FrameError, LENGTH_BYTES};

/// First read of a frame. Large frames are then read to their end and no further, so that at most this much of the
/// next one has to be moved to the front of the buffer.
const FIRST_READ_BYTES: usize = 16 * 1024;
/// Up to here a frame's memory is reserved at once; beyond, it doubles as bytes arrive, so that a claim costs nothing.
const GROW_FROM_BYTES: usize = 1024 * 1024;

/// A request whose next byte takes longer than this is given up: it holds a part of the budget that others wait for.
const STALL: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("no request for the time that connections.max.idle.ms allows")]
    Idle,
    #[error("the client stopped in the middle of a request, or does not take its answer")]
    Stalled,
    #[error(transparent)]
    Unwelcome(#[from] Unwelcome),
    #[error(transparent)]
    Refused(#[from] DispatchError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FrameError> for Closed {
    fn from(error: FrameError) -> Closed {
        Closed::Refused(error.into())
    }
}

/// Serves `stream` until the client leaves, breaks a rule, or the node stops.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    entrance: &Entrance,
) -> Result<(), Closed> {
    stream.set_nodelay(true)?;
    let shutdown = shared.broker.shutdown.clone();
    let welcomed = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        welcomed = welcome::welcome(entrance, stream) => welcomed,
    };
    let (transport, principal) = welcomed?;
    let mut connection = Connection { shared, transport, buffer: BytesMut::new() };
    let ended = connection.serve_requests(peer, entrance, &principal).await;
    connection.transport.close().await;
    ended
}

struct Connection<'a> {
    shared: &'a Shared,
    transport: Transport,
    buffer: BytesMut,
}

impl Connection<'_> {
    async fn serve_requests(
        &mut self,
        peer: SocketAddr,
        entrance: &Entrance,
        principal: &Principal,
    ) -> Result<(), Closed> {
        let shared = self.shared;
        let shutdown = shared.broker.shutdown.clone();
        loop {
            let read = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                read = timeout(shared.limits.idle, self.read_frame()) => read,
            };
            let Some((mut frame, reservation)) = read.map_err(|_| Closed::Idle)?? else { return Ok(()) };
            let bytes = frame.len();
            let header = frame::parse_header(&mut frame)?;
            let context = RequestContext {
                api: header.api.key,
                api_version: header.version,
                correlation_id: header.correlation_id,
                client_id: header.client_id,
                principal: principal.clone(),
                protocol: entrance.security.protocol,
                peer,
                listener: entrance.name.clone(),
                received: Instant::now(),
                bytes,
            };
            let reply = dispatch::answer(&shared.broker, header.api, &context, frame).await?;
            shared.measured.answered(header.api.key, context.received.elapsed());
            // The request's bytes are gone by now: what waits for a slow reader below is its answer alone.
            drop((context, reservation));
            let pause = reply.pause();
            self.write(reply).await?;
            if let Some(pause) = pause {
                // The socket's buffers fill meanwhile: that is what slows a producer down.
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// The next frame, without its length, and its part of the budget; `None` when the client has left.
    async fn read_frame(&mut self) -> Result<Option<(Bytes, Option<Reservation>)>, Closed> {
        while self.buffer.len() < LENGTH_BYTES {
            if self.transport.read_some(&mut self.buffer, FIRST_READ_BYTES).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(unexpected_end().into()) };
            }
        }
        let bytes = frame::check_length(self.buffer.get_i32(), self.shared.limits.frame_bytes)?;
        self.shared.measured.requests.received_bytes.inc_by((LENGTH_BYTES + bytes) as u64);
        // Small frames are bounded by the number of connections.
        let reservation = match bytes {
            ..=FIRST_READ_BYTES => None,
            _ => Some(self.shared.budget.reserve(bytes).await),
        };
        while self.buffer.len() < bytes {
            let missing = bytes - self.buffer.len();
            let step = missing.min(GROW_FROM_BYTES.max(self.buffer.len()));
            if timeout(STALL, self.read_up_to(step)).await.map_err(|_| Closed::Stalled)?? == 0 {
                return Err(unexpected_end().into());
            }
        }
        Ok(Some((self.buffer.split_to(bytes).freeze(), reservation)))
    }

    /// One read of at most `limit` bytes; reserves memory for them. 0 is the end.
    async fn read_up_to(&mut self, limit: usize) -> io::Result<usize> {
        self.buffer.reserve(limit);
        (&mut self.transport).take(limit as u64).read_buf(&mut self.buffer).await
    }

    async fn write(&mut self, reply: Reply) -> Result<(), Closed> {
        let reply = match reply {
            Reply::Throttled(reply, _) => *reply,
            reply => reply,
        };
        let bytes = match &reply {
            Reply::Frame(frame) => frame.len() as u64,
            Reply::Fetch(frame) => frame.bytes(),
            Reply::Nothing | Reply::Throttled(..) => 0,
        };
        let idle = self.shared.limits.idle;
        let written = match reply {
            Reply::Frame(frame) => transfer::write_all(&mut self.transport, &frame, idle).await,
            Reply::Fetch(frame) => transfer::send(&mut self.transport, frame, idle).await,
            Reply::Nothing | Reply::Throttled(..) => Ok(()),
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Closed::Stalled,
            _ => error.into(),
        })?;
        self.shared.measured.requests.sent_bytes.inc_by(bytes);
        Ok(())
    }
}

fn unexpected_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the client left in the middle of a request")
}
