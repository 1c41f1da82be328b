//! Which settings of brokers, groups and client metrics there are, and what may change while the node runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use tracing::warn;
use varve_metadata::{
    config::{ConfigDef, ConfigTable, Kind, Synonym, Treatment, Unit, Update, topic_table},
    controller::{AlterError, BrokerRules},
    image::{ClusterImage, ConfigResource, overlay},
    model::BrokerId,
};

use super::{
    Broker,
    handlers::admin_errors::config_text,
    listener_rules,
    live::LIVE,
    shares::{OFFSET_RESET, OffsetReset},
};
use crate::{
    config::{BrokerConfig, GroupLimit, GroupTime, Listener, broker_table, is_of_listeners, listener_setting},
    security::ListenerSecurity,
    telemetry::Subscription,
};

const CLEANER_THREADS: &str = "log.cleaner.threads";
/// Settings of how many work at the same time.
const POOLS: [&str; 10] = [
    CLEANER_THREADS,
    "background.threads",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.follower.thread.pool.size",
    "remote.log.reader.threads",
];

/// The rules of one node.
pub(super) struct Rules<'a> {
    pub(super) node: BrokerId,
    pub(super) config: &'a BrokerConfig,
    /// The settings as they are with the dynamic ones.
    pub(super) now: Arc<BrokerConfig>,
    /// The listeners that there are, with their protection.
    pub(super) listeners: Vec<(Listener, Arc<ListenerSecurity>)>,
    pub(super) image: &'a ClusterImage,
    /// What this node's settings would be by the last change that was checked, if that may concern its listeners.
    pub(super) wanted: Mutex<Option<BrokerConfig>>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(broker: &'a Broker, image: &'a ClusterImage) -> Rules<'a> {
        Rules {
            node: broker.node,
            config: &broker.config,
            now: broker.live.config(),
            listeners: broker.listeners.known(),
            image,
            wanted: Mutex::default(),
        }
    }

    /// Takes what this node's settings would be by the last change that was checked; `None` if its listeners stay.
    pub(super) fn take_wanted(&self) -> Option<BrokerConfig> {
        self.wanted.lock().take().filter(|wanted| wanted.listeners != self.now.listeners)
    }
}

impl BrokerRules for Rules<'_> {
    fn table(&self, resource: &ConfigResource) -> &ConfigTable {
        match resource {
            ConfigResource::Broker(_) | ConfigResource::BrokerDefaults => broker_table(),
            ConfigResource::Group(_) => group_table(),
            ConfigResource::ClientMetrics(_) => client_metrics_table(),
        }
    }

    fn check(
        &self,
        resource: &ConfigResource,
        settings: &BTreeMap<String, String>,
        changed: &[&str],
    ) -> Result<(), AlterError> {
        match resource {
            ConfigResource::Broker(_) | ConfigResource::BrokerDefaults => {
                self.check_broker(resource, settings, changed).map_err(AlterError::Refused)
            }
            ConfigResource::Group(_) => self.check_group(settings, changed),
            ConfigResource::ClientMetrics(name) => check_subscription(name, settings),
        }
    }
}

