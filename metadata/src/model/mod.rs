//! Pure vocabulary: ids, offsets, epochs, time. No IO, no clock.

pub mod acl;
mod delegation_token;
mod feature;
mod ids;
mod known_topics;
mod offset;
mod principal;
mod producer;
mod quota;
mod scram;
mod time;

pub use delegation_token::DelegationToken;
pub(crate) use delegation_token::DelegationTokenRecord;
pub use feature::{Feature, FeatureLevels, Unserved};
pub use ids::{BrokerId, PartitionId, PartitionIndex, TopicId, TopicName, TopicNameError};
pub use known_topics::KnownTopics;
pub use offset::{HighWatermark, LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset};
pub use principal::Principal;
pub use producer::{ProducerEpoch, ProducerId, Sequence, VerificationGuard};
pub use quota::{QuotaEntity, QuotaKey, QuotaName};
pub use scram::{ScramCredential, ScramMechanism};
pub use time::Timestamp;
