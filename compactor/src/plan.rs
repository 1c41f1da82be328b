//! What to do about one partition's remote objects. Pure: objects, settings and the time in, work out.
//!
//! In this order: what retention lets go, goes; a key compaction that is due replaces all other rewriting (it converts on
//! its way); else raw objects become Parquet as soon as they are seen, neighbours together; else small Parquet objects are
//! merged once there are [`Limits::fan_in`] neighbours of about one size, so that a record is rewritten a few times only,
//! however slowly its partition grows.

use std::time::Duration;

use varve_log::local::cleaner::{Cleanable, CleanableSegment, CleaningLimits};
use varve_metadata::{
    config::{ArchiveFormat, TopicConfig},
    model::{Offset, Timestamp},
};
use varve_tiering::manifest::{Manifest, ObjectKind, RemoteObject};

/// Sizes that shape the archive, all in bytes of record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Objects below this size are merged with their neighbours.
    pub small: u64,
    /// Size up to which neighbours are joined.
    pub target: u64,
    /// Neighbours of about one size that are merged at once, 4 at least.
    pub fan_in: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { small: 128 << 20, target: 512 << 20, fan_in: 8 }
    }
}

/// What planning looks at.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The newest manifest.
    pub manifest: &'a Manifest,
    /// All its objects, in offset order.
    pub objects: &'a [RemoteObject],
    /// The topic's settings.
    pub config: &'a TopicConfig,
    /// Sizes.
    pub limits: &'a Limits,
    /// Bytes of the local log above the manifest's end: `retention.bytes` counts both tiers. 0 if unknown.
    pub local_bytes: u64,
    /// Whether key compaction is possible: not after a round has met a batch that cannot be read.
    pub may_compact: bool,
    /// The wall clock.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Move the log start to this offset; what lies wholly below it goes.
    Expire(Offset),
    /// One round of key compaction.
    Compact(Round),
    /// Make one Parquet object of these neighbours.
    Rewrite(Vec<RemoteObject>),
}

/// A round of key compaction (`cleanup.policy=compact`).
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// First offset whose key no round has looked at.
    pub first_dirty: Offset,
    /// First offset that is not touched: too young, or not archived.
    pub end: Offset,
    /// The objects from the log start to `end`.
    pub objects: Vec<RemoteObject>,
}

/// What is due, in the order in which to do it.
pub fn plan(situation: &Situation<'_>) -> Vec<Work> {
    let mut work = Vec::new();
    let mut alive = situation.objects;
    if let Some(start) = expiry(situation) {
        work.push(Work::Expire(start));
        alive = &alive[alive.partition_point(|object| object.end <= start)..];
    }
    if let Some(round) = round(situation, alive) {
        work.push(Work::Compact(round));
    } else if situation.config.archive_format == ArchiveFormat::Parquet {
        work.extend(rewrites(alive, situation.limits).into_iter().map(Work::Rewrite));
    }
    work
}

/// Bytes of raw objects that are to become Parquet: how far the compactor is behind.
pub fn backlog(situation: &Situation<'_>) -> u64 {
    let convertible = situation.config.archive_format == ArchiveFormat::Parquet;
    let raw = situation.objects.iter().filter(|object| convertible && object.kind == ObjectKind::Raw);
    raw.map(|object| object.log_bytes).fold(0, u64::saturating_add)
}

/// The new log start, if `retention.ms`, `retention.bytes` or DeleteRecords lets an object go.
fn expiry(situation: &Situation<'_>) -> Option<Offset> {
    let Situation { manifest, objects, config, .. } = *situation;
    let start = manifest.log_start().0;
    let below = objects.partition_point(|object| object.end <= start);
    let mut expired = below;
    if config.cleanup.delete {
        expired = expired.max(expired_by_time(objects, config.retention_time, situation.now));
        let total =
            objects[expired..].iter().map(|object| object.log_bytes).fold(situation.local_bytes, u64::saturating_add);
        expired += expired_by_size(&objects[expired..], total, config.retention_bytes);
    }
    let last = expired.checked_sub(1)?;
    Some(objects[last].end.max(start))
}

/// How many of the first objects are older than `retention`. An object without timestamps is as old as the next that has.
fn expired_by_time(objects: &[RemoteObject], retention: Option<Duration>, now: Timestamp) -> usize {
    let Some(retention) = retention else { return 0 };
    let age_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let is_old = |newest: Timestamp| now.to_wire().saturating_sub(newest.to_wire()) > age_ms;
    let mut expired = 0;
    for (place, object) in objects.iter().enumerate() {
        match object.max_timestamp {
            Some(newest) if is_old(newest) => expired = place + 1,
            Some(_) => break,
            None => {}
        }
    }
    expired
}

