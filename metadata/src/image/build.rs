//! From store to image: a snapshot first, then one batch of changes after the other.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    ClusterImage, ConfigImage, Elections, PartitionImage, QuotaImage, TopicImage, is_internal,
    record::{LifeRecord, RecordError, TopicRecord},
    resolve_config,
    staged::{Staged, Written},
};
use crate::{
    config::{TopicConfig, TopicDefaults},
    model::{BrokerId, PartitionId, PartitionIndex, TopicId},
    store::{ChangeBatch, PutBack, Revision, Snapshot},
};

/// Why the state in the store cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A value cannot be read.
    #[error("the metadata store's value of {key} cannot be read")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        #[source]
        error: RecordError,
    },
}

/// The newest image and what it takes to make the next one.
#[derive(Debug)]
pub struct ImageBuilder {
    image: ClusterImage,
    node: BrokerId,
    /// The node's own settings, below the dynamic ones.
    static_settings: BTreeMap<String, String>,
    /// What every topic without overrides shares.
    default_config: Arc<TopicConfig>,
    /// Partitions that no topic counts yet.
    uncounted: HashMap<PartitionId, (PartitionImage, Revision)>,
}

impl ImageBuilder {
    /// An image of nothing, for the broker `node`, whose own settings are `static_settings`.
    pub fn new(node: BrokerId, static_settings: BTreeMap<String, String>) -> ImageBuilder {
        let mut builder = ImageBuilder {
            image: ClusterImage {
                revision: Revision(0),
                cluster_id: "".into(),
                store: Arc::default(),
                put_back_ms: 0,
                brokers: Arc::default(),
                membership: Arc::default(),
                by_name: Arc::default(),
                by_id: Arc::default(),
                deleted: Arc::default(),
                partitions: 0,
                configs: Arc::default(),
                quotas: Arc::default(),
                features: Arc::default(),
                topic_defaults: Arc::default(),
                acls: Arc::default(),
                scram: Arc::default(),
                delegation_tokens: Arc::default(),
                elections: Elections::default(),
            },
            node,
            static_settings,
            default_config: Arc::default(),
            uncounted: HashMap::new(),
        };
        builder.refresh_defaults();
        builder
    }

    /// The image so far.
    pub fn image(&self) -> &ClusterImage {
        &self.image
    }

    /// Partitions that no topic counts, and the revisions that wrote them.
    pub(crate) fn uncounted(&self) -> impl Iterator<Item = (PartitionId, Revision)> + Clone {
        self.uncounted.iter().map(|(id, (_, written))| (*id, *written))
    }

    /// Starts over from everything that is in the store.
    ///
    /// # Errors
    /// [`ImageError`]: a value that this version cannot read.
    pub fn load(&mut self, snapshot: &Snapshot) -> Result<(), ImageError> {
        *self = self.anew(snapshot)?;
        Ok(())
    }

    /// As [`load`](Self::load), of a store that was followed before, unless it shows itself to be an older or another one: then the
    /// image stays as it is.
    ///
    /// # Errors
    /// [`ImageError`]: a value that this version cannot read.
    pub(crate) fn reload(&mut self, snapshot: &Snapshot) -> Result<Result<(), PutBack>, ImageError> {
        let next = self.anew(snapshot)?;
        let goes_on = next.image.goes_on_from(&self.image);
        if goes_on.is_ok() {
            *self = next;
        }
        Ok(goes_on)
    }

    fn anew(&self, snapshot: &Snapshot) -> Result<ImageBuilder, ImageError> {
        let mut next = ImageBuilder::new(self.node, self.static_settings.clone());
        let changes = snapshot.entries.iter().map(|(key, entry)| (key.as_str(), Some(&entry.value), entry.modified));
        next.take(snapshot.revision, changes)?;
        next.image.elections = self.image.elections;
        next.keep_unchanged_topics(&self.image);
        Ok(next)
    }

