//! Changes of settings (KIP-226, KIP-339).

use std::collections::BTreeMap;

use super::Decision;
use crate::{
    config::{ConfigError, ConfigTable, Kind, TopicConfig, topic_table},
    image::{
        ClusterImage, ConfigResource, is_internal,
        record::{self, ConfigRecord, Key, TopicRecord},
    },
    model::{TopicName, TopicNameError},
};

/// Longest value in bytes that Kafka keeps.
const MAX_VALUE_BYTES: usize = i16::MAX as usize;

/// What the settings belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterResource {
    /// A topic, by the name as asked.
    Topic(String),
    /// Anything else.
    Other(ConfigResource),
}

/// The change of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterRequest {
    /// Whose settings.
    pub resource: AlterResource,
    /// Which change.
    pub alteration: Alteration,
}

/// How settings change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// Name by name (IncrementalAlterConfigs).
    Incremental(BTreeMap<String, ConfigOp>),
    /// These and no others (AlterConfigs).
    Replace(BTreeMap<String, String>),
}

impl Alteration {
    fn names(&self) -> Vec<&str> {
        match self {
            Alteration::Incremental(ops) => ops.keys().map(String::as_str).collect(),
            Alteration::Replace(settings) => settings.keys().map(String::as_str).collect(),
        }
    }
}

/// The change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    /// To this value.
    Set(String),
    /// Back to the default.
    Delete,
    /// These words, separated by commas, join a list.
    Append(String),
    /// These words leave a list.
    Subtract(String),
}

impl ConfigOp {
    fn kafka_name(&self) -> &'static str {
        match self {
            ConfigOp::Set(_) => "SET",
            ConfigOp::Delete => "DELETE",
            ConfigOp::Append(_) => "APPEND",
            ConfigOp::Subtract(_) => "SUBTRACT",
        }
    }
}

/// Why settings do not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterError {
    /// There is no such topic.
    #[error("The topic '{0}' does not exist.")]
    UnknownTopic(String),
    /// The name cannot be that of a topic.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// A topic without a name.
    #[error("Default topic resources are not allowed.")]
    DefaultTopic,
    /// A group without a name.
    #[error("Default group resources are not allowed.")]
    DefaultGroup,
    /// A list operation on what is no list.
    #[error("Can't {op} to key {name} because its type is not LIST.")]
    NotAList {
        /// The operation.
        op: &'static str,
        /// The setting.
        name: String,
    },
    /// A value longer than Kafka keeps.
    #[error(
        "The configuration value cannot be added because it exceeds the maximum value size of {MAX_VALUE_BYTES} bytes."
    )]
    TooLong,
    /// A setting is unknown or invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Archiving would be turned off, and nobody said what is to become of the archive (KIP-950).
    #[error(
        "remote.storage.enable=false takes the topic's archived records away, so it needs \
         remote.log.delete.on.disable=true; to archive nothing more and keep them readable, set \
         remote.storage.enable=true and remote.log.copy.disable=true"
    )]
    LosesArchive,
    /// The broker says no: to a value, or to a change while it runs.
    #[error("{0}")]
    Refused(String),
    /// The broker says no to a value, as to one that its definition excludes.
    #[error("{0}")]
    Invalid(String),
}

/// What a broker says about settings that are not a topic's: it holds their definitions, and knows which of them can change
/// while it runs.
pub trait BrokerRules: Send + Sync {
    /// The settings that `resource` can have.
    fn table(&self, resource: &ConfigResource) -> &ConfigTable;

    /// Whether `resource` may have exactly these dynamic settings; `changed` are the names that the request names.
    ///
    /// # Errors
    /// [`AlterError`].
    fn check(
        &self,
        resource: &ConfigResource,
        settings: &BTreeMap<String, String>,
        changed: &[&str],
    ) -> Result<(), AlterError>;
}

/// Changes settings, of each resource all or none. Each resource is named once.
pub fn alter_configs(
    image: &ClusterImage,
    requests: &[AlterRequest],
    rules: &dyn BrokerRules,
) -> (Vec<Result<(), AlterError>>, Decision) {
    let mut decision = Decision::default();
    let results = requests
        .iter()
        .map(|request| match &request.resource {
            AlterResource::Topic(name) => alter_topic(image, name, &request.alteration, &mut decision),
            AlterResource::Other(resource) => alter_other(image, resource, &request.alteration, rules, &mut decision),
        })
        .collect();
    (results, decision)
}

