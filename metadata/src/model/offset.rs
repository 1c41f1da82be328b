//! Positions in a partition's log and the epochs that fence its leaders.

use std::fmt;

/// Position of a record in one partition's log. The first record ever written has offset 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Offset(u64);

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset the protocol can carry.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// `None` if `raw` lies beyond what the protocol can carry (a signed 64-bit number).
    pub const fn new(raw: u64) -> Option<Offset> {
        if raw <= Offset::MAX.0 { Some(Offset(raw)) } else { None }
    }

    /// `None` for the protocol's sentinels (ListOffsets: -1 latest, -2 earliest, …): they are questions, not offsets.
    pub fn from_wire(raw: i64) -> Option<Offset> {
        u64::try_from(raw).ok().map(Offset)
    }

    /// The protocol's signed form; never negative.
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }

    /// The bare number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `count` positions further on; saturates at [`Offset::MAX`].
    #[must_use]
    pub const fn plus(self, count: u64) -> Offset {
        let sum = self.0.saturating_add(count);
        if sum > Offset::MAX.0 { Offset::MAX } else { Offset(sum) }
    }

    /// How many positions `self` lies behind `earlier`; 0 if it does not.
    pub const fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The offset the next record will get: one past the last record of the log (LEO).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEndOffset(pub Offset);

/// First offset readable in any tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogStartOffset(pub Offset);

/// First offset *not* yet on every in-sync replica; consumers stop before it (HW).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HighWatermark(pub Offset);

/// Smaller of the high watermark and the first offset of the oldest open transaction (LSO, KIP-98).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastStableOffset(pub Offset);

/// Fences leaders of one partition (KIP-101, KIP-279).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct LeaderEpoch(pub u32);

impl LeaderEpoch {
    /// `None` for -1, the protocol's "unknown epoch".
    pub fn from_wire(raw: i32) -> Option<LeaderEpoch> {
        u32::try_from(raw).ok().map(LeaderEpoch)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinels_of_the_protocol_are_not_offsets() {
        assert_eq!(Offset::from_wire(-1), None);
        assert_eq!(Offset::from_wire(-2), None);
        assert_eq!(Offset::from_wire(0), Some(Offset::ZERO));
        assert_eq!(LeaderEpoch::from_wire(-1), None);
    }

    #[test]
    fn offsets_saturate_where_the_protocol_ends() {
        assert_eq!(Offset::MAX.plus(1), Offset::MAX);
        assert_eq!(Offset::new(u64::MAX), None);
    }
}
