//! A local directory as a bucket: what a write left behind is whole and synced, or not there.
//!
//! A write goes to `<root>/.staging/<uuid>`, is synced, then linked (create) or renamed (overwrite) into place; then the
//! directory is synced, and those above it that this process has not synced yet.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::layout::Key;

const STAGING: &str = ".staging";
/// A staged file this old has no writer any more: no upload takes so long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Directories remembered as synced; forgetting one costs a second sync.
const REMEMBERED: usize = 100_000;

#[derive(Debug)]
pub(super) struct LocalDirectory {
    root: PathBuf,
    synced: Mutex<HashSet<PathBuf>>,
}

/// A file being written, removed again unless it is put in place.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    path: PathBuf,
}

impl Staged {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Already gone after a rename; a second name to drop after a link.
        let _ = fs::remove_file(&self.path);
    }
}

impl LocalDirectory {
    pub(super) fn open(root: &Path) -> io::Result<LocalDirectory> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        fs::create_dir_all(root.join(STAGING))?;
        let directory = LocalDirectory { root, synced: Mutex::default() };
        directory.drop_abandoned()?;
        Ok(directory)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn stage(&self) -> io::Result<Staged> {
        let path = self.root.join(STAGING).join(Uuid::new_v4().to_string());
        Ok(Staged { file: File::options().write(true).create_new(true).open(&path)?, path })
    }

    /// Puts `staged` in place under `key`. With `create`, fails with [`ErrorKind::AlreadyExists`] if the key is taken.
    pub(super) fn place(&self, staged: Staged, key: &Key, create: bool) -> io::Result<()> {
        staged.file.sync_all()?;
        let target = self.root.join(key.as_str());
        let directory = target.parent().unwrap_or(&self.root).to_owned();
        let put = || {
            fs::create_dir_all(&directory)?;
            if create { fs::hard_link(&staged.path, &target) } else { fs::rename(&staged.path, &target) }
        };
        // Somebody may tidy away an empty directory between making and using it.
        match put() {
            Err(error) if error.kind() == ErrorKind::NotFound => put()?,
            outcome => outcome?,
        }
        self.sync_upwards(&directory)
    }

    fn sync_upwards(&self, directory: &Path) -> io::Result<()> {
        sync(directory)?;
        let mut above = directory;
        while above != self.root && self.remember(above) {
            above = above.parent().unwrap_or(&self.root);
            sync(above)?;
        }
        Ok(())
    }

    /// Whether the entry of `directory` in its parent is new to this process.
    fn remember(&self, directory: &Path) -> bool {
        let mut synced = self.synced.lock();
        if synced.len() >= REMEMBERED {
            synced.clear();
        }
        synced.insert(directory.to_owned())
    }

    fn drop_abandoned(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join(STAGING))? {
            let entry = entry?;
            let old = entry
                .metadata()
                .and_then(|file| file.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > ABANDONED));
            if old {
                // Another process may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
