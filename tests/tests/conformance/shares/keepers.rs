//! What brokers ask of those who keep the state of share partitions.

use anyhow::Result;
use kafka_protocol::messages::{
    DeleteShareGroupStateRequest, InitializeShareGroupStateRequest, ReadShareGroupStateRequest,
    ReadShareGroupStateSummaryRequest, WriteShareGroupStateRequest, delete_share_group_state_request as delete,
    initialize_share_group_state_request as initialize, read_share_group_state_request as read,
    read_share_group_state_summary_request as summary, write_share_group_state_request as write,
};
use uuid::Uuid;
use varve_tests::differential::{Pair, Side};

use super::{newer, shared};
use crate::request::{NOBODYS_ID, text};

/// Nobody's group but the scripts'.
const GROUP: &str = "kept";
/// What is settled, in the version that says so.
const SETTLED: i32 = 3;

pub(super) fn script(pair: &mut Pair) -> Result<()> {
    before(pair)?;
    life(pair)?;
    wrong(pair)
}

fn initialized(topic: Uuid, partition: i32, epoch: i32, start: i64) -> InitializeShareGroupStateRequest {
    let partition =
        initialize::PartitionData::default().with_partition(partition).with_state_epoch(epoch).with_start_offset(start);
    let topic = initialize::InitializeStateData::default().with_topic_id(topic).with_partitions(vec![partition]);
    InitializeShareGroupStateRequest::default().with_group_id(text(GROUP)).with_topics(vec![topic])
}

fn kept(topic: Uuid, partition: i32, leader_epoch: i32) -> ReadShareGroupStateRequest {
    let partition = read::PartitionData::default().with_partition(partition).with_leader_epoch(leader_epoch);
    let topic = read::ReadStateData::default().with_topic_id(topic).with_partitions(vec![partition]);
    ReadShareGroupStateRequest::default().with_group_id(text(GROUP)).with_topics(vec![topic])
}

fn summed(topic: Uuid, partition: i32) -> ReadShareGroupStateSummaryRequest {
    let partition = summary::PartitionData::default().with_partition(partition).with_leader_epoch(-1);
    let topic = summary::ReadStateSummaryData::default().with_topic_id(topic).with_partitions(vec![partition]);
    ReadShareGroupStateSummaryRequest::default().with_group_id(text(GROUP)).with_topics(vec![topic])
}

/// What a broker calls a topic.
type IdOf = fn(&Side) -> Uuid;

/// First and last offset, state, and deliveries.
type Batch = (i64, i64, i8, i16);

fn written(topic: Uuid, epochs: (i32, i32), start: i64, batches: &[Batch]) -> WriteShareGroupStateRequest {
    let batches = batches.iter().map(|(first, last, state, deliveries)| {
        write::StateBatch::default()
            .with_first_offset(*first)
            .with_last_offset(*last)
            .with_delivery_state(*state)
            .with_delivery_count(*deliveries)
    });
    let partition = write::PartitionData::default()
        .with_state_epoch(epochs.0)
        .with_leader_epoch(epochs.1)
        .with_start_offset(start)
        .with_state_batches(batches.collect());
    let topic = write::WriteStateData::default().with_topic_id(topic).with_partitions(vec![partition]);
    WriteShareGroupStateRequest::default().with_group_id(text(GROUP)).with_topics(vec![topic])
}

fn gone(topic: Uuid, partition: i32) -> DeleteShareGroupStateRequest {
    let partition = delete::PartitionData::default().with_partition(partition);
    let topic = delete::DeleteStateData::default().with_topic_id(topic).with_partitions(vec![partition]);
    DeleteShareGroupStateRequest::default().with_group_id(text(GROUP)).with_topics(vec![topic])
}

/// The summary in both versions.
fn look(pair: &mut Pair, when: &str, of: IdOf) -> Result<()> {
    pair.ask(&format!("share-state-summary-{when}"), &[0], |_, side| summed(of(side), 0))?;
    pair.ask_bytes(&format!("share-state-summary-1-{when}"), |side| newer(&summed(of(side), 0), 1, 0, &[]))
}

/// Nothing was initialised.
fn before(pair: &mut Pair) -> Result<()> {
    pair.ask("share-state-read-nothing", &[0], |_, side| kept(shared(side), 0, 0))?;
    pair.ask("share-state-write-nothing", &[0], |_, side| written(shared(side), (0, 0), 0, &[]))?;
    look(pair, "nothing", shared)?;
    pair.ask("share-state-delete-nothing", &[0], |_, side| gone(shared(side), 0))?;
    Ok(())
}

