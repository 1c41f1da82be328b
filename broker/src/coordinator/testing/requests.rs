//! Requests of members as tests send them.

use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, Timestamp, TopicId};

use super::SECOND;
use crate::coordinator::{
    CommitPartition, CommitRequest, CommitTopic, CommittedOffset, Generation, JoinRequest, MemberIdentity, Protocol,
};

pub(in crate::coordinator) fn join_request(group: &str) -> JoinRequest {
    JoinRequest {
        group_id: group.to_owned(),
        member_id: None,
        instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SECOND * 10,
        rebalance_timeout: SECOND * 60,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", &["orders"])],
        reason: None,
        requires_known_member_id: true,
        supports_skip_assignment: true,
        fresh_id: Uuid::from_u128(0),
    }
}

pub(in crate::coordinator) fn static_join(group: &str, instance: &str, fresh: u128) -> JoinRequest {
    JoinRequest { instance_id: Some(instance.to_owned()), fresh_id: Uuid::from_u128(fresh), ..join_request(group) }
}

/// A protocol with a consumer subscription.
pub(in crate::coordinator) fn protocol(name: &str, topics: &[&str]) -> Protocol {
    let mut metadata = vec![0, 0];
    metadata.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend((topic.len() as i16).to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend([0xff; 4]); // no user data
    Protocol { name: name.to_owned(), metadata: metadata.into() }
}

pub(in crate::coordinator) fn identity(member: &str) -> MemberIdentity {
    MemberIdentity { member_id: member.to_owned(), instance_id: None }
}

pub(in crate::coordinator) fn instance(instance: &str) -> MemberIdentity {
    MemberIdentity { member_id: String::new(), instance_id: Some(instance.to_owned()) }
}

/// A commit of `offset` for partition 0 of `topic`, by nobody in particular.
pub(in crate::coordinator) fn simple_commit(group: &str, topic: &str, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: group.to_owned(),
        member: identity(""),
        generation: None,
        retention: None,
        knows_group_id_not_found: true,
        topics: vec![CommitTopic {
            name: topic.to_owned(),
            id: TopicId::from_wire(Uuid::from_u128(7)),
            partitions: vec![CommitPartition {
                partition: PartitionIndex(0),
                offset,
                leader_epoch: None,
                metadata: String::new(),
            }],
        }],
    }
}

pub(in crate::coordinator) fn member_commit(group: &str, member: &str, generation: u32, offset: i64) -> CommitRequest {
    CommitRequest {
        member: identity(member),
        generation: Some(Generation(generation)),
        ..simple_commit(group, "orders", offset)
    }
}

/// `offset`, committed by nobody in particular.
pub(in crate::coordinator) fn committed_offset(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset,
        leader_epoch: None,
        metadata: String::new(),
        committed_at: Timestamp::default(),
        expires_at: None,
        topic_id: None,
    }
}
