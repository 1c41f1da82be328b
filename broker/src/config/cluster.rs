//! Being one of several brokers: etcd, and replication between them.

use std::{path::PathBuf, time::Duration};

use super::settings::Reader;

/// How etcd is spoken to, beside its address.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Speaks TLS.
    pub tls: bool,
    /// Who signed the members' certificates; `None`: whom the operating system trusts.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user and its password.
    pub credentials: Option<(String, String)>,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// How long a start waits for the first answer.
    pub start_timeout: Duration,
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        f.debug_struct("EtcdConfig")
            .field("tls", &self.tls)
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("request_timeout", &self.request_timeout)
            .field("start_timeout", &self.start_timeout)
            .finish_non_exhaustive()
    }
}

/// Replication between brokers.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// A follower that is behind for longer leaves the ISR.
    pub lag_max: Duration,
    /// The longest that a follower's fetch waits.
    pub fetch_wait: Duration,
    /// Bytes that it waits for.
    pub fetch_min_bytes: i32,
    /// Bytes of one partition in one fetch.
    pub fetch_bytes: i32,
    /// Bytes of one fetch.
    pub fetch_response_bytes: i32,
    /// Pause after a failed fetch.
    pub fetch_backoff: Duration,
    /// How long a follower waits for its leader.
    pub answer_limit: Duration,
    /// How long a connection to another broker may take to be made.
    pub setup_limit: Duration,
    /// Connections to one leader; at least 1.
    pub fetchers: u32,
    /// How long a broker counts as alive without a sign of life.
    pub session: Duration,
    /// Whether a stop hands leadership over first.
    pub hands_over: bool,
    /// Whether consumers are sent to a replica in their rack.
    pub selects_by_rack: bool,
    /// Bytes per second that throttled leaders send; `None`: no bound.
    pub leader_rate: Option<u64>,
    /// Bytes per second that throttled followers fetch; `None`: no bound.
    pub follower_rate: Option<u64>,
    /// How often preferred replicas are given back their leadership; `None`: never.
    pub rebalance_interval: Option<Duration>,
}

impl EtcdConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> EtcdConfig {
        let file = |reader: &mut Reader<'_>, name: &str| reader.text(name).map(PathBuf::from);
        let certificate = file(reader, "varve.metadata.etcd.certificate.file");
        let key = file(reader, "varve.metadata.etcd.key.file");
        if certificate.is_some() != key.is_some() {
            reader.invalid("varve.metadata.etcd.key.file", "a file exactly with varve.metadata.etcd.certificate.file");
        }
        let user = reader.text("varve.metadata.etcd.user");
        let password = reader.text("varve.metadata.etcd.password");
        if user.is_some() != password.is_some() {
            reader.invalid("varve.metadata.etcd.user", "a name exactly with varve.metadata.etcd.password");
        }
        EtcdConfig {
            tls: reader.flag("varve.metadata.etcd.tls"),
            ca: file(reader, "varve.metadata.etcd.ca.file"),
            identity: certificate.zip(key),
            credentials: user.zip(password),
            request_timeout: reader.millis("varve.metadata.etcd.request.timeout.ms"),
            // Kafka takes a negative one for no time at all.
            start_timeout: Duration::from_millis(
                u64::try_from(reader.int("initial.broker.registration.timeout.ms")).unwrap_or(0),
            ),
        }
    }
}

impl ReplicationConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> ReplicationConfig {
        let signed = |reader: &mut Reader<'_>, name: &str| i32::try_from(reader.int(name)).unwrap_or(i32::MAX);
        let rate = |reader: &mut Reader<'_>, name: &str| Some(reader.size(name)).filter(|rate| *rate < i64::MAX as u64);
        let interval = Duration::from_secs(reader.size("leader.imbalance.check.interval.seconds"));
        ReplicationConfig {
            lag_max: reader.millis("replica.lag.time.max.ms"),
            fetch_wait: reader.millis("replica.fetch.wait.max.ms"),
            fetch_min_bytes: signed(reader, "replica.fetch.min.bytes"),
            fetch_bytes: signed(reader, "replica.fetch.max.bytes"),
            fetch_response_bytes: signed(reader, "replica.fetch.response.max.bytes"),
            fetch_backoff: reader.millis("replica.fetch.backoff.ms"),
            answer_limit: reader.millis("replica.socket.timeout.ms"),
            setup_limit: reader.millis("socket.connection.setup.timeout.ms"),
            fetchers: reader.count("num.replica.fetchers"),
            session: reader.millis("broker.session.timeout.ms"),
            selects_by_rack: reader
                .text("replica.selector.class")
                .is_some_and(|class| class.ends_with(".RackAwareReplicaSelector")),
            leader_rate: rate(reader, "leader.replication.throttled.rate"),
            follower_rate: rate(reader, "follower.replication.throttled.rate"),
            hands_over: reader.flag("controlled.shutdown.enable"),
            rebalance_interval: reader.flag("auto.leader.rebalance.enable").then_some(interval),
        }
    }
}
