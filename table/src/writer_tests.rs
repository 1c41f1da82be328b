use std::ops::Range;

use proptest::prelude::*;
use varve_log::format::{batches, records};

use super::*;
use crate::{
    arbitrary::{Stretch, any_stretch},
    reader::Recompression,
    tags::Tag,
};

/// Options that spread even a small stretch over several groups and pages.
fn small_groups() -> EncodeOptions {
    EncodeOptions {
        group_bytes: 600,
        group_batches: 7,
        page_bytes: 100,
        tag_filter_max_bytes: 2048,
        ..EncodeOptions::default()
    }
}

fn encoded(stretch: &Stretch, options: EncodeOptions) -> EncodedTable {
    encode(stretch.batches(), stretch.meta.clone(), options).expect("encodes")
}

fn open(object: &Bytes) -> TableFooter {
    TableFooter::parse(object.len() as u64, object.clone()).expect("our own object")
}

/// Fetches exactly the ranges asked for.
fn fetch(object: &Bytes, ranges: &[Range<u64>]) -> Fetched {
    let mut fetched = Fetched::new(object.len() as u64);
    for range in ranges {
        fetched.add(range.start, object.slice(range.start as usize..range.end as usize));
    }
    fetched
}

/// Everything from `from` on, read in pieces of about `max_bytes`.
fn read_all(object: &Bytes, from: u64, max_bytes: u64, recompression: Recompression) -> Vec<u8> {
    let footer = open(object);
    let mut from = varve_metadata::model::Offset::new(from).expect("small");
    let mut run = Vec::new();
    while let Some(plan) = footer.plan(from, max_bytes).expect("sound") {
        let fetched = fetch(object, plan.ranges());
        run.extend_from_slice(&footer.decode(&plan, &fetched, recompression).expect("sound"));
        assert!(plan.end() > from);
        from = plan.end();
    }
    run
}

/// A batch as consumers may compare it: header without length, CRC and codec, and the uncompressed records.
fn meaning(batch: &RecordBatchView<'_>) -> (BatchHeader, Vec<u8>) {
    let codec = batch.header().attributes.compression();
    let attributes = batch.header().attributes.with_compression(Codec::None);
    let header = BatchHeader { bytes: 0, crc: 0, attributes, ..*batch.header() };
    let payload = compression::decompress(codec, batch.payload(), 1 << 20);
    (header, payload.map_or_else(|_| batch.payload().to_vec(), |records| records.into_owned()))
}