impl Rules<'_> {
    fn check_broker(
        &self,
        resource: &ConfigResource,
        settings: &BTreeMap<String, String>,
        changed: &[&str],
    ) -> Result<(), String> {
        let fixed: Vec<&str> = changed.iter().copied().filter(|name| is_fixed(name)).collect();
        if !fixed.is_empty() {
            return Err(format!("Cannot update these configs dynamically: [{}]", fixed.join(", ")));
        }
        listener_rules::check_whose(resource, changed)?;
        for (name, value) in settings {
            let definition = definition(name).ok_or_else(|| config_text(&broker_table().unknown(name)))?;
            definition.parse(value).map_err(|error| config_text(&error))?;
            if let Treatment::NoEffect { why } = definition.treatment
                && changed.contains(&name.as_str())
            {
                warn!(setting = name, why, "setting accepted without effect");
            }
        }
        self.check_together(resource, settings, changed)
    }

    fn check_group(&self, settings: &BTreeMap<String, String>, changed: &[&str]) -> Result<(), AlterError> {
        let refused = |why: String| Err(AlterError::Invalid(why));
        if let Some(name) = changed.iter().find(|name| group_table().get(name).is_none()) {
            return refused(format!("Unknown group config name: {name}"));
        }
        for (name, value) in settings {
            if let Some(definition) = group_table().get(name) {
                definition.parse(value).map_err(|error| AlterError::Invalid(config_text(&error)))?;
            }
        }
        let given = |name: &str| settings.get(name).and_then(|value| value.trim().parse::<u64>().ok());
        let groups = &self.config.groups;
        let (consumer, share, streams) = (&groups.consumer, &groups.share, &groups.streams);
        for (name, [_, min, max]) in [
            ("consumer.heartbeat.interval.ms", millis(consumer.heartbeat_interval)),
            ("consumer.session.timeout.ms", millis(consumer.session_timeout)),
            ("consumer.assignment.interval.ms", millis(consumer.assignment_interval)),
            ("share.heartbeat.interval.ms", millis(share.heartbeat_interval)),
            ("share.session.timeout.ms", millis(share.session_timeout)),
            ("share.record.lock.duration.ms", millis(share.lock_duration)),
            ("share.delivery.count.limit", numbers(share.delivery_limit)),
            ("share.partition.max.record.locks", numbers(share.max_locks)),
            ("share.assignment.interval.ms", millis(share.assignment_interval)),
            ("streams.heartbeat.interval.ms", millis(streams.heartbeat_interval)),
            ("streams.session.timeout.ms", millis(streams.session_timeout)),
            ("streams.assignment.interval.ms", millis(streams.assignment_interval)),
        ] {
            let Some(value) = given(name) else { continue };
            let (kind, suffix) = name.split_once('.').unwrap_or_default();
            if value < min {
                return refused(format!("{name} must be greater than or equal to group.{kind}.min.{suffix}"));
            }
            if value > max {
                return refused(format!("{name} must be less than or equal to group.{kind}.max.{suffix}"));
            }
        }
        if given("streams.num.standby.replicas").is_some_and(|copies| copies > u64::from(streams.max_standby_replicas))
        {
            let why = "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas";
            return refused(why.to_owned());
        }
        for (kind, session, heartbeat) in [
            ("consumer", consumer.session_timeout, consumer.heartbeat_interval),
            ("share", share.session_timeout, share.heartbeat_interval),
            ("streams", streams.session_timeout, streams.heartbeat_interval),
        ] {
            let [longer, shorter] =
                ["session.timeout.ms", "heartbeat.interval.ms"].map(|suffix| format!("{kind}.{suffix}"));
            let session = given(&longer).unwrap_or_else(|| millis(session)[0]);
            let heartbeat = given(&shorter).unwrap_or_else(|| millis(heartbeat)[0]);
            if session <= heartbeat {
                return refused(format!("{longer} must be greater than {shorter}"));
            }
        }
        if let Some(reset) = settings.get(OFFSET_RESET)
            && OffsetReset::parse(reset).is_none()
        {
            return refused(format!(
                "Invalid value {reset} for configuration {OFFSET_RESET}: Invalid value `{reset}` for configuration \
                 {OFFSET_RESET}. The value must be either 'earliest', 'latest' or of the format \
                 'by_duration:<PnDTnHnMn.nS>'."
            ));
        }
        Ok(())
    }

    /// Whether topics could still get their defaults, if these were the dynamic settings.
    fn check_together(
        &self,
        resource: &ConfigResource,
        settings: &BTreeMap<String, String>,
        changed: &[&str],
    ) -> Result<(), String> {
        let none = BTreeMap::new();
        let stored = |resource: &ConfigResource| self.image.configs().get(resource).unwrap_or(&none);
        let own = ConfigResource::Broker(self.node);
        let mut all = self.config.settings.texts();
        for layer in [&ConfigResource::BrokerDefaults, &own] {
            overlay(&mut all, if layer == resource { settings } else { stored(layer) });
        }
        if let Err(errors) = varve_metadata::config::TopicDefaults::from_broker(&all) {
            return Err(errors.iter().map(config_text).collect::<Vec<_>>().join("; "));
        }
        let is_live = |name: &str| LIVE.contains(&name);
        let mut concerned = settings.keys().chain(stored(resource).keys()).map(String::as_str);
        if concerned.any(is_live) || changed.iter().any(|name| is_live(name)) {
            let is_new = |name: &&str| settings.get(*name) != stored(resource).get(*name);
            let are_sockets_new = *resource == own && listener_rules::SOCKETS.iter().any(is_new);
            let wanted = self.with_texts(&all, are_sockets_new)?;
            if are_sockets_new {
                listener_rules::check_sockets(&self.now.listeners, &wanted.listeners)?;
                *self.wanted.lock() = Some(wanted);
            }
        }
        check_threads(&self.image.configs().of_broker(self.node, &self.config.settings.texts()), &all, changed)?;
        self.check_limits(&all)?;
        // Only of this node: what files another one has cannot be seen from here.
        if *resource == own { self.check_listeners(&all, changed) } else { Ok(()) }
    }
}

