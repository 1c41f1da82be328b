//! One look at every partition of a fetch: errors, bounds, and where the records lie.

use std::{io, sync::Arc, time::Instant};

use futures::FutureExt;
use kafka_protocol::error::ResponseError;
use tokio::time::{sleep_until, timeout_at};
use tracing::{Instrument, debug, warn};
use varve_log::local::{AbortedTxn, ReadError};
use varve_metadata::{
    image::ClusterImage,
    model::{BrokerId, LeaderEpoch, Offset},
};

use crate::{
    partition::{
        Isolation, Partition, PartitionRead, PartitionReadError, ReadBounds, ReadRequest, RemoteError, RemoteReader,
        Replica, StaleEpoch,
    },
    server::fetch_session::{Named, Wanted},
    wire::fetch_response::{PartitionAnswer, Records},
};

/// A consumer in a rack of which the leader is none (KIP-392).
pub(super) struct Elsewhere {
    pub(super) image: Arc<ClusterImage>,
    pub(super) rack: String,
    /// By which it reaches brokers.
    pub(super) listener: Arc<str>,
}

impl Elsewhere {
    /// The follower in its rack that it is to read `from` of, if there is one that can give it.
    fn replica(&self, partition: &Partition, from: Offset) -> Option<BrokerId> {
        partition.follower_near(from, &|id| {
            let broker = self.image.brokers().get(&id).filter(|_| self.image.in_service(id).is_some());
            broker.is_some_and(|broker| {
                broker.rack.as_deref() == Some(self.rack.as_str()) && broker.endpoints.contains_key(&*self.listener)
            })
        })
    }
}

/// What holds for all partitions of one fetch.
pub(super) struct FetchLimits {
    pub(super) min_bytes: u32,
    pub(super) max_bytes: u32,
    /// The request's own limit is negative, which Kafka tells the first partition that it reads.
    pub(super) is_negative: bool,
    pub(super) isolation: Isolation,
    /// Who asks, if it is a follower.
    pub(super) replica: Option<Replica>,
    /// Throttled replicas that are not in sync have had more than the rate allows.
    pub(super) is_above_rate: bool,
    /// A consumer that knows of followers.
    pub(super) may_follow: bool,
    /// A consumer that may be sent to a follower.
    pub(super) elsewhere: Option<Elsewhere>,
    /// Consumers read from followers, which therefore are to hear at once what is committed.
    pub(super) tells_high_watermark: bool,
    pub(super) deadline: Instant,
    /// Until when the archive may take, `remote.fetch.max.wait.ms` at least.
    pub(super) remote_deadline: Instant,
}

/// What was found for one partition.
#[derive(Debug)]
pub(super) enum Fetched {
    Failed(ResponseError),
    Local {
        bounds: ReadBounds,
        records: Records,
        aborted: Option<Vec<AbortedTxn>>,
    },
    Remote(RemoteRead),
    Diverged {
        bounds: ReadBounds,
        epoch: LeaderEpoch,
        end: Offset,
    },
    /// The consumer is to ask `replica`.
    Preferred {
        bounds: ReadBounds,
        replica: BrokerId,
    },
}

/// Records that the archive is to be asked for.
#[derive(Debug)]
pub(super) struct RemoteRead {
    bounds: ReadBounds,
    reader: Arc<dyn RemoteReader>,
    from: Offset,
    bound: Offset,
    max_bytes: u32,
}

/// The partitions of one fetch.
pub(super) struct Round<'a> {
    pub(super) wanted: &'a Named,
    pub(super) partitions: &'a [Result<Arc<Partition>, ResponseError>],
    pub(super) limits: &'a FetchLimits,
}

/// What one look at all of them found.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) fetched: Vec<Fetched>,
    /// Bytes of local records.
    pub(super) bytes: u64,
    /// Replicas that had to wait for their rate.
    pub(super) held_back: usize,
    /// Partitions that lie in the archive.
    pub(super) remote: usize,
    /// Something that a client is to know at once: an error, that its log diverged, where it is to read.
    urgent: bool,
}

