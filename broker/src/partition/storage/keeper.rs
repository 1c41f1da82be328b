//! Who else cares for the partitions of a node.

use std::sync::Arc;

use futures::future::BoxFuture;
use varve_log::local::LocalLog;
use varve_metadata::{
    image::TopicImage,
    model::{PartitionId, TopicName},
};

use crate::partition::Partition;

/// Where the partition's records end cannot be told now: appending could give offsets out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsettled;

/// Who else cares for the partitions of this node: their archive does.
pub trait Keeper: Send + Sync {
    /// A partition that is not new has no files here: its log, if there was one, is lost, and one is about to be made.
    fn missing<'a>(&'a self, topic: &'a TopicImage, id: PartitionId) -> BoxFuture<'a, ()>;
    /// The log was opened and nobody can use it yet; with [`Unsettled`] nobody ever does, and it is opened again later.
    /// `is_new`: the partition was just created; otherwise it may be older than its files, and what was lost with a disk may
    /// be known elsewhere.
    fn opening<'a>(
        &'a self,
        topic: &'a TopicImage,
        id: PartitionId,
        log: &'a LocalLog,
        is_new: bool,
    ) -> BoxFuture<'a, Result<(), Unsettled>>;
    /// The partition is complete; requests find it from now on.
    fn opened(&self, partition: &Arc<Partition>, topic: &TopicImage);
    /// The topic's settings or leaders changed.
    fn altered(&self, partition: &Arc<Partition>, topic: &TopicImage);
    /// The topic was deleted, and this partition with it.
    fn deleted(&self, id: PartitionId, topic: &TopicName);
    /// This broker has no replica of the partition any more.
    fn left(&self, id: PartitionId);
}

/// For a node without an archive.
#[derive(Clone, Copy, Debug)]
pub struct NoKeeper;

impl Keeper for NoKeeper {
    fn missing<'a>(&'a self, _: &'a TopicImage, _: PartitionId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
    fn opening<'a>(
        &'a self,
        _: &'a TopicImage,
        _: PartitionId,
        _: &'a LocalLog,
        _: bool,
    ) -> BoxFuture<'a, Result<(), Unsettled>> {
        Box::pin(async { Ok(()) })
    }
    fn opened(&self, _: &Arc<Partition>, _: &TopicImage) {}
    fn altered(&self, _: &Arc<Partition>, _: &TopicImage) {}
    fn deleted(&self, _: PartitionId, _: &TopicName) {}
    fn left(&self, _: PartitionId) {}
}
