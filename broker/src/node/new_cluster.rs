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
    bucket::{Bucket, BucketError, BucketMetrics, OpenError},
    cluster::{ClusterError, read_cluster},
};

use super::StartError;
use crate::{
    archive::ArchiveError,
    config::{BrokerConfig, MetadataUrl},
    http::Health,
};

/// How long the bucket is waited for when it is asked once.
const BUCKET_LIMIT: Duration = Duration::from_secs(10);

/// Whether `store` holds a cluster, or this node may make one there. Writes nothing, but makes the directory of the archive of a node
/// that is alone. `health` tells of the bucket once that is asked.
///
/// # Errors
/// [`StartError`]: it may not, or not yet ([`StartError::SilentBucket`], [`StartError::NoBucket`]).
pub(super) async fn may_start(
    config: &BrokerConfig,
    store: &dyn MetadataStore,
    health: &Health,
) -> Result<(), StartError> {
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
        true => {
            health.waiting_for(&format!("the object store {}, before a cluster is made", config.object_store.url));
            look_at_bucket(config, store).await
        }
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
    let url = config.object_store.url.as_str();
    let missing = || StartError::NoBucket { bucket: url.to_owned() };
    let silent = |source| StartError::SilentBucket { bucket: url.to_owned(), source };
    let mut options = config.object_store.bucket_options();
    // Who is alone is told with its first start where to keep things. Among brokers it is a place that all of them know already.
    options.make_directory |= matches!(config.metadata, MetadataUrl::Embedded(_));
    let bucket = match Bucket::open(url, options, BucketMetrics::new()).await {
        Ok(bucket) => bucket,
        Err(OpenError::NoDirectory { .. }) => return Err(missing()),
        Err(error) => return Err(ArchiveError::Bucket(error).into()),
    };
    let answer = async {
        let found = read_cluster(&bucket).await?;
        if found.is_none() {
            bucket.reach().await?;
        }
        Ok(found)
    };
    let found = match timeout(BUCKET_LIMIT, answer).await {
        Ok(Ok(found)) => found,
        Ok(Err(ClusterError::Bucket(BucketError::NoBucket))) => return Err(missing()),
        Ok(Err(error)) if error.is_weather() => return Err(silent(Some(Box::new(error)))),
        Ok(Err(error)) => return Err(ArchiveError::Cluster(Arc::new(error)).into()),
        Err(_) => return Err(silent(None)),
    };
    let Some(found) = found else { return Ok(()) };
    // Another broker may just have made both: a cluster is in the store before it is in the bucket.
    match ClusterMetadata::is_new(store).await? {
        true => Err(StartError::LostStore { bucket: url.to_owned(), cluster: found.cluster_id }),
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
            MemoryStore, StoreFuture, Versioned,
            steered::{Steered, Steering},
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

    async fn asked(config: &BrokerConfig, store: &dyn MetadataStore) -> Result<(), StartError> {
        may_start(config, store, &Health::starting()).await
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
        asked(&config, empty.as_ref()).await.unwrap();
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node: BrokerId(1) };
        drop(LogDir::open(&dirs[1], &owner).unwrap());
        match asked(&config, empty.as_ref()).await {
            Err(StartError::EmptyStore { cluster, .. }) => assert_eq!(cluster, "c"),
            other => panic!("{other:?}"),
        }
        make_cluster(&empty).await;
        asked(&config, empty.as_ref()).await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_lost_the_cluster_whose_archive_is_in_the_bucket_gets_no_new_one() {
        let (empty, home) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        let config = node(home.path(), &[]);
        claim_bucket(&bucket_of(&config).await, "c").await.unwrap();
        match asked(&config, empty.as_ref()).await {
            Err(StartError::LostStore { cluster, .. }) => assert_eq!(cluster, "c"),
            other => panic!("{other:?}"),
        }
        let alone = node(home.path(), &["remote.log.storage.system.enable=false"]);
        asked(&alone, empty.as_ref()).await.expect("it has no archive to ask");
        make_cluster(&empty).await;
        asked(&config, empty.as_ref()).await.expect("whose bucket it is then, the archive asks");
    }

    #[tokio::test]
    async fn a_bucket_that_does_not_answer_or_cannot_be_read_holds_up_the_making_of_a_cluster_alone() {
        let (empty, home) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
        let config = node(home.path(), &["varve.object.store.request.attempts=1"]);
        let mark = home.path().join("archive/cluster.json");
        fs::create_dir_all(mark.parent().unwrap()).unwrap();
        // A link to itself: nobody can open it, and it is there.
        std::os::unix::fs::symlink("cluster.json", &mark).unwrap();
        assert!(matches!(asked(&config, empty.as_ref()).await, Err(StartError::SilentBucket { .. })));
        fs::remove_file(&mark).unwrap();
        fs::write(&mark, "{").unwrap();
        assert!(matches!(asked(&config, empty.as_ref()).await, Err(StartError::Archive(_))));
        make_cluster(&empty).await;
        asked(&config, empty.as_ref()).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_no_empty_archive_but_where_a_node_is_alone_and_new() {
        let home = tempfile::tempdir().unwrap();
        let share = home.path().join("mnt/share");
        let place = format!("varve.object.store.url=file://{}", share.display());
        let among_brokers = node(home.path(), &[&place, "varve.metadata.url=etcd://etcd-1:2379/varve"]);
        match asked(&among_brokers, &MemoryStore::new()).await {
            Err(StartError::NoBucket { bucket }) => assert!(bucket.ends_with("/mnt/share/"), "{bucket}"),
            other => panic!("{other:?}"),
        }
        assert!(!share.exists(), "it may be mounted yet");
        fs::create_dir_all(&share).unwrap();
        asked(&among_brokers, &MemoryStore::new()).await.expect("it is there, and empty");

        fs::remove_dir_all(&share).unwrap();
        let (alone, store) = (node(home.path(), &[&place]), Arc::new(MemoryStore::new()));
        asked(&alone, store.as_ref()).await.expect("it keeps things where it is told to");
        assert!(share.exists());
        make_cluster(&store).await;
        fs::remove_dir_all(&share).unwrap();
        asked(&alone, store.as_ref()).await.expect("the cluster is there");
        let opened =
            Bucket::open(alone.object_store.url.as_str(), alone.object_store.bucket_options(), BucketMetrics::new());
        assert!(matches!(opened.await, Err(OpenError::NoDirectory { .. })), "its archive is not");
        assert!(!share.exists());
    }

    /// A store in which another broker makes a cluster, and claims the bucket for it, after the first look at it.
    struct Contended {
        store: Arc<MemoryStore>,
        bucket: Bucket,
        looks: std::sync::atomic::AtomicU32,
    }

    impl Steering for Contended {
        fn behind(&self) -> &dyn MetadataStore {
            self.store.as_ref()
        }

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
    }

    #[tokio::test]
    async fn of_two_brokers_that_begin_a_cluster_together_neither_takes_the_others_mark_for_one_of_a_lost_store() {
        let home = tempfile::tempdir().unwrap();
        let config = node(home.path(), &[]);
        let (store, bucket) = (Arc::new(MemoryStore::new()), bucket_of(&config).await);
        let contended = Steered(Contended { store, bucket, looks: Default::default() });
        asked(&config, &contended).await.unwrap();
    }
}
