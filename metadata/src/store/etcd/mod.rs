//! The store of a cluster: etcd's third API.
//!
//! ```text
//! get, range, transact ─► Rpc ─► the member in use, or the next one ─► etcd
//! watch ◄─ Feed ◄─ one stream over the whole prefix (follow.rs), opened anew after every break
//! ```
//! A transaction whose answer was lost is [`StoreError::Unknown`]: [`transact_settled`](super::transact_settled) finds out.
//! What etcd compacted before we saw it makes watchers read anew. An etcd that was put back to an older state, or another one in its
//! place, ends their watches instead: what it lacks was deleted by nobody (follow.rs).

mod follow;
mod messages;
mod rpc;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinHandle;

use self::{
    messages::{
        Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
        LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, Operation, Outcome, PutRequest, RangeRequest,
        RangeResponse, RequestOp, ResponseHeader, Target, TxnRequest, TxnResponse,
    },
    rpc::{CallError, Rpc},
};
use super::{
    Expect, LeaseId, MetadataStore, Revision, Snapshot, StoreError, StoreFuture, Transaction, TransactionLimits,
    Versioned, Watch, Write, feed::Feed,
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";

/// Keys that one answer of a range holds; more are read page by page, at the revision of the first.
const PAGE_KEYS: i64 = 4096;

/// etcd's defaults are 128 operations (`--max-txn-ops`) and 1.5 MiB (`--max-request-bytes`); the rest is for framing.
const LIMITS: TransactionLimits = TransactionLimits { operations: 128, bytes: 1 << 20 };

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `host:port` of its members; at least one.
    pub endpoints: Vec<String>,
    /// The index of the member to begin with, counted round: clients that begin with different ones do not all wait for the
    /// same one when it hangs.
    pub begin_with: usize,
    /// What all keys begin with, followed by `/`. Two clusters in one etcd have different ones, neither of which is the
    /// beginning of the other's path.
    pub prefix: String,
    /// Speaks TLS.
    pub tls: Option<EtcdTls>,
    /// Logs in, where etcd's authentication is enabled.
    pub credentials: Option<EtcdCredentials>,
    /// How long one request may take.
    pub request_timeout: Duration,
}

