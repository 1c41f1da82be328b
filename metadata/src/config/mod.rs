//! Configuration: one definition per name, in every scope, and the typed settings of a topic.
//!
//! A [`ConfigDef`] says all there is to say about one name: its type and range, default, meaning, broker-level synonyms
//! and what Varve does with it. Parsing, validation, `DescribeConfigs` and the printed reference all read it, so they
//! cannot disagree. Values enter as text (a properties file, `CreateTopics`) and leave as types: Kafka's `-1` and `-2`
//! stop here.

mod codec;
mod compression;
mod definition;
mod error;
mod throttled;
mod topic;
mod topic_defaults;
mod topic_definitions;
#[cfg(test)]
mod topic_effects;
mod value;

pub use codec::Codec;
pub use compression::TopicCompression;
pub use definition::{ConfigDef, ConfigTable, Importance, Kind, Scope, Synonym, Treatment, Unit, Update};
pub use error::{ConfigError, ConfigErrors};
pub use throttled::ThrottledReplicas;
pub use topic::{ArchiveFormat, CleanupPolicy, FetchCompression, TimestampType, TopicConfig};
pub use topic_defaults::TopicDefaults;
pub use topic_definitions::topic_table;
pub use value::ConfigValue;