fn meanings(log: &[u8]) -> Vec<(BatchHeader, Vec<u8>)> {
    batches(log).map(|batch| meaning(&batch.expect("length, magic and CRC hold"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_batches_come_back_identical_from_any_offset(
        stretch in any_stretch(), skip in 0u64..200, max_bytes in 1u64..3000,
    ) {
        let table = encoded(&stretch, small_groups());
        let from = stretch.meta.base.get() + skip;
        let expected: Vec<_> = stretch
            .batches()
            .iter()
            .filter(|batch| batch.header().next_offset().get() > from)
            .map(meaning)
            .collect();
        let run = read_all(&table.bytes, from, max_bytes, Recompression::None);
        prop_assert_eq!(meanings(&run), expected);
    }

    #[test]
    fn whole_groups_and_the_producers_codec_come_back_too(stretch in any_stretch()) {
        let table = encoded(&stretch, small_groups());
        let footer = open(&table.bytes);
        let mut from = stretch.meta.base;
        let mut run = Vec::new();
        while let Some(plan) = footer.plan_group(from).expect("sound") {
            let fetched = fetch(&table.bytes, plan.ranges());
            footer
                .decode_each(&plan, &fetched, Recompression::Producer, |batch, bytes| {
                    assert_eq!(&bytes[..8], batch.header.base_offset.to_wire().to_be_bytes());
                    run.extend_from_slice(bytes);
                })
                .expect("sound");
            from = plan.end();
        }
        prop_assert_eq!(meanings(&run), meanings(&stretch.log));
        let codecs = |log: &[u8]| -> Vec<Codec> {
            batches(log).map(|batch| batch.expect("whole").header().attributes.compression()).collect()
        };
        prop_assert_eq!(codecs(&run), codecs(&stretch.log));
    }

    #[test]
    fn an_object_made_from_an_object_is_the_same_object(stretch in any_stretch()) {
        let table = encoded(&stretch, small_groups());
        let footer = open(&table.bytes);
        let plan = footer.plan(stretch.meta.base, u64::MAX).expect("sound").expect("batches");
        let mut writer = TableWriter::new(Vec::new(), stretch.meta.clone(), small_groups()).expect("starts");
        let each = |batch: &BatchEntry, bytes: &[u8]| match batch.kind.is_rebuilt() {
            true => writer.push_records(&batch.header, Bytes::copy_from_slice(&bytes[HEADER_BYTES..])).expect("in order"),
            false => writer.push(&RecordBatchView::parse(bytes).expect("whole").0).expect("in order"),
        };
        footer.decode_each(&plan, &Fetched::whole(table.bytes.clone()), Recompression::None, each).expect("sound");
        let (again, _) = writer.finish().expect("sound");
        prop_assert_eq!(Bytes::from(again), table.bytes);
    }

    #[test]
    fn rows_are_the_committed_records_and_nothing_else(stretch in any_stretch()) {
        let table = encoded(&stretch, small_groups());
        prop_assert_eq!(table.summary.rows, stretch.committed);
        let footer = open(&table.bytes);
        prop_assert_eq!(footer.rows(), stretch.committed);
        prop_assert_eq!(footer.aborted(), &stretch.meta.aborted[..]);
        prop_assert_eq!(footer.leader_epochs(), &stretch.meta.leader_epochs[..]);
        prop_assert_eq!((footer.base(), footer.end()), (stretch.meta.base, stretch.meta.end));
        prop_assert_eq!(footer.partition(), stretch.meta.partition);
        let producers = footer.producers().expect("given");
        prop_assert_eq!(&table.bytes[producers.start as usize..producers.end as usize], b"snapshot");
        prop_assert_eq!(table.summary.crc32c, crc32c::crc32c(&table.bytes));
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(table.bytes.clone());
        let rows: usize = reader.expect("Parquet").build().expect("reads").map(|rows| rows.expect("rows").num_rows()).sum();
        prop_assert_eq!(rows as u64, stretch.committed);
    }

    #[test]
    fn every_key_and_header_of_a_row_is_found_by_its_tag(stretch in any_stretch()) {
        let table = encoded(&stretch, small_groups());
        let filter = open(&table.bytes).tags().map(|range| table.bytes.slice(range.start as usize..range.end as usize));
        for batch in stretch.batches() {
            let (header, payload) = meaning(&batch);
            if header.attributes.is_control() || is_aborted(&stretch.meta.aborted, &header) {
                continue;
            }
            let Some(rows) = CheckedRecords::walk(&header, payload.clone().into()) else { continue };
            drop(rows);
            for record in records(&payload, header.record_count).flatten() {
                let tags = record.headers().filter_map(|(key, value)| Some(Tag::header(key, value?)));
                for tag in tags.chain(record.key.map(Tag::key)) {
                    let filter = filter.as_ref().expect("a filter");
                    let block = tag.block(filter.len() as u64).expect("a filter");
                    let block = &filter[block.start as usize..block.end as usize];
                    prop_assert!(tag.may_be_in(block.try_into().expect("32 bytes")));
                }
            }
        }
    }

    #[test]
    fn keys_are_read_without_anything_else(stretch in any_stretch()) {
        let table = encoded(&stretch, small_groups());
        let footer = open(&table.bytes);
        let mut expected = Vec::new();
        for batch in stretch.batches() {
            let (header, payload) = meaning(&batch);
            let hidden = header.attributes.is_control() || is_aborted(&stretch.meta.aborted, &header);
            if !hidden && CheckedRecords::walk(&header, payload.clone().into()).is_some() {
                let keys = records(&payload, header.record_count).flatten();
                expected.extend(keys.map(|record| {
                    (header.base_offset.plus(record.offset_delta as u64), record.key.map(<[u8]>::to_vec))
                }));
            }
        }
        let mut found = Vec::new();
        for group in 0..footer.groups().len() {
            let Some(plan) = footer.plan_keys(group) else { continue };
            let fetched = fetch(&table.bytes, plan.ranges());
            footer
                .decode_keys(&plan, &fetched, |offset, key| found.push((offset, key.map(<[u8]>::to_vec))))
                .expect("sound");
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_damaged_object_is_refused_or_right_but_never_panics(
        stretch in any_stretch(), at: prop::sample::Index, flip in 1u8..,
    ) {
        let table = encoded(&stretch, small_groups());
        let mut object = table.bytes.to_vec();
        let at = at.index(object.len());
        object[at] ^= flip;
        let object = Bytes::from(object);
        let Ok(footer) = TableFooter::parse(object.len() as u64, object.clone()) else { return Ok(()) };
        let Ok(Some(plan)) = footer.plan(stretch.meta.base, u64::MAX) else { return Ok(()) };
        let Ok(run) = footer.decode(&plan, &Fetched::whole(object), Recompression::None) else { return Ok(()) };
        // What is rebuilt is covered by a CRC in the table, what is carried by the batch's own CRC.
        for (found, expected) in batches(&run).zip(stretch.batches()) {
            let Ok(found) = found else { break };
            prop_assert_eq!(meaning(&found).1, meaning(&expected).1);
        }
    }

    #[test]
    fn the_tail_may_come_in_pieces(stretch in any_stretch(), first in 0usize..400) {
        let table = encoded(&stretch, small_groups());
        let len = table.bytes.len();
        let mut from = len - first.min(len);
        let footer = loop {
            match TableFooter::parse(len as u64, table.bytes.slice(from..)) {
                Ok(footer) => break footer,
                Err(FooterError::NeedMore { from: more }) => {
                    prop_assert!((more as usize) < from);
                    from = more as usize;
                }
                Err(other) => panic!("{other:?}"),
            }
        };
        prop_assert_eq!(footer.rows(), stretch.committed);
    }
}

#[test]
fn batches_out_of_order_or_outside_the_range_are_refused() {
    let stretch = one_stretch();
    let batches = stretch.batches();
    let mut writer = TableWriter::new(Vec::new(), stretch.meta.clone(), small_groups()).expect("starts");
    writer.push(&batches[0]).expect("in order");
    assert!(matches!(writer.push(&batches[0]), Err(EncodeError::Order { .. })));
    let meta = TableMeta { end: batches[0].header().base_offset, ..stretch.meta.clone() };
    let mut writer = TableWriter::new(Vec::new(), meta, small_groups()).expect("starts");
    assert!(matches!(writer.push(&batches[0]), Err(EncodeError::Order { .. })));
}

#[test]
fn an_object_without_batches_answers_for_its_range_with_nothing() {
    let stretch = one_stretch();
    let table = encode([], stretch.meta.clone(), small_groups()).expect("encodes");
    let footer = open(&table.bytes);
    assert_eq!((footer.base(), footer.end(), footer.rows()), (stretch.meta.base, stretch.meta.end, 0));
    assert!(footer.plan(stretch.meta.base, 1 << 20).expect("sound").is_none());
}

#[test]
fn a_null_value_shows_without_reading_the_column() {
    use varve_log::format::{BatchBuilder, RecordContent};
    for value in [Some(&b"value"[..]), None] {
        let mut batch = BatchBuilder::new(varve_metadata::model::Offset::ZERO);
        batch.push(RecordContent { key: Some(b"key"), value, ..RecordContent::default() });
        let meta = TableMeta { base: varve_metadata::model::Offset::ZERO, aborted: Vec::new(), ..one_stretch().meta };
        let log = batch.build().expect("no codec");
        let table = encode(batches(&log).flatten(), meta, small_groups()).expect("encodes");
        assert_eq!(open(&table.bytes).may_have_tombstones(0), value.is_none());
    }
}

fn one_stretch() -> Stretch {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    proptest::strategy::ValueTree::current(&any_stretch().new_tree(&mut runner).expect("a stretch"))
}

#[test]
fn a_parquet_file_of_others_is_refused() {
    let mut file = Vec::new();
    let writer = SerializedFileWriter::new(&mut file, parquet_schema().root_schema_ptr(), Default::default());
    writer.expect("starts").close().expect("closes");
    let len = file.len() as u64;
    assert!(matches!(TableFooter::parse(len, file.into()), Err(FooterError::Foreign(_))));
    assert!(matches!(TableFooter::parse(11, Bytes::from_static(b"not parquet")), Err(FooterError::Foreign(_))));
}

proptest! {
    #[test]
    fn a_footer_does_not_hold_the_tail_that_it_was_read_from(stretch in any_stretch()) {
        let object = encoded(&stretch, small_groups()).bytes;
        let tail = Bytes::from(object.to_vec());
        let footer = TableFooter::parse(object.len() as u64, tail.clone()).expect("our own object");
        prop_assert!(tail.is_unique(), "caches weigh what a footer says that it takes");
        prop_assert!(footer.memory_bytes() > 0);
    }
}
