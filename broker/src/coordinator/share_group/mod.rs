//! Share groups (KIP-932) at their coordinator: who the members are, which partitions each of them reads, and of which
//! partitions the state of deliveries is kept.
//!
//! A partition may be several members'. It is given to members only once its keeper has begun
//! ([`share_state`](super::share_state)): until then it is in [`KeptPartitions::begun`](super::records::KeptPartitions), and
//! whoever performs the order reports back. Members move to their target in one step, as nobody has to give up anything first.
//!
//! As with consumer groups memory is never ahead of the log, and what would change a group waits while something of it is on
//! its way ([`super::locks`]).

mod describe;
mod group;
mod heartbeat;
mod partitions;
mod plan;
mod replay;
#[cfg(test)]
mod tests;

pub use describe::{DescribedShareGroup, DescribedShareMember};
pub use heartbeat::ShareHeartbeat;
pub use partitions::{BeginShares, SharePlace, SharesToEnd};

pub(super) use group::ShareGroup;
pub(super) use plan::Soft;
