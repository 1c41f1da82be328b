//! Keys and values of cluster state in the store. Values are JSON with a format version `v`.
//!
//! ```text
//! cluster                              {v, id}
//! store                                {v, members, awaited?}   in which etcd this is: another one, and it was restored there
//! put-back                             {v, ms}   when somebody last noticed that it was put back under that name, or it got a name
//! brokers/<id>                         {v, incarnation, endpoints, rack, fenced, log_dirs?, log_dir_ids?, cordoned_log_dirs?,
//!                                       version?, features?: {name: {min, max}}}
//! live/<id>                            {v, incarnation, returned?}   bound to the broker's lease
//! leaving/<id>                         {v, incarnation}   it is about to stop; bound to the same lease
//! distrusted/<id>                      {v, incarnation}   it may have lost records before this life
//! compactors/<uuid>                    {v, incarnation}   a process that only rewrites the archive; bound to its lease
//! controller                           {v, broker}        bound to that broker's lease
//! topics/<topic id>                    {v, name, overrides, partitions: how many}
//! topic-names/<name>                   {v, id}            one topic per name, also between racing writers
//! deleted/<topic id>                   {v, name}          until nothing of it is left in the archive
//! partitions/<topic id>/<index>        {v, replicas, isr, leader, leader_epoch, partition_epoch, elr?, last_leader?,
//!                                       adding?, removing?, offline?, emptied?: [{broker, dirs?}],
//!                                       recovery?: {store, trusted?, strays?, told?: [{broker, log?: {epoch, end}}]}}
//! configs/<kind>/<name>                {v, settings}      kind: broker, broker-defaults, group, client-metrics
//! quotas/<entity as JSON>              {v, quotas}        by kind of quota
//! features/<name>                      {v, level}         absent: the level of a cluster that is older than the feature
//! producer-ids                         {v, next}          first id that no block holds
//! acls/<type>/<pattern>/<principal>/<name>   {v, hosts: [{host, allow, deny}]}   `%` and `/` of the principal as %25, %2F
//! scram/<mechanism>/<user>             {v, salt, stored_key, server_key, iterations}
//! delegation-tokens/<id>               {v, owner, requester, renewers, issued_ms, expires_ms, max_ms}
//! ```
//! A partition exists once its topic counts it: a topic that is made in several transactions becomes visible with the last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{BrokerImage, ConfigResource, Endpoint, PartitionImage, Quotas, acls::Rules};
use crate::model::{
    BrokerId, FeatureLevels, PartitionId, PartitionIndex, QuotaEntity, ScramMechanism, TopicId, TopicName,
    acl::{Operations, PatternType, Permission, ResourcePattern, ResourceType},
};

/// Version of every value written today.
const FORMAT: u32 = 1;

/// One key of cluster state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Cluster,
    Store,
    PutBack,
    Broker(BrokerId),
    Live(BrokerId),
    Leaving(BrokerId),
    Distrusted(BrokerId),
    /// A process that only rewrites the archive.
    Compactor(Uuid),
    Controller,
    Topic(TopicId),
    TopicName(TopicName),
    DeletedTopic(TopicId),
    Partition(PartitionId),
    Config(ConfigResource),
    Quota(QuotaEntity),
    Feature(String),
    ProducerIds,
    /// Rules of one principal for one pattern.
    Acls(ResourcePattern, String),
    Scram(ScramMechanism, String),
    DelegationToken(String),
}

