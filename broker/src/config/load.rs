//! From sources to the typed tree, with everything that is wrong reported at once.

mod coordinators;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use varve_metadata::config::{ConfigError, ConfigErrors, TopicDefaults, Treatment};
use varve_metadata::image::{ALL_LOG_DIRS, CORDONED_LOG_DIRS};
use varve_metadata::model::{BrokerId, Principal};

use super::broker::*;
use super::cluster::{EtcdConfig, ReplicationConfig};
use super::definitions::{broker_table, is_of_listeners, listener_setting, prefix_of};
use super::environment;
use super::first_users::FirstUser;
use super::listeners::ListenerConfig;
use super::object_store::ObjectStoreConfig;
use super::properties::parse_properties;
use super::sasl::DelegationTokenConfig;
use super::settings::{Origin, Reader, Settings};
use crate::quota::Window;

/// Where a configuration comes from; later fields win over earlier ones, name by name.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Text of a properties file, and what to call it in errors.
    pub file: Option<(String, String)>,
    /// Environment variables; those that do not begin with `VARVE_` do not count.
    pub environment: Vec<(String, String)>,
    /// `name=value`, as given to `--override`.
    pub overrides: Vec<String>,
}

/// A valid configuration, and what its owner should know.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed tree.
    pub config: BrokerConfig,
    /// One line for each setting without effect, and for each old name that was mapped.
    pub warnings: Vec<String>,
}

impl BrokerConfig {
    /// Reads, checks and types a configuration. No sources give a working node on loopback with its data in `./varve-data`.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of names.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let mut warnings = Vec::new();
        let (settings, mut errors) = gather(sources, &mut warnings);
        errors.extend(check(&settings, &mut warnings));
        let topic_defaults = TopicDefaults::from_broker(&settings.texts()).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            TopicDefaults::default()
        });
        let mut reader = Reader::new(&settings);
        let config = typed(&mut reader, topic_defaults, &mut warnings);
        errors.extend(reader.into_errors());
        let mut seen = BTreeSet::new();
        errors.retain(|error| seen.insert(error.to_string()));
        if errors.is_empty() { Ok(Loaded { config, warnings }) } else { Err(ConfigErrors(errors)) }
    }
}

impl BrokerConfig {
    /// This configuration with `effective` settings in place of those that were given: what it would be had the dynamic ones
    /// stood in the file. What is read once at the start stays as it was for whoever read it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn with_settings(&self, effective: &BTreeMap<String, String>) -> Result<BrokerConfig, ConfigErrors> {
        let mut settings = Settings::default();
        for (name, value) in effective {
            let origin = self.settings.given(name).map_or(Origin::Dynamic, |given| given.origin.clone());
            settings.set(name.clone(), value.clone(), origin);
        }
        let mut warnings = Vec::new();
        let mut errors = check(&settings, &mut warnings);
        let topic_defaults = TopicDefaults::from_broker(effective).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            TopicDefaults::default()
        });
        let mut reader = Reader::new(&settings);
        let config = typed(&mut reader, topic_defaults, &mut warnings);
        errors.extend(reader.into_errors());
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }
}

/// The layers, laid over each other.
fn gather(sources: &Sources, warnings: &mut Vec<String>) -> (Settings, Vec<ConfigError>) {
    let mut settings = Settings::default();
    let mut errors = Vec::new();
    if let Some((path, text)) = &sources.file {
        match parse_properties(path, text) {
            Ok(properties) => {
                for property in properties {
                    let origin = Origin::File { path: path.clone(), line: property.line };
                    if let Some(before) = settings.set(&property.name, property.value, origin) {
                        warnings.push(format!(
                            "{} is set twice: {path}, line {}, replaces {}",
                            property.name, property.line, before.origin
                        ));
                    }
                }
            }
            Err(wrong) => errors.extend(wrong),
        }
    }
    match environment::settings(sources.environment.iter().cloned()) {
        Ok(found) => found.into_iter().for_each(|(name, value, variable)| {
            settings.set(name, value, Origin::Environment { variable });
        }),
        Err(wrong) => errors.extend(wrong),
    }
    for text in &sources.overrides {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                settings.set(name.trim(), value.trim(), Origin::CommandLine);
            }
            _ => errors.push(ConfigError::Invalid {
                name: "--override".into(),
                value: text.clone(),
                allowed: "name=value".into(),
            }),
        }
    }
    (settings, errors)
}

