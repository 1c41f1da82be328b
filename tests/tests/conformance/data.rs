//! Produce, ListOffsets, OffsetForLeaderEpoch, DeleteRecords, DescribeLogDirs, InitProducerId; Fetch is in [`super::fetch`].

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        BrokerId, DeleteRecordsRequest, InitProducerIdRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest,
        ProduceRequest, ProducerId, TransactionalId,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::Request,
};
use uuid::Uuid;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::differential::{Pair, Side, frame, raw_frame};

use super::{
    request::{NOBODYS_ID, id_of, text, topic, versions},
    topics::make,
};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    let with = |name: &str, partitions: i32, configs: &[(&str, &str)]| {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect())
    };
    make(pair, with("log", 3, &[]))?;
    make(pair, with("void", 1, &[]))?;
    make(pair, with("odd", 1, &[]))?;
    make(pair, with("timed", 1, &[]))?;
    make(pair, with("keyed", 1, &[("cleanup.policy", "compact")]))?;
    make(pair, with("small", 1, &[("max.message.bytes", "100")]))?;
    make(pair, with("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]))?;
    make(pair, with("timely", 1, &[("message.timestamp.before.max.ms", "1000")]))?;
    make(pair, with("strict", 1, &[("min.insync.replicas", "2")]))?;
    produce(pair)?;
    idempotent(pair)?;
    list_offsets(pair)?;
    epochs(pair)?;
    super::fetch::script(pair)?;
    delete_records(pair)?;
    producer_ids(pair)
}

/// Of the first of this year: old enough to be no time of appending, new enough for every limit.
pub(crate) const WHEN: i64 = 1_767_225_600_000;

pub(crate) fn batch(values: &[(i64, Option<&str>, &str)]) -> Result<Vec<u8>> {
    let mut builder = BatchBuilder::new(Offset::ZERO);
    for (timestamp, key, value) in values {
        let key = key.map(str::as_bytes);
        let timestamp = Timestamp::from_wire(*timestamp);
        builder.push(RecordContent { timestamp, key, value: Some(value.as_bytes()), headers: &[] });
    }
    Ok(builder.build()?.to_vec())
}

fn sealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// The batch with other bytes at `at`, and a checksum that fits.
pub(crate) fn changed(batch: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    sealed(batch)
}

pub(crate) fn write(version: i16, side: &Side, parts: &[(&str, i32, Option<&[u8]>)], acks: i16) -> ProduceRequest {
    let topics = parts.iter().map(|(name, index, records)| {
        let records = records.map(Bytes::copy_from_slice);
        let partition = PartitionProduceData::default().with_index(*index).with_records(records);
        let data = TopicProduceData::default().with_partition_data(vec![partition]);
        match (version, *name) {
            (13.., "nobody") => data.with_topic_id(NOBODYS_ID),
            (13.., name) => data.with_topic_id(id_of(side, name)),
            (_, name) => data.with_name(topic(name)),
        }
    });
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5_000).with_topic_data(topics.collect())
}

