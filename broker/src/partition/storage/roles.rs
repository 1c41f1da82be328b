//! Partitions lead and follow as an image says, and go when this broker has no replica of them any more.

use std::{collections::HashSet, sync::Arc};

use tokio::task::spawn_blocking;
use tracing::{error, info};
use varve_metadata::{
    image::TopicImage,
    model::{PartitionId, PartitionIndex},
};

use super::Storage;
use crate::partition::{Partition, removal::delete_logs, role::Duty};

impl Storage {
    /// Leads and follows as these topics say. Blocks other images until it is done: a new leadership is on the disk before
    /// anybody is served in it.
    pub(super) async fn show_all(self: &Arc<Self>, topics: Vec<Arc<TopicImage>>, may_lead: bool) {
        if topics.is_empty() {
            return;
        }
        let storage = self.clone();
        let shown = spawn_blocking(move || {
            for topic in topics {
                for index in storage.ours(&topic) {
                    let Ok(partition) = storage.partitions.get(PartitionId { topic: topic.id, index }) else {
                        continue;
                    };
                    storage.show(&partition, &topic, may_lead);
                }
            }
        });
        if let Err(panic) = shown.await {
            error!(%panic, "taking over leaderships panicked");
        }
    }

    fn show(&self, partition: &Arc<Partition>, topic: &TopicImage, may_lead: bool) {
        let before = (partition.is_leader(), partition.leader_epoch());
        self.take_up(partition, topic, may_lead);
        if before != (partition.is_leader(), partition.leader_epoch()) {
            self.tell_keeper(partition, topic);
        }
    }

    pub(super) fn take_up(&self, partition: &Arc<Partition>, topic: &TopicImage, may_lead: bool) {
        let Some((id, image)) = topic.partition(partition.id().index) else { return };
        match partition.show(image, self.node, may_lead, &self.peers) {
            Duty::Follow { leader, epoch } if !partition.log_dir().is_failed() => {
                self.peers.follow(partition, leader, epoch);
            }
            Duty::Follow { .. } | Duty::None => self.peers.forget(id),
        }
    }

    /// Lets go of partitions of which this broker has no replica any more, and deletes their logs.
    pub(super) async fn leave(&self, before: &TopicImage, now: &TopicImage) {
        let still: HashSet<PartitionIndex> = self.ours(now).collect();
        let gone: Vec<PartitionIndex> = self.ours(before).filter(|index| !still.contains(index)).collect();
        let mut left: Vec<Arc<Partition>> = Vec::new();
        for index in gone {
            let id = PartitionId { topic: now.id, index };
            let Some(partition) = self.partitions.take(id) else { continue };
            self.peers.forget(id);
            self.keeper.left(id);
            left.push(partition);
        }
        if left.is_empty() {
            return;
        }
        let (dirs, name, id, count) = (self.dirs.clone(), now.name.clone(), now.id, left.len());
        match spawn_blocking(move || delete_logs(&dirs, &name, id, &left, &[])).await {
            Ok(()) => info!(topic = %now.name, partitions = count, "moved to other brokers: the logs here are deleted"),
            Err(panic) => error!(topic = %now.name, %panic, "deleting logs panicked"),
        }
    }
}