/// Certificates, as PEM.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// Who signed the members' certificates; `None`: whom the operating system trusts.
    pub ca: Option<Vec<u8>>,
    /// Our own certificate and its key, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdCredentials {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for EtcdCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdCredentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No member was named.
    #[error("no member of etcd is named")]
    NoEndpoint,
    /// An address or a certificate is none.
    #[error("etcd cannot be reached at {endpoint}")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// Why.
        #[source]
        error: tonic::transport::Error,
    },
    /// No member answers: it may later.
    #[error("etcd does not answer")]
    Store(#[source] StoreError),
    /// etcd knows no such user, or the user may not: trying again does not help.
    #[error("etcd refuses to be used: check varve.metadata.etcd.user, its password and its rights")]
    Refused(#[source] StoreError),
}

/// Cluster state in etcd. Connections are made anew by themselves.
pub struct EtcdStore {
    rpc: Arc<Rpc>,
    root: String,
    /// Its name for itself: the members that agree, since they were first started together.
    etcd: u64,
    feed: Arc<Feed>,
    follower: JoinHandle<()>,
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl EtcdStore {
    /// Connects, and follows the keys under the prefix from then on, in a task of the current runtime.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(options: &EtcdOptions) -> Result<EtcdStore, ConnectError> {
        if options.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let rpc = Arc::new(Rpc::new(options)?);
        let root = format!("{}/", options.prefix.trim_end_matches('/'));
        let now = follow::standing(&rpc, &root).await.map_err(|error| match error.is_refusal() {
            true => ConnectError::Refused(error.unavailable()),
            false => ConnectError::Store(error.unavailable()),
        })?;
        let feed = Arc::new(Feed::new(now.revision));
        let follower = tokio::spawn(follow::follow(rpc.clone(), root.clone(), Arc::downgrade(&feed), now));
        Ok(EtcdStore { rpc, root, etcd: now.etcd, feed, follower })
    }

    /// Whether the etcd that answers is the one that is followed.
    fn check(&self, header: Option<&ResponseHeader>) -> Result<(), StoreError> {
        match header {
            Some(header) if follow::is_another(self.etcd, header.cluster_id) => {
                Err(StoreError::Unavailable("another etcd answers than the one that was followed".into()))
            }
            _ => Ok(()),
        }
    }

    fn key(&self, key: &str) -> Bytes {
        format!("{}{key}", self.root).into()
    }

    fn request(&self, transaction: Transaction) -> TxnRequest {
        let compare = transaction.expect.into_iter().map(|(key, expect)| {
            let revision = match expect {
                Expect::Absent => 0,
                Expect::At(Revision(revision)) => to_wire(revision),
            };
            let value = Some(Target::ModRevision(revision));
            Compare { result: messages::EQUAL, target: messages::MOD, key: self.key(&key), value }
        });
        let compare = compare.collect();
        let operation = |write| match write {
            Write::Put(key, value) => Operation::Put(PutRequest { key: self.key(&key), value, lease: 0 }),
            Write::PutLeased(key, value, LeaseId(lease)) => {
                Operation::Put(PutRequest { key: self.key(&key), value, lease: to_wire(lease) })
            }
            Write::Delete(key) => Operation::Delete(DeleteRangeRequest { key: self.key(&key) }),
        };
        let writes = transaction.writes.into_iter();
        let success = writes.map(|write| RequestOp { operation: Some(operation(write)) }).collect();
        TxnRequest { compare, success }
    }

    async fn read_range(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let range_end = end_of_prefix(&self.key(prefix));
        let mut ask = RangeRequest { key: self.key(prefix), range_end, limit: PAGE_KEYS, revision: 0 };
        let mut snapshot = Snapshot::default();
        loop {
            let page: RangeResponse = self.rpc.read(RANGE, &ask).await.map_err(CallError::unavailable)?;
            self.check(page.header.as_ref())?;
            if ask.revision == 0 {
                ask.revision = page.header.map_or(0, |header| header.revision);
                snapshot.revision = from_wire(ask.revision);
            }
            let Some(last) = page.kvs.last().map(|kv| kv.key.clone()) else { break };
            for kv in page.kvs {
                if let Some(key) = own_key(&self.root, &kv.key) {
                    let modified = from_wire(kv.mod_revision);
                    snapshot.entries.push((key.to_owned(), Versioned { value: kv.value, modified }));
                }
            }
            if !page.more {
                break;
            }
            // The smallest key behind the last one.
            ask.key = [last.as_ref(), b"\0"].concat().into();
        }
        Ok(snapshot)
    }
}

impl MetadataStore for EtcdStore {
    fn identity(&self) -> Option<String> {
        (self.etcd != 0).then(|| format!("{:x}", self.etcd))
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
        Box::pin(async move {
            let ask = RangeRequest { key: self.key(key), range_end: Bytes::new(), limit: 1, revision: 0 };
            let answer: RangeResponse = self.rpc.read(RANGE, &ask).await.map_err(CallError::unavailable)?;
            self.check(answer.header.as_ref())?;
            let found = answer.kvs.into_iter().next();
            Ok(found.map(|kv| Versioned { value: kv.value, modified: from_wire(kv.mod_revision) }))
        })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
        Box::pin(self.read_range(prefix))
    }

    fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
        Box::pin(async move {
            if !LIMITS.allow(&transaction) {
                return Err(StoreError::Unavailable("the transaction is larger than etcd takes".into()));
            }
            let answer: TxnResponse = self.rpc.call(TXN, &self.request(transaction)).await?;
            if !answer.succeeded {
                return Err(StoreError::Conflict);
            }
            let changed = answer.responses.iter().any(|response| match &response.outcome {
                Some(Outcome::Delete(deleted)) => deleted.deleted > 0,
                Some(Outcome::Put(_)) | None => true,
            });
            // What removed nothing made no revision: who waits for the answer's would wait for somebody else's write.
            let revision = answer.header.map_or(Revision(0), |header| from_wire(header.revision));
            Ok(if changed { revision } else { self.feed.newest() })
        })
    }

    fn limits(&self) -> TransactionLimits {
        LIMITS
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        Box::pin(async move {
            // etcd counts in seconds, and has a smallest lease of its own, of about two.
            let ttl = to_wire(ttl.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)).max(1);
            let answer: LeaseGrantResponse = self
                .rpc
                .read("/etcdserverpb.Lease/LeaseGrant", &LeaseGrantRequest { ttl })
                .await
                .map_err(CallError::unavailable)?;
            u64::try_from(answer.id).map(LeaseId).map_err(|_| StoreError::Unavailable("etcd granted no lease".into()))
        })
    }

    fn renew(&self, LeaseId(lease): LeaseId) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let ask = LeaseKeepAliveRequest { id: to_wire(lease) };
            let answer: LeaseKeepAliveResponse =
                self.rpc.ask("/etcdserverpb.Lease/LeaseKeepAlive", ask).await.map_err(CallError::unavailable)?;
            Ok(answer.ttl > 0)
        })
    }

    fn revoke(&self, LeaseId(lease): LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let ask = LeaseRevokeRequest { id: to_wire(lease) };
            let answer: Result<LeaseRevokeResponse, CallError> =
                self.rpc.read("/etcdserverpb.Lease/LeaseRevoke", &ask).await;
            match answer {
                Err(CallError::Not(status)) if status.code() == tonic::Code::NotFound => Ok(()),
                other => other.map(drop).map_err(CallError::unavailable),
            }
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.feed.watch(prefix, after)
    }
}

