//! How much of a local log retention lets go. Pure.

use std::time::Duration;

use varve_metadata::model::{Offset, Timestamp};

/// What a log is to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The wall clock.
    pub now: Timestamp,
    /// For how long; `None`: for ever.
    pub time: Option<Duration>,
    /// How many of the newest bytes; `None`: all.
    pub bytes: Option<u64>,
    /// What lies at or behind it stays in any case: it is not committed, or not archived.
    pub limit: Offset,
}

impl Retained {
    /// Where the first of `segments` that stays begins. They are the end and the size of each one, oldest first, the active one only
    /// if it has a record; the first begins at `base`. `newest` tells when the nth of them got its newest record, if that is known.
    ///
    /// # Errors
    /// As `newest`, which is asked only where sizes do not decide.
    pub fn expired_below<E>(
        &self,
        base: Offset,
        segments: &[(Offset, u64)],
        newest: impl Fn(usize) -> Result<Option<Timestamp>, E>,
    ) -> Result<Offset, E> {
        let size = segments.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        let mut surplus = self.bytes.map_or(0, |bytes| size.saturating_sub(bytes));
        let outlived = |newest: Timestamp| {
            let age = u128::from(self.now.millis().saturating_sub(newest.millis()));
            self.time.is_some_and(|time| age > time.as_millis())
        };
        let mut expired = base;
        for (place, &(end, bytes)) in segments.iter().enumerate() {
            let by_size = surplus >= bytes && surplus > 0;
            if end > self.limit || !(by_size || newest(place)?.is_some_and(outlived)) {
                break;
            }
            surplus = surplus.saturating_sub(bytes);
            expired = end;
        }
        Ok(expired)
    }
}
