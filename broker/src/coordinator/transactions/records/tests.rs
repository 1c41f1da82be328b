//! The drawing in the module above, held to bytes that Kafka 4.3's own classes wrote.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

const KEY_BYTES: &str = "000000086f72646572732d31";
const FULL_0: &str = "000000000000000003e800050000ea6002000000020001610000000200000000000000030001620000000100000001\
                      0000018bcfe568000000018bcfe56418";
const FULL_1: &str = "000100000000000003e800050000ea60020302610300000000000000030002620200000001000000018bcfe56800\
                      0000018bcfe5641803000800000000000003e7010800000000000003e902020002";
const EMPTY_0: &str = "0000000000000000000700000000000100ffffffff0000000000000005ffffffffffffffff";
const EMPTY_1: &str = "0001000000000000000700000000000100000000000000000005ffffffffffffffff0100080000000000000007";

fn value(text: &str) -> Vec<u8> {
    hex(&text.replace([' ', '\n'], ""))
}

fn producer(id: i64) -> ProducerId {
    ProducerId::from_wire(id).unwrap()
}

fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.to_owned(), partition: PartitionIndex(partition) }
}

fn full() -> TransactionMetadata {
    TransactionMetadata {
        producer: producer(1000),
        previous_producer: Some(producer(999)),
        next_producer: Some(producer(1001)),
        epoch: Some(ProducerEpoch(5)),
        timeout_ms: 60_000,
        state: TransactionState::PrepareCommit,
        partitions: [at("a", 0), at("a", 3), at("b", 1)].into(),
        updated: Timestamp::from_wire(1_700_000_000_000).unwrap(),
        started: Timestamp::from_wire(1_699_999_999_000),
        version: TransactionVersion::Raising,
    }
}

fn empty() -> TransactionMetadata {
    TransactionMetadata {
        producer: producer(7),
        previous_producer: Some(producer(7)),
        next_producer: None,
        epoch: Some(ProducerEpoch(0)),
        timeout_ms: 1,
        state: TransactionState::Empty,
        partitions: BTreeSet::new(),
        updated: Timestamp::from_wire(5).unwrap(),
        started: None,
        version: TransactionVersion::Fixed,
    }
}

fn record(metadata: Option<TransactionMetadata>) -> TransactionRecord {
    TransactionRecord { transactional_id: "orders-1".to_owned(), metadata }
}

#[test]
fn records_have_kafkas_bytes() {
    for (metadata, bytes) in [(full(), FULL_1), (empty(), EMPTY_1)] {
        let encoded = record(Some(metadata.clone())).encode().unwrap();
        assert_eq!((encoded.key, encoded.value), (hex(KEY_BYTES), Some(value(bytes))));
        let decoded = TransactionRecord::decode(&hex(KEY_BYTES), Some(&value(bytes)));
        assert_eq!(decoded, Ok(record(Some(metadata))));
    }
}

#[test]
fn records_of_older_brokers_are_read() {
    let older = |metadata: TransactionMetadata| TransactionMetadata {
        previous_producer: None,
        next_producer: None,
        version: TransactionVersion::Fixed,
        ..metadata
    };
    for (metadata, bytes) in [(full(), FULL_0), (empty(), EMPTY_0)] {
        let decoded = TransactionRecord::decode(&hex(KEY_BYTES), Some(&value(bytes)));
        assert_eq!(decoded, Ok(record(Some(older(metadata)))));
    }
}

#[test]
fn a_record_without_value_is_a_tombstone() {
    assert_eq!(TransactionRecord::decode(&hex(KEY_BYTES), None), Ok(record(None)));
    assert_eq!(record(None).encode().unwrap().value, None);
}

#[test]
fn what_is_newer_than_this_broker_is_told_apart_from_damage() {
    let decode = |key: &str, bytes: &str| TransactionRecord::decode(&hex(key), Some(&value(bytes)));
    assert_eq!(decode("00020000", FULL_1), Err(RecordError::UnknownKind(2)));
    assert_eq!(decode(KEY_BYTES, "0002"), Err(RecordError::UnknownVersion(2)));
    let unknown_state = FULL_1.replacen("ea6002", "ea6009", 1);
    assert_eq!(decode(KEY_BYTES, &unknown_state), Err(RecordError::Malformed));
    // A field of KIP-939 that is not ours to act on.
    let with_next_epoch = format!("{}0302ffff", FULL_1.replacen("5641803", "5641804", 1));
    assert_eq!(decode(KEY_BYTES, &with_next_epoch), Ok(record(Some(full()))));
}

#[test]
fn a_value_cut_anywhere_is_damage() {
    for bytes in [FULL_0, FULL_1, EMPTY_0, EMPTY_1] {
        let bytes = value(bytes);
        for end in 2..bytes.len() {
            let cut = TransactionRecord::decode(&hex(KEY_BYTES), Some(&bytes[..end]));
            assert_eq!(cut, Err(RecordError::Malformed), "{end}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(key: Vec<u8>, value: Option<Vec<u8>>) {
        let _ = TransactionRecord::decode(&key, value.as_deref());
        let _ = TransactionRecord::decode(&hex(KEY_BYTES), value.as_deref());
    }
}