/// Checks each given setting by its definition.
fn check(settings: &Settings, warnings: &mut Vec<String>) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (name, setting) in settings.iter() {
        let of_listener = listener_setting(name);
        let Some(definition) = broker_table().get(name).or(of_listener) else {
            errors.extend(check_open(name, warnings));
            continue;
        };
        if let Err(error) = definition.parse(&setting.value) {
            // A value that the topic setting behind it knows better is reported there, once.
            errors.push(error.named(name));
            continue;
        }
        match definition.treatment {
            Treatment::Honoured if of_listener.is_some() && !is_of_listeners(definition.name) => {
                let why = format!("listeners have none of their own; set {} for all of them", definition.name);
                errors.push(ConfigError::Refused { name: name.into(), why });
            }
            Treatment::Honoured => {}
            Treatment::NoEffect { why } => warnings.push(format!("{name} has no effect: {why}")),
            // What a refused setting says by default is what happens anyway.
            Treatment::Refused { .. } if says_the_default(definition.default, &setting.value) => {}
            Treatment::Refused { why } => errors.push(ConfigError::Refused { name: name.into(), why: why.into() }),
        }
    }
    errors
}

fn says_the_default(default: Option<&str>, value: &str) -> bool {
    default.unwrap_or_default().eq_ignore_ascii_case(value.trim())
}

/// A name that is in no table: of an open family, or unknown.
fn check_open(name: &str, warnings: &mut Vec<String>) -> Option<ConfigError> {
    let Some(family) = prefix_of(name) else { return Some(broker_table().unknown(name)) };
    match family.treatment {
        Treatment::Refused { why } => Some(ConfigError::Refused { name: name.into(), why: why.into() }),
        Treatment::NoEffect { why } => {
            warnings.push(format!("{name} has no effect: {why}"));
            None
        }
        Treatment::Honoured => None,
    }
}

fn typed(reader: &mut Reader<'_>, topic_defaults: TopicDefaults, warnings: &mut Vec<String>) -> BrokerConfig {
    let data_dir = PathBuf::from(reader.text("varve.data.dir").unwrap_or_else(|| "./varve-data".into()));
    let object_store = ObjectStoreConfig::read(reader, &data_dir);
    BrokerConfig {
        node: node(reader),
        rack: reader.text("broker.rack"),
        roles: roles(reader),
        metadata: metadata(reader, &data_dir),
        etcd: EtcdConfig::read(reader),
        replication: ReplicationConfig::read(reader),
        listeners: ListenerConfig::read(reader, warnings),
        authorizer: authorizer(reader, warnings),
        delegation_tokens: DelegationTokenConfig::read(reader),
        first_users: FirstUser::read(reader),
        network: network::network(reader),
        logs: logs(reader, &data_dir),
        cleaner: cleaner(reader),
        topics: TopicCreation {
            partitions: reader.count("num.partitions"),
            replication_factor: reader.count("default.replication.factor"),
            auto_create: reader.flag("auto.create.topics.enable"),
            delete_enabled: reader.flag("delete.topic.enable"),
        },
        topic_defaults,
        groups: coordinators::groups(reader),
        quotas: quotas(reader),
        move_threads: move_threads(reader),
        move_bytes_per_second: reader.limit("replica.alter.log.dirs.io.max.bytes.per.second"),
        telemetry_max_bytes: reader.count("telemetry.max.bytes"),
        producer_expiry: reader.millis("producer.id.expiration.ms"),
        transactions: coordinators::transactions(reader),
        producer_expiry_interval: reader.millis("producer.id.expiration.check.interval.ms"),
        archive: archive(reader),
        cache: cache(reader, &data_dir, object_store.is_local()),
        object_store,
        compactor: compactor(reader),
        http: http(reader),
        self_log: self_log(reader),
        traces: traces(reader),
        worker_threads: usize::try_from(reader.int("varve.worker.threads")).ok().filter(|threads| *threads > 0),
        shutdown_timeout: reader.millis("varve.shutdown.timeout.ms"),
        data_dir,
        settings: reader.settings().clone().with_both_ids(),
    }
}

