//! Names of a segment's files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use varve_metadata::model::Offset;

/// The record batches.
pub(super) const LOG: &str = "log";
/// The offset index.
pub(super) const OFFSET_INDEX: &str = "index";
/// The time index.
pub(super) const TIME_INDEX: &str = "timeindex";
/// The aborted transactions.
pub(super) const TXN_INDEX: &str = "txnindex";
/// Producer state at the base offset that the name says.
pub(super) const SNAPSHOT: &str = "snapshot";
/// What a removed file's name ends in until it is deleted.
pub(super) const DELETED: &str = "deleted";
/// What the files of a cleaned segment end in until they are complete.
pub(super) const CLEANED: &str = "cleaned";
/// What the files of a complete cleaned segment end in until those that it replaces are gone.
pub(super) const SWAP: &str = "swap";

/// Where the files of the segment that starts at `base` are: `<20 digits>.<suffix>` in the partition's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentFiles {
    dir: Arc<Path>,
    base: Offset,
    tail: Option<&'static str>,
}

impl SegmentFiles {
    pub(super) const fn new(dir: Arc<Path>, base: Offset) -> SegmentFiles {
        SegmentFiles { dir, base, tail: None }
    }

    pub(super) const fn base(&self) -> Offset {
        self.base
    }

    pub(super) fn path(&self, suffix: &str) -> PathBuf {
        let tail = self.tail.map_or(String::new(), |tail| format!(".{tail}"));
        self.dir.join(format!("{:020}.{suffix}{tail}", self.base.get()))
    }

    /// The files of the same segment whose names go on with `tail`: [`CLEANED`] or [`SWAP`].
    pub(super) fn with_tail(&self, tail: &'static str) -> SegmentFiles {
        SegmentFiles { tail: Some(tail), ..self.clone() }
    }

    /// Renames what exists of the segment to `.deleted` and returns the new names.
    pub(super) fn mark_deleted(&self) -> io::Result<Vec<PathBuf>> {
        let mut renamed = Vec::new();
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX] {
            renamed.extend(mark_deleted(&self.path(suffix))?);
        }
        Ok(renamed)
    }

    /// Deletes what exists of the segment.
    pub(super) fn delete(&self) -> io::Result<()> {
        [LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX].into_iter().try_for_each(|suffix| delete(&self.path(suffix)))
    }
}

/// Base offset and suffix of a segment's file name; `None` for other files.
pub(super) fn parse_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    let well_formed = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let base = digits.parse().ok().filter(|_| well_formed).and_then(Offset::new)?;
    Some((base, suffix))
}

/// Renames `path` to `path.deleted`; `None` if there is no such file.
pub(super) fn mark_deleted(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut renamed = path.as_os_str().to_owned();
    renamed.push(".");
    renamed.push(DELETED);
    match fs::rename(path, &renamed) {
        Ok(()) => Ok(Some(renamed.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes `path`, which may be gone already.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kafka() {
        let base = Offset::new(4711).unwrap();
        let files = SegmentFiles::new(Path::new("/d").into(), base);
        assert_eq!(files.path(LOG), Path::new("/d/00000000000000004711.log"));
        assert_eq!(parse_name("00000000000000004711.log"), Some((base, LOG)));
        assert_eq!(parse_name("00000000000000004711.log.deleted"), Some((base, "log.deleted")));
        assert_eq!(parse_name("leader-epoch-checkpoint"), None);
        assert_eq!(parse_name("99999999999999999999.log"), None);
        assert_eq!(parse_name("+0000000000000004711.log"), None);
    }
}
