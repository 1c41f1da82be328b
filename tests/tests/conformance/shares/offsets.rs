//! How far share groups have come, and who may change that.

use anyhow::Result;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest,
    alter_share_group_offsets_request::{AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic},
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic,
    describe_share_group_offsets_request::{
        DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
    },
};
use varve_tests::differential::Pair;

use super::{FIRST, GROUP, TOPIC, later, look, newer};
use crate::{
    groups::delete,
    request::{group, topic},
};

/// A topic and partitions of it.
type Asked<'a> = (&'a str, &'a [i32]);

pub(super) fn script(pair: &mut Pair) -> Result<()> {
    everything(pair, "members")?;
    // Not while it has members.
    pair.ask("alter-shares-busy", &[0], |_, _| altered(GROUP, &[(TOPIC, 0, 1)]))?;
    pair.ask("delete-shares-busy", &[0], |_, _| deleted(GROUP, &[TOPIC]))?;
    pair.ask("delete-groups-shares-busy", &[2], |_, _| delete(&[GROUP]))?;
    pair.ask("share-heartbeat-first-leaves", &[1], |_, _| later(GROUP, FIRST, -1))?;
    look(pair, "empty")?;
    everything(pair, "empty")?;
    alter(pair)?;
    remove(pair)
}

fn described(name: &str, topics: Option<&[Asked<'_>]>) -> DescribeShareGroupOffsetsRequest {
    let topics = topics.map(|topics| {
        let each = topics.iter().map(|(name, partitions)| {
            DescribeShareGroupOffsetsRequestTopic::default()
                .with_topic_name(topic(name))
                .with_partitions(partitions.to_vec())
        });
        each.collect()
    });
    let asked = DescribeShareGroupOffsetsRequestGroup::default().with_group_id(group(name)).with_topics(topics);
    DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked])
}

/// What is said of it in both versions, by every way to ask.
fn everything(pair: &mut Pair, when: &str) -> Result<()> {
    for (label, name, topics) in [
        ("some", GROUP, Some(&[(TOPIC, &[0, 1][..])][..])),
        ("none", GROUP, Some(&[])),
        ("all", GROUP, None),
        ("nobody", "nobody", Some(&[(TOPIC, &[0])])),
        ("nobody-all", "nobody", None),
        ("classic", "classic-and-share", None),
    ] {
        let label = format!("describe-shares-offsets-{when}-{label}");
        pair.ask(&label, &[0], |_, _| described(name, topics))?;
        // The order within a byte string cannot be told apart.
        let is_ordered = topics.is_some_and(|topics| topics.iter().map(|topic| topic.1.len()).sum::<usize>() < 2);
        if is_ordered {
            pair.ask_bytes(&format!("{label}-1"), |_| newer(&described(name, topics), 1, 0, &[]))?;
        }
    }
    for index in [0, 1] {
        pair.ask_bytes(&format!("describe-shares-offsets-{when}-{index}-1"), |_| {
            newer(&described(GROUP, Some(&[(TOPIC, &[index])])), 1, 0, &[])
        })?;
    }
    Ok(())
}

fn altered(name: &str, offsets: &[(&str, i32, i64)]) -> AlterShareGroupOffsetsRequest {
    let topics = offsets.iter().map(|(name, index, offset)| {
        let partition =
            AlterShareGroupOffsetsRequestPartition::default().with_partition_index(*index).with_start_offset(*offset);
        AlterShareGroupOffsetsRequestTopic::default().with_topic_name(topic(name)).with_partitions(vec![partition])
    });
    AlterShareGroupOffsetsRequest::default().with_group_id(group(name)).with_topics(topics.collect())
}

fn deleted(name: &str, topics: &[&str]) -> DeleteShareGroupOffsetsRequest {
    let topics =
        topics.iter().map(|name| DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(topic(name))).collect();
    DeleteShareGroupOffsetsRequest::default().with_group_id(group(name)).with_topics(topics)
}

fn alter(pair: &mut Pair) -> Result<()> {
    for (label, name, offsets) in [
        ("one", GROUP, &[(TOPIC, 0, 2)][..]),
        ("unknown-topic", GROUP, &[("nobody", 0, 2)]),
        ("unknown-partition", GROUP, &[(TOPIC, 9, 2)]),
        ("both", GROUP, &[("nobody", 0, 2), (TOPIC, 1, 1)]),
        ("far", GROUP, &[(TOPIC, 1, 1_000)]),
        ("none", GROUP, &[]),
        ("no-group", "", &[(TOPIC, 0, 0)]),
        ("classic", "classic-and-share", &[(TOPIC, 0, 0)]),
    ] {
        pair.ask(&format!("alter-shares-{label}"), &[0], |_, _| altered(name, offsets))?;
    }
    everything(pair, "altered")
}

fn remove(pair: &mut Pair) -> Result<()> {
    for (label, name, topics) in [
        ("unknown-topic", GROUP, &["nobody"][..]),
        ("none", GROUP, &[]),
        ("nobody", "nobody", &[TOPIC]),
        ("no-group", "", &[TOPIC]),
        ("classic", "classic-and-share", &[TOPIC]),
        ("one", GROUP, &[TOPIC]),
        ("again", GROUP, &[TOPIC]),
    ] {
        pair.ask(&format!("delete-shares-{label}"), &[0], |_, _| deleted(name, topics))?;
    }
    everything(pair, "deleted")?;
    pair.ask("delete-groups-shares", &[2], |_, _| delete(&[GROUP, "classic-and-share"]))?;
    pair.ask("delete-groups-shares-gone", &[2], |_, _| delete(&[GROUP]))?;
    look(pair, "gone")
}
