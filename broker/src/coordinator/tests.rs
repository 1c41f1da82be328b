//! Behaviour of the coordinator, one rule each.

mod membership;
mod offsets;
mod static_members;
