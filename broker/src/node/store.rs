//! Where the cluster's state lies: etcd, or a file of the only node.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::warn;
use varve_log::local::cluster_of;
use varve_metadata::{
    cluster::{ClusterMetadata, MetadataError},
    model::BrokerId,
    store::{ConnectError, EmbeddedStore, EtcdCredentials, EtcdOptions, EtcdStore, EtcdTls, MetadataStore, StoreError},
};

use super::StartError;
use crate::{
    archive::told,
    config::{BrokerConfig, EtcdConfig, MetadataUrl},
    metrics::{MetadataMetrics, Metrics},
};

/// Name of the embedded store's file in its directory.
const FILE: &str = "metadata.redb";
/// Between two tries to reach an etcd that does not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// Opens the store and follows what the cluster has agreed on. An etcd that does not answer is waited for: after a power cut it
/// starts together with its brokers.
///
/// # Errors
/// [`StartError`]: the store cannot be opened, etcd has not answered within `initial.broker.registration.timeout.ms`, or the store
/// lost the cluster.
pub(super) async fn follow_cluster(
    config: &BrokerConfig,
    metrics: &Metrics,
) -> Result<Arc<ClusterMetadata>, StartError> {
    let counted = MetadataMetrics::new(metrics.registry());
    if matches!(config.metadata, MetadataUrl::Etcd { .. }) {
        counted.watch_silence(metrics);
    }
    let attempt = async || {
        let store = counted.measured(open_store(config).await?);
        look_for_cluster(store.as_ref(), &config.logs.dirs).await?;
        // Who has no logs cannot tell a new cluster from one that its store lost.
        if !config.roles.broker && ClusterMetadata::is_new(store.as_ref()).await? {
            let why = StoreError::Unavailable("it holds no cluster, and only brokers make one".into());
            return Err(MetadataError::Store(why).into());
        }
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
        warn!(error = told(&error), "the metadata store does not answer, trying again");
        sleep(AGAIN).await;
    }
}

/// Whether the store is not empty, or this node is new.
///
/// # Errors
/// [`StartError::EmptyStore`]: a log directory is of a cluster, of which the store knows nothing.
async fn look_for_cluster(store: &dyn MetadataStore, log_dirs: &[PathBuf]) -> Result<(), StartError> {
    // A directory that cannot be read is told of when it is opened.
    let known = log_dirs.iter().find_map(|dir| Some((dir, cluster_of(dir).ok()??)));
    let Some((dir, cluster)) = known else { return Ok(()) };
    match ClusterMetadata::is_new(store).await? {
        true => Err(StartError::EmptyStore { dir: dir.display().to_string(), cluster }),
        false => Ok(()),
    }
}

/// Whether the same attempt may succeed later.
fn may_pass(config: &BrokerConfig, error: &StartError) -> bool {
    matches!(config.metadata, MetadataUrl::Etcd { .. })
        && matches!(error, StartError::Etcd(ConnectError::Store(_)) | StartError::Metadata(MetadataError::Store(_)))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use varve_log::local::{LogDir, LogDirOwner};
    use varve_metadata::store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_store_that_lost_the_cluster_whose_logs_are_here_gets_no_new_one() {
        let (empty, home) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        let dirs = [home.path().join("a"), home.path().join("b")];
        look_for_cluster(empty.as_ref(), &dirs).await.unwrap();
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node: BrokerId(1) };
        drop(LogDir::open(&dirs[1], &owner).unwrap());
        match look_for_cluster(empty.as_ref(), &dirs).await {
            Err(StartError::EmptyStore { cluster, .. }) => assert_eq!(cluster, "c"),
            other => panic!("{other:?}"),
        }
        ClusterMetadata::start(empty.clone(), BrokerId(2), BTreeMap::new()).await.unwrap();
        look_for_cluster(empty.as_ref(), &dirs).await.unwrap();
    }
}
