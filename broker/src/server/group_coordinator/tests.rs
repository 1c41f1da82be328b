//! What happens in the cluster while groups are loaded.

use std::{collections::BTreeMap, time::Instant};

use uuid::Uuid;
use varve_metadata::model::Principal;

use super::*;
use crate::{
    coordinator::{Answer, ConsumerHeartbeat, MemberEpoch, Owned},
    server::{Limits, testing::TestNode},
};

fn joining() -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group_id: "readers".to_owned(),
        member_id: "a".to_owned(),
        epoch: MemberEpoch(0),
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

#[tokio::test]
async fn a_topic_that_comes_while_groups_are_loaded_is_known_when_they_are_served() {
    let node = TestNode::start_configured(Limits::default(), &["offsets.topic.num.partitions=1"]).await;
    node.create_topic(OFFSETS_TOPIC, 1, &[]).await;
    let seats = &node.broker.groups.seats;
    let partition = node.broker.partitions.find(OFFSETS_TOPIC, PartitionIndex(0)).unwrap();
    let loading = Seat::new(partition.clone(), seats.office().clone(), seats.terms().codec, Instant::now());
    let machine = seats.office().machine(&partition);
    let orders = node.create_topic("orders", 1, &[]).await;
    loading.serve(machine);
    let answer = loading.ask(|shard, now, id, effects| shard.consumer_heartbeat(now, id, joining(), effects)).await;
    let Answer::Heartbeat(Ok(answer)) = answer.unwrap() else { panic!("a member joins") };
    assert_eq!(answer.assignment, Some(BTreeMap::from([(orders, [PartitionIndex(0)].into())])));
}
