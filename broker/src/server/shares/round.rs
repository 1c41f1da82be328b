//! One ShareFetch: what of its partitions a member is given, and the wait for it.

use std::{io, sync::Arc, time::Instant};

use futures::future::join_all;
use kafka_protocol::error::ResponseError;
use tokio::time::timeout_at;
use varve_log::local::ReadError;

use super::{
    Shares,
    read::{self, Found, Look, ShareReadError, Wanted},
    settings::ShareRules,
    share::{Share, Standing},
};
use crate::{
    partition::{Partition, PartitionReadError, RemoteError, Waiter, Watch},
    server::Broker,
    share::{Acquired, Want},
    wire::fetch_response::Records,
};

/// Looks one after the other that find only what nobody may see, before the member is told that there is nothing yet.
const LOOKS: usize = 100;

/// Who reads, and how much.
pub(crate) struct Member<'a> {
    pub(crate) group: &'a str,
    pub(crate) rules: ShareRules,
    pub(crate) want: Want,
    pub(crate) min_bytes: u32,
    pub(crate) max_bytes: u32,
    pub(crate) deadline: Instant,
    /// Until when the archive may take.
    pub(crate) remote_deadline: Instant,
}

/// What comes of one partition.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing can be given, and why.
    Failed(ResponseError),
    /// These records, or none.
    Records(Records, Vec<Acquired>),
    /// It was not looked at: it is being loaded, or as much of it is out as may be.
    Nothing,
}

/// The partitions of one fetch, in the order in which they are looked at.
pub(crate) type Round = [Result<Arc<Partition>, ResponseError>];

type Opened = Vec<Result<Arc<Share>, ResponseError>>;

enum Outcome {
    /// That is the answer.
    Done(Vec<Taken>),
    /// There may be more right behind.
    Again(Vec<Taken>),
    /// There is nothing, or too little.
    Wait(Vec<Taken>),
}

impl Shares {
    /// Gives the member what there is of these partitions, waiting until there is enough.
    pub(crate) async fn take(&self, broker: &Broker, member: &Member<'_>, wanted: &Round) -> Vec<Taken> {
        let open = |partition: &Arc<Partition>| self.open(member.group, partition, member.rules);
        let shares: Opened =
            wanted.iter().map(|wanted| wanted.as_ref().map_err(|error| *error).and_then(open)).collect();
        let wants_nothing = member.want.max_records == 0 || member.max_bytes == 0;
        if wants_nothing || shares.iter().all(Result::is_err) {
            return shares
                .iter()
                .map(|share| share.as_ref().err().map_or(Taken::Nothing, |error| Taken::Failed(*error)))
                .collect();
        }
        // Nothing may fall between a look and the wait: watch first, then look.
        let waiter = Waiter::default();
        let watches: Vec<[Watch; 2]> =
            shares.iter().flatten().map(|share| [share.watch(&waiter), share.partition.watch(&waiter)]).collect();
        let mut looks = 0;
        let taken = loop {
            let is_last = member.deadline <= Instant::now() || broker.shutdown.is_cancelled();
            match look(member, &shares, is_last).await {
                Outcome::Done(taken) => break taken,
                Outcome::Again(_) if looks < LOOKS => looks += 1,
                Outcome::Again(taken) => break taken,
                Outcome::Wait(taken) if is_last => break taken,
                Outcome::Wait(_) => tokio::select! {
                    _ = timeout_at(member.deadline.into(), waiter.woken()) => {}
                    () = broker.shutdown.cancelled() => {}
                },
            }
        };
        drop(watches);
        taken
    }
}

