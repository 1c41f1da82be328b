//! What is kept of share partitions (KIP-932): a state machine over one partition of `__share_group_state`.
//!
//! The leader of a partition that a share group reads keeps here what became of its records ([`StateBatch`]), and reads it
//! when it begins. One record says everything of a share partition (a *snapshot*); those behind it say what changed since.
//! After so many of these another snapshot follows, and what lies before the oldest that counts may be deleted
//! ([`Shard::redundant_before`]): the topic is not compacted, as a change is worth nothing without those before it.
//!
//! Memory is never ahead of the log. What concerns a share partition waits while something of it is on its way.

mod batches;
mod messages;
mod records;
mod shard;

#[cfg(test)]
mod tests;

pub use batches::{DeliveryState, StateBatch, combine};
pub use messages::{
    Answer, Effect, KeptState, ShareKey, ShareStateConfig, ShareStateError, StateChange, StateEpoch, StateRequest,
};
pub use records::{ShareRecord, Snapshot, Update};
pub use shard::Shard;

/// The internal topic that holds the state of share partitions.
pub const SHARE_STATE_TOPIC: &str = "__share_group_state";
