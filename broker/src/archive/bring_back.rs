//! Internal topics whose local log is lost or was put back: filled again from the archive, so that their coordinators read them
//! from the disk at each start, also when the bucket is away (docs/adr/0019).

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};
use varve_log::{
    format::ControlRecord,
    local::{AbortedTxn, AppendContext, AppendError, AppendOrigin, LocalLog, ProducerEntry},
};
use varve_metadata::{
    image::TopicImage,
    model::{LeaderEpoch, LogStartOffset, Offset, PartitionId, ProducerId, Timestamp},
};
use varve_table::Recompression;
use varve_tiering::{manifest::Manifest, tier::partition::RemotePartition};

use super::{Archive, keeper::go_on_behind, told, wall_clock};
use crate::partition::Unsettled;

/// The end of an archive that may hold something, before it said so itself.
pub(super) const SOMETHING: Offset = Offset::ZERO.plus(1);
/// Bytes of an archived log that are brought back at a time, unless a segment takes less.
const BRING_BACK_BYTES: u32 = 8 << 20;

impl Archive {
    /// Remembers where the archive of `id` ends before that matters: after a crash the log is looked at again.
    pub(super) async fn note_end(&self, id: PartitionId, end: Offset) {
        let ends = self.ends.clone();
        let noted = spawn_blocking(move || {
            // What is known already says no less.
            let known = if end == SOMETHING { end.max(ends.of(id)) } else { end };
            ends.save([(id, known)], |_| false)
        });
        match noted.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(partition = %id, error = told(&error), "where an archive ends is not on the disk"),
            Err(panic) => error!(partition = %id, %panic, "writing down where an archive ends panicked"),
        }
    }

    /// Empties `log` and fills it from the archive that ends where `manifest` says.
    ///
    /// # Errors
    /// [`Unsettled`]: the archive cannot be read now; `log` is not complete.
    pub(super) async fn bring_back(
        &self,
        manifest: &Manifest,
        topic: &TopicImage,
        remote: Arc<RemotePartition>,
        log: &LocalLog,
    ) -> Result<(), Unsettled> {
        let (id, LogStartOffset(start), end) = (remote.partition(), manifest.log_start(), manifest.end());
        self.note_end(id, end).await;
        let failed = |why: String| {
            warn!(topic = %topic.name, partition = %id.index, why, "its log cannot be brought back yet");
            Unsettled
        };
        drop(log.truncate_fully(start, start).map_err(|error| failed(told(&error)))?.purge());
        let archived = self.reader.partition(remote);
        // As large as they were: they fitted the log's segments.
        archived.set_recompression(Recompression::Producer);
        let most = BRING_BACK_BYTES.min(topic.config.segment_bytes);
        let mut from = start;
        while from < end {
            let read = archived.read(from, end, most).await.map_err(|error| failed(told(&error)))?;
            let batches = read.pieces.concat();
            if !batches.is_empty() {
                let context = AppendContext {
                    leader_epoch: manifest.leader_epoch(),
                    now: Timestamp::default(),
                    origin: AppendOrigin::Replication,
                };
                log.append(&batches, context).map_err(|error| failed(told(&error)))?;
            }
            if read.end <= from {
                return Err(failed(format!("nothing could be read at offset {from}")));
            }
            from = read.end;
        }
        let open = open_transactions(log);
        if log.end().0 < end {
            // Compaction took the last records away. The next offset must lie behind them all the same, so that the local log
            // starts there, and what lies before is read from the archive.
            go_on_behind(manifest, topic, id, log)?;
        }
        let aborted = archived.aborted(start, end).await.map_err(|error| failed(told(&error)))?;
        end_transactions(log, open, &aborted, manifest.leader_epoch(), wall_clock())
            .map_err(|error| failed(told(&error)))?;
        info!(topic = %topic.name, partition = %id.index, %end, "the local log was lost and is back from the archive");
        Ok(())
    }
}

/// Producers with a transaction that is open at the end of the log.
fn open_transactions(log: &LocalLog) -> Vec<(ProducerId, ProducerEntry)> {
    log.producers().into_iter().filter(|(_, entry)| entry.open_since.is_some()).collect()
}

