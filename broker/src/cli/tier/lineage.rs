//! `varve tier lineage`: where a partition's archive and its leader's log parted, and how it goes on.
//!
//! After an unclean election, or where a leader lost its end, the archive may hold records that the new leader never had. Neither is
//! given up for the other: the archiver stops there. This shows both, and with `--confirm` has the archive go on with the
//! leader's log: what it holds beyond the place where the two parted is set aside, and stays in the bucket.

use std::{num::NonZeroU64, process::ExitCode, sync::Arc, time::SystemTime};

use anyhow::{Context, bail, ensure};
use clap::Args;
use kafka_protocol::{
    messages::{
        BrokerId, DescribeClusterRequest, ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, TopicName,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
    protocol::StrBytes,
};
use serde_json::json;
use varve_log::{
    format::BatchHeader,
    local::{AppendContext, AppendOrigin, LocalLog, LogConfig, RecoveryStart},
};
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};
use varve_table::Recompression;
use varve_tiering::{
    manifest::{Manifest, RemoteObject},
    tier::{
        cold::{ColdMetrics, ColdOptions, ColdReader},
        manifests::ManifestStore,
        pace::ByteRate,
        parting::{Parting, part},
        partition::RemotePartition,
        upload::{Part, upload},
    },
};

use super::manifests_of;
use crate::cli::{
    ConfigurationArgs,
    broker::{
        Bootstrap,
        client::{Client, check},
    },
    out::Out,
};

/// Bytes that are read of the archive at a time.
const PIECE_BYTES: u32 = 8 << 20;

/// ListOffsets: the first offset in any tier, and the first one on the leader's disk (KIP-405).
const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;

/// Arguments of `varve tier lineage`.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(in crate::cli) struct LineageArgs {
    /// The topic's name.
    topic: String,
    /// Only this partition.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    #[command(flatten)]
    at: Bootstrap,
    /// Have the archive go on with the leader's log where the two have parted.
    #[arg(long)]
    confirm: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

const NOTES: &str = "\
For a partition of which the log says that its archive needs attention, because the archive ends beyond what its leader has of it:
the leader was elected without those records (unclean.leader.election.enable), or lost them with its disk.

Without --confirm nothing changes, and the exit code is 1 if any partition has parted from its archive. With it, readers see the
leader's records from the place on where the two parted; records that only the archive has from there on are lost to them. Their
objects are set aside: they stay in the bucket until the topic is deleted or archives no more, `varve tier describe` counts them,
and `varve dump` of the manifest names them. It is done in the epoch of the present leader and for the archive as it was shown: if either has changed, nothing is done. Where the
bucket's answer is lost, it is asked until it says what it holds, or else the command says that this is not known.

Examples:
  varve tier lineage orders --config server.properties                           where they parted, and what would be lost
  varve tier lineage orders --partition 3 --confirm --config server.properties   go on with the leader's log";

/// The leader's word on a partition.
struct Leader {
    id: i32,
    epoch: i32,
}

/// How far the archive and the leader's log are one.
#[derive(Debug, PartialEq, Eq)]
struct Compared {
    /// Up to here they hold the same records.
    common: Offset,
    /// What the leader has on its disk.
    local: (Offset, Offset),
    /// Below it the leader knows nothing that is to be kept.
    log_start: Offset,
}

