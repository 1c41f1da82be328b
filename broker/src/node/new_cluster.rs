//! Whether a node may make a cluster where the metadata store holds none. What it has itself, and the bucket, tell whether that is a
//! new store, or one that lost its cluster: then a new one would only be in the way of what is to be restored.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::timeout;
use varve_log::local::cluster_of;
use varve_metadata::{
    cluster::{ClusterMetadata, MetadataError},
    store::{MetadataStore, StoreError},
};
use varve_tiering::tier::{
    bucket::{Bucket, BucketMetrics},
    cluster::read_cluster,
};

use super::StartError;
use crate::{archive::ArchiveError, config::BrokerConfig};

/// How long the bucket is waited for when it is asked once.
const BUCKET_LIMIT: Duration = Duration::from_secs(10);

/// Whether `store` holds a cluster, or this node may make one there. Writes nothing.
///
/// # Errors
/// [`StartError`]: it may not, or not yet ([`StartError::SilentBucket`]).
pub(super) async fn may_start(config: &BrokerConfig, store: &dyn MetadataStore) -> Result<(), StartError> {
    if !ClusterMetadata::is_new(store).await? {
        return Ok(());
    }
    look_at_logs(&config.logs.dirs)?;
    // Who has no logs cannot tell a new cluster from one that its store lost.
    if !config.roles.broker {
        let why = StoreError::Unavailable("it holds no cluster, and only brokers make one".into());
        return Err(MetadataError::Store(why).into());
    }
    match config.archive.enabled {
        true => look_at_bucket(config, store).await,
        false => Ok(()),
    }
}

fn look_at_logs(dirs: &[PathBuf]) -> Result<(), StartError> {
    // A directory that cannot be read is told of when it is opened.
    match dirs.iter().find_map(|dir| Some((dir, cluster_of(dir).ok()??))) {
        Some((dir, cluster)) => Err(StartError::EmptyStore { dir: dir.display().to_string(), cluster }),
        None => Ok(()),
    }
}

