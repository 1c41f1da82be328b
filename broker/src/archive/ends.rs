//! Where the archive of each partition ends, as far as this node knows, on its own disk and apart from the logs: when the
//! bucket is away at a start, it tells a log that lost its end, or was put back, from one that can go on.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tracing::warn;
use varve_log::local::checkpoint::{self, CheckpointError};
use varve_metadata::model::{Offset, PartitionId, PartitionIndex};

const NAME: &str = "archive-end-checkpoint";

/// The ends that the checkpoint has: `topic-id partition offset` in each line.
#[derive(Debug)]
pub(super) struct ArchiveEnds {
    path: PathBuf,
    saved: Mutex<BTreeMap<PartitionId, Offset>>,
}

impl ArchiveEnds {
    /// What the node before left in `directory`. A file that cannot be read says nothing.
    pub(super) fn open(directory: &Path) -> ArchiveEnds {
        let path = directory.join(NAME);
        let read = checkpoint::read(&path).and_then(|text| checkpoint::parse(&text, parse));
        let saved = read.unwrap_or_else(|error| {
            warn!(path = %path.display(), %error, "nothing is known here of where archives end");
            Vec::new()
        });
        ArchiveEnds { path, saved: Mutex::new(saved.into_iter().collect()) }
    }

    /// The archive of partition `id` ended here, or later.
    pub(super) fn of(&self, id: PartitionId) -> Offset {
        self.saved.lock().get(&id).copied().unwrap_or_default()
    }

    /// Writes down what became known since; does nothing if that is nothing. Who `is_gone` is left out.
    ///
    /// # Errors
    /// [`CheckpointError`]; the file then has its old text or the new one.
    pub(super) fn save(
        &self,
        known: impl IntoIterator<Item = (PartitionId, Offset)>,
        is_gone: impl Fn(PartitionId) -> bool,
    ) -> Result<(), CheckpointError> {
        let mut saved = self.saved.lock();
        let mut next = saved.clone();
        next.extend(known);
        next.retain(|id, end| *end > Offset::ZERO && !is_gone(*id));
        if *saved == next {
            return Ok(());
        }
        let lines = next.iter().map(|(id, end)| format!("{} {} {end}", id.topic, id.index));
        checkpoint::replace(&self.path, &checkpoint::render(lines)).map_err(|error| with_path(error, &self.path))?;
        *saved = next;
        Ok(())
    }
}

fn with_path(error: CheckpointError, path: &Path) -> CheckpointError {
    match error {
        CheckpointError::Io(error) => io::Error::new(error.kind(), format!("{}: {error}", path.display())).into(),
        malformed @ CheckpointError::Malformed(_) => malformed,
    }
}

fn parse(line: &str) -> Option<(PartitionId, Offset)> {
    let mut words = line.split(' ');
    let topic = words.next()?.parse().ok()?;
    let index = PartitionIndex(words.next()?.parse().ok()?);
    let end = Offset::new(words.next()?.parse().ok()?)?;
    words.next().is_none().then_some((PartitionId { topic, index }, end))
}

#[cfg(test)]
mod tests {
    use varve_metadata::model::TopicId;

    use super::*;

    #[test]
    fn what_is_known_outlives_the_node_and_what_is_gone_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let topic: TopicId = "AAAAAAAAAAAAAAAAAAAABQ".parse().unwrap();
        let id = |index| PartitionId { topic, index: PartitionIndex(index) };
        let at = |offset| Offset::new(offset).unwrap();
        let ends = ArchiveEnds::open(directory.path());
        assert_eq!(ends.of(id(0)), Offset::ZERO);
        ends.save([(id(0), at(70)), (id(1), at(5)), (id(2), at(0))], |_| false).unwrap();
        let ends = ArchiveEnds::open(directory.path());
        assert_eq!([ends.of(id(0)), ends.of(id(1)), ends.of(id(2))], [at(70), at(5), at(0)]);
        ends.save([(id(1), at(9))], |gone| gone == id(0)).unwrap();
        let ends = ArchiveEnds::open(directory.path());
        assert_eq!([ends.of(id(0)), ends.of(id(1))], [at(0), at(9)]);
        std::fs::write(directory.path().join(NAME), "0\n1\nx 0 7\n").unwrap();
        assert_eq!(ArchiveEnds::open(directory.path()).of(id(1)), Offset::ZERO);
    }
}
