//! The disks of a broker: two file systems in memory, a log directory on each, and on the first one what is the broker's own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{history::Place, tools::output_of};

/// What a broker is told of them, from the folder in which it starts.
pub(super) const SETTINGS: [&str; 2] = ["log.dirs=one/logs,two/logs", "varve.data.dir=one/data"];

/// Both disks of one broker.
pub(super) struct Disks([Disk; 2]);

impl Disks {
    /// In the broker's folder, `mib` large each.
    pub(super) fn mount(folder: &Path, mib: u32) -> Result<Disks> {
        let [one, two] = ["one", "two"].map(|name| Disk::mount(folder.join(name), mib));
        Ok(Disks([one?, two?]))
    }

    /// The disk with the log of a partition, and the other one.
    pub(super) fn of(&self, place: &Place) -> Result<(&Disk, &Disk)> {
        let Disks([one, two]) = self;
        let log = format!("{}-{}", place.topic, place.partition);
        match (one.logs().join(&log).is_dir(), two.logs().join(&log).is_dir()) {
            (true, _) => Ok((one, two)),
            (_, true) => Ok((two, one)),
            _ => anyhow::bail!("there is no log of {place}"),
        }
    }

    /// The partitions that have a log on either.
    pub(super) fn held(&self) -> Result<Vec<Place>> {
        let Disks([one, two]) = self;
        Ok([one.held()?, two.held()?].concat())
    }

    /// All that was on them is gone. The broker does not run.
    pub(super) fn replace(&self) -> Result<()> {
        for disk in &self.0 {
            for entry in fs::read_dir(&disk.0)? {
                fs::remove_dir_all(entry?.path())?;
            }
        }
        Ok(())
    }

    /// Whoever writes down what the next life of the broker is told waits, until [`Hanging::end`].
    pub(super) fn hang(&self) -> Result<Hanging> {
        let note = self.0[0].0.join("data/last-life");
        let kept = note.with_extension("kept");
        fs::rename(&note, &kept).context("what a life tells the next one")?;
        output_of(Command::new("mkfifo").arg(&note))?;
        Ok(Hanging { note, kept })
    }
}

/// A data directory of which a file takes nothing and refuses nothing.
pub(super) struct Hanging {
    note: PathBuf,
    kept: PathBuf,
}

impl Hanging {
    /// It is as before. The broker does not run.
    pub(super) fn end(self) -> Result<()> {
        Ok(fs::rename(self.kept, self.note)?)
    }
}

/// A file system in memory.
pub(super) struct Disk(PathBuf);

impl Disk {
    fn mount(place: PathBuf, mib: u32) -> Result<Disk> {
        fs::create_dir_all(&place)?;
        output_of(
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "varve-test"]).arg(&place),
        )?;
        Ok(Disk(place))
    }

    fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The partitions that have a log here.
    pub(super) fn held(&self) -> Result<Vec<Place>> {
        let mut held = Vec::new();
        for entry in fs::read_dir(self.logs())? {
            let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let name = name.to_string_lossy();
            // Those that are about to be deleted, or not whole yet, end in something else.
            let found = name.rsplit_once('-').and_then(|(topic, index)| Some((topic.to_owned(), index.parse().ok()?)));
            if let Some((topic, partition)) = found.filter(|_| entry.is_dir()) {
                held.push(Place { topic, partition });
            }
        }
        Ok(held)
    }

    /// The log directory fails as on a disk that is gone while files on it are open: something that is no directory has taken its
    /// place, which shows with the next file that is to be made there.
    pub(super) fn fail(&self) -> Result<()> {
        let logs = self.logs();
        fs::rename(&logs, logs.with_extension("lost"))?;
        Ok(fs::write(logs, "")?)
    }

    /// The log directory is there again, with what it had.
    pub(super) fn come_back(&self) -> Result<()> {
        let logs = self.logs();
        fs::remove_file(&logs)?;
        Ok(fs::rename(logs.with_extension("lost"), &logs)?)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all room that is left.
    pub(super) fn fill(&self) -> Result<()> {
        let mut ballast = fs::File::create(self.ballast())?;
        let filled = io::copy(&mut io::repeat(1), &mut ballast);
        ensure!(filled.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull), "the disk is full");
        Ok(())
    }

    /// Gives it back.
    pub(super) fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
