//! IO: the bucket, the manifests in it, uploads, the archiver, cold reads.
//!
//! [`bucket`] is the one door to the object store; [`cluster`] says whose bucket it is, [`snapshots`]
//! what the cluster's state was; [`manifests`] loads and publishes;
//! [`partition`] is the handle through which everyone reads and changes one partition's manifest; [`upload`] and
//! [`archiver`] bring sealed segments in; [`parting`] has an archive go on where it and the leader's log parted; [`cold`] reads
//! what lies there; [`pace`] bounds them.

pub mod archiver;
pub mod bucket;
pub mod cluster;
pub mod cold;
pub mod conformance;
pub mod manifests;
pub mod pace;
pub mod parting;
pub mod partition;
pub mod snapshots;
#[cfg(test)]
mod troubled_store;
pub mod upload;

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use varve_metadata::model::Timestamp;

/// The wall clock, as manifests carry it.
fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).ok().and_then(Timestamp::from_wire).unwrap_or_default()
}