    /// Moves on by one transaction.
    ///
    /// # Errors
    /// [`ImageError`]: a value that this version cannot read; the image shows the transaction's revision, but none of
    /// its changes.
    pub fn apply(&mut self, batch: &ChangeBatch) -> Result<(), ImageError> {
        let changes = batch.changes.iter().map(|change| (change.key.as_str(), change.value.as_ref(), batch.revision));
        let taken = self.take(batch.revision, changes);
        self.image.revision = batch.revision;
        taken
    }

    fn take<'a>(&mut self, revision: Revision, changes: impl Iterator<Item = Written<'a>>) -> Result<(), ImageError> {
        let staged = Staged::parse(changes)?;
        self.take_membership(&staged);
        if let Some(id) = staged.cluster_id {
            self.image.cluster_id = id.into();
        }
        if let Some(store) = staged.store {
            self.image.store = Arc::new(store);
        }
        if let Some(put_back) = staged.put_back {
            self.image.put_back_ms = put_back.ms;
        }
        for (id, broker) in staged.brokers {
            set(Arc::make_mut(&mut self.image.brokers), id, broker);
        }
        if !staged.configs.is_empty() {
            let ConfigImage(configs) = Arc::make_mut(&mut self.image.configs);
            for (resource, settings) in staged.configs {
                set(configs, resource, settings.map(Arc::new));
            }
            self.refresh_defaults();
        }
        if !staged.acls.is_empty() {
            let acls = Arc::make_mut(&mut self.image.acls);
            for (pattern, principal, rules) in staged.acls {
                acls.set(&pattern, &principal, rules);
            }
        }
        for (id, deleted) in staged.deleted {
            set(Arc::make_mut(&mut self.image.deleted), id, deleted);
        }
        for (user, credential) in staged.scram {
            set(Arc::make_mut(&mut self.image.scram), user, credential);
        }
        for (id, token) in staged.delegation_tokens {
            set(Arc::make_mut(&mut self.image.delegation_tokens), id, token);
        }
        // Shared with the image before, unless something changed: who follows quotas compares pointers.
        if !staged.quotas.is_empty() {
            let QuotaImage(quotas) = Arc::make_mut(&mut self.image.quotas);
            staged.quotas.into_iter().for_each(|(entity, given)| set(quotas, entity, given.map(Arc::new)));
        }
        if !staged.features.is_empty() {
            let features = Arc::make_mut(&mut self.image.features);
            staged.features.into_iter().for_each(|(name, level)| set(features, name, level));
        }
        self.take_topics(staged.topics, staged.partitions);
        self.image.revision = revision;
        Ok(())
    }

    fn take_membership(&mut self, staged: &Staged) {
        let Staged { registered, live, leaving, distrusted, compactors, controller, .. } = staged;
        let is_touched = !(registered.is_empty() && live.is_empty() && leaving.is_empty() && distrusted.is_empty());
        if !is_touched && compactors.is_empty() && controller.is_none() {
            return;
        }
        let membership = Arc::make_mut(&mut self.image.membership);
        let life = |life: &Option<LifeRecord>| life.as_ref().map(|life| life.incarnation);
        registered.iter().for_each(|(id, revision)| set(&mut membership.registered, *id, *revision));
        live.iter().for_each(|(id, record)| set(&mut membership.live, *id, life(record)));
        leaving.iter().for_each(|(id, record)| set(&mut membership.leaving, *id, life(record)));
        for (id, is_distrusted) in distrusted {
            if *is_distrusted {
                membership.distrusted.insert(*id)
            } else {
                membership.distrusted.remove(id)
            };
        }
        for (id, is_there) in compactors {
            if *is_there {
                membership.compactors.insert(*id)
            } else {
                membership.compactors.remove(id)
            };
        }
        membership.controller = controller.unwrap_or(membership.controller);
    }

    fn take_topics(
        &mut self,
        topics: Vec<(TopicId, Option<TopicRecord>)>,
        partitions: Vec<(PartitionId, Option<PartitionImage>, Revision)>,
    ) {
        let mut touched: HashMap<TopicId, TopicImage> = HashMap::new();
        let mut removed = Vec::new();
        for (id, partition, revision) in partitions {
            if partition.is_none() {
                removed.push(id);
            }
            let known = self.image.by_id.get(&id.topic);
            let place = usize::try_from(id.index.0).unwrap_or(usize::MAX);
            match (partition, known) {
                (Some(partition), Some(topic)) if place < topic.partitions.len() => {
                    let topic = touched.entry(id.topic).or_insert_with(|| topic.as_ref().clone());
                    self.image.elections.note(&topic.partitions[place], &partition);
                    topic.partitions[place] = partition;
                    topic.written[place] = revision;
                }
                (partition, _) => {
                    set_hashed(&mut self.uncounted, id, partition.map(|partition| (partition, revision)));
                }
            }
        }
        for (id, record) in topics {
            match record {
                Some(record) => {
                    let before = touched.remove(&id).or_else(|| Some(self.image.by_id.get(&id)?.as_ref().clone()));
                    touched.insert(id, self.topic(id, record, before));
                }
                None => {
                    touched.remove(&id);
                    self.remove_topic(id);
                }
            }
        }
        for id in removed {
            self.uncounted.remove(&id);
        }
        if touched.is_empty() {
            return;
        }
        let by_name = Arc::make_mut(&mut self.image.by_name);
        let by_id = Arc::make_mut(&mut self.image.by_id);
        for (id, topic) in touched {
            let topic = Arc::new(topic);
            self.image.partitions += topic.partitions.len();
            by_name.insert(topic.name.clone(), Arc::clone(&topic));
            if let Some(before) = by_id.insert(id, topic) {
                self.image.partitions -= before.partitions.len();
            }
        }
    }

    fn topic(&mut self, id: TopicId, record: TopicRecord, before: Option<TopicImage>) -> TopicImage {
        let (mut partitions, mut written) = before.map(|topic| (topic.partitions, topic.written)).unwrap_or_default();
        for index in partitions.len() as u32..record.partitions {
            match self.uncounted.remove(&PartitionId { topic: id, index: PartitionIndex(index) }) {
                Some((partition, revision)) => {
                    partitions.push(partition);
                    written.push(revision);
                }
                None => {
                    // Written before the topic counts them, so only a damaged store lacks one.
                    tracing::error!(topic = %record.name, partition = index, "the metadata store lacks a partition");
                    break;
                }
            }
        }
        TopicImage {
            id,
            config: self.resolve(&record.name, &record.overrides),
            internal: is_internal(record.name.as_str()),
            name: record.name,
            overrides: Arc::new(record.overrides),
            partitions,
            written,
        }
    }

    fn remove_topic(&mut self, id: TopicId) {
        if let Some(topic) = Arc::make_mut(&mut self.image.by_id).remove(&id) {
            self.image.partitions -= topic.partitions.len();
            // Of many partitions the last ones go with later batches, if whoever deletes the topic comes to them.
            for ((partition, written), index) in topic.partitions.iter().zip(&topic.written).zip(0..) {
                let place = PartitionId { topic: id, index: PartitionIndex(index) };
                self.uncounted.insert(place, (partition.clone(), *written));
            }
            let by_name = Arc::make_mut(&mut self.image.by_name);
            // The name may have been given to another topic since.
            if by_name.get(&topic.name).is_some_and(|named| named.id == id) {
                by_name.remove(&topic.name);
            }
        }
    }

    /// Reads the defaults for topics anew; if they changed, so do the settings of every topic.
    fn refresh_defaults(&mut self) {
        let settings = self.image.configs.of_broker(self.node, &self.static_settings);
        let defaults = TopicDefaults::from_broker(&settings).unwrap_or_else(|errors| {
            // Checked before it was stored: by an older version, with another opinion.
            for error in errors {
                tracing::error!(%error, "dynamic broker settings ignored");
            }
            TopicDefaults::from_broker(&self.static_settings).unwrap_or_default()
        });
        if defaults == *self.image.topic_defaults && self.image.revision != Revision(0) {
            return;
        }
        self.image.topic_defaults = Arc::new(defaults);
        self.default_config =
            TopicConfig::resolve(&self.image.topic_defaults, &BTreeMap::new()).map(Arc::new).unwrap_or_default();
        let topics: Vec<Arc<TopicImage>> = self.image.by_name.values().cloned().collect();
        for topic in topics {
            let config = self.resolve(&topic.name, &topic.overrides);
            if *config != *topic.config {
                let topic = Arc::new(TopicImage { config, ..topic.as_ref().clone() });
                Arc::make_mut(&mut self.image.by_id).insert(topic.id, Arc::clone(&topic));
                Arc::make_mut(&mut self.image.by_name).insert(topic.name.clone(), topic);
            }
        }
    }

    fn resolve(&self, name: &crate::model::TopicName, overrides: &BTreeMap<String, String>) -> Arc<TopicConfig> {
        if overrides.is_empty() && !is_internal(name.as_str()) {
            return Arc::clone(&self.default_config);
        }
        match resolve_config(name, &self.image.topic_defaults, overrides) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                // As above; a topic that stays readable is worth more than one that is refused.
                tracing::error!(topic = %name, %error, "topic settings ignored");
                Arc::clone(&self.default_config)
            }
        }
    }

    /// After a reload: topics that are the same stay the same `Arc`, so that followers see no change.
    fn keep_unchanged_topics(&mut self, before: &ClusterImage) {
        let same: Vec<Arc<TopicImage>> = before
            .by_id
            .values()
            .filter(|old| self.image.by_id.get(&old.id).is_some_and(|new| new == *old))
            .cloned()
            .collect();
        let (by_id, by_name) = (Arc::make_mut(&mut self.image.by_id), Arc::make_mut(&mut self.image.by_name));
        for topic in same {
            by_id.insert(topic.id, Arc::clone(&topic));
            by_name.insert(topic.name.clone(), topic);
        }
    }
}