impl Look {
    /// Whether the answer can go out now.
    pub(super) fn is_enough(&self, limits: &FetchLimits) -> bool {
        let enough = self.urgent || self.fetched.is_empty() || self.bytes >= u64::from(limits.min_bytes);
        enough && self.remote == 0
    }
}

impl Round<'_> {
    /// Looks at each partition in turn, while the fetch's bytes last. Until one has records, size limits give way to the
    /// rule that a client always gets on: at least one batch.
    pub(super) fn read(&self) -> Look {
        let mut look = Look { fetched: Vec::with_capacity(self.wanted.len()), ..Look::default() };
        let mut budget = self.limits.max_bytes;
        let mut at_least_one = true;
        let mut is_negative = self.limits.is_negative;
        for ((_, wanted), partition) in self.wanted.iter().zip(self.partitions) {
            let max_bytes = (wanted.max_bytes.max(0) as u32).min(budget);
            let fetched = match partition {
                Err(error) => Fetched::Failed(*error),
                Ok(_) if wanted.max_bytes < 0 || std::mem::take(&mut is_negative) => {
                    Fetched::Failed(ResponseError::UnknownServerError)
                }
                Ok(partition) => {
                    let fetched = read_one(partition, wanted, max_bytes, at_least_one, Reader::of(self.limits));
                    match fetched {
                        Fetched::Local { bounds, records, .. } if records.len() > 0 && self.must_wait(partition) => {
                            look.held_back += 1;
                            nothing(bounds, self.limits.isolation)
                        }
                        fetched => fetched,
                    }
                }
            };
            look.urgent |= self.limits.replica.is_some() && is_news(&fetched, wanted, self.limits);
            let taken = match &fetched {
                Fetched::Local { records, .. } => {
                    look.bytes += records.len() as u64;
                    records.len() as u32
                }
                // How much the archive will give is not known yet: room is kept for all that it may.
                Fetched::Remote(remote) => {
                    look.remote += 1;
                    remote.max_bytes.max(1)
                }
                Fetched::Failed(_) | Fetched::Diverged { .. } | Fetched::Preferred { .. } => {
                    look.urgent = true;
                    0
                }
            };
            at_least_one &= taken == 0;
            budget = budget.saturating_sub(taken);
            look.fetched.push(fetched);
        }
        look
    }
}

impl Round<'_> {
    /// Whether the follower that asks is not to have records of this one now.
    fn must_wait(&self, partition: &Partition) -> bool {
        self.limits.is_above_rate
            && partition.is_leader_throttled()
            && self.limits.replica.is_some_and(|replica| !partition.has_in_sync(replica.id))
    }
}

/// Whether a follower is to hear of more than records: that some were deleted, or, if others wait for that, are committed.
fn is_news(fetched: &Fetched, wanted: &Wanted, limits: &FetchLimits) -> bool {
    let (Fetched::Local { bounds, .. }, Some((high_watermark, log_start))) = (fetched, wanted.told) else {
        return false;
    };
    let is_more_committed = limits.tells_high_watermark && bounds.high_watermark.0.to_wire() > high_watermark;
    is_more_committed || bounds.log_start.0.to_wire() > log_start
}

/// Who reads what.
#[derive(Clone, Copy)]
struct Reader<'a> {
    isolation: Isolation,
    /// A follower reads all that there is.
    replica: Option<Replica>,
    may_follow: bool,
    elsewhere: Option<&'a Elsewhere>,
}

impl Reader<'_> {
    fn of(limits: &FetchLimits) -> Reader<'_> {
        let (isolation, replica) = (limits.isolation, limits.replica);
        Reader { isolation, replica, may_follow: limits.may_follow, elsewhere: limits.elsewhere.as_ref() }
    }
}

