//! Appending: offsets assigned, producers checked, one write, then published to readers.

use std::{io, io::IoSlice, sync::Arc};

use varve_metadata::{
    config::TimestampType,
    model::{LogEndOffset, LogStartOffset, Offset, Timestamp},
};

use super::{
    active::Incoming,
    config::LogConfig,
    epochs_file,
    error::AppendError,
    leader_epochs::EpochCache,
    log::{AppendContext, AppendOrigin, Appended, LocalLog, Writer},
    prepare::{Prepared, prepare},
    producer_state::{BatchMetadata, EndMarker, ProducerBatch, ProducerUpdate, Verdict},
    txn_index::{AbortedTxn, TxnIndexError},
    verification::{Admission, TransactionTerms},
    write::write_all_at,
};
use crate::format::{BatchHeader, ControlRecord, HEADER_BYTES, compression, records};

/// A control batch holds one record of a few bytes.
const CONTROL_BYTES: usize = 64 * 1024;

impl LocalLog {
    /// Appends whole batches: checked, offsets and leader epoch assigned, all or nothing. Copies no batch that is kept in the
    /// codec it came in. In the page cache when this returns; [`flush`](Self::flush) forces it to disk.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was written.
    pub fn append(&self, batches: &[u8], context: AppendContext) -> Result<Appended, AppendError> {
        self.append_in(batches, context, TransactionTerms::default())
    }

    /// The same for batches that concern a transaction.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was written.
    pub fn append_in(
        &self,
        batches: &[u8],
        context: AppendContext,
        terms: TransactionTerms,
    ) -> Result<Appended, AppendError> {
        let config = self.config();
        let prepared = prepare(batches, &config, &context)?;
        self.append_prepared(&mut self.writer.lock(), prepared, &config, &context, &terms)
    }

    fn append_prepared(
        &self,
        writer: &mut Writer,
        mut prepared: Vec<Prepared<'_>>,
        config: &LogConfig,
        context: &AppendContext,
        terms: &TransactionTerms,
    ) -> Result<Appended, AppendError> {
        self.mend(writer).map_err(AppendError::storage)?;
        let (log_start, end, epochs) = {
            let view = self.view.read();
            (view.log_start, view.end, self.epochs_with(&view.epochs, context))
        };
        let next = match context.origin {
            AppendOrigin::Replication => keep_offsets(&mut prepared, end, context)?,
            AppendOrigin::Client | AppendOrigin::Coordinator => assign_offsets(&mut prepared, end, context),
        };
        let mut appended = Appended {
            base: prepared.first().map_or(end, |first| first.header.base_offset),
            last: prepared.last().map_or(end, |last| last.header.last_offset()),
            log_append_time: log_append_time(config, context.now),
            duplicate: false,
            log_start: LogStartOffset(log_start),
            end: LogEndOffset(next),
            sealed_below: None,
        };
        let incoming = incoming(&prepared, config)?;
        let update = match check_producers(writer, &prepared, context.origin, config, terms)? {
            Producers::Fresh(update) => update,
            Producers::Duplicate(batch) => {
                (appended.base, appended.last) = (batch.first(), batch.last);
                // Kafka tells the time of the batch that is repeated, whoever gave it.
                appended.log_append_time = Timestamp::from_wire(batch.timestamp_ms);
                return Ok(Appended { duplicate: true, end: LogEndOffset(end), ..appended });
            }
        };
        if incoming.bytes == 0 {
            return Ok(appended);
        }
        if self.view.read().active.must_roll(incoming, config, context.now) {
            let base = self.roll_to(writer, appended.base).map_err(|error| AppendError::storage(error.into()))?;
            appended.sealed_below = Some(base);
        }
        let epochs = self.note_epochs(epochs, &prepared).map_err(AppendError::storage)?;
        self.write(writer, &prepared)?;
        prepared.iter().for_each(|batch| writer.verifications.note(&batch.header));
        writer.producers.tell_time(context.now.to_wire(), config.producer_expiry);
        self.apply(writer, update, next);
        self.publish(writer, &prepared, config, context, epochs);
        Ok(appended)
    }

    /// Before every change of files: cuts off what a failed write left behind the last batch.
    pub(super) fn mend(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.abandoned {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log was deleted"));
        }
        if writer.torn {
            let view = self.view.read();
            view.active.file.set_len(view.active.bytes.into())?;
            writer.torn = false;
        }
        Ok(())
    }

    /// The epochs to change if this append starts one; `None`, without a copy, in the usual case that it does not.
    fn epochs_with(&self, epochs: &EpochCache, context: &AppendContext) -> Option<EpochCache> {
        let current = epochs.latest().is_some_and(|(latest, _)| latest == context.leader_epoch);
        (!current || context.origin == AppendOrigin::Replication).then(|| epochs.clone())
    }

