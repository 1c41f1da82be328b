//! The file `leader-epoch-checkpoint`, written without waiting for the disk.
//!
//! An append that starts an epoch writes it, so it must be quick. What a loss of power takes from it is found again in the
//! batches: recovery reads those above the recovery point, and all of them if the file is no checkpoint.

use std::{fs, io, path::Path};

use super::{
    checkpoint::{self, CheckpointError},
    leader_epochs::{EpochCache, LEADER_EPOCH_CHECKPOINT},
};

/// Replaces the file in the partition's directory.
pub(super) fn write(dir: &Path, epochs: &EpochCache) -> io::Result<()> {
    let path = dir.join(LEADER_EPOCH_CHECKPOINT);
    let temporary = dir.join(format!("{LEADER_EPOCH_CHECKPOINT}.tmp"));
    fs::write(&temporary, epochs.render())?;
    fs::rename(temporary, path)
}

/// `None` if the file is missing or damaged: then the batches tell.
pub(super) fn read(dir: &Path) -> io::Result<Option<EpochCache>> {
    let path = dir.join(LEADER_EPOCH_CHECKPOINT);
    if !path.exists() {
        return Ok(None);
    }
    let text = match checkpoint::read(&path) {
        Ok(text) => text,
        Err(CheckpointError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
        Err(_) => return Ok(None),
    };
    Ok(EpochCache::parse(&text).ok().filter(|_| !text.is_empty()))
}
