//! Transactions: every request in every version, in every state of a transaction, of both generations of the protocol.

mod ends;

use anyhow::{Context, Result};
use bytes::BufMut;
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
        EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, ListTransactionsRequest,
        OffsetFetchRequest, ProduceRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
        WriteTxnMarkersRequest,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        describe_producers_request::TopicRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    },
    protocol::Request,
};
use serde_json::Value;
use varve_tests::differential::{Pair, Side, raw_frame};

use super::{
    data::{WHEN, batch, changed, write},
    groups::await_coordinator,
    request::{group, text, topic, versions},
    topics::{make, new},
};

const COMPLETE: [&str; 2] = ["CompleteCommit", "CompleteAbort"];

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    make(pair, new("txn", 4, 1))?;
    await_coordinator(pair)?;
    coordinators(pair)?;
    introductions(pair)?;
    additions(pair)?;
    broker_additions(pair)?;
    produce(pair)?;
    ends::script(pair)?;
    offsets(pair)?;
    markers(pair)?;
    views(pair)
}

fn id(name: &str) -> TransactionalId {
    TransactionalId(text(name))
}

/// What the broker gave to the transactional id last.
fn producer(side: &Side, name: &str) -> (ProducerId, i16) {
    let number = |what: &str| side.value(&format!("{what} {name}")).parse::<i64>().unwrap_or(-1);
    (ProducerId(number("producer")), number("epoch") as i16)
}

fn remember(pair: &mut Pair, name: &str, answers: &[Value; 2]) {
    for (side, answer) in pair.sides().into_iter().zip(answers) {
        if answer["error_code"] == 0 {
            side.remember(&format!("producer {name}"), &answer["producer_id"].to_string());
            side.remember(&format!("epoch {name}"), &answer["producer_epoch"].to_string());
        }
    }
}

fn init(name: &str) -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(Some(id(name))).with_transaction_timeout_ms(60_000)
}

/// A producer that has introduced itself, on both sides.
fn introduce(pair: &mut Pair, name: &str) -> Result<()> {
    pair.until_no_error(4, |_, _| {
        FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text(name)])
    })?;
    let answers = pair.ask(&format!("txn-init-{name}"), &[5], |_, _| init(name))?;
    remember(pair, name, &answers);
    Ok(())
}

fn add(side: &Side, name: &str, places: &[(&str, &[i32])]) -> AddPartitionsToTxnRequest {
    let (producer, epoch) = producer(side, name);
    let topics = places.iter().map(|(name, partitions)| {
        AddPartitionsToTxnTopic::default().with_name(topic(name)).with_partitions(partitions.to_vec())
    });
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id(name))
        .with_v3_and_below_producer_id(producer)
        .with_v3_and_below_producer_epoch(epoch)
        .with_v3_and_below_topics(topics.collect())
}

fn end(side: &Side, name: &str, commit: bool) -> EndTxnRequest {
    let (producer, epoch) = producer(side, name);
    EndTxnRequest::default()
        .with_transactional_id(id(name))
        .with_producer_id(producer)
        .with_producer_epoch(epoch)
        .with_committed(commit)
}

/// Waits until the transaction is in one of `states` on both sides.
fn await_state(pair: &mut Pair, name: &str, states: &[&str]) -> Result<()> {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id(name)]);
    pair.until(
        0,
        |_, _| request.clone(),
        |answer| {
            let state = answer["transaction_states"][0]["transaction_state"].as_str().unwrap_or_default();
            states.contains(&state)
        },
    )
}

fn coordinators(pair: &mut Pair) -> Result<()> {
    let one = |key: &str| FindCoordinatorRequest::default().with_key(text(key)).with_key_type(1);
    pair.until_no_error(3, |_, _| one("t"))?;
    for key in ["t", "", "grüße"] {
        pair.ask(&format!("txn-coordinator-{key}"), &versions(1, 3), |_, _| one(key))?;
        pair.ask(&format!("txn-coordinators-{key}"), &versions(4, 6), |_, _| {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text(key)]).with_key_type(1)
        })?;
    }
    // Kafka says where the coordinator is before it has loaded its transactions.
    pair.until_no_error(5, |_, _| init("warm"))?;
    Ok(())
}

