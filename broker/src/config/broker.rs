//! The typed tree. A part of the node gets the subtree or the numbers that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use varve_metadata::config::{Codec, TopicDefaults};
use varve_metadata::model::{BrokerId, Principal};

use super::cluster::{EtcdConfig, ReplicationConfig};
use super::first_users::FirstUser;
use super::listeners::ListenerConfig;
use super::object_store::ObjectStoreConfig;
use super::sasl::DelegationTokenConfig;
use super::settings::Settings;
use crate::{
    coordinator::{MigrationPolicy, assignor::Assignor},
    quota::Window,
};

/// The whole configuration of a node, valid.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node: BrokerId,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// What this process does.
    pub roles: Roles,
    /// Where everything goes that has no place of its own.
    pub data_dir: PathBuf,
    /// Where cluster state is agreed on.
    pub metadata: MetadataUrl,
    /// How etcd is spoken to, where that is there.
    pub etcd: EtcdConfig,
    /// Replication between brokers.
    pub replication: ReplicationConfig,
    /// Sockets, and what clients are told.
    pub listeners: ListenerConfig,
    /// Who stands above the rules of who may do what; `None`: access is not checked.
    pub authorizer: Option<AuthorizerConfig>,
    /// Delegation tokens.
    pub delegation_tokens: DelegationTokenConfig,
    /// Users of SCRAM that exist from the first start on.
    pub first_users: Vec<FirstUser>,
    /// Connections and requests.
    pub network: NetworkConfig,
    /// Logs on the local disk.
    pub logs: LogConfig,
    /// The cleaner of compacted local logs.
    pub cleaner: CleanerConfig,
    /// Defaults for topics, partitions and replicas that requests leave open.
    pub topics: TopicCreation,
    /// The broker's defaults for topic settings.
    pub topic_defaults: TopicDefaults,
    /// Groups and offsets.
    pub groups: GroupConfig,
    /// Windows over which client quotas are averaged.
    pub quotas: QuotaConfig,
    /// Logs that move between log directories at the same time.
    pub move_threads: usize,
    /// The most bytes per second that they take; `None`: no limit.
    pub move_bytes_per_second: Option<u64>,
    /// The largest push of client metrics, in bytes.
    pub telemetry_max_bytes: u32,
    /// How long a partition remembers a silent idempotent producer.
    pub producer_expiry: Duration,
    /// Transactions.
    pub transactions: TransactionConfig,
    /// How often silent producers are looked for.
    pub producer_expiry_interval: Duration,
    /// Where the archive is.
    pub object_store: ObjectStoreConfig,
    /// Uploads and reads of the archive.
    pub archive: ArchiveConfig,
    /// The cache of what was read from the archive.
    pub cache: CacheConfig,
    /// Rewriting of the archive.
    pub compactor: CompactorConfig,
    /// Address of /metrics, /healthz, /readyz and /insyncz; `None` turns them off.
    pub http: Option<SocketAddr>,
    /// The node's own log.
    pub self_log: SelfLogConfig,
    /// Traces.
    pub traces: TraceConfig,
    /// Threads of the runtime; `None`: one per core.
    pub worker_threads: Option<usize>,
    /// How long a stop waits for what is under way.
    pub shutdown_timeout: Duration,
    /// What was given, as text: for `DescribeConfigs`.
    pub settings: Settings,
}

/// What a process does (`varve.roles`). At least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Serves clients.
    pub broker: bool,
    /// Uploads sealed segments.
    pub tiering: bool,
    /// Rewrites the archive.
    pub compactor: bool,
}

/// Where cluster state is agreed on (`varve.metadata.url`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataUrl {
    /// In a file of this directory, for one node.
    Embedded(PathBuf),
    /// In etcd, for a cluster.
    Etcd {
        /// `host:port` of its members.
        endpoints: Vec<String>,
        /// What all keys begin with; empty or `/…`.
        prefix: String,
    },
}

/// How access is checked (`authorizer.class.name` and what belongs to it). The rules themselves are cluster state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizerConfig {
    /// Principals that may do everything (`super.users`).
    pub super_users: BTreeSet<Principal>,
    /// Whether everything is allowed on a resource that no rule names (`allow.everyone.if.no.acl.found`).
    pub allow_if_no_acl: bool,
}