/// The first key behind all that begin with `prefix`.
fn end_of_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    // etcd's "up to the last key".
    Bytes::from_static(b"\0")
}

/// Our own name for a key under `root`; `None` for one that is no text, which nobody of us wrote.
fn own_key<'a>(root: &str, key: &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(key).ok()?.strip_prefix(root)
}

fn from_wire(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0))
}

fn to_wire(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_first_key_that_does_not_begin_with_it() {
        assert_eq!(end_of_prefix(b"/varve/"), "/varve0");
        assert_eq!(end_of_prefix(b"a\xff\xff"), "b");
        assert_eq!(end_of_prefix(b"\xff"), "\0");
    }

    #[test]
    fn a_transaction_becomes_comparisons_of_revisions_and_operations() {
        let request = |transaction| {
            let (rpc, feed) = (Rpc::new(&options()).unwrap(), Arc::new(Feed::new(Revision(0))));
            let follower = tokio::spawn(async {});
            EtcdStore { rpc: rpc.into(), root: "/v/".into(), etcd: 0, feed, follower }.request(transaction)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _entered = runtime.enter();
        let transaction = Transaction::default().put_leased("a", "1", LeaseId(7)).delete("b");
        let request = request(transaction.expecting("a", Expect::Absent).expecting("b", Expect::At(Revision(9))));
        let compared: Vec<_> = request.compare.iter().map(|one| (one.key.as_ref(), one.value.clone())).collect();
        let at = |revision| Some(Target::ModRevision(revision));
        assert_eq!(compared, [(b"/v/a".as_slice(), at(0)), (b"/v/b".as_slice(), at(9))]);
        let put = PutRequest { key: "/v/a".into(), value: "1".into(), lease: 7 };
        assert_eq!(request.success[0].operation, Some(Operation::Put(put)));
        assert_eq!(request.success[1].operation, Some(Operation::Delete(DeleteRangeRequest { key: "/v/b".into() })));
    }

    fn options() -> EtcdOptions {
        EtcdOptions {
            endpoints: vec!["127.0.0.1:1".into()],
            begin_with: 0,
            prefix: "/v".into(),
            tls: None,
            credentials: None,
            request_timeout: Duration::from_secs(1),
        }
    }

    #[tokio::test]
    async fn an_etcd_that_is_not_there_is_named_so() {
        let refused = EtcdStore::connect(&options()).await;
        assert!(matches!(refused, Err(ConnectError::Store(StoreError::Unavailable(_)))));
        let nobody = EtcdOptions { endpoints: Vec::new(), ..options() };
        assert!(matches!(EtcdStore::connect(&nobody).await, Err(ConnectError::NoEndpoint)));
    }
}