    /// Writes down which epoch starts at which offset before the first record of it is in the log.
    fn note_epochs(&self, epochs: Option<EpochCache>, prepared: &[Prepared<'_>]) -> io::Result<Option<EpochCache>> {
        let Some(mut epochs) = epochs else { return Ok(None) };
        let mut changed = false;
        for batch in prepared {
            changed |= batch.header.leader_epoch.is_some_and(|epoch| epochs.assign(epoch, batch.header.base_offset));
        }
        if changed {
            epochs_file::write(&self.dir(), &epochs)?;
        }
        Ok(changed.then_some(epochs))
    }

    /// One system call for the usual append: what is assigned here in front, the bytes as they came behind.
    fn write(&self, writer: &mut Writer, prepared: &[Prepared<'_>]) -> Result<(), AppendError> {
        let (file, position) = {
            let view = self.view.read();
            (Arc::clone(&view.active.file), u64::from(view.active.bytes))
        };
        let fronts: Vec<[u8; HEADER_BYTES]> = prepared.iter().map(|batch| batch.header.encode()).collect();
        let mut slices = Vec::with_capacity(2 * prepared.len());
        for (front, batch) in fronts.iter().zip(prepared) {
            slices.push(IoSlice::new(&front[..batch.front]));
            slices.push(IoSlice::new(&batch.bytes[batch.front..]));
        }
        write_all_at(&file, position, &mut slices, &mut writer.quota).map_err(|error| {
            // Readers never see the torn bytes; if they cannot be cut off now, the next append must begin with that.
            writer.torn = file.set_len(position).is_err();
            AppendError::storage(error)
        })
    }

    /// Applies what the append changed in producers, and puts ended transactions into the index.
    fn apply(&self, writer: &mut Writer, update: Option<ProducerUpdate>, next: Offset) {
        writer.producers.advance_to(next);
        let Some(update) = update else { return };
        let completed = writer.producers.apply(update);
        writer.unindexed.extend(completed);
        self.index_transactions(writer);
    }

    /// Lets readers see the append: its records, and which of them belong to a transaction that is open, in one step. Who saw
    /// a moved end with the bound of before would be let into that transaction.
    fn publish(
        &self,
        writer: &Writer,
        prepared: &[Prepared<'_>],
        config: &LogConfig,
        context: &AppendContext,
        epochs: Option<EpochCache>,
    ) {
        let mut view = self.view.write();
        if view.active.bytes == 0 {
            view.active.first_append = Some(context.now);
        }
        for batch in prepared {
            view.active.note(&batch.header, config, context.now);
        }
        view.end = writer.producers.end();
        view.first_unstable = writer.producers.first_unstable();
        if let Some(epochs) = epochs {
            view.epochs = epochs;
        }
    }

    /// Puts ended transactions into the index, in the order of their markers. What does not fit on the disk waits, and
    /// holds readers back, until an append succeeds again.
    fn index_transactions(&self, writer: &mut Writer) {
        if let Err(error) = self.index_all_transactions(writer) {
            tracing::warn!(%error, dir = %self.dir().display(), "aborted transaction waits for its index");
        }
    }

    /// As [`index_transactions`](Self::index_transactions), for what must not happen before all of them are there: a snapshot
    /// of the producers behind their markers, since the batches before it are not read again.
    pub(super) fn index_all_transactions(&self, writer: &mut Writer) -> Result<(), TxnIndexError> {
        let mut done = 0;
        let mut outcome = Ok(());
        for completed in &writer.unindexed {
            if completed.aborted {
                let last_stable = writer.producers.last_stable_offset(completed);
                let (producer, first, last) = (completed.producer, completed.first, completed.last);
                outcome = writer.txn_index.append(&AbortedTxn { producer, first, last, last_stable });
                if outcome.is_err() {
                    break;
                }
            }
            writer.producers.complete(completed);
            done += 1;
        }
        writer.unindexed.drain(..done);
        if done > 0 && !writer.txn_index.is_empty() {
            let mut view = self.view.write();
            let base = view.active.base();
            view.txn_bases.insert(base);
        }
        outcome
    }
}

fn log_append_time(config: &LogConfig, now: Timestamp) -> Option<Timestamp> {
    (config.timestamp_type == TimestampType::LogAppendTime).then_some(now)
}

/// Numbers the batches on from `end`; returns the offset behind them.
fn assign_offsets(prepared: &mut [Prepared<'_>], end: Offset, context: &AppendContext) -> Offset {
    prepared.iter_mut().fold(end, |next, batch| {
        batch.header.base_offset = next;
        batch.header.leader_epoch = Some(context.leader_epoch);
        batch.header.next_offset()
    })
}

/// Checks the offsets that a leader gave. Batches of an epoch that this replica has not heard of yet are left for later, so
/// that a leader which lost its place cannot bring them in (KAFKA-18723).
fn keep_offsets(prepared: &mut Vec<Prepared<'_>>, end: Offset, context: &AppendContext) -> Result<Offset, AppendError> {
    let newer = |batch: &Prepared<'_>| batch.header.leader_epoch.is_some_and(|epoch| epoch > context.leader_epoch);
    if let Some(first_newer) = prepared.iter().position(newer) {
        prepared.truncate(first_newer);
    }
    prepared.iter().try_fold(end, |expected, batch| {
        let found = batch.header.base_offset;
        if found < expected {
            Err(AppendError::OutOfOrderOffsets { expected, found })
        } else {
            Ok(batch.header.next_offset())
        }
    })
}

fn incoming(prepared: &[Prepared<'_>], config: &LogConfig) -> Result<Incoming, AppendError> {
    let bytes: u64 = prepared.iter().map(|batch| u64::from(batch.header.bytes)).sum();
    let limit = config.segment_bytes;
    if bytes > u64::from(limit) {
        return Err(AppendError::LargerThanSegment { bytes, limit });
    }
    Ok(Incoming {
        bytes: bytes as u32,
        last: prepared.last().map_or(Offset::ZERO, |last| last.header.last_offset()),
        max_timestamp_ms: prepared.iter().map(|batch| batch.header.max_timestamp_ms).max().unwrap_or(-1),
    })
}

enum Producers {
    Fresh(Option<ProducerUpdate>),
    Duplicate(BatchMetadata),
}

fn check_producers(
    writer: &Writer,
    prepared: &[Prepared<'_>],
    origin: AppendOrigin,
    config: &LogConfig,
    terms: &TransactionTerms,
) -> Result<Producers, AppendError> {
    if prepared.iter().all(|batch| batch.header.producer_id.is_none()) {
        return Ok(Producers::Fresh(None));
    }
    let mut update = writer.producers.update(origin);
    for batch in prepared {
        let beginning = batch.header.producer_id.and_then(|producer| writer.verifications.get(producer));
        let admission = Admission { beginning, guard: terms.guard, is_enforced: config.verify_transactions };
        if let Some(duplicate) = note_producer(&mut update, writer, batch, &admission, terms.raises_epoch)? {
            return Ok(Producers::Duplicate(duplicate));
        }
    }
    Ok(Producers::Fresh(Some(update)))
}

/// Checks one batch against what is known of its producer; the batch it repeats, if it does.
fn note_producer(
    update: &mut ProducerUpdate,
    writer: &Writer,
    batch: &Prepared<'_>,
    admission: &Admission,
    raises_epoch: bool,
) -> Result<Option<BatchMetadata>, AppendError> {
    match producer_event(&batch.header, batch.payload()) {
        Some(ProducerEvent::Data(batch)) => match update.data_in(&writer.producers, &batch, admission)? {
            Verdict::Fresh => Ok(None),
            Verdict::Duplicate(known) => Ok(Some(known)),
        },
        Some(ProducerEvent::End(marker)) => {
            let marker = EndMarker { raises_epoch, ..marker };
            Ok(update.marker(&writer.producers, &marker).map(|()| None)?)
        }
        None => Ok(None),
    }
}

/// What a batch means to producer state.
pub(super) enum ProducerEvent {
    Data(ProducerBatch),
    End(EndMarker),
}

/// `None` for batches without producer, and for control records that end no transaction.
pub(super) fn producer_event(header: &BatchHeader, payload: &[u8]) -> Option<ProducerEvent> {
    let producer = header.producer_id?;
    let epoch = header.producer_epoch.unwrap_or_default();
    if !header.attributes.is_control() {
        return Some(ProducerEvent::Data(ProducerBatch {
            producer,
            epoch,
            base_sequence: header.base_sequence,
            first: header.base_offset,
            last: header.last_offset(),
            timestamp_ms: header.max_timestamp_ms,
            transactional: header.attributes.is_transactional(),
        }));
    }
    let payload = compression::decompress(header.attributes.compression(), payload, CONTROL_BYTES).ok()?;
    let record = records(&payload, header.record_count).next()?.ok()?;
    let (coordinator_epoch, aborted) = match ControlRecord::parse(&record).ok()?? {
        ControlRecord::Commit { coordinator_epoch } => (coordinator_epoch, false),
        ControlRecord::Abort { coordinator_epoch } => (coordinator_epoch, true),
    };
    Some(ProducerEvent::End(EndMarker {
        producer,
        epoch,
        offset: header.last_offset(),
        timestamp_ms: header.max_timestamp_ms,
        coordinator_epoch,
        aborted,
        raises_epoch: false,
    }))
}
