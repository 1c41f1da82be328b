//! The node's configuration: where it comes from, what every name means, and the typed tree that the rest reads.
//!
//! ```text
//!  properties file  <  environment VARVE_…  <  --override name=value      later layers win, name by name
//!         └──────────────── sources ────────────────┘
//!                            │ text by name
//!                       definitions: known? valid? honoured, without effect, refused?
//!                            │
//!                       BrokerConfig: Duration, bytes, addresses, enums
//! ```
//!
//! Everything that is wrong is reported at once. Kafka's `-1`s end here.

mod broker;
mod cluster;
mod definitions;
mod docs;
mod environment;
mod first_users;
mod listener_settings;
mod listeners;
mod load;
mod login;
mod object_store;
mod properties;
mod sasl;
mod settings;
#[cfg(test)]
mod tests;
mod tls;

pub use broker::{
    ArchiveConfig, AuthorizerConfig, BrokerConfig, CacheConfig, CleanerConfig, CompactorConfig, ConsumerGroupConfig,
    GroupConfig, GroupLimit, GroupTime, LogConfig, LogFormat, MetadataUrl, NetworkConfig, QuotaConfig, Roles,
    SelfLogConfig, ShareGroupConfig, ShareStateTopicConfig, StreamsGroupConfig, TopicCreation, TraceConfig,
    TransactionConfig,
};
pub use cluster::{EtcdConfig, ReplicationConfig};
pub use definitions::{Prefix, broker_table, prefixes};
pub(crate) use definitions::{
    is_described_once_given, is_of_listeners, is_outside_kafkas_table, listener_setting, typed_as,
};
pub use docs::reference;
pub use first_users::FirstUser;
pub(crate) use listener_settings::{ListenerSettings, listener_prefix};
pub(crate) use listeners::reachable_here;
pub use listeners::{Advertised, Listener, ListenerConfig};
pub use load::{Loaded, Sources};
pub use login::{Login, PasswordLogin, PasswordMechanism};
pub use object_store::ObjectStoreConfig;
pub use properties::{Property, parse_properties};
pub use sasl::{DelegationTokenConfig, OauthConfig, SaslConfig};
pub use settings::{Origin, Setting, Settings};
pub use tls::{ClientAuth, KeyStoreConfig, TlsConfig, TrustStoreConfig};
