//! What of a log may be cleaned, whether it is worth it, and which segments are rewritten as one. Pure.

use std::{ops::Range, time::Duration};

use varve_metadata::{
    config::TopicConfig,
    model::{Offset, Timestamp},
};

/// A sealed segment, as far as planning looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanableSegment {
    /// First offset that it may hold.
    pub base: Offset,
    /// The next segment's base offset.
    pub end: Offset,
    /// Size of the records in bytes.
    pub bytes: u64,
    /// Size of the larger of its two indexes in bytes.
    pub index_bytes: u64,
    /// Timestamp of its first batch.
    pub first_timestamp: Option<Timestamp>,
    /// Its largest timestamp.
    pub max_timestamp: Option<Timestamp>,
}

/// When a log is cleaned, and how far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleaningLimits {
    /// Share of dirty bytes from which cleaning is worth it (`min.cleanable.dirty.ratio`).
    pub min_dirty_ratio: f64,
    /// Age below which a record is not touched (`min.compaction.lag.ms`).
    pub min_lag: Duration,
    /// Age from which a record must be cleaned whatever the ratio (`max.compaction.lag.ms`).
    pub max_lag: Duration,
    /// Bytes of records in a rewritten segment (`segment.bytes`).
    pub segment_bytes: u64,
    /// Bytes in its largest index (`segment.index.bytes`).
    pub index_bytes: u64,
    /// How long tombstones and markers stay (`delete.retention.ms`).
    pub delete_retention: Duration,
}

impl CleaningLimits {
    /// The limits of a topic.
    pub fn of(topic: &TopicConfig) -> CleaningLimits {
        CleaningLimits {
            min_dirty_ratio: topic.min_cleanable_dirty_ratio,
            min_lag: topic.min_compaction_lag,
            max_lag: topic.max_compaction_lag,
            segment_bytes: u64::from(topic.segment_bytes),
            index_bytes: u64::from(topic.segment_index_bytes),
            delete_retention: topic.delete_retention,
        }
    }
}

/// What of a log may be cleaned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanable {
    /// Where the clean part ends: keys from here on are read.
    pub first_dirty: Offset,
    /// Where cleaning ends: the active segment, the last stable offset or what is too young begins here or later in the
    /// same segment.
    pub first_uncleanable: Offset,
    /// Bytes of the segments that are clean.
    pub clean_bytes: u64,
    /// Bytes of the segments that may be cleaned.
    pub dirty_bytes: u64,
    /// Something is older than `max.compaction.lag.ms`.
    pub overdue: bool,
    /// When age alone will have changed something: a record is then older than `max.compaction.lag.ms`, or no longer younger
    /// than `min.compaction.lag.ms`.
    pub changes_at: Option<Timestamp>,
    /// The checkpoint lay outside of the log and has to be set to `first_dirty`.
    pub reset_checkpoint: bool,
}

impl Cleanable {
    /// Looks at the sealed `segments` of a log that reaches from `log_start` to `log_end`. `checkpoint`: where the last round
    /// ended; `stable`: the last stable offset, or the high watermark if that is smaller.
    pub fn find(
        segments: &[CleanableSegment],
        log: Range<Offset>,
        stable: Offset,
        checkpoint: Option<Offset>,
        limits: &CleaningLimits,
        now: Timestamp,
    ) -> Cleanable {
        let known = checkpoint.filter(|checkpoint| log.start <= *checkpoint && *checkpoint <= log.end);
        let first_dirty = known.unwrap_or(log.start);
        let dirty = &segments[segments.partition_point(|segment| segment.end <= first_dirty)..];
        let active = segments.last().map_or(log.start, |segment| segment.end);
        let ago = |age: Duration| now.to_wire().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let too_young = |segment: &&CleanableSegment| {
            segment.max_timestamp.is_some_and(|newest| newest.to_wire() > ago(limits.min_lag))
        };
        let in_time = |from: Timestamp, age: Duration| {
            let at = from.to_wire().checked_add(i64::try_from(age.as_millis()).ok()?)?;
            Timestamp::from_wire(at).filter(|at| *at >= now)
        };
        let young = dirty.iter().find(too_young).filter(|_| limits.min_lag > Duration::ZERO);
        let limit = stable.min(active).min(young.map_or(active, |segment| segment.base)).max(first_dirty);
        // Segments are rewritten whole: the one that holds the limit is not.
        let first_uncleanable =
            segments.iter().find(|segment| segment.end > limit).map_or(active, |segment| segment.base);
        let sum = |part: &[CleanableSegment]| part.iter().map(|segment| segment.bytes).sum();
        let end = segments.partition_point(|segment| segment.base < first_uncleanable);
        let start = segments.partition_point(|segment| segment.end <= first_dirty).min(end);
        let oldest =
            dirty.iter().filter_map(|segment| segment.first_timestamp).filter(|first| first.to_wire() > 0).min();
        let is_old = young.and_then(|young| in_time(young.max_timestamp?, limits.min_lag));
        // Older than so much, so a millisecond later.
        let is_overdue =
            oldest.and_then(|oldest| in_time(oldest, limits.max_lag.saturating_add(Duration::from_millis(1))));
        Cleanable {
            first_dirty,
            first_uncleanable,
            clean_bytes: sum(&segments[..start]),
            dirty_bytes: sum(&segments[start..end]),
            overdue: oldest.is_some_and(|oldest| oldest.to_wire() < ago(limits.max_lag)),
            changes_at: [is_old, is_overdue].into_iter().flatten().min(),
            reset_checkpoint: checkpoint.is_some() && known.is_none(),
        }
    }

