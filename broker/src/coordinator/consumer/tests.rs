//! Consumer groups on a log at hand: what members hear, what is kept, who is fenced.

mod membership;
mod migration;
mod offsets;
mod patterns;
mod reconciliation;
mod records;
mod simulation;

use std::collections::BTreeSet;

use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, Principal, TopicId};

use super::*;
use crate::coordinator::{
    GroupConfig, GroupType, HeartbeatAnswer, MemberEpoch, ModernGroupError, assignor::PartitionSet, testing::*,
};

const GROUP: &str = "g";
const ORDERS: u128 = 0xa;

fn topic_id(number: u128) -> TopicId {
    TopicId::from_wire(Uuid::from_u128(number)).unwrap()
}

/// Partitions of `orders`.
fn orders(partitions: &[u32]) -> PartitionSet {
    let partitions: BTreeSet<PartitionIndex> = partitions.iter().copied().map(PartitionIndex).collect();
    if partitions.is_empty() { PartitionSet::new() } else { [(topic_id(ORDERS), partitions)].into() }
}

/// A coordinator of a cluster with the topic `orders` of so many partitions, which assigns as often as it is asked to.
fn cluster_of(partitions: u32) -> Harness {
    harness(GroupConfig::default(), partitions)
}

fn harness(config: GroupConfig, partitions: u32) -> Harness {
    let mut cluster = TestCluster::default();
    cluster.put("orders", topic_id(ORDERS), partitions);
    cluster.times.assignment_interval = std::time::Duration::ZERO;
    Harness::on(config, cluster)
}

/// The first request of a member that subscribes to `orders`.
fn first(member: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group_id: GROUP.to_owned(),
        member_id: member.to_owned(),
        epoch: MemberEpoch::JOINING,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: Some(60_000),
        topics: Some(["orders".to_owned()].into()),
        regex: None,
        assignor: None,
        owned: Some(Owned::default()),
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        asker: Asker { principal: Principal::anonymous(), peer: ([127, 0, 0, 1], 9).into() },
        requires_member_id: true,
        fresh_id: Uuid::nil(),
    }
}

/// A later request that says nothing new.
fn next(member: &str, epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        epoch: MemberEpoch(epoch),
        rebalance_timeout_ms: None,
        topics: None,
        owned: None,
        ..first(member)
    }
}

fn owning(member: &str, epoch: i32, partitions: &[u32]) -> ConsumerHeartbeat {
    let owned = Owned { partitions: orders(partitions), has_impossible: false };
    ConsumerHeartbeat { owned: Some(owned), ..next(member, epoch) }
}

fn leaving(member: &str) -> ConsumerHeartbeat {
    next(member, MemberEpoch::LEAVING.0)
}

impl Harness {
    fn beat(&mut self, request: ConsumerHeartbeat) -> Result<HeartbeatAnswer, ModernGroupError> {
        let request = self.heartbeat_consumer(request);
        self.heard(request)
    }

    /// The member's epoch, and its assignment if it is told one.
    fn told(&mut self, request: ConsumerHeartbeat) -> (i32, Option<PartitionSet>) {
        let answer = self.beat(request).unwrap();
        (answer.epoch.0, answer.assignment)
    }

    fn described(&self) -> DescribedConsumerGroup {
        self.shard.describe_consumer(GROUP).unwrap()
    }

    fn group_state(&self) -> ConsumerGroupState {
        self.described().state
    }

    /// Brings members to their targets: each gives up what it must and takes what it gets.
    fn settle_members(&mut self, members: &[&str]) {
        for _ in 0..members.len() + 2 {
            for member in members {
                let described = self.described();
                let Some(found) = described.members.iter().find(|described| described.member_id == *member) else {
                    continue;
                };
                // What it was last told: it gave up the rest.
                let assigned = self.shard.consumers[GROUP].members[*member].assigned.clone();
                let owned = Owned { partitions: super::heartbeat::without_epochs(&assigned), has_impossible: false };
                let request = ConsumerHeartbeat { owned: Some(owned), ..next(member, found.epoch.0) };
                self.beat(request).unwrap();
            }
        }
        assert_eq!(self.group_state(), ConsumerGroupState::Stable);
    }
}
