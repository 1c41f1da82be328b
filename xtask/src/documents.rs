//! Documents name files so that a reader can follow; a file that moved must not leave its old name behind.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::root;

/// Documents by hand, and folders of them.
const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];
const FOLDERS: &[&str] = &["docs", "docs/adr", "docs/operations", "deploy/terraform", "localstack", "tests/clients"];

/// What a path in a code span begins with. Anything else in backquotes is a command, a setting or a name.
const TOP: &[&str] = &[
    "metadata",
    "log",
    "table",
    "tiering",
    "compactor",
    "broker",
    "tests",
    "bench",
    "fuzz",
    "xtask",
    "docs",
    "deploy",
    "localstack",
];

/// Made by a command, and there only after it.
const MADE: &[&str] = &["bench/results"];

/// Prints nothing and succeeds, or names every file that a document names and that is not there.
pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    for document in documents()? {
        let text = fs::read_to_string(&document).with_context(|| format!("reading {}", document.display()))?;
        let shown = document.strip_prefix(root()).unwrap_or(&document).display().to_string();
        let folder = document.parent().unwrap_or(root());
        for (number, line) in outside_fences(&text) {
            let spans = spans(line).map(|path| (path, root()));
            for (path, from) in spans.chain(links(line).map(|path| (path, folder))) {
                if !from.join(path).exists() && !MADE.iter().any(|made| path.contains(made)) {
                    faults.push(format!("{shown}:{number}: {path}"));
                }
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("documents name files that are not there:\n  {}", faults.join("\n  "));
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = DOCUMENTS.iter().map(|name| root().join(name)).collect();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder)).with_context(|| format!("reading {folder}"))? {
            found.push(entry?.path());
        }
    }
    found.retain(|path| path.extension().is_some_and(|kind| kind == "md"));
    found.sort();
    Ok(found)
}

/// Lines, with their numbers, that are not in a block of code.
fn outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().zip(1..).filter_map(move |(line, number)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((number, line))
    })
}

/// Paths from the checkout's root in code spans.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
    let top = |text: &str| text.split_once('/').is_some_and(|(top, _)| TOP.contains(&top));
    line.split('`').skip(1).step_by(2).filter(move |text| is_plain(text) && top(text))
}

/// Links to files, relative to the document.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let files = targets.map(|target| target.split_once('#').map_or(target, |(file, _)| file));
    files.filter(|file| !file.is_empty() && !file.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_that_our_documents_name_are_there() {
        run().expect("every named file exists");
        // A list that is out of date checks nothing.
        assert!(TOP.iter().all(|top| root().join(top).is_dir()));
    }

    #[test]
    fn paths_in_code_spans_and_links_are_found_and_commands_are_not() {
        let line =
            "see `log/src/lib.rs`, `cargo test`, `fuzz/targets/*`, [why](docs/adr/README.md#x) and [it](https://a/b)";
        assert_eq!(spans(line).collect::<Vec<_>>(), ["log/src/lib.rs"]);
        assert_eq!(links(line).collect::<Vec<_>>(), ["docs/adr/README.md"]);
    }

    #[test]
    fn blocks_of_code_are_left_alone() {
        let text = "a\n```text\nb\n```\nc";
        assert_eq!(outside_fences(text).collect::<Vec<_>>(), [(1, "a"), (5, "c")]);
    }
}
