//! What one life of this node tells the next one: whether the disk still has all that the node ever acknowledged.
//!
//! ```text
//! start ─► whole? ── yes ─► directories are opened ─► boot id ─► joined ───────────┬─► closed in order ─► "closed"
//!             │                                                                    │
//!             └── no ─► "unknown" ─► directories are opened ─► joined ─► boot id ──┴─► a directory failed ─► "unknown"
//! ```
//! That a directory failed is written as soon as it has, while the others go on: nobody can say what it lost, and a life that ends
//! before others know of that must not look whole.
//! A life that others have not heard of yet must not make the next one look whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

/// It closed its logs: all that they held is on disk.
const CLOSED: &str = "closed";
/// Nobody vouches for the records.
const UNKNOWN: &str = "unknown";
/// Changes with every start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// A disk that takes longer for a few bytes has failed.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// The file, and what the last life left in it.
#[derive(Clone, Debug)]
pub(super) struct LastLife {
    file: PathBuf,
    may_have_lost_records: bool,
}

impl LastLife {
    /// Looks whether records that this node had may be gone: a machine went down without forcing them to disk, a directory
    /// is new. To be called before any directory is opened: from then on all of them look known.
    pub(super) fn look(data_dir: &Path, log_dirs: &[PathBuf]) -> io::Result<LastLife> {
        let file = file(data_dir);
        let left = fs::read_to_string(&file).unwrap_or_default();
        let is_whole = left.trim() == CLOSED || boot_id().is_some_and(|boot| left.trim() == boot);
        let is_known = |dir: &PathBuf| dir.join("meta.properties").is_file();
        let life = LastLife { file, may_have_lost_records: !is_whole || !log_dirs.iter().all(is_known) };
        if life.may_have_lost_records {
            life.write(UNKNOWN)?;
        }
        Ok(life)
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn may_have_lost_records(&self) -> bool {
        self.may_have_lost_records
    }

    /// The directories are ours, and about to be written to: from now on a restart of the machine may lose records.
    pub(super) fn opened(&self) -> io::Result<()> {
        match self.may_have_lost_records {
            true => Ok(()),
            false => self.vouch(),
        }
    }

    /// Others know what may be lost, and see to it.
    pub(super) fn joined(&self) -> io::Result<()> {
        self.vouch()
    }

    /// Whoever comes next in this run of the machine finds all that this life wrote.
    fn vouch(&self) -> io::Result<()> {
        self.write(&boot_id().unwrap_or_else(|| UNKNOWN.to_owned()))
    }

    /// The logs were closed, and all that they held is on disk.
    pub(super) fn closed(&self) -> io::Result<()> {
        self.write(CLOSED)
    }

    /// A directory failed, or a log could not be closed: what was in the page cache may have gone with it.
    pub(super) fn failed(&self) -> io::Result<()> {
        self.write(UNKNOWN)
    }

    /// Writes one of the above, from where nobody may wait for a disk that hangs.
    ///
    /// # Errors
    /// Those of `write`, and [`io::ErrorKind::TimedOut`]: it may be written later.
    pub(super) async fn in_time(&self, write: fn(&LastLife) -> io::Result<()>) -> io::Result<()> {
        let life = self.clone();
        match timeout(WRITE_LIMIT, spawn_blocking(move || write(&life))).await {
            Ok(written) => written.unwrap_or_else(|panic| Err(io::Error::other(panic))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// On the disk before this returns: it must not say of a later life what was true of this one.
    fn write(&self, text: &str) -> io::Result<()> {
        if let Some(parent) = self.file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&self.file, format!("{text}\n"))?;
        fs::File::open(&self.file)?.sync_all()
    }
}

/// Where it lies.
pub(super) fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("last-life")
}

fn boot_id() -> Option<String> {
    Some(fs::read_to_string(BOOT_ID).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk(tempfile::TempDir);

    impl Disk {
        /// One that a life before closed in order.
        fn closed() -> Disk {
            let disk = Disk(tempfile::tempdir().unwrap());
            disk.open_logs();
            disk.left(CLOSED);
            disk
        }

        fn look(&self) -> LastLife {
            LastLife::look(self.0.path(), &[self.0.path().join("logs")]).unwrap()
        }

        /// As far as a start comes that fails before others know of it.
        fn start(&self) -> LastLife {
            let life = self.look();
            self.open_logs();
            life.opened().unwrap();
            life
        }

        fn open_logs(&self) {
            fs::create_dir_all(self.0.path().join("logs")).unwrap();
            fs::write(self.0.path().join("logs/meta.properties"), "").unwrap();
        }

        fn left(&self, text: &str) {
            fs::write(file(self.0.path()), text).unwrap();
        }
    }

    #[test]
    fn who_closed_its_logs_or_was_only_killed_has_all_records() {
        let disk = Disk::closed();
        assert!(!disk.start().may_have_lost_records());
        assert!(!disk.start().may_have_lost_records(), "the first one was killed");
        disk.start().closed().unwrap();
        assert!(!disk.start().may_have_lost_records());
    }

    #[test]
    fn a_crash_of_the_machine_is_told_however_often_a_start_fails_before_others_know() {
        let disk = Disk::closed();
        disk.left("a boot before this one");
        for start in 0..3 {
            assert!(disk.start().may_have_lost_records(), "start {start}");
        }
        disk.start().joined().unwrap();
        assert!(!disk.start().may_have_lost_records(), "others know, and copy it what it lost");
    }

    #[test]
    fn a_directory_that_failed_is_not_whole_after_a_restart() {
        let disk = Disk::closed();
        let life = disk.start();
        life.joined().unwrap();
        life.failed().unwrap();
        assert!(disk.start().may_have_lost_records());
    }

    #[test]
    fn a_new_disk_is_new_until_others_know() {
        let disk = Disk(tempfile::tempdir().unwrap());
        for start in 0..3 {
            assert!(disk.start().may_have_lost_records(), "start {start}");
        }
        disk.start().joined().unwrap();
        assert!(!disk.start().may_have_lost_records());
        fs::remove_dir_all(disk.0.path().join("logs")).unwrap();
        assert!(disk.start().may_have_lost_records());
    }

    #[test]
    fn what_was_closed_is_not_closed_any_more_once_logs_are_open() {
        let disk = Disk::closed();
        disk.start();
        assert_ne!(fs::read_to_string(file(disk.0.path())).unwrap().trim(), CLOSED);
    }
}
