//! What a member is told.

use std::time::Duration;

use super::{configure::InternalTopicPlan, endpoints::EndpointPartitions, tasks::Tasks};
use crate::coordinator::MemberEpoch;

/// What is told about the group as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamsStatus {
    /// The member's topology is older than the group's.
    StaleTopology(String),
    /// Topics that others must make do not exist.
    MissingSourceTopics(String),
    /// Topics do not fit together.
    IncorrectlyPartitionedTopics(String),
    /// Topics of the application's own are being made.
    MissingInternalTopics(String),
    /// A member asked all others to end.
    ShutdownApplication(String),
    /// The member has no tasks yet because others may come.
    AssignmentDelayed(String),
}

impl StreamsStatus {
    /// Kafka's number for it, and its words.
    pub fn to_wire(&self) -> (i8, &str) {
        match self {
            StreamsStatus::StaleTopology(detail) => (0, detail),
            StreamsStatus::MissingSourceTopics(detail) => (1, detail),
            StreamsStatus::IncorrectlyPartitionedTopics(detail) => (2, detail),
            StreamsStatus::MissingInternalTopics(detail) => (3, detail),
            StreamsStatus::ShutdownApplication(detail) => (4, detail),
            StreamsStatus::AssignmentDelayed(detail) => (5, detail),
        }
    }
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsAnswer {
    /// The member.
    pub member_id: String,
    /// What its next request must carry.
    pub epoch: MemberEpoch,
    /// How soon it shall be heard of again; zero when it leaves.
    pub heartbeat_interval: Duration,
    /// What is to be known of the group.
    pub status: Vec<StreamsStatus>,
    /// What it works on from now on; absent if that did not change.
    pub tasks: Option<Tasks>,
    /// Rises when other partitions are behind an endpoint.
    pub endpoint_epoch: i32,
    /// What is behind each endpoint; absent if the member knows.
    pub endpoints: Option<Vec<EndpointPartitions>>,
    /// Internal topics that are to be made now.
    pub missing_topics: Vec<InternalTopicPlan>,
}
