//! AlterReplicaLogDirs (KIP-113): logs move from one directory of this node to another.

use std::{collections::BTreeMap, path::Path};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse,
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
    },
};

use super::cluster_view::topic_name;
use crate::{
    partition::MoveError,
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        lookup::{self, TopicRef},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    // A partition that is named twice goes where it is sent last.
    let mut wanted: BTreeMap<(&str, i32), &str> = BTreeMap::new();
    for dir in &request.dirs {
        for topic in &dir.topics {
            for index in &topic.partitions {
                wanted.insert((topic.name.as_str(), *index), dir.path.as_str());
            }
        }
    }
    let allowed = broker.access(context).require(Operation::Alter, Resource::Cluster);
    let mut results: BTreeMap<&str, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for ((topic, index), dir) in wanted {
        let moved = allowed.and_then(|()| move_log(broker, topic, index, dir));
        let code = moved.err().map_or(0, |error| error.code());
        let result = AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(code);
        results.entry(topic).or_default().push(result);
    }
    let results = results.into_iter().map(|(topic, partitions)| {
        AlterReplicaLogDirTopicResult::default().with_topic_name(topic_name(topic)).with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}

fn move_log(broker: &Broker, topic: &str, index: i32, dir: &str) -> Result<(), ResponseError> {
    check_dir(broker, dir)?;
    let partition =
        lookup::topic(broker, TopicRef::Named(topic)).partition_for(index, true).map_err(|error| match error {
            // Kafka keeps to the word that this request always had for it.
            ResponseError::NotLeaderOrFollower => ResponseError::ReplicaNotAvailable,
            other => other,
        })?;
    broker.partitions.move_log(&partition, Path::new(dir)).map_err(|error| match error {
        MoveError::NoSuchDir => ResponseError::LogDirNotFound,
        MoveError::Offline => ResponseError::KafkaStorageError,
        MoveError::NameTooLong => ResponseError::InvalidTopicException,
    })
}

/// Asked before the partition: a directory that is no log directory is wrong for any of them.
fn check_dir(broker: &Broker, dir: &str) -> Result<(), ResponseError> {
    let dirs = broker.partitions.log_dirs();
    let is_it = |known: &&std::sync::Arc<crate::partition::LogDirHealth>| {
        std::path::absolute(&known.path).is_ok_and(|path| path == Path::new(dir))
    };
    match dirs.iter().find(is_it) {
        None => Err(ResponseError::LogDirNotFound),
        Some(dir) if dir.is_failed() => Err(ResponseError::KafkaStorageError),
        Some(_) => Ok(()),
    }
}
