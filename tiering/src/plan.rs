//! What the archiver does with one partition, and when it looks again. Pure.
//!
//! Order everywhere: object, then manifest, then local delete; on the way out the manifest first.

use std::{ops::Range, time::Duration};

use varve_log::local::{EpochCache, SealedSegment};
use varve_metadata::{
    config::TopicConfig,
    model::{LeaderEpoch, Offset, Timestamp},
};

use crate::manifest::{Manifest, ManifestError, RemoteObject, Stretch};

/// What a topic's settings ask of the archiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Sealed segments go up.
    pub uploads: bool,
    /// The archive is to be emptied, because archiving was turned off with `remote.log.delete.on.disable`.
    pub empties: bool,
    /// An active segment is sealed this long after its first record; `None`: only as the log itself does.
    pub seal_after: Option<Duration>,
    /// Records are dropped from both tiers after this time.
    pub retention_time: Option<Duration>,
    /// Bytes of log in both tiers, each record counted once.
    pub retention_bytes: Option<u64>,
    /// Archived records may leave the local disk, also before their time if room is needed.
    pub may_leave: bool,
    /// Archived records leave the local disk after this time.
    pub local_time: Option<Duration>,
    /// Archived records leave the local disk when it holds more than this.
    pub local_bytes: Option<u64>,
}

impl Policy {
    /// What `config` asks.
    pub fn of(config: &TopicConfig) -> Policy {
        let uploads = config.remote_storage && !config.remote_copy_disable;
        // Without `delete` in cleanup.policy nothing goes by time or size, and a compacted log is kept whole on the local
        // disk: it is small, and coordinators read it from there.
        let deletes = config.cleanup.delete;
        // Where nothing goes up, there is no local copy to give up before the record itself goes (KIP-950).
        let local = deletes && uploads;
        Policy {
            uploads,
            empties: !config.remote_storage && config.remote_delete_on_disable,
            // A quarter of the time is left for the upload itself and for a bucket that is slow.
            seal_after: config.archive_lag.filter(|_| uploads).map(|lag| lag * 3 / 4),
            retention_time: config.retention_time.filter(|_| deletes),
            retention_bytes: config.retention_bytes.filter(|_| deletes),
            may_leave: local,
            local_time: config.local_retention_time.filter(|_| local),
            local_bytes: config.local_retention_bytes.filter(|_| local),
        }
    }
}

/// What is to go up next: the first of `sealed` that reaches beyond what is archived, if all of it is decided (below the
/// last stable offset). Segments that compaction emptied are skipped: the next object answers for their offsets.
///
/// The object's base is always `archived`, so that coverage has no gap even where the local log has one.
pub fn next_upload(sealed: Vec<SealedSegment>, archived: Offset, last_stable: Offset) -> Option<SealedSegment> {
    sealed
        .into_iter()
        .find(|segment| segment.end > archived && segment.bytes > 0)
        .filter(|next| next.end <= last_stable)
}

/// Up to where the archive and a log with these leader epochs hold the same records (KIP-101): [`Manifest::end`], unless the
/// two parted before. That happens where a leader was elected without records that were committed, or lost them with its disk.
pub fn common_end(manifest: &Manifest, local: &EpochCache, local_end: Offset) -> Offset {
    let mut end = manifest.end();
    if local.latest().is_none() {
        // It has no record that could be another one.
        return end;
    }
    for &(epoch, start) in manifest.epochs().iter().rev() {
        match local.end_offset_for(epoch, local_end) {
            Some((known, local_end)) if known == epoch => return end.min(local_end),
            // It has nothing of that epoch.
            Some(_) | None => end = end.min(start),
        }
    }
    end
}

/// Where a log with these leader epochs ends to have what is archived, if that is before the archive does: from there on the archive
/// holds other records, or some that the log has no more.
pub fn parted(manifest: &Manifest, local: &EpochCache, local_end: Offset) -> Option<Offset> {
    Some(common_end(manifest, local, local_end).min(local_end)).filter(|common| *common < manifest.end())
}

/// What neither the archive has nor a log on its disk, which begins at `local_start`, though it is not deleted: the archive went on with
/// another log ([`Manifest::parted_at`]), and set aside what this one had given up in its favour.
pub fn set_aside_before(manifest: &Manifest, log_start: Offset, local_start: Offset) -> Option<Range<Offset>> {
    let from = manifest.end().max(log_start);
    (!manifest.set_aside().is_empty() && from < local_start).then_some(from..local_start)
}

/// Below it local copies may go: the published manifest covers them, with the same records, and they are decided.
pub fn may_leave_below(manifest: &Manifest, local: &EpochCache, local_end: Offset, last_stable: Offset) -> Offset {
    common_end(manifest, local, local_end).min(last_stable)
}

/// `manifest` with `object` at its end, uploaded by the leader of `epoch`; as it is if it lists that already.
///
/// # Errors
/// As [`Manifest::with`].
pub fn with_uploaded(
    manifest: &Manifest,
    epoch: LeaderEpoch,
    object: &RemoteObject,
) -> Result<Manifest, ManifestError> {
    match manifest.with(epoch, object.clone()) {
        // An earlier try of ours may have been published without our hearing of it.
        Err(ManifestError::Gap { .. }) if lists(manifest, object) => Ok(manifest.clone()),
        outcome => outcome,
    }
}