pub(super) async fn lineage(
    store: &ManifestStore,
    asked: &LineageArgs,
    configuration: &ConfigurationArgs,
) -> anyhow::Result<ExitCode> {
    let mut out = Out::new(asked.json);
    let mut client = Client::of(&asked.at, configuration)?;
    let (topic_id, leaders) = leaders(&mut client, &asked.topic).await?;
    if let Some(index) = asked.partition {
        ensure!((index as usize) < leaders.len(), "the topic {} has {} partitions", asked.topic, leaders.len());
    }
    let (manifests, broken) = manifests_of(store, Some(&asked.topic)).await?;
    if let Some((partition, problem)) = broken.iter().find(|(partition, _)| partition.topic.to_wire() == topic_id) {
        bail!("the manifest of partition {partition} cannot be read: {problem}");
    }
    // An older topic of the same name is nobody's any more.
    let is_asked = |manifest: &&Manifest| {
        let id = manifest.partition();
        id.topic.to_wire() == topic_id && asked.partition.is_none_or(|index| index == id.index.0)
    };
    let manifests: Vec<&Manifest> = manifests.iter().filter(is_asked).collect();
    ensure!(!manifests.is_empty(), "nothing is archived of it in {}", store.bucket().url());
    let mut left = 0;
    for manifest in manifests {
        let index = manifest.partition().index.0;
        let Some(leader) = leaders.get(index as usize).and_then(Option::as_ref) else {
            out.line(0, &[("partition", json!(index)), ("state", json!("nobody leads it"))])?;
            left += 1;
            continue;
        };
        let compared = compare(&mut client, &asked.topic, manifest, leader).await?;
        if compared.common >= manifest.end() {
            let fields =
                [("partition", json!(index)), ("state", json!("one lineage")), ("archived", json!(manifest.end()))];
            out.line(0, &fields)?;
            continue;
        }
        tell(store, manifest, leader, &compared, &mut out).await?;
        if asked.confirm {
            let (remote, parting) = prepare(&mut client, store, &asked.topic, manifest, leader, &compared)
                .await
                .with_context(|| format!("partition {index}: nothing was changed"))?;
            part(&remote, manifest, &parting).await.with_context(|| format!("partition {index}"))?;
            out.line(1, &[("state", json!("goes on with the leader's log")), ("from", json!(parting.from))])?;
            out.flush()?;
        } else {
            left += 1;
        }
    }
    out.flush()?;
    Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The topic's id, and who leads each of its partitions.
async fn leaders(client: &mut Client, topic: &str) -> anyhow::Result<(uuid::Uuid, Vec<Option<Leader>>)> {
    let cluster = client.ask(0, &DescribeClusterRequest::default()).await?;
    check(cluster.error_code, cluster.error_message.as_deref())?;
    let known = cluster
        .brokers
        .into_iter()
        .filter_map(|broker| Some((broker.broker_id.0, (broker.host.to_string(), u16::try_from(broker.port).ok()?))));
    client.knows(known.collect());
    let asked = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(topic.to_owned()))));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    let answer = client.ask(12, &request).await?.topics.into_iter().next().context("one topic")?;
    check(answer.error_code, None).with_context(|| format!("the topic {topic}"))?;
    let mut leaders: Vec<Option<Leader>> = Vec::new();
    leaders.resize_with(answer.partitions.len(), || None);
    for partition in answer.partitions {
        let place = usize::try_from(partition.partition_index).ok().and_then(|place| leaders.get_mut(place));
        if let (Some(place), BrokerId(id @ 0..)) = (place, partition.leader_id) {
            *place = Some(Leader { id, epoch: partition.leader_epoch });
        }
    }
    Ok((answer.topic_id, leaders))
}

/// Asks the leader how far it has what is archived, as the archiver on it does ([`varve_tiering::plan::common_end`]).
async fn compare(client: &mut Client, topic: &str, manifest: &Manifest, leader: &Leader) -> anyhow::Result<Compared> {
    let Some((_, end)) = end_of_epoch(client, topic, manifest, leader, leader.epoch).await? else {
        bail!("broker {} does not say where its log ends", leader.id);
    };
    let start = first_offset(client, topic, manifest, leader, EARLIEST_LOCAL).await?;
    let log_start = first_offset(client, topic, manifest, leader, EARLIEST).await?;
    let common = common_end(client, topic, manifest, leader).await?.min(end).max(manifest.log_start().0);
    Ok(Compared { common, local: (start, end), log_start })
}

