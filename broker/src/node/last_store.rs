//! What this node has seen of the metadata store, for its next life: one that finds less there knows that it was put back.
//!
//! `last-store` in `varve.data.dir` is one line: the cluster's id, the store's name for itself, when it was last put back under that, the
//! revision. It may be some seconds old, or be gone: then a store that was put back is less likely to be noticed, and that is all.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use varve_metadata::{
    cluster::{ClusterMetadata, Seen},
    store::Revision,
};

use super::last_life::WRITE_LIMIT;

const FILE: &str = "last-store";
const KNOWS_LESS: &str = "the next start knows less of what was seen of the metadata store";
/// Between two looks whether there is more to remember.
const EVERY: Duration = Duration::from_secs(5);

/// What the last life of this node had seen.
pub(super) fn look(data_dir: &Path) -> Option<Seen> {
    match fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(%error, "what was seen of the metadata store cannot be read");
            None
        }
    }
}

fn parse(text: &str) -> Option<Seen> {
    let mut words = text.split_ascii_whitespace();
    let (cluster, members) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (put_back_ms, revision) = (words.next()?.parse().ok()?, Revision(words.next()?.parse().ok()?));
    words.next().is_none().then_some(Seen { cluster, members, put_back_ms, revision })
}

/// Writes down what this life sees, every few seconds while that changes, and when `stop` is cancelled. Where it cannot, the next life
/// knows less.
pub(super) async fn keep(data_dir: PathBuf, metadata: Arc<ClusterMetadata>, stop: CancellationToken) {
    let (mut kept, mut is_told) = (None, false);
    loop {
        let is_last = stop.is_cancelled();
        if let Some(seen) = metadata.seen().filter(|seen| kept.as_ref() != Some(seen)) {
            let (dir, now) = (data_dir.clone(), seen.clone());
            let written = match timeout(WRITE_LIMIT, spawn_blocking(move || write(&dir, &now))).await {
                Ok(written) => written.unwrap_or_else(|panic| Err(io::Error::other(panic))),
                // One that hangs may still be written: later than a newer one, it would take its place.
                Err(_) => return warn!("the disk of varve.data.dir hangs: {KNOWS_LESS}"),
            };
            match written {
                Ok(()) => kept = Some(seen),
                Err(error) if !is_told => {
                    is_told = true;
                    warn!(%error, "{KNOWS_LESS}");
                }
                Err(_) => {}
            }
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Either the old line or the new one is there at any time.
fn write(data_dir: &Path, Seen { cluster, members, put_back_ms, revision }: &Seen) -> io::Result<()> {
    let (file, next) = (data_dir.join(FILE), data_dir.join(format!("{FILE}.new")));
    fs::write(&next, format!("{cluster} {members} {put_back_ms} {}\n", revision.0))?;
    fs::File::open(&next)?.sync_all()?;
    fs::rename(&next, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again_and_what_is_damaged_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()), None);
        let (cluster, members) = ("9xkPfB2nSbu0iE2ZbDXyZA".to_owned(), "cdf818194e3a8c32".to_owned());
        let seen = Seen { cluster, members, put_back_ms: 7, revision: Revision(1234) };
        write(dir.path(), &seen).unwrap();
        assert_eq!(look(dir.path()), Some(seen));
        for damaged in ["", "c cdf818194e3a8c32 7", "c cdf818194e3a8c32 7 x", "c cdf818194e3a8c32 7 8 9"] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }
}
