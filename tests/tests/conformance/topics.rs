//! CreateTopics, Metadata, DescribeCluster, DescribeTopicPartitions, CreatePartitions, DeleteTopics.

use anyhow::{Context, Result};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeTopicPartitionsRequest, MetadataRequest,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    describe_topic_partitions_request::{Cursor, TopicRequest},
    metadata_request::MetadataRequestTopic,
};
use uuid::Uuid;
use varve_tests::differential::Pair;

use super::request::{NOBODYS_ID, id_of, text, topic, versions};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    pair.accept_any_ids(true);
    create(pair)?;
    pair.accept_any_ids(false);
    metadata(pair)?;
    cluster(pair)?;
    describe(pair)?;
    grow(pair)?;
    delete(pair)
}

pub(crate) fn new(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default().with_name(topic(name)).with_num_partitions(partitions).with_replication_factor(replicas)
}

fn with_config(name: &str, setting: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig::default().with_name(text(setting)).with_value(value.map(text));
    new(name, 1, 1).with_configs(vec![config])
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(index, brokers)| {
        let brokers = brokers.iter().map(|id| BrokerId(*id)).collect();
        CreatableReplicaAssignment::default().with_partition_index(*index).with_broker_ids(brokers)
    });
    new(name, -1, -1).with_assignments(assignments.collect())
}

fn request(topics: &[CreatableTopic]) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics.to_vec()).with_timeout_ms(10_000)
}

/// Creates a topic in both brokers, and learns its ids.
pub(crate) fn make(pair: &mut Pair, wanted: CreatableTopic) -> Result<()> {
    let name = wanted.name.to_string();
    let before = pair.differences.len();
    let answers = pair.ask("make", &[7], |_, _| request(std::slice::from_ref(&wanted)))?;
    pair.differences.truncate(before);
    for (side, answer) in pair.sides().into_iter().zip(answers) {
        let id = answer["topics"][0]["topic_id"].as_str().context("an id")?.to_owned();
        side.call(&id, &format!("id of {name}"));
    }
    // Kafka's metadata may trail its controller.
    for side in pair.sides() {
        side.wait_for_topic(&name)?;
    }
    Ok(())
}

/// Waits until both brokers have all that was changed so far: Kafka's trails its controller, which answers, but has what is
/// older than a topic once it has the topic.
pub(crate) fn catch_up(pair: &mut Pair, name: &str) -> Result<()> {
    make(pair, new(name, 1, 1))
}