/// Up to where the archive and the leader's log hold the same records (KIP-101).
async fn common_end(client: &mut Client, topic: &str, manifest: &Manifest, leader: &Leader) -> anyhow::Result<Offset> {
    let mut end = manifest.end();
    for &(epoch, start) in manifest.epochs().iter().rev() {
        match end_of_epoch(client, topic, manifest, leader, epoch.to_wire()).await? {
            Some((known, ended)) if known == epoch.to_wire() => return Ok(end.min(ended)),
            Some(_) | None => end = end.min(start),
        }
    }
    Ok(end)
}

/// The largest epoch up to that one that the leader has records of, and where they end.
async fn end_of_epoch(
    client: &mut Client,
    topic: &str,
    manifest: &Manifest,
    leader: &Leader,
    epoch: i32,
) -> anyhow::Result<Option<(i32, Offset)>> {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(manifest.partition().index.to_wire())
        .with_current_leader_epoch(leader.epoch)
        .with_leader_epoch(epoch);
    let asked = OffsetForLeaderTopic::default()
        .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer = client.ask_broker(leader.id, 4, &request).await?;
    let topic = answer.topics.first().context("one topic")?;
    let found = topic.partitions.first().context("one partition")?;
    check(found.error_code, None).with_context(|| format!("what broker {} has", leader.id))?;
    Ok(Offset::from_wire(found.end_offset).map(|end| (found.leader_epoch, end)))
}

/// Where the leader's log starts: which of its tiers says `which`.
async fn first_offset(
    client: &mut Client,
    topic: &str,
    manifest: &Manifest,
    leader: &Leader,
    which: i64,
) -> anyhow::Result<Offset> {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(manifest.partition().index.to_wire())
        .with_current_leader_epoch(leader.epoch)
        .with_timestamp(which);
    let asked = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer = client.ask_broker(leader.id, 9, &request).await?;
    let topic = answer.topics.first().context("one topic")?;
    let found = topic.partitions.first().context("one partition")?;
    check(found.error_code, None).with_context(|| format!("where the log of broker {} starts", leader.id))?;
    Offset::from_wire(found.offset).with_context(|| format!("broker {} does not say where its log starts", leader.id))
}

async fn tell(
    store: &ManifestStore,
    manifest: &Manifest,
    leader: &Leader,
    compared: &Compared,
    out: &mut Out,
) -> anyhow::Result<()> {
    let Compared { common, local: (starts, ends), .. } = *compared;
    let remote = RemotePartition::new(store.clone(), manifest.partition(), manifest.topic().clone());
    let beyond = remote.objects(manifest, common, manifest.end()).await?;
    let newest = beyond.iter().filter_map(|object| object.max_timestamp).max();
    // The epoch that was under way there, and those after it.
    let before = manifest.epochs().partition_point(|(_, start)| *start <= common).saturating_sub(1);
    let epochs: Vec<_> = manifest.epochs()[before..].iter().map(|(epoch, _)| *epoch).collect();
    out.line(
        0,
        &[
            ("partition", json!(manifest.partition().index)),
            ("state", json!("parted")),
            ("parted_at", json!(common)),
            ("archived", json!(manifest.end())),
            ("archived_in_epochs", json!(epochs)),
            ("leader", json!(leader.id)),
            ("leader_epoch", json!(leader.epoch)),
            ("leader_starts_at", json!(starts)),
            ("leader_ends_at", json!(ends)),
            ("offsets_lost", json!(manifest.end().get() - common.get())),
            ("objects", json!(beyond.len())),
            ("newest_timestamp_ms", json!(newest.map(|newest| newest.millis()))),
        ],
    )?;
    Ok(out.flush()?)
}

