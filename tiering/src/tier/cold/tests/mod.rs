mod archive;
mod store;

use std::sync::Arc;

use archive::{Archive, bucket, committed, contents, handle, millis, offset};
use proptest::prelude::*;
use store::Steering;
use varve_log::format::batches;
use varve_metadata::{config::Codec, model::LeaderEpoch};
use varve_table::Recompression;

use super::*;
use crate::{
    manifest::{Limits, Writer},
    tier::{
        bucket::{Bucket, BucketMetrics, BucketOptions},
        manifests::ManifestStore,
        partition::RemotePartition,
    },
};

async fn reader(options: ColdOptions) -> ColdReader {
    ColdReader::open(options, ColdMetrics::new()).await.unwrap()
}

fn small() -> ColdOptions {
    ColdOptions { raw_unit_bytes: 64 << 10, ..ColdOptions::default() }
}

/// Reads from `from` to `to` as a consumer does; gives all bytes and all aborted transactions.
async fn read_all(
    partition: &ColdPartition,
    from: u64,
    to: u64,
    max_bytes: u32,
) -> (Vec<u8>, Vec<varve_log::local::AbortedTxn>) {
    let (mut at, mut run, mut aborted) = (from, Vec::new(), Vec::new());
    while at < to {
        let read = partition.read(offset(at), offset(to), max_bytes).await.unwrap();
        assert!(read.end > offset(at), "a read at {at} goes on");
        read.pieces.iter().for_each(|piece| run.extend_from_slice(piece));
        aborted.extend(read.aborted);
        at = read.end.get();
    }
    (run, aborted)
}

/// Two objects of 20 batches of 10 records each: offsets 0 to 400, about 200 KiB each.
async fn two_objects(steering: &Steering, parquet: bool) -> Archive {
    let mut archive = Archive::new(&bucket(steering));
    for end in [200, 400] {
        for _ in 0..20 {
            archive.append(Codec::None, None, false, 10, 1 << 10);
        }
        let object = archive.upload(end).await;
        if parquet {
            archive.convert(&[object]).await;
        }
    }
    archive
}

#[tokio::test]
async fn what_was_uploaded_comes_back_byte_for_byte_from_any_offset() {
    for parquet in [false, true] {
        let archive = two_objects(&Steering::default(), parquet).await;
        let partition = reader(small()).await.partition(archive.remote.clone());
        for from in (0..400).step_by(7) {
            let (run, _) = read_all(&partition, from, 400, 100_000).await;
            assert_eq!(run, archive.bytes(from / 10 * 10, 400), "from {from}, parquet {parquet}");
        }
    }
}

#[tokio::test]
async fn a_read_keeps_to_its_bounds() {
    let archive = two_objects(&Steering::default(), false).await;
    let partition = reader(small()).await.partition(archive.remote.clone());
    assert_eq!(partition.bounds(), Some((offset(0), offset(400))));
    let one = partition.read(offset(15), offset(400), 1).await.unwrap();
    assert_eq!((one.end, one.len()), (offset(20), archive.bytes(10, 20).len()), "one batch, however large");
    let bounded = partition.read(offset(15), offset(35), u32::MAX).await.unwrap();
    assert_eq!(bounded.end, offset(30), "a batch that reaches beyond the bound is not given");
    let nothing = partition.read(offset(15), offset(18), u32::MAX).await.unwrap();
    assert!(nothing.is_empty());
    for from in [400, 1000] {
        let outcome = partition.read(offset(from), offset(2000), 1).await;
        assert!(matches!(outcome, Err(ColdError::OutOfRange(_))));
    }
}

