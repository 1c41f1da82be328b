//! Groups of the `consumer` protocol (KIP-848): the coordinator assigns, and every member moves to its part by itself.
//!
//! A group has three epochs. The *group epoch* rises when members, subscriptions or topics change. The *target
//! assignment* is made for one group epoch, by an [assignor](super::assignor). Each member has the epoch to which it has
//! come; what it may do next is [`reconcile`]d at each of its heartbeats:
//!
//! ```text
//!                      ┌──── target is newer ───┐
//!                      ▼                        │
//!   UnrevokedPartitions ──gave them up──► UnreleasedPartitions ──all were released──► Stable
//!   (has to give up what                  (in the new epoch; others                   (has its target)
//!    it shall not keep)                    still hold a part of its target)
//! ```
//!
//! The group is Empty without members, Assigning while the target is older than the group, Reconciling while a member is
//! not there yet, and else Stable.
//!
//! Memory is never ahead of the log here: a request becomes records, the records are appended, and only once they are
//! acknowledged they change the group, by the same step that replays them at start ([`replay`]). Until then, whatever else would change
//! this group waits ([`super::locks`]): an append that fails leaves nothing behind.
//!
//! Members of the classic protocol may be in such a group ([`classic_members`]), which is how a running group changes
//! its protocol, either way ([`migration`]).

mod classic_members;
mod describe;
mod fence;
mod group;
mod heartbeat;
mod member;
mod migration;
mod offsets;
mod plan;
mod reconcile;
mod regex;
mod replay;
mod subscriptions;
mod target;
#[cfg(test)]
mod tests;

pub use describe::{DescribedConsumer, DescribedConsumerGroup};
pub use group::ConsumerGroupState;
pub use heartbeat::{ConsumerHeartbeat, Owned};
pub use member::{MemberState, OwnedPartitions};
pub use regex::{Asker, RegexJob, compile, find_topics};

pub(super) use group::ConsumerGroup;
pub(super) use plan::Soft;