/// Ends transactions that were open at the end of an archive, as they were ended before: only what is decided goes up, but the
/// marker may have lain in the next segment. Nobody would send it again.
pub(super) fn end_transactions(
    log: &LocalLog,
    open: Vec<(ProducerId, ProducerEntry)>,
    aborted: &[AbortedTxn],
    leader_epoch: LeaderEpoch,
    now: Timestamp,
) -> Result<(), AppendError> {
    for (producer, entry) in open {
        let coordinator_epoch = entry.coordinator_epoch.unwrap_or(0);
        let was_aborted = aborted.iter().any(|txn| (txn.producer, Some(txn.first)) == (producer, entry.open_since));
        let marker = match was_aborted {
            true => ControlRecord::Abort { coordinator_epoch },
            false => ControlRecord::Commit { coordinator_epoch },
        };
        let context = AppendContext { leader_epoch, now, origin: AppendOrigin::Coordinator };
        log.append(&marker.batch(producer, entry.epoch, now), context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use varve_log::{
        format::{BatchBuilder, RecordContent},
        local::{LogConfig, RecoveryStart},
    };
    use varve_metadata::model::{LogEndOffset, ProducerEpoch, Sequence};

    use super::*;

    const EPOCH: LeaderEpoch = LeaderEpoch(3);

    /// The two records of a transaction, from `first` on, without their marker.
    fn open_transaction(producer: ProducerId, first: Offset) -> Vec<u8> {
        let mut batch = BatchBuilder::new(first)
            .leader_epoch(EPOCH)
            .producer(producer, ProducerEpoch(5), Some(Sequence::default()))
            .transactional();
        for key in [b"one", b"two"] {
            batch.push(RecordContent { timestamp: Some(wall_clock()), key: Some(key), value: None, headers: &[] });
        }
        batch.build().unwrap()
    }

    #[test]
    fn a_transaction_that_came_back_without_its_marker_ends_as_it_did() {
        let dir = tempfile::tempdir().unwrap();
        let now = wall_clock();
        let (log, _) = LocalLog::open(dir.path(), Arc::new(LogConfig::default()), RecoveryStart::NEW, now).unwrap();
        let [aborted, committed] = [7, 8].map(|id| ProducerId::from_wire(id).unwrap());
        let context = AppendContext { leader_epoch: EPOCH, now, origin: AppendOrigin::Replication };
        for (producer, first) in [(aborted, Offset::ZERO), (committed, Offset::ZERO.plus(2))] {
            log.append(&open_transaction(producer, first), context).unwrap();
        }
        let known = AbortedTxn {
            producer: aborted,
            first: Offset::ZERO,
            last: Offset::ZERO.plus(9),
            last_stable: Offset::ZERO,
        };

        end_transactions(&log, open_transactions(&log), &[known], EPOCH, now).unwrap();

        let LogEndOffset(end) = log.end();
        assert_eq!(end, Offset::ZERO.plus(6), "a marker for each");
        let found = log.aborted(Offset::ZERO, end).unwrap();
        assert_eq!(found.iter().map(|txn| (txn.producer, txn.first)).collect::<Vec<_>>(), [(aborted, Offset::ZERO)]);
        assert!(open_transactions(&log).is_empty());
    }

    #[test]
    fn where_the_log_goes_on_empty_behind_its_archive_the_markers_come_first() {
        let dir = tempfile::tempdir().unwrap();
        let now = wall_clock();
        let (log, _) = LocalLog::open(dir.path(), Arc::new(LogConfig::default()), RecoveryStart::NEW, now).unwrap();
        let producer = ProducerId::from_wire(7).unwrap();
        let context = AppendContext { leader_epoch: EPOCH, now, origin: AppendOrigin::Replication };
        log.append(&open_transaction(producer, Offset::ZERO), context).unwrap();
        let open = open_transactions(&log);
        let behind = Offset::ZERO.plus(9);
        drop(log.truncate_fully(behind, behind).unwrap());

        end_transactions(&log, open, &[], EPOCH, now).unwrap();

        assert_eq!(log.end(), LogEndOffset(behind.plus(1)));
        assert!(open_transactions(&log).is_empty());
    }
}