    /// Share of dirty bytes in all that is clean or may be cleaned: 0 to 1.
    pub fn dirty_ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Whether a round is due.
    pub fn is_due(&self, limits: &CleaningLimits) -> bool {
        self.dirty_bytes > 0 && (self.overdue || self.dirty_ratio() > limits.min_dirty_ratio)
    }
}

/// Ranges of `segments` that are rewritten as one segment each, so that segments do not get smaller and smaller: as many
/// neighbours as stay within the limits and within 2^31 offsets. No group reaches across `border`, where the archive's
/// part of the log ends: its objects and the local segments above it must meet at one offset.
pub fn group_segments(
    segments: &[CleanableSegment],
    limits: &CleaningLimits,
    border: Option<Offset>,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut index_bytes) = (0, 0);
    for (place, segment) in segments.iter().enumerate() {
        let joins = groups.last().is_some_and(|group| {
            bytes + segment.bytes <= limits.segment_bytes
                && index_bytes + segment.index_bytes <= limits.index_bytes
                && segment.end.since(segments[group.start].base) <= i32::MAX as u64
                && Some(segment.base) != border
        });
        match groups.last_mut().filter(|_| joins) {
            Some(group) => {
                group.end = place + 1;
                bytes += segment.bytes;
                index_bytes += segment.index_bytes;
            }
            None => {
                groups.push(place..place + 1);
                (bytes, index_bytes) = (segment.bytes, segment.index_bytes);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    fn time(millis: i64) -> Timestamp {
        Timestamp::from_wire(millis).unwrap()
    }

    /// Segments of 100 offsets and 100 bytes; segment i has timestamps from 1000 * (i + 1) to 1000 * (i + 1) + 500.
    fn segments(count: u64) -> Vec<CleanableSegment> {
        (0..count)
            .map(|index| CleanableSegment {
                base: offset(index * 100),
                end: offset(index * 100 + 100),
                bytes: 100,
                index_bytes: 10,
                first_timestamp: Some(time(index as i64 * 1000 + 1000)),
                max_timestamp: Some(time(index as i64 * 1000 + 1500)),
            })
            .collect()
    }

    fn limits() -> CleaningLimits {
        CleaningLimits {
            min_dirty_ratio: 0.5,
            min_lag: Duration::ZERO,
            max_lag: Duration::from_millis(i64::MAX as u64),
            segment_bytes: 250,
            index_bytes: 1000,
            delete_retention: Duration::from_secs(86_400),
        }
    }

    fn find(stable: u64, checkpoint: Option<u64>, limits: &CleaningLimits, now: i64) -> Cleanable {
        let log = offset(0)..offset(450);
        Cleanable::find(&segments(4), log, offset(stable), checkpoint.map(offset), limits, time(now))
    }

    #[test]
    fn all_sealed_segments_below_the_stable_offset_may_be_cleaned() {
        let found = find(450, Some(100), &limits(), 100_000);
        assert_eq!((found.first_dirty, found.first_uncleanable), (offset(100), offset(400)));
        assert_eq!((found.clean_bytes, found.dirty_bytes), (100, 300));
        assert!(found.is_due(&limits()) && !found.reset_checkpoint);
        let held = find(250, Some(100), &limits(), 100_000);
        assert_eq!((held.first_uncleanable, held.dirty_bytes), (offset(200), 100));
        assert!(!held.is_due(&limits()), "half is not more than half");
    }

    #[test]
    fn a_checkpoint_outside_of_the_log_starts_anew() {
        for checkpoint in [Some(451), None] {
            let found = find(450, checkpoint, &limits(), 100_000);
            assert_eq!((found.first_dirty, found.reset_checkpoint), (offset(0), checkpoint.is_some()));
        }
        let truncated =
            Cleanable::find(&segments(4), offset(150)..offset(450), offset(450), Some(offset(10)), &limits(), time(1));
        assert_eq!((truncated.first_dirty, truncated.reset_checkpoint), (offset(150), true));
    }

    #[test]
    fn what_is_too_young_waits() {
        let limits = CleaningLimits { min_lag: Duration::from_millis(1000), ..limits() };
        let early = find(450, None, &limits, 3500);
        assert_eq!((early.first_uncleanable, early.changes_at.map(Timestamp::to_wire)), (offset(200), Some(4500)));
        assert_eq!(find(450, None, &limits, 4500).first_uncleanable, offset(300));
    }

    #[test]
    fn what_is_too_old_is_cleaned_whatever_the_ratio() {
        let limits = CleaningLimits { min_dirty_ratio: 1.0, max_lag: Duration::from_millis(1000), ..limits() };
        let waits = find(450, Some(300), &limits, 5000);
        assert!(!waits.is_due(&limits) && waits.changes_at.map(Timestamp::to_wire) == Some(5001));
        assert!(find(450, Some(300), &limits, 5001).is_due(&limits));
        assert!(!find(450, Some(400), &limits, 99_000).is_due(&limits), "nothing dirty is sealed");
    }

    #[test]
    fn neighbours_are_grouped_within_the_limits_and_never_across_the_border() {
        assert_eq!(group_segments(&segments(5), &limits(), None), [0..2, 2..4, 4..5]);
        assert_eq!(group_segments(&segments(5), &limits(), Some(offset(100))), [0..1, 1..3, 3..5]);
        let small_index = CleaningLimits { index_bytes: 15, ..limits() };
        assert_eq!(group_segments(&segments(2), &small_index, None), [0..1, 1..2]);
        let mut far = segments(2);
        far[1].end = offset(1 << 31);
        assert_eq!(group_segments(&far, &limits(), None), [0..1, 1..2]);
    }
}