/// How many of the first objects can go so that no less than `retention` bytes stay.
fn expired_by_size(objects: &[RemoteObject], total: u64, retention: Option<u64>) -> usize {
    let Some(retention) = retention else { return 0 };
    let mut excess = total.saturating_sub(retention);
    // Also one that compaction has left nothing of goes only where something is too much.
    let fits = |object: &&RemoteObject| match excess.checked_sub(object.log_bytes).filter(|_| excess > 0) {
        Some(left) => {
            excess = left;
            true
        }
        None => false,
    };
    objects.iter().take_while(fits).count()
}

/// The round of key compaction that is due, if one is.
fn round(situation: &Situation<'_>, alive: &[RemoteObject]) -> Option<Round> {
    if !situation.config.cleanup.compact || !situation.may_compact {
        return None;
    }
    let limits = CleaningLimits::of(situation.config);
    let mut previous = None;
    let segments: Vec<CleanableSegment> = alive
        .iter()
        .map(|object| {
            // When its first record was written is not known; the newest of the object before was not written later.
            let first_timestamp = previous.or(object.max_timestamp);
            previous = object.max_timestamp.or(previous);
            CleanableSegment {
                base: object.base,
                end: object.end,
                bytes: object.log_bytes,
                index_bytes: 0,
                first_timestamp,
                max_timestamp: object.max_timestamp,
            }
        })
        .collect();
    let log = situation.manifest.log_start().0..situation.manifest.end();
    let checkpoint = Some(situation.manifest.clean_until());
    let found = Cleanable::find(&segments, log.clone(), log.end, checkpoint, &limits, situation.now);
    found.is_due(&limits).then(|| Round {
        first_dirty: found.first_dirty,
        end: found.first_uncleanable,
        objects: alive.iter().filter(|object| object.base < found.first_uncleanable).cloned().collect(),
    })
}

/// Neighbours to make one Parquet object of.
fn rewrites(objects: &[RemoteObject], limits: &Limits) -> Vec<Vec<RemoteObject>> {
    let mut found = Vec::new();
    let mut rest = objects;
    while let Some(first) = rest.iter().position(|object| object.kind == ObjectKind::Raw) {
        merges(&rest[..first], limits, &mut found);
        let run = rest[first..].iter().take_while(|object| object.kind == ObjectKind::Raw).count();
        let (raw, behind) = rest[first..].split_at(run);
        let mut left = raw;
        while !left.is_empty() {
            let (group, more) = left.split_at(prefix_within(left, limits.target));
            found.push(group.to_vec());
            left = more;
        }
        rest = behind;
    }
    merges(rest, limits, &mut found);
    found
}

/// How many of the first objects together keep within `bytes`; one at least.
fn prefix_within(objects: &[RemoteObject], bytes: u64) -> usize {
    let mut sum = 0u64;
    let fits = |object: &&RemoteObject| {
        sum = sum.saturating_add(object.log_bytes);
        sum <= bytes
    };
    objects.iter().take_while(fits).count().max(1)
}

/// Runs of small Parquet objects that are worth merging.
fn merges(objects: &[RemoteObject], limits: &Limits, found: &mut Vec<Vec<RemoteObject>>) {
    let is_small = |object: &RemoteObject| object.log_bytes < limits.small;
    for run in objects.chunk_by(|a, b| is_small(a) && is_small(b)).filter(|run| is_small(&run[0]) && run.len() > 1) {
        let mut left = run;
        while left.len() > 1 {
            let (group, more) = left.split_at(prefix_within(left, limits.target));
            let bytes: u64 = group.iter().map(|object| object.log_bytes).fold(0, u64::saturating_add);
            if group.len() > 1 && bytes >= limits.small {
                found.push(group.to_vec());
                left = more;
            } else {
                merge_by_size(left, limits, found);
                break;
            }
        }
    }
}

/// Merges the first run of [`Limits::fan_in`] neighbours of about one size: together they are [`Limits::fan_in`] / 2 times
/// the largest, so an object grows by that factor whenever it is rewritten.
fn merge_by_size(objects: &[RemoteObject], limits: &Limits, found: &mut Vec<Vec<RemoteObject>>) {
    let fan_in = limits.fan_in.max(4);
    let class = |object: &RemoteObject| object.log_bytes.max(1).ilog2() / fan_in.ilog2();
    let worth = |run: &&[RemoteObject]| {
        let largest = run.iter().map(|object| object.log_bytes).max().unwrap_or(0);
        let sum = run.iter().map(|object| object.log_bytes).fold(0, u64::saturating_add);
        run.len() >= fan_in && sum >= largest.saturating_mul(fan_in as u64 / 2)
    };
    let mut classes: Vec<u32> = objects.iter().map(class).collect();
    classes.sort_unstable();
    classes.dedup();
    for limit in classes {
        let runs = objects.chunk_by(|a, b| (class(a) <= limit) == (class(b) <= limit));
        if let Some(run) = runs.filter(|run| class(&run[0]) <= limit).find(worth) {
            return found.push(run.to_vec());
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