fn create(pair: &mut Pair) -> Result<()> {
    let long = "n".repeat(250);
    let invalid: Vec<CreatableTopic> = vec![
        new("", 1, 1),
        new(".", 1, 1),
        new("..", 1, 1),
        new("a b", 1, 1),
        new("ü", 1, 1),
        new(&long, 1, 1),
        new("none", 0, 1),
        new("less", -2, 1),
        new("no-replicas", 1, 0),
        new("less-replicas", 1, -2),
        new("more-replicas", 1, 2),
        new("most-replicas", 1, i16::MAX),
        new("__cluster_metadata", 1, 1),
        with_config("c1", "no.such.config", Some("1")),
        with_config("c2", "retention.ms", Some("x")),
        with_config("c3", "retention.ms", Some("-2")),
        with_config("c4", "retention.ms", None),
        with_config("c5", "cleanup.policy", Some("shred")),
        with_config("c6", "compression.type", Some("rar")),
        with_config("c7", "segment.bytes", Some("1")),
        with_config("c8", "min.cleanable.dirty.ratio", Some("2")),
        with_config("c9", "max.message.bytes", Some("-1")),
        with_config("c10", "preallocate", Some("perhaps")),
        with_config("c11", "local.retention.ms", Some("-5")),
        with_config("c12", "message.timestamp.type", Some("Never")),
        with_config("c13", "unclean.leader.election.enable", Some("")),
        with_config("c14", "", Some("")),
        with_config("c15", "compression.gzip.level", Some("77")),
        with_config("c16", "segment.ms", Some("99999999999999999999")),
        with_config("c17", "min.insync.replicas", Some("0")),
        with_config("c18", "retention.bytes", Some(" 100 ")),
        with_config("c19", "local.retention.bytes", Some("5")),
        with_config("c20", "follower.replication.throttled.replicas", Some("nonsense")),
        assigned("a1", &[(1, &[1])]),
        assigned("a2", &[(0, &[1]), (2, &[1])]),
        assigned("a3", &[(0, &[1]), (0, &[1])]),
        assigned("a4", &[(0, &[])]),
        assigned("a5", &[(0, &[2])]),
        assigned("a6", &[(0, &[1, 1])]),
        assigned("a7", &[(0, &[-1])]),
        assigned("a8", &[(-1, &[1])]),
        assigned("a10", &[(0, &[1]), (1, &[1, 2])]),
        assigned("a11", &[(0, &[1])]).with_num_partitions(1),
        assigned("a12", &[(0, &[1])]).with_replication_factor(1),
        assigned("a13", &[(0, &[1])]).with_replication_factor(1).with_num_partitions(1),
    ];
    for (at, wanted) in invalid.iter().enumerate() {
        let name = if wanted.name.len() > 20 { "long".to_owned() } else { wanted.name.to_string() };
        let name = if wanted.configs.is_empty() { name } else { format!("{name} {}", wanted.configs[0].name.as_str()) };
        for validate in [true, false] {
            // c18 and others of that kind are valid.
            let versions = if validate { versions(2, 7) } else { vec![7] };
            pair.ask(&format!("create-topics-{at}-{name}-{validate}"), &versions, |_, _| {
                request(std::slice::from_ref(wanted)).with_validate_only(validate)
            })?;
        }
    }
    pair.ask("create-topics-none", &versions(2, 7), |_, _| request(&[]))?;
    pair.ask("create-topics-all-wrong", &[2, 7], |_, _| request(&invalid).with_validate_only(true))?;
    for validate in [true, false] {
        pair.ask(&format!("create-topics-twice-{validate}"), &[2, 5, 7], |_, _| {
            request(&[new("twice", 1, 1), new("once", 1, 1), new("twice", 2, 1)]).with_validate_only(validate)
        })?;
    }
    pair.ask("create-topics-validate", &versions(2, 7), |_, _| request(&[new("v", 3, 1)]).with_validate_only(true))?;
    pair.ask("create-topics-validate-defaults", &versions(4, 7), |_, _| {
        request(&[new("v", -1, -1)]).with_validate_only(true)
    })?;
    pair.ask("create-topics-validate-assigned", &versions(2, 7), |_, _| {
        request(&[assigned("v", &[(1, &[1]), (0, &[1])])]).with_validate_only(true)
    })?;
    pair.ask("create-topics-timeout-0", &[7], |_, _| request(&[new("late", 1, 1)]).with_timeout_ms(0))?;
    pair.ask("create-topics-timeout-negative", &[7], |_, _| request(&[new("later", 1, 1)]).with_timeout_ms(-1))?;
    make(pair, new("one", 1, 1))?;
    make(pair, new("three", 3, 1))?;
    make(pair, with_config("compacted", "cleanup.policy", Some("compact")))?;
    make(pair, new("dotted.name", 1, 1))?;
    pair.ask("create-topics-exists", &versions(2, 7), |_, _| request(&[new("one", 1, 1), new("two", 0, 1)]))?;
    pair.ask("create-topics-exists-validate", &[7], |_, _| request(&[new("one", 1, 1)]).with_validate_only(true))?;
    pair.ask("create-topics-collides", &versions(2, 7), |_, _| request(&[new("dotted_name", 1, 1)]))?;
    pair.ask("create-topics-collides-in-request", &[7], |_, _| request(&[new("x.y_z", 1, 1), new("x_y.z", 1, 1)]))?;
    for version in 2..=7 {
        let name = format!("fresh-{version}");
        for side in pair.sides() {
            side.call(&format!("\"{name}\""), &name);
        }
        pair.ask_learning("create-topics-fresh", version, |_, _| {
            request(&[with_config(&name, "retention.ms", Some("1000000"))])
        })?;
    }
    Ok(())
}

fn by_names(names: &[&str]) -> MetadataRequest {
    let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic(name))));
    MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false)
}