/// `node.id`, or its older name.
fn node(reader: &mut Reader<'_>) -> BrokerId {
    let (node, broker) = (reader.int("node.id"), reader.int("broker.id"));
    let given = reader.settings().given("node.id").is_some();
    if given && broker >= 0 && broker != node {
        reader.refuse(ConfigError::Conflict {
            name: "broker.id".into(),
            value: broker.to_string(),
            other: "node.id".into(),
            other_value: node.to_string(),
            rule: "they are two names of one number".into(),
        });
    }
    let id = if !given && broker >= 0 { broker } else { node };
    i32::try_from(id).ok().and_then(BrokerId::from_wire).unwrap_or_else(|| unreachable!("node.id is defined from 0"))
}

fn roles(reader: &mut Reader<'_>) -> Roles {
    let words = reader.list("varve.roles");
    let has = |role: &str| words.iter().any(|word| word == role);
    let roles = Roles { broker: has("broker"), tiering: has("tiering"), compactor: has("compactor") };
    if words.is_empty() {
        reader.invalid("varve.roles", "at least one of broker, tiering, compactor");
    } else if !roles.broker && roles.tiering {
        let why = "broker beside tiering: segments go up from the disk of the broker that has them";
        reader.invalid("varve.roles", why);
    } else if !roles.broker && !reader.text("varve.metadata.url").is_some_and(|url| url.starts_with("etcd://")) {
        let why = "a list with broker in it: a process without one shares cluster state with brokers, which embedded \
                   metadata cannot do";
        reader.invalid("varve.roles", why);
    }
    if !reader.list("process.roles").iter().any(|role| role == "broker") {
        reader.invalid("process.roles", "a list with broker in it: there is nothing here that is a controller alone");
    }
    roles
}

