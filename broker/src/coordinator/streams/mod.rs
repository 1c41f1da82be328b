//! Groups of the `streams` protocol (KIP-1071): the coordinator knows the application's topology, has its internal topics
//! made, and assigns its tasks.
//!
//! A *task* is one partition number of one subtopology. It is *active* with one member, which processes it; it may be
//! *standby* with others, which keep a copy of its state; *warm-up* tasks have their place in the records and on the wire,
//! and like Apache Kafka 4.3 this coordinator assigns none.
//!
//! The group keeps three epochs apart, as consumer groups do ([`super::consumer`]), and a member's way is the same:
//!
//! ```text
//!                ┌──── target is newer ────┐
//!                ▼                         │
//!   UnrevokedTasks ──gave them up──► UnreleasedTasks ──all were released──► Stable
//!   (has to give up what            (in the new epoch; its process           (has its target)
//!    it shall not keep)              or others still hold a part of it)
//! ```
//!
//! The group is Empty without members, NotReady while the topics that its topology needs are not all there and well
//! partitioned ([`configure`]), Assigning while the target is older than the group, Reconciling while a member is not there
//! yet, and else Stable.
//!
//! Memory is never ahead of the log (ADR 21): a request becomes records, and the records change the group by the step that
//! replays them at start ([`replay`]). What the log does not keep is what Kafka does not keep either: which internal topics
//! are configured, who asked for a shutdown, how often endpoints changed.

mod answer;
mod assignor;
mod configure;
mod describe;
mod endpoints;
mod fence;
mod group;
mod heartbeat;
mod member;
mod offsets;
mod plan;
mod reconcile;
mod replay;
mod request;
mod target;
mod tasks;
#[cfg(test)]
mod tests;
mod topology;

pub use answer::{StreamsAnswer, StreamsStatus};
pub use configure::InternalTopicPlan;
pub use describe::{DescribedStreams, DescribedStreamsGroup, DescribedSubtopology, DescribedTopic, DescribedTopology};
pub use endpoints::EndpointPartitions;
pub use group::StreamsGroupState;
pub use member::{Endpoint, StreamsMemberState};
pub use request::{OwnedKind, StreamsHeartbeat};
pub use tasks::{AssignedTasks, EpochTasks, TaskSet, Tasks};
pub use topology::{CopartitionGroup, InternalTopic, Subtopology, Topology};

pub(super) use group::StreamsGroup;
pub(super) use plan::Soft;
