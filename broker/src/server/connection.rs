//! One client: frames in, answers out, in order.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
    time::timeout,
};
use tracing::{Instrument, trace_span};
use varve_metadata::model::Principal;

use super::{
    RequestContext,
    authentication::{ClusterCredentials, Exchange, REAUTHENTICATION_PAUSE, Refusal, Session, Turn},
    budget::{RequestBudget, Reservation},
    dispatch::{self, DispatchError, Reply},
    listener::{Entrance, Shared},
    telemetry::Peer,
    transfer,
    transport::Transport,
    wall_clock,
    welcome::{self, Unwelcome},
};
use crate::{
    security::{
        nonce,
        sasl::{SaslEndpoint, Surroundings},
    },
    wire::{
        frame::{self, FrameError, LENGTH_BYTES},
        key::ApiKey,
    },
};

/// First read of a frame. Large frames are then read to their end and no further, so that at most this much of the
/// next one has to be moved to the front of the buffer.
const FIRST_READ_BYTES: usize = 16 * 1024;
/// A frame is read in steps of so many bytes. A step's memory is reserved when the one before is there, so that a claim costs
/// nothing.
const STEP_BYTES: usize = 1024 * 1024;

/// A step that takes longer than this, however its bytes come, is the last one: the request holds a part of the budget that
/// others wait for.
const STALL: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("no request for the time that connections.max.idle.ms allows")]
    Idle,
    #[error("it was made, and nothing was said")]
    Silent,
    #[error("the client stopped in the middle of a request, or does not take its answer")]
    Stalled,
    #[error(transparent)]
    Unwelcome(#[from] Unwelcome),
    #[error("the session is over, and the client did not say again who it is")]
    SessionOver,
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

/// Serves `stream` until the client leaves, breaks a rule, or the listener closes; a request under way is answered first.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    entrance: &Entrance,
) -> Result<(), Closed> {
    stream.set_nodelay(true)?;
    let closing = entrance.serving.clone();
    let welcomed = tokio::select! {
        biased;
        () = closing.cancelled() => return Ok(()),
        welcomed = welcome::welcome(entrance, stream) => welcomed,
    };
    let welcomed = welcomed.inspect_err(|_| entrance.failed(shared))?;
    let (transport, principal) = welcomed.ok_or(Closed::Silent)?;
    let mut connection = Connection { shared, entrance, transport, buffer: BytesMut::new(), client: Arc::default() };
    let ended = connection.converse(peer, principal).await;
    shared.broker.telemetry.disconnected(&connection.client);
    shared.broker.shares.disconnected(connection.client.id());
    connection.transport.close().await;
    ended
}

struct Connection<'a> {
    shared: &'a Shared,
    entrance: &'a Entrance,
    transport: Transport,
    buffer: BytesMut,
    client: Arc<Peer>,
}