fn introductions(pair: &mut Pair) -> Result<()> {
    let all = versions(0, 5);
    pair.ask("txn-init", &all, |_, _| init("t"))?;
    for timeout in [0, -1, 1, 900_000, 900_001, i32::MAX, i32::MIN] {
        pair.ask(&format!("txn-init-timeout-{timeout}"), &all, |_, _| {
            init("timeouts").with_transaction_timeout_ms(timeout)
        })?;
    }
    introduce(pair, "again")?;
    let going_on = |pair: &mut Pair, what: &str, change: fn(ProducerId, i16) -> (i64, i16)| {
        pair.ask(&format!("txn-init-{what}"), &versions(3, 5), |_, side| {
            let (producer, epoch) = producer(side, "again");
            let (producer, epoch) = change(producer, epoch);
            init("again").with_producer_id(ProducerId(producer)).with_producer_epoch(epoch)
        })
    };
    // The second and third time the answer to the first is repeated.
    going_on(pair, "going-on", |id, epoch| (id.0, epoch))?;
    going_on(pair, "another-id", |id, epoch| (id.0 + 1000, epoch))?;
    going_on(pair, "later-epoch", |id, epoch| (id.0, epoch + 100))?;
    going_on(pair, "half", |id, _| (id.0, -1))?;
    going_on(pair, "other-half", |_, epoch| (-1, epoch))?;
    going_on(pair, "exhausted-epoch", |id, _| (id.0, i16::MAX - 1))?;
    introduce(pair, "again")?;
    going_on(pair, "earlier-epoch", |id, epoch| (id.0, epoch - 1))?;
    pair.ask("txn-init-new-going-on", &versions(3, 5), |version, _| {
        init(&format!("new-{version}")).with_producer_id(ProducerId(4711)).with_producer_epoch(3)
    })?;
    Ok(())
}

fn additions(pair: &mut Pair) -> Result<()> {
    introduce(pair, "add")?;
    let all = versions(0, 3);
    type Places = &'static [(&'static str, &'static [i32])];
    let places: [(&str, Places); 9] = [
        ("one", &[("txn", &[0])]),
        ("again", &[("txn", &[0])]),
        ("more", &[("txn", &[0, 1, 2])]),
        ("twice", &[("txn", &[3, 3])]),
        ("none", &[]),
        ("no-partition", &[("txn", &[])]),
        ("unknown-topic", &[("nothing", &[0]), ("txn", &[0])]),
        ("unknown-partition", &[("txn", &[0, 99, -1])]),
        ("internal", &[("__consumer_offsets", &[0])]),
    ];
    for (what, places) in places {
        pair.ask(&format!("txn-add-{what}"), &all, |_, side| add(side, "add", places))?;
    }
    pair.ask("txn-add-unknown-id", &all, |_, side| {
        add(side, "add", &[("txn", &[0])]).with_v3_and_below_transactional_id(id("nobody"))
    })?;
    pair.ask("txn-add-empty-id", &all, |_, side| {
        add(side, "add", &[("txn", &[0])]).with_v3_and_below_transactional_id(id(""))
    })?;
    for (what, producer_off, epoch_off) in [("producer", 1000, 0), ("later-epoch", 0, 1), ("earlier-epoch", 0, -1)] {
        pair.ask(&format!("txn-add-{what}"), &all, |_, side| {
            let (producer, epoch) = producer(side, "add");
            add(side, "add", &[("txn", &[0])])
                .with_v3_and_below_producer_id(ProducerId(producer.0 + producer_off))
                .with_v3_and_below_producer_epoch(epoch + epoch_off)
        })?;
    }
    let offsets = |side: &Side, name: &str| {
        let (producer, epoch) = producer(side, "add");
        AddOffsetsToTxnRequest::default()
            .with_transactional_id(id(name))
            .with_producer_id(producer)
            .with_producer_epoch(epoch)
            .with_group_id(group("g"))
    };
    let all = versions(0, 4);
    for name in ["add", "nobody", ""] {
        pair.ask(&format!("txn-add-offsets-{name}"), &all, |_, side| offsets(side, name))?;
    }
    pair.ask("txn-add-offsets-empty-group", &all, |_, side| offsets(side, "add").with_group_id(group("")))?;
    pair.ask("txn-add-offsets-later-epoch", &all, |_, side| offsets(side, "add").with_producer_epoch(99))?;
    pair.ask("txn-add-offsets-producer", &all, |_, side| offsets(side, "add").with_producer_id(ProducerId(99_999)))?;
    // A transaction that is under way is aborted for whoever introduces itself.
    pair.ask("txn-init-while-open", &[5], |_, _| init("add"))?;
    await_state(pair, "add", &COMPLETE)?;
    pair.ask("txn-add-fenced", &versions(0, 3), |_, side| add(side, "add", &[("txn", &[0])]))?;
    pair.ask("txn-end-fenced", &versions(0, 4), |_, side| end(side, "add", true))?;
    Ok(())
}

