//! Copies of the cluster's state in the bucket, so that a cluster can be made from it alone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tracing::{debug, warn};
use varve_metadata::{
    cluster::ClusterMetadata,
    model::BrokerId,
    snapshot::{ClusterSnapshot, ParseError, SnapshotError as StateError},
    store::StoreError,
};
use varve_tiering::{
    layout::Version,
    tier::snapshots::{SnapshotError, Snapshots},
};

use super::{told, wall_clock};

/// A change waits this long for others, so that they share a copy.
const GATHER: Duration = Duration::from_secs(2);
/// Between two tries while the store or the bucket does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Why there is no new copy yet.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    #[error("the metadata store")]
    Store(#[from] StoreError),
    #[error("the cluster's state")]
    State(#[from] StateError),
    #[error("the bucket")]
    Bucket(#[from] SnapshotError),
    #[error("the newest copy in the bucket")]
    Newest(#[from] ParseError),
}

/// The newest copy, as far as it is known.
#[derive(Default)]
struct Newest {
    version: Version,
    entries: Vec<(String, Bytes)>,
}

/// Copies the state whenever it changed, unless another broker is the controller, which does it then. Never returns;
/// cancel-safe.
pub(super) async fn back_up(snapshots: Snapshots, metadata: Arc<ClusterMetadata>, node: BrokerId) {
    let mut images = metadata.subscribe();
    let mut newest = None;
    loop {
        let controller = images.borrow_and_update().membership().controller();
        if controller.is_some_and(|controller| controller != node) {
            newest = None;
            if images.changed().await.is_err() {
                return;
            }
            continue;
        }
        match copy(&snapshots, &metadata, &mut newest).await {
            Ok(()) => {
                if images.changed().await.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
            }
            Err(error) => {
                // What the bucket has may be newer than what is known of it.
                newest = None;
                if !matches!(error, BackupError::Bucket(SnapshotError::Conflict)) {
                    warn!(error = told(&error), "the cluster's state is not in the object store yet, trying again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

async fn copy(
    snapshots: &Snapshots,
    metadata: &ClusterMetadata,
    newest: &mut Option<Newest>,
) -> Result<(), BackupError> {
    let known = match newest {
        Some(known) => known,
        None => newest.insert(read_newest(snapshots).await?),
    };
    let state = ClusterSnapshot::of(metadata.dump().await?, wall_clock())?;
    if state.entries == known.entries {
        return Ok(());
    }
    let version = snapshots.publish(known.version, &state.encode()?).await?;
    debug!(version = version.0, keys = state.entries.len(), "the cluster's state is in the object store");
    *known = Newest { version, entries: state.entries };
    Ok(())
}

async fn read_newest(snapshots: &Snapshots) -> Result<Newest, BackupError> {
    let Some(version) = snapshots.versions().await?.last().copied() else { return Ok(Newest::default()) };
    let entries = match snapshots.read(version).await.map(|text| ClusterSnapshot::parse(&text)) {
        Ok(Ok(snapshot)) => snapshot.entries,
        // Not for us to replace.
        Ok(Err(newer @ ParseError::Newer(_))) => return Err(newer.into()),
        Err(SnapshotError::Bucket(error)) => return Err(SnapshotError::Bucket(error).into()),
        // Damaged: the next one is good again.
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    Ok(Newest { version, entries })
}
