//! Wall-clock time as records carry it.

use std::fmt;

/// Milliseconds since the Unix epoch, as a record or batch carries them. Kafka's -1 ("none") is `Option::None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// `None` for negative numbers: Kafka's -1 means "none", and nothing below it is valid.
    pub fn from_wire(millis: i64) -> Option<Timestamp> {
        (millis >= 0).then_some(Timestamp(millis))
    }

    /// The protocol's form, in milliseconds; never negative.
    pub const fn to_wire(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