fn broker_additions(pair: &mut Pair) -> Result<()> {
    introduce(pair, "broker")?;
    let one = |side: &Side, name: &str, of: &str, partitions: &[i32], verify: bool| {
        let (producer, epoch) = producer(side, of);
        let topic = AddPartitionsToTxnTopic::default().with_name(topic("txn")).with_partitions(partitions.to_vec());
        AddPartitionsToTxnTransaction::default()
            .with_transactional_id(id(name))
            .with_producer_id(producer)
            .with_producer_epoch(epoch)
            .with_verify_only(verify)
            .with_topics(vec![topic])
    };
    let all = [4, 5];
    let of = |transactions: Vec<AddPartitionsToTxnTransaction>| {
        AddPartitionsToTxnRequest::default().with_transactions(transactions)
    };
    pair.ask("txn-verify-empty", &all, |_, side| of(vec![one(side, "broker", "broker", &[0], true)]))?;
    pair.ask("txn-broker-add", &all, |_, side| of(vec![one(side, "broker", "broker", &[0], false)]))?;
    pair.ask("txn-verify", &all, |_, side| of(vec![one(side, "broker", "broker", &[0, 1], true)]))?;
    pair.ask("txn-verify-unknown-partition", &all, |_, side| of(vec![one(side, "broker", "broker", &[0, 99], true)]))?;
    pair.ask("txn-verify-unknown-id", &all, |_, side| of(vec![one(side, "nobody", "broker", &[0], true)]))?;
    pair.ask("txn-verify-empty-id", &all, |_, side| of(vec![one(side, "", "broker", &[0], true)]))?;
    pair.ask("txn-verify-producer", &all, |_, side| of(vec![one(side, "broker", "add", &[0], true)]))?;
    pair.ask("txn-verify-several", &all, |_, side| {
        of(vec![one(side, "broker", "broker", &[0], true), one(side, "t", "broker", &[0], false)])
    })?;
    pair.ask("txn-broker-add-none", &all, |_, _| of(vec![]))?;
    Ok(())
}

/// A batch of a transaction of the producer.
fn transactional(side: &Side, name: &str, sequence: i32) -> Result<Vec<u8>> {
    let (producer, epoch) = producer(side, name);
    let one = batch(&[(WHEN, Some("k"), "v")])?;
    let batch = changed(&one, 43, &producer.0.to_be_bytes());
    let batch = changed(&batch, 51, &epoch.to_be_bytes());
    let batch = changed(&batch, 53, &sequence.to_be_bytes());
    Ok(changed(&batch, 21, &[0, 0x10]))
}

fn write_as(version: i16, side: &Side, name: &str, partition: i32, sequence: i32) -> ProduceRequest {
    let batch = transactional(side, name, sequence).unwrap_or_default();
    write(version, side, &[("txn", partition, Some(&batch))], -1).with_transactional_id(Some(id(name)))
}

