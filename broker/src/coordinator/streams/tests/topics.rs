//! The topics that a topology needs: missing ones are made, others waited for, and a group follows them when they change.

use super::*;

fn without_topics() -> Harness {
    let mut cluster = TestCluster::default();
    cluster.streams = at_once();
    Harness::on(GroupConfig::default(), cluster)
}

#[test]
fn a_group_whose_sources_are_missing_waits_for_them_and_its_changelogs_are_made() {
    let mut groups = without_topics();
    let answer = groups.beat_streams(first("m1")).unwrap();
    let words = "Source topics orders are missing.".to_owned();
    assert_eq!(answer.status, [StreamsStatus::MissingSourceTopics(words)]);
    assert_eq!((answer.epoch.0, answer.tasks, answer.missing_topics), (2, Some(Tasks::default()), vec![]));
    assert_eq!(groups.streams_state(), StreamsGroupState::NotReady);

    groups.put_topic("orders", topic_id(1), 3);
    let answer = groups.beat_streams(next("m1", 2)).unwrap();
    let words = "Internal topics are missing: counts".to_owned();
    assert_eq!(answer.status, [StreamsStatus::MissingInternalTopics(words)]);
    assert_eq!(answer.epoch.0, 3, "the topics are others than before");
    let plan = &answer.missing_topics[0];
    assert_eq!((plan.name.as_str(), plan.partitions, plan.replication_factor), ("counts", 3, None));
    assert_eq!(groups.streams_state(), StreamsGroupState::NotReady);
    // Until they are there, every heartbeat asks for them.
    assert_eq!(groups.beat_streams(next("m1", 3)).unwrap().missing_topics.len(), 1);

    groups.put_topic("counts", topic_id(2), 3);
    let answer = groups.beat_streams(next("m1", 3)).unwrap();
    assert_eq!((answer.epoch.0, answer.tasks, answer.status), (4, Some(active(&[0, 1, 2])), vec![]));
    assert_eq!(groups.streams_state(), StreamsGroupState::Stable);
}

#[test]
fn a_source_that_grows_no_longer_fits_its_changelog() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    groups.put_topic("orders", topic_id(1), 3);
    let answer = groups.beat_streams(next("m1", 2)).unwrap();
    let words = "Existing topic counts has different number of partitions: expected 3, found 2".to_owned();
    assert_eq!(answer.status, [StreamsStatus::IncorrectlyPartitionedTopics(words)]);
    assert_eq!(answer.tasks, Some(Tasks::default()), "it has to give all tasks up");
    assert_eq!(groups.streams_state(), StreamsGroupState::NotReady);
    groups.put_topic("counts", topic_id(2), 3);
    groups.beat_streams(owning("m1", 2, Tasks::default())).unwrap();
    groups.settle_streams_members(&["m1"]);
    assert_eq!(groups.streams_group().members[0].assignment, active(&[0, 1, 2]));
}

#[test]
fn topics_of_others_do_not_disturb_a_group() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    let records = groups.log.len();
    groups.put_topic("others", topic_id(9), 3);
    assert_eq!(groups.told_tasks(next("m1", 2)), (2, None));
    assert_eq!(groups.log.len(), records);
}

#[test]
fn a_description_shows_the_topology_as_said_until_its_topics_are_there() {
    let mut groups = without_topics();
    groups.beat_streams(first("m1")).unwrap();
    let group = groups.streams_group();
    assert_eq!(group.topology.subtopologies[0].changelogs[0].partitions, 0);
    assert_eq!((group.epoch, group.assignment_epoch), (2, 2));
}

#[test]
fn a_group_that_came_into_being_shows_its_topology_as_said_until_it_is_heard_of_again() {
    let mut groups = cluster_of(3);
    let shown = |groups: &Harness| groups.streams_group().topology.subtopologies[0].changelogs[0].partitions;
    groups.beat_streams(first("m1")).unwrap();
    assert_eq!(shown(&groups), 0, "as the member said it");
    assert_eq!(groups.told_tasks(next("m1", 2)), (2, None));
    assert_eq!(shown(&groups), 3, "as it was decided");
}