/// Makes ready for an archive without what lies beyond the place where the two parted, in the leader's epoch, if it is still the one
/// that was `seen`.
async fn prepare(
    client: &mut Client,
    store: &ManifestStore,
    topic: &str,
    seen: &Manifest,
    leader: &Leader,
    compared: &Compared,
) -> anyhow::Result<(Arc<RemotePartition>, Parting)> {
    let common = compared.common;
    let epoch = LeaderEpoch::from_wire(leader.epoch).context("the leader has no epoch")?;
    let remote = Arc::new(RemotePartition::new(store.clone(), seen.partition(), seen.topic().clone()));
    ensure!(remote.refresh().await?.version() == seen.version(), "the archive has changed meanwhile: look again");
    let across = remote.objects(seen, common, seen.end()).await?;
    let across = across.into_iter().find(|object| object.base < common && common > seen.log_start().0);
    let kept = match &across {
        Some(object) => rebuilt(&remote, object, common, epoch).await?,
        None => Vec::new(),
    };
    // Where compaction has left nothing in front of it, the whole object goes, and the leader answers for its offsets.
    let from = match &across {
        Some(object) if kept.is_empty() => object.base.max(seen.log_start().0),
        _ => common,
    };
    // What the archive would not hold any more must be on the leader's disk, or be deleted.
    let (starts, _) = compared.local;
    ensure!(
        starts <= common.max(compared.log_start),
        "the leader's disk begins at {starts}: what lies between {common} and there only the archive has"
    );
    // That may have taken long. A leader that comes now announces itself, or finds what is published here.
    let again = compare(client, topic, seen, leader).await?;
    ensure!(again.common == common, "the leader's log has changed meanwhile: look again");
    let parting = Parting { epoch, from, kept, now: wall_clock() };
    Ok((remote, parting))
}

/// Objects that hold what `object` does in front of `end`: made of its own batches.
async fn rebuilt(
    remote: &Arc<RemotePartition>,
    object: &RemoteObject,
    end: Offset,
    epoch: LeaderEpoch,
) -> anyhow::Result<Vec<RemoteObject>> {
    let options = ColdOptions { disk: None, memory_bytes: 64 << 20, ..ColdOptions::default() };
    let reader = ColdReader::open(options, ColdMetrics::new()).await?;
    let archived = reader.partition(Arc::clone(remote));
    archived.set_recompression(Recompression::Producer);
    let place = tempfile::tempdir()?;
    let now = wall_clock();
    let (log, _) = LocalLog::open(place.path(), Arc::new(LogConfig::default()), RecoveryStart::NEW, now)?;
    let (base, start) = (object.base, remote.manifest().log_start().0);
    drop(log.truncate_fully(base, base)?.purge());
    // A read leaves out a batch that reaches across its bound.
    let last = Offset::new(end.get().saturating_sub(1)).unwrap_or_default();
    let at_end = archived.read(last, remote.manifest().end(), 1).await?.pieces.concat();
    if !at_end.is_empty() {
        let batch = BatchHeader::parse(&at_end)?;
        ensure!(batch.base_offset >= end || batch.last_offset() < end, "a batch reaches across offset {end}");
    }
    let mut from = base.max(start);
    while from < end {
        let read = archived.read(from, end, PIECE_BYTES).await?;
        let batches = read.pieces.concat();
        if !batches.is_empty() {
            let context = AppendContext { leader_epoch: epoch, now, origin: AppendOrigin::Replication };
            log.append(&batches, context)?;
        }
        ensure!(read.end > from, "nothing can be read at offset {from}");
        from = read.end;
    }
    log.roll()?;
    // Their producer snapshots tell of those who wrote since `base`: of others the object in front does.
    let mut segments = log.sealed_segments(base)?;
    segments.retain(|segment| segment.bytes > 0);
    if let Some(last) = segments.last_mut() {
        // Offsets that compaction left empty are answered for all the same.
        last.end = end;
    }
    let aborted = archived.aborted(base, end).await?;
    let (mut objects, mut covered) = (Vec::new(), base);
    for segment in segments {
        let part_end = segment.end;
        let part = Part { segment, base: covered, aborted: aborted.clone(), epoch };
        objects.push(upload(remote.bucket(), remote.partition(), part, &ByteRate::new(None::<NonZeroU64>)).await?);
        covered = part_end;
    }
    Ok(objects)
}

fn wall_clock() -> Timestamp {
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Timestamp::from_wire(millis).unwrap_or_default()
}
