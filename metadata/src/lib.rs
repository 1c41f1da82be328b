//! The vocabulary of Varve and the agreement on cluster state.
//!
//! Owns: the types that every room speaks ([`model`]), the definition of every configuration name ([`config`]), and
//! the store in which brokers agree on topics, partitions and ids ([`store`]), the picture of it that requests read
//! ([`image`]), what changes are allowed ([`controller`]), the service of it all ([`cluster`]) and its copy as text
//! ([`snapshot`]).
//! Promises: a value of a model type is valid; the protocol's sentinels (`-1`, `-2`) never travel inside.
//! Leaves to others: records, client sockets, object storage.

pub mod cluster;
pub mod config;
pub mod controller;
pub mod image;
pub mod model;
pub mod snapshot;
pub mod store;