fn produce(pair: &mut Pair) -> Result<()> {
    let all = versions(3, 13);
    let one = batch(&[(WHEN, Some("k"), "v")])?;
    let two = batch(&[(WHEN + 5, Some("k"), "v"), (WHEN + 3, None, "w")])?;
    pair.ask("produce", &all, |v, side| write(v, side, &[("log", 0, Some(&one))], -1))?;
    pair.ask("produce-acks-1", &all, |v, side| write(v, side, &[("log", 0, Some(&two))], 1))?;
    pair.ask("produce-several", &all, |v, side| {
        write(v, side, &[("log", 1, Some(&one)), ("stamped", 0, Some(&two)), ("nobody", 0, Some(&one))], -1)
    })?;
    for acks in [2, -2, i16::MAX, i16::MIN] {
        pair.ask(&format!("produce-acks-{acks}"), &all, |v, side| write(v, side, &[("log", 0, Some(&one))], acks))?;
    }
    pair.ask("produce-nothing", &all, |v, side| write(v, side, &[], -1))?;
    let last = [3, 7, 9, 13];
    let refused: Vec<(&str, &str, i32, Option<Vec<u8>>)> = vec![
        ("unknown", "nobody", 0, Some(one.clone())),
        ("partition", "log", 3, Some(one.clone())),
        ("partition-negative", "log", -1, Some(one.clone())),
        ("empty", "log", 0, Some(vec![])),
        ("short", "log", 0, Some(vec![0; 10])),
        ("zeros", "log", 0, Some(vec![0; 100])),
        ("cut", "log", 0, Some(one[..one.len() - 1].to_vec())),
        ("two-batches", "log", 0, Some([&one[..], &one[..]].concat())),
        ("tail", "log", 0, Some([&one[..], &[1, 2, 3]].concat())),
        (
            "crc",
            "log",
            0,
            Some({
                let mut batch = one.clone();
                batch[17] ^= 1;
                batch
            }),
        ),
        (
            "magic-0",
            "log",
            0,
            Some({
                let mut batch = one.clone();
                batch[16] = 0;
                batch
            }),
        ),
        (
            "magic-1",
            "log",
            0,
            Some({
                let mut batch = one.clone();
                batch[16] = 1;
                batch
            }),
        ),
        (
            "magic-3",
            "log",
            0,
            Some({
                let mut batch = one.clone();
                batch[16] = 3;
                batch
            }),
        ),
        (
            "magic-negative",
            "log",
            0,
            Some({
                let mut batch = one.clone();
                batch[16] = 0xff;
                batch
            }),
        ),
        ("codec-5", "odd", 0, Some(changed(&one, 21, &[0, 5]))),
        ("codec-lies", "odd", 0, Some(changed(&one, 21, &[0, 1]))),
        ("codec-zstd-lies", "odd", 0, Some(changed(&one, 21, &[0, 4]))),
        ("control", "log", 0, Some(changed(&one, 21, &[0, 0x20]))),
        ("log-append-time", "odd", 0, Some(changed(&one, 21, &[0, 8]))),
        ("delete-horizon", "log", 0, Some(changed(&one, 21, &[0, 0x40]))),
        ("count-0", "log", 0, Some(changed(&one, 57, &0i32.to_be_bytes()))),
        ("count-2", "log", 0, Some(changed(&one, 57, &2i32.to_be_bytes()))),
        ("count-negative", "log", 0, Some(changed(&one, 57, &(-1i32).to_be_bytes()))),
        ("last-delta", "log", 0, Some(changed(&one, 23, &5i32.to_be_bytes()))),
        ("last-delta-negative", "log", 0, Some(changed(&one, 23, &(-1i32).to_be_bytes()))),
        ("base-offset", "log", 0, Some(changed(&one, 0, &77i64.to_be_bytes()))),
        ("epoch", "log", 0, Some(changed(&one, 12, &9i32.to_be_bytes()))),
        ("max-timestamp", "timed", 0, Some(changed(&one, 35, &(WHEN + 99).to_be_bytes()))),
        ("max-timestamp-less", "timed", 0, Some(changed(&two, 35, &(WHEN - 99).to_be_bytes()))),
        ("timestamp-none", "log", 0, Some(batch(&[(-1, None, "v")])?)),
        ("timestamp-far", "log", 0, Some(batch(&[(WHEN * 3, None, "v")])?)),
        ("timestamp-old", "timely", 0, Some(one.clone())),
        ("timestamp-old-second", "timely", 0, Some(two.clone())),
        ("no-key", "keyed", 0, Some(batch(&[(WHEN, Some("a"), "v"), (WHEN, None, "w")])?)),
        ("no-keys", "keyed", 0, Some(batch(&[(WHEN, None, "v"), (WHEN, None, "w")])?)),
        ("large", "small", 0, Some(batch(&[(WHEN, None, &"v".repeat(100))])?)),
        ("larger-than-limit", "log", 0, Some(batch(&[(WHEN, None, &"v".repeat(1_100_000))])?)),
        ("too-few-in-sync", "strict", 0, Some(one.clone())),
        ("producer-without-sequence", "log", 0, Some(changed(&one, 43, &5i64.to_be_bytes()))),
        ("producer-negative", "log", 0, Some(changed(&one, 43, &(-7i64).to_be_bytes()))),
        ("sequence-without-producer", "log", 0, Some(changed(&one, 53, &5i32.to_be_bytes()))),
    ];
    for (name, to, index, records) in &refused {
        let versions = if name.starts_with("larger") { &last[3..] } else { &last[..] };
        for acks in [-1, 1] {
            pair.ask(&format!("produce-{name}-acks-{acks}"), versions, |v, side| {
                write(v, side, &[(*to, *index, records.as_deref())], acks)
            })?;
        }
    }
    pair.ask("produce-partly", &last, |v, side| {
        write(
            v,
            side,
            &[("log", 2, Some(&one)), ("keyed", 0, Some(&batch(&[(WHEN, None, "v")]).unwrap_or_default()))],
            -1,
        )
    })?;
    pair.ask("produce-same-partition-twice", &last, |v, side| {
        write(v, side, &[("timed", 0, Some(&one)), ("timed", 0, Some(&two))], -1)
    })?;
    pair.ask("produce-same-topic-twice", &last, |v, side| {
        let parts =
            [("log", 1, Some(&one[..])), ("void", 3, Some(&one)), ("log", 0, Some(&two)), ("log", 1, Some(&two))];
        write(v, side, &parts, -1)
    })?;
    pair.ask("produce-id-zero", &[13], |v, side| {
        let mut request = write(v, side, &[("log", 0, Some(&one))], -1);
        request.topic_data[0].topic_id = Uuid::nil();
        request
    })?;
    pair.ask("produce-auto-create", &[3, 12], |v, side| write(v, side, &[("never-made", 0, Some(&one))], -1))?;
    pair.ask("produce-internal", &last[..3], |v, side| write(v, side, &[("__consumer_offsets", 0, Some(&one))], -1))?;
    pair.ask("produce-invalid-topic", &last[..3], |v, side| {
        write(v, side, &[("a b", 0, Some(&one)), ("", 0, Some(&one))], -1)
    })?;
    silent(pair, &one)
}