fn alter_topic(
    image: &ClusterImage,
    name: &str,
    alteration: &Alteration,
    decision: &mut Decision,
) -> Result<(), AlterError> {
    let topic = image.topic(name);
    let none = BTreeMap::new();
    let current = topic.map_or(&none, |topic| topic.overrides.as_ref());
    let default = |name: &str| image.topic_defaults().value(name).map(str::to_owned);
    let settings = altered(current, alteration, topic_table(), &default)?;
    if name.is_empty() {
        return Err(AlterError::DefaultTopic);
    }
    TopicName::parse(name)?;
    let config = TopicConfig::resolve(image.topic_defaults(), &settings)?;
    if is_internal(name) && config.remote_storage && settings.contains_key("remote.storage.enable") {
        return Err(AlterError::Refused(format!("The internal topic {name} cannot have remote storage.")));
    }
    // Kafka asks last whether the topic exists.
    let topic = topic.ok_or_else(|| AlterError::UnknownTopic(name.to_owned()))?;
    if settings == *topic.overrides {
        return Ok(());
    }
    // KIP-950: neither may the archive be forgotten, nor may the records in it vanish without being told so.
    if topic.config.remote_storage && !config.remote_storage && !config.remote_delete_on_disable {
        return Err(AlterError::LosesArchive);
    }
    let key = Key::Topic(topic.id);
    let partitions = topic.partitions.len() as u32;
    decision.put(&key, record::encode(TopicRecord { name: topic.name.clone(), overrides: settings, partitions }));
    decision.rewrites.push(key);
    Ok(())
}

fn alter_other(
    image: &ClusterImage,
    resource: &ConfigResource,
    alteration: &Alteration,
    rules: &dyn BrokerRules,
    decision: &mut Decision,
) -> Result<(), AlterError> {
    let none = BTreeMap::new();
    let current = image.configs().get(resource).unwrap_or(&none);
    let table = rules.table(resource);
    let default = |name: &str| table.get(name)?.default.map(str::to_owned);
    let settings = altered(current, alteration, table, &default)?;
    if *resource == ConfigResource::Group(String::new()) {
        return Err(AlterError::DefaultGroup);
    }
    rules.check(resource, &settings, &alteration.names())?;
    if settings == *current {
        return Ok(());
    }
    let key = Key::Config(resource.clone());
    if settings.is_empty() {
        decision.delete(&key);
    } else {
        decision.put(&key, record::encode(ConfigRecord { settings }));
    }
    decision.rewrites.push(key);
    Ok(())
}

fn altered(
    current: &BTreeMap<String, String>,
    alteration: &Alteration,
    table: &ConfigTable,
    default: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, AlterError> {
    let settings = match alteration {
        Alteration::Replace(settings) => settings.clone(),
        Alteration::Incremental(ops) => {
            let mut settings = current.clone();
            for (name, op) in ops {
                apply(&mut settings, name, op, table, default)?;
            }
            settings
        }
    };
    let long = |(name, value): (&String, &String)| value.len() > MAX_VALUE_BYTES && current.get(name) != Some(value);
    if settings.iter().any(long) { Err(AlterError::TooLong) } else { Ok(settings) }
}

fn apply(
    settings: &mut BTreeMap<String, String>,
    name: &str,
    op: &ConfigOp,
    table: &ConfigTable,
    default: &dyn Fn(&str) -> Option<String>,
) -> Result<(), AlterError> {
    match op {
        ConfigOp::Set(value) => drop(settings.insert(name.to_owned(), value.clone())),
        ConfigOp::Delete => drop(settings.remove(name)),
        ConfigOp::Append(words) | ConfigOp::Subtract(words) => {
            if !table.get(name).is_some_and(|definition| matches!(definition.kind, Kind::List(_) | Kind::Replicas)) {
                return Err(AlterError::NotAList { op: op.kafka_name(), name: name.to_owned() });
            }
            let before = settings.get(name).cloned().or_else(|| default(name)).unwrap_or_default();
            let joins = matches!(op, ConfigOp::Append(_));
            settings.insert(name.to_owned(), edit_list(&before, words, joins));
        }
    }
    Ok(())
}

/// The comma-separated list `before` with `words` joined to it, or taken from it.
fn edit_list(before: &str, words: &str, joins: bool) -> String {
    let mut list: Vec<&str> = before.split(',').filter(|word| !word.is_empty()).collect();
    for word in words.split(',') {
        match list.iter().position(|known| *known == word) {
            Some(place) if !joins => drop(list.remove(place)),
            None if joins => list.push(word),
            Some(_) | None => {}
        }
    }
    list.join(",")
}
