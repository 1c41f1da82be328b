//! Listeners that follow their settings and files while the node runs (KIP-226, KIP-1119 and certificates that are renewed).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use varve_metadata::{cluster::ClusterMetadata, image::ClusterImage};

use super::ListenerSecurity;
use crate::config::{BrokerConfig, Listener};

/// How often key stores are looked at. A renewed certificate is valid long before the old one expires, so nobody waits for it.
const LOOK: Duration = Duration::from_secs(2);

/// Keeps the protection of all listeners, which `listeners` gives at any time, abreast of dynamic settings and changed files,
/// until `stop`.
pub async fn follow_settings(
    listeners: impl Fn() -> Vec<(Listener, Arc<ListenerSecurity>)>,
    config: Arc<BrokerConfig>,
    metadata: Arc<ClusterMetadata>,
    stop: CancellationToken,
) {
    let texts = |image: &ClusterImage| image.configs().of_broker(config.node, &config.settings.texts());
    let mut images = metadata.subscribe();
    let mut known = texts(&images.borrow_and_update());
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = images.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = texts(&images.borrow_and_update());
                if now != known {
                    listeners().iter().for_each(|(listener, security)| follow(listener, security, &now));
                    known = now;
                }
            }
            _ = look.tick() => listeners().iter().for_each(|(listener, security)| look_at_files(listener, security)),
        }
    }
}

fn follow(listener: &Listener, security: &ListenerSecurity, texts: &BTreeMap<String, String>) {
    let errors = security.follow(&listener.name, texts);
    if errors.is_empty() {
        info!(listener = %listener.name, "the listener follows its settings");
    }
    for error in errors {
        warn!(listener = %listener.name, error = %chain(&error), "the listener stays as it was");
    }
}

fn look_at_files(listener: &Listener, security: &ListenerSecurity) {
    let Some(tls) = &security.tls else { return };
    match tls.reload_changed_files() {
        Ok(true) => info!(listener = %listener.name, "new TLS keys and certificates"),
        Ok(false) => {}
        Err(error) => {
            let error = chain(&error);
            warn!(listener = %listener.name, %error, "the changed key store cannot be used; the old one stays");
        }
    }
}

/// An error with its causes: none of them holds a secret.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