/// acks=0: no answer, or a closed connection; what follows tells which.
fn silent(pair: &mut Pair, one: &[u8]) -> Result<()> {
    for (name, to, index) in [("kept", "log", 0), ("refused", "log", 99), ("unknown", "nobody", 0)] {
        for version in [3, 13] {
            for side in pair.sides() {
                let request = write(version, side, &[(to, index, Some(one))], 0);
                let frame = frame(version, &request)?;
                side.send(0, &frame)?;
            }
            pair.ask(&format!("produce-acks-0-{name}-{version}"), &[11], |_, _| ask_end("log", 0))?;
        }
    }
    Ok(())
}

fn ask_end(name: &str, index: i32) -> ListOffsetsRequest {
    list(&[(name, index, -1, -1)])
}

/// Topic, partition, timestamp, current epoch.
fn list(parts: &[(&str, i32, i64, i32)]) -> ListOffsetsRequest {
    let topics = parts.iter().map(|(name, index, timestamp, epoch)| {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_timestamp(*timestamp)
            .with_current_leader_epoch(*epoch);
        ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![partition])
    });
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect())
}

fn idempotent(pair: &mut Pair) -> Result<()> {
    let one = batch(&[(WHEN, Some("k"), "v")])?;
    let of = |producer: i64, epoch: i16, sequence: i32, transactional: bool| {
        let batch = changed(&one, 43, &producer.to_be_bytes());
        let batch = changed(&batch, 51, &epoch.to_be_bytes());
        let batch = changed(&batch, 53, &sequence.to_be_bytes());
        if transactional { changed(&batch, 21, &[0, 0x10]) } else { batch }
    };
    for (name, producer, epoch, sequence, transactional) in [
        ("first", 4000, 0, 0, false),
        ("again", 4000, 0, 0, false),
        ("second", 4000, 0, 1, false),
        ("second-again", 4000, 0, 1, false),
        ("first-long-ago", 4000, 0, 0, false),
        ("gap", 4000, 0, 9, false),
        ("epoch-later", 4000, 1, 0, false),
        ("epoch-earlier", 4000, 0, 2, false),
        ("epoch-later-in-the-middle", 4000, 2, 7, false),
        ("unknown-in-the-middle", 4001, 0, 7, false),
        ("negative-sequence", 4002, 0, -1, false),
        ("negative-epoch", 4002, -1, 0, false),
        ("transactional", 4003, 0, 0, true),
    ] {
        for acks in [-1, 1] {
            // A repeated one is answered like the first.
            pair.ask(&format!("idempotent-{name}-{acks}"), &[3, 9, 13], |v, side| {
                write(v, side, &[("log", 1, Some(&of(producer, epoch, sequence, transactional)))], acks)
            })?;
        }
    }
    pair.ask("transactional-produce", &[3, 9, 11, 12, 13], |v, side| {
        write(v, side, &[("log", 1, Some(&of(4004, 0, 0, true)))], -1)
            .with_transactional_id(Some(TransactionalId(text("t"))))
    })?;
    pair.ask("transactional-id-plain-batch", &[3, 12, 13], |v, side| {
        write(v, side, &[("log", 1, Some(&one))], -1).with_transactional_id(Some(TransactionalId(text("t"))))
    })?;
    Ok(())
}