impl Connection<'_> {
    async fn converse(&mut self, peer: SocketAddr, principal: Principal) -> Result<(), Closed> {
        let mut session = match &self.entrance.security.sasl {
            None => {
                if self.entrance.security.tls.is_some() {
                    self.shared.measured.connections.authenticated(&self.entrance.name.0, true);
                }
                Arc::new(Session::of(principal))
            }
            Some(sasl) => match self.authenticate(sasl, Exchange::new(), None).await? {
                Some(session) => session,
                None => return Ok(()),
            },
        };
        let mut renewed: Option<Instant> = None;
        let closing = self.entrance.serving.clone();
        loop {
            let read = tokio::select! {
                biased;
                () = closing.cancelled() => return Ok(()),
                read = timeout(self.shared.limits.idle, self.read_request()) => read,
            };
            let Some((frame, reservation)) = read.map_err(|_| Closed::Idle)?? else { return Ok(()) };
            let now = Instant::now();
            if let Some(sasl) = &self.entrance.security.sasl {
                let too_soon = renewed.is_some_and(|before| now - before < REAUTHENTICATION_PAUSE);
                if frame::names(&frame, ApiKey::SaslHandshake) && session.expires.is_some() && !too_soon {
                    renewed = Some(now);
                    match self.authenticate(sasl, Exchange::again(&session), Some(frame)).await? {
                        Some(again) => session = again,
                        None => return Ok(()),
                    }
                    continue;
                }
                if session.is_over(now) {
                    self.shared.measured.connections.sessions_expired.inc();
                    return Err(Closed::SessionOver);
                }
            }
            let pause = self.answer(peer, &session, frame, reservation).await?;
            if let Some(pause) = pause {
                // The socket's buffers fill meanwhile: that is what slows a producer down.
                tokio::select! {
                    () = closing.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// Answers one request, and says how long the next one is to wait.
    async fn answer(
        &mut self,
        peer: SocketAddr,
        session: &Session,
        mut frame: Bytes,
        reservation: Option<Reservation>,
    ) -> Result<Option<Duration>, Closed> {
        let shared = self.shared;
        let bytes = frame.len();
        let header = frame::parse_header(&mut frame)?;
        let context = RequestContext {
            api: header.api.key,
            api_version: header.version,
            correlation_id: header.correlation_id,
            client_id: header.client_id,
            principal: session.principal.clone(),
            by_token: session.by_token,
            protocol: self.entrance.security.protocol,
            peer,
            listener: self.entrance.name.clone(),
            received: Instant::now(),
            bytes,
            connection: Arc::clone(&self.client),
        };
        let span = shared.sampler.begin(&context);
        let under_way = shared.measured.begins(header.api.key);
        let answered = dispatch::answer(&shared.broker, header.api, &context, frame).instrument(span.clone()).await;
        drop(under_way);
        let reply = answered.inspect_err(|error| {
            span.record("otel.status_code", "error").record("otel.status_description", tracing::field::display(error));
        })?;
        shared.measured.answered(header.api.key, context.received.elapsed());
        // The request's bytes are gone by now: what waits for a slow reader below is its answer alone.
        drop((context, reservation));
        let pause = reply.pause();
        let written = async { self.write(reply).instrument(trace_span!(target: "varve_trace", "write")).await };
        written.instrument(span).await?;
        Ok(pause)
    }

    /// Finds out who the client is; `None` if it leaves before that, or the node stops. `first` is a frame that was read
    /// already.
    async fn authenticate(
        &mut self,
        sasl: &SaslEndpoint,
        mut exchange: Exchange,
        mut first: Option<Bytes>,
    ) -> Result<Option<Arc<Session>>, Closed> {
        let (shared, state, again) = (self.shared, sasl.state(), first.is_some());
        let closing = self.entrance.serving.clone();
        let counted = |success: bool| match again {
            true => shared.measured.connections.reauthenticated(&self.entrance.name.0, success),
            false => shared.measured.connections.authenticated(&self.entrance.name.0, success),
        };
        loop {
            let frame = match first.take() {
                Some(frame) => frame,
                None => {
                    let read = tokio::select! {
                        biased;
                        () = closing.cancelled() => return Ok(None),
                        read = timeout(STALL, self.read_frame(state.config.max_request_bytes, &shared.logins)) => read,
                    };
                    match read.map_err(|_| Closed::Stalled)?? {
                        Some((frame, _)) => frame,
                        None => return Ok(None),
                    }
                }
            };
            let turn = {
                let image = shared.broker.metadata.image();
                let token_secret = shared.broker.config.delegation_tokens.secret.as_ref();
                let credentials = ClusterCredentials { image: &image, token_secret };
                let around = Surroundings { now_ms: wall_clock().to_wire(), nonce: &nonce, credentials: &credentials };
                exchange.take(frame, &state, &around, (&image, &self.client))
            };
            let refusal = match turn {
                Ok(Turn { reply, found }) => {
                    if let Some(reply) = reply {
                        self.write(Reply::Frame(reply)).await?;
                    }
                    if let Some(found) = found {
                        counted(true);
                        return Ok(Some(found.begin(Instant::now())));
                    }
                    continue;
                }
                Err(refusal) => refusal,
            };
            counted(false);
            let Refusal { reply, reason } = refusal;
            // Whoever guesses passwords does not learn fast.
            tokio::select! {
                () = closing.cancelled() => {}
                () = tokio::time::sleep(shared.limits.failed_authentication_delay) => {}
            }
            if let Some(reply) = reply {
                self.write(Reply::Frame(reply)).await?;
            }
            return Err(Unwelcome::Sasl(reason).into());
        }
    }

    /// The next request of somebody who is known, and its part of the budget; `None` when the client has left.
    async fn read_request(&mut self) -> Result<Option<(Bytes, Option<Reservation>)>, Closed> {
        let shared = self.shared;
        self.read_frame(shared.limits.frame_bytes, &shared.budget).await
    }

    /// The next frame of at most `max` bytes, without its length, and its part of `budget`; `None` when the client has left.
    async fn read_frame(
        &mut self,
        max: usize,
        budget: &RequestBudget,
    ) -> Result<Option<(Bytes, Option<Reservation>)>, Closed> {
        while self.buffer.len() < LENGTH_BYTES {
            if self.transport.read_some(&mut self.buffer, FIRST_READ_BYTES).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(unexpected_end().into()) };
            }
        }
        let bytes = frame::check_length(self.buffer.get_i32(), max)?;
        self.shared.measured.requests.received_bytes.inc_by((LENGTH_BYTES + bytes) as u64);
        // Small frames are bounded by the number of connections.
        let reservation = match bytes {
            ..=FIRST_READ_BYTES => None,
            _ => Some(budget.reserve(bytes).await),
        };
        fill(&mut self.transport, &mut self.buffer, bytes).await?;
        Ok(Some((self.buffer.split_to(bytes).freeze(), reservation)))
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

/// Reads until `buffer` holds `bytes`, step by step, and no further.
async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, bytes: usize) -> Result<(), Closed> {
    while buffer.len() < bytes {
        let end = bytes.min(buffer.len() + STEP_BYTES);
        // The buffer doubles when it grows, so that steps are not copied again and again.
        buffer.reserve(end - buffer.len());
        timeout(STALL, fill_step(stream, buffer, end)).await.map_err(|_| Closed::Stalled)??;
    }
    Ok(())
}

async fn fill_step(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, end: usize) -> io::Result<()> {
    while buffer.len() < end {
        let missing = (end - buffer.len()) as u64;
        if (&mut *stream).take(missing).read_buf(buffer).await? == 0 {
            return Err(unexpected_end());
        }
    }
    Ok(())
}

fn unexpected_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the client left in the middle of a request")
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        time::{Instant, sleep},
    };

    use super::*;

    /// What becomes of a request of `bytes` bytes that come in pieces of `piece`, each after `pause`, and how long it took.
    async fn filled(bytes: usize, piece: usize, pause: Duration) -> (Result<(), Closed>, Duration) {
        let (mut client, mut server) = tokio::io::duplex(4 * STEP_BYTES);
        tokio::spawn(async move {
            while client.write_all(&vec![7; piece]).await.is_ok() {
                sleep(pause).await;
            }
        });
        let (begin, mut buffer) = (Instant::now(), BytesMut::new());
        let ended = fill(&mut server, &mut buffer, bytes).await;
        assert!(buffer.len() <= bytes, "nothing of the next request");
        (ended, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_byte_by_byte_is_given_up_in_time() {
        let (ended, took) = filled(STEP_BYTES, 1, Duration::from_secs(29)).await;
        assert!(matches!(ended, Err(Closed::Stalled)), "{ended:?}");
        assert_eq!(took.as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_request_may_take_its_time_as_long_as_each_of_its_steps_does_not() {
        let (ended, took) = filled(3 * STEP_BYTES + 5, STEP_BYTES, Duration::from_secs(29)).await;
        assert!(ended.is_ok(), "{ended:?}");
        assert!(took > 2 * STALL, "{took:?}");
    }
}