#[tokio::test]
async fn a_batch_that_is_larger_than_asked_for_once_uncompressed_comes_as_its_producer_compressed_it() {
    let mut archive = Archive::new(&bucket(&Steering::default()));
    for _ in 0..3 {
        archive.append(Codec::Zstd, None, false, 100, 10_000);
    }
    let object = archive.upload(300).await;
    archive.convert(&[object]).await;
    let partition = reader(small()).await.partition(archive.remote.clone());
    for from in [0, 150] {
        let read = partition.read(offset(from), offset(300), 100_000).await.unwrap();
        let sent = archive.bytes(from / 100 * 100, from / 100 * 100 + 100);
        assert!(read.len() <= 100_000 && sent.len() < 100_000, "{} bytes of {}", read.len(), sent.len());
        assert_eq!((contents(&read.pieces.concat()), read.end.get()), (contents(&sent), from / 100 * 100 + 100));
    }
    let roomy = partition.read(offset(0), offset(300), 2 << 20).await.unwrap();
    assert!(roomy.len() > 1 << 20, "what fits is given out uncompressed");
}

#[tokio::test]
async fn all_who_ask_for_the_same_share_one_fetch() {
    let steering = Steering::default();
    let archive = two_objects(&steering, false).await;
    let cold = reader(small()).await;
    let readers: Vec<_> = (0..20).map(|_| cold.partition(archive.remote.clone())).collect();
    let reads = readers.iter().map(|partition| partition.read(offset(0), offset(400), 1000));
    let outcomes = futures::future::join_all(reads).await;
    assert!(outcomes.into_iter().all(|read| read.unwrap().end == offset(10)));
    // The object is so small that opening it reads it whole.
    assert_eq!(steering.reads(), 1);
    readers[0].read(offset(0), offset(400), 1000).await.unwrap();
    assert_eq!((steering.reads(), cold.metrics().lookups("memory") >= 1), (1, true));
}

#[tokio::test]
async fn bytes_that_arrive_after_the_asker_has_given_up_fill_the_cache() {
    let steering = Steering::default();
    let archive = two_objects(&steering, true).await;
    let cold = reader(small()).await;
    let partition = cold.partition(archive.remote.clone());
    steering.hold().await;
    let impatient = partition.clone();
    let asker = tokio::spawn(async move { impatient.read(offset(0), offset(400), 1000).await });
    steering.held(1).await;
    asker.abort();
    assert!(asker.await.unwrap_err().is_cancelled());
    steering.release();
    partition.read(offset(0), offset(400), 1000).await.unwrap();
    assert_eq!(steering.reads(), 1, "what the first one began was not begun again");
}

#[tokio::test]
async fn weather_is_ridden_out_and_a_storm_is_an_error_that_passes() {
    let steering = Steering::default();
    let archive = two_objects(&steering, true).await;
    let partition = reader(small()).await.partition(archive.remote.clone());
    steering.fail_next(2);
    assert_eq!(partition.read(offset(0), offset(400), 1).await.unwrap().end, offset(10));
    let partition = reader(small()).await.partition(archive.remote.clone());
    steering.fail_next(3);
    let outcome = partition.read(offset(0), offset(400), 1).await;
    assert!(matches!(outcome, Err(ColdError::Unavailable(_))), "{outcome:?}");
    assert_eq!(partition.read(offset(0), offset(400), 1).await.unwrap().end, offset(10));
}

#[tokio::test]
async fn an_object_that_is_gone_is_found_again_by_a_newer_manifest() {
    let mut archive = Archive::new(&bucket(&Steering::default()));
    (0..20).for_each(|_| archive.append(Codec::None, None, false, 10, 100));
    let raw = archive.upload(200).await;
    // Another process, with a manifest of before the conversion.
    let cold = reader(small()).await;
    let partition = cold.partition(handle(&archive.bucket, archive.partition));
    partition.remote().refresh().await.unwrap();
    archive.convert(std::slice::from_ref(&raw)).await;
    archive.bucket.delete(&raw.key(archive.partition, &archive::topic())).await.unwrap();
    let (run, _) = read_all(&partition, 0, 200, 1 << 20).await;
    assert_eq!(run, archive.bytes(0, 200));
}