fn list_offsets(pair: &mut Pair) -> Result<()> {
    let all = versions(1, 11);
    for timestamp in [-1, -2, -3, -4, -5, -6, -7, -100, i64::MIN, 0, WHEN, WHEN + 1, WHEN + 5, WHEN + 6, i64::MAX] {
        pair.ask(&format!("list-offsets-{timestamp}"), &all, |_, _| list(&[("log", 2, timestamp, -1)]))?;
        pair.ask(&format!("list-offsets-empty-{timestamp}"), &[1, 4, 8, 11], |_, _| {
            list(&[("void", 0, timestamp, -1)])
        })?;
    }
    for epoch in [0, 1, -2] {
        pair.ask(&format!("list-offsets-epoch-{epoch}"), &versions(4, 11), |_, _| list(&[("log", 0, -1, epoch)]))?;
    }
    pair.ask("list-offsets-committed", &versions(2, 11), |_, _| list(&[("log", 0, -1, -1)]).with_isolation_level(1))?;
    pair.ask("list-offsets-isolation-9", &[2, 11], |_, _| list(&[("log", 0, -1, -1)]).with_isolation_level(9))?;
    pair.ask("list-offsets-unknown", &all, |_, _| {
        list(&[("nobody", 0, -1, -1), ("log", 99, -1, -1), ("log", -1, -1, -1), ("a b", 0, -1, -1)])
    })?;
    pair.ask("list-offsets-twice", &all, |_, _| list(&[("log", 0, -1, -1), ("log", 0, -2, -1), ("void", 0, -1, -1)]))?;
    pair.ask("list-offsets-none", &all, |_, _| list(&[]))?;
    for replica in [-2, -3, 1, 99] {
        pair.ask(&format!("list-offsets-replica-{replica}"), &[1, 11], |_, _| {
            list(&[("log", 0, -1, -1)]).with_replica_id(BrokerId(replica))
        })?;
    }
    Ok(())
}