/// Connections and requests.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The largest request that is read, in bytes.
    pub request_max_bytes: u32,
    /// Memory for all requests that are not answered yet, in bytes.
    pub request_memory_bytes: u64,
    /// How long a failed authentication is left without an answer.
    pub failed_authentication_delay: Duration,
    /// Idle connections are closed after this; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// The most connections at one time; `None`: no limit.
    pub max_connections: Option<u64>,
    /// Other limits for some listeners, by their names in upper case.
    pub max_connections_per_listener: BTreeMap<String, u64>,
    /// The most new connections per second from all addresses together; `None`: no limit.
    pub max_connection_rate: Option<u64>,
    /// Limits of their own for some listeners, by their names in upper case.
    pub max_connection_rate_per_listener: BTreeMap<String, u64>,
    /// The most connections from one address; `None`: no limit.
    pub max_connections_per_ip: Option<u64>,
    /// Other limits for some addresses. Host names are resolved at start.
    pub max_connections_per_ip_overrides: BTreeMap<IpAddr, u64>,
    /// Connections that may wait to be accepted.
    pub listen_backlog: u32,
    /// Send buffer of a connection, in bytes; `None`: the system's.
    pub send_buffer_bytes: Option<u64>,
    /// Receive buffer of a connection, in bytes; `None`: the system's.
    pub receive_buffer_bytes: Option<u64>,
    /// The most bytes in the answer to one Fetch.
    pub fetch_max_bytes: u32,
    /// Fetch sessions that are remembered.
    pub fetch_sessions: u32,
    /// The most partitions in one answer of DescribeTopicPartitions.
    pub max_described_partitions: u32,
}

/// Transactions and their coordinator.
#[derive(Clone, Debug)]
pub struct TransactionConfig {
    /// An unused transactional id is forgotten after this.
    pub id_expiration: Duration,
    /// The longest transaction that a producer may ask for.
    pub max_timeout: Duration,
    /// Whether partitions ask the coordinator before records of a transaction are written to them.
    pub verify_partitions: bool,
    /// How often overdue transactions are aborted.
    pub abort_interval: Duration,
    /// How often unused transactional ids are looked for.
    pub expiration_interval: Duration,
    /// Partitions of the topic of transactions.
    pub log_partitions: u32,
    /// Its replicas.
    pub log_replication_factor: u32,
    /// Its replicas that must be in sync.
    pub log_min_in_sync: u32,
    /// Its segments, in bytes.
    pub log_segment_bytes: u32,
    /// Bytes read at once when a coordinator loads.
    pub log_load_bytes: u32,
    /// Pause before the coordinator is asked to add a partition again.
    pub add_retry_pause: Duration,
    /// The longest such pause in all.
    pub add_retry_max: Duration,
}

/// Logs on the local disk.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Where they lie; never empty, no directory twice.
    pub dirs: Vec<PathBuf>,
    /// Those of them that get no new partitions (KIP-1066).
    pub cordoned: Vec<PathBuf>,
    /// Logs opened at the same time, per directory.
    pub recovery_threads: u32,
    /// How often logs are looked at for records to force to disk; `None`: never.
    pub flush_check_interval: Option<Duration>,
    /// How often recovery points are written.
    pub recovery_checkpoint_interval: Duration,
    /// How often logs are looked at for segments that are due to go.
    pub retention_check_interval: Duration,
}

/// The cleaner of compacted local logs.
#[derive(Clone, Debug)]
pub struct CleanerConfig {
    /// Whether it runs.
    pub enabled: bool,
    /// Logs cleaned at the same time.
    pub threads: u32,
    /// How long it sleeps when nothing is dirty enough.
    pub backoff: Duration,
    /// The most memory for keys, in bytes, over all threads.
    pub dedupe_buffer_bytes: u64,
    /// The most bytes read and written per second; `None`: no limit.
    pub max_bytes_per_second: Option<f64>,
}

/// What holds for new topics unless the request says otherwise.
#[derive(Clone, Debug)]
pub struct TopicCreation {
    /// `num.partitions`; at least 1.
    pub partitions: u32,
    /// `default.replication.factor`; at least 1.
    pub replication_factor: u32,
    /// Whether asking for a topic may create it.
    pub auto_create: bool,
    /// Whether topics may be deleted.
    pub delete_enabled: bool,
}