/// How far total retention moves the log start within the archive: the first object that is neither outlived (its newest
/// record is older than `time`) nor wholly in front of the newest `bytes` of log. `local_only` are the bytes of log that
/// only the local disk has. [`Manifest::end`] if nothing in the archive is to stay.
///
/// # Errors
/// [`ManifestError::LeafNeeded`]: take that leaf inline and ask again.
pub fn retained_from(
    manifest: &Manifest,
    now: Timestamp,
    time: Option<Duration>,
    bytes: Option<u64>,
    local_only: u64,
) -> Result<Offset, ManifestError> {
    let mut surplus = bytes.map_or(0, |bytes| (manifest.log_bytes() + local_only).saturating_sub(bytes));
    let goes = |newest: Option<Timestamp>, log_bytes: u64, surplus: u64| {
        outlived(now, time, newest) || (surplus >= log_bytes && surplus > 0)
    };
    for stretch in manifest.stretches() {
        match stretch {
            Stretch::Leaf(leaf) if goes(leaf.max_timestamp, leaf.log_bytes, surplus) => {
                surplus = surplus.saturating_sub(leaf.log_bytes);
            }
            // Some of it may go; only its entries can tell.
            Stretch::Leaf(leaf) => return Err(ManifestError::LeafNeeded(Box::new(leaf.clone()))),
            Stretch::Run(run) => {
                for object in run {
                    if !goes(object.max_timestamp, object.log_bytes, surplus) {
                        return Ok(object.base.max(manifest.log_start().0));
                    }
                    surplus = surplus.saturating_sub(object.log_bytes);
                }
            }
        }
    }
    Ok(manifest.end())
}

fn outlived(now: Timestamp, time: Option<Duration>, newest: Option<Timestamp>) -> bool {
    time.zip(newest)
        .is_some_and(|(time, newest)| u128::from(now.millis().saturating_sub(newest.millis())) > time.as_millis())
}

/// When to look at a partition again if nothing happens before.
///
/// `active_since`: when the active segment got its first record. `regular`: the time between two looks for retention.
pub fn look_again_after(
    policy: &Policy,
    now: Timestamp,
    active_since: Option<Timestamp>,
    segment_time: Duration,
    regular: Duration,
) -> Duration {
    let until_sealed = |after: Duration| match active_since {
        Some(since) => after.saturating_sub(Duration::from_millis(now.millis().saturating_sub(since.millis()))),
        // A first record may come right after this look. Seen half-way, its segment is still sealed in time.
        None => after / 2,
    };
    let lag = policy.seal_after.map(until_sealed);
    let roll = active_since.map(|_| until_sealed(segment_time));
    // A moment in the past still means a moment's pause, so that a log that will not roll does not spin.
    [lag, roll].into_iter().flatten().fold(regular, Duration::min).max(Duration::from_millis(100))
}

/// How long a small segment may wait for those of other partitions, so that they share an object; `None` if the partition
/// seals nothing by time. `is_last`: no other segment waits behind it. `most`: the longest wait.
pub fn linger(policy: &Policy, is_last: bool, most: Duration) -> Option<Duration> {
    // Half of what the lag leaves for the upload, which is a third of the time until sealing.
    let linger = (policy.seal_after? / 6).min(most);
    Some(if is_last { linger } else { linger.min(Duration::from_secs(1)) })
}

/// Bytes of log that only the local disk has: of `sealed`, the segments that end above `archived`, and of the active segment, with its
/// offsets and its bytes. Where another leader sealed elsewhere, part of a segment is archived and counted there: of its bytes go as
/// many as of its offsets do.
pub fn local_only_bytes(sealed: &[SealedSegment], active: (Range<Offset>, u64), archived: Offset) -> u64 {
    let beyond = |(offsets, bytes): (Range<Offset>, u64)| {
        let (all, new) = (offsets.end.since(offsets.start), offsets.end.since(offsets.start.max(archived)));
        u64::try_from(u128::from(bytes) * u128::from(new) / u128::from(all.max(1))).unwrap_or(bytes)
    };
    let sealed = sealed.iter().map(|segment| (segment.base..segment.end, segment.bytes));
    sealed.chain([active]).map(beyond).fold(0, u64::saturating_add)
}

/// Whether `manifest` lists `object` already: a publication whose answer was lost did happen.
pub fn lists(manifest: &Manifest, object: &RemoteObject) -> bool {
    // It was the last one when it was published; others may stand behind it by now.
    manifest.inline_objects().rev().any(|listed| listed.id == object.id && listed.base == object.base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(base: u64, end: u64, bytes: u64) -> SealedSegment {
        SealedSegment {
            base: Offset::new(base).unwrap(),
            end: Offset::new(end).unwrap(),
            bytes,
            max_timestamp: None,
            leader_epochs: Vec::new(),
            log_path: "log".into(),
            offset_index_path: "index".into(),
            time_index_path: "timeindex".into(),
            txn_index_path: None,
            producer_snapshot_path: None,
        }
    }

    #[test]
    fn what_is_archived_of_a_segment_that_another_leader_sealed_elsewhere_is_not_counted_twice() {
        let at = |offset| Offset::new(offset).unwrap();
        let only_here = |sealed: &[SealedSegment], active| local_only_bytes(sealed, active, at(15));
        let active = || (at(30)..at(37), 7);
        assert_eq!(only_here(&[sealed(10, 20, 100), sealed(20, 30, 100)], active()), 50 + 100 + 7);
        assert_eq!(only_here(&[sealed(15, 20, 100)], active()), 100 + 7);
        assert_eq!(only_here(&[sealed(20, 20, 3)], active()), 7, "compaction has left nothing of it");
        assert_eq!(only_here(&[], (at(10)..at(20), 100)), 50);
        assert_eq!(only_here(&[], (at(10)..at(12), 100)), 0);
    }
}
