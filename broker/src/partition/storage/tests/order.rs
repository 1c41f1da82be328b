//! In which order an image is taken.

use futures::future::BoxFuture;
use varve_log::local::LocalLog;
use varve_metadata::{
    cluster::{IsrProposal, ProposalOutcome},
    image::{PartitionImage, TopicImage},
    model::{LeaderEpoch, PartitionId, PartitionIndex, TopicName},
};

use super::*;
use crate::partition::{Keeper, Unsettled};

/// Notes in which epoch `led-0` was led when a log went, and when one was opened.
struct Witness {
    partitions: Arc<Partitions>,
    seen: parking_lot::Mutex<Vec<(&'static str, LeaderEpoch)>>,
}

impl Witness {
    fn note(&self, what: &'static str) {
        if let Ok(led) = self.partitions.find("led", PartitionIndex(0)) {
            self.seen.lock().push((what, led.leader_epoch()));
        }
    }
}

impl Keeper for Witness {
    fn missing<'a>(&'a self, _: &'a TopicImage, _: PartitionId) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
    fn opening<'a>(
        &'a self,
        topic: &'a TopicImage,
        _: PartitionId,
        _: &'a LocalLog,
        _: bool,
    ) -> BoxFuture<'a, Result<(), Unsettled>> {
        if topic.name.as_str() == "new" {
            self.note("opened");
        }
        Box::pin(async { Ok(()) })
    }
    fn opened(&self, _: &Arc<Partition>, _: &TopicImage) {}
    fn altered(&self, _: &Arc<Partition>, _: &TopicImage) {}
    fn deleted(&self, _: PartitionId, _: &TopicName) {
        self.note("deleted");
    }
    fn left(&self, _: PartitionId) {}
}

/// Deleting a large topic, or opening a partition for which the bucket is asked, may take long; whoever waits for a leader does
/// not wait for that.
#[tokio::test]
async fn leaderships_are_taken_over_before_logs_are_deleted_and_opened() {
    let Node { metadata, root, storage, partitions } = Node::new().await;
    drop((storage, partitions));
    let partitions = Arc::new(Partitions::default());
    let witness = Arc::new(Witness { partitions: partitions.clone(), seen: Default::default() });
    let place = root.path().join("witnessed");
    std::fs::create_dir_all(&place).unwrap();
    let storage = opened_by(&metadata, &place, partitions.clone(), witness.clone()).unwrap();
    let node = Node { metadata, root, storage, partitions };
    let led = node.create("led", 1).await;
    let gone = node.create("gone", 1).await;

    let before = node.metadata.image();
    let now = before.topic_by_id(led).unwrap().partitions[0].clone();
    let (base, epoch) = (now.partition_epoch, LeaderEpoch(now.leader_epoch.0 + 1));
    let next = PartitionImage { leader_epoch: epoch, partition_epoch: base + 1, ..now };
    let partition = PartitionId { topic: led, index: PartitionIndex(0) };
    let proposal = IsrProposal { partition, base, next, joins: None };
    assert_eq!(node.metadata.propose_isr(&proposal).await, ProposalOutcome::Taken);
    node.metadata.delete_topics(&[gone], None).await.unwrap();
    // Follows, and so takes all of it at once.
    node.create("new", 1).await;

    assert_eq!(*witness.seen.lock(), [("deleted", epoch), ("opened", epoch)]);
}

/// Directories of all partitions of `gone`, by what their names end in: those that lie under their own name, and those set aside.
fn logs_of_gone(node: &Node) -> (usize, usize) {
    let names = ["a", "b"].map(|dir| std::fs::read_dir(node.dir(dir)).unwrap());
    let names = names.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (aside, in_place): (Vec<_>, Vec<_>) =
        names.filter(|name| name.starts_with("gone-")).partition(|name| name.ends_with("-delete"));
    (in_place.len(), aside.len())
}

/// Hundreds of gigabytes take their time: neither leaders nor a new topic of the name wait for them.
#[tokio::test]
async fn an_image_is_shown_while_the_files_of_deleted_logs_are_still_there() {
    let node = Node::new().await;
    let gone = node.create("gone", 4).await;
    for index in 0..4 {
        node.append("gone", index).unwrap();
    }
    let dirs = node.partitions.log_dirs();
    dirs.iter().for_each(|dir| dir.remover().hold());
    node.delete(gone).await;
    assert_eq!(logs_of_gone(&node), (0, 4));
    node.create("gone", 2).await;
    for index in 0..2 {
        assert_eq!(node.append("gone", index).unwrap(), offset(0), "it is another topic");
    }
    assert_eq!(logs_of_gone(&node), (2, 4));
    dirs.iter().for_each(|dir| dir.remover().go_on());
    removed(&node).await;
    assert_eq!(logs_of_gone(&node), (2, 0));
    for index in 0..2 {
        assert_eq!(node.append("gone", index).unwrap(), offset(1), "nothing of the new one was taken");
    }
    // A process that ends before they are gone leaves them to the next.
    dirs.iter().for_each(|dir| dir.remover().hold());
    drop(dirs);
    let gone = node.metadata.image().topic("gone").unwrap().id;
    node.delete(gone).await;
    let node = node.restart(|_| ()).await;
    assert_eq!(logs_of_gone(&node), (0, 0));
}
