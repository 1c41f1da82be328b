//! Batches found in the log, not yet read.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use varve_metadata::model::Offset;

/// A run of whole batches within one segment file, readable as long as the value lives, even if the log deletes it.
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// The segment's `.log` file.
    pub file: Arc<File>,
    /// Where the run starts, in bytes.
    pub position: u64,
    /// Its length in bytes; 0 if there is nothing to read yet.
    pub len: u32,
    /// Base offset of its first batch, which may lie below the offset asked for; the offset asked for if empty.
    pub first: Offset,
    /// All offsets in it lie below this one, and the next run starts here or behind.
    pub next: Offset,
}

impl LogSlice {
    /// The bytes of the run.
    ///
    /// # Errors
    /// If the file system fails.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len as usize];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with the run's first ones.
    ///
    /// # Errors
    /// If the file system fails, or the file ends before.
    pub fn read_into(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, self.position)
    }
}
