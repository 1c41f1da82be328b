//! `varve.data.dir` is one node's alone: what lies there beside logs tells of that node's disks, and a second node that wrote it
//! too would make a lost disk look whole, or an archive end elsewhere.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
};

use rustix::fs::FlockOperation::NonBlockingLockExclusive;

use super::StartError;

/// Not the `.lock` of a log directory: both may be the same directory.
const LOCK: &str = "node.lock";

/// The directory, for as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Takes the directory for this process; it is made if it is missing.
    ///
    /// # Errors
    /// [`StartError::DataDir`] if another process has it, [`StartError::File`] if it cannot be written to.
    pub(super) fn take(dir: &Path) -> Result<DataDir, StartError> {
        let path = dir.join(LOCK);
        let failed = |source| StartError::File { file: path.display().to_string(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match rustix::fs::flock(&lock, NonBlockingLockExclusive) {
            Ok(()) => Ok(DataDir { _lock: lock }),
            Err(rustix::io::Errno::AGAIN) => Err(StartError::DataDir { dir: dir.display().to_string() }),
            Err(error) => Err(failed(io::Error::from(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once_and_free_again_afterwards() {
        let at = tempfile::tempdir().unwrap();
        let dir = at.path().join("data");
        let taken = DataDir::take(&dir).unwrap();
        assert!(matches!(DataDir::take(&dir), Err(StartError::DataDir { .. })));
        drop(taken);
        assert!(DataDir::take(&dir).is_ok());
    }
}
