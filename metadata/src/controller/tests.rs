//! The controller's rules, with the texts that Kafka's users know.

mod administration;
mod brokers;

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    config::{ConfigDef, ConfigTable, Kind},
    image::{
        BrokerImage, ClusterImage, ConfigResource, ImageBuilder, TopicChange,
        record::{self, BrokerRecord, DeletedTopicRecord},
    },
    model::{
        BrokerId, TopicId, TopicName,
        acl::{Acl, AclFilter, Operation, PatternType, Permission, ResourcePattern, ResourceType},
    },
    store::{Change, ChangeBatch, Revision, Snapshot, Versioned, Write},
};

/// A cluster that takes every decision at once.
struct Cluster {
    builder: ImageBuilder,
    /// What a store would hold.
    stored: BTreeMap<String, Versioned>,
    next_id: u128,
}

impl Cluster {
    fn of(brokers: &[(u32, bool)]) -> Cluster {
        let mut cluster =
            Cluster { builder: ImageBuilder::new(BrokerId(1), BTreeMap::new()), stored: BTreeMap::new(), next_id: 100 };
        let mut decision = Decision::default();
        for &(id, fenced) in brokers {
            let broker = BrokerImage {
                id: BrokerId(id),
                incarnation: uuid::Uuid::nil(),
                endpoints: BTreeMap::new(),
                rack: None,
                fenced,
                ..BrokerImage::default()
            };
            decision.put(&Key::Broker(broker.id), crate::image::record::encode(BrokerRecord::of(&broker)));
        }
        cluster.take(decision);
        cluster
    }

    fn image(&self) -> &ClusterImage {
        self.builder.image()
    }

    fn take(&mut self, decision: Decision) {
        let modified = Revision(self.image().revision().0 + 1);
        let mut changes = Vec::new();
        for write in decision.transaction.writes {
            match write {
                Write::Put(key, value) | Write::PutLeased(key, value, _) => {
                    self.stored.insert(key.clone(), Versioned { value: value.clone(), modified });
                    changes.push(Change { key, value: Some(value) });
                }
                Write::Delete(key) => {
                    self.stored.remove(&key);
                    changes.push(Change { key, value: None });
                }
            }
        }
        self.builder.apply(&ChangeBatch { revision: modified, changes }).unwrap();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.image().revision(), entries: self.stored.clone().into_iter().collect() }
    }

    fn create(&mut self, topics: &[NewTopic]) -> Vec<Result<(), CreateTopicError>> {
        let defaults = CreationDefaults { partitions: 2, replication_factor: 1 };
        let mut new_id = || {
            self.next_id += 1;
            TopicId::from_wire(uuid::Uuid::from_u128(self.next_id)).unwrap()
        };
        let (results, decision) = create_topics(self.builder.image(), topics, defaults, &mut new_id, 0);
        self.take(decision);
        results.into_iter().map(|result| result.map(drop)).collect()
    }

    fn with_topic(mut self, name: &str, partitions: u32, replication_factor: u16) -> Cluster {
        assert_eq!(self.create(&[spread(name, Some(partitions), Some(replication_factor))]), [Ok(())]);
        self
    }

    fn alter(&mut self, resource: AlterResource, ops: &[(&str, ConfigOp)]) -> Result<(), AlterError> {
        let ops = ops.iter().map(|(name, op)| ((*name).to_owned(), op.clone())).collect();
        let request = AlterRequest { resource, alteration: Alteration::Incremental(ops) };
        let (mut results, decision) = alter_configs(self.image(), &[request], &Rules(rules_table()));
        self.take(decision);
        results.remove(0)
    }
}

fn acl(principal: &str, name: &str, operation: Operation) -> Acl {
    let pattern =
        ResourcePattern { resource_type: ResourceType::Topic, pattern_type: PatternType::Literal, name: name.into() };
    let (principal, permission) = (principal.into(), Permission::Allow);
    Acl { pattern, principal, host: "*".into(), operation, permission }
}

