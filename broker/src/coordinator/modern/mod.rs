//! What consumer groups (KIP-848), share groups (KIP-932) and streams groups (KIP-1071) have in common; Kafka calls them
//! modern groups.
//!
//! In all of them it is the coordinator that assigns, members show by their epoch how far they have come, and memory is never
//! ahead of the log: a request becomes a [`Plan`], its records are appended, and only once they are acknowledged they change
//! the group, by the step that replays them at start. Until then whatever else would change the group waits
//! ([`super::locks`]).
//!
//! Owns: the words in which members are refused, their epochs, what becomes of a plan, the timers of members. Leaves to each
//! type of group, in the module beside this one, who its members are and what they are assigned.

mod error;
mod fence;
mod groups;
mod member;
mod offsets;
mod plan;

pub use error::ModernGroupError;
pub use member::{HeartbeatAnswer, MemberEpoch};

pub(super) use fence::{Watched, revocation_key};
pub(super) use groups::{group_of_record, is_due_for_assignment};
pub(super) use member::{check_epoch, known_member, rebalance_timeout};
pub(super) use offsets::{Allowed, Committer, Standing};
pub(super) use plan::{Outcome, Plan, TimerChange};