impl Key {
    /// The key's text in the store.
    pub(crate) fn text(&self) -> String {
        match self {
            Key::Cluster => "cluster".to_owned(),
            Key::Store => "store".to_owned(),
            Key::PutBack => "put-back".to_owned(),
            Key::Broker(id) => format!("brokers/{id}"),
            Key::Live(id) => format!("live/{id}"),
            Key::Leaving(id) => format!("leaving/{id}"),
            Key::Distrusted(id) => format!("distrusted/{id}"),
            Key::Compactor(id) => format!("compactors/{id}"),
            Key::Controller => "controller".to_owned(),
            Key::Topic(id) => format!("topics/{id}"),
            Key::TopicName(name) => format!("topic-names/{name}"),
            Key::DeletedTopic(id) => format!("deleted/{id}"),
            Key::Partition(id) => format!("partitions/{}/{}", id.topic, id.index),
            Key::Config(ConfigResource::Broker(id)) => format!("configs/broker/{id}"),
            Key::Config(ConfigResource::BrokerDefaults) => "configs/broker-defaults/".to_owned(),
            Key::Config(ConfigResource::Group(name)) => format!("configs/group/{name}"),
            Key::Config(ConfigResource::ClientMetrics(name)) => format!("configs/client-metrics/{name}"),
            Key::Quota(entity) => {
                // Names hold anything, so the entity is written in a form that quotes them.
                format!("quotas/{}", serde_json::to_string(entity).expect("plain enums of text always encode"))
            }
            Key::Feature(name) => format!("features/{name}"),
            Key::ProducerIds => "producer-ids".to_owned(),
            Key::Acls(pattern, principal) => {
                let (kind, how) = (pattern.resource_type.word(), pattern.pattern_type.word());
                // The name comes last, so that it may hold what it likes.
                let principal = principal.replace('%', "%25").replace('/', "%2F");
                format!("acls/{kind}/{how}/{principal}/{}", pattern.name)
            }
            Key::Scram(mechanism, user) => format!("scram/{}/{user}", mechanism.name()),
            Key::DelegationToken(id) => format!("delegation-tokens/{id}"),
        }
    }

    /// `None` for a key that this version does not know.
    pub(crate) fn parse(text: &str) -> Option<Key> {
        match text {
            "cluster" => return Some(Key::Cluster),
            "store" => return Some(Key::Store),
            "put-back" => return Some(Key::PutBack),
            "producer-ids" => return Some(Key::ProducerIds),
            "controller" => return Some(Key::Controller),
            _ => {}
        }
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "brokers" => Some(Key::Broker(BrokerId(rest.parse().ok()?))),
            "live" => Some(Key::Live(BrokerId(rest.parse().ok()?))),
            "leaving" => Some(Key::Leaving(BrokerId(rest.parse().ok()?))),
            "distrusted" => Some(Key::Distrusted(BrokerId(rest.parse().ok()?))),
            "compactors" => Some(Key::Compactor(rest.parse().ok()?)),
            "topics" => Some(Key::Topic(rest.parse().ok()?)),
            "deleted" => Some(Key::DeletedTopic(rest.parse().ok()?)),
            "topic-names" => Some(Key::TopicName(TopicName::parse(rest).ok()?)),
            "partitions" => {
                let (topic, index) = rest.split_once('/')?;
                let (topic, index) = (topic.parse().ok()?, PartitionIndex(index.parse().ok()?));
                Some(Key::Partition(PartitionId { topic, index }))
            }
            "scram" => {
                let (mechanism, user) = rest.split_once('/')?;
                Some(Key::Scram(ScramMechanism::parse(mechanism)?, user.to_owned()))
            }
            "delegation-tokens" => Some(Key::DelegationToken(rest.to_owned())),
            "quotas" => Some(Key::Quota(serde_json::from_str(rest).ok()?)),
            "features" => Some(Key::Feature(rest.to_owned())),
            "configs" => {
                let (kind, name) = rest.split_once('/')?;
                Some(Key::Config(match kind {
                    "broker" => ConfigResource::Broker(BrokerId(name.parse().ok()?)),
                    "broker-defaults" => ConfigResource::BrokerDefaults,
                    "group" => ConfigResource::Group(name.to_owned()),
                    "client-metrics" => ConfigResource::ClientMetrics(name.to_owned()),
                    _ => return None,
                }))
            }
            "acls" => parse_acls(rest),
            _ => None,
        }
    }
}

