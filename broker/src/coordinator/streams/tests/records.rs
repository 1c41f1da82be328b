//! The drawing of the records, held to bytes that Kafka 4.3's own classes wrote.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use varve_metadata::model::{Offset, Timestamp};

use super::*;
use crate::coordinator::{
    Entry, LogRecord, Machine,
    records::{
        CoordinatorRecord, StreamsCurrentRecord, StreamsGroupRecord, StreamsMemberRecord, StreamsRecord, TargetRecord,
    },
};

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn plain_member() -> StreamsMemberRecord {
    StreamsMemberRecord {
        instance_id: None,
        rack_id: None,
        client_id: String::new(),
        client_host: String::new(),
        rebalance_timeout_ms: -1,
        topology_epoch: -1,
        process_id: String::new(),
        endpoint: None,
        tags: BTreeMap::new(),
    }
}

fn member() -> StreamsMemberRecord {
    StreamsMemberRecord {
        rack_id: Some("r".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        rebalance_timeout_ms: 60_000,
        topology_epoch: 0,
        process_id: "p".to_owned(),
        endpoint: Some(Endpoint { host: "h".to_owned(), port: 65535 }),
        tags: pairs(&[("a", "b"), ("c", "d")]),
        ..plain_member()
    }
}

fn of(subtopology: &str, tasks: &[u32]) -> TaskSet {
    [(subtopology.to_owned(), numbers(tasks))].into()
}

fn of_epochs(subtopology: &str, tasks: &[(u32, i32)]) -> EpochTasks {
    let tasks = tasks.iter().map(|(task, epoch)| (PartitionIndex(*task), *epoch)).collect();
    [(subtopology.to_owned(), tasks)].into()
}

fn current() -> StreamsCurrentRecord {
    StreamsCurrentRecord {
        epoch: MemberEpoch(5),
        previous_epoch: MemberEpoch(4),
        state: StreamsMemberState::UnrevokedTasks,
        assigned: AssignedTasks {
            active: of_epochs("0", &[(0, 3), (1, 5)]),
            standby: of("1", &[3]),
            warmup: TaskSet::new(),
        },
        pending_revocation: AssignedTasks {
            active: of_epochs("1", &[(2, 4)]),
            standby: TaskSet::new(),
            warmup: of("0", &[9]),
        },
    }
}

fn whole_topology() -> Topology {
    let changelog =
        InternalTopic { replication_factor: 1, configs: vec![("k".to_owned(), "v".to_owned())], ..internal("c") };
    let group =
        CopartitionGroup { source_topics: vec![0, 1], source_topic_regexes: vec![0], repartition_sources: vec![] };
    topology(&[
        Subtopology {
            source_topic_regexes: vec!["x.*".to_owned()],
            changelogs: vec![changelog],
            repartition_sinks: vec!["r".to_owned()],
            copartition_groups: vec![group],
            ..reads("0", &["s", "q"])
        },
        Subtopology { repartition_sources: vec![fixed("r", 3)], ..reads("1", &[]) },
    ])
}

fn cases() -> Vec<(StreamsRecord, &'static str, &'static str)> {
    let (g, m) = (|| "g".to_owned(), || "m1".to_owned());
    let group = StreamsGroupRecord {
        epoch: 5,
        metadata_hash: 7,
        validated_topology_epoch: 0,
        assignment_configs: pairs(&[("num.standby.replicas", "1")]),
    };
    let plain_group =
        StreamsGroupRecord { validated_topology_epoch: -1, assignment_configs: BTreeMap::new(), ..group.clone() };
    let at = Timestamp::from_wire(1_700_000_000_000).unwrap();
    let mut target = of("0", &[0, 1]);
    target.extend(of("1", &[2]));
    let target = Tasks { active: target, standby: of("1", &[3]), warmup: TaskSet::new() };
    vec![
        (
            StreamsRecord::Group(g(), Some(group)),
            "0011000167",
            "000000000005000000000000000702000400000000011902156e756d2e7374616e6462792e7265706c69636173023100",
        ),
        (StreamsRecord::Group(g(), Some(plain_group)), "0011000167", "000000000005000000000000000700"),
        (
            StreamsRecord::Member(g(), m(), Some(member())),
            "001300016700026d31",
            "00000002720263032f680000ea60000000000270010268ffff00030261026200026302640000",
        ),
        (
            StreamsRecord::Member(g(), m(), Some(plain_member())),
            "001300016700026d31",
            "000000000101ffffffffffffffff01ff0100",
        ),
        (
            StreamsRecord::Target(g(), Some(TargetRecord { epoch: 5, assigned_at: Some(at) })),
            "0014000167",
            "0000000000050100080000018bcfe56800",
        ),
        (
            StreamsRecord::MemberTarget(g(), m(), Some(target)),
            "001500016700026d31",
            "00000302300300000000000000010002310200000002000202310200000003000100",
        ),
        (
            StreamsRecord::Current(g(), m(), Some(current())),
            "001600016700026d31",
            "000000000005000000040202023003000000000000000101000903000000030000000502023102000000030001020231020000000201000502\
             000000040102023002000000090000",
        ),
        (
            StreamsRecord::Topology(g(), Some(Arc::new(whole_topology()))),
            "0017000167",
            "00000000000003023003027302710204782e2a02026300000000000102026b02760000020272010203000000010200000100000231010101\
             010202720000000300000100010000",
        ),
    ]
}

fn ends() -> Vec<(StreamsRecord, &'static str)> {
    let (g, m) = (|| "g".to_owned(), || "m1".to_owned());
    vec![
        (StreamsRecord::Group(g(), None), "0011000167"),
        (StreamsRecord::Member(g(), m(), None), "001300016700026d31"),
        (StreamsRecord::Target(g(), None), "0014000167"),
        (StreamsRecord::MemberTarget(g(), m(), None), "001500016700026d31"),
        (StreamsRecord::Current(g(), m(), None), "001600016700026d31"),
        (StreamsRecord::Topology(g(), None), "0017000167"),
    ]
}

#[test]
fn records_are_those_of_kafka_byte_for_byte() {
    for (record, key, value) in cases() {
        let record = CoordinatorRecord::Streams(record);
        let encoded = record.encode().unwrap();
        assert_eq!(encoded.key, hex(key), "{record:?}");
        assert_eq!(encoded.value.as_deref(), Some(&hex(value)[..]), "{record:?}");
        assert_eq!(CoordinatorRecord::decode(&hex(key), Some(&hex(value))).unwrap(), record);
    }
    for (record, key) in ends() {
        let record = CoordinatorRecord::Streams(record);
        let encoded = record.encode().unwrap();
        assert_eq!((encoded.key, encoded.value), (hex(key), None), "{record:?}");
        assert_eq!(CoordinatorRecord::decode(&hex(key), None).unwrap(), record);
    }
}

#[test]
fn a_value_cut_anywhere_is_refused() {
    for (record, key, value) in cases() {
        let value = hex(value);
        for end in 0..value.len() {
            assert!(CoordinatorRecord::decode(&hex(key), Some(&value[..end])).is_err(), "{record:?} cut at {end}");
        }
    }
}

#[test]
fn tasks_without_epochs_count_as_given_in_the_members_own() {
    // As Kafka before 4.3 wrote it: no epochs beside the tasks.
    let value = hex("0000000000050000000401020230020000000100010101010100");
    let decoded = CoordinatorRecord::decode(&hex("001600016700026d31"), Some(&value)).unwrap();
    let CoordinatorRecord::Streams(StreamsRecord::Current(_, _, Some(current))) = decoded else {
        panic!("{decoded:?}")
    };
    assert_eq!(current.assigned.active, of_epochs("0", &[(1, 5)]));
}

proptest! {
    #[test]
    fn no_bytes_break_a_shard_that_replays_them(kind in 17i16..24, value in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut key = kind.to_be_bytes().to_vec();
        key.extend(hex("000167"));
        key.extend(hex("00026d31"));
        let mut value = value;
        value.splice(0..0, [0, 0]);
        if let Ok(record) = CoordinatorRecord::decode(&key, Some(&value)) {
            let mut harness = cluster_of(2);
            let now = harness.moment();
            let entry = Entry::Record { offset: Offset::new(0).unwrap(), producer: None, record: record.clone() };
            harness.shard.replay(now, entry).unwrap();
            let _ = harness.shard.describe_streams(GROUP);
            let encoded = record.encode().unwrap();
            prop_assert_eq!(CoordinatorRecord::decode(&encoded.key, encoded.value.as_deref()).unwrap(), record);
        }
    }
}
