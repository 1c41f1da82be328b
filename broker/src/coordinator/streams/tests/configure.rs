//! What a topology and the topics that exist come to.

use super::*;
use crate::coordinator::streams::configure::{Configured, configure};

fn cluster(topics: &[(&str, u32)]) -> TestCluster {
    let mut cluster = TestCluster::default();
    for ((name, partitions), number) in topics.iter().zip(1..) {
        cluster.put(name, topic_id(number), *partitions);
    }
    cluster
}

fn configured(topology: &Topology, topics: &[(&str, u32)]) -> Configured {
    configure(topology, &cluster(topics)).unwrap()
}

fn problem(topology: &Topology, topics: &[(&str, u32)]) -> (i8, String) {
    let configured = configured(topology, topics);
    let (code, detail) = configured.problem.as_ref().unwrap().to_wire();
    (code, detail.to_owned())
}

fn missing(configured: &Configured) -> Vec<(&str, u32)> {
    configured.missing.values().map(|topic| (topic.name.as_str(), topic.partitions)).collect()
}

fn writes(id: &str, topics: &[&str], sinks: &[&str]) -> Subtopology {
    Subtopology { repartition_sinks: sinks.iter().map(|sink| (*sink).to_owned()).collect(), ..reads(id, topics) }
}

fn rereads(id: &str, topics: &[InternalTopic]) -> Subtopology {
    Subtopology { repartition_sources: topics.to_vec(), ..reads(id, &[]) }
}

fn together(subtopology: Subtopology, source_topics: &[i16], repartition_sources: &[i16]) -> Subtopology {
    let group = CopartitionGroup {
        source_topics: source_topics.to_vec(),
        source_topic_regexes: vec![],
        repartition_sources: repartition_sources.to_vec(),
    };
    Subtopology { copartition_groups: vec![group], ..subtopology }
}

#[test]
fn a_changelog_has_as_many_partitions_as_its_subtopology_has_tasks() {
    let topology = topology(&[Subtopology { changelogs: vec![internal("c")], ..reads("0", &["a", "b"]) }]);
    let found = configured(&topology, &[("a", 2), ("b", 5)]);
    assert_eq!(missing(&found), [("c", 5)]);
    assert_eq!(found.subtopologies["0"].tasks, 5);
    assert_eq!(found.problem.unwrap().to_wire(), (3, "Internal topics are missing: c"));
    assert!(configured(&topology, &[("a", 2), ("b", 5), ("c", 5)]).is_ready());
    let wrong = "Existing topic c has different number of partitions: expected 5, found 4";
    assert_eq!(problem(&topology, &[("a", 2), ("b", 5), ("c", 4)]), (2, wrong.to_owned()));
}