fn parse_acls(rest: &str) -> Option<Key> {
    let mut parts = rest.splitn(4, '/');
    let kind = parts.next()?;
    let resource_type = ResourceType::ALL.into_iter().find(|known| known.word() == kind)?;
    let how = parts.next()?;
    let pattern_type = [PatternType::Literal, PatternType::Prefixed].into_iter().find(|known| known.word() == how)?;
    let principal = parts.next()?.replace("%2F", "/").replace("%25", "%");
    let name = parts.next()?.to_owned();
    Some(Key::Acls(ResourcePattern { resource_type, pattern_type, name }, principal))
}

/// First letters of the keys that mean only a running process, and nothing once all of them are gone.
const EPHEMERAL: [&str; 6] = ["brokers/", "live/", "leaving/", "distrusted/", "compactors/", "controller"];

/// Whether a key belongs to a running process or to this one store, and not to what a cluster keeps.
pub(crate) fn is_ephemeral(text: &str) -> bool {
    matches!(Key::parse(text), Some(Key::Store | Key::PutBack))
        || EPHEMERAL.iter().any(|prefix| text.starts_with(prefix))
}

/// A value with its format version.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// Why a stored value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A later version of Varve wrote it.
    #[error("format {0} is newer than this version knows ({FORMAT})")]
    Newer(u32),
    /// Not the JSON that the format says.
    #[error("malformed value")]
    Malformed(#[from] serde_json::Error),
}

/// The bytes of a value.
pub(crate) fn encode<T: Serialize>(value: T) -> Bytes {
    serde_json::to_vec(&Envelope { v: FORMAT, value }).expect("plain structs with string keys always encode").into()
}

/// Reads a value back.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match serde_json::from_slice::<Version>(bytes)?.v {
        FORMAT => Ok(serde_json::from_slice::<Envelope<T>>(bytes)?.value),
        newer => Err(RecordError::Newer(newer)),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreRecord {
    /// The store's name for itself. Empty from when somebody notices that it was put back under the name that it had, until that is taken
    /// up.
    pub(crate) members: String,
    /// Brokers that a restored state knows, and that have not looked yet for logs that it does not know of.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) awaited: BTreeSet<BrokerId>,
}

/// A key of its own: versions that do not know it leave it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PutBackRecord {
    /// When, in milliseconds since 1970, and later than any time before that the writer knew of.
    pub(crate) ms: u64,
}

impl PutBackRecord {
    /// The later one of both.
    pub(crate) fn or_later(self, ms: u64) -> PutBackRecord {
        PutBackRecord { ms: self.ms.max(ms) }
    }

