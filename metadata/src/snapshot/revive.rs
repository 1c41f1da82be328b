//! From a snapshot and what the bucket holds to the keys of a new store. Pure.
//!
//! A snapshot is older than the archive, or newer: topics were made and deleted in between. The archive decides: a topic
//! whose manifests say that it was deleted does not come back, and one that only manifests know of is made again.
//! Every partition gets a leader epoch above all that the snapshot or its manifest have seen, so that a broker of before that
//! is still running somewhere can publish nothing more (`docs/adr/0005-a-manifest-is-published-by-creating-its-next-version.md`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::ClusterSnapshot;
use crate::{
    controller::recovery::EPOCHS_SKIPPED,
    image::{
        PartitionImage,
        record::{self, Key, PartitionRecord, ProducerIdsRecord, RecordError, TopicNameRecord, TopicRecord},
    },
    model::{BrokerId, LeaderEpoch, PartitionId, PartitionIndex, TopicId, TopicName},
};

/// Producer ids that a cluster may have handed out after its last snapshot: none of them is handed out again.
pub(crate) const PRODUCER_IDS_SKIPPED: u64 = 10_000_000;

/// What a partition's newest manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The topic's name.
    pub topic: TopicName,
    /// The newest epoch that wrote there.
    pub leader_epoch: LeaderEpoch,
    /// The topic was deleted, and its objects with it.
    pub is_deleted: bool,
}

/// What became of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As the snapshot has it.
    Kept,
    /// Made after the snapshot: only its archive knew of it. Its settings are the defaults, or what the cluster makes its own
    /// topics with.
    Found,
    /// Deleted after the snapshot: its archive says so, or a younger topic has its name.
    Dropped,
}

/// What a new cluster makes one of its own topics with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTopic {
    /// How many partitions: what they coordinate is spread over so many.
    pub partitions: u32,
    /// Its settings.
    pub overrides: BTreeMap<String, String>,
}

/// How to go on.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// All partitions are on this broker. Otherwise each stays on the brokers that it had, led by the first of them, all of
    /// them in sync: none has records that the archive does not have.
    pub only: Option<BrokerId>,
    /// The cluster's own topics, should only the archive know of them.
    pub own: BTreeMap<TopicName, OwnTopic>,
}

/// Why there is nothing to go on with.
#[derive(Debug, thiserror::Error)]
pub enum ReviveError {
    /// A later version of Varve wrote that key, or nobody did.
    #[error("the state's key {key} cannot be read")]
    Record {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// Two topics that the snapshot does not know have one name, and nobody can tell which of them is alive.
    #[error("{name} was made more than once after the snapshot ({one} and {other}): take a younger snapshot")]
    Ambiguous {
        /// Their name.
        name: TopicName,
        /// One of them.
        one: TopicId,
        /// Another.
        other: TopicId,
    },
}

/// The keys of the new store, and what to tell about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revived {
    /// In the order in which they are to be written: `cluster` comes last, and says that all others are there.
    pub entries: Vec<(String, Bytes)>,
    /// Every topic by name and id.
    pub topics: BTreeMap<(TopicName, TopicId), Fate>,
    /// Partitions of topics that are there again.
    pub partitions: usize,
}

