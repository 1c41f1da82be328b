//! An archive that goes on with the leader's log where the two have parted: published once, and known to be or not.
//!
//! The answer to a publication may be lost, and so may those to the questions after it. Nothing is claimed then until the bucket
//! says what it holds: the same change is tried again, which only one of both tries can win.

use std::time::Duration;

use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

use super::{
    manifests::StoreError,
    partition::{RemotePartition, UpdateError},
};
use crate::manifest::{Manifest, ManifestError, RemoteObject};

/// A bucket that does not answer is asked again so often, after a pause.
const TRIES: u32 = 15;
const PAUSE: Duration = Duration::from_secs(2);

/// Where the archive and the leader's log part, and what the archive keeps.
#[derive(Clone, Debug)]
pub struct Parting {
    /// The leader's.
    pub epoch: LeaderEpoch,
    /// From there on the leader's log is what readers see.
    pub from: Offset,
    /// Stands for the part below `from` of the object that reaches across it.
    pub kept: Vec<RemoteObject>,
    /// When it is done.
    pub now: Timestamp,
}

/// Why the archive does not go on.
#[derive(Debug, thiserror::Error)]
pub enum PartingError {
    /// Somebody else has published. Nothing was changed here.
    #[error("nothing was changed: the archive has changed meanwhile, so look again")]
    Changed,
    /// The manifest does not take it. Nothing was changed.
    #[error("nothing was changed")]
    Refused(#[source] ManifestError),
    /// The bucket does not say.
    #[error(
        "whether it was changed is not known, since the bucket does not answer: look again, without --confirm, before anything else"
    )]
    Unknown(#[source] StoreError),
}

