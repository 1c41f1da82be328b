//! New topics.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Decision,
    placement::{self, Placement, PlacementError},
};
use crate::{
    config::ConfigError,
    image::{
        ClusterImage, PartitionImage, TopicImage, is_internal,
        record::{self, Key, PartitionRecord, TopicNameRecord, TopicRecord},
        resolve_config,
    },
    model::{PartitionId, PartitionIndex, TopicId, TopicName, TopicNameError},
    store::Expect,
};

/// Partitions that one request may create (Kafka's `MAX_PARTITIONS_PER_BATCH`).
pub(super) const MAX_PARTITIONS: usize = 10_000;

/// One topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// As asked; checked here.
    pub name: String,
    /// Where its partitions go, or why the request does not say so. That error is given only if nothing else is wrong
    /// before it, as Kafka orders its checks.
    pub placement: Result<Placement, PlacementError>,
    /// Settings. A null value is an error.
    pub overrides: BTreeMap<String, Option<String>>,
}

/// What a topic gets whose request does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreationDefaults {
    /// `num.partitions`.
    pub partitions: u32,
    /// `default.replication.factor`.
    pub replication_factor: u16,
}

/// The request as a whole asks for more than 10 000 partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Excessively large number of partitions per request.")]
pub struct TooManyPartitions;

/// Why a topic is not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// The name breaks the rule for names.
    #[error(transparent)]
    Name(#[from] TopicNameError),
    /// The name differs from another only in `.` against `_`.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides {
        /// The name asked for.
        name: TopicName,
        /// The name that is taken.
        existing: TopicName,
    },
    /// The name is taken.
    #[error("Topic '{0}' already exists.")]
    Exists(TopicName),
    /// Settings without a value.
    #[error("Null value not supported for topic configs: {}", .0.join(","))]
    NullConfigs(Vec<String>),
    /// A setting is unknown or invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its partitions cannot be placed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// There are no brokers for its partitions.
    #[error("Unable to replicate the partition {replication_factor} time(s): {error}")]
    Unplaceable {
        /// Replicas per partition that were to be placed.
        replication_factor: u16,
        /// Why.
        error: PlacementError,
    },
}

/// Whether the topics have no more partitions together than one request may make.
///
/// # Errors
/// [`TooManyPartitions`].
pub fn check_partition_count(topics: &[NewTopic], defaults: CreationDefaults) -> Result<(), TooManyPartitions> {
    let asked: usize = topics.iter().map(|topic| asked_partitions(topic, defaults)).sum();
    if asked > MAX_PARTITIONS { Err(TooManyPartitions) } else { Ok(()) }
}

/// Creates topics, whose number of partitions was [checked](check_partition_count). `new_id` gives their ids; `start` is where
/// placement begins, best a random number.
pub fn create_topics(
    image: &ClusterImage,
    topics: &[NewTopic],
    defaults: CreationDefaults,
    new_id: &mut dyn FnMut() -> TopicId,
    start: usize,
) -> (Vec<Result<Arc<TopicImage>, CreateTopicError>>, Decision) {
    let names = Names::of(image, topics);
    let mut decision = Decision::default();
    let mut results = Vec::with_capacity(topics.len());
    for (place, topic) in topics.iter().enumerate() {
        let created = create_topic(image, topic, defaults, &names, new_id(), start.wrapping_add(place));
        if let Ok(topic) = &created {
            record_creation(topic, &mut decision);
        }
        results.push(created.map(Arc::new));
    }
    (results, decision)
}

fn asked_partitions(topic: &NewTopic, defaults: CreationDefaults) -> usize {
    match &topic.placement {
        Ok(Placement::Spread { partitions, .. }) => partitions.unwrap_or(defaults.partitions) as usize,
        Ok(Placement::Manual(assigned)) => assigned.len(),
        Err(_) => 0,
    }
}