#[tokio::test]
async fn an_object_that_is_lost_is_a_clear_error() {
    let mut archive = Archive::new(&bucket(&Steering::default()));
    archive.append(Codec::None, None, false, 10, 100);
    let raw = archive.upload(10).await;
    archive.bucket.delete(&raw.key(archive.partition, &archive::topic())).await.unwrap();
    let partition = reader(small()).await.partition(archive.remote.clone());
    let outcome = partition.read(offset(0), offset(10), 1).await;
    assert!(matches!(outcome, Err(ColdError::Vanished(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_damaged_object_is_an_error_and_never_a_wrong_record() {
    for parquet in [false, true] {
        let mut archive = Archive::new(&bucket(&Steering::default()));
        (0..10).for_each(|_| archive.append(Codec::None, None, false, 10, 500));
        let mut object = archive.upload(100).await;
        if parquet {
            object = archive.convert(&[object]).await;
        }
        let key = object.key(archive.partition, &archive::topic());
        let good = archive.bucket.get(&key, 1 << 30).await.unwrap();
        for at in (0..good.len()).step_by(good.len() / 97) {
            let mut bad = good.to_vec();
            bad[at] ^= 0x55;
            archive.bucket.put(&key, bad.into()).await.unwrap();
            let partition = reader(small()).await.partition(archive.remote.clone());
            match partition.read(offset(0), offset(100), u32::MAX).await {
                // Columns hold bytes that nothing needs, such as statistics.
                Ok(read) => assert_eq!(contents(&read.pieces.concat()), contents(&archive.bytes(0, read.end.get()))),
                Err(error) => assert!(matches!(error, ColdError::Corrupt { .. }), "{at}: {error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn many_partitions_go_on_together_within_the_budget() {
    let steering = Steering::default();
    let store = bucket(&steering);
    let mut archives = Vec::new();
    for index in 0..24 {
        let mut archive = Archive::new(&store);
        // Larger than what is read whole on opening.
        (0..30).for_each(|_| archive.append(Codec::None, None, false, 10, 3 << 10));
        let object = archive.upload(300).await;
        if index % 2 == 0 {
            archive.convert(&[object]).await;
        }
        archives.push(archive);
    }
    let options = ColdOptions { in_flight_reads: 4, in_flight_bytes: 4 << 20, ..small() };
    let cold = reader(options).await;
    let consume = |archive: &Archive| {
        let partition = cold.partition(archive.remote.clone());
        let expected = archive.bytes(0, 300);
        async move { assert_eq!(read_all(&partition, 0, 300, 200_000).await.0, expected) }
    };
    futures::future::join_all(archives.iter().map(consume)).await;
    assert!(cold.metrics().fetches("demand") > 0);
    assert_eq!(cold.metrics().in_flight_bytes(), 0);
    // Four reads, of which each may fetch several ranges of its object.
    assert!(steering.most_at_once() <= 4 * 4, "{}", steering.most_at_once());
}

#[tokio::test]
async fn a_reader_that_reads_on_finds_the_next_units_waiting() {
    let mut archive = Archive::new(&bucket(&Steering::default()));
    (0..200).for_each(|_| archive.append(Codec::None, None, false, 10, 1 << 10));
    archive.upload(2000).await;
    let cold = reader(small()).await;
    let partition = cold.partition(archive.remote.clone());
    let (run, _) = read_all(&partition, 0, 2000, 30_000).await;
    assert_eq!(run, archive.bytes(0, 2000));
    let (ahead, demand) = (cold.metrics().fetches("ahead"), cold.metrics().fetches("demand"));
    assert!(ahead > demand, "{ahead} ahead, {demand} on demand");
    let fetched = cold.metrics().fetched_bytes("ahead") + cold.metrics().fetched_bytes("demand");
    assert!(fetched <= run.len() as u64, "nothing is fetched twice");
}

#[tokio::test]
async fn the_newest_record_is_one_that_can_be_read_also_where_a_newer_one_is_deleted() {
    for parquet in [false, true] {
        let mut archive = Archive::new(&bucket(&Steering::default()));
        for (end, batches) in [(7, &[&[9000, 1001, 1002][..], &[1003, 5000, 1004, 5000]][..]), (8, &[&[4000]])] {
            batches.iter().for_each(|times| archive.append_times(times));
            let object = archive.upload(end).await;
            if parquet {
                archive.convert(&[object]).await;
            }
        }
        let partition = reader(small()).await.partition(archive.remote.clone());
        let newest = async |from| {
            let found = partition.max_timestamp_offset(offset(from)).await.unwrap();
            found.map(|found| (found.offset.get(), found.timestamp.to_wire()))
        };
        assert_eq!(newest(0).await, Some((0, 9000)), "parquet {parquet}");
        archive.remote.update(|manifest| manifest.expire(Writer::Compactor, offset(1), millis(1))).await.unwrap();
        let found = [newest(0).await, newest(5).await, newest(7).await, newest(8).await];
        assert_eq!(found, [Some((4, 5000)), Some((6, 5000)), Some((7, 4000)), None], "parquet {parquet}");
    }
}

#[tokio::test]
async fn lookups_by_time_and_epoch_reach_into_the_archive() {
    for parquet in [false, true] {
        let archive = two_objects(&Steering::default(), parquet).await;
        let partition = reader(small()).await.partition(archive.remote.clone());
        for (target, from, expected) in [(0, 0, Some(0)), (1155, 0, Some(155)), (1155, 230, Some(230)), (1400, 0, None)]
        {
            let found = partition.offset_for_timestamp(millis(target), offset(from)).await.unwrap();
            assert_eq!(found.map(|found| found.offset.get()), expected, "{target} from {from}, parquet {parquet}");
        }
        let newest = partition.max_timestamp_offset(offset(0)).await.unwrap().unwrap();
        assert_eq!(
            (newest.offset, newest.timestamp, newest.leader_epoch),
            (offset(399), millis(1399), Some(LeaderEpoch(0)))
        );
        assert_eq!(partition.end_of_epoch(LeaderEpoch(5)), Some((LeaderEpoch(0), offset(400))));
        assert_eq!((partition.epoch_at(offset(3)), partition.epoch_at(offset(400))), (Some(LeaderEpoch(0)), None));
    }
}

#[tokio::test]
async fn batches_out_of_parquet_can_be_given_with_their_producers_codec() {
    let mut archive = Archive::new(&bucket(&Steering::default()));
    (0..10).for_each(|_| archive.append(Codec::Zstd, None, false, 10, 100));
    let object = archive.upload(100).await;
    archive.convert(&[object]).await;
    let partition = reader(small()).await.partition(archive.remote.clone());
    for (recompression, codec) in [(Recompression::None, Codec::None), (Recompression::Producer, Codec::Zstd)] {
        partition.set_recompression(recompression);
        let (run, _) = read_all(&partition, 0, 100, 1 << 20).await;
        assert!(batches(&run).all(|batch| batch.unwrap().header().attributes.compression() == codec));
        assert_eq!(contents(&run), contents(&archive.bytes(0, 100)));
    }
}

#[tokio::test]
async fn a_local_directory_and_a_disk_cache_serve_the_same_bytes_after_a_restart() {
    let (objects, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", objects.path().display());
    let bucket = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await.unwrap();
    let mut archive = Archive::new(&bucket);
    (0..100).for_each(|_| archive.append(Codec::None, None, false, 10, 2 << 10));
    archive.upload(1000).await;
    let disk = ColdDisk { directory: cache.path().to_owned(), bytes: 256 << 20, leave_free_percent: 0 };
    for restarted in [false, true] {
        let cold = reader(ColdOptions { disk: Some(disk.clone()), ..small() }).await;
        let (run, _) = read_all(&cold.partition(archive.remote.clone()), 0, 1000, 100_000).await;
        assert_eq!(contents(&run), contents(&archive.bytes(0, 1000)));
        assert_eq!(cold.metrics().fetches("demand") + cold.metrics().fetches("ahead") == 0, restarted);
        cold.close().await.unwrap();
    }
}

#[tokio::test]
async fn entries_in_leaves_are_found_and_read_across() {
    let limits = Limits { inline: 6, keep: 2, leaf: 5 };
    let mut archive = Archive::new(&bucket(&Steering::default()));
    archive.remote = Arc::new(RemotePartition::new(
        ManifestStore::with_limits(archive.bucket.clone(), limits),
        archive.partition,
        archive::topic(),
    ));
    for end in 1..=30 {
        archive.append(Codec::None, None, false, 10, 500);
        archive.upload(end * 10).await;
    }
    assert!(archive.remote.manifest().leaves().count() > 1);
    let partition = reader(small()).await.partition(archive.remote.clone());
    assert_eq!(read_all(&partition, 0, 300, 10_000).await.0, archive.bytes(0, 300));
    let found = partition.offset_for_timestamp(millis(1042), offset(0)).await.unwrap();
    assert_eq!(found.map(|found| found.offset), Some(offset(42)));
}

#[derive(Clone, Debug)]
enum Step {
    Data { codec: usize, producer: Option<u64>, transactional: bool, count: u64 },
    End { producer: u64, aborted: bool },
}

fn any_step() -> impl Strategy<Value = Step> {
    let data = (0_usize..5, proptest::option::of(0_u64..3), any::<bool>(), 1_u64..20);
    prop_oneof![
        3 => data.prop_map(|(codec, producer, transactional, count)| Step::Data { codec, producer, transactional, count }),
        1 => (0_u64..3, any::<bool>()).prop_map(|(producer, aborted)| Step::End { producer, aborted }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Any log, cut into objects anywhere, raw and Parquet mixed: records come back as they were, and a read_committed
    /// consumer takes what it would take from the log itself.
    #[test]
    fn any_log_reads_the_same_from_the_archive(
        steps in proptest::collection::vec(any_step(), 1..60),
        cuts in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..4),
        from in any::<proptest::sample::Index>(),
        max_bytes in 1_u32..60_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut archive = Archive::new(&bucket(&Steering::default()));
            for step in &steps {
                match *step {
                    Step::Data { codec, producer, transactional, count } => {
                        // A producer in a transaction writes nothing outside of it.
                        archive.append(Codec::ALL[codec], producer, transactional, count, 200);
                    }
                    Step::End { producer, aborted } => archive.end_transaction(producer, aborted),
                }
            }
            (0..3).for_each(|producer| archive.end_transaction(producer, producer == 1));
            if archive.batches.is_empty() {
                return;
            }
            let ends: Vec<u64> = batches(&archive.bytes(0, archive.end))
                .map(|batch| batch.unwrap().header().next_offset().get())
                .collect();
            let mut cuts: Vec<(u64, bool)> = cuts.iter().map(|(at, parquet)| (ends[at.index(ends.len())], *parquet)).collect();
            cuts.push((archive.end, true));
            cuts.sort_unstable();
            cuts.dedup_by_key(|(at, _)| *at);
            for (to, parquet) in cuts {
                let object = archive.upload(to).await;
                if parquet {
                    archive.convert(&[object]).await;
                }
            }
            let (all, end) = (archive.bytes(0, archive.end), archive.end);
            let partition = reader(small()).await.partition(archive.remote.clone());
            let from = from.index(end as usize) as u64;
            let (run, aborted) = read_all(&partition, from, end, max_bytes).await;
            let expected: Vec<_> = contents(&all);
            let skipped = ends.iter().filter(|end| **end <= from).count();
            assert_eq!(contents(&run), expected[skipped..]);
            let (every, first) = (partition.aborted(offset(0), offset(end)).await.unwrap(), committed(&run, from, &aborted));
            let whole = committed(&all, from, &every);
            assert_eq!(first, whole);
        });
    }
}