/// The usual, smallest and largest of a time, in milliseconds.
fn millis(time: GroupTime) -> [u64; 3] {
    [time.usual, time.min, time.max].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The usual, smallest and largest of a number.
fn numbers(limit: GroupLimit) -> [u64; 3] {
    [limit.usual, limit.min, limit.max].map(u64::from)
}

/// The definition of a setting, or of what stands behind a listener's name.
fn definition(name: &str) -> Option<&'static ConfigDef> {
    broker_table().get(name).or_else(|| listener_setting(name))
}

/// Sizes of pools may at most double or halve at a time, as in Kafka: more is a slip of the hand.
fn check_threads(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    changed: &[&str],
) -> Result<(), String> {
    const FAILED: &str = "Dynamic thread count update validation failed";
    for &name in POOLS.iter().filter(|name| changed.contains(name)) {
        let size = |settings: &BTreeMap<String, String>| -> Option<u64> {
            let given = settings.get(name).map(String::as_str).or_else(|| definition(name)?.default)?;
            given.trim().parse().ok()
        };
        let Some((current, new)) = size(before).zip(size(after)) else { continue };
        let why = match name == CLEANER_THREADS {
            true if new < 1 => "Log cleaner threads should be at least 1".to_owned(),
            true if new < current / 2 => {
                format!("Log cleaner threads cannot be reduced to less than half the current value {current}")
            }
            true if new > current * 2 => {
                format!("Log cleaner threads cannot be increased to more than double the current value {current}")
            }
            false if new < current / 2 => {
                format!("{FAILED} for {name}={new}, value should be at least half the current value {current}")
            }
            false if new > current * 2 => {
                format!(
                    "{FAILED} for {name}={new}, value should not be greater than double the current value {current}"
                )
            }
            _ => continue,
        };
        return Err(why);
    }
    Ok(())
}

/// Whether a setting holds until the node starts anew. A name that nobody knows is another matter.
fn is_fixed(name: &str) -> bool {
    match broker_table().get(name) {
        Some(definition) => !changes_live(definition),
        None => listener_setting(name).is_some_and(|definition| {
            // One that listeners do not have would be stored, and heeded by nobody.
            let is_nobodys = definition.treatment == Treatment::Honoured && !is_of_listeners(definition.name);
            is_nobodys || !may_change(definition)
        }),
    }
}

/// Whether a change of this setting under its own name takes effect while the node runs, or is known to have none. Kafka lets
/// more of them change; taken without effect, they would be a promise that nobody keeps.
pub(super) fn changes_live(definition: &ConfigDef) -> bool {
    may_change(definition) && listener_rules::changes_unprefixed(definition.name)
}

/// The same of a setting that may have a listener's prefix.
fn may_change(definition: &ConfigDef) -> bool {
    // The defaults of topics are part of the image, and so follow every change of it.
    let is_topic_default =
        || topic_table().iter().any(|topic| topic.synonyms.iter().any(|synonym| synonym.name == definition.name));
    // Listeners follow theirs (`security::follow_settings`), but for tokens, which keep to what they were told.
    let is_of_listener =
        || listener_rules::is_of_security(definition.name) && !definition.name.starts_with("sasl.oauthbearer.");
    let no_effect = matches!(definition.treatment, Treatment::NoEffect { .. });
    definition.update == Update::Dynamic
        && (no_effect || is_topic_default() || is_of_listener() || LIVE.contains(&definition.name))
}

/// A subscription to client metrics, in the order of Kafka's checks.
fn check_subscription(name: &str, settings: &BTreeMap<String, String>) -> Result<(), AlterError> {
    let refused = |why: String| Err(AlterError::Refused(why));
    if name.is_empty() {
        return refused("Subscription name can't be empty".to_owned());
    }
    let table = client_metrics_table();
    if let Some(unknown) = settings.keys().find(|name| table.get(name).is_none()) {
        return refused(format!("Unknown client metrics configuration: {unknown}"));
    }
    if let Some((definition, value)) = table.get("interval.ms").zip(settings.get("interval.ms")) {
        let number: i32 = value.trim().parse().map_err(|_| definition.invalid(value, definition.kind.allowed()))?;
        if definition.parse(value).is_err() {
            let range = "interval must be between 100 and 3600000 (1 hour)";
            return refused(format!("Invalid value {number} for interval.ms, {range}"));
        }
    }
    Subscription::parse(settings).map(drop).map_err(|error| AlterError::Invalid(error.to_string()))
}

/// Settings of a consumer group (KIP-848), share group (KIP-932) or streams group (KIP-1071).
pub(super) fn group_table() -> &'static ConfigTable {
    static TABLE: LazyLock<ConfigTable> = LazyLock::new(|| ConfigTable::new(GROUP.iter().copied()));
    &TABLE
}