/// One look at all of them.
async fn look(member: &Member<'_>, shares: &Opened, is_last: bool) -> Outcome {
    let standings: Vec<Standing> = shares
        .iter()
        .map(|share| {
            share.as_ref().map_or_else(|error| Standing::Gone(*error), |share| share.standing(member.rules.terms))
        })
        .collect();
    let readable = standings.iter().filter(|standing| matches!(standing, Standing::From(_))).count();
    let max_bytes = (member.max_bytes / u32::try_from(readable.max(1)).unwrap_or(u32::MAX)).max(1);
    let reads = shares.iter().zip(&standings).map(|(share, standing)| async move {
        match (share, standing) {
            (Ok(share), Standing::From(from)) => {
                let wanted = Wanted {
                    from: *from,
                    isolation: member.rules.isolation,
                    max_bytes,
                    max_records: member.want.max_records,
                };
                Some(read_one(member, share, wanted).await)
            }
            _ => None,
        }
    });
    let found = join_all(reads).await;
    let bytes: u64 = found.iter().flatten().flatten().map(Found::bytes).sum();
    let is_gone = |standing: &Standing| matches!(standing, Standing::Gone(_));
    // What a partition that was not to be had is at the start of the request is no reason to answer at once.
    let fails = found.iter().flatten().any(Result::is_err)
        || shares.iter().zip(&standings).any(|(share, standing)| share.is_ok() && is_gone(standing));
    if bytes < u64::from(member.min_bytes) && !fails && !is_last {
        return Outcome::Wait(Vec::new());
    }
    let mut left = member.want.max_records;
    let (mut acquired_any, mut moved) = (false, false);
    let mut taken = Vec::with_capacity(shares.len());
    for ((share, standing), found) in shares.iter().zip(standings).zip(found) {
        taken.push(match (share, standing, found) {
            (_, Standing::Gone(error), _) => Taken::Failed(error),
            (Err(error), _, _) => Taken::Failed(*error),
            (Ok(_), _, Some(Err(error))) => Taken::Failed(error),
            (Ok(_), _, Some(Ok(_))) if left == 0 => Taken::Records(Records::None, Vec::new()),
            (Ok(share), standing, Some(Ok(found))) => {
                let want = Want { max_records: left, ..member.want.clone() };
                let acquired = share.acquire(&want, &found.as_fetched());
                let count: u64 = acquired.iter().map(|acquired| acquired.last.since(acquired.first) + 1).sum();
                left = left.saturating_sub(count);
                acquired_any |= count > 0;
                moved |= !found.is_empty() && count == 0 && share.standing(member.rules.terms) != standing;
                Taken::Records(found.cut(&acquired), acquired)
            }
            (Ok(_), _, None) => Taken::Nothing,
        });
    }
    match (acquired_any || fails, moved) {
        (true, _) => Outcome::Done(taken),
        (false, true) => Outcome::Again(taken),
        (false, false) => Outcome::Wait(taken),
    }
}

async fn read_one(member: &Member<'_>, share: &Arc<Share>, wanted: Wanted) -> Result<Found, ResponseError> {
    let found = match read::look(&share.partition, wanted) {
        Ok(Look::Local(found)) => Ok(found),
        Ok(Look::Remote(ask)) => match timeout_at(member.remote_deadline.into(), ask.finish()).await {
            Ok(found) => found,
            // It is in the cache the next time.
            Err(_late) => Ok(Found::nothing(wanted.from)),
        },
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => Ok(found),
        Err(error) => match read_error(&share.partition, &error) {
            // The log begins later: so does the share partition, and with it what is read next.
            ResponseError::OffsetOutOfRange => {
                share.log_start_moved(share.partition.log_start().0);
                Ok(Found::nothing(wanted.from))
            }
            ResponseError::RequestTimedOut => Ok(Found::nothing(wanted.from)),
            code => {
                let (topic, partition) = (share.partition.topic(), share.partition.id().index);
                tracing::debug!(%topic, %partition, %error, "a share partition cannot be read");
                Err(code)
            }
        },
    }
}

fn read_error(partition: &Partition, error: &ShareReadError) -> ResponseError {
    match error {
        ShareReadError::Partition(error) => match error {
            PartitionReadError::Offline => ResponseError::KafkaStorageError,
            PartitionReadError::Epoch(_) | PartitionReadError::NotLeader | PartitionReadError::NotAReplica(_) => {
                ResponseError::NotLeaderOrFollower
            }
            PartitionReadError::Tiered { .. }
            | PartitionReadError::OutOfRange { .. }
            | PartitionReadError::Failed(ReadError::OutOfRange { .. }) => ResponseError::OffsetOutOfRange,
            PartitionReadError::Failed(ReadError::Corrupt(_)) => ResponseError::CorruptMessage,
            // Its topic was deleted after it had been found.
            PartitionReadError::Failed(ReadError::Storage(reason)) if reason.kind() == io::ErrorKind::NotFound => {
                ResponseError::NotLeaderOrFollower
            }
            PartitionReadError::Failed(ReadError::Storage(reason)) => {
                partition.log_dir().fail(reason);
                ResponseError::KafkaStorageError
            }
        },
        ShareReadError::Remote(RemoteError::OutOfRange) => ResponseError::OffsetOutOfRange,
        // Slow: as if there was nothing yet.
        ShareReadError::Remote(RemoteError::Busy) => ResponseError::RequestTimedOut,
        ShareReadError::Remote(RemoteError::Unavailable(_)) => ResponseError::KafkaStorageError,
        ShareReadError::Remote(RemoteError::Corrupt(_)) | ShareReadError::Batch(_) => ResponseError::CorruptMessage,
        ShareReadError::Io(_) => ResponseError::KafkaStorageError,
    }
}
