//! Identity of idempotent and transactional producers (KIP-98).

use std::fmt;

/// Identity of one producer session, handed out by InitProducerId.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProducerId(u64);

impl ProducerId {
    /// `None` for -1: the batch comes from a producer without idempotence.
    pub fn from_wire(raw: i64) -> Option<ProducerId> {
        u64::try_from(raw).ok().map(ProducerId)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i64 {
        self.0 as i64
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Fences older sessions of one producer id. `None` on the wire is -1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProducerEpoch(pub u16);

impl ProducerEpoch {
    /// `None` for -1.
    pub fn from_wire(raw: i16) -> Option<ProducerEpoch> {
        u16::try_from(raw).ok().map(ProducerEpoch)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i16 {
        self.0 as i16
    }
}

/// Number of a record within one producer's writes to one partition; wraps from `i32::MAX` to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Sequence(u32);

impl Sequence {
    /// `None` for -1: no sequence (a producer without idempotence, or a control batch).
    pub fn from_wire(raw: i32) -> Option<Sequence> {
        u32::try_from(raw).ok().map(Sequence)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }

    /// The sequence `count` records later, wrapping as Kafka's does.
    #[must_use]
    pub const fn plus(self, count: u32) -> Sequence {
        Sequence(self.0.wrapping_add(count) & i32::MAX as u32)
    }
}

/// Proof that a transaction's coordinator was asked about one partition, for the append that begins the transaction there
/// (KIP-890). It is worth nothing once the partition saw the transaction begin or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VerificationGuard(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        let last = Sequence::from_wire(i32::MAX).expect("not negative");
        assert_eq!(last.plus(1), Sequence::default());
    }
}