fn create_topic(
    image: &ClusterImage,
    topic: &NewTopic,
    defaults: CreationDefaults,
    names: &Names,
    id: TopicId,
    start: usize,
) -> Result<TopicImage, CreateTopicError> {
    let name = TopicName::parse(&topic.name)?;
    if image.topic(&topic.name).is_some() {
        return Err(CreateTopicError::Exists(name));
    }
    if let Some(existing) = names.colliding(&name) {
        return Err(CreateTopicError::Collides { name, existing });
    }
    let overrides = given_configs(&topic.overrides)?;
    let config = resolve_config(&name, image.topic_defaults(), &overrides)?;
    let partitions = place(image, topic.placement.as_ref().map_err(Clone::clone)?, defaults, start)?;
    Ok(TopicImage {
        id,
        internal: is_internal(name.as_str()),
        name,
        overrides: Arc::new(overrides),
        config: Arc::new(config),
        // Not written yet.
        written: Vec::new(),
        partitions,
    })
}

fn given_configs(overrides: &BTreeMap<String, Option<String>>) -> Result<BTreeMap<String, String>, CreateTopicError> {
    let nulls: Vec<String> =
        overrides.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone()).collect();
    if !nulls.is_empty() {
        return Err(CreateTopicError::NullConfigs(nulls));
    }
    Ok(overrides.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect())
}

fn place(
    image: &ClusterImage,
    placement: &Placement,
    defaults: CreationDefaults,
    start: usize,
) -> Result<Vec<PartitionImage>, CreateTopicError> {
    match placement {
        Placement::Manual(assigned) => Ok(placement::manual(image, assigned)?),
        Placement::Spread { partitions, replication_factor } => {
            let partitions = partitions.unwrap_or(defaults.partitions);
            let replication_factor = replication_factor.unwrap_or(defaults.replication_factor);
            placement::spread(image, partitions, replication_factor, start)
                .map_err(|error| CreateTopicError::Unplaceable { replication_factor, error })
        }
    }
}

fn record_creation(topic: &TopicImage, decision: &mut Decision) {
    // Alone where it takes several transactions: topics that do not fit into one are made one after the other.
    decision.anchor = Some(Key::Partition(PartitionId { topic: topic.id, index: PartitionIndex(0) }));
    for (partition, index) in topic.partitions.iter().zip(0..) {
        let id = PartitionId { topic: topic.id, index: PartitionIndex(index) };
        decision.put(&Key::Partition(id), record::encode(PartitionRecord::of(partition)));
    }
    let name_key = Key::TopicName(topic.name.clone());
    decision.put(&name_key, record::encode(TopicNameRecord { id: topic.id }));
    decision.transaction.expect.push((name_key.text(), Expect::Absent));
    let record = TopicRecord {
        name: topic.name.clone(),
        overrides: topic.overrides.as_ref().clone(),
        partitions: topic.partitions.len() as u32,
    };
    decision.put(&Key::Topic(topic.id), record::encode(record));
}

/// Existing names that new ones could collide with, by what both would be called in a metric. Topics of one request are
/// not held against each other, as Kafka does not.
struct Names(HashMap<String, TopicName>);

impl Names {
    fn of(image: &ClusterImage, topics: &[NewTopic]) -> Names {
        let asked: HashSet<String> =
            topics.iter().filter(|topic| has_collision_chars(&topic.name)).map(|topic| unify(&topic.name)).collect();
        let mut existing = HashMap::new();
        if !asked.is_empty() {
            for name in image.topics().keys().filter(|name| has_collision_chars(name.as_str())) {
                let unified = unify(name.as_str());
                if asked.contains(&unified) {
                    existing.insert(unified, name.clone());
                }
            }
        }
        Names(existing)
    }

    fn colliding(&self, name: &TopicName) -> Option<TopicName> {
        if !has_collision_chars(name.as_str()) {
            return None;
        }
        self.0.get(&unify(name.as_str())).cloned()
    }
}

fn has_collision_chars(name: &str) -> bool {
    name.contains(['.', '_'])
}

fn unify(name: &str) -> String {
    name.replace('.', "_")
}