#[test]
fn rules_are_made_once_and_deleted_by_what_they_say() {
    let mut cluster = Cluster::of(&[]);
    let (read, write) = (acl("User:a/b", "logs", Operation::Read), acl("User:a/b", "logs", Operation::Write));
    let other = acl("User:*", "logs", Operation::Read);
    let all = [read.clone(), write.clone(), read.clone(), other.clone()];
    cluster.take(create_acls(cluster.image(), &all).unwrap());
    assert_eq!(cluster.image().acls().len(), 3);
    assert_eq!(create_acls(cluster.image(), &all).unwrap(), Decision::default(), "they are there");

    let reads = AclFilter { operation: Some(Operation::Read), ..AclFilter::default() };
    let nothing = AclFilter { name: Some("metrics".into()), ..AclFilter::default() };
    let found = find_acls(cluster.image(), &[reads.clone(), nothing, reads]).unwrap();
    assert_eq!(found, [vec![other.clone(), read.clone()], vec![], vec![other.clone(), read.clone()]]);
    let unknown = acl("User:c", "logs", Operation::Read);
    let (removed, decision) = remove_acls(cluster.image(), &[other, unknown, read]);
    assert_eq!(removed, [true, false, true]);
    cluster.take(decision);
    assert_eq!(cluster.image().acls().find(&AclFilter::default()), [write]);

    let mut reloaded = ImageBuilder::new(BrokerId(1), BTreeMap::new());
    reloaded.load(&cluster.snapshot()).unwrap();
    assert_eq!(reloaded.image().acls().len(), 1);

    let (_, decision) = remove_acls(cluster.image(), &[acl("User:a/b", "logs", Operation::Write)]);
    cluster.take(decision);
    assert!(cluster.image().acls().is_empty() && cluster.stored.is_empty());
}

#[test]
fn a_request_changes_no_more_rules_than_kafka_lets_it() {
    let mut cluster = Cluster::of(&[]);
    let acls = |count: usize| -> Vec<Acl> {
        (0..count).map(|place| acl("User:a", &format!("t{place}"), Operation::Read)).collect()
    };
    assert_eq!(create_acls(cluster.image(), &acls(10_001)), Err(TooManyAcls));
    cluster.take(create_acls(cluster.image(), &acls(10_000)).unwrap());
    cluster.take(create_acls(cluster.image(), &[acl("User:b", "t", Operation::Read)]).unwrap());
    assert_eq!(find_acls(cluster.image(), &[AclFilter::default()]), Err(TooManyAcls));
}

struct Rules(ConfigTable);

fn rules_table() -> ConfigTable {
    ConfigTable::new([ConfigDef::broker("listener.list", Kind::List(&[]), Some("a"), "")])
}

impl BrokerRules for Rules {
    fn table(&self, _: &ConfigResource) -> &ConfigTable {
        &self.0
    }

    fn check(&self, _: &ConfigResource, _: &BTreeMap<String, String>, changed: &[&str]) -> Result<(), AlterError> {
        if changed.contains(&"node.id") { Err(AlterError::Refused("no".into())) } else { Ok(()) }
    }
}

fn spread(name: &str, partitions: Option<u32>, replication_factor: Option<u16>) -> NewTopic {
    let placement = Ok(Placement::Spread { partitions, replication_factor });
    NewTopic { name: name.to_owned(), placement, overrides: BTreeMap::new() }
}

fn assigned(name: &str, assignment: &[(i32, &[i32])]) -> NewTopic {
    let partition = |(index, replicas): &(i32, &[i32])| ManualPartition { index: *index, replicas: replicas.to_vec() };
    let placement = Ok(Placement::Manual(assignment.iter().map(partition).collect()));
    NewTopic { name: name.to_owned(), placement, overrides: BTreeMap::new() }
}

fn text(results: &[Result<(), CreateTopicError>]) -> String {
    results[0].as_ref().map_or_else(ToString::to_string, |()| "created".to_owned())
}