/// Settings of a client metrics subscription (KIP-714).
pub(super) fn client_metrics_table() -> &'static ConfigTable {
    static TABLE: LazyLock<ConfigTable> = LazyLock::new(|| ConfigTable::new(CLIENT_METRICS.iter().copied()));
    &TABLE
}

const NATURAL: Kind = Kind::Int { min: 0, max: i32::MAX };
const POSITIVE: Kind = Kind::Int { min: 1, max: i32::MAX };

/// A group's setting; its default is the broker's setting `synonym`.
const fn group(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonym: &'static [Synonym],
    doc: &'static str,
) -> ConfigDef {
    ConfigDef::broker(name, kind, Some(default), doc).dynamic().synonyms(synonym)
}

macro_rules! behind {
    ($name:literal) => {
        &[Synonym { name: $name, unit: Unit::Same }]
    };
}

const GROUP: &[ConfigDef] = &[
    group(
        "consumer.session.timeout.ms",
        POSITIVE,
        "45000",
        behind!("group.consumer.session.timeout.ms"),
        "A member that is silent for longer leaves the group.",
    ),
    group(
        "consumer.heartbeat.interval.ms",
        POSITIVE,
        "5000",
        behind!("group.consumer.heartbeat.interval.ms"),
        "How often members say that they are there.",
    ),
    group(
        "consumer.assignment.interval.ms",
        NATURAL,
        "1000",
        behind!("group.consumer.assignment.interval.ms"),
        "Shortest time between two assignments of the group.",
    ),
    group(
        "share.session.timeout.ms",
        POSITIVE,
        "45000",
        behind!("group.share.session.timeout.ms"),
        "A member that is silent for longer leaves the group.",
    ),
    group(
        "share.heartbeat.interval.ms",
        POSITIVE,
        "5000",
        behind!("group.share.heartbeat.interval.ms"),
        "How often members say that they are there.",
    ),
    group(
        "share.record.lock.duration.ms",
        Kind::Int { min: 1000, max: i32::MAX },
        "30000",
        behind!("group.share.record.lock.duration.ms"),
        "How long a record is one member's, in milliseconds.",
    ),
    group(
        "share.delivery.count.limit",
        Kind::Int { min: 2, max: i32::MAX },
        "5",
        behind!("group.share.delivery.count.limit"),
        "How often a record is delivered at most.",
    ),
    group(
        "share.partition.max.record.locks",
        Kind::Int { min: 100, max: i32::MAX },
        "2000",
        behind!("group.share.partition.max.record.locks"),
        "Records of one partition that are out at one time.",
    ),
    group(
        OFFSET_RESET,
        Kind::Text,
        "latest",
        &[],
        "Where a group begins to read: earliest, latest or by_duration:<ISO 8601>.",
    ),
    group(
        "share.isolation.level",
        Kind::Enum(&["read_committed", "read_uncommitted"]),
        "read_uncommitted",
        &[],
        "Whether records of transactions are delivered that were not committed.",
    ),
    group("share.renew.acknowledge.enable", Kind::Bool, "true", &[], "Members may ask for more time for a record."),
    group(
        "share.assignment.interval.ms",
        NATURAL,
        "1000",
        behind!("group.share.assignment.interval.ms"),
        "Shortest time between two assignments of the group.",
    ),
    group(
        "streams.session.timeout.ms",
        POSITIVE,
        "45000",
        behind!("group.streams.session.timeout.ms"),
        "A member that is silent for longer leaves the group.",
    ),
    group(
        "streams.heartbeat.interval.ms",
        POSITIVE,
        "5000",
        behind!("group.streams.heartbeat.interval.ms"),
        "How often members say that they are there.",
    ),
    group(
        "streams.num.standby.replicas",
        NATURAL,
        "0",
        behind!("group.streams.num.standby.replicas"),
        "How many copies of each stateful task are kept.",
    ),
    group(
        "streams.initial.rebalance.delay.ms",
        NATURAL,
        "3000",
        behind!("group.streams.initial.rebalance.delay.ms"),
        "How long the group waits for more members when it had none.",
    ),
    group(
        "streams.assignment.interval.ms",
        NATURAL,
        "1000",
        behind!("group.streams.assignment.interval.ms"),
        "Shortest time between two assignments of the group.",
    ),
];

const CLIENT_METRICS: &[ConfigDef] = &[
    group("metrics", Kind::List(&[]), "", &[], "Prefixes of the names of metrics that clients shall push."),
    group(
        "interval.ms",
        Kind::Int { min: 100, max: 3_600_000 },
        "300000",
        &[],
        "How often clients shall push, in milliseconds.",
    ),
    group("match", Kind::List(&[]), "", &[], "Which clients are meant, as name=pattern."),
];