fn epochs(pair: &mut Pair) -> Result<()> {
    let ask = |name: &str, index: i32, current: i32, epoch: i32, replica: i32| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(topic(name)).with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(replica)).with_topics(vec![topic])
    };
    for (name, index, current, epoch) in [
        ("log", 0, -1, 0),
        ("log", 0, 0, 0),
        ("log", 0, 0, 1),
        ("log", 0, 0, -1),
        ("log", 0, 0, -2),
        ("log", 0, 0, i32::MAX),
        ("log", 0, 1, 0),
        ("log", 0, -2, 0),
        ("void", 0, 0, 0),
        ("void", 0, 0, -2),
        ("void", 0, 0, 1),
        ("log", 9, 0, 0),
        ("log", -1, 0, 0),
        ("nobody", 0, 0, 0),
        ("a b", 0, 0, 0),
    ] {
        for replica in [-1, -2] {
            let label = format!("epoch-{name}-{index}-{current}-{epoch}-{replica}");
            pair.ask(&label, &versions(2, 4), |v, _| {
                ask(name, index, current, epoch, if v < 3 { -2 } else { replica })
            })?;
        }
    }
    pair.ask("epoch-none", &versions(2, 4), |_, _| {
        OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-2))
    })?;
    Ok(())
}

fn delete_records(pair: &mut Pair) -> Result<()> {
    let ask = |name: &str, parts: &[(i32, i64)]| {
        let partitions = parts
            .iter()
            .map(|(index, offset)| DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset));
        let topic = DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(partitions.collect());
        DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000)
    };
    for (label, name, parts) in [
        ("some", "log", &[(2, 1)][..]),
        ("before-start", "log", &[(2, 0)]),
        ("beyond", "log", &[(2, 1_000_000)]),
        ("negative", "log", &[(2, -2)]),
        ("least", "log", &[(2, i64::MIN)]),
        ("partition", "log", &[(99, 0), (-1, 0), (2, 2)]),
        ("unknown", "nobody", &[(0, 0)]),
        ("invalid", "a b", &[(0, 0)]),
        ("compacted", "keyed", &[(0, 0)]),
        ("empty", "void", &[(0, 0)]),
        ("empty-all", "void", &[(0, -1)]),
        ("none", "log", &[]),
        ("twice", "log", &[(2, 2), (2, 3)]),
        ("all", "log", &[(2, -1)]),
        ("internal", "__consumer_offsets", &[(0, 0)]),
    ] {
        pair.ask(&format!("delete-records-{label}"), &versions(0, 2), |_, _| ask(name, parts))?;
    }
    pair.ask("delete-records-no-topic", &versions(0, 2), |_, _| DeleteRecordsRequest::default())?;
    pair.ask("list-offsets-after-delete", &[1, 11], |_, _| list(&[("log", 2, -2, -1), ("log", 2, 0, -1)]))?;
    pair.ask("list-offsets-local-after-delete", &[11], |_, _| list(&[("log", 2, -4, -1)]))?;
    Ok(())
}

fn producer_ids(pair: &mut Pair) -> Result<()> {
    let request = |transactional: Option<&str>, timeout: i32| {
        InitProducerIdRequest::default()
            .with_transactional_id(transactional.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout)
    };
    let all = versions(0, 5);
    // Kafka fetches its first block of ids when it is asked for one.
    pair.until_no_error(5, |_, _| request(None, 60_000))?;
    for timeout in [60_000, 0, -1, i32::MAX] {
        pair.ask(&format!("init-producer-id-{timeout}"), &all, |_, _| request(None, timeout))?;
    }
    pair.ask("init-producer-id-empty", &all, |_, _| request(Some(""), 60_000))?;
    pair.ask("transactional-init-producer-id", &all, |_, _| request(Some("t"), 60_000))?;
    for (id, epoch) in [(5, 3), (5, -1), (-1, 3), (-2, 0), (5, i16::MAX)] {
        pair.ask(&format!("init-producer-id-{id}-{epoch}"), &versions(3, 5), |_, _| {
            request(None, 60_000).with_producer_id(ProducerId(id)).with_producer_epoch(epoch)
        })?;
    }
    pair.ask_bytes("init-producer-id-version-6", |_| {
        raw_frame(InitProducerIdRequest::KEY, 6, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    })
}
