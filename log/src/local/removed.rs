//! Files that the log has let go of.

use std::{io, path::PathBuf};

use super::files;

/// Files that a log no longer uses, renamed to `.deleted`. They stay until [`purge`](Self::purge) so that a slow reader
/// that knows only their path can finish (`file.delete.delay.ms`); what a crash leaves goes at the next open.
#[derive(Debug, Default)]
#[must_use = "files stay until purged"]
pub struct RemovedFiles {
    /// The renamed files.
    pub paths: Vec<PathBuf>,
    /// Sum of the `.log` files' sizes.
    pub bytes: u64,
    /// Number of segments.
    pub segments: u32,
}

impl RemovedFiles {
    /// Deletes the files. Those that are gone already are no error.
    ///
    /// # Errors
    /// The first failure of the file system, after trying all.
    pub fn purge(self) -> io::Result<()> {
        let results: Vec<_> = self.paths.iter().map(|path| files::delete(path)).collect();
        results.into_iter().collect()
    }
}
