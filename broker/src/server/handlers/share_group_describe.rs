//! ShareGroupDescribe (KIP-932): share groups in full.

use kafka_protocol::messages::{
    ShareGroupDescribeRequest, ShareGroupDescribeResponse,
    share_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions},
};
use varve_metadata::image::ClusterImage;

use super::{
    group_support::text,
    modern_groups::{HIDDEN_TOPICS, Refused, check_shown, describe, named},
    share_support::is_served,
};
use crate::{
    coordinator::{DescribedShareGroup, DescribedShareMember, assignor::PartitionSet},
    server::{Broker, RequestContext, authorizer::Resource},
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
        let group = describe(broker, &access, is_enabled, &group_id, |shard| shard.describe_share(&group_id));
        let told = group.and_then(|group| {
            let mut answer = described(answer.clone(), group, &broker.metadata.image());
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
    ShareGroupDescribeResponse::default().with_groups(groups.collect())
}

fn topics_of(group: &DescribedGroup) -> impl Iterator<Item = &str> {
    let topics = group.members.iter().flat_map(|member| &member.assignment.topic_partitions);
    topics.map(|topic| topic.topic_name.as_str())
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
        .with_assignment(assignment(member.assignment, image))
        .with_member_id(text(member.member_id))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch.0)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.topics.into_iter().map(|topic| text(topic).into()).collect())
}

fn assignment(partitions: PartitionSet, image: &ClusterImage) -> Assignment {
    let topics = named(partitions, image).map(|(id, name, partitions)| {
        TopicPartitions::default().with_topic_id(id).with_topic_name(name.into()).with_partitions(partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