fn metadata(pair: &mut Pair) -> Result<()> {
    let all = versions(0, 13);
    // Before version 4 a client cannot forbid creation; names that cannot be made serve there.
    let auto = |version: i16, request: MetadataRequest| request.with_allow_auto_topic_creation(version < 4);
    pair.ask("metadata-known", &all, |v, _| auto(v, by_names(&["three", "one"])))?;
    pair.ask("metadata-twice", &all, |v, _| auto(v, by_names(&["one", "one"])))?;
    pair.ask("metadata-invalid", &all, |v, _| auto(v, by_names(&["a b", "", "."])))?;
    pair.ask("metadata-unknown", &versions(4, 13), |_, _| by_names(&["nobody", "one", "__consumer_offsets_x"]))?;
    pair.ask("metadata-none", &versions(1, 13), |v, _| auto(v, by_names(&[])))?;
    pair.ask("metadata-operations", &versions(8, 13), |v, _| {
        by_names(&["one", "nobody"])
            .with_include_cluster_authorized_operations(v <= 10)
            .with_include_topic_authorized_operations(true)
    })?;
    let by_id = |id: Uuid, name: Option<&str>| {
        let topic = MetadataRequestTopic::default().with_topic_id(id).with_name(name.map(topic));
        MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
    };
    pair.ask("metadata-id", &versions(10, 13), |_, side| by_id(id_of(side, "one"), None))?;
    pair.ask("metadata-id-and-name", &versions(10, 13), |_, side| by_id(id_of(side, "one"), Some("three")))?;
    pair.ask("metadata-id-unknown", &versions(10, 13), |_, _| by_id(NOBODYS_ID, None))?;
    pair.ask("metadata-id-zero", &versions(10, 13), |_, _| by_id(Uuid::nil(), None))?;
    pair.ask("metadata-ids-and-names", &versions(12, 13), |_, side| {
        let mut request = by_names(&["three", "nobody"]);
        request.topics.iter_mut().flatten().for_each(|topic| topic.topic_id = Uuid::nil());
        let with_id = MetadataRequestTopic::default().with_topic_id(id_of(side, "one")).with_name(None);
        request.topics.iter_mut().for_each(|topics| topics.push(with_id.clone()));
        request
    })?;
    // Both have it in a later answer, in their own time.
    for (version, name) in [(4, "auto-made"), (13, "auto-made-last")] {
        pair.ask("metadata-creates", &[version], |_, _| by_names(&[name]).with_allow_auto_topic_creation(true))?;
    }
    for name in ["auto-made", "auto-made-last"] {
        pair.sides().into_iter().try_for_each(|side| side.wait_for_topic(name))?;
    }
    for version in all {
        pair.ask_learning("metadata-all", version, |version, _| match version {
            0 => MetadataRequest::default().with_topics(Some(Vec::new())),
            _ => MetadataRequest::default().with_topics(None),
        })?;
    }
    Ok(())
}

fn cluster(pair: &mut Pair) -> Result<()> {
    for operations in [false, true] {
        let request = || DescribeClusterRequest::default().with_include_cluster_authorized_operations(operations);
        pair.ask("describe-cluster", &versions(0, 2), |_, _| request())?;
        for endpoints in [0, 2, 3, -1] {
            pair.ask(&format!("describe-cluster-endpoints-{endpoints}"), &[1, 2], |_, _| {
                request().with_endpoint_type(endpoints)
            })?;
        }
    }
    pair.ask("describe-cluster-fenced", &[2], |_, _| {
        DescribeClusterRequest::default().with_include_fenced_brokers(true)
    })?;
    Ok(())
}

fn describe(pair: &mut Pair) -> Result<()> {
    let asked = |names: &[&str], limit: i32, cursor: Option<(&str, i32)>| {
        let topics = names.iter().map(|name| TopicRequest::default().with_name(topic(name)));
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(
                cursor.map(|(name, index)| Cursor::default().with_topic_name(topic(name)).with_partition_index(index)),
            )
    };
    for (name, request) in [
        ("some", asked(&["three", "one"], 100, None)),
        ("unknown", asked(&["nobody", "one"], 100, None)),
        ("invalid", asked(&["a b"], 100, None)),
        ("nameless", asked(&[""], 100, None)),
        ("twice", asked(&["one", "one"], 100, None)),
        ("limit-0", asked(&["three"], 0, None)),
        ("limit-negative", asked(&["three"], -1, None)),
        ("limit-2", asked(&["one", "three"], 2, None)),
        ("limit-3", asked(&["one", "three", "nobody"], 4, None)),
        ("limit-huge", asked(&["one", "three"], i32::MAX, None)),
        ("cursor", asked(&["one", "three"], 100, Some(("three", 1)))),
        ("cursor-gone", asked(&["one", "three"], 100, Some(("p", 0)))),
        ("cursor-gone-inside", asked(&["one", "three"], 100, Some(("p", 1)))),
        ("cursor-far", asked(&["one", "three"], 100, Some(("three", 7)))),
        ("cursor-negative", asked(&["one", "three"], 100, Some(("three", -1)))),
        ("cursor-last", asked(&["one"], 100, Some(("zzz", 0)))),
    ] {
        pair.ask(&format!("describe-topic-partitions-{name}"), &[0], |_, _| request.clone())?;
    }
    pair.ask_learning("describe-topic-partitions-all", 0, |_, _| asked(&[], 2000, None))?;
    Ok(())
}

