//! Where is the first, the last, or the record of a given time (ListOffsets)?

use varve_log::local::{OffsetAndTimestamp, ReadError};
use varve_metadata::model::{LeaderEpoch, LogEndOffset, Offset, Timestamp};

use super::{Partition, RemoteError};

/// What a client asks for. On the wire all but the last are negative timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuestion {
    /// First offset that the asker may not read (-1).
    Latest,
    /// First readable offset in any tier (-2).
    Earliest,
    /// Record with the largest timestamp (-3, KIP-734).
    MaxTimestamp,
    /// First offset on the local disk (-4, KIP-405).
    EarliestLocal,
    /// Last offset in the archive (-5, KIP-1005).
    LatestTiered,
    /// First offset that is not in the archive yet (-6, KIP-1023).
    EarliestPendingUpload,
    /// First record of that time or later.
    At(Timestamp),
}

impl OffsetQuestion {
    /// The question behind a timestamp of the wire, if version `version` of ListOffsets has it.
    pub fn from_wire(timestamp: i64, version: i16) -> Option<OffsetQuestion> {
        let (question, since) = match timestamp {
            -1 => (OffsetQuestion::Latest, 1),
            -2 => (OffsetQuestion::Earliest, 1),
            -3 => (OffsetQuestion::MaxTimestamp, 7),
            -4 => (OffsetQuestion::EarliestLocal, 8),
            -5 => (OffsetQuestion::LatestTiered, 9),
            -6 => (OffsetQuestion::EarliestPendingUpload, 11),
            time => (OffsetQuestion::At(Timestamp::from_wire(time)?), 1),
        };
        (version >= since).then_some(question)
    }
}

/// An offset, and what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// The offset.
    pub offset: Offset,
    /// The record's timestamp, for questions about time.
    pub timestamp: Option<Timestamp>,
    /// Leader epoch of the record, if known.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OffsetError {
    /// The local log could not be read.
    #[error("local log cannot be read")]
    Local(#[from] ReadError),
    /// The archive could not be read.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl Partition {
    /// Answers `question` for a reader that may read below `readable_end`. `None`: there is no such offset. May wait for
    /// the archive; cancel-safe.
    ///
    /// # Errors
    /// [`OffsetError`].
    pub async fn find_offset(
        &self,
        question: OffsetQuestion,
        readable_end: Offset,
    ) -> Result<Option<OffsetAnswer>, OffsetError> {
        let plain = |offset| OffsetAnswer { offset, timestamp: None, leader_epoch: self.epoch_at(offset) };
        let log_start = self.log_start().0;
        // In an empty log the next record will be of this leader's epoch.
        let at_start = |offset| {
            let is_empty = self.log().end() == LogEndOffset(offset);
            let leader_epoch = self.epoch_at(offset).or_else(|| is_empty.then(|| self.leader_epoch()));
            OffsetAnswer { leader_epoch, ..plain(offset) }
        };
        if let (OffsetQuestion::LatestTiered | OffsetQuestion::EarliestPendingUpload, Some(remote)) =
            (question, self.remote())
        {
            remote.loaded().await?;
        }
        let remote_end = || self.remote().and_then(|remote| remote.bounds()).map(|(_, end)| end);
        let answer = match question {
            OffsetQuestion::Latest => {
                Some(OffsetAnswer { leader_epoch: Some(self.leader_epoch()), ..plain(readable_end) })
            }
            OffsetQuestion::Earliest => Some(at_start(log_start)),
            // Never before the log start, which the archive may have further on than the log itself: readers are refused there.
            OffsetQuestion::EarliestLocal => Some(at_start(self.log().local_start().max(log_start))),
            OffsetQuestion::LatestTiered => {
                remote_end().and_then(|end| end.get().checked_sub(1)).and_then(Offset::new).map(plain)
            }
            OffsetQuestion::EarliestPendingUpload => match (remote_end(), self.remote()) {
                (_, None) => None,
                (Some(end), _) => Some(plain(end.max(log_start))),
                (None, _) => (self.log().local_start() == log_start).then(|| plain(log_start)),
            },
            OffsetQuestion::MaxTimestamp => timed(self.max_timestamp(log_start).await?, readable_end),
            OffsetQuestion::At(time) => timed(self.first_at(time, log_start).await?, readable_end),
        };
        Ok(answer)
    }

    async fn max_timestamp(&self, log_start: Offset) -> Result<Option<OffsetAndTimestamp>, OffsetError> {
        let local = self.log().max_timestamp_offset()?;
        let archived = match self.archive_below_local() {
            Some(remote) => remote.max_timestamp_offset(log_start).await?,
            None => None,
        };
        Ok(match (archived, local) {
            (Some(archived), Some(local)) if local.timestamp > archived.timestamp => Some(local),
            (archived, local) => archived.or(local),
        })
    }

    async fn first_at(&self, time: Timestamp, log_start: Offset) -> Result<Option<OffsetAndTimestamp>, OffsetError> {
        if let Some(remote) = self.archive_below_local() {
            let archived = remote.offset_for_timestamp(time, log_start).await?;
            if let Some(found) = archived.filter(|found| found.offset < self.log().local_start()) {
                return Ok(Some(found));
            }
        }
        Ok(self.log().offset_for_timestamp(time, log_start)?)
    }

    /// The archive, if records lie only there.
    fn archive_below_local(&self) -> Option<std::sync::Arc<dyn super::RemoteReader>> {
        if self.log().local_start() > self.log_start().0 { self.remote() } else { None }
    }

    /// Leader epoch of the record at `offset` in any tier.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.log().epoch_at(offset).or_else(|| self.remote().and_then(|remote| remote.epoch_at(offset)))
    }
}

/// A record that the asker may not read yet is not told.
fn timed(found: Option<OffsetAndTimestamp>, readable_end: Offset) -> Option<OffsetAnswer> {
    found.filter(|found| found.offset < readable_end).map(|found| OffsetAnswer {
        offset: found.offset,
        timestamp: Some(found.timestamp),
        leader_epoch: found.leader_epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_exist_from_the_version_that_brought_them() {
        let asked = |timestamp, version| OffsetQuestion::from_wire(timestamp, version);
        assert_eq!(asked(-1, 1), Some(OffsetQuestion::Latest));
        assert_eq!((asked(-3, 6), asked(-3, 7)), (None, Some(OffsetQuestion::MaxTimestamp)));
        assert_eq!((asked(-6, 10), asked(-6, 11)), (None, Some(OffsetQuestion::EarliestPendingUpload)));
        assert_eq!(asked(-7, 11), None);
        assert_eq!(asked(5, 1), Timestamp::from_wire(5).map(OffsetQuestion::At));
    }
}