fn produce(pair: &mut Pair) -> Result<()> {
    introduce(pair, "write")?;
    for version in [3, 9, 10, 11] {
        pair.ask("txn-produce-not-added", &[version], |v, side| write_as(v, side, "write", 0, 0))?;
    }
    pair.ask("txn-produce-no-id", &[3, 9, 11, 12, 13], |v, side| {
        write_as(v, side, "write", 0, 0).with_transactional_id(None)
    })?;
    pair.ask("txn-produce-unknown-id", &[9, 11, 12, 13], |v, side| {
        write_as(v, side, "write", 0, 0).with_transactional_id(Some(id("nobody")))
    })?;
    pair.ask("txn-produce-empty-id", &[9, 12], |v, side| {
        write_as(v, side, "write", 0, 0).with_transactional_id(Some(id("")))
    })?;
    // The first adds the partition; those of a number that was seen are repetitions.
    pair.ask("txn-produce-added", &[12, 13, 9], |v, side| write_as(v, side, "write", 1, 0))?;
    pair.ask("txn-produce-next", &[11], |v, side| write_as(v, side, "write", 1, 1))?;
    pair.ask("txn-produce-gap", &[9, 12], |v, side| write_as(v, side, "write", 1, 7))?;
    pair.ask("txn-produce-begins-in-the-middle", &[12], |v, side| write_as(v, side, "write", 2, 5))?;
    pair.ask("txn-produce-plain-inside", &[9, 12], |v, side| {
        let batch = transactional(side, "write", 2).map(|batch| changed(&batch, 21, &[0, 0])).unwrap_or_default();
        write(v, side, &[("txn", 1, Some(&batch))], -1).with_transactional_id(Some(id("write")))
    })?;
    pair.ask("txn-produce-two-producers", &[12], |v, side| {
        let (one, other) = (transactional(side, "write", 2), transactional(side, "broker", 0));
        let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
        write(v, side, &[("txn", 1, Some(&one)), ("txn", 0, Some(&other))], -1).with_transactional_id(Some(id("write")))
    })?;
    let committed = |isolation: i8| {
        let partition =
            ListOffsetsPartition::default().with_partition_index(1).with_current_leader_epoch(-1).with_timestamp(-1);
        let asked = ListOffsetsTopic::default().with_name(topic("txn")).with_partitions(vec![partition]);
        ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_isolation_level(isolation)
            .with_topics(vec![asked])
    };
    for isolation in [0, 1] {
        pair.ask(&format!("txn-list-offsets-open-{isolation}"), &versions(2, 10), |_, _| committed(isolation))?;
    }
    let answers = pair.ask("txn-end-written", &[5], |_, side| end(side, "write", false))?;
    remember(pair, "write", &answers);
    await_state(pair, "write", &COMPLETE)?;
    for isolation in [0, 1] {
        pair.ask(&format!("txn-list-offsets-ended-{isolation}"), &[2, 5, 10], |_, _| committed(isolation))?;
    }
    pair.ask("txn-produce-earlier-epoch", &[9, 11, 12], |v, side| {
        let (producer, epoch) = producer(side, "write");
        let batch = transactional(side, "write", 3).unwrap_or_default();
        let batch = changed(&changed(&batch, 43, &producer.0.to_be_bytes()), 51, &(epoch - 1).to_be_bytes());
        write(v, side, &[("txn", 1, Some(&batch))], -1).with_transactional_id(Some(id("write")))
    })?;
    Ok(())
}

