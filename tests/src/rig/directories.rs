//! Brokers that lose one of their disks, or all.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};

use super::{MEMBERS, Rig, fault::last};
use crate::{cluster::Described, history::Place, node::eventually};

/// Records of so many bytes, so many of them, fill a segment of the partition that is measured, and the next one.
const LARGE: (usize, usize) = (100_000, 24);

/// The log directory with `place` of the broker that leads it fails. Others lead what lay there, and the broker goes on with the
/// other one. Then it is started anew, with all that it had.
pub(super) fn fails(rig: &mut Rig, at: usize, place: &Place) -> Result<()> {
    let (disk, other) = rig.disks[at].of(place)?;
    let (lost, kept) = (disk.held()?, other.held()?);
    disk.fail()?;
    await_others(rig, at, &lost, Some(place))?;
    last(rig);
    let health = rig.cluster.node(at).http_get("/healthz")?;
    ensure!(health.starts_with("degraded: "), "broker {at}, of which a directory failed, says {health}");
    eventually(&format!("broker {at} goes on with its other directory"), || {
        Ok(is_so_of_all(rig, &kept, |now| now.isr.contains(&at)).then_some(()))
    })?;
    rig.cluster.stop(at).with_context(|| format!("broker {at}, of which a directory failed, stops"))?;
    disk.come_back()?;
    rig.cluster.start_all(&[at])
}

/// The same of a broker that cannot write down what its next life has to know: it leaves the others altogether.
pub(super) fn fails_beside_one_that_hangs(rig: &mut Rig, at: usize, place: &Place) -> Result<()> {
    let (disk, _) = rig.disks[at].of(place)?;
    let all = rig.disks[at].held()?;
    let hanging = rig.disks[at].hang()?;
    disk.fail()?;
    await_others(rig, at, &all, Some(place))?;
    last(rig);
    let refused = rig.cluster.node(at).http_get("/healthz").err().map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|refused| refused.contains("503")), "broker {at} says {refused:?}");
    rig.cluster.kill(at);
    hanging.end()?;
    disk.come_back()?;
    rig.cluster.start_all(&[at])
}

/// A broker is killed, and started anew with empty disks when the others, all of whom are in sync, lead.
pub(super) fn replaced(rig: &mut Rig, at: usize) -> Result<()> {
    let all = rig.disks[at].held()?;
    rig.cluster.kill(at);
    last(rig);
    await_others(rig, at, &all, None)?;
    rig.disks[at].replace()?;
    rig.cluster.start_all(&[at])
}

/// Waits until brokers other than `at` lead these partitions, and all of them are in sync. A directory that failed is only noticed
/// when a file is to be made: `pushed` is written to until that is so.
fn await_others(rig: &Rig, at: usize, places: &[Place], pushed: Option<&Place>) -> Result<()> {
    let (bytes, mut left) = LARGE;
    eventually(&format!("others lead and are in sync without broker {at}"), || {
        if let Some(place) = pushed.filter(|_| left > 0) {
            // Refused while nobody leads.
            left -= usize::from(push(rig, place, bytes).is_ok());
        }
        let is_others = |now: &Described| {
            let is_led = now.leader.is_some_and(|leader| leader != at);
            is_led && !now.isr.contains(&at) && now.isr.len() == MEMBERS - 1
        };
        Ok(is_so_of_all(rig, places, is_others).then_some(()))
    })
}

fn push(rig: &Rig, place: &Place, bytes: usize) -> Result<i64> {
    let timestamp = Timestamp::from_wire(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64);
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp, key: None, value: Some(&vec![b'v'; bytes]), headers: &[] });
    let mut leader = rig.routes().to_leader(place)?;
    leader.produce(&place.topic, place.partition, Bytes::from(batch.build()?))
}

/// One look at these partitions. Whoever nobody tells of is not so.
fn is_so_of_all(rig: &Rig, places: &[Place], is_so: impl Fn(&Described) -> bool) -> bool {
    let topics: BTreeSet<&str> = places.iter().map(|place| place.topic.as_str()).collect();
    let seen: BTreeMap<&str, Vec<Described>> =
        topics.into_iter().map(|topic| (topic, rig.cluster.look(topic))).collect();
    places.iter().all(|place| seen[place.topic.as_str()].get(place.partition as usize).is_some_and(&is_so))
}