/// Groups and offsets.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// How long an empty group waits for more members after its first.
    pub initial_rebalance_delay: Duration,
    /// The shortest session timeout that a member may ask for.
    pub min_session_timeout: Duration,
    /// The longest session timeout that a member may ask for.
    pub max_session_timeout: Duration,
    /// The most members of one group.
    pub max_size: u32,
    /// Partitions of `__consumer_offsets` when it is created.
    pub offsets_partitions: u32,
    /// Wanted replicas of `__consumer_offsets`; fewer if there are fewer nodes.
    pub offsets_replication_factor: u32,
    /// Segment size of `__consumer_offsets`, in bytes.
    pub offsets_segment_bytes: u32,
    /// Codec of `__consumer_offsets`.
    pub offsets_codec: Codec,
    /// How long offsets of an empty group are kept.
    pub offsets_retention: Duration,
    /// How often stale offsets are looked for.
    pub offsets_retention_check_interval: Duration,
    /// How often it is looked how far groups are behind.
    pub lag_interval: Duration,
    /// The most text that may be attached to an offset, in bytes.
    pub offset_metadata_max_bytes: u32,
    /// Bytes read at once when offsets are loaded.
    pub offsets_load_bytes: u32,
    /// Groups of the consumer protocol (KIP-848).
    pub consumer: ConsumerGroupConfig,
    /// Share groups (KIP-932).
    pub share: ShareGroupConfig,
    /// Groups of the streams protocol.
    pub streams: StreamsGroupConfig,
}

/// Share groups (KIP-932).
#[derive(Clone, Debug)]
pub struct ShareGroupConfig {
    /// The most members of one group.
    pub max_size: u32,
    /// The most share sessions of this node.
    pub max_sessions: u32,
    /// How often a record is delivered at most.
    pub delivery_limit: GroupLimit,
    /// How long a record is one member's.
    pub lock_duration: GroupTime,
    /// Records of one partition that are out at one time.
    pub max_locks: GroupLimit,
    /// A member that is silent for longer leaves.
    pub session_timeout: GroupTime,
    /// How often members say that they are there.
    pub heartbeat_interval: GroupTime,
    /// Time between two assignments.
    pub assignment_interval: GroupTime,
    /// Pause before the keepers of share partitions are asked to begin again.
    pub begin_retry: Duration,
    /// The topic that keeps the state of share partitions.
    pub state: ShareStateTopicConfig,
}

/// `__share_group_state`, and how it is written and read.
#[derive(Clone, Copy, Debug)]
pub struct ShareStateTopicConfig {
    /// Partitions when it is created.
    pub partitions: u32,
    /// Wanted replicas.
    pub replication_factor: u32,
    /// Replicas that have to be in sync.
    pub min_in_sync: u32,
    /// Segment size, in bytes.
    pub segment_bytes: u32,
    /// Its codec.
    pub codec: Codec,
    /// Bytes read at once when a partition is loaded.
    pub load_bytes: u32,
    /// Changes of a share partition between two snapshots.
    pub updates_per_snapshot: u32,
    /// A share partition that is quiet for so long gets a snapshot.
    pub cold_after: Duration,
    /// How often what says nothing any more is deleted.
    pub prune_interval: Duration,
}

/// A number that groups may have their own of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimit {
    /// Of groups that have none of their own.
    pub usual: u32,
    /// The smallest that a group may have.
    pub min: u32,
    /// The largest that a group may have.
    pub max: u32,
}

/// Groups of the consumer protocol (KIP-848).
#[derive(Clone, Debug)]
pub struct ConsumerGroupConfig {
    /// Whether `group.coordinator.rebalance.protocols` names it.
    pub enabled: bool,
    /// The most members of one group.
    pub max_size: u32,
    /// Never empty; the first is used where members do not ask for one.
    pub assignors: Vec<Assignor>,
    /// Which groups may change their protocol while they have members.
    pub migration: MigrationPolicy,
    /// A member that is silent for longer leaves.
    pub session_timeout: GroupTime,
    /// How often members say that they are there.
    pub heartbeat_interval: GroupTime,
    /// Time between two assignments.
    pub assignment_interval: GroupTime,
    /// How often patterns are resolved again.
    pub regex_refresh_interval: Duration,
}