fn offsets(pair: &mut Pair) -> Result<()> {
    introduce(pair, "commit")?;
    let commit = |side: &Side, group_id: &str, places: &[(&str, i32, &str)]| {
        let (producer, epoch) = producer(side, "commit");
        let topics = places.iter().map(|(name, index, metadata)| {
            let partition = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(7)
                .with_committed_metadata(Some(text(metadata)));
            TxnOffsetCommitRequestTopic::default().with_name(topic(name)).with_partitions(vec![partition])
        });
        TxnOffsetCommitRequest::default()
            .with_transactional_id(id("commit"))
            .with_group_id(group(group_id))
            .with_producer_id(producer)
            .with_producer_epoch(epoch)
            .with_topics(topics.collect())
    };
    let all = versions(0, 5);
    let place: &[(&str, i32, &str)] = &[("txn", 0, "")];
    // From version 5 on the group is added by the way.
    pair.ask("txn-commit-not-added", &versions(0, 4), |_, side| commit(side, "tg", place))?;
    pair.ask("txn-commit-unknown-id", &all, |_, side| commit(side, "tg", place).with_transactional_id(id("nobody")))?;
    pair.ask("txn-commit-empty-group", &all, |_, side| commit(side, "", place))?;
    pair.ask("txn-commit-producer", &all, |_, side| commit(side, "tg", place).with_producer_id(ProducerId(99_999)))?;
    pair.ask("txn-commit-later-epoch", &all, |_, side| commit(side, "tg", place).with_producer_epoch(9))?;
    pair.ask("txn-commit-nowhere", &all, |_, side| commit(side, "tg", &[("nothing", 0, ""), ("txn", 99, "")]))?;
    pair.ask("txn-commit-generation", &versions(3, 5), |_, side| commit(side, "tg", place).with_generation_id(3))?;
    pair.ask("txn-commit-added", &[5, 4, 3, 2, 1, 0], |_, side| commit(side, "tg", place))?;
    pair.ask("txn-commit-large-metadata", &all, |_, side| {
        commit(side, "tg", &[("txn", 0, ""), ("txn", 1, &"m".repeat(5000)), ("nothing", 0, "")])
    })?;
    pair.ask("txn-commit-member", &versions(3, 5), |_, side| commit(side, "tg", place).with_member_id(text("m")))?;
    let fetch = |stable: bool| {
        let topics = OffsetFetchRequestTopics::default().with_name(topic("txn")).with_partition_indexes(vec![0, 1]);
        let of = |topics| OffsetFetchRequestGroup::default().with_group_id(group("tg")).with_topics(topics);
        OffsetFetchRequest::default().with_groups(vec![of(Some(vec![topics])), of(None)]).with_require_stable(stable)
    };
    for stable in [true, false] {
        pair.ask(&format!("txn-offsets-open-{stable}"), &[8, 9], |_, _| fetch(stable))?;
    }
    let answers = pair.ask("txn-end-committed", &[5], |_, side| end(side, "commit", true))?;
    remember(pair, "commit", &answers);
    await_state(pair, "commit", &COMPLETE)?;
    for stable in [true, false] {
        pair.ask(&format!("txn-offsets-ended-{stable}"), &[8, 9], |_, _| fetch(stable))?;
    }
    Ok(())
}

fn markers(pair: &mut Pair) -> Result<()> {
    introduce(pair, "mark")?;
    pair.ask("txn-produce-before-mark", &[12], |v, side| write_as(v, side, "mark", 2, 0))?;
    let marker = |side: &Side, epoch_off: i16, coordinator: i32, partitions: &[i32]| {
        let (producer, epoch) = producer(side, "mark");
        let topic =
            WritableTxnMarkerTopic::default().with_name(topic("txn")).with_partition_indexes(partitions.to_vec());
        WritableTxnMarker::default()
            .with_producer_id(producer)
            .with_producer_epoch(epoch + epoch_off)
            .with_coordinator_epoch(coordinator)
            .with_topics(vec![topic])
    };
    let of = |markers: Vec<WritableTxnMarker>| WriteTxnMarkersRequest::default().with_markers(markers);
    pair.ask("txn-mark-nothing", &[1], |_, _| of(vec![]))?;
    pair.ask("txn-mark-earlier-epoch", &[1], |_, side| of(vec![marker(side, -1, 5, &[2])]))?;
    pair.ask("txn-mark-nowhere", &[1], |_, side| of(vec![marker(side, 0, 5, &[99])]))?;
    pair.ask("txn-mark", &[1], |_, side| of(vec![marker(side, 0, 5, &[2, 3, 99])]))?;
    pair.ask("txn-mark-again", &[1], |_, side| of(vec![marker(side, 0, 5, &[2])]))?;
    pair.ask("txn-mark-older-coordinator", &[1], |_, side| of(vec![marker(side, 0, 4, &[2])]))?;
    pair.ask("txn-mark-later-epoch", &[1], |_, side| of(vec![marker(side, 1, 5, &[2]), marker(side, 2, 5, &[3])]))?;
    // Version 2 says how the producer speaks; nothing of the answer names it.
    for (what, epoch_off, version) in [("old", 2, 0_i8), ("same", 2, 2), ("raised", 3, 2), ("late", 1, 2)] {
        pair.ask_bytes(&format!("txn-mark-2-{what}"), |side| {
            let (producer, epoch) = producer(side, "mark");
            let mut body = vec![2];
            // The identity must not show in what is compared: one that both know.
            let _ = producer;
            body.put_i64(777_777);
            body.put_i16(epoch + epoch_off);
            body.put_u8(0);
            body.extend([2, 4]);
            body.extend(b"txn");
            body.push(2);
            body.put_i32(3);
            body.push(0);
            body.put_i32(9);
            body.put_i8(version);
            body.extend([0, 0]);
            raw_frame(WriteTxnMarkersRequest::KEY, 2, &body)
        })?;
    }
    Ok(())
}

