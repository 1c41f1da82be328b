//! DescribeLogDirs (KIP-113, KIP-827): how much lies where, per partition; to who asks for all, the archive is one
//! directory more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeLogDirsRequest, DescribeLogDirsResponse,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
    protocol::StrBytes,
};
use tracing::warn;
use varve_metadata::model::{HighWatermark, LogEndOffset, PartitionId};

use super::cluster_view::{text, topic_name};
use crate::{
    partition::{Move, Partition},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
    wire::later::describe_log_dirs::cordoned,
};

/// Sizes by topic, then partition.
type Sizes = BTreeMap<String, Vec<DescribeLogDirsPartition>>;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if let Err(refused) = broker.access(context).require(Operation::Describe, Resource::Cluster) {
        return DescribeLogDirsResponse::default().with_error_code(refused.code());
    }
    // Who names partitions asks where their logs are, to follow a move (kafka-reassign-partitions.sh --verify takes the last
    // directory that has one): the archive is none of these places.
    let shows_archive = broker.config.archive.enabled && request.topics.is_none();
    let wanted = wanted(broker, &request);
    let moves: HashMap<PartitionId, Arc<Move>> = broker.partitions.moves().list().into_iter().collect();
    let mut local: HashMap<PathBuf, Sizes> = HashMap::new();
    let mut archive = Sizes::new();
    for partition in &wanted {
        let (log, index) = (partition.log(), partition.id().index.to_wire());
        let (HighWatermark(high_watermark), LogEndOffset(end)) = (partition.high_watermark(), log.end());
        let here = DescribeLogDirsPartition::default()
            .with_partition_index(index)
            .with_partition_size(signed(log.size()))
            .with_offset_lag(signed(high_watermark.since(end)));
        let topic = partition.topic().to_string();
        local.entry(partition.log_dir().path.clone()).or_default().entry(topic.clone()).or_default().push(here);
        if let Some(moving) = moves.get(&partition.id()) {
            let there = DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(signed(moving.bytes()))
                .with_offset_lag(signed(moving.lag(log.end())))
                .with_is_future_key(true);
            local.entry(moving.to.path.clone()).or_default().entry(topic).or_default().push(there);
        }
        if let Some(remote) = partition.remote().filter(|_| shows_archive) {
            let there = DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(signed(remote.size()))
                .with_offset_lag(0);
            archive.entry(partition.topic().to_string()).or_default().push(there);
        }
    }
    let dirs = broker.partitions.log_dirs();
    let mut results: Vec<DescribeLogDirsResult> = dirs
        .iter()
        .map(|dir| match dir.is_failed() {
            true => result(&dir.path).with_error_code(ResponseError::KafkaStorageError.code()),
            false => describe(&dir.path, local.remove(&dir.path).unwrap_or_default()),
        })
        .zip(dirs.iter().map(|dir| dir.is_cordoned()))
        .map(|(result, is_cordoned)| if is_cordoned { cordoned(result) } else { result })
        .collect();
    if shows_archive {
        results.push(
            DescribeLogDirsResult::default()
                .with_log_dir(StrBytes::from_string(archive_name(&broker.config.object_store.url)))
                .with_topics(topics(archive)),
        );
    }
    DescribeLogDirsResponse::default().with_results(results)
}

/// What is asked for and here, each once, in order; no topics means all.
fn wanted(broker: &Broker, request: &DescribeLogDirsRequest) -> Vec<Arc<Partition>> {
    let mut partitions = broker.partitions.all();
    if let Some(asked) = &request.topics {
        let mut indexes: HashMap<&str, HashSet<i32>> = HashMap::new();
        for topic in asked {
            indexes.entry(topic.topic.as_str()).or_default().extend(&topic.partitions);
        }
        partitions.retain(|partition| {
            let asked = indexes.get(partition.topic().as_str());
            asked.is_some_and(|asked| asked.contains(&partition.id().index.to_wire()))
        });
    }
    partitions.sort_by_key(|partition| partition.id().index);
    partitions
}

fn describe(dir: &Path, sizes: Sizes) -> DescribeLogDirsResult {
    match rustix::fs::statvfs(dir) {
        Ok(volume) => result(dir)
            .with_topics(topics(sizes))
            .with_total_bytes(signed(volume.f_blocks.saturating_mul(volume.f_frsize)))
            .with_usable_bytes(signed(volume.f_bavail.saturating_mul(volume.f_frsize))),
        Err(error) => {
            warn!(dir = %dir.display(), %error, "log directory cannot be described");
            result(dir).with_error_code(ResponseError::KafkaStorageError.code())
        }
    }
}

fn result(dir: &Path) -> DescribeLogDirsResult {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    DescribeLogDirsResult::default().with_log_dir(text(&absolute.to_string_lossy()))
}

fn topics(sizes: Sizes) -> Vec<DescribeLogDirsTopic> {
    let topic = |(name, partitions): (String, Vec<DescribeLogDirsPartition>)| {
        DescribeLogDirsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    };
    sizes.into_iter().map(topic).collect()
}

/// The archive among the directories: `remote://` and where it is, without what could be secret in its address.
fn archive_name(url: &url::Url) -> String {
    format!("remote://{}{}", url.host_str().unwrap_or_default(), url.path().trim_end_matches('/'))
}

/// Sizes end where the protocol's numbers do.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_named_by_its_place_alone() {
        let name = |text: &str| archive_name(&url::Url::parse(text).unwrap());
        assert_eq!(name("s3://key:secret@bucket/prefix/"), "remote://bucket/prefix");
        assert_eq!(name("file:///var/lib/varve/archive"), "remote:///var/lib/varve/archive");
        assert_eq!(name("memory:///"), "remote://");
    }
}