/// Groups of the streams protocol (KIP-1071).
#[derive(Clone, Debug)]
pub struct StreamsGroupConfig {
    /// Whether `group.coordinator.rebalance.protocols` names it.
    pub enabled: bool,
    /// The most members of one group.
    pub max_size: u32,
    /// How many copies of each stateful task are kept, for groups that have no setting of their own.
    pub standby_replicas: u32,
    /// The most copies that a group may have.
    pub max_standby_replicas: u32,
    /// How long a group that had no members waits for more, if it has no setting of its own.
    pub initial_rebalance_delay: Duration,
    /// A member that is silent for longer leaves.
    pub session_timeout: GroupTime,
    /// How often members say that they are there.
    pub heartbeat_interval: GroupTime,
    /// Time between two assignments.
    pub assignment_interval: GroupTime,
}

/// A time that groups may have their own of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTime {
    /// Of groups that have none of their own.
    pub usual: Duration,
    /// The shortest that a group may have.
    pub min: Duration,
    /// The longest that a group may have.
    pub max: Duration,
}

/// Windows over which client quotas are averaged. The quotas themselves are cluster state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Of bytes, time and connections.
    pub window: Window,
    /// Of changes of cluster state.
    pub mutation_window: Window,
}

/// Uploads to the archive and reads of it.
#[derive(Clone, Debug)]
pub struct ArchiveConfig {
    /// `remote.log.storage.system.enable`: whether there is an archive at all.
    pub enabled: bool,
    /// `varve.backup.lag.ms`: the longest until changes of internal topics are in the object store; `None`: they, and the
    /// cluster's state, never are.
    pub backup_lag: Option<Duration>,
    /// How long an object outlives its removal from the manifest.
    pub grace: Duration,
    /// The most bytes of local log of all archived partitions together; `None`: what the disk takes.
    pub local_max_bytes: Option<u64>,
    /// How often partitions are looked at for uploads and expiry.
    pub task_interval: Duration,
    /// The most segments uploaded at the same time.
    pub upload_concurrency: u32,
    /// The most bytes uploaded per second; `None`: no limit.
    pub upload_bytes_per_second: Option<u64>,
    /// The most reads at the same time.
    pub read_concurrency: u32,
    /// The most reads that may wait their turn.
    pub read_queue: u32,
    /// The most bytes read per second; `None`: no limit.
    pub read_bytes_per_second: Option<u64>,
    /// The longest that a Fetch waits for the archive.
    pub fetch_max_wait: Duration,
    /// The longest that ListOffsets waits for the archive.
    pub list_offsets_timeout: Duration,
}

/// The cache of what was read from the archive.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Disk, in bytes; 0 uses none.
    pub disk_bytes: u64,
    /// Directory of the disk part.
    pub dir: PathBuf,
    /// The most read ahead for one partition, in bytes.
    pub read_ahead_bytes: u64,
}

/// Rewriting of the archive.
#[derive(Clone, Debug)]
pub struct CompactorConfig {
    /// How often partitions are looked at.
    pub interval: Duration,
    /// Partitions rewritten at the same time.
    pub threads: u32,
    /// The most memory, in bytes, over all threads.
    pub memory_bytes: u64,
    /// The most bytes read per second; `None`: no limit.
    pub bytes_per_second: Option<u64>,
    /// Raw log in one Parquet object, in bytes.
    pub object_bytes: u64,
    /// Raw log in one row group, in bytes.
    pub row_group_bytes: u64,
}

/// The node's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfLogConfig {
    /// Lines or JSON.
    pub format: LogFormat,
    /// Levels, in the syntax of tracing's `EnvFilter`.
    pub level: String,
}

/// Traces for an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceConfig {
    /// Where they go (`varve.trace.endpoint`); `None`: none are made.
    pub endpoint: Option<url::Url>,
    /// The share of requests that are traced, from 0 to 1 (`varve.trace.sample.ratio`).
    pub ratio: f64,
}

/// How the node writes its own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}
