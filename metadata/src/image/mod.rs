//! The cluster as requests see it: an immutable picture that follows the store.
//!
//! An image is a value. Who holds one sees topics, partitions and settings of one moment, for as long as it wants, without a
//! lock. The next image shares everything that did not change: a topic that is the same is the same `Arc`, so finding
//! what changed is a comparison of pointers ([`ClusterImage::changes_since`]).

mod acls;
mod build;
mod configs;
mod history;
mod membership;
mod quotas;
pub(crate) mod record;
mod staged;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    config::{ConfigError, TopicConfig, TopicDefaults},
    model::{
        BrokerId, DelegationToken, Feature, FeatureLevels, LeaderEpoch, Offset, PartitionId, PartitionIndex,
        ScramCredential, ScramMechanism, TopicId, TopicName,
    },
    store::Revision,
};

pub use acls::{AclImage, Rules, Verdict};
pub use build::{ImageBuilder, ImageError};
pub use configs::{ConfigImage, ConfigResource, overlay};
pub use membership::MembershipImage;
pub use quotas::{QuotaFilter, QuotaImage, QuotaMatch, Quotas};
pub use record::RecordError;

/// The cluster at one revision of the store.
#[derive(Clone, Debug)]
pub struct ClusterImage {
    revision: Revision,
    cluster_id: Arc<str>,
    store: Arc<record::StoreRecord>,
    put_back_ms: u64,
    brokers: Arc<BTreeMap<BrokerId, BrokerImage>>,
    membership: Arc<MembershipImage>,
    by_name: Arc<BTreeMap<TopicName, Arc<TopicImage>>>,
    by_id: Arc<HashMap<TopicId, Arc<TopicImage>>>,
    deleted: Arc<BTreeMap<TopicId, Revision>>,
    partitions: usize,
    configs: Arc<ConfigImage>,
    quotas: Arc<QuotaImage>,
    features: Arc<BTreeMap<String, u16>>,
    topic_defaults: Arc<TopicDefaults>,
    acls: Arc<AclImage>,
    scram: Arc<BTreeMap<(ScramMechanism, String), ScramCredential>>,
    delegation_tokens: Arc<BTreeMap<String, DelegationToken>>,
    elections: Elections,
}

/// How often partitions got another leader, as far as it was seen from here since the process began to follow the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elections {
    /// Of those who had every committed record.
    pub clean: u64,
    /// Of others: records may be lost.
    pub unclean: u64,
}

/// One broker as it registered itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerImage {
    /// Its `node.id`.
    pub id: BrokerId,
    /// New with every start of the broker.
    pub incarnation: Uuid,
    /// Where clients reach it, by listener name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// A fenced broker is registered, but leads and receives nothing.
    pub fenced: bool,
    /// Its `log.dirs`.
    pub log_dirs: Vec<String>,
    /// Ids of the directories whose logs are counted on (KIP-858). Empty: it did not say.
    pub log_dir_ids: BTreeSet<String>,
    /// `cordoned.log.dirs` of its own configuration (KIP-1066); a dynamic setting replaces it.
    pub cordoned_log_dirs: Vec<String>,
    /// The version of Varve that runs there.
    pub version: String,
    /// The levels of features that it serves, by name. Empty: it did not say.
    pub features: BTreeMap<String, FeatureLevels>,
}

/// Where one listener is reached from outside (`advertised.listeners`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, as given to clients.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicImage {
    /// Its identity.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// The settings given to this topic, as text.
    pub overrides: Arc<BTreeMap<String, String>>,
    /// All settings of this topic, with the broker's defaults applied. Topics without overrides share one.
    pub config: Arc<TopicConfig>,
    /// By partition index.
    pub partitions: Vec<PartitionImage>,
    /// The revisions that wrote them: compare with it to replace one.
    pub written: Vec<Revision>,
    /// Made by the cluster for itself (`__consumer_offsets`, …).
    pub internal: bool,
}

