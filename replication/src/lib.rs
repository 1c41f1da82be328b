//! Replication of one partition, decided without IO: state and time in, effects out (KIP-101, 279, 497, 595, 841, 903, 966).
//!
//! ```text
//!                     the store (compare-and-set on the partition)
//!                        ▲ Propose            │ Answered, Shown
//!                        │                    ▼
//!  produce ─ Appended ► Leader ─ AdvanceHighWatermark ► who waits for acks=all, consumers
//!                        ▲
//!                        │ Fetched             records, high watermark, or where the logs parted
//!                     Follower ◄───────────────┘  append, truncate
//! ```
//! Owns: what a leader may call committed ([`Leader`]), what a follower does with an answer
//! ([`follower`]), how the two find where their logs parted ([`lineage`]), and how all partitions that one broker leads share a connection to it ([`fetcher`]).
//! Promises: a committed record is on every member of the ISR, also on those that are just being added; an ISR is acted on
//! only after the store has taken it. The tests check this exhaustively in small worlds and at random in larger ones, and
//! that they would notice: each rule is broken on purpose once (`world::Break`).
//! Leaves to others: logs, sockets, the store; who becomes leader is decided in [`varve_metadata::controller::in_sync`].

pub mod fetcher;
pub mod follower;
mod leader;
pub mod lineage;

#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod world;

pub use leader::{
    AckError, Effect, FollowerFetch, FollowerState, Incarnation, Input, Leader, Outcome, Proposal, Surroundings,
};
