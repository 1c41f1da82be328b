//! Pure vocabulary: ids, offsets, epochs, time. No IO, no clock.

pub mod acl;
mod ids;
mod offset;
mod principal;
mod producer;
mod time;

pub use ids::{BrokerId, PartitionId, PartitionIndex, TopicId, TopicName, TopicNameError};
pub use offset::{HighWatermark, LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset};
pub use principal::Principal;
pub use producer::{ProducerEpoch, ProducerId, Sequence, VerificationGuard};
pub use time::Timestamp;