fn views(pair: &mut Pair) -> Result<()> {
    introduce(pair, "view")?;
    pair.ask("txn-produce-before-view", &[12], |v, side| write_as(v, side, "view", 0, 0))?;
    for names in [vec!["view"], vec!["view", "nobody", "", "view"], vec![]] {
        pair.ask(&format!("txn-describe-{}", names.join("+")), &[0], |_, _| {
            DescribeTransactionsRequest::default().with_transactional_ids(names.iter().map(|name| id(name)).collect())
        })?;
    }
    let list = ListTransactionsRequest::default;
    let view = |states: &[&str]| list().with_state_filters(states.iter().map(|state| text(state)).collect());
    pair.ask("txn-list-ongoing", &[0, 1, 2], |_, _| view(&["Ongoing"]))?;
    pair.ask("txn-list-unknown-state", &[0, 1, 2], |_, _| view(&["ongoing", "PrepareEpochFence", "Nonsense"]))?;
    pair.ask("txn-list-long", &[1, 2], |_, _| view(&["Ongoing"]).with_duration_filter(3_600_000))?;
    pair.ask("txn-list-negative", &[1, 2], |_, _| view(&["Ongoing"]).with_duration_filter(-5))?;
    pair.ask("txn-list-producer", &[0, 2], |_, side| {
        list().with_producer_id_filters(vec![producer(side, "view").0, ProducerId(-1)])
    })?;
    for pattern in ["view", "vi.*", "iew", "(", "", "[a-z]{4}"] {
        pair.ask(&format!("txn-list-pattern-{pattern}"), &[2], |_, _| {
            view(&["Ongoing"]).with_transactional_id_pattern(Some(text(pattern)))
        })?;
    }
    let producers = |name: &str, partitions: &[i32]| {
        let asked = TopicRequest::default().with_name(topic(name)).with_partition_indexes(partitions.to_vec());
        DescribeProducersRequest::default().with_topics(vec![asked])
    };
    pair.ask("txn-producers-nowhere", &[0], |_, _| producers("nothing", &[0]))?;
    pair.ask("txn-producers-bad-name", &[0], |_, _| producers("no topic", &[0]))?;
    pair.ask("txn-producers-empty-name", &[0], |_, _| producers("", &[0]))?;
    pair.ask("txn-producers-none", &[0], |_, _| producers("txn", &[]))?;
    pair.ask("txn-producers-unknown-partition", &[0], |_, _| producers("txn", &[99, -1]))?;
    let answers = pair.ask("txn-producers", &[0], |_, _| producers("txn", &[2]))?;
    let of = |answer: &Value| answer["topics"][0]["partitions"][0]["active_producers"].as_array().map(Vec::len);
    of(&answers[1]).filter(|count| *count > 0).context("somebody wrote there")?;
    Ok(())
}
