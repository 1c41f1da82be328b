//! Where the cluster's state lies: etcd, or a file of the only node.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::warn;
use varve_metadata::{
    cluster::{ClusterMetadata, MetadataError},
    model::BrokerId,
    store::{ConnectError, EmbeddedStore, EtcdCredentials, EtcdOptions, EtcdStore, EtcdTls, MetadataStore},
};

use super::{StartError, new_cluster::may_start};
use crate::{
    archive::told,
    config::{BrokerConfig, EtcdConfig, MetadataUrl},
    http::Health,
    metrics::{MetadataMetrics, Metrics},
};

/// Name of the embedded store's file in its directory.
const FILE: &str = "metadata.redb";
/// What is waited for, as `/readyz` says it.
const STORE: &str = "the metadata store";
/// Between two tries to reach an etcd that does not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// Opens the store and follows what the cluster has agreed on. An etcd that does not answer is waited for: after a power cut it
/// starts together with its brokers. So is a bucket, where a cluster would be made. `health` tells for which of the two it waits.
///
/// # Errors
/// [`StartError`]: the store cannot be opened, one of the two has not answered within `initial.broker.registration.timeout.ms`, or the
/// store lost the cluster.
pub(super) async fn follow_cluster(
    config: &BrokerConfig,
    metrics: &Metrics,
    health: &Health,
) -> Result<Arc<ClusterMetadata>, StartError> {
    health.waiting_for(STORE);
    let counted = MetadataMetrics::new(metrics.registry());
    if matches!(config.metadata, MetadataUrl::Etcd { .. }) {
        counted.watch_silence(metrics);
    }
    let attempt = async || {
        let store = counted.measured(open_store(config).await?);
        may_start(config, store.as_ref(), health).await?;
        Ok(ClusterMetadata::start(store, config.node, config.settings.texts()).await?)
    };
    let given_up = Instant::now() + config.etcd.start_timeout;
    loop {
        let error = match attempt().await {
            Err(error) if may_pass(config, &error) => error,
            outcome => return outcome,
        };
        if Instant::now() + AGAIN > given_up {
            return Err(error);
        }
        match error {
            StartError::SilentBucket { .. } | StartError::NoBucket { .. } => {
                warn!(error = told(&error), "no cluster is made before the object store has answered: trying again");
            }
            _ => {
                health.waiting_for(STORE);
                warn!(error = told(&error), "the metadata store does not answer, trying again");
            }
        }
        sleep(AGAIN).await;
    }
}

/// Whether the same attempt may succeed later.
fn may_pass(config: &BrokerConfig, error: &StartError) -> bool {
    match error {
        StartError::SilentBucket { .. } | StartError::NoBucket { .. } => true,
        StartError::Etcd(ConnectError::Store(_)) | StartError::Metadata(MetadataError::Store(_)) => {
            matches!(config.metadata, MetadataUrl::Etcd { .. })
        }
        _ => false,
    }
}

/// Opens the store that `varve.metadata.url` names, if it is there.
pub(crate) async fn open_store(config: &BrokerConfig) -> Result<Arc<dyn MetadataStore>, StartError> {
    match &config.metadata {
        MetadataUrl::Embedded(dir) => open_embedded(dir).await,
        MetadataUrl::Etcd { endpoints, prefix } => connect(&config.etcd, endpoints, prefix, config.node).await,
    }
}

async fn open_embedded(dir: &Path) -> Result<Arc<dyn MetadataStore>, StartError> {
    let shown = dir.display().to_string();
    fs::create_dir_all(dir).map_err(|source| StartError::Directory { dir: shown.clone(), source })?;
    let file = dir.join(FILE);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&file)).await;
    let opened = opened.expect("opening the store does not panic");
    opened.map(|store| Arc::new(store) as _).map_err(|source| StartError::Store { dir: shown, source })
}

async fn connect(
    config: &EtcdConfig,
    endpoints: &[String],
    prefix: &str,
    node: BrokerId,
) -> Result<Arc<dyn MetadataStore>, StartError> {
    let read =
        |path: &PathBuf| fs::read(path).map_err(|source| StartError::File { file: path.display().to_string(), source });
    let tls = match config.tls {
        true => Some(EtcdTls {
            ca: config.ca.as_ref().map(read).transpose()?,
            identity: match &config.identity {
                Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
                None => None,
            },
        }),
        false => None,
    };
    let credentials = config.credentials.clone().map(|(user, password)| EtcdCredentials { user, password });
    let options = EtcdOptions {
        endpoints: endpoints.to_vec(),
        begin_with: node.0 as usize,
        prefix: prefix.to_owned(),
        tls,
        credentials,
        request_timeout: config.request_timeout,
    };
    Ok(Arc::new(EtcdStore::connect(&options).await?))
}
