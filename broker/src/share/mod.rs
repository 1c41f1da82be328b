//! Share groups (KIP-932): members share partitions record by record. Each record is one member's for a while, who accepts,
//! releases or rejects it; what is not settled in time is given to another.
//!
//! Owns: what of a partition is out with whom, and what a delivery comes to ([`SharePartition`]); what members read between
//! one request and the next ([`ShareSessions`]). Pure.
//! Leaves to others: reading the log, keeping the state of deliveries ([`coordinator::share_state`](crate::coordinator::share_state)),
//! who the members are.

mod partition;
mod session;

pub use partition::{
    AcknowledgeError, Acknowledgement, Acquired, Effect, Fetched, NextFetch, PersistedState, Settle, SharePartition,
    ShareTerms, StateError, StateWrite, Want, WriteId,
};
pub use session::{ConnectionId, SessionChange, SessionEpoch, SessionError, SessionKey, ShareSessions};
