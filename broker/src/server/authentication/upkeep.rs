//! Users that a node makes at its start, and tokens that are over.

use std::{sync::Arc, time::Duration};

use ring::rand::{SecureRandom, SystemRandom};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use varve_metadata::{
    cluster::{ClusterMetadata, MetadataError},
    controller::{ScramChange, TokenChange},
};

use crate::{config::FirstUser, security::sasl::scram, server::wall_clock};

/// Bytes of salt, as Kafka's tools take.
const SALT_BYTES: usize = 16;

/// Makes users that the cluster does not know yet. Those it knows keep their passwords.
///
/// # Errors
/// [`MetadataError`].
pub async fn make_first_users(metadata: &ClusterMetadata, users: &[FirstUser]) -> Result<(), MetadataError> {
    let image = metadata.image();
    let mut changes: Vec<ScramChange> = Vec::new();
    for FirstUser { name, mechanism, password, iterations } in users {
        let named = changes.iter().any(|change| change.user == *name && change.mechanism == *mechanism);
        if named || image.scram_credential(*mechanism, name).is_some() {
            continue;
        }
        let mut salt = vec![0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).expect("the system gives random numbers");
        let credential = Some(scram::credential(*mechanism, password, salt, *iterations));
        info!(user = %name, mechanism = mechanism.name(), "first user");
        changes.push(ScramChange { user: name.clone(), mechanism: *mechanism, credential });
    }
    if !changes.is_empty() {
        metadata.alter_scram_credentials(&changes).await?;
    }
    Ok(())
}

/// Removes delegation tokens that are over, now and then, until `stop`.
pub async fn sweep_tokens(metadata: Arc<ClusterMetadata>, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let (image, now_ms) = (metadata.image(), wall_clock().to_wire());
        let over = image.delegation_tokens().values().filter(|token| token.is_expired(now_ms));
        let changes: Vec<TokenChange> = over.map(|token| TokenChange::Remove { id: token.id.clone() }).collect();
        if changes.is_empty() {
            continue;
        }
        match metadata.alter_delegation_tokens(&changes).await {
            Ok(_) => info!(count = changes.len(), "expired delegation tokens removed"),
            Err(error) => warn!(%error, "expired delegation tokens are still there"),
        }
    }
}
