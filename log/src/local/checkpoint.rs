//! Kafka's checkpoint files: a version, a count, then one entry per line; replaced as a whole, never changed in place.
//!
//! ```text
//! 0              version
//! 2              entries
//! web-clicks 0 4711
//! web-clicks 1 12
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// The only version of any checkpoint.
const VERSION: &str = "0";

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error("checkpoint file")]
    Io(#[from] io::Error),
    /// Another version, another number of lines than stated, or a line that is no entry.
    #[error("checkpoint is malformed: {0}")]
    Malformed(&'static str),
}

impl CheckpointError {
    pub(super) fn into_io(self) -> io::Error {
        match self {
            CheckpointError::Io(error) => error,
            malformed @ CheckpointError::Malformed(_) => io::Error::new(io::ErrorKind::InvalidData, malformed),
        }
    }
}

/// The text of a checkpoint with these lines.
pub fn render(lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<String> = lines.into_iter().collect();
    let mut text = format!("{VERSION}\n{}\n", lines.len());
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The entries of a checkpoint, each parsed by `entry` out of its line. An empty text has none: Kafka creates the file
/// before it has something to say.
///
/// # Errors
/// [`CheckpointError::Malformed`] if version, count or a line is not as it should be.
pub fn parse<T>(text: &str, mut entry: impl FnMut(&str) -> Option<T>) -> Result<Vec<T>, CheckpointError> {
    let mut lines = text.lines();
    let Some(version) = lines.next() else { return Ok(Vec::new()) };
    if version != VERSION {
        return Err(CheckpointError::Malformed("unknown version"));
    }
    let Some(count) = lines.next() else { return Ok(Vec::new()) };
    let count: usize = count.parse().map_err(|_| CheckpointError::Malformed("count is no number"))?;
    let entries = lines
        .map(|line| entry(line).ok_or(CheckpointError::Malformed("a line is no entry")))
        .collect::<Result<Vec<T>, _>>()?;
    if entries.len() == count { Ok(entries) } else { Err(CheckpointError::Malformed("another count than stated")) }
}

/// The text of the file at `path`; empty if there is none.
///
/// # Errors
/// [`CheckpointError::Io`], also for bytes that are no text.
pub fn read(path: &Path) -> Result<String, CheckpointError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => Ok(read?),
    }
}

/// Replaces the file at `path`: after a crash it holds the old text or the new one, on disk before this returns.
///
/// # Errors
/// [`CheckpointError::Io`]; the old text then stays.
pub fn replace(path: &Path, text: &str) -> Result<(), CheckpointError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        // The rename itself must survive a loss of power.
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<String> {
        (!line.is_empty()).then(|| line.to_owned())
    }

    #[test]
    fn a_checkpoint_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        assert_eq!(read(&path).unwrap(), "");
        let text = render(["a 1".to_owned(), "b 2".to_owned()]);
        assert_eq!(text, "0\n2\na 1\nb 2\n");
        replace(&path, &text).unwrap();
        replace(&path, &text).unwrap();
        assert_eq!(parse(&read(&path).unwrap(), words).unwrap(), ["a 1", "b 2"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        assert!(parse("", words).unwrap().is_empty());
        assert!(parse("0\n", words).unwrap().is_empty());
        for text in ["1\n0\n", "0\n2\na\n", "0\nx\n", "0\n1\n\n", "0\n0\na\n", "0\n99999999999999999999\n"] {
            assert!(matches!(parse(text, words), Err(CheckpointError::Malformed(_))), "{text:?}");
        }
    }
}