fn grow(pair: &mut Pair) -> Result<()> {
    let to = |name: &str, count: i32, assignments: Option<&[&[i32]]>| {
        let assignments = assignments.map(|assignments| {
            let each = assignments.iter().map(|brokers| {
                let brokers = brokers.iter().map(|id| BrokerId(*id)).collect();
                CreatePartitionsAssignment::default().with_broker_ids(brokers)
            });
            each.collect()
        });
        CreatePartitionsTopic::default().with_name(topic(name)).with_count(count).with_assignments(assignments)
    };
    let request = |topics: &[CreatePartitionsTopic], validate| {
        CreatePartitionsRequest::default()
            .with_topics(topics.to_vec())
            .with_timeout_ms(10_000)
            .with_validate_only(validate)
    };
    for (name, topics) in [
        ("none", vec![]),
        ("unknown", vec![to("nobody", 2, None)]),
        ("invalid", vec![to("a b", 2, None), to("", 2, None)]),
        ("same", vec![to("one", 1, None)]),
        ("less", vec![to("three", 1, None)]),
        ("zero", vec![to("three", 0, None)]),
        ("negative", vec![to("three", -1, None)]),
        ("twice", vec![to("three", 4, None), to("three", 5, None), to("one", 0, None)]),
        ("assigned-none", vec![to("three", 4, Some(&[]))]),
        ("assigned-too-many", vec![to("three", 4, Some(&[&[1], &[1]]))]),
        ("assigned-empty", vec![to("three", 4, Some(&[&[]]))]),
        ("assigned-unknown", vec![to("three", 4, Some(&[&[5]]))]),
        ("assigned-negative", vec![to("three", 4, Some(&[&[-1]]))]),
        ("assigned-repeats", vec![to("three", 4, Some(&[&[1, 1]]))]),
        ("assigned-more-replicas", vec![to("three", 5, Some(&[&[1], &[1, 2]]))]),
        ("assigned-same-count", vec![to("three", 3, Some(&[&[1]]))]),
    ] {
        for validate in [true, false] {
            let versions = if validate { versions(0, 3) } else { vec![3] };
            pair.ask(&format!("create-partitions-{name}-{validate}"), &versions, |_, _| request(&topics, validate))?;
        }
    }
    pair.ask("create-partitions-validate", &versions(0, 3), |_, _| request(&[to("three", 4, None)], true))?;
    pair.ask("create-partitions", &[0, 3], |v, _| request(&[to("fresh-3", 2 + i32::from(v), None)], false))?;
    pair.ask("create-partitions-assigned", &[0, 3], |v, _| {
        request(&[to("fresh-4", 2 + i32::from(v > 0), Some(&[&[1]]))], false)
    })?;
    Ok(())
}

fn delete(pair: &mut Pair) -> Result<()> {
    let named = |version: i16, names: &[&str]| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        if version >= 6 {
            let states = names.iter().map(|name| DeleteTopicState::default().with_name(Some(topic(name))));
            request.with_topics(states.collect())
        } else {
            request.with_topic_names(names.iter().map(|name| topic(name)).collect())
        }
    };
    let all = versions(1, 6);
    pair.ask("delete-topics-none", &all, |v, _| named(v, &[]))?;
    pair.ask("delete-topics-unknown", &all, |v, _| named(v, &["nobody", "a b", ""]))?;
    pair.ask("delete-topics-twice", &all, |v, _| named(v, &["fresh-2", "fresh-2", "nobody"]))?;
    let state = |name: Option<&str>, id: Uuid| DeleteTopicState::default().with_name(name.map(topic)).with_topic_id(id);
    let request =
        |states: Vec<DeleteTopicState>| DeleteTopicsRequest::default().with_timeout_ms(10_000).with_topics(states);
    pair.ask("delete-topics-id-unknown", &[6], |_, _| request(vec![state(None, NOBODYS_ID)]))?;
    pair.ask("delete-topics-id-zero", &[6], |_, _| request(vec![state(None, Uuid::nil())]))?;
    pair.ask("delete-topics-both", &[6], |_, side| request(vec![state(Some("fresh-2"), id_of(side, "fresh-2"))]))?;
    pair.ask("delete-topics-id-twice", &[6], |_, _| request(vec![state(None, NOBODYS_ID), state(None, NOBODYS_ID)]))?;
    pair.ask("delete-topics-id-and-name", &[6], |_, side| {
        request(vec![state(None, id_of(side, "fresh-7")), state(Some("fresh-7"), Uuid::nil())])
    })?;
    pair.ask("delete-topics-id", &[6], |_, side| request(vec![state(None, id_of(side, "fresh-7"))]))?;
    pair.ask("delete-topics-id-again", &[6], |_, side| request(vec![state(None, id_of(side, "fresh-7"))]))?;
    for version in 2..=6 {
        pair.ask("delete-topics", &[version], |v, _| named(v, &[&format!("fresh-{v}")]))?;
    }
    Ok(())
}
