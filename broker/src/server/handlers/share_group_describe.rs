//! ShareGroupDescribe (KIP-932): share groups in full.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse,
        share_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
    },
};
use varve_metadata::{image::ClusterImage, model::PartitionIndex};

use super::{
    group_support::text,
    share_support::{is_served, share_group_error},
};
use crate::{
    coordinator::{DescribedShareGroup, DescribedShareMember, GroupError, ShareGroupError, assignor::PartitionSet},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
    },
};

/// The assignor of all share groups.
const ASSIGNOR: &str = "simple";

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let access = broker.access(context);
    let is_enabled = is_served(broker);
    let groups = request.group_ids.into_iter().map(|group_id| {
        let answer = DescribedGroup::default().with_group_id(group_id.clone());
        if !is_enabled {
            return answer.with_error_code(ResponseError::UnsupportedVersion.code());
        }
        let resource = Resource::Group(&group_id);
        if let Err(refused) = access.require(Operation::Describe, resource) {
            return answer.with_error_code(refused.code());
        }
        match describe(broker, &group_id) {
            Ok(group) => {
                let mut answer = described(answer, group, &broker.metadata.image());
                if request.include_authorized_operations {
                    answer.authorized_operations = access.authorized_operations(resource);
                }
                without_hidden_topics(answer, &access)
            }
            Err(error) => {
                let (error, message) = share_group_error(&error);
                answer.with_error_code(error.code()).with_error_message(message)
            }
        }
    });
    ShareGroupDescribeResponse::default().with_groups(groups.collect())
}

/// A group that has a topic which the caller may not see is not described at all, as in Kafka.
fn without_hidden_topics(group: DescribedGroup, access: &Access<'_>) -> DescribedGroup {
    let is_hidden = |topic: &TopicPartitions| !access.shows(Operation::Describe, Resource::Topic(&topic.topic_name));
    let mut members = group.members.iter();
    if !access.is_checked() || !members.any(|member| member.assignment.topic_partitions.iter().any(is_hidden)) {
        return group;
    }
    let message = "The group has described topic(s) that the client is not authorized to describe.";
    DescribedGroup::default()
        .with_group_id(group.group_id)
        .with_error_code(ResponseError::TopicAuthorizationFailed.code())
        .with_error_message(Some(text(message)))
}

fn describe(broker: &Broker, group_id: &GroupId) -> Result<DescribedShareGroup, ShareGroupError> {
    if group_id.is_empty() {
        return Err(GroupError::InvalidGroupId.into());
    }
    let seat = broker.groups.seat(broker, group_id)?;
    seat.read(|shard| shard.describe_share(group_id)).map_err(GroupError::from)?
}

fn described(answer: DescribedGroup, group: DescribedShareGroup, image: &ClusterImage) -> DescribedGroup {
    answer
        .with_group_state(text(group.state))
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.assignment_epoch)
        .with_assignor_name(text(ASSIGNOR))
        .with_members(group.members.into_iter().map(|member| described_member(member, image)).collect())
}

fn described_member(member: DescribedShareMember, image: &ClusterImage) -> Member {
    Member::default()
        .with_assignment(assignment(&member.assignment, image))
        .with_member_id(text(member.member_id))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch.0)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.topics.into_iter().map(|topic| text(topic).into()).collect())
}

/// Topics that are gone cannot be named, and are left out.
fn assignment(partitions: &PartitionSet, image: &ClusterImage) -> Assignment {
    let topics = partitions.iter().filter_map(|(id, partitions)| {
        let topic = image.topic_by_id(*id)?;
        let answer = TopicPartitions::default()
            .with_topic_id(id.to_wire())
            .with_topic_name(text(topic.name.as_str()).into())
            .with_partitions(partitions.iter().copied().map(PartitionIndex::to_wire).collect());
        Some(answer)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