fn life(pair: &mut Pair) -> Result<()> {
    pair.ask("share-state-initialize", &[0], |_, side| initialized(shared(side), 0, 5, -1))?;
    look(pair, "new", shared)?;
    pair.ask("share-state-initialize-older", &[0], |_, side| initialized(shared(side), 0, 4, 0))?;
    pair.ask("share-state-initialize-again", &[0], |_, side| initialized(shared(side), 0, 5, 0))?;
    for epoch in [-1, 0, 2, 1] {
        pair.ask(&format!("share-state-read-{epoch}"), &[0], |_, side| kept(shared(side), 0, epoch))?;
    }
    for (name, epochs, start, batches) in [
        ("first", (5, 2), 0, &[(0, 4, 0, 1), (5, 9, 2, 2)][..]),
        ("older-leader", (5, 1), 0, &[(0, 9, 2, 1)]),
        ("older-state", (4, 2), 0, &[(0, 9, 2, 1)]),
        ("newer-state", (6, 2), 0, &[(0, 9, 2, 1)]),
        ("newer-leader", (5, 3), -1, &[(10, 12, 0, 1), (20, 21, 4, 3)]),
        ("middle", (5, 3), -1, &[(3, 6, 0, 2)]),
        ("moves", (5, 3), 5, &[]),
        ("nothing", (5, 3), -1, &[]),
    ] {
        pair.ask(&format!("share-state-write-{name}"), &[0], |_, side| written(shared(side), epochs, start, batches))?;
        pair.ask(&format!("share-state-read-{name}"), &[0], |_, side| kept(shared(side), 0, 3))?;
        look(pair, name, shared)?;
    }
    // The group, a count, an id, a count, three numbers of four bytes and one of eight.
    let at = 1 + GROUP.len() + 1 + 16 + 1 + 12 + 8;
    pair.ask_bytes("share-state-write-1", |side| {
        newer(&written(shared(side), (5, 3), 10, &[(10, 12, 2, 1)]), 1, at, &SETTLED.to_be_bytes())
    })?;
    look(pair, "settled", shared)?;
    pair.ask("share-state-delete", &[0], |_, side| gone(shared(side), 0))?;
    look(pair, "deleted", shared)?;
    pair.ask("share-state-read-deleted", &[0], |_, side| kept(shared(side), 0, 3))?;
    Ok(())
}

fn wrong(pair: &mut Pair) -> Result<()> {
    pair.ask("share-state-initialize-unknown", &[0], |_, _| initialized(NOBODYS_ID, 0, 0, 0))?;
    pair.ask("share-state-read-unknown", &[0], |_, _| kept(NOBODYS_ID, 0, 0))?;
    pair.ask("share-state-write-unknown", &[0], |_, _| written(NOBODYS_ID, (0, 0), 0, &[]))?;
    look(pair, "unknown", |_| NOBODYS_ID)?;
    pair.ask("share-state-delete-unknown", &[0], |_, _| gone(NOBODYS_ID, 0))?;
    for partition in [9, -1] {
        pair.ask(&format!("share-state-initialize-partition-{partition}"), &[0], |_, side| {
            initialized(shared(side), partition, 0, 0)
        })?;
        pair.ask(&format!("share-state-read-partition-{partition}"), &[0], |_, side| kept(shared(side), partition, 0))?;
        pair.ask(&format!("share-state-delete-partition-{partition}"), &[0], |_, side| gone(shared(side), partition))?;
    }
    pair.ask("share-state-initialize-none", &[0], |_, _| initialized(NOBODYS_ID, 0, 0, 0).with_topics(Vec::new()))?;
    pair.ask("share-state-read-none", &[0], |_, _| kept(NOBODYS_ID, 0, 0).with_topics(Vec::new()))?;
    pair.ask("share-state-write-none", &[0], |_, _| written(NOBODYS_ID, (0, 0), 0, &[]).with_topics(Vec::new()))?;
    pair.ask("share-state-summary-none", &[0], |_, _| summed(NOBODYS_ID, 0).with_topics(Vec::new()))?;
    pair.ask("share-state-delete-none", &[0], |_, _| gone(NOBODYS_ID, 0).with_topics(Vec::new()))?;
    pair.ask("share-state-read-no-group", &[0], |_, side| kept(shared(side), 0, 0).with_group_id(text("")))?;
    pair.ask("share-state-delete-no-group", &[0], |_, side| gone(shared(side), 0).with_group_id(text("")))?;
    Ok(())
}