    /// Now, and later than this.
    pub(crate) fn next(self, now_ms: u64) -> PutBackRecord {
        PutBackRecord { ms: now_ms.max(self.ms + 1) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BrokerRecord {
    incarnation: Uuid,
    endpoints: BTreeMap<String, EndpointRecord>,
    rack: Option<String>,
    fenced: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    log_dirs: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    log_dir_ids: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cordoned_log_dirs: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    features: BTreeMap<String, FeatureLevels>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EndpointRecord {
    host: String,
    port: u16,
}

impl BrokerRecord {
    pub(crate) fn of(broker: &BrokerImage) -> BrokerRecord {
        let endpoint = |endpoint: &Endpoint| EndpointRecord { host: endpoint.host.clone(), port: endpoint.port };
        let endpoints = broker.endpoints.iter().map(|(name, at)| (name.clone(), endpoint(at))).collect();
        BrokerRecord {
            incarnation: broker.incarnation,
            endpoints,
            rack: broker.rack.clone(),
            fenced: broker.fenced,
            log_dirs: broker.log_dirs.clone(),
            log_dir_ids: broker.log_dir_ids.clone(),
            cordoned_log_dirs: broker.cordoned_log_dirs.clone(),
            version: broker.version.clone(),
            features: broker.features.clone(),
        }
    }

    pub(crate) fn into_image(self, id: BrokerId) -> BrokerImage {
        let endpoint = |at: EndpointRecord| Endpoint { host: at.host, port: at.port };
        let endpoints = self.endpoints.into_iter().map(|(name, at)| (name, endpoint(at))).collect();
        BrokerImage {
            id,
            incarnation: self.incarnation,
            endpoints,
            rack: self.rack,
            fenced: self.fenced,
            log_dirs: self.log_dirs,
            log_dir_ids: self.log_dir_ids,
            cordoned_log_dirs: self.cordoned_log_dirs,
            version: self.version,
            features: self.features,
        }
    }
}

/// One life of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LifeRecord {
    pub(crate) incarnation: Uuid,
    /// Others took it for dead, and it was not: only its lease tells from now on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) returned: bool,
}

impl LifeRecord {
    pub(crate) fn of(incarnation: Uuid) -> LifeRecord {
        LifeRecord { incarnation, returned: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControllerRecord {
    pub(crate) broker: BrokerId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) name: TopicName,
    pub(crate) overrides: BTreeMap<String, String>,
    pub(crate) partitions: u32,
}

/// A version that does not know these keys skips them, and sees a topic that is not there, as before there were any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeletedTopicRecord {
    pub(crate) name: TopicName,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicNameRecord {
    pub(crate) id: TopicId,
}

/// The image as it is: its fields are those of the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PartitionRecord(PartitionImage);

impl PartitionRecord {
    pub(crate) fn of(partition: &PartitionImage) -> PartitionRecord {
        PartitionRecord(partition.clone())
    }

    pub(crate) fn into_image(self) -> PartitionImage {
        self.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigRecord {
    pub(crate) settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QuotaRecord {
    pub(crate) quotas: Quotas,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FeatureRecord {
    pub(crate) level: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerIdsRecord {
    pub(crate) next: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AclRecord {
    hosts: Vec<HostRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HostRecord {
    host: String,
    allow: Operations,
    deny: Operations,
}

impl AclRecord {
    pub(crate) fn of(rules: &Rules) -> AclRecord {
        let host =
            |rule: &super::acls::HostRule| HostRecord { host: rule.host.clone(), allow: rule.allow, deny: rule.deny };
        AclRecord { hosts: rules.hosts().iter().map(host).collect() }
    }

    pub(crate) fn into_rules(self) -> Rules {
        let mut rules = Rules::default();
        for HostRecord { host, allow, deny } in self.hosts {
            let each =
                |operations: Operations, permission| operations.iter().map(move |operation| (operation, permission));
            for (operation, permission) in each(allow, Permission::Allow).chain(each(deny, Permission::Deny)) {
                rules.insert(&host, operation, permission);
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{QuotaName, acl::Operation};
    use crate::{image::EmptiedReplica, model::LeaderEpoch};

    fn acls(principal: &str, name: &str) -> Key {
        let (resource_type, pattern_type) = (ResourceType::TransactionalId, PatternType::Prefixed);
        Key::Acls(ResourcePattern { resource_type, pattern_type, name: name.into() }, principal.into())
    }

    #[test]
    fn the_format_of_rules_is_what_the_drawing_says() {
        let mut rules = Rules::default();
        rules.insert("*", Operation::Read, Permission::Allow);
        rules.insert("*", Operation::All, Permission::Deny);
        let text = encode(AclRecord::of(&rules));
        assert_eq!(text, r#"{"v":1,"hosts":[{"host":"*","allow":["Read"],"deny":["All"]}]}"#);
        assert_eq!(decode::<AclRecord>(&text).unwrap().into_rules(), rules);
        assert_eq!(acls("User:a/b", "x/y").text(), "acls/transactional-id/prefixed/User:a%2Fb/x/y");
    }

    #[test]
    fn every_key_reads_back_from_its_text() {
        let topic = TopicId::random();
        let keys = [
            Key::Cluster,
            Key::ProducerIds,
            Key::Scram(ScramMechanism::Sha512, "a/b".into()),
            Key::DelegationToken("t".into()),
            Key::Broker(BrokerId(7)),
            Key::Live(BrokerId(7)),
            Key::Leaving(BrokerId(7)),
            Key::Distrusted(BrokerId(7)),
            Key::Controller,
            Key::Topic(topic),
            Key::DeletedTopic(topic),
            Key::TopicName(TopicName::parse("a.b").unwrap()),
            Key::Partition(PartitionId { topic, index: PartitionIndex(12) }),
            Key::Config(ConfigResource::BrokerDefaults),
            Key::Config(ConfigResource::Broker(BrokerId(1))),
            Key::Config(ConfigResource::Group("a/b".into())),
            Key::Config(ConfigResource::ClientMetrics("m".into())),
            acls("User:CN=a%2F/b", "some/name"),
            acls("User:*", "*"),
            Key::Quota(QuotaEntity::User(QuotaName::Default)),
            Key::Quota(QuotaEntity::UserClient(QuotaName::Named("a/\"b".into()), QuotaName::Named("c".into()))),
            Key::Feature("transaction.version".into()),
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.text()), Some(key));
        }
        assert_eq!(Key::parse("later/thing"), None);
    }

    #[test]
    fn a_value_of_a_later_format_is_refused_by_its_number() {
        let value = encode(ProducerIdsRecord { next: 5 });
        assert_eq!(decode::<ProducerIdsRecord>(&value).unwrap().next, 5);
        assert!(matches!(decode::<ProducerIdsRecord>(br#"{"v":2,"somewhere":"else"}"#), Err(RecordError::Newer(2))));
        assert!(matches!(decode::<ProducerIdsRecord>(b"{"), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn the_format_of_a_partition_is_what_the_drawing_says() {
        let partition = PartitionImage {
            replicas: vec![BrokerId(1), BrokerId(2)],
            isr: vec![BrokerId(1)],
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 4,
            ..PartitionImage::default()
        };
        let text = encode(PartitionRecord::of(&partition));
        assert_eq!(text, r#"{"v":1,"replicas":[1,2],"isr":[1],"leader":1,"leader_epoch":3,"partition_epoch":4}"#);
        assert_eq!(decode::<PartitionRecord>(&text).unwrap().into_image(), partition);
        let alone = PartitionImage { elr: vec![BrokerId(2)], last_leader: Some(BrokerId(2)), ..partition.clone() };
        let text = encode(PartitionRecord::of(&alone));
        assert!(text.ends_with(br#""partition_epoch":4,"elr":[2],"last_leader":2}"#));
        assert_eq!(decode::<PartitionRecord>(&text).unwrap().into_image(), alone);
        let failed = PartitionImage { offline: vec![BrokerId(2)], ..partition.clone() };
        let text = encode(PartitionRecord::of(&failed));
        assert!(text.ends_with(br#""partition_epoch":4,"offline":[2]}"#));
        assert_eq!(decode::<PartitionRecord>(&text).unwrap().into_image(), failed);
        let counted = EmptiedReplica { broker: BrokerId(2), dirs: vec!["d".to_owned()] };
        let emptied = vec![EmptiedReplica { broker: BrokerId(1), dirs: Vec::new() }, counted];
        let emptied = PartitionImage { emptied, ..partition.clone() };
        let text = encode(PartitionRecord::of(&emptied));
        assert!(text.ends_with(br#""partition_epoch":4,"emptied":[{"broker":1},{"broker":2,"dirs":["d"]}]}"#));
        assert_eq!(decode::<PartitionRecord>(&text).unwrap().into_image(), emptied);
        let moving = PartitionImage { adding: vec![BrokerId(3)], ..partition };
        let text = encode(PartitionRecord::of(&moving));
        assert!(text.ends_with(br#""partition_epoch":4,"adding":[3]}"#));
        assert_eq!(decode::<PartitionRecord>(&text).unwrap().into_image(), moving);
    }
}
