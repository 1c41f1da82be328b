//! ConsumerGroupDescribe (KIP-848): consumer groups in full.

use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
};
use varve_metadata::image::ClusterImage;

use super::{
    consumer_group_heartbeat::is_served,
    group_support::text,
    modern_groups::{HIDDEN_TOPICS, Refused, check_shown, describe, named},
};
use crate::{
    coordinator::{DescribedConsumer, DescribedConsumerGroup, assignor::PartitionSet},
    server::{Broker, RequestContext, authorizer::Resource},
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
        let group = describe(broker, &access, is_enabled, &group_id, |shard| shard.describe_consumer(&group_id));
        let told = group.and_then(|group| {
            let mut answer = described(answer.clone(), group, &broker.metadata.image(), context.api_version);
            if request.include_authorized_operations {
                answer.authorized_operations = access.authorized_operations(Resource::Group(&group_id));
            }
            check_shown(&access, topics_of(&answer), HIDDEN_TOPICS)?;
            Ok(answer)
        });
        told.unwrap_or_else(|Refused { error, message }| {
            answer.with_error_code(error.code()).with_error_message(message)
        })
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn topics_of(group: &DescribedGroup) -> impl Iterator<Item = &str> {
    let assignments = group.members.iter().flat_map(|member| [&member.assignment, &member.target_assignment]);
    let topics = assignments.flat_map(|assignment| &assignment.topic_partitions);
    topics.map(|topic| topic.topic_name.as_str())
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
        .with_assignment(assignment(member.assignment, image))
        .with_target_assignment(assignment(member.target, image))
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

fn assignment(partitions: PartitionSet, image: &ClusterImage) -> Assignment {
    let topics = named(partitions, image).map(|(id, name, partitions)| {
        TopicPartitions::default().with_topic_id(id).with_topic_name(name.into()).with_partitions(partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
