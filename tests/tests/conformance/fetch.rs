//! Fetch: with and without sessions.

use anyhow::{Context, Result};
use kafka_protocol::messages::{
    BrokerId, FetchRequest,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState},
};
use uuid::Uuid;
use varve_tests::differential::{Pair, Side};

use super::request::{NOBODYS_ID, id_of, text, topic, versions};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    plain(pair)?;
    sessions(pair)
}

#[derive(Clone, Copy)]
struct Part<'a> {
    name: &'a str,
    index: i32,
    offset: i64,
    max_bytes: i32,
    epoch: i32,
    last_epoch: i32,
}

fn part(name: &str, index: i32, offset: i64) -> Part<'_> {
    Part { name, index, offset, max_bytes: 1 << 20, epoch: -1, last_epoch: -1 }
}

fn read(version: i16, side: &Side, parts: &[Part<'_>]) -> FetchRequest {
    let topics = parts.iter().map(|part| {
        let mut partition = FetchPartition::default()
            .with_partition(part.index)
            .with_fetch_offset(part.offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(part.max_bytes);
        if version >= 9 {
            partition = partition.with_current_leader_epoch(part.epoch);
        }
        if version >= 12 {
            partition = partition.with_last_fetched_epoch(part.last_epoch);
        }
        let data = FetchTopic::default().with_partitions(vec![partition]);
        match (version, part.name) {
            (13.., "nobody") => data.with_topic_id(NOBODYS_ID),
            (13.., "zero") => data.with_topic_id(Uuid::nil()),
            (13.., name) => data.with_topic_id(id_of(side, name)),
            (_, name) => data.with_topic(topic(name)),
        }
    });
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(topics.collect())
}

fn plain(pair: &mut Pair) -> Result<()> {
    let all = versions(4, 18);
    let some = [4, 9, 12, 13, 18];
    pair.ask("fetch", &all, |v, side| read(v, side, &[part("log", 0, 0)]))?;
    pair.ask("fetch-committed", &all, |v, side| read(v, side, &[part("log", 0, 0)]).with_isolation_level(1))?;
    pair.ask("fetch-isolation-9", &some, |v, side| read(v, side, &[part("log", 0, 0)]).with_isolation_level(9))?;
    // Batches whose largest timestamp was wrong.
    pair.ask("fetch-timed", &some, |v, side| read(v, side, &[part("timed", 0, 0)]))?;
    pair.ask("fetch-middle", &some, |v, side| read(v, side, &[part("log", 0, 20)]))?;
    pair.ask("fetch-several", &all, |v, side| {
        read(v, side, &[part("log", 0, 5), part("void", 0, 0), part("log", 1, 0)])
    })?;
    pair.ask("fetch-unknown", &all, |v, side| read(v, side, &[part("nobody", 0, 0), part("log", 0, 30)]))?;
    pair.ask("fetch-id-zero", &[13, 18], |v, side| read(v, side, &[part("zero", 0, 0)]))?;
    pair.ask("fetch-partition", &all, |v, side| read(v, side, &[part("log", 99, 0), part("log", -1, 0)]))?;
    pair.ask("fetch-beyond", &all, |v, side| read(v, side, &[part("log", 0, 1_000_000)]))?;
    pair.ask("fetch-negative", &some, |v, side| read(v, side, &[part("log", 0, -1)]))?;
    pair.ask("fetch-least", &some, |v, side| read(v, side, &[part("log", 0, i64::MIN)]))?;
    pair.ask("fetch-end", &some, |v, side| read(v, side, &[part("void", 0, 0)]))?;
    pair.ask("fetch-none", &some, |v, side| read(v, side, &[]))?;
    pair.ask("fetch-twice", &some, |v, side| read(v, side, &[part("log", 0, 30), part("log", 0, 31)]))?;
    for epoch in [0, 1, -2] {
        pair.ask(&format!("fetch-epoch-{epoch}"), &[9, 12, 18], |v, side| {
            read(v, side, &[Part { epoch, ..part("log", 0, 30) }])
        })?;
        pair.ask(&format!("fetch-last-epoch-{epoch}"), &[12, 18], |v, side| {
            read(v, side, &[Part { last_epoch: epoch, ..part("log", 0, 30) }])
        })?;
    }
    for bytes in [0, 1, 100, -1] {
        pair.ask(&format!("fetch-partition-max-{bytes}"), &some, |v, side| {
            read(
                v,
                side,
                &[Part { max_bytes: bytes, ..part("log", 0, 0) }, Part { max_bytes: bytes, ..part("log", 1, 0) }],
            )
        })?;
        pair.ask(&format!("fetch-max-{bytes}"), &some, |v, side| {
            read(v, side, &[part("log", 0, 0), part("log", 1, 0)]).with_max_bytes(bytes)
        })?;
        pair.ask(&format!("fetch-min-{bytes}"), &some, |v, side| {
            read(v, side, &[part("void", 0, 0)]).with_min_bytes(bytes)
        })?;
    }
    pair.ask("fetch-wait", &some, |v, side| read(v, side, &[part("void", 0, 0)]).with_max_wait_ms(50))?;
    pair.ask("fetch-wait-negative", &some, |v, side| read(v, side, &[part("void", 0, 0)]).with_max_wait_ms(-1))?;
    pair.ask("fetch-rack", &[11, 18], |v, side| read(v, side, &[part("log", 0, 30)]).with_rack_id(text("r")))?;
    // Nobody's replica, and one that is not in the cluster.
    pair.ask("fetch-replica", &[4, 12], |v, side| read(v, side, &[part("log", 0, 30)]).with_replica_id(BrokerId(9)))?;
    pair.ask("fetch-replica", &[15, 18], |v, side| {
        let state = ReplicaState::default().with_replica_id(BrokerId(9)).with_replica_epoch(1);
        read(v, side, &[part("log", 0, 30)]).with_replica_state(state)
    })?;
    pair.ask("fetch-debugging", &[4, 12], |v, side| {
        read(v, side, &[part("log", 0, 30)]).with_replica_id(BrokerId(-2))
    })?;
    Ok(())
}

fn sessions(pair: &mut Pair) -> Result<()> {
    let with = |request: FetchRequest, id: i32, epoch: i32| request.with_session_id(id).with_session_epoch(epoch);
    for (id, epoch) in [(0, 1), (0, 5), (77, 0), (77, 1), (77, -1), (-5, 0), (-5, 1), (0, -2), (0, i32::MAX)] {
        pair.ask(&format!("fetch-session-{id}-{epoch}"), &[7, 12, 18], |v, side| {
            with(read(v, side, &[part("log", 0, 30)]), id, epoch)
        })?;
    }
    pair.ask("fetch-session-of-nothing", &[7, 18], |v, side| with(read(v, side, &[]), 0, 0))?;
    for version in [7, 12, 13, 18] {
        let name = |step: &str| format!("fetch-session-{step}");
        let answers = pair.ask(&name("opened"), &[version], |v, side| {
            with(read(v, side, &[part("log", 0, 30), part("void", 0, 0), part("nobody", 0, 0)]), 0, 0)
        })?;
        for (side, answer) in pair.sides().into_iter().zip(answers) {
            let id = answer["session_id"].as_i64().context("a session")?;
            side.remember("session", &id.to_string());
        }
        let id = |side: &Side| side.value("session").parse().unwrap_or(0);
        pair.ask(&name("nothing-new"), &[version], |v, side| with(read(v, side, &[]), id(side), 1))?;
        pair.ask(&name("again"), &[version], |v, side| with(read(v, side, &[]), id(side), 1))?;
        pair.ask(&name("skips"), &[version], |v, side| with(read(v, side, &[]), id(side), 9))?;
        pair.ask(&name("adds"), &[version], |v, side| with(read(v, side, &[part("log", 1, 0)]), id(side), 2))?;
        pair.ask(&name("moves"), &[version], |v, side| with(read(v, side, &[part("log", 1, 2)]), id(side), 3))?;
        pair.ask(&name("errs"), &[version], |v, side| with(read(v, side, &[part("log", 77, 2)]), id(side), 4))?;
        pair.ask(&name("forgets"), &[version], |v, side| {
            let forgotten = ForgottenTopic::default().with_partitions(vec![0, 1, 77]);
            let forgotten = match v {
                13.. => forgotten.with_topic_id(id_of(side, "log")),
                _ => forgotten.with_topic(topic("log")),
            };
            with(read(v, side, &[]), id(side), 5).with_forgotten_topics_data(vec![forgotten])
        })?;
        pair.ask(&name("other-kind"), &[if version > 12 { 12 } else { 13 }], |v, side| {
            with(read(v, side, &[]), id(side), 6)
        })?;
        pair.ask(&name("closes"), &[version], |v, side| with(read(v, side, &[part("log", 0, 30)]), id(side), -1))?;
        pair.ask(&name("closed"), &[version], |v, side| with(read(v, side, &[]), id(side), 6))?;
    }
    Ok(())
}