#[test]
fn repartition_topics_follow_what_is_written_to_them_over_several_steps() {
    let topology = topology(&[
        writes("0", &["a"], &["r1"]),
        Subtopology { repartition_sinks: vec!["r2".to_owned()], ..rereads("1", &[internal("r1")]) },
        Subtopology { changelogs: vec![internal("c")], ..rereads("2", &[internal("r2")]) },
    ]);
    let found = configured(&topology, &[("a", 3)]);
    assert_eq!(missing(&found), [("c", 3), ("r1", 3), ("r2", 3)]);
    assert_eq!(found.subtopologies.values().map(|subtopology| subtopology.tasks).collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn a_repartition_topic_may_say_itself_how_many_partitions_it_has() {
    let topology = topology(&[writes("0", &["a"], &["r"]), rereads("1", &[fixed("r", 7)])]);
    assert_eq!(missing(&configured(&topology, &[("a", 3)])), [("r", 7)]);
}

#[test]
fn missing_sources_are_named_three_of_them() {
    let topology = topology(&[reads("0", &["e", "d", "c", "b", "a"])]);
    let why = "Source topics a, b, d and 1 additional topics are missing.";
    assert_eq!(problem(&topology, &[("c", 1)]), (1, why.to_owned()));
}

#[test]
fn topics_that_go_together_must_have_equally_many_partitions() {
    let joined = topology(&[together(reads("0", &["a", "b"]), &[0, 1], &[])]);
    assert!(configured(&joined, &[("a", 2), ("b", 2)]).is_ready());
    let why = "Following topics do not have the same number of partitions: [{a=2, b=3}]";
    assert_eq!(problem(&joined, &[("a", 2), ("b", 3)]), (2, why.to_owned()));
}

#[test]
fn a_repartition_topic_gets_the_partitions_of_the_topic_that_it_is_joined_with() {
    let with = |topic: InternalTopic| {
        let joined = Subtopology { source_topics: vec!["b".to_owned()], ..rereads("1", &[topic]) };
        topology(&[writes("0", &["a"], &["r"]), together(joined, &[0], &[0])])
    };
    assert_eq!(missing(&configured(&with(internal("r")), &[("a", 2), ("b", 6)])), [("r", 6)]);
    let why =
        "Number of partitions [4] of repartition topic [r] doesn't match number of partitions [6] of the source topic.";
    assert_eq!(problem(&with(fixed("r", 4)), &[("a", 2), ("b", 6)]), (2, why.to_owned()));
}

#[test]
fn repartition_topics_alone_take_the_largest_number_or_the_one_that_is_fixed() {
    let with = |one: InternalTopic, other: InternalTopic| {
        topology(&[
            writes("0", &["a"], &["r"]),
            writes("1", &["b"], &["s"]),
            together(rereads("2", &[one, other]), &[], &[0, 1]),
        ])
    };
    let topics = [("a", 2), ("b", 6)];
    assert_eq!(missing(&configured(&with(internal("r"), internal("s")), &topics)), [("r", 6), ("s", 6)]);
    assert_eq!(missing(&configured(&with(fixed("r", 3), internal("s")), &topics)), [("r", 3), ("s", 3)]);
    let why = "Following topics do not have the same number of partitions: [{r=3, s=4}]";
    assert_eq!(problem(&with(fixed("r", 3), fixed("s", 4)), &topics), (2, why.to_owned()));
}

#[test]
fn a_topology_that_no_topics_would_help_is_refused() {
    let refused = |topology: &Topology| configure(topology, &cluster(&[("a", 1)])).unwrap_err();
    let turning = Subtopology { repartition_sinks: vec!["r".to_owned()], ..rereads("0", &[internal("r")]) };
    let error = refused(&topology(&[turning]));
    assert_eq!(error.kind(), GroupError::InvalidTopology);
    assert!(error.to_string().contains("There may be loops in the topology that cannot be resolved."), "{error}");
    let error = refused(&topology(&[rereads("0", &[internal("r")])]));
    assert!(error.to_string().contains("a repartition source topic is never used as a sink topic."), "{error}");
    let error = refused(&topology(&[reads("0", &[])]));
    assert_eq!(error.to_string(), "No source topics found for subtopology 0");
}

#[test]
fn a_topology_that_contradicts_itself_is_refused() {
    let refused = |topology: Topology| configure(&topology, &cluster(&[("a", 1)])).unwrap_err();
    for topology in [
        Topology { epoch: -1, ..topology(&[reads("0", &["a"])]) },
        topology(&[reads("0", &["a"]), reads("0", &["a"])]),
        topology(&[together(reads("0", &["a"]), &[1], &[])]),
        topology(&[together(reads("0", &["a"]), &[-1], &[])]),
        topology(&[together(reads("0", &["a"]), &[0], &[0])]),
        topology(&[Subtopology { changelogs: vec![internal("c"), internal("c")], ..reads("0", &["a"]) }]),
        topology(&[Subtopology { repartition_sources: vec![fixed("r", -2)], ..reads("0", &["a"]) }]),
    ] {
        assert_eq!(refused(topology), ModernGroupError::Group(GroupError::Unexpected));
    }
}