#[test]
fn a_topic_gets_the_defaults_where_its_request_does_not_say() {
    let mut cluster = Cluster::of(&[(1, false)]);
    assert_eq!(cluster.create(&[spread("a", None, None), spread("b", Some(5), Some(1))]), [Ok(()), Ok(())]);
    let image = cluster.image();
    assert_eq!(image.topic("a").unwrap().partitions.len(), 2);
    assert_eq!(image.topic("b").unwrap().partitions.len(), 5);
    assert_eq!(image.partition_count(), 7);
    let topic = image.topic("a").unwrap();
    assert_eq!(topic.partitions[1].leader, Some(BrokerId(1)));
    assert_eq!(image.topic_by_id(topic.id).unwrap().name, topic.name);
}

#[test]
fn topics_that_cannot_be_are_refused_in_kafkas_words() {
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("a.b", 1, 1);
    let config = |name: &str, value: Option<&str>| NewTopic {
        overrides: [(name.to_owned(), value.map(str::to_owned))].into(),
        ..spread("new", None, None)
    };
    let unplaced = |error| NewTopic { placement: Err(error), ..spread("a.b", None, None) };
    let cases = [
        (spread("a b", None, None), "Topic name is invalid: 'a b' contains one or more characters other than"),
        (spread("a.b", None, None), "Topic 'a.b' already exists."),
        (unplaced(PlacementError::ReplicationFactor), "Topic 'a.b' already exists."),
        (spread("a_b", None, None), "Topic 'a_b' collides with existing topic: a.b"),
        (config("retention.ms", None), "Null value not supported for topic configs: retention.ms"),
        (config("retention.ms", Some("x")), "retention.ms"),
        (config("no.such", Some("x")), "no.such"),
        (
            spread("new", None, Some(3)),
            "Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because \
             only 1 broker(s) are registered or some brokers have all their log directories cordoned.",
        ),
        (assigned("new", &[(0, &[1]), (0, &[1])]), "Found multiple manual partition assignments for partition 0"),
        (assigned("new", &[(0, &[1]), (2, &[1])]), "partitions should be a consecutive 0-based integer sequence"),
        (assigned("new", &[(0, &[])]), "The manual partition assignment includes an empty replica list."),
        (
            assigned("new", &[(0, &[7])]),
            "The manual partition assignment includes broker 7, but no such broker is registered.",
        ),
        (assigned("new", &[(0, &[1, 1])]), "The manual partition assignment includes the broker 1 more than once."),
    ];
    for (topic, expected) in cases {
        let found = text(&cluster.create(&[topic]));
        assert!(found.contains(expected), "{found} instead of {expected}");
    }
    assert_eq!(cluster.image().topics().len(), 1);
}

#[test]
fn one_request_makes_at_most_ten_thousand_partitions() {
    let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
    let check = |topics: &[NewTopic]| check_partition_count(topics, defaults);
    assert_eq!(check(&[spread("a", Some(10_000), None)]), Ok(()));
    assert_eq!(check(&[spread("a", Some(10_000), None), spread("b", None, None)]), Err(TooManyPartitions));
}

#[test]
fn leaders_are_spread_and_a_fenced_broker_never_leads() {
    let cluster = Cluster::of(&[(1, false), (2, false), (3, true)]).with_topic("t", 4, 3);
    let topic = cluster.image().topic("t").unwrap();
    let leaders: Vec<_> = topic.partitions.iter().map(|partition| partition.leader.unwrap().0).collect();
    assert_eq!(leaders.iter().filter(|&&id| id == 1).count(), 2);
    assert_eq!(leaders.iter().filter(|&&id| id == 2).count(), 2);
    for partition in &topic.partitions {
        assert_eq!((partition.replicas.len(), partition.isr.len()), (3, 2));
    }
}