/// Publishes that the archive, as it was `seen`, goes on as `parting` says.
///
/// # Errors
/// [`PartingError`].
pub async fn part(remote: &RemotePartition, seen: &Manifest, parting: &Parting) -> Result<(), PartingError> {
    let change = |manifest: &Manifest| match manifest.version() == seen.version() {
        true => {
            let claimed = manifest.claimed_by(parting.epoch)?;
            claimed.parted_at(parting.epoch, parting.from, parting.kept.clone(), parting.now)
        }
        false => Ok(manifest.clone()),
    };
    // What is set aside stays until the topic is deleted, whoever publishes after us.
    let before = seen.set_aside();
    let is_ours = |manifest: &Manifest| {
        manifest.set_aside().iter().any(|entry| entry.at == parting.now && !before.contains(entry))
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match remote.update(change).await {
            Ok(newest) if is_ours(&newest) => return Ok(()),
            Ok(_) => return Err(PartingError::Changed),
            Err(UpdateError::Refused(error)) => return Err(PartingError::Refused(error)),
            Err(UpdateError::Store(error)) if tries == TRIES => return Err(PartingError::Unknown(error)),
            Err(UpdateError::Store(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use object_store::{Result, path::Path};
    use varve_metadata::model::PartitionId;

    use super::*;
    use crate::{
        manifest::tests::{at, empty, millis, object, partition},
        tier::{
            bucket::{Bucket, BucketOptions},
            manifests::ManifestStore,
            troubled_store::{Trouble, TroubledStore},
        },
    };

    /// Loses the answers to so many requests: writes are carried out all the same, or not.
    #[derive(Clone, Debug, Default)]
    struct Deafness {
        lost: Arc<AtomicUsize>,
        drops_writes: bool,
    }

    impl Deafness {
        /// Fails if the answer to the next request is lost.
        fn answer(&self) -> Result<()> {
            match self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
                Ok(_) => Err(object_store::Error::Generic { store: "test", source: "connection reset".into() }),
                Err(_) => Ok(()),
            }
        }
    }

    impl Trouble for Deafness {
        async fn write<T: Send>(&self, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
            let heard = self.answer();
            if self.drops_writes {
                heard?;
                return write.await;
            }
            let done = write.await;
            heard.and(done)
        }

        async fn read<T: Send>(&self, _: &Path, read: impl Future<Output = Result<T>> + Send) -> Result<T> {
            self.answer()?;
            read.await
        }

        fn list(&self) -> Result<()> {
            self.answer()
        }
    }

    type Deaf = TroubledStore<Deafness>;

    fn deaf(drops_writes: bool) -> Deaf {
        TroubledStore { inner: Arc::default(), trouble: Deafness { drops_writes, ..Deafness::default() } }
    }

    fn remote(store: &Deaf, partition: PartitionId) -> RemotePartition {
        let options = BucketOptions { attempts: 1, ..BucketOptions::default() };
        let manifests = ManifestStore::new(Bucket::over(store.clone(), options));
        RemotePartition::new(manifests, partition, empty().topic().clone())
    }

    const EPOCH: LeaderEpoch = LeaderEpoch(2);

    /// An archive of three objects, as it was seen, and its parting in front of the last one.
    async fn parted(store: &Deaf) -> (RemotePartition, Arc<Manifest>, Parting) {
        let remote = remote(store, partition());
        let add = |manifest: &Manifest| {
            let objects = [object(0, 10), object(10, 20), object(20, 30)];
            objects.into_iter().try_fold(manifest.claimed_by(LeaderEpoch(1))?, |manifest, object| {
                manifest.with(LeaderEpoch(1), object)
            })
        };
        let seen = remote.update(add).await.unwrap();
        (remote, seen, Parting { epoch: EPOCH, from: at(20), kept: Vec::new(), now: millis(7) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_publication_whose_answers_are_lost_is_found_out_by_reading() {
        // The write, and what is asked after it; carried out or not.
        for (drops_writes, answers) in [(false, 1), (false, 2), (false, 5), (true, 1), (true, 2), (true, 5)] {
            let store = deaf(drops_writes);
            let (remote, seen, parting) = parted(&store).await;
            store.trouble.lost.store(answers, Ordering::SeqCst);
            part(&remote, &seen, &parting).await.unwrap();
            let newest = remote.refresh().await.unwrap();
            let found = (newest.end(), newest.set_aside().len(), newest.version());
            assert_eq!(found, (at(20), 1, seen.version().next()), "{answers} answers lost");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_claimed_while_the_bucket_does_not_say() {
        for (drops_writes, ends_at) in [(false, 20), (true, 30)] {
            let store = deaf(drops_writes);
            let (remote, seen, parting) = parted(&store).await;
            store.trouble.lost.store(usize::MAX, Ordering::SeqCst);
            let unknown = part(&remote, &seen, &parting).await.unwrap_err();
            assert!(matches!(unknown, PartingError::Unknown(_)), "{unknown:?}");
            assert!(!unknown.to_string().contains("nothing was changed"), "{unknown}");
            store.trouble.lost.store(0, Ordering::SeqCst);
            let newest = remote.refresh().await.unwrap();
            assert_eq!(newest.end(), at(ends_at), "what was carried out was");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_else_has_published_meanwhile_stays() {
        let store = deaf(false);
        let (ours, seen, parting) = parted(&store).await;
        let theirs = remote(&store, seen.partition());
        theirs.update(|manifest| manifest.claimed_by(LeaderEpoch(3))).await.unwrap();
        assert!(matches!(part(&ours, &seen, &parting).await, Err(PartingError::Changed)));
        assert_eq!(ours.refresh().await.unwrap().end(), at(30));

        // One that came between the publication and its being found out does not hide it.
        let (ours, seen, parting) = parted(&deaf(false)).await;
        part(&ours, &seen, &parting).await.unwrap();
        ours.update(|manifest| manifest.claimed_by(LeaderEpoch(3))).await.unwrap();
        part(&ours, &seen, &parting).await.unwrap();
        assert_eq!(ours.refresh().await.unwrap().set_aside().len(), 1, "it was done once");
    }
}
