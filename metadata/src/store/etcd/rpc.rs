//! Calls to whichever member of etcd answers: deadlines, the next member when one does not, tokens.

use std::{
    error::Error,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::AsciiMetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

use super::{
    ConnectError, EtcdOptions,
    messages::{AuthenticateRequest, AuthenticateResponse},
};
use crate::store::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may be silent before it is asked for a sign of life, and how long that may take.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(3);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before a read is tried again.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// The largest answer that is taken: a page of a range, or the changes of a few revisions.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What became of a call that failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// It did not happen: no member was reached, or etcd refused it.
    Not(Status),
    /// It may have happened.
    Maybe(Status),
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> StoreError {
        match error {
            CallError::Not(status) => StoreError::Unavailable(Box::new(status)),
            CallError::Maybe(status) => StoreError::Unknown(Box::new(status)),
        }
    }
}

impl CallError {
    /// Whether etcd has answered, and would say the same again.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, CallError::Not(status) if is_refusal(status.code()))
    }

    /// For calls that change nothing, or nothing that matters: whether they happened is all the same.
    pub(super) fn unavailable(self) -> StoreError {
        let (CallError::Not(status) | CallError::Maybe(status)) = self;
        StoreError::Unavailable(Box::new(status))
    }
}

/// Connections to the members, one of which is in use.
pub(super) struct Rpc {
    members: Vec<Channel>,
    in_use: AtomicUsize,
    credentials: Option<(String, String)>,
    token: ArcSwapOption<AsciiMetadataValue>,
    timeout: Duration,
}

impl Rpc {
    /// Nothing is connected yet.
    pub(super) fn new(options: &EtcdOptions) -> Result<Rpc, ConnectError> {
        let members = options.endpoints.iter().map(|member| channel(member, options)).collect::<Result<_, _>>()?;
        let credentials = options.credentials.as_ref().map(|given| (given.user.clone(), given.password.clone()));
        Ok(Rpc {
            members,
            in_use: AtomicUsize::new(options.begin_with % options.endpoints.len().max(1)),
            credentials,
            token: ArcSwapOption::empty(),
            timeout: options.request_timeout,
        })
    }

