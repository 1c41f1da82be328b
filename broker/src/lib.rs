//! Kafka's protocol and promises, served from the local log and the archive.
//!
//! Owns: the wire (`wire`), the partitions a node leads ([`partition`]), groups, quotas ([`quota`]), and the server that ties them to
//! sockets, disk and bucket ([`server`]).
//! Promises: no byte from a socket panics the node or makes it reserve memory beyond its limits; requests of one
//! connection are answered in order.
//! Leaves to others: what a batch, a segment and an object are.

pub mod archive;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod http;
pub(crate) mod links;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod partition;
pub mod quota;
pub(crate) mod replicas;
pub mod security;
pub mod server;
pub mod share;
pub mod telemetry;
pub mod traces;
pub(crate) mod wire;

#[doc(hidden)]
pub use wire::check::check_frame;
