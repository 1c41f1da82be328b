//! What a follower's fetch looks at: what is new since the one before, and not the whole of its session.

use std::{collections::HashSet, sync::Arc, time::Instant};

use kafka_protocol::error::ResponseError;
use tokio::time::timeout_at;
use tracing::{Instrument, trace_span};

use super::{
    fetch::{find_all, note_given},
    fetch_read::{FetchLimits, Fetched, Round},
};
use crate::{
    partition::{Partition, Waiter},
    server::{
        Broker,
        authorizer::Access,
        fetch_session::{Named, PartitionKey, Turn, Wanted},
    },
};

/// Reads as a follower's session has it: looks at what is `wanted` so far and at what has news meanwhile, which is wanted from then on.
pub(super) async fn collect_news(
    broker: &Broker,
    access: &Access<'_>,
    (turn, waiter): (&Turn, Waiter),
    wanted: &mut Named,
    limits: &FetchLimits,
) -> (Vec<Fetched>, Vec<(Arc<Partition>, usize)>) {
    loop {
        let partitions = find_all(broker, access, limits, wanted);
        let found = wanted.iter().zip(&partitions).filter_map(|((key, _), found)| Some((key, found.as_ref().ok()?)));
        turn.watch(found, limits.tells_high_watermark);
        let read = Round { wanted, partitions: &partitions, limits }.read();
        broker.throttles.leader.note_held_back(read.held_back);
        // To have looked at nothing is no answer.
        let is_enough = read.is_enough(limits) && (!wanted.is_empty() || limits.min_bytes == 0);
        // What is held back may have news all the time.
        if is_enough || limits.deadline <= Instant::now() || broker.shutdown.is_cancelled() {
            let looked_at = wanted.iter().zip(&partitions).zip(&read.fetched);
            let unfinished = looked_at.filter(|((wanted, partition), fetched)| has_more(&wanted.1, partition, fetched));
            turn.unfinished(unfinished.map(|(((key, _), _), _)| key));
            let given = note_given(broker, &partitions, &read.fetched, limits);
            return (read.fetched, given);
        }
        let news = news(broker, turn, &waiter, limits).await;
        let known: HashSet<PartitionKey> = wanted.iter().map(|(key, _)| key.clone()).collect();
        wanted.extend(news.into_iter().filter(|(key, _)| !known.contains(key)));
    }
}

/// The next news of a follower's session; at the fetch's deadline what there is by then, that for which nobody is woken as well.
async fn news(broker: &Broker, turn: &Turn, waiter: &Waiter, limits: &FetchLimits) -> Named {
    let next = async {
        loop {
            waiter.woken().await;
            let news = turn.take_news();
            if !news.is_empty() {
                return news;
            }
        }
    };
    let next = async {
        tokio::select! {
            news = timeout_at(limits.deadline.into(), next) => news.unwrap_or_else(|_late| turn.take_news()),
            () = broker.shutdown.cancelled() => Named::new(),
        }
    };
    next.instrument(trace_span!(target: "varve_trace", "wait for records")).await
}

/// Whether a follower that has this answer has to hear more of the partition, without any news.
fn has_more(wanted: &Wanted, partition: &Result<Arc<Partition>, ResponseError>, fetched: &Fetched) -> bool {
    let is_at_end = |partition: &Arc<Partition>| partition.log().end().0.to_wire() <= wanted.offset;
    fetched.has_records() || !fetched.is_local() || !partition.as_ref().is_ok_and(is_at_end)
}
