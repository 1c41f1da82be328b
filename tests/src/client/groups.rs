//! Classic consumer groups: coordinators, offsets, membership.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, FindCoordinatorRequest, GroupId, HeartbeatRequest,
        JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
        consumer_protocol_assignment::TopicPartition,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::{Decodable, Encodable},
};

use super::{Client, Refusal, text};

/// Version of the subscriptions and assignments that members exchange.
const CONSUMER_PROTOCOL: i16 = 1;
/// The one strategy that is offered.
const STRATEGY: &str = "script";

/// Who speaks for which group: nobody in particular ([`Membership::outsider`]), or a member.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The member's id; empty before it has one.
    pub member: String,
    /// The generation that it knows; -1 outside.
    pub generation: i32,
}

/// A member's place in a new generation.
#[derive(Debug)]
pub struct Joined {
    /// Its id and the generation.
    pub membership: Membership,
    /// Ids of all members, if this one is to assign partitions to them.
    pub to_assign: Option<Vec<String>>,
}

impl Membership {
    /// An administrator, for groups without members; also who is about to join.
    pub fn outsider(group: &str) -> Membership {
        Membership { group: group.to_owned(), member: String::new(), generation: -1 }
    }
}

impl Client {
    /// Asks who coordinates a group, which makes a broker without coordinators prepare some.
    ///
    /// # Errors
    /// The broker's error code: there is none yet.
    pub fn find_coordinator(&mut self, group: &str) -> Result<SocketAddr> {
        let found = self.ask(3, &FindCoordinatorRequest::default().with_key(text(group)))?;
        Refusal::check("FindCoordinator", found.error_code, found.error_message)?;
        let address = format!("{}:{}", found.host.as_str(), found.port);
        address.parse().with_context(|| format!("the coordinator's address {address}"))
    }

    /// Sets the committed offset of a group without members.
    ///
    /// # Errors
    /// The broker's error code.
    pub fn commit(&mut self, group: &str, topic: &str, partition: i32, offset: i64) -> Result<()> {
        self.commit_as(&Membership::outsider(group), topic, partition, offset)
    }

    /// Commits an offset as a member.
    ///
    /// # Errors
    /// The broker's error code: the group may have gone on without it.
    pub fn commit_as(&mut self, who: &Membership, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("")));
        let topic =
            OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&who.group)))
            .with_generation_id_or_member_epoch(who.generation)
            .with_member_id(text(&who.member))
            .with_topics(vec![topic]);
        let response = self.ask(8, &request)?;
        let found = response.topics.first().and_then(|topic| topic.partitions.first()).context("one partition")?;
        Refusal::check("OffsetCommit", found.error_code, None)
    }

    /// The committed offset of a group, if it has one.
    ///
    /// # Errors
    /// The broker's error code: the coordinator may be loading still.
    pub fn committed(&mut self, group: &str, topic: &str, partition: i32) -> Result<Option<i64>> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(vec![topic]))
            .with_require_stable(true);
        let response = self.ask(7, &request)?;
        Refusal::check("OffsetFetch", response.error_code, None)?;
        let found = response.topics.first().and_then(|topic| topic.partitions.first()).context("one partition")?;
        Refusal::check("OffsetFetch", found.error_code, None)?;
        Ok(Some(found.committed_offset).filter(|offset| *offset >= 0))
    }

    /// Joins a group, with the id of `who` if it has one; waits for the others.
    ///
    /// # Errors
    /// The broker's error code.
    pub fn join(&mut self, who: &Membership, topic: &str, session: Duration) -> Result<Joined> {
        let mut subscription = BytesMut::new();
        subscription.put_i16(CONSUMER_PROTOCOL);
        ConsumerProtocolSubscription::default()
            .with_topics(vec![text(topic)])
            .encode(&mut subscription, CONSUMER_PROTOCOL)?;
        let session = i32::try_from(session.as_millis())?;
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&who.group)))
            .with_member_id(text(&who.member))
            .with_session_timeout_ms(session)
            .with_rebalance_timeout_ms(session)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default().with_name(text(STRATEGY)).with_metadata(subscription.freeze()),
            ]);
        // Version 3 gives a new member its id in the same answer.
        let joined = self.ask(3, &request)?;
        Refusal::check("JoinGroup", joined.error_code, None)?;
        let leads = joined.leader == joined.member_id;
        let members = joined.members.iter().map(|member| member.member_id.to_string());
        let to_assign = leads.then(|| members.collect());
        let member = joined.member_id.to_string();
        let membership = Membership { group: who.group.clone(), member, generation: joined.generation_id };
        Ok(Joined { membership, to_assign })
    }

    /// Waits for the assignment, which it brings if it leads: partitions of `topic` by member id.
    ///
    /// # Errors
    /// The broker's error code.
    pub fn sync(&mut self, who: &Membership, topic: &str, plan: &BTreeMap<String, Vec<i32>>) -> Result<Vec<i32>> {
        let mut assignments = Vec::new();
        for (member, partitions) in plan {
            let mut assignment = BytesMut::new();
            assignment.put_i16(CONSUMER_PROTOCOL);
            let topic =
                TopicPartition::default().with_topic(TopicName(text(topic))).with_partitions(partitions.clone());
            ConsumerProtocolAssignment::default()
                .with_assigned_partitions(vec![topic])
                .encode(&mut assignment, CONSUMER_PROTOCOL)?;
            assignments.push(
                SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment.freeze()),
            );
        }
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&who.group)))
            .with_generation_id(who.generation)
            .with_member_id(text(&who.member))
            .with_assignments(assignments);
        let synced = self.ask(3, &request)?;
        Refusal::check("SyncGroup", synced.error_code, None)?;
        partitions(synced.assignment)
    }

    /// Says that the member lives.
    ///
    /// # Errors
    /// The broker's error code: the group rebalances, or has gone on without it.
    pub fn heartbeat(&mut self, who: &Membership) -> Result<()> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&who.group)))
            .with_generation_id(who.generation)
            .with_member_id(text(&who.member));
        Refusal::check("Heartbeat", self.ask(3, &request)?.error_code, None)
    }

    /// Leaves the group.
    ///
    /// # Errors
    /// The broker's error code.
    pub fn leave(&mut self, who: &Membership) -> Result<()> {
        let member = MemberIdentity::default().with_member_id(text(&who.member));
        let request = LeaveGroupRequest::default().with_group_id(GroupId(text(&who.group))).with_members(vec![member]);
        Refusal::check("LeaveGroup", self.ask(4, &request)?.error_code, None)
    }
}

/// Partitions in an assignment of one topic; none in an empty one.
fn partitions(mut assignment: Bytes) -> Result<Vec<i32>> {
    if assignment.is_empty() {
        return Ok(Vec::new());
    }
    let version = assignment.try_get_i16()?;
    let assigned = ConsumerProtocolAssignment::decode(&mut assignment, version)?.assigned_partitions;
    Ok(assigned.into_iter().flat_map(|topic| topic.partitions).collect())
}
