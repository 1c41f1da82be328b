//! The drawing in the module above, held to bytes that Kafka 4.3's own classes wrote.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

const OFFSET_KEY: &str = "000100016700066f726465727300000003";
const GROUP_KEY: &str = "000200076772c3bcc39f65";

fn offset_key() -> OffsetKey {
    OffsetKey { group: "g".to_owned(), topic: "orders".to_owned(), partition: PartitionIndex(3) }
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_wire(millis).unwrap()
}

fn offset() -> CommittedOffset {
    CommittedOffset {
        offset: 42,
        leader_epoch: Some(LeaderEpoch(7)),
        metadata: "m".to_owned(),
        committed_at: time(1_700_000_000_000),
        expires_at: None,
        topic_id: None,
    }
}

fn group() -> GroupMetadata {
    GroupMetadata {
        protocol_type: "consumer".to_owned(),
        generation: Generation(5),
        protocol: Some("range".to_owned()),
        leader: Some("m1".to_owned()),
        state_since: Some(time(1_700_000_000_000)),
        members: vec![MemberMetadata {
            member_id: "m1".to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            rebalance_timeout: Duration::from_secs(60),
            session_timeout: Duration::from_secs(10),
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

fn decode_offset_value(value: &str) -> CommittedOffset {
    match CoordinatorRecord::decode(&hex(OFFSET_KEY), Some(&hex(value))) {
        Ok(CoordinatorRecord::Offset(key, Some(offset))) if key == offset_key() => offset,
        other => panic!("not an offset: {other:?}"),
    }
}

fn decode_group_value(value: &str) -> GroupMetadata {
    match CoordinatorRecord::decode(&hex(GROUP_KEY), Some(&hex(value))) {
        Ok(CoordinatorRecord::Group(id, Some(group))) if id == "grüße" => group,
        other => panic!("not a group: {other:?}"),
    }
}

#[test]
fn offsets_are_written_as_kafka_writes_them() {
    let written = |offset| CoordinatorRecord::Offset(offset_key(), Some(offset)).encode().unwrap();
    let plain = written(offset());
    assert_eq!(plain.key, hex(OFFSET_KEY));
    assert_eq!(plain.value.unwrap(), hex("0004000000000000002a00000007026d0000018bcfe5680000"));
    let topic_id = TopicId::from_wire(Uuid::from_u128(0x0102030405060708090a0b0c0d0e0f10));
    assert_eq!(
        written(CommittedOffset { topic_id, ..offset() }).value.unwrap(),
        hex("0004000000000000002a00000007026d0000018bcfe568000100100102030405060708090a0b0c0d0e0f10")
    );
    assert_eq!(
        written(CommittedOffset { expires_at: Some(time(1_700_000_060_000)), ..offset() }).value.unwrap(),
        hex("0001000000000000002a00016d0000018bcfe568000000018bcfe65260")
    );
}

#[test]
fn offsets_of_every_version_are_read() {
    let without_epoch = CommittedOffset { leader_epoch: None, ..offset() };
    assert_eq!(decode_offset_value("0000000000000000002a00016d0000018bcfe56800"), without_epoch);
    assert_eq!(
        decode_offset_value("0001000000000000002a00016d0000018bcfe568000000018bcfe65260"),
        CommittedOffset { expires_at: Some(time(1_700_000_060_000)), ..without_epoch.clone() }
    );
    assert_eq!(decode_offset_value("0002000000000000002a00016d0000018bcfe56800"), without_epoch);
    assert_eq!(decode_offset_value("0003000000000000002a0000000700016d0000018bcfe56800"), offset());
    assert_eq!(decode_offset_value("0004000000000000002a00000007026d0000018bcfe5680000"), offset());
}

#[test]
fn groups_are_written_as_kafka_writes_them() {
    let record = CoordinatorRecord::Group("grüße".to_owned(), Some(group())).encode().unwrap();
    assert_eq!(record.key, hex(GROUP_KEY));
    assert_eq!(
        record.value.unwrap(),
        hex("00030008636f6e73756d657200000005000572616e676500026d310000018bcfe56800\
             0000000100026d31ffff00016300022f680000ea60000027100000000201020000000103")
    );
    let empty = GroupMetadata {
        protocol_type: String::new(),
        generation: Generation(0),
        protocol: None,
        leader: None,
        members: Vec::new(),
        ..group()
    };
    let record = CoordinatorRecord::Group("g".to_owned(), Some(empty)).encode().unwrap();
    assert_eq!(record.value.unwrap(), hex("0003000000000000ffffffff0000018bcfe5680000000000"));
}

#[test]
fn groups_of_every_version_are_read() {
    let before_times = GroupMetadata { state_since: None, ..group() };
    let mut one_timeout = before_times.clone();
    one_timeout.members[0].rebalance_timeout = Duration::from_secs(10);
    let cases = [
        (
            "00000008636f6e73756d657200000005000572616e676500026d310000000100026d31\
             00016300022f68000027100000000201020000000103",
            one_timeout,
        ),
        (
            "00010008636f6e73756d657200000005000572616e676500026d310000000100026d31\
             00016300022f680000ea60000027100000000201020000000103",
            before_times,
        ),
        (
            "00020008636f6e73756d657200000005000572616e676500026d310000018bcfe56800\
             0000000100026d3100016300022f680000ea60000027100000000201020000000103",
            group(),
        ),
        (
            "000409636f6e73756d6572000000050672616e6765036d310000018bcfe5680002036d31\
             000263032f680000ea600000271003010202030000",
            group(),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode_group_value(bytes), expected, "{bytes}");
    }
}

#[test]
fn a_record_without_value_is_a_tombstone() {
    let removed = CoordinatorRecord::Offset(offset_key(), None);
    assert_eq!(removed.encode().unwrap(), EncodedRecord { key: hex(OFFSET_KEY), value: None });
    assert_eq!(CoordinatorRecord::decode(&hex(OFFSET_KEY), None), Ok(removed));
}

#[test]
fn legacy_offset_keys_are_read() {
    let key = hex("000000016700066f726465727300000003");
    let value = hex("0000000000000000002a00016d0000018bcfe56800");
    let expected = CoordinatorRecord::Offset(offset_key(), Some(CommittedOffset { leader_epoch: None, ..offset() }));
    assert_eq!(CoordinatorRecord::decode(&key, Some(&value)), Ok(expected));
}

#[test]
fn kinds_that_came_later_are_told_apart_from_damage() {
    assert_eq!(CoordinatorRecord::decode(&hex("00180001"), None), Err(RecordError::UnknownKind(24)));
    assert_eq!(CoordinatorRecord::decode(&hex(OFFSET_KEY), Some(&hex("0005"))), Err(RecordError::UnknownVersion(5)));
    assert_eq!(CoordinatorRecord::decode(&hex(GROUP_KEY), Some(&[])), Err(RecordError::Malformed));
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_damage() {
    let value = hex("00030008636f6e73756d657200000005ffffffff0000018bcfe568007fffffff");
    assert_eq!(CoordinatorRecord::decode(&hex(GROUP_KEY), Some(&value)), Err(RecordError::Malformed));
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let record = CoordinatorRecord::Group("g".repeat(40_000), None);
    assert_eq!(record.encode(), Err(TooLong));
}

fn any_offset() -> impl Strategy<Value = CommittedOffset> {
    let epoch = proptest::option::of(0..i32::MAX as u32);
    let expiry = proptest::option::of(0i64..i64::MAX);
    (any::<i64>(), epoch, ".{0,40}", 0i64..i64::MAX, expiry, any::<u128>()).prop_map(
        |(offset, epoch, metadata, at, expires, topic)| CommittedOffset {
            offset,
            // The version with an expiry has neither epoch nor topic id.
            leader_epoch: epoch.filter(|_| expires.is_none()).map(LeaderEpoch),
            metadata,
            committed_at: time(at),
            expires_at: expires.map(time),
            topic_id: TopicId::from_wire(Uuid::from_u128(topic)).filter(|_| expires.is_none()),
        },
    )
}

fn any_member() -> impl Strategy<Value = MemberMetadata> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let times = (0..i32::MAX as u64, 0..i32::MAX as u64);
    (".{1,20}", proptest::option::of(".{0,20}"), ".{0,20}", times, bytes(), bytes()).prop_map(
        |(member_id, instance_id, client, (rebalance, session), subscription, assignment)| MemberMetadata {
            member_id,
            instance_id,
            client_id: client.clone(),
            client_host: client,
            rebalance_timeout: Duration::from_millis(rebalance),
            session_timeout: Duration::from_millis(session),
            subscription,
            assignment,
        },
    )
}

proptest! {
    #[test]
    fn every_offset_comes_back(group in ".{0,20}", partition in 0..i32::MAX as u32, offset in any_offset()) {
        let key = OffsetKey { group, topic: "orders".to_owned(), partition: PartitionIndex(partition) };
        let record = CoordinatorRecord::Offset(key, Some(offset));
        let bytes = record.encode().unwrap();
        prop_assert_eq!(CoordinatorRecord::decode(&bytes.key, bytes.value.as_deref()), Ok(record));
    }

    #[test]
    fn every_group_comes_back(members in proptest::collection::vec(any_member(), 0..4), since in 0i64..i64::MAX) {
        let record = CoordinatorRecord::Group(
            "g".to_owned(),
            Some(GroupMetadata { members, state_since: Some(time(since)), ..group() }),
        );
        let bytes = record.encode().unwrap();
        prop_assert_eq!(CoordinatorRecord::decode(&bytes.key, bytes.value.as_deref()), Ok(record));
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        kind in 0i16..4,
        version in 0i16..6,
        key in proptest::collection::vec(any::<u8>(), 0..40),
        value in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let with_key = [&kind.to_be_bytes()[..], &key].concat();
        let with_version = [&version.to_be_bytes()[..], &value].concat();
        let _ = CoordinatorRecord::decode(&with_key, Some(&with_version));
        let _ = CoordinatorRecord::decode(&hex(OFFSET_KEY), Some(&with_version));
        let _ = CoordinatorRecord::decode(&hex(GROUP_KEY), Some(&with_version));
        let _ = CoordinatorRecord::decode(&key, Some(&value));
    }

    #[test]
    fn a_value_cut_anywhere_is_damage(member in any_member(), cut in any::<prop::sample::Index>()) {
        let record = CoordinatorRecord::Group("g".to_owned(), Some(GroupMetadata { members: vec![member], ..group() }));
        let value = record.encode().unwrap().value.unwrap();
        let cut = &value[..cut.index(value.len())];
        prop_assert_eq!(CoordinatorRecord::decode(&hex(GROUP_KEY), Some(cut)), Err(RecordError::Malformed));
    }
}
