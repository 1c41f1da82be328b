//! Streams groups on a log at hand: what members hear, what is kept, who is fenced.

mod assignor;
mod configure;
mod membership;
mod offsets;
mod reconciliation;
mod records;
mod simulation;
mod topics;

use std::{collections::BTreeSet, time::Duration};

use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, TopicId};

use super::*;
use crate::coordinator::{Answer, GroupConfig, GroupError, MemberEpoch, ModernGroupError, StreamsSettings, testing::*};

const GROUP: &str = "g";

fn topic_id(number: u128) -> TopicId {
    // The smallest numbers are no ids.
    TopicId::from_wire(Uuid::from_u128(0x100 + number)).unwrap()
}

fn internal(name: &str) -> InternalTopic {
    InternalTopic { name: name.to_owned(), ..InternalTopic::default() }
}

fn fixed(name: &str, partitions: i32) -> InternalTopic {
    InternalTopic { partitions, ..internal(name) }
}

/// A subtopology that reads topics and keeps no state.
fn reads(id: &str, topics: &[&str]) -> Subtopology {
    Subtopology {
        id: id.to_owned(),
        source_topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        ..Subtopology::default()
    }
}

fn topology(subtopologies: &[Subtopology]) -> Topology {
    Topology { epoch: 0, subtopologies: subtopologies.to_vec() }
}

/// Reads `orders` and keeps what it counts.
fn counting() -> Topology {
    topology(&[Subtopology { changelogs: vec![internal("counts")], ..reads("0", &["orders"]) }])
}

fn numbers(tasks: &[u32]) -> BTreeSet<PartitionIndex> {
    tasks.iter().copied().map(PartitionIndex).collect()
}

/// Tasks of subtopology `0`.
fn tasks(tasks: &[u32]) -> TaskSet {
    if tasks.is_empty() { TaskSet::new() } else { [("0".to_owned(), numbers(tasks))].into() }
}

fn active(numbers: &[u32]) -> Tasks {
    Tasks { active: tasks(numbers), ..Tasks::default() }
}

/// Assigns at once, as often as it is asked to.
fn at_once() -> StreamsSettings {
    StreamsSettings {
        initial_rebalance_delay: Duration::ZERO,
        assignment_interval: Duration::ZERO,
        ..StreamsSettings::default()
    }
}

/// A coordinator of a cluster with the topic `orders` of so many partitions, and the changelog that [`counting`] needs.
fn cluster_of(partitions: u32) -> Harness {
    harness(partitions, at_once())
}

fn harness(partitions: u32, settings: StreamsSettings) -> Harness {
    let mut cluster = TestCluster::default();
    cluster.put("orders", topic_id(1), partitions);
    cluster.put("counts", topic_id(2), partitions);
    cluster.streams = settings;
    Harness::on(GroupConfig::default(), cluster)
}

/// The first request of a member that runs [`counting`], in a process of its own.
fn first(member: &str) -> StreamsHeartbeat {
    StreamsHeartbeat {
        rebalance_timeout_ms: Some(60_000),
        topology: Some(counting()),
        active: Some(OwnedKind::default()),
        standby: Some(OwnedKind::default()),
        warmup: Some(OwnedKind::default()),
        process_id: Some(format!("process-of-{member}")),
        ..next(member, 0)
    }
}

/// A later request that says nothing new.
fn next(member: &str, epoch: i32) -> StreamsHeartbeat {
    StreamsHeartbeat {
        group_id: GROUP.to_owned(),
        member_id: member.to_owned(),
        epoch: MemberEpoch(epoch),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        ..StreamsHeartbeat::default()
    }
}

fn owning(member: &str, epoch: i32, tasks: Tasks) -> StreamsHeartbeat {
    let kind = |tasks| Some(OwnedKind { tasks, impossible: None });
    StreamsHeartbeat {
        active: kind(tasks.active),
        standby: kind(tasks.standby),
        warmup: kind(tasks.warmup),
        ..next(member, epoch)
    }
}

impl Harness {
    fn ask_streams(&mut self, request: StreamsHeartbeat) -> crate::coordinator::RequestId {
        let id = self.request();
        self.with_effects(|shard, now, effects| shard.streams_heartbeat(now, id, request, effects));
        id
    }

    fn beat_streams(&mut self, request: StreamsHeartbeat) -> Result<StreamsAnswer, ModernGroupError> {
        let id = self.ask_streams(request);
        match self.answers.remove(&id) {
            Some(Answer::StreamsHeartbeat(outcome)) => outcome,
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    /// The member's epoch, and its tasks if it is told any.
    fn told_tasks(&mut self, request: StreamsHeartbeat) -> (i32, Option<Tasks>) {
        let answer = self.beat_streams(request).unwrap();
        (answer.epoch.0, answer.tasks)
    }

    fn refused(&mut self, request: StreamsHeartbeat) -> (GroupError, String) {
        let error = self.beat_streams(request).unwrap_err();
        (error.kind(), error.to_string())
    }

    fn streams_group(&self) -> DescribedStreamsGroup {
        self.shard.describe_streams(GROUP).unwrap()
    }

    fn streams_state(&self) -> StreamsGroupState {
        self.streams_group().state
    }

    /// Brings members to their targets: each gives up what it must and takes what it gets.
    fn settle_streams_members(&mut self, members: &[&str]) {
        for _ in 0..2 * members.len() + 4 {
            for member in members {
                let described = self.streams_group();
                let Some(found) = described.members.iter().find(|described| described.member_id == *member) else {
                    continue;
                };
                // What it was last told: it gave up the rest.
                self.beat_streams(owning(member, found.epoch.0, found.assignment.clone())).unwrap();
            }
        }
        assert_eq!(self.streams_state(), StreamsGroupState::Stable);
    }
}