/// Who holds one partition. Stored as it is (`record.rs`): a field that came later is absent where there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionImage {
    /// Brokers that should hold it; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// Replicas that are in sync.
    pub isr: Vec<BrokerId>,
    /// The broker that takes its writes, if one does.
    pub leader: Option<BrokerId>,
    /// Raised with every change of leader.
    pub leader_epoch: LeaderEpoch,
    /// Raised with every change of this state.
    pub partition_epoch: u32,
    /// Replicas out of sync that have every committed record all the same (KIP-966).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<BrokerId>,
    /// Who led when neither ISR nor ELR had anybody left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_leader: Option<BrokerId>,
    /// Replicas that a reassignment adds (KIP-455), once they are in sync; part of `replicas`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding: Vec<BrokerId>,
    /// Replicas that it takes away then; part of `replicas`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<BrokerId>,
    /// Replicas that their brokers cannot reach, because a log directory failed: they are in neither ISR nor ELR and do not lead
    /// until their brokers say that they are there again. Part of `replicas`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<BrokerId>,
    /// Replicas that came back without their log: they are in neither ISR nor ELR, and where there is no leader they do not become
    /// it by themselves. First those on which nobody counted, then the others in the order in which they came back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<EmptiedReplica>,
    /// Nobody knows who is in sync, because all of this was restored from a backup: replicas are asked what they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// A replica that came back without its log, and has not caught up since.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EmptiedReplica {
    /// Whose it is.
    pub broker: BrokerId,
    /// Ids of the directories of which one had the log. With one of them the broker has the records that were acknowledged. None if
    /// nobody counted on this replica, or somebody has led since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<String>,
}

/// A partition that is to be led by whoever has most, once all replicas have told (KIP-966 calls it unclean recovery; with all of them
/// it loses nothing).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recovery {
    /// The store in which it began, by its name for its members: begun in another one, it begins anew.
    pub store: String,
    /// Who had everything when the backup was taken: where one of them has no log any more, it was moved or lost since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<BrokerId>,
    /// Replicas that the backup does not know: brokers that came with a log. Once somebody leads they are replicas that a move takes
    /// away again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<BrokerId>,
    /// What replicas have told, in their order of ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<ReplicaLog>,
}

/// What a replica has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaLog {
    /// Whose it is.
    pub broker: BrokerId,
    /// None: the broker began without a log of the partition, and is not known to have lost one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogExtent>,
}

/// How far a log goes. Of two logs of one partition that have an epoch, the greater one has every record of the other that was ever
/// committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogExtent {
    /// The newest leader epoch that it knows. None: it has no record, because it never had one, or all of them were deleted or are in the
    /// archive, which only happens to what is committed.
    pub epoch: Option<LeaderEpoch>,
    /// The offset behind its last record.
    pub end: Offset,
}

impl TopicImage {
    /// A partition's identity, if the topic has it.
    pub fn partition(&self, index: PartitionIndex) -> Option<(PartitionId, &PartitionImage)> {
        let partition = self.partitions.get(usize::try_from(index.0).ok()?)?;
        Some((PartitionId { topic: self.id, index }, partition))
    }

    /// Replicas of the first partition: what Kafka calls the topic's replication factor.
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len())
    }
}

/// What happened to a topic between two images.
#[derive(Clone, Debug)]
pub enum TopicChange {
    /// It is new.
    Created(Arc<TopicImage>),
    /// Its settings or partitions changed.
    Altered {
        /// As it was.
        before: Arc<TopicImage>,
        /// As it is.
        now: Arc<TopicImage>,
    },
    /// It is gone.
    Deleted(Arc<TopicImage>),
}

impl ClusterImage {
    /// The store's revision that this image shows.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The cluster's name for itself, made once.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Brokers by id.
    pub fn brokers(&self) -> &BTreeMap<BrokerId, BrokerImage> {
        &self.brokers
    }

