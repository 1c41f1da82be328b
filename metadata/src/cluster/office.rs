//! The controller's office, and what whoever holds it does.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT, member::RETRY};
use crate::{
    controller::leftovers::Leftovers,
    image::record::{self, ControllerRecord, Key},
    model::BrokerId,
    store::{Expect, LeaseId, StoreError, Transaction, transact_settled},
};

/// How long the controller waits for news before it looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Takes the controller's office when it is empty, and does its work while it is ours. Two at once do no harm: each decision compares.
pub(super) async fn hold_office(metadata: Arc<ClusterMetadata>, id: BrokerId, lease: watch::Receiver<LeaseId>) {
    let mut images = metadata.subscribe();
    let (begun, mut leftovers) = (Instant::now(), Leftovers::default());
    loop {
        let image = images.borrow_and_update().clone();
        let held = *lease.borrow();
        let outcome = match image.membership().controller() {
            Some(holder) if holder == id => metadata.look_after_all(&mut leftovers, begun.elapsed()).await,
            Some(_) => Ok(false),
            None => metadata.take_office(id, held).await,
        };
        match outcome {
            // What was done shows what is due next.
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(broker = %id, %error, "the controller's work was not done, trying again");
                sleep(RETRY).await;
            }
        }
        // Whoever waits for news would miss none; a look now and then costs little and forgives much.
        let _ = timeout(LOOK_EVERY, images.changed()).await;
    }
}

impl ClusterMetadata {
    async fn look_after_all(&self, leftovers: &mut Leftovers, now: Duration) -> Result<bool, MetadataError> {
        match self.tend().await? {
            true => Ok(true),
            false => self.clear_leftovers(leftovers, now).await,
        }
    }

    async fn take_office(&self, id: BrokerId, lease: LeaseId) -> Result<bool, MetadataError> {
        let key = Key::Controller.text();
        let take = Transaction::default()
            .put_leased(key.clone(), record::encode(ControllerRecord { broker: id }), lease)
            .expecting(key, Expect::Absent);
        match transact_settled(self.store.as_ref(), take, Instant::now() + SETTLE_TIMEOUT).await {
            Ok(revision) => {
                tracing::info!(broker = %id, "this broker is the controller now");
                self.follow_to(revision).await?;
                Ok(true)
            }
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