async fn look_at_bucket(config: &BrokerConfig, store: &dyn MetadataStore) -> Result<(), StartError> {
    let object_store = &config.object_store;
    let bucket = Bucket::open(object_store.url.as_str(), object_store.bucket_options(), BucketMetrics::new()).await;
    let bucket = bucket.map_err(ArchiveError::Bucket)?;
    let silent = |source| StartError::SilentBucket { bucket: bucket.url().to_owned(), source };
    let found = match timeout(BUCKET_LIMIT, read_cluster(&bucket)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) if error.is_weather() => return Err(silent(Some(Box::new(error)))),
        Ok(Err(error)) => return Err(ArchiveError::Cluster(Arc::new(error)).into()),
        Err(_) => return Err(silent(None)),
    };
    let Some(found) = found else { return Ok(()) };
    // Another broker may just have made both: a cluster is in the store before it is in the bucket.
    match ClusterMetadata::is_new(store).await? {
        true => Err(StartError::LostStore { bucket: bucket.url().to_owned(), cluster: found.cluster_id }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use varve_log::local::{LogDir, LogDirOwner};
    use varve_metadata::{
        model::BrokerId,
        store::{
            LeaseId, MemoryStore, Revision, Snapshot, StoreFuture, Transaction, TransactionLimits, Versioned, Watch,
        },
    };
    use varve_tiering::tier::cluster::claim_bucket;

    use super::*;
    use crate::config::Sources;

    /// A node of `home`, with its bucket there, and `more` settings.
    fn node(home: &Path, more: &[&str]) -> BrokerConfig {
        let own = [format!("varve.data.dir={}", home.display())];
        let overrides = own.into_iter().chain(more.iter().map(|&setting| setting.to_owned())).collect();
        BrokerConfig::load(&Sources { overrides, ..Sources::default() }).unwrap().config
    }

    async fn bucket_of(config: &BrokerConfig) -> Bucket {
        let options = config.object_store.bucket_options();
        Bucket::open(config.object_store.url.as_str(), options, BucketMetrics::new()).await.unwrap()
    }

    async fn make_cluster(store: &Arc<MemoryStore>) {
        ClusterMetadata::start(store.clone(), BrokerId(2), BTreeMap::new()).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_lost_the_cluster_whose_logs_are_here_gets_no_new_one() {
        let (empty, home) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        let dirs = [home.path().join("a"), home.path().join("b")];
        let config = node(home.path(), &[&format!("log.dirs={},{}", dirs[0].display(), dirs[1].display())]);
        may_start(&config, empty.as_ref()).await.unwrap();
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node: BrokerId(1) };
        drop(LogDir::open(&dirs[1], &owner).unwrap());
        match may_start(&config, empty.as_ref()).await {
            Err(StartError::EmptyStore { cluster, .. }) => assert_eq!(cluster, "c"),
            other => panic!("{other:?}"),
        }
        make_cluster(&empty).await;
        may_start(&config, empty.as_ref()).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_lost_the_cluster_whose_archive_is_in_the_bucket_gets_no_new_one() {
        let (empty, home) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        let config = node(home.path(), &[]);
        claim_bucket(&bucket_of(&config).await, "c").await.unwrap();
        match may_start(&config, empty.as_ref()).await {
            Err(StartError::LostStore { cluster, .. }) => assert_eq!(cluster, "c"),
            other => panic!("{other:?}"),
        }
        let alone = node(home.path(), &["remote.log.storage.system.enable=false"]);
        may_start(&alone, empty.as_ref()).await.expect("it has no archive to ask");
        make_cluster(&empty).await;
        may_start(&config, empty.as_ref()).await.expect("whose bucket it is then, the archive asks");
    }

    #[tokio::test]
    async fn a_bucket_that_does_not_answer_or_cannot_be_read_holds_up_the_making_of_a_cluster_alone() {
        let (empty, home) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        let config = node(home.path(), &["varve.object.store.request.attempts=1"]);
        let mark = home.path().join("archive/cluster.json");
        fs::create_dir_all(mark.parent().unwrap()).unwrap();
        // A link to itself: nobody can open it, and it is there.
        std::os::unix::fs::symlink("cluster.json", &mark).unwrap();
        assert!(matches!(may_start(&config, empty.as_ref()).await, Err(StartError::SilentBucket { .. })));
        fs::remove_file(&mark).unwrap();
        fs::write(&mark, "{").unwrap();
        assert!(matches!(may_start(&config, empty.as_ref()).await, Err(StartError::Archive(_))));
        make_cluster(&empty).await;
        may_start(&config, empty.as_ref()).await.unwrap();
    }

    /// A store in which another broker makes a cluster, and claims the bucket for it, after the first look at it.
    struct Contended {
        store: Arc<MemoryStore>,
        bucket: Bucket,
        looks: std::sync::atomic::AtomicU32,
    }

    impl MetadataStore for Contended {
        fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
            Box::pin(async move {
                let found = self.store.get(key).await;
                if self.looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                    make_cluster(&self.store).await;
                    claim_bucket(&self.bucket, "theirs").await.unwrap();
                }
                found
            })
        }

        fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
            self.store.range(prefix)
        }

        fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
            self.store.transact(transaction)
        }

        fn limits(&self) -> TransactionLimits {
            self.store.limits()
        }

        fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
            self.store.grant(ttl)
        }

        fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool> {
            self.store.renew(lease)
        }

        fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
            self.store.revoke(lease)
        }

        fn watch(&self, prefix: &str, after: Revision) -> Watch {
            self.store.watch(prefix, after)
        }
    }

    #[tokio::test]
    async fn of_two_brokers_that_begin_a_cluster_together_neither_takes_the_others_mark_for_one_of_a_lost_store() {
        let home = tempfile::tempdir().unwrap();
        let config = node(home.path(), &[]);
        let (store, bucket) = (Arc::new(MemoryStore::new()), bucket_of(&config).await);
        let contended = Contended { store, bucket, looks: Default::default() };
        may_start(&config, &contended).await.unwrap();
    }
}
