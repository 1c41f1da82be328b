//! After a start: whether the replicas here were in sync again. A broker that serves is ready; the next one of a rolling restart may
//! only go once this one stands in for it.
//!
//! Looked at from the start on until it is so, and never again: a replica that falls behind later, or a leader that hangs then, is no
//! reason to take brokers away from their clients, and least of all several brokers at once.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;
use varve_metadata::{
    cluster::ClusterMetadata,
    image::{ClusterImage, PartitionImage},
    model::BrokerId,
};

use crate::http::Health;

/// Between two looks, at least: a cluster whose broker comes back changes all the time.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Partitions that are named.
const NAMED: usize = 5;

/// Says at `/insyncz` what is behind, from this call on, which has looked once when it returns. What it returns goes on until nothing
/// is, or `stop` is cancelled.
pub(super) fn watch(
    metadata: Arc<ClusterMetadata>,
    us: BrokerId,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = ()> {
    let mut images = metadata.subscribe();
    let is_behind = show(&images.borrow_and_update(), us, &health);
    async move {
        if !is_behind {
            return;
        }
        let caught_up = async {
            while images.changed().await.is_ok() {
                if !show(&images.borrow_and_update(), us, &health) {
                    return info!("every replica here was in sync since the start");
                }
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = caught_up => {}
        }
    }
}

/// Whether something is behind, which is shown.
fn show(image: &ClusterImage, us: BrokerId, health: &Health) -> bool {
    let behind: Vec<String> = behind(image, us).collect();
    let shown = match &behind[..] {
        [] => None,
        few if few.len() <= NAMED => Some(few.join(", ")),
        many => Some(format!("{} and {} more", many[..NAMED].join(", "), many.len() - NAMED)),
    };
    health.behind(shown);
    !behind.is_empty()
}

fn behind(image: &ClusterImage, us: BrokerId) -> impl Iterator<Item = String> {
    let partitions =
        image.topics().values().flat_map(|topic| topic.partitions.iter().enumerate().map(move |one| (topic, one)));
    let behind = partitions.filter(move |(_, (_, partition))| is_behind(partition, us));
    behind.map(|(topic, (index, _))| format!("{}-{index}", topic.name))
}

/// Whether a replica here has yet to catch up, and can: with nobody who leads there is nobody to copy from, which may be any broker's
/// fault, and in a directory that failed there is nowhere to copy to. A replica that a reassignment adds, or takes away, stands in for nobody.
fn is_behind(partition: &PartitionImage, us: BrokerId) -> bool {
    let counts =
        partition.replicas.contains(&us) && !partition.adding.contains(&us) && !partition.removing.contains(&us);
    counts && partition.leader.is_some() && !partition.isr.contains(&us) && !partition.offline.contains(&us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: BrokerId = BrokerId(1);

    fn partition(leader: Option<u32>, isr: &[u32]) -> PartitionImage {
        let ids = |ids: &[u32]| ids.iter().map(|id| BrokerId(*id)).collect();
        PartitionImage {
            replicas: ids(&[1, 2, 3]),
            isr: ids(isr),
            leader: leader.map(BrokerId),
            ..PartitionImage::default()
        }
    }

    #[test]
    fn a_replica_is_behind_while_somebody_else_leads_without_it() {
        assert!(is_behind(&partition(Some(2), &[2, 3]), US));
        assert!(!is_behind(&partition(Some(2), &[2, 1]), US), "others that lag are their own business");
        assert!(!is_behind(&partition(Some(1), &[1]), US));
        assert!(!is_behind(&partition(Some(2), &[2, 3]), BrokerId(4)), "it holds none");
    }

    #[test]
    fn what_waits_for_others_or_for_a_reassignment_holds_nothing_up() {
        assert!(!is_behind(&partition(None, &[2]), US), "nobody leads");
        let added = PartitionImage { adding: vec![US], ..partition(Some(2), &[2, 3]) };
        assert!(!is_behind(&added, US));
        let removed = PartitionImage { removing: vec![US], ..partition(Some(2), &[2, 3]) };
        assert!(!is_behind(&removed, US));
        let offline = PartitionImage { offline: vec![US], ..partition(Some(2), &[2, 3]) };
        assert!(!is_behind(&offline, US), "its directory failed");
    }
}