    /// In which store the state is, by its name for itself; empty: nobody has said, or it was put back and nobody has taken that up.
    pub(crate) fn store_name(&self) -> &str {
        &self.store.members
    }

    /// When the store was last known to be put back under that name, or got it, in milliseconds since 1970; 0: nobody has said.
    pub(crate) fn put_back_ms(&self) -> u64 {
        self.put_back_ms
    }

    /// Brokers that were registered when all of this was restored from a backup, and have not looked since for logs that the backup
    /// does not know of. One that is not registered any more is not waited for.
    pub fn awaited(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.store.awaited.iter().copied().filter(|id| self.brokers.contains_key(id))
    }

    /// Which brokers are alive and trusted, and who of them is the controller. Nobody is where one node agrees with itself.
    pub fn membership(&self) -> &MembershipImage {
        &self.membership
    }

    /// Whether a broker may lead and be in sync: registered, and let in by the controller.
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced)
    }

    /// The life of a broker that may become leader and join an ISR: active, and not about to stop.
    pub fn in_service(&self, id: BrokerId) -> Option<Uuid> {
        let broker = self.brokers.get(&id).filter(|broker| !broker.fenced)?;
        (self.membership.leaving(id) != Some(broker.incarnation)).then_some(broker.incarnation)
    }

    /// Whether a broker gets no new replicas: all its log directories are cordoned (KIP-1066), because it is being drained for
    /// one.
    pub fn is_cordoned(&self, id: BrokerId) -> bool {
        let Some(broker) = self.brokers.get(&id) else { return false };
        let given = self.configs.get(&ConfigResource::Broker(id)).and_then(|settings| settings.get(CORDONED_LOG_DIRS));
        let cordoned: Vec<&str> = match given {
            Some(text) => text.split(',').map(str::trim).collect(),
            None => broker.cordoned_log_dirs.iter().map(String::as_str).collect(),
        };
        let is_cordoned = |dir: &String| cordoned.contains(&dir.as_str());
        cordoned.contains(&ALL_LOG_DIRS) || (!broker.log_dirs.is_empty() && broker.log_dirs.iter().all(is_cordoned))
    }

    /// Topics in the order of their names.
    pub fn topics(&self) -> &BTreeMap<TopicName, Arc<TopicImage>> {
        &self.by_name
    }

    /// The topic called `name`.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    /// The topic with this id.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// Topics that somebody deleted, and the revisions that did, as long as something of them may be left in the archive. One that
    /// is neither there nor here may have been forgotten by a store that was put back to an older state.
    pub fn deleted_topics(&self) -> &BTreeMap<TopicId, Revision> {
        &self.deleted
    }

    /// A partition of a topic.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionImage> {
        self.topic_by_id(id.topic)?.partitions.get(usize::try_from(id.index.0).ok()?)
    }

    /// Changes of leaders that were seen so far.
    pub fn elections(&self) -> Elections {
        self.elections
    }

    /// How many partitions all topics have together.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Settings given while running, other than those of topics.
    pub fn configs(&self) -> &ConfigImage {
        &self.configs
    }

    /// Client quotas.
    pub fn quotas(&self) -> &Arc<QuotaImage> {
        &self.quotas
    }

    /// The level of a feature that the cluster has agreed on. 0: off, or not known.
    pub fn feature_level(&self, name: &str) -> u16 {
        let unsaid = || Feature::named(name).map_or(0, |feature| feature.unsaid);
        self.features.get(name).copied().unwrap_or_else(unsaid)
    }

    /// The levels that the cluster has agreed on, by name, also those of features that this version does not know.
    pub fn finalized_features(&self) -> BTreeMap<&str, u16> {
        let unsaid = Feature::ALL.iter().map(|feature| (feature.name, feature.unsaid));
        unsaid.chain(self.features.iter().map(|(name, level)| (name.as_str(), *level))).collect()
    }

    /// What a topic without overrides gets, dynamic broker settings included.
    pub fn topic_defaults(&self) -> &Arc<TopicDefaults> {
        &self.topic_defaults
    }

    /// Who may do what.
    pub fn acls(&self) -> &AclImage {
        &self.acls
    }

    /// What is known of `user`'s password in one mechanism.
    pub fn scram_credential(&self, mechanism: ScramMechanism, user: &str) -> Option<&ScramCredential> {
        self.scram.get(&(mechanism, user.to_owned()))
    }

    /// Every SCRAM credential, by mechanism and user.
    pub fn scram_credentials(&self) -> &BTreeMap<(ScramMechanism, String), ScramCredential> {
        &self.scram
    }

    /// Delegation tokens by id, expired ones included until they are swept.
    pub fn delegation_tokens(&self) -> &BTreeMap<String, DelegationToken> {
        &self.delegation_tokens
    }

    /// The revision that wrote `key` last, where the image keeps it.
    pub(crate) fn written(&self, key: &record::Key) -> Option<Revision> {
        match key {
            record::Key::Partition(id) => self.topic_by_id(id.topic)?.written.get(id.index.0 as usize).copied(),
            record::Key::Broker(id) => self.membership.registered(*id),
            _ => None,
        }
    }

    /// Whether `key`, one of those that requests rewrite, was there when the store was as this image shows it. `false` where
    /// it is all the same: a feature's level is never taken away.
    pub(crate) fn shows(&self, key: &record::Key) -> bool {
        match key {
            record::Key::Topic(id) => self.topic_by_id(*id).is_some(),
            record::Key::Config(resource) => self.configs.get(resource).is_some(),
            record::Key::Quota(entity) => self.quotas.get(entity).is_some(),
            record::Key::Acls(pattern, principal) => !self.acls.rules(pattern, principal).is_empty(),
            record::Key::Scram(mechanism, user) => self.scram_credential(*mechanism, user).is_some(),
            record::Key::DelegationToken(id) => self.delegation_tokens.contains_key(id),
            _ => false,
        }
    }

    /// Every topic that differs from `before`: deletions first, so that a topic made anew under an old name comes after its
    /// predecessor's end.
    pub fn changes_since(&self, before: &ClusterImage) -> Vec<TopicChange> {
        if Arc::ptr_eq(&self.by_id, &before.by_id) {
            return Vec::new();
        }
        let gone = before.by_id.iter().filter(|(id, _)| !self.by_id.contains_key(id));
        let mut changes: Vec<TopicChange> = gone.map(|(_, topic)| TopicChange::Deleted(Arc::clone(topic))).collect();
        changes.extend(self.by_name.values().filter_map(|now| match before.by_id.get(&now.id) {
            None => Some(TopicChange::Created(Arc::clone(now))),
            Some(old) if Arc::ptr_eq(old, now) => None,
            Some(old) => Some(TopicChange::Altered { before: Arc::clone(old), now: Arc::clone(now) }),
        }));
        changes
    }
}

/// The setting that keeps new replicas away from log directories (KIP-1066).
pub const CORDONED_LOG_DIRS: &str = "cordoned.log.dirs";
/// Its value for all of them.
pub const ALL_LOG_DIRS: &str = "*";

/// Names that the cluster keeps for itself; clients may not create or write them by accident (Kafka's `isInternal`).
pub const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Whether `name` is one of [`INTERNAL_TOPICS`].
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// The settings of a topic of that name. The cluster's own topics are never archived, as in Kafka: a broker reads them before
/// it serves anything, so they must not depend on a bucket.
///
/// # Errors
/// As [`TopicConfig::resolve`].
pub(crate) fn resolve_config(
    name: &TopicName,
    defaults: &TopicDefaults,
    overrides: &BTreeMap<String, String>,
) -> Result<TopicConfig, ConfigError> {
    let config = TopicConfig::resolve(defaults, overrides)?;
    let remote_storage = config.remote_storage && !is_internal(name.as_str());
    Ok(TopicConfig { remote_storage, ..config })
}