fn metadata(reader: &mut Reader<'_>, data_dir: &Path) -> MetadataUrl {
    let name = "varve.metadata.url";
    let Some(text) = reader.text(name) else { return MetadataUrl::Embedded(data_dir.join("metadata")) };
    if let Some(directory) = text.strip_prefix("embedded:") {
        let directory = directory.strip_prefix("//").unwrap_or(directory);
        if directory.is_empty() {
            return MetadataUrl::Embedded(data_dir.join("metadata"));
        }
        return MetadataUrl::Embedded(directory.into());
    }
    if let Some(rest) = text.strip_prefix("etcd://") {
        let (members, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let endpoints: Vec<String> = members.split(',').map(str::trim).map(str::to_owned).collect();
        let whole = |endpoint: &String| {
            endpoint.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !endpoints.iter().all(whole) {
            reader.invalid(name, "etcd://host:port,host:port/prefix");
        }
        return MetadataUrl::Etcd { endpoints, prefix: prefix.trim_end_matches('/').to_owned() };
    }
    reader.invalid(name, "embedded:directory or etcd://host:port,host:port/prefix");
    MetadataUrl::Embedded(data_dir.join("metadata"))
}

/// The one authorizer there is, under the names that Kafka gave it.
fn authorizer(reader: &mut Reader<'_>, warnings: &mut Vec<String>) -> Option<AuthorizerConfig> {
    const STANDARD: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    const PAST: [&str; 2] = ["kafka.security.authorizer.AclAuthorizer", "kafka.security.auth.SimpleAclAuthorizer"];
    let name = "authorizer.class.name";
    let super_users = super_users(reader);
    let allow_if_no_acl = reader.maybe_flag("allow.everyone.if.no.acl.found").unwrap_or(false);
    let Some(class) = reader.text(name) else {
        for unused in ["super.users", "allow.everyone.if.no.acl.found"] {
            if reader.settings().given(unused).is_some() {
                warnings.push(format!("{unused} has no effect: {name} is not set, so access is not checked"));
            }
        }
        return None;
    };
    if PAST.contains(&class.as_str()) {
        warnings.push(format!("{name}={class} is the name of earlier Kafkas; taken for {STANDARD}"));
    } else if class != STANDARD {
        reader.invalid(name, format!("{STANDARD}, or empty: no Java classes are loaded"));
    }
    Some(AuthorizerConfig { super_users, allow_if_no_acl })
}

/// Principals between semicolons, because a certificate's subject has commas.
fn super_users(reader: &mut Reader<'_>) -> BTreeSet<Principal> {
    let name = "super.users";
    let text = reader.text(name).unwrap_or_default();
    let mut users = BTreeSet::new();
    for user in text.split(';').map(str::trim).filter(|user| !user.is_empty()) {
        match Principal::parse(user) {
            Some(principal) => drop(users.insert(principal)),
            None => reader.invalid(name, format!("User:name, semicolon-separated; {user} is not one")),
        }
    }
    users
}

fn logs(reader: &mut Reader<'_>, data_dir: &Path) -> LogConfig {
    let name = if reader.settings().given("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
    let mut dirs: Vec<PathBuf> = reader.list(name).into_iter().map(PathBuf::from).collect();
    let distinct: BTreeSet<&PathBuf> = dirs.iter().collect();
    if distinct.len() < dirs.len() || (dirs.is_empty() && reader.settings().given(name).is_some()) {
        reader.invalid(name, "directories, at least one, none of them twice");
    }
    if dirs.is_empty() {
        dirs.push(data_dir.join("log"));
    }
    let cordoned = cordoned(reader, &dirs);
    LogConfig {
        dirs,
        cordoned,
        recovery_threads: reader.count("num.recovery.threads.per.data.dir"),
        flush_check_interval: reader.limit("log.flush.scheduler.interval.ms").map(Duration::from_millis),
        recovery_checkpoint_interval: reader.millis("log.flush.offset.checkpoint.interval.ms"),
        retention_check_interval: reader.millis("log.retention.check.interval.ms"),
    }
}

fn cordoned(reader: &mut Reader<'_>, dirs: &[PathBuf]) -> Vec<PathBuf> {
    let name = CORDONED_LOG_DIRS;
    let named = reader.list(name);
    if named.iter().any(|dir| dir == ALL_LOG_DIRS) {
        if named.len() > 1 {
            reader.invalid(name, "* alone, or directories");
        }
        return dirs.to_vec();
    }
    let cordoned: Vec<PathBuf> = named.into_iter().map(PathBuf::from).collect();
    if cordoned.iter().any(|dir| !dirs.contains(dir)) {
        reader.invalid(name, "*, or entries of log.dirs");
    }
    cordoned
}

fn cleaner(reader: &mut Reader<'_>) -> CleanerConfig {
    CleanerConfig {
        enabled: reader.flag("log.cleaner.enable"),
        threads: reader.count("log.cleaner.threads"),
        backoff: reader.millis("log.cleaner.backoff.ms"),
        dedupe_buffer_bytes: reader.size("log.cleaner.dedupe.buffer.size"),
        max_bytes_per_second: Some(reader.number("log.cleaner.io.max.bytes.per.second"))
            .filter(|rate| *rate < f64::MAX),
    }
}

/// As many as there are directories, unless somebody says otherwise.
fn move_threads(reader: &mut Reader<'_>) -> usize {
    let threads =
        reader.maybe_size("num.replica.alter.log.dirs.threads").and_then(|threads| usize::try_from(threads).ok());
    threads.unwrap_or_else(|| reader.list("log.dirs").len()).max(1)
}

fn quotas(reader: &mut Reader<'_>) -> QuotaConfig {
    let mut window = |samples: &str, seconds: &str| Window {
        samples: reader.count(samples),
        size: Duration::from_secs(reader.size(seconds)),
    };
    QuotaConfig {
        window: window("quota.window.num", "quota.window.size.seconds"),
        mutation_window: window("controller.quota.window.num", "controller.quota.window.size.seconds"),
    }
}

fn archive(reader: &mut Reader<'_>) -> ArchiveConfig {
    ArchiveConfig {
        enabled: reader.flag("remote.log.storage.system.enable"),
        backup_lag: reader.limit("varve.backup.lag.ms").map(Duration::from_millis),
        grace: reader.millis("varve.archive.grace.ms"),
        local_max_bytes: reader.maybe_size("varve.local.max.bytes"),
        task_interval: reader.millis("remote.log.manager.task.interval.ms"),
        upload_concurrency: reader.count("remote.log.manager.copier.thread.pool.size"),
        upload_bytes_per_second: reader.limit("remote.log.manager.copy.max.bytes.per.second"),
        read_concurrency: reader.count("remote.log.reader.threads"),
        read_queue: reader.count("remote.log.reader.max.pending.tasks"),
        read_bytes_per_second: reader.limit("remote.log.manager.fetch.max.bytes.per.second"),
        fetch_max_wait: reader.millis("remote.fetch.max.wait.ms"),
        list_offsets_timeout: reader.millis("remote.list.offsets.request.timeout.ms"),
    }
}

fn cache(reader: &mut Reader<'_>, data_dir: &Path, local: bool) -> CacheConfig {
    const USUAL_DISK_BYTES: u64 = 4 << 30;
    let disk = reader.int("varve.cache.disk.bytes");
    CacheConfig {
        memory_bytes: reader.size("varve.cache.memory.bytes"),
        disk_bytes: u64::try_from(disk).unwrap_or(if local { 0 } else { USUAL_DISK_BYTES }),
        dir: data_dir.join("cache"),
        read_ahead_bytes: reader.size("varve.cache.read.ahead.bytes"),
    }
}

fn compactor(reader: &mut Reader<'_>) -> CompactorConfig {
    CompactorConfig {
        interval: reader.millis("varve.compactor.interval.ms"),
        threads: reader.count("varve.compactor.threads"),
        memory_bytes: reader.size("varve.compactor.memory.bytes"),
        bytes_per_second: reader.limit("varve.compactor.rate.bytes.per.second"),
        object_bytes: reader.size("varve.compactor.object.bytes"),
        row_group_bytes: reader.size("varve.compactor.row.group.bytes"),
    }
}

fn http(reader: &mut Reader<'_>) -> Option<std::net::SocketAddr> {
    let name = "varve.http.listener";
    let text = reader.text(name)?;
    let address = text.replace("localhost:", "127.0.0.1:").parse();
    if address.is_err() {
        reader.invalid(name, "address:port, or empty");
    }
    address.ok()
}

fn traces(reader: &mut Reader<'_>) -> TraceConfig {
    let name = "varve.trace.endpoint";
    let given = reader.text(name).map(|text| url::Url::parse(&text));
    let is_http = |url: &url::Url| ["http", "https"].contains(&url.scheme()) && url.has_host();
    if given.as_ref().is_some_and(|url| !url.as_ref().is_ok_and(is_http)) {
        reader.invalid(name, "a URL, as in http://127.0.0.1:4318/v1/traces");
    }
    TraceConfig { endpoint: given.and_then(Result::ok), ratio: reader.number("varve.trace.sample.ratio") }
}

fn self_log(reader: &mut Reader<'_>) -> SelfLogConfig {
    let name = "varve.log.level";
    let level = reader.text(name).unwrap_or_else(|| "info".into());
    if tracing_subscriber::EnvFilter::try_new(&level).is_err() {
        reader.invalid(name, "error, warn, info, debug or trace, also per part: info,varve_tiering=debug");
    }
    let json = reader.text("varve.log.format").as_deref() == Some("json");
    SelfLogConfig { format: if json { LogFormat::Json } else { LogFormat::Text }, level }
}
