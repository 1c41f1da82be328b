//! The layout of each served request, field by field, as Kafka's message definitions give it. Tests hold every line to
//! the encoder of `kafka-protocol` for every version.

mod cluster;
mod groups;
mod records;
mod security;
mod share_groups;
mod streams_groups;
mod topics;
mod transactions;

pub(super) use cluster::*;
pub(super) use groups::*;
pub(super) use records::*;
pub(super) use security::*;
pub(super) use share_groups::*;
pub(super) use streams_groups::*;
pub(super) use topics::*;
pub(super) use transactions::*;