impl Elections {
    /// Counts what became of a partition.
    fn note(&mut self, before: &PartitionImage, now: &PartitionImage) {
        // The same broker again is elected anew if it was without a leader meanwhile.
        let Some(leader) = now.leader.filter(|leader| before.leader != Some(*leader)) else { return };
        let knew_all = before.isr.contains(&leader) || before.elr.contains(&leader);
        match knew_all {
            true => self.clean += 1,
            false => self.unclean += 1,
        }
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn set_hashed<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_leader_is_unclean_if_the_new_one_may_lack_committed_records() {
        let ids = |ids: &[u32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let partition = |leader: Option<u32>, isr: &[u32], elr: &[u32]| PartitionImage {
            replicas: ids(&[1, 2, 3]),
            isr: ids(isr),
            elr: ids(elr),
            leader: leader.map(BrokerId),
            ..PartitionImage::default()
        };
        let mut elections = Elections::default();
        for (before, now, counted) in [
            (partition(Some(1), &[1, 2], &[]), partition(Some(1), &[1], &[2]), (0, 0)),
            (partition(Some(1), &[1, 2], &[]), partition(Some(2), &[2], &[1]), (1, 0)),
            (partition(Some(2), &[2], &[1]), partition(None, &[], &[1, 2]), (1, 0)),
            (partition(None, &[], &[1, 2]), partition(Some(1), &[1], &[2]), (2, 0)),
            (partition(None, &[], &[1]), partition(Some(3), &[3], &[]), (2, 1)),
        ] {
            elections.note(&before, &now);
            assert_eq!((elections.clean, elections.unclean), counted, "{before:?} became {now:?}");
        }
    }
}
