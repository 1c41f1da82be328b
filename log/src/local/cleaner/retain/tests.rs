use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use varve_metadata::model::{ProducerEpoch, Sequence};

use super::*;
use crate::{
    format::{RecordContent, batches},
    local::AbortedTxn,
};

const DAY_MS: i64 = 86_400_000;

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_wire(millis).unwrap()
}

fn producer(raw: i64) -> ProducerId {
    ProducerId::from_wire(raw).unwrap()
}

/// A log in memory that is cleaned as the real one is: index the keys, then rewrite.
#[derive(Default)]
struct Log {
    batches: Vec<Vec<u8>>,
    end: u64,
    aborted: Vec<AbortedTxn>,
    last_records: HashMap<ProducerId, LastRecord>,
}

type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

impl Log {
    fn batch(&mut self, codec: Codec, edit: impl FnOnce(BatchBuilder) -> BatchBuilder, pairs: Pairs<'_>) {
        let mut builder = edit(BatchBuilder::new(offset(self.end)).compression(codec, None));
        for (key, value) in pairs {
            builder.push(RecordContent {
                timestamp: Some(time(1000)),
                key: Some(key.as_bytes()),
                value: value.map(str::as_bytes),
                headers: &[(b"h", None)],
            });
        }
        self.end += pairs.len() as u64;
        self.batches.push(builder.build().unwrap());
    }

    fn write(&mut self, pairs: Pairs<'_>) {
        self.batch(Codec::None, |builder| builder, pairs);
    }

    fn idempotent(&mut self, id: i64, sequence: i32, pairs: Pairs<'_>) {
        let edit =
            |builder: BatchBuilder| builder.producer(producer(id), ProducerEpoch(0), Sequence::from_wire(sequence));
        self.batch(Codec::None, edit, pairs);
    }

    fn transactional(&mut self, id: i64, pairs: Pairs<'_>) {
        let edit = |builder: BatchBuilder| builder.producer(producer(id), ProducerEpoch(0), None).transactional();
        self.batch(Codec::None, edit, pairs);
    }

    fn end_transaction(&mut self, id: i64, first: u64, aborted: bool) {
        let marker = if aborted {
            ControlRecord::Abort { coordinator_epoch: 0 }
        } else {
            ControlRecord::Commit { coordinator_epoch: 0 }
        };
        let mut bytes = marker.batch(producer(id), ProducerEpoch(0), time(1000));
        bytes[..8].copy_from_slice(&(self.end as i64).to_be_bytes());
        if aborted {
            let (first, last) = (offset(first), offset(self.end));
            self.aborted.push(AbortedTxn { producer: producer(id), first, last, last_stable: last.plus(1) });
        }
        self.batches.push(bytes);
        self.end += 1;
    }

    fn views(&self) -> Vec<RecordBatchView<'_>> {
        self.batches.iter().map(|bytes| RecordBatchView::parse(bytes).unwrap().0).collect()
    }

    /// One round over the whole log at `now`.
    fn clean(&mut self, now: i64) -> CleanerStats {
        let mut map = OffsetMap::new(1 << 16);
        let mut transactions = CleanedTransactions::default();
        transactions.announce(self.aborted.iter().copied());
        for batch in self.views() {
            assert!(index_batch(&batch, Offset::ZERO, &mut transactions, &mut map).unwrap());
        }
        let rules = BatchRules {
            latest: &map,
            now: time(now),
            delete_retention: Duration::from_millis(DAY_MS as u64),
            unheard_from: Offset::MAX,
            last_records: &self.last_records,
            round_end: offset(self.end),
        };
        let mut transactions = CleanedTransactions::default();
        transactions.announce(self.aborted.iter().copied());
        let mut stats = CleanerStats::default();
        let mut cleaned = Vec::new();
        for batch in self.views() {
            match clean_batch(&batch, &rules, &mut transactions, &mut stats).unwrap() {
                CleanedBatch::Kept => cleaned.push(batch.as_bytes().to_vec()),
                CleanedBatch::Dropped => {}
                CleanedBatch::Replaced(bytes) => cleaned.push(bytes),
            }
        }
        let written: usize = cleaned.iter().map(Vec::len).sum();
        assert_eq!(stats.bytes_kept, written as u64);
        self.aborted = transactions.take_retained();
        self.batches = cleaned;
        stats
    }

    /// Offset, key and value of every data record.
    fn records(&self) -> Vec<(u64, String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut all = Vec::new();
        for batch in self.views().iter().filter(|batch| !batch.header().attributes.is_control()) {
            let payload = uncompressed(batch).unwrap();
            for record in records(&payload, batch.header().record_count) {
                let record = record.unwrap();
                assert_eq!(batch.header().base_timestamp_ms + record.timestamp_delta, 1000, "timestamps stay");
                assert_eq!(record.headers().collect::<Vec<_>>(), [(&b"h"[..], None)], "headers stay");
                let at = offset_of(batch.header(), &record).get();
                all.push((at, text(record.key.unwrap()), record.value.map(text)));
            }
        }
        all
    }

    fn values(&self) -> Vec<(u64, String)> {
        self.records()
            .into_iter()
            .map(|(at, key, value)| (at, format!("{key}={}", value.unwrap_or_default())))
            .collect()
    }
}