#[test]
fn partitions_are_added_and_never_taken_away() {
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("t", 2, 1);
    let grow = |count, assignments: Option<Vec<Vec<i32>>>| [GrowTopic { name: "t".into(), count, assignments }];
    let cases = [
        (2, None, "Topic already has 2 partition(s)."),
        (1, None, "The topic t currently has 2 partition(s); 1 would not be an increase."),
        (-1, None, "The topic t currently has 2 partition(s); -1 would not be an increase."),
        (
            4,
            Some(vec![vec![1]]),
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            3,
            Some(vec![vec![9]]),
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
    ];
    for (count, assignments, expected) in cases {
        let (results, decision) = create_partitions(cluster.image(), &grow(count, assignments), 0);
        assert_eq!(results[0].as_ref().unwrap_err().to_string(), expected);
        assert!(decision.is_empty());
    }
    let before = cluster.image().topic("t").unwrap().clone();
    let (results, decision) = create_partitions(cluster.image(), &grow(5, None), 0);
    assert_eq!(results, [Ok(())]);
    cluster.take(decision);
    let topic = cluster.image().topic("t").unwrap();
    assert_eq!((topic.partitions.len(), cluster.image().partition_count()), (5, 5));
    assert_eq!(topic.partitions[..2], before.partitions);
}

#[test]
fn a_deleted_topic_leaves_nothing_and_its_name_is_free() {
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("t", 3, 1);
    let old = cluster.image().topic("t").unwrap().id;
    let unknown = TopicId::random();
    let (results, decision) = delete_topics(cluster.image(), &[unknown, old]);
    assert_eq!(results, [false, true]);
    let keys: Vec<_> = decision.transaction.writes.iter().map(Write::key).collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert_eq!(keys[0], format!("deleted/{old}"), "what is only missing was not deleted");
    cluster.take(decision);
    assert!(cluster.image().deleted_topics().contains_key(&old));
    assert!(cluster.image().topics().is_empty() && cluster.image().partition_count() == 0);
    let cluster = cluster.with_topic("t", 1, 1);
    assert_ne!(cluster.image().topic("t").unwrap().id, old);
}

#[test]
fn so_many_deleted_topics_are_remembered_and_no_more_the_newest_of_them() {
    let mut cluster = Cluster::of(&[(1, false)]);
    let remembered = |number: u32| {
        let mut decision = Decision::default();
        let record = DeletedTopicRecord { name: TopicName::parse(&format!("t{number}")).unwrap() };
        let id = TopicId::random();
        decision.put(&Key::DeletedTopic(id), record::encode(record));
        (id, decision)
    };
    let (oldest, decision) = remembered(0);
    cluster.take(decision);
    let (older, decision) = remembered(1);
    cluster.take(decision);
    let mut many = Decision::default();
    for number in 2..10_000 {
        many.transaction.writes.extend(remembered(number).1.transaction.writes);
    }
    cluster.take(many);
    let mut cluster = cluster.with_topic("t", 1, 1);
    let id = cluster.image().topic("t").unwrap().id;
    let (_, decision) = delete_topics(cluster.image(), &[id]);
    cluster.take(decision);
    let known = cluster.image().deleted_topics();
    assert_eq!(known.len(), 10_000);
    assert!(!known.contains_key(&oldest) && known.contains_key(&older) && known.contains_key(&id));
}

#[test]
fn archiving_is_turned_off_only_by_who_says_what_becomes_of_the_archive() {
    let topic = || AlterResource::Topic("t".into());
    let set = |value: &str| ConfigOp::Set(value.into());
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("t", 1, 1);
    let off = ("remote.storage.enable", set("false"));
    assert_eq!(cluster.alter(topic(), std::slice::from_ref(&off)), Err(AlterError::LosesArchive));
    cluster.alter(topic(), &[("remote.log.copy.disable", set("true"))]).unwrap();
    assert_eq!(cluster.alter(topic(), std::slice::from_ref(&off)), Err(AlterError::LosesArchive));
    cluster.alter(topic(), &[off, ("remote.log.delete.on.disable", set("true"))]).unwrap();
    // What is off already loses nothing more.
    cluster.alter(topic(), &[("remote.log.delete.on.disable", ConfigOp::Delete)]).unwrap();
    cluster.alter(topic(), &[("remote.storage.enable", ConfigOp::Delete)]).unwrap();
    assert!(cluster.image().topic("t").unwrap().config.remote_storage);
}

#[test]
fn settings_of_a_topic_change_one_by_one() {
    let topic = || AlterResource::Topic("t".into());
    let set = |value: &str| ConfigOp::Set(value.into());
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("t", 1, 1);
    cluster.alter(topic(), &[("retention.ms", set("5")), ("segment.ms", set("7"))]).unwrap();
    cluster.alter(topic(), &[("segment.ms", ConfigOp::Delete)]).unwrap();
    cluster.alter(topic(), &[("cleanup.policy", ConfigOp::Append("compact".into()))]).unwrap();
    let found = cluster.image().topic("t").unwrap();
    let overrides: Vec<_> = found.overrides.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(overrides, [("cleanup.policy", "delete,compact"), ("retention.ms", "5")]);
    assert!(found.config.cleanup.compact && found.config.cleanup.delete);
    cluster.alter(topic(), &[("cleanup.policy", ConfigOp::Subtract("delete".into()))]).unwrap();
    assert!(!cluster.image().topic("t").unwrap().config.cleanup.delete);

    let refused = |error: AlterError| error.to_string();
    let cases = [
        (topic(), "retention.ms", ConfigOp::Append("1".into()), "Can't APPEND to key retention.ms because"),
        (topic(), "retention.ms", set("never"), "retention.ms"),
        (topic(), "no.such", set("1"), "no.such"),
        (AlterResource::Topic("u".into()), "retention.ms", set("1"), "The topic 'u' does not exist."),
        (AlterResource::Topic(String::new()), "retention.ms", set("1"), "Default topic resources are not allowed."),
    ];
    for (resource, name, op, expected) in cases {
        let found = refused(cluster.alter(resource, &[(name, op)]).unwrap_err());
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn a_dynamic_default_of_the_broker_reaches_every_topic_that_does_not_say_otherwise() {
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("plain", 1, 1).with_topic("own", 1, 1);
    let set = |value: &str| ConfigOp::Set(value.into());
    cluster.alter(AlterResource::Topic("own".into()), &[("retention.ms", set("5"))]).unwrap();
    let before = cluster.image().clone();
    let all = || AlterResource::Other(ConfigResource::BrokerDefaults);
    cluster.alter(all(), &[("log.retention.hours", set("1"))]).unwrap();
    let retention = |name: &str| cluster.image().topic(name).unwrap().config.retention_time.unwrap().as_millis();
    assert_eq!((retention("plain"), retention("own")), (3_600_000, 5));
    let changes = cluster.image().changes_since(&before);
    assert!(matches!(&changes[..], [TopicChange::Altered { now, .. }] if now.name.as_str() == "plain"), "{changes:?}");

    cluster.alter(all(), &[("log.retention.hours", ConfigOp::Delete)]).unwrap();
    assert_eq!(cluster.image().configs().get(&ConfigResource::BrokerDefaults), None);
    assert_eq!(cluster.image().topic("plain").unwrap().config, before.topic("plain").unwrap().config);
}

#[test]
fn a_list_setting_of_the_broker_is_edited_from_its_default() {
    let mut cluster = Cluster::of(&[(1, false)]);
    let broker = || AlterResource::Other(ConfigResource::Broker(BrokerId(1)));
    cluster.alter(broker(), &[("listener.list", ConfigOp::Append("b,a".into()))]).unwrap();
    let settings = cluster.image().configs().get(&ConfigResource::Broker(BrokerId(1))).unwrap();
    assert_eq!(settings["listener.list"], "a,b");
    let refused = cluster.alter(broker(), &[("node.id", ConfigOp::Set("2".into()))]);
    assert_eq!(refused, Err(AlterError::Refused("no".into())));
}

#[test]
fn a_reloaded_image_shows_no_change_where_nothing_changed() {
    let mut cluster = Cluster::of(&[(1, false)]).with_topic("t", 3, 1).with_topic("u", 1, 1);
    let before = cluster.image().clone();
    let snapshot = cluster.snapshot();
    cluster.builder.load(&snapshot).unwrap();
    assert!(cluster.image().changes_since(&before).is_empty());
}

/// What somebody may do to a cluster of a few topics.
#[derive(Clone, Debug)]
enum Action {
    Create(u8, u32),
    Delete(u8),
    Grow(u8, i32),
    Alter(u8, &'static str),
    AlterAll(&'static str),
}

fn any_action() -> impl Strategy<Value = Action> {
    let topic = 0..4u8;
    let value = prop_oneof![Just("1000"), Just("2000"), Just("nonsense"), Just("")];
    prop_oneof![
        (topic.clone(), 1..4u32).prop_map(|(topic, partitions)| Action::Create(topic, partitions)),
        topic.clone().prop_map(Action::Delete),
        (topic.clone(), 0..6i32).prop_map(|(topic, count)| Action::Grow(topic, count)),
        (topic, value.clone()).prop_map(|(topic, value)| Action::Alter(topic, value)),
        value.prop_map(Action::AlterAll),
    ]
}

fn act(cluster: &mut Cluster, action: &Action) {
    let named = |topic: &u8| format!("topic-{topic}");
    let op = |value: &str| if value.is_empty() { ConfigOp::Delete } else { ConfigOp::Set(value.to_owned()) };
    match action {
        Action::Create(topic, partitions) => drop(cluster.create(&[spread(&named(topic), Some(*partitions), None)])),
        Action::Delete(topic) => {
            let ids: Vec<TopicId> = cluster.image().topic(&named(topic)).iter().map(|topic| topic.id).collect();
            let (_, decision) = delete_topics(cluster.image(), &ids);
            cluster.take(decision);
        }
        Action::Grow(topic, count) => {
            let grow = GrowTopic { name: named(topic), count: *count, assignments: None };
            let (_, decision) = create_partitions(cluster.image(), &[grow], 0);
            cluster.take(decision);
        }
        Action::Alter(topic, value) => {
            drop(cluster.alter(AlterResource::Topic(named(topic)), &[("retention.ms", op(value))]));
        }
        Action::AlterAll(value) => {
            let all = AlterResource::Other(ConfigResource::BrokerDefaults);
            // Only what a broker would have checked gets this far.
            if *value != "nonsense" {
                drop(cluster.alter(all, &[("log.retention.ms", op(value))]));
            }
        }
    }
}

proptest! {
    #[test]
    fn an_image_that_follows_equals_one_that_is_read_anew(actions in vec(any_action(), 0..40)) {
        let mut cluster = Cluster::of(&[(1, false), (2, false)]);
        for action in &actions {
            let before = cluster.image().clone();
            act(&mut cluster, action);
            let mut anew = ImageBuilder::new(BrokerId(1), BTreeMap::new());
            anew.load(&cluster.snapshot()).unwrap();
            let (followed, anew) = (cluster.image(), anew.image());
            prop_assert_eq!(followed.topics(), anew.topics());
            prop_assert_eq!(followed.partition_count(), anew.partition_count());
            prop_assert_eq!(followed.configs(), anew.configs());
            for topic in followed.topics().values() {
                prop_assert_eq!(followed.topic_by_id(topic.id), Some(topic));
            }
            // What changed is what differs, and each topic is told of once.
            for change in followed.changes_since(&before) {
                let now = match &change {
                    TopicChange::Created(now) => before.topic_by_id(now.id).is_none().then_some(now),
                    TopicChange::Altered { before: old, now } => (old != now).then_some(now),
                    TopicChange::Deleted(old) => followed.topic_by_id(old.id).is_none().then_some(old),
                };
                prop_assert!(now.is_some(), "{change:?}");
            }
        }
    }
}