/// The state to go on with. `archived`: every partition that has a manifest.
///
/// # Errors
/// [`ReviveError`].
pub fn revive(
    snapshot: &ClusterSnapshot,
    archived: &BTreeMap<PartitionId, Archived>,
    terms: &Terms,
) -> Result<Revived, ReviveError> {
    let known = Known::read(snapshot).map_err(|(key, source)| ReviveError::Record { key, source })?;
    let mut topics = BTreeMap::new();
    let (mut deleted, mut found) = compare(&known, archived);
    // Deleted before the snapshot, and not buried yet: that is still to come.
    found.retain(|id, _| !known.deleted.contains(id));
    deleted.extend(&known.deleted);
    // One topic has a name at a time: who is not in the snapshot and has the name of one that is came after that one's end.
    let mut younger: BTreeMap<&TopicName, TopicId> = BTreeMap::new();
    for (id, (name, _)) in &found {
        if let Some(other) = younger.insert(*name, *id) {
            return Err(ReviveError::Ambiguous { name: (*name).clone(), one: other, other: *id });
        }
    }
    let mut revived: BTreeMap<TopicId, TopicRecord> = BTreeMap::new();
    for (id, record) in &known.topics {
        let is_gone = deleted.contains(id) || younger.contains_key(&record.name);
        topics.insert((record.name.clone(), *id), if is_gone { Fate::Dropped } else { Fate::Kept });
        if !is_gone {
            revived.insert(*id, record.clone());
        }
    }
    for (id, (name, partitions)) in found {
        let OwnTopic { partitions: least, overrides } =
            terms.own.get(name).cloned().unwrap_or(OwnTopic { partitions: 0, overrides: BTreeMap::new() });
        topics.insert((name.clone(), id), Fate::Found);
        revived.insert(id, TopicRecord { name: name.clone(), overrides, partitions: partitions.max(least) });
    }
    // More partitions may have been added since, and the archive has records of them.
    for (id, Archived { is_deleted, .. }) in archived {
        if let Some(topic) = revived.get_mut(&id.topic).filter(|_| !is_deleted) {
            topic.partitions = topic.partitions.max(id.index.0 + 1);
        }
    }
    let mut entries = known.others;
    let mut partitions = 0;
    for (id, topic) in &revived {
        entries.push((Key::Topic(*id).text(), record::encode(topic)));
        entries.push((Key::TopicName(topic.name.clone()).text(), record::encode(TopicNameRecord { id: *id })));
        for index in 0..topic.partitions {
            let partition = PartitionId { topic: *id, index: PartitionIndex(index) };
            let archived = archived.get(&partition).map(|archived| archived.leader_epoch);
            let image = led_anew(known.partitions.get(&partition), archived, terms.only, known.a_broker);
            entries.push((Key::Partition(partition).text(), record::encode(PartitionRecord::of(&image))));
            partitions += 1;
        }
    }
    let next = known.next_producer_id + PRODUCER_IDS_SKIPPED;
    entries.push((Key::ProducerIds.text(), record::encode(ProducerIdsRecord { next })));
    let cluster = record::encode(record::ClusterRecord { id: snapshot.cluster_id.clone() });
    entries.push((Key::Cluster.text(), cluster));
    Ok(Revived { entries, topics, partitions })
}

/// What a snapshot says, read.
struct Known {
    topics: BTreeMap<TopicId, TopicRecord>,
    /// Topics that were deleted, and may not be buried yet.
    deleted: BTreeSet<TopicId>,
    partitions: BTreeMap<PartitionId, PartitionImage>,
    next_producer_id: u64,
    /// Every key that needs no second look.
    others: Vec<(String, Bytes)>,
    /// A broker that had partitions, for those that nothing is known of.
    a_broker: Option<BrokerId>,
}

impl Known {
    fn read(snapshot: &ClusterSnapshot) -> Result<Known, (String, RecordError)> {
        let mut known = Known {
            topics: BTreeMap::new(),
            deleted: BTreeSet::new(),
            partitions: BTreeMap::new(),
            next_producer_id: 0,
            others: Vec::new(),
            a_broker: None,
        };
        for (text, value) in &snapshot.entries {
            let failed = |error| (text.clone(), error);
            match Key::parse(text) {
                Some(Key::Topic(id)) => drop(known.topics.insert(id, record::decode(value).map_err(failed)?)),
                Some(Key::Partition(id)) => {
                    let partition = record::decode::<PartitionRecord>(value).map_err(failed)?.into_image();
                    known.a_broker = known.a_broker.or(partition.replicas.first().copied());
                    known.partitions.insert(id, partition);
                }
                Some(Key::ProducerIds) => {
                    known.next_producer_id = record::decode::<ProducerIdsRecord>(value).map_err(failed)?.next;
                }
                Some(Key::DeletedTopic(id)) => {
                    known.deleted.insert(id);
                    known.others.push((text.clone(), value.clone()));
                }
                // Written anew; the store is another one, which a version that did not know that key may have copied.
                Some(Key::Cluster | Key::TopicName(_) | Key::Store | Key::PutBack) => {}
                _ => known.others.push((text.clone(), value.clone())),
            }
        }
        Ok(known)
    }
}