fn pairs<'a>(expected: &'a [(u64, &'a str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(at, pair)| (*at, (*pair).to_owned())).collect()
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    for codec in Codec::ALL {
        let mut log = Log::default();
        log.batch(codec, |builder| builder, &[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]);
        log.batch(codec, |builder| builder, &[("c", Some("1")), ("b", Some("2"))]);
        log.write(&[("d", Some("1"))]);
        let stats = log.clean(0);
        assert_eq!(log.values(), pairs(&[(2, "a=2"), (3, "c=1"), (4, "b=2"), (5, "d=1")]), "{codec}");
        assert_eq!((stats.records_read, stats.records_kept), (6, 4));
        let first = *log.views()[0].header();
        assert_eq!((first.base_offset, first.last_offset_delta, first.record_count), (offset(0), 2, 1));
        assert_eq!(first.attributes.compression(), codec, "a rewritten batch keeps its codec");
    }
}

#[test]
fn a_batch_that_loses_nothing_stays_byte_for_byte() {
    let mut log = Log::default();
    log.batch(Codec::Zstd, |builder| builder, &[("a", Some("1")), ("b", Some("1"))]);
    let before = log.batches.clone();
    log.clean(0);
    assert_eq!(log.batches, before);
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    let mut log = Log::default();
    log.write(&[("a", Some("1")), ("b", Some("1"))]);
    log.write(&[("a", None)]);
    log.write(&[("z", Some("1"))]);
    log.clean(5000);
    assert_eq!(log.records()[1], (2, "a".to_owned(), None));
    assert_eq!(log.views()[1].header().delete_horizon(), Some(time(5000 + DAY_MS)));
    log.clean(5000 + DAY_MS - 1);
    assert_eq!(log.records().len(), 3, "the horizon is set once");
    log.clean(5000 + DAY_MS);
    assert_eq!(log.values(), pairs(&[(1, "b=1"), (3, "z=1")]));
}

#[test]
fn the_last_batch_of_the_round_stays_even_if_empty() {
    let mut log = Log::default();
    log.write(&[("a", Some("1"))]);
    log.write(&[("b", None)]);
    log.clean(0);
    log.clean(DAY_MS);
    let last = *log.views().last().unwrap().header();
    assert_eq!((last.base_offset, last.record_count, last.bytes), (offset(1), 0, 61));
    assert_eq!((last.base_timestamp_ms, last.attributes.has_delete_horizon()), (-1, false));
    assert_eq!(last.max_timestamp_ms, 1000);
    let before = log.batches.clone();
    log.clean(2 * DAY_MS);
    assert_eq!(log.batches, before);
}

#[test]
fn the_batch_with_a_producers_last_sequence_stays_even_if_empty() {
    let mut log = Log::default();
    log.idempotent(1, 0, &[("a", Some("1")), ("b", Some("1"))]);
    log.idempotent(1, 2, &[("a", Some("2")), ("b", Some("2"))]);
    log.idempotent(2, 0, &[("a", Some("3")), ("b", Some("3"))]);
    log.write(&[("z", Some("1"))]);
    log.last_records.insert(producer(1), LastRecord { last_data: Some(offset(3)), epoch: ProducerEpoch(0) });
    log.clean(0);
    assert_eq!(log.values(), pairs(&[(4, "a=3"), (5, "b=3"), (6, "z=1")]));
    let first = *log.views()[0].header();
    assert_eq!((first.record_count, first.base_offset, first.last_offset()), (0, offset(2), offset(3)));
    assert_eq!((first.producer_id, first.last_sequence()), (Some(producer(1)), Sequence::from_wire(3)));
    log.last_records.clear();
    log.clean(0);
    assert_eq!(log.batches.len(), 2, "once the producer has expired, nothing keeps the batch");
}

#[test]
fn aborted_records_go_and_their_marker_follows_a_round_and_its_time_later() {
    let mut log = Log::default();
    log.write(&[("a", Some("0"))]);
    log.transactional(1, &[("a", Some("1")), ("b", Some("1"))]);
    log.transactional(2, &[("a", Some("2"))]);
    log.end_transaction(1, 1, true);
    log.end_transaction(2, 3, false);
    log.write(&[("z", Some("1"))]);
    log.clean(0);
    assert_eq!(log.values(), pairs(&[(3, "a=2"), (6, "z=1")]), "an aborted record is no later one");
    assert_eq!(log.aborted.len(), 1, "readers that were inside need the marker and the index");
    let markers = |log: &Log| log.views().iter().filter(|batch| batch.header().attributes.is_control()).count();
    assert_eq!(markers(&log), 2);
    log.clean(10);
    assert_eq!((markers(&log), log.aborted.len()), (2, 0), "its transaction is empty: the time begins");
    let horizons: Vec<_> = log.views().iter().filter_map(|batch| batch.header().delete_horizon()).collect();
    assert_eq!(horizons, [time(10 + DAY_MS)], "the commit still has a record");
    log.clean(10 + DAY_MS);
    assert_eq!((markers(&log), log.values()), (1, pairs(&[(3, "a=2"), (6, "z=1")])));
}

#[test]
fn a_marker_that_is_a_producers_last_word_stays_for_its_epoch() {
    let mut log = Log::default();
    log.end_transaction(1, 0, false);
    log.write(&[("z", Some("1"))]);
    log.last_records.insert(producer(1), LastRecord { last_data: None, epoch: ProducerEpoch(0) });
    log.clean(0);
    log.clean(DAY_MS);
    let first = *log.views()[0].header();
    assert!(first.attributes.is_control() && first.attributes.is_transactional());
    assert_eq!((first.record_count, first.producer_epoch), (0, Some(ProducerEpoch(0))));
}

#[test]
fn what_the_map_does_not_cover_stays_and_keyless_records_go() {
    let mut log = Log::default();
    log.write(&[("a", Some("1"))]);
    let mut keyless = BatchBuilder::new(offset(1));
    keyless.push(RecordContent { value: Some(b"v"), ..RecordContent::default() });
    log.batches.push(keyless.build().unwrap());
    log.end = 2;
    log.write(&[("a", Some("2"))]);
    let stats = log.clean(0);
    assert_eq!((log.values(), stats.records_without_key), (pairs(&[(2, "a=2")]), 1));

    let empty = OffsetMap::new(0);
    let (none, retention) = (HashMap::new(), Duration::ZERO);
    let rules = BatchRules {
        latest: &empty,
        now: time(0),
        delete_retention: retention,
        unheard_from: Offset::MAX,
        last_records: &none,
        round_end: offset(9),
    };
    let outcome =
        clean_batch(&log.views()[0], &rules, &mut CleanedTransactions::default(), &mut CleanerStats::default());
    assert_eq!(outcome.unwrap(), CleanedBatch::Kept);
}

#[test]
fn a_damaged_batch_is_an_error() {
    let mut log = Log::default();
    log.batch(Codec::Zstd, |builder| builder, &[("a", Some("1"))]);
    let mut bytes = log.batches[0].clone();
    bytes[70] ^= 0xFF;
    let (batch, _) = RecordBatchView::parse_trusted(&bytes).unwrap();
    let outcome = index_batch(&batch, Offset::ZERO, &mut CleanedTransactions::default(), &mut OffsetMap::new(0));
    assert!(matches!(outcome, Err(CleanError::Codec { .. } | CleanError::Record { .. })));
}

proptest! {
    /// Whatever was written and however often it is cleaned: a reader who takes the last value of each key sees the same.
    #[test]
    fn cleaning_never_changes_the_last_value_of_a_key(
        writes in proptest::collection::vec(proptest::collection::vec((0_u8..6, proptest::option::of(0_u8..9)), 1..5), 1..12),
        rounds in proptest::collection::vec(0_i64..3 * DAY_MS, 1..4),
    ) {
        let mut log = Log::default();
        for (index, write) in writes.iter().enumerate() {
            let owned: Vec<_> = write.iter().map(|(key, value)| (key.to_string(), value.map(|value| value.to_string()))).collect();
            let pairs: Vec<_> = owned.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            log.batch(Codec::ALL[index % 5], |builder| builder, &pairs);
        }
        let view = |log: &Log| -> BTreeMap<String, String> {
            let mut last = BTreeMap::new();
            for (_, key, value) in log.records() {
                match value {
                    Some(value) => last.insert(key, value),
                    None => last.remove(&key),
                };
            }
            last
        };
        let (before, all) = (view(&log), log.records());
        let mut now = 0;
        for round in rounds {
            now += round;
            log.clean(now);
            prop_assert_eq!(view(&log), before.clone());
            let records = log.records();
            prop_assert!(records.iter().all(|record| all.contains(record)), "a record is kept as it was or not at all");
            let keys: HashSet<_> = records.iter().map(|(_, key, _)| key).collect();
            prop_assert_eq!(keys.len(), records.len(), "one record per key");
            let concatenated: Vec<u8> = log.batches.concat();
            prop_assert!(batches(&concatenated).all(|batch| batch.is_ok()));
            prop_assert_eq!(log.views().last().unwrap().header().next_offset(), offset(log.end));
        }
    }
}