fn read_one(
    partition: &Arc<Partition>,
    wanted: &Wanted,
    max_bytes: u32,
    at_least_one: bool,
    reader: Reader<'_>,
) -> Fetched {
    let isolation = reader.isolation;
    let Some(from) = Offset::from_wire(wanted.offset) else { return Fetched::Failed(ResponseError::OffsetOutOfRange) };
    let request = ReadRequest {
        from,
        current_epoch: LeaderEpoch::from_wire(wanted.current_epoch),
        last_fetched_epoch: LeaderEpoch::from_wire(wanted.last_fetched_epoch),
        isolation,
        max_bytes,
        at_least_one,
        may_follow: reader.may_follow,
    };
    if let Some(elsewhere) = reader.elsewhere
        && partition.check_epoch(request.current_epoch).is_ok()
        && let Some(replica) = elsewhere.replica(partition, from)
    {
        return Fetched::Preferred { bounds: partition.bounds(), replica };
    }
    let read = match reader.replica {
        Some(replica) => {
            let start = Offset::from_wire(wanted.log_start).unwrap_or_default();
            partition.read_for(replica, start, &request)
        }
        None => partition.read(&request),
    };
    match read {
        Ok((bounds, PartitionRead::Local { slice, aborted })) => {
            let records = if slice.len == 0 { Records::None } else { Records::Local(slice) };
            Fetched::Local { bounds, records, aborted: told(isolation, aborted) }
        }
        // No room left: it has its turn in a later fetch.
        Ok((bounds, PartitionRead::Remote { .. })) if max_bytes == 0 && !at_least_one => nothing(bounds, isolation),
        Ok((bounds, PartitionRead::Remote { reader, from, bound, max_bytes })) => {
            Fetched::Remote(RemoteRead { bounds, reader, from, bound, max_bytes })
        }
        Ok((bounds, PartitionRead::Diverged { epoch, end })) => Fetched::Diverged { bounds, epoch, end },
        Err(error) => Fetched::Failed(error_code(partition, &error)),
    }
}

fn nothing(bounds: ReadBounds, isolation: Isolation) -> Fetched {
    Fetched::Local { bounds, records: Records::None, aborted: told(isolation, Vec::new()) }
}

/// Readers of everything get null instead of a list.
fn told(isolation: Isolation, aborted: Vec<AbortedTxn>) -> Option<Vec<AbortedTxn>> {
    (isolation == Isolation::Committed).then_some(aborted)
}

/// The only place where a [`PartitionReadError`] becomes Kafka's.
fn error_code(partition: &Partition, error: &PartitionReadError) -> ResponseError {
    match error {
        PartitionReadError::Offline => ResponseError::KafkaStorageError,
        PartitionReadError::Epoch(StaleEpoch::Fenced(_)) => ResponseError::FencedLeaderEpoch,
        PartitionReadError::Epoch(StaleEpoch::Unknown(_)) => ResponseError::UnknownLeaderEpoch,
        PartitionReadError::NotLeader => ResponseError::NotLeaderOrFollower,
        // Which of the two has heard of less is not known here: the follower asks again.
        PartitionReadError::NotAReplica(_) => ResponseError::UnknownLeaderEpoch,
        PartitionReadError::Tiered { .. } => ResponseError::OffsetMovedToTieredStorage,
        PartitionReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        PartitionReadError::Failed(ReadError::OutOfRange { .. }) => ResponseError::OffsetOutOfRange,
        PartitionReadError::Failed(ReadError::Corrupt(reason)) => {
            warn!(topic = %partition.topic(), partition = %partition.id().index, %reason, "local log is damaged");
            ResponseError::CorruptMessage
        }
        // Its topic was deleted after this fetch had found it: no reason to give up every other log of the directory.
        PartitionReadError::Failed(ReadError::Storage(reason)) if reason.kind() == io::ErrorKind::NotFound => {
            warn!(topic = %partition.topic(), partition = %partition.id().index, %reason, "a segment file is gone");
            ResponseError::NotLeaderOrFollower
        }
        PartitionReadError::Failed(ReadError::Storage(reason)) => {
            partition.log_dir().fail(reason);
            ResponseError::KafkaStorageError
        }
    }
}