    /// A call that changes nothing, or may be made twice: tried on every member, and again where a connection broke under it.
    pub(super) async fn read<Q, A>(&self, path: &'static str, ask: &Q) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let begun = Instant::now();
        loop {
            match self.call(path, ask).await {
                // Members without a leader say so at once: they will have one in a moment.
                Err(CallError::Maybe(_)) if begun.elapsed() + READ_PAUSE < self.timeout => sleep(READ_PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    /// A call that is made once, or at most tried where nobody was reached before.
    pub(super) async fn call<Q, A>(&self, path: &'static str, ask: &Q) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut renewed = false;
        let mut unreached = 0;
        loop {
            let used = self.in_use.load(Ordering::Relaxed);
            let answered = timeout(self.timeout, self.once(used, path, ask.clone())).await;
            let status = match answered {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("etcd did not answer in time"),
            };
            match status.code() {
                // A token that etcd does not know any more, or one that none has asked for yet.
                _ if is_stale_token(&status) && self.credentials.is_some() && !renewed => {
                    renewed = true;
                    self.forget_token();
                }
                _ if never_sent(&status) => {
                    self.turn_from(used);
                    unreached += 1;
                    if unreached >= self.members.len() {
                        return Err(CallError::Not(status));
                    }
                }
                code if is_refusal(code) => return Err(CallError::Not(status)),
                _ => {
                    self.turn_from(used);
                    return Err(CallError::Maybe(status));
                }
            }
        }
    }

    async fn once<Q, A>(&self, member: usize, path: &'static str, ask: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let request = self.authenticated(member, Request::new(ask)).await?;
        self.unary(member, path, request).await
    }

    async fn unary<Q, A>(&self, member: usize, path: &'static str, request: Request<Q>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc(member).await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    /// Opens a stream of answers to `first`, which ends with its member or when that one has lost the others.
    pub(super) async fn open<Q, A>(&self, path: &'static str, first: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + 'static,
        A: Message + Default + 'static,
    {
        let used = self.in_use.load(Ordering::Relaxed);
        // The asking side stays open: to close it would end the stream.
        let asks = stream::once(async { first }).chain(stream::pending());
        let opened = timeout(self.timeout, self.stream(used, path, asks)).await;
        let opened = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("etcd did not answer in time")));
        opened.inspect_err(|status| {
            if is_stale_token(status) {
                self.forget_token();
            } else {
                self.turn_from(used);
            }
        })
    }

    /// One question over a call that is a stream in etcd's API. Whoever waits no longer turns to the next member, too.
    pub(super) async fn ask<Q, A>(&self, path: &'static str, ask: Q) -> Result<A, CallError>
    where
        Q: Message + Send + 'static,
        A: Message + Default + 'static,
    {
        let mut asked = Asked { rpc: self, member: self.member_in_use(), is_answered: false };
        let answer = async {
            let mut answers: Streaming<A> = self.open(path, ask).await?;
            answers.message().await?.ok_or_else(|| Status::unavailable("etcd ended the call"))
        };
        let answered = timeout(self.timeout, answer).await;
        let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("etcd did not answer in time")));
        // A member that does not know our token has answered.
        asked.is_answered = answered.as_ref().err().is_none_or(is_stale_token);
        answered.map_err(CallError::Maybe)
    }

    async fn stream<Q, A>(
        &self,
        member: usize,
        path: &'static str,
        asks: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Send + 'static,
        A: Message + Default + 'static,
    {
        let mut request = self.authenticated(member, Request::new(asks)).await?;
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        let mut grpc = self.grpc(member).await?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    async fn grpc(&self, member: usize) -> Result<Grpc<Channel>, Status> {
        let channel = self.members[member % self.members.len()].clone();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    async fn authenticated<T>(&self, member: usize, mut request: Request<T>) -> Result<Request<T>, Status> {
        let Some((user, password)) = &self.credentials else { return Ok(request) };
        let token = match self.token.load_full() {
            Some(token) => token,
            None => {
                let ask = AuthenticateRequest { name: user.clone(), password: password.clone() };
                let answer: AuthenticateResponse =
                    self.unary(member, "/etcdserverpb.Auth/Authenticate", Request::new(ask)).await?;
                let token = AsciiMetadataValue::try_from(answer.token)
                    .map_err(|_| Status::internal("etcd's token is no header value"))?;
                let token = std::sync::Arc::new(token);
                self.token.store(Some(token.clone()));
                token
            }
        };
        request.metadata_mut().insert("authorization", token.as_ref().clone());
        Ok(request)
    }

    /// Uses the next member from now on, unless somebody turned away from this one already.
    pub(super) fn turn_from(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.in_use.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The next call asks for a token of its own, where etcd wants one.
    pub(super) fn forget_token(&self) {
        self.token.store(None);
    }

    pub(super) fn member_in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }
}

/// A question to a member, which is turned from when the question is dropped before there is an answer.
struct Asked<'a> {
    rpc: &'a Rpc,
    member: usize,
    is_answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.rpc.turn_from(self.member);
        }
    }
}

fn channel(member: &str, options: &EtcdOptions) -> Result<Channel, ConnectError> {
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let wrong = |error| ConnectError::Endpoint { endpoint: member.to_owned(), error };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{member}"))
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    if let Some(tls) = &options.tls {
        let mut config = ClientTlsConfig::new();
        config = match &tls.ca {
            Some(ca) => config.ca_certificate(Certificate::from_pem(ca)),
            None => config.with_native_roots(),
        };
        if let Some((certificate, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(config).map_err(wrong)?;
    }
    Ok(endpoint.connect_lazy())
}

/// Whether the connection could not even be made.
fn never_sent(status: &Status) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether etcd does not know the token of a call: it ended, or, where tokens are signed, users have changed since (that
/// one it says with a code of its own).
fn is_stale_token(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("revision of auth store is old")
}

/// Codes by which etcd says that it did nothing. `ResourceExhausted`: no space, or too many requests.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}
