//! What says nothing any more is deleted from `__share_group_state`: the topic is not compacted, as a change of a share
//! partition is worth nothing without those before it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use varve_metadata::model::{LogStartOffset, Offset, PartitionId};

use crate::{partition::save_log_starts, server::Broker};

/// Looks at every partition each `interval`, until `stop`.
pub(super) async fn prune(broker: Weak<Broker>, interval: Duration, stop: CancellationToken) {
    let mut pruned: HashMap<PartitionId, Offset> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(interval) => {}
        }
        let Some(broker) = broker.upgrade() else { return };
        look(&broker, &mut pruned).await;
    }
}

/// Deletes what is redundant in the partitions that are led here.
async fn look(broker: &Broker, pruned: &mut HashMap<PartitionId, Offset>) {
    let mut moved = Vec::new();
    for seat in broker.share_states.all_seats() {
        let partition = seat.partition();
        let Ok(before) = seat.read(|shard| shard.redundant_before()) else { continue };
        let LogStartOffset(start) = partition.log_start();
        if before <= start || pruned.get(&partition.id()) == Some(&before) {
            continue;
        }
        match partition.delete_records(Some(before)) {
            Ok(_) => {
                pruned.insert(partition.id(), before);
                moved.push(Arc::clone(partition));
            }
            Err(error) => {
                tracing::warn!(topic = %partition.topic(), partition = %partition.id().index, %error, "cannot be pruned");
            }
        }
    }
    if moved.is_empty() {
        return;
    }
    // Should this fail, the records are back after a crash, and say nothing new.
    let saved = spawn_blocking(move || save_log_starts(&moved)).await;
    if let Err(panic) = saved {
        tracing::error!(%panic, "writing log starts panicked");
    }
}