/// Topics of the snapshot that were deleted since, and topics that only the archive knows: name and number of partitions.
fn compare<'a>(
    known: &Known,
    archived: &'a BTreeMap<PartitionId, Archived>,
) -> (BTreeSet<TopicId>, BTreeMap<TopicId, (&'a TopicName, u32)>) {
    let (mut alive, mut deleted, mut found) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for (id, archived) in archived {
        if archived.is_deleted {
            deleted.insert(id.topic);
            continue;
        }
        alive.insert(id.topic);
        if !known.topics.contains_key(&id.topic) {
            let (_, partitions) = found.entry(id.topic).or_insert((&archived.topic, 0));
            *partitions = (*partitions).max(id.index.0 + 1);
        }
    }
    // A deletion that was cut short left some of its partitions unmarked: it was asked for all the same.
    found.retain(|id, _| !deleted.contains(id));
    (deleted, found)
}

fn led_anew(
    before: Option<&PartitionImage>,
    archived: Option<LeaderEpoch>,
    only: Option<BrokerId>,
    a_broker: Option<BrokerId>,
) -> PartitionImage {
    let replicas = match (only, before) {
        (Some(broker), _) => vec![broker],
        (None, Some(before)) => before.replicas.clone(),
        (None, None) => vec![a_broker.unwrap_or(BrokerId(1))],
    };
    let epoch = before.map(|before| before.leader_epoch).max(archived);
    PartitionImage {
        leader: replicas.first().copied(),
        isr: replicas.clone(),
        replicas,
        leader_epoch: epoch.map_or(LeaderEpoch(0), |LeaderEpoch(epoch)| LeaderEpoch(epoch + EPOCHS_SKIPPED)),
        partition_epoch: before.map_or(0, |before| before.partition_epoch + 1),
        ..PartitionImage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::ImageBuilder,
        model::Timestamp,
        store::{Revision, Snapshot, Versioned},
    };

    fn name(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    fn snapshot(topics: &[(&str, TopicId, u32)]) -> ClusterSnapshot {
        let mut entries = vec![
            ("cluster".to_owned(), record::encode(record::ClusterRecord { id: "c".into() })),
            ("later/kind".to_owned(), Bytes::from("{}")),
            (Key::ProducerIds.text(), record::encode(ProducerIdsRecord { next: 5 })),
        ];
        for (topic, id, partitions) in topics {
            let overrides = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
            let record = TopicRecord { name: name(topic), overrides, partitions: *partitions };
            entries.push((Key::Topic(*id).text(), record::encode(record)));
            for index in 0..*partitions {
                let partition = PartitionImage {
                    replicas: vec![BrokerId(3), BrokerId(4)],
                    isr: vec![BrokerId(4)],
                    leader: Some(BrokerId(4)),
                    leader_epoch: LeaderEpoch(7),
                    partition_epoch: 2,
                    ..PartitionImage::default()
                };
                let id = PartitionId { topic: *id, index: PartitionIndex(index) };
                entries.push((Key::Partition(id).text(), record::encode(PartitionRecord::of(&partition))));
            }
        }
        let taken = Timestamp::from_wire(1).unwrap();
        ClusterSnapshot { cluster_id: "c".into(), taken, revision: Revision(8), entries }
    }

    fn archived(topic: &str, id: TopicId, index: u32, epoch: u32, is_deleted: bool) -> (PartitionId, Archived) {
        let partition = PartitionId { topic: id, index: PartitionIndex(index) };
        (partition, Archived { topic: name(topic), leader_epoch: LeaderEpoch(epoch), is_deleted })
    }

    fn image(revived: &Revived) -> ImageBuilder {
        let mut builder = ImageBuilder::new(BrokerId(1), BTreeMap::new());
        let versioned = |value: &Bytes| Versioned { value: value.clone(), modified: Revision(1) };
        let mut entries: Vec<_> = revived.entries.iter().map(|(key, value)| (key.clone(), versioned(value))).collect();
        entries.sort_by(|one, next| one.0.cmp(&next.0));
        builder.load(&Snapshot { revision: Revision(1), entries }).unwrap();
        builder
    }

    fn on_one() -> Terms {
        Terms { only: Some(BrokerId(1)), ..Terms::default() }
    }

    #[test]
    fn topics_come_back_on_the_one_broker_there_is_in_an_epoch_that_nobody_had() {
        let id = TopicId::random();
        let manifests = BTreeMap::from([archived("logs", id, 1, 9, false)]);
        let revived = revive(&snapshot(&[("logs", id, 2)]), &manifests, &on_one()).unwrap();
        let builder = image(&revived);
        let topic = builder.image().topic("logs").unwrap();
        assert_eq!((topic.id, topic.overrides["retention.ms"].as_str()), (id, "-1"));
        let epochs: Vec<_> = topic.partitions.iter().map(|partition| partition.leader_epoch.0).collect();
        assert_eq!(epochs, [7 + EPOCHS_SKIPPED, 9 + EPOCHS_SKIPPED]);
        assert!(topic.partitions.iter().all(|partition| partition.replicas == [BrokerId(1)]));
        assert_eq!(revived.entries.last().unwrap().0, "cluster");
        assert!(revived.entries.iter().any(|(key, _)| key == "later/kind"));
    }

    #[test]
    fn a_topic_that_was_deleted_before_the_snapshot_and_is_not_buried_yet_stays_deleted() {
        let gone = TopicId::random();
        let mut before = snapshot(&[("kept", TopicId::random(), 1)]);
        let record = record::DeletedTopicRecord { name: name("gone") };
        before.entries.push((Key::DeletedTopic(gone).text(), record::encode(record)));
        let manifests = BTreeMap::from([archived("gone", gone, 0, 3, false)]);
        let revived = revive(&before, &manifests, &on_one()).unwrap();
        let builder = image(&revived);
        assert!(builder.image().topic("gone").is_none());
        assert!(builder.image().deleted_topics().contains_key(&gone), "its archive is to be buried");
    }

    #[test]
    fn a_cluster_keeps_its_replicas_all_of_them_in_sync() {
        let id = TopicId::random();
        let revived = revive(&snapshot(&[("logs", id, 1)]), &BTreeMap::new(), &Terms::default()).unwrap();
        let builder = image(&revived);
        let partition = &builder.image().topic("logs").unwrap().partitions[0];
        assert_eq!((partition.leader, partition.isr.as_slice()), (Some(BrokerId(3)), &[BrokerId(3), BrokerId(4)][..]));
    }

    #[test]
    fn what_was_made_or_deleted_after_the_snapshot_is_told_by_the_archive() {
        let [kept, deleted, found] = [0; 3].map(|_| TopicId::random());
        let before = snapshot(&[("kept", kept, 1), ("again", deleted, 1)]);
        let manifests = BTreeMap::from([
            archived("kept", kept, 3, 0, false),
            archived("again", deleted, 0, 0, true),
            archived("again", found, 1, 0, false),
        ]);
        let revived = revive(&before, &manifests, &on_one()).unwrap();
        let fate = |topic: &str, id| revived.topics[&(name(topic), id)];
        assert_eq!(
            [fate("kept", kept), fate("again", deleted), fate("again", found)],
            [Fate::Kept, Fate::Dropped, Fate::Found]
        );
        let builder = image(&revived);
        assert_eq!(builder.image().topic("again").unwrap().id, found);
        assert_eq!(builder.image().topic("again").unwrap().partitions.len(), 2);
        assert_eq!(builder.image().topic("kept").unwrap().partitions.len(), 4);
        assert_eq!(revived.partitions, 6);
    }

    #[test]
    fn of_two_topics_of_one_name_the_one_that_the_snapshot_does_not_know_is_alive() {
        let [old, young] = [0; 2].map(|_| TopicId::random());
        let before = snapshot(&[("logs", old, 1)]);
        // Nobody has come to mark the archive of the one that was deleted.
        let manifests = BTreeMap::from([archived("logs", old, 0, 3, false), archived("logs", young, 0, 0, false)]);
        let revived = revive(&before, &manifests, &on_one()).unwrap();
        assert_eq!(image(&revived).image().topic("logs").unwrap().id, young);
        assert_eq!(revived.topics[&(name("logs"), old)], Fate::Dropped);
        let third = archived("logs", TopicId::random(), 0, 0, false);
        let manifests = manifests.into_iter().chain([third]).collect();
        assert!(matches!(revive(&before, &manifests, &on_one()), Err(ReviveError::Ambiguous { .. })));
    }

    #[test]
    fn a_topic_of_the_clusters_own_that_only_the_archive_knows_is_made_as_the_cluster_makes_it() {
        let offsets = TopicId::random();
        let overrides = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let own = BTreeMap::from([(name("__consumer_offsets"), OwnTopic { partitions: 50, overrides })]);
        let manifests = BTreeMap::from([archived("__consumer_offsets", offsets, 7, 0, false)]);
        let revived = revive(&snapshot(&[]), &manifests, &Terms { own, ..on_one() }).unwrap();
        let builder = image(&revived);
        let topic = builder.image().topic("__consumer_offsets").unwrap();
        assert_eq!((topic.id, topic.partitions.len()), (offsets, 50));
        assert!(topic.config.cleanup.compact && !topic.config.cleanup.delete);
    }
}
