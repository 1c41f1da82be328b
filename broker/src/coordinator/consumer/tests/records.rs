//! The drawing of the records, held to bytes that Kafka 4.3's own classes wrote.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use varve_metadata::model::{Offset, Timestamp};

use super::*;
use crate::coordinator::{
    Entry, LogRecord, Machine, Protocol,
    records::{
        ClassicMetadata, ConsumerMemberRecord, ConsumerRecord, CoordinatorRecord, CurrentRecord, GroupEpochRecord,
        ResolvedRegex, TargetRecord,
    },
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn id() -> TopicId {
    topic_id(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)
}

fn member() -> ConsumerMemberRecord {
    ConsumerMemberRecord {
        instance_id: Some("i".to_owned()),
        rack_id: None,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        topics: ["orders".to_owned()].into(),
        regex: Some(String::new()),
        rebalance_timeout_ms: 60_000,
        assignor: Some("range".to_owned()),
        classic: None,
    }
}

fn classic() -> ClassicMetadata {
    let protocols = vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(&[1, 2]) }];
    ClassicMetadata { session_timeout: Duration::from_secs(10), protocols }
}

fn cases() -> Vec<(ConsumerRecord, &'static str, &'static str)> {
    let g = || "g".to_owned();
    let m = || "m1".to_owned();
    vec![
        (
            ConsumerRecord::Group(g(), Some(GroupEpochRecord { epoch: 5, metadata_hash: 7 })),
            "0003000167",
            "00000000000501000800000000000000 07",
        ),
        (
            ConsumerRecord::Group(g(), Some(GroupEpochRecord { epoch: 5, metadata_hash: 0 })),
            "0003000167",
            "00000000000500",
        ),
        (
            ConsumerRecord::Member(g(), m(), Some(member())),
            "000500016700026d31",
            "000002690002 63032f6802076f726465727301 0000ea60 0672616e6765 01000100",
        ),
        (
            ConsumerRecord::Member(g(), m(), Some(ConsumerMemberRecord { classic: Some(classic()), ..member() })),
            "000500016700026d31",
            "000002690002 63032f6802076f726465727301 0000ea60 0672616e6765 0100 11 01 00002710 02 0672616e6765 030102 00 00",
        ),
        (
            ConsumerRecord::Target(g(), Some(TargetRecord { epoch: 5, assigned_at: Timestamp::from_wire(9) })),
            "0006000167",
            "0000000000050100080000000000000009",
        ),
        (
            ConsumerRecord::MemberTarget(g(), m(), Some([(id(), [PartitionIndex(1)].into())].into())),
            "000700016700026d31",
            "0000 02 0102030405060708090a0b0c0d0e0f10 02 00000001 00 00",
        ),
        (
            ConsumerRecord::Current(
                g(),
                m(),
                Some(CurrentRecord {
                    epoch: MemberEpoch(5),
                    previous_epoch: MemberEpoch(4),
                    state: MemberState::UnrevokedPartitions,
                    assigned: [(id(), [(PartitionIndex(1), 3)].into())].into(),
                    pending_revocation: OwnedPartitions::new(),
                }),
            ),
            "000800016700026d31",
            "0000 00000005 00000004 01 02 0102030405060708090a0b0c0d0e0f10 02 00000001 01 00 05 02 00000003 01 00",
        ),
        (
            ConsumerRecord::Regex(
                g(),
                "o.*".to_owned(),
                Some(ResolvedRegex {
                    topics: ["orders".to_owned()].into(),
                    version: 8,
                    at: Timestamp::from_wire(9).unwrap(),
                }),
            ),
            "001000016700036f2e2a",
            "0000 02 076f7264657273 0000000000000008 0000000000000009 00",
        ),
    ]
}

#[test]
fn records_are_written_as_kafka_writes_them_and_read_back() {
    for (record, key, value) in cases() {
        let record = CoordinatorRecord::Consumer(record);
        let bytes = record.encode().unwrap();
        assert_eq!(
            (bytes.key.as_slice(), bytes.value.as_deref()),
            (hex(key).as_slice(), Some(hex(value).as_slice())),
            "{record:?}"
        );
        assert_eq!(CoordinatorRecord::decode(&bytes.key, bytes.value.as_deref()), Ok(record));
    }
}

#[test]
fn what_kafka_before_4_1_kept_of_topics_is_noticed_and_taken_back() {
    // One topic with one partition and no racks.
    let value = hex("0000 02 0102030405060708090a0b0c0d0e0f10 076f7264657273 00000001 01 00 00");
    let decoded = CoordinatorRecord::decode(&hex("0004000167"), Some(&value));
    assert_eq!(decoded, Ok(CoordinatorRecord::Consumer(ConsumerRecord::TopicsMetadata("g".to_owned(), true))));
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    let now = groups.moment();
    let entry = Entry::Record { offset: Offset::ZERO, producer: None, record: decoded.unwrap() };
    groups.shard.replay(now, entry).unwrap();
    groups.told(first("b"));
    let end = CoordinatorRecord::Consumer(ConsumerRecord::TopicsMetadata(GROUP.to_owned(), false));
    assert!(groups.log.iter().any(|entry| matches!(entry, Entry::Record { record, .. } if *record == end)));
    assert!(!groups.shard.consumers[GROUP].has_topics_metadata);
}

#[test]
fn records_without_epochs_of_partitions_count_them_as_of_the_member() {
    let value = hex("0000 00000005 00000004 00 02 0102030405060708090a0b0c0d0e0f10 02 00000001 00 01 00");
    let Ok(CoordinatorRecord::Consumer(ConsumerRecord::Current(_, _, Some(current)))) =
        CoordinatorRecord::decode(&hex("000800016700026d31"), Some(&value))
    else {
        panic!("a current assignment");
    };
    assert_eq!(current.assigned, [(id(), [(PartitionIndex(1), 5)].into())].into());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 3i16..17,
        key in proptest::collection::vec(any::<u8>(), 0..20),
        value in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let key = [&kind.to_be_bytes()[..], &[0, 1, b'g', 0, 1, b'm'], &key].concat();
        let _ = CoordinatorRecord::decode(&key, Some(&[&[0, 0][..], &value].concat()));
    }

    #[test]
    fn a_value_cut_anywhere_is_damage(which in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let cases = cases();
        let (_, key, value) = &cases[which.index(cases.len())];
        let value = hex(value);
        let cut = &value[..cut.index(value.len())];
        prop_assert!(CoordinatorRecord::decode(&hex(key), Some(cut)).is_err());
    }
}