impl RemoteRead {
    /// Asks the archive, until the deadline. The read itself goes on after it, so that the next fetch finds the records
    /// in the cache: slow is late, never lost work.
    pub(super) async fn finish(self, partition: &Arc<Partition>, limits: &FetchLimits) -> Fetched {
        let RemoteRead { bounds, reader, from, bound, max_bytes } = self;
        let archive = reader.clone();
        let read = tokio::spawn(reader.read(from, bound, max_bytes).in_current_span()).map(|joined| match joined {
            Ok(read) => read,
            Err(panic) => Err(RemoteError::Unavailable(panic.to_string())),
        });
        let batches = match timeout_at(limits.remote_deadline.into(), read).await {
            Err(_late) => return nothing(bounds, limits.isolation),
            Ok(Ok(batches)) => batches,
            // Slow, as above; and nobody asks again before the time that a slow answer takes.
            Ok(Err(RemoteError::Busy)) => {
                sleep_until(limits.remote_deadline.into()).await;
                return nothing(bounds, limits.isolation);
            }
            Ok(Err(error)) => {
                debug!(topic = %partition.topic(), partition = %partition.id().index, %from, %error, "archive read failed");
                return Fetched::Failed(match error {
                    RemoteError::OutOfRange => ResponseError::OffsetOutOfRange,
                    RemoteError::Unavailable(_) | RemoteError::Busy => ResponseError::KafkaStorageError,
                    RemoteError::Corrupt(_) => ResponseError::CorruptMessage,
                });
            }
        };
        // What a follower knows of the archive may end before its local log begins: what lies between is the leader's to tell.
        let local_start = partition.log().local_start();
        if batches.is_empty() && !partition.is_leader() && archive.bounds().is_none_or(|(_, end)| end < local_start) {
            return Fetched::Failed(ResponseError::OffsetOutOfRange);
        }
        if batches.is_empty() {
            return read_behind_gap(partition, bounds, max_bytes, limits);
        }
        Fetched::Local {
            bounds,
            records: Records::Remote(batches.pieces),
            aborted: told(limits.isolation, batches.aborted),
        }
    }
}

/// Compaction may leave nothing between the offset asked for and the local log: the reader goes on there.
fn read_behind_gap(partition: &Arc<Partition>, bounds: ReadBounds, max_bytes: u32, limits: &FetchLimits) -> Fetched {
    let wanted = Wanted {
        offset: partition.log().local_start().to_wire(),
        max_bytes: max_bytes as i32,
        current_epoch: -1,
        last_fetched_epoch: -1,
        log_start: -1,
        told: None,
    };
    match read_one(partition, &wanted, max_bytes, true, Reader { elsewhere: None, ..Reader::of(limits) }) {
        // The archive moved on meanwhile: next time.
        Fetched::Remote(_) => nothing(bounds, limits.isolation),
        read => read,
    }
}

impl Fetched {
    /// Bytes of records that were found here.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Fetched::Local { records, .. } => records.len(),
            Fetched::Failed(_) | Fetched::Remote(_) | Fetched::Diverged { .. } | Fetched::Preferred { .. } => 0,
        }
    }

    /// Whether the local log was read, and had whatever it had.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Fetched::Local { .. })
    }

    /// Whether it gives the reader any.
    pub(super) fn has_records(&self) -> bool {
        self.bytes() > 0
    }

    /// As it is told to the client.
    pub(super) fn answer(self, index: i32) -> PartitionAnswer {
        let with = |bounds: ReadBounds| PartitionAnswer {
            high_watermark: bounds.high_watermark.0.to_wire(),
            last_stable: bounds.last_stable.0.to_wire(),
            log_start: bounds.log_start.0.to_wire(),
            ..PartitionAnswer::failed(index, 0)
        };
        match self {
            Fetched::Failed(error) => {
                // Nothing was read: there is no list to be null (what Kafka does).
                let is_unknown =
                    matches!(error, ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId);
                PartitionAnswer { aborted: is_unknown.then(Vec::new), ..PartitionAnswer::failed(index, error.code()) }
            }
            Fetched::Local { bounds, records, aborted } => PartitionAnswer { records, aborted, ..with(bounds) },
            Fetched::Diverged { bounds, epoch, end } => {
                PartitionAnswer { diverging: Some((epoch.to_wire(), end.to_wire())), ..with(bounds) }
            }
            Fetched::Preferred { bounds, replica } => {
                PartitionAnswer { preferred: Some(replica.to_wire()), ..with(bounds) }
            }
            // Nobody asked the archive: the client asks again.
            Fetched::Remote(remote) => with(remote.bounds),
        }
    }
}
