//! ConsumerGroupDescribe (KIP-848): consumer groups in full.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId,
        consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
    },
};
use varve_metadata::{image::ClusterImage, model::PartitionIndex};

use super::{
    consumer_group_heartbeat::is_served,
    group_support::{group_error, text},
};
use crate::{
    coordinator::{DescribedConsumer, DescribedConsumerGroup, GroupError, HeartbeatError, assignor::PartitionSet},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
    },
};

/// First version that tells members of the classic protocol apart.
const MEMBER_TYPES_SINCE: i16 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
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
                let mut answer = described(answer, group, &broker.metadata.image(), context.api_version);
                if request.include_authorized_operations {
                    answer.authorized_operations = access.authorized_operations(resource);
                }
                without_hidden_topics(answer, &access)
            }
            Err(error) => {
                let message = match &error {
                    HeartbeatError::Group(_) => None,
                    error => Some(text(error.to_string())),
                };
                answer.with_error_code(group_error(error.kind()).code()).with_error_message(message)
            }
        }
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

/// A group that has a topic which the caller may not see is not described at all, as in Kafka.
fn without_hidden_topics(group: DescribedGroup, access: &Access<'_>) -> DescribedGroup {
    let is_hidden = |topic: &TopicPartitions| !access.shows(Operation::Describe, Resource::Topic(&topic.topic_name));
    let has_hidden = access.is_checked()
        && group.members.iter().any(|member| {
            let assigned = member.assignment.topic_partitions.iter();
            assigned.chain(&member.target_assignment.topic_partitions).any(is_hidden)
        });
    if !has_hidden {
        return group;
    }
    let message = "The group has described topic(s) that the client is not authorized to describe.";
    DescribedGroup::default()
        .with_group_id(group.group_id)
        .with_error_code(ResponseError::TopicAuthorizationFailed.code())
        .with_error_message(Some(text(message)))
}

fn describe(broker: &Broker, group_id: &GroupId) -> Result<DescribedConsumerGroup, HeartbeatError> {
    if group_id.is_empty() {
        return Err(GroupError::InvalidGroupId.into());
    }
    let seat = broker.groups.seat(broker, group_id)?;
    seat.read(|shard| shard.describe_consumer(group_id)).map_err(GroupError::from)?
}

fn described(
    answer: DescribedGroup,
    group: DescribedConsumerGroup,
    image: &ClusterImage,
    version: i16,
) -> DescribedGroup {
    answer
        .with_group_state(text(group.state.name()))
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.assignment_epoch)
        .with_assignor_name(text(group.assignor))
        .with_members(group.members.into_iter().map(|member| described_member(member, image, version)).collect())
}

fn described_member(member: DescribedConsumer, image: &ClusterImage, version: i16) -> Member {
    let answer = Member::default()
        .with_assignment(assignment(&member.assignment, image))
        .with_target_assignment(assignment(&member.target, image))
        .with_member_id(text(member.member_id))
        .with_instance_id(member.instance_id.map(text))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch.0)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.topics.into_iter().map(|topic| text(topic).into()).collect())
        .with_subscribed_topic_regex(member.regex.map(text));
    if version < MEMBER_TYPES_SINCE { answer } else { answer.with_member_type(i8::from(!member.is_classic)) }
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
