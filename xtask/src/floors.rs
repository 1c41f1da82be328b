//! Guards the floors of the house: an import that points up fails the build.
//!
//! Two checks: between crates (from Cargo's own metadata), and between the rooms of one crate, where pure rooms may
//! not reach for IO.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root};

/// Crates from the lowest floor up: each may depend only on those before it.
const CRATES: &[&str] = &[
    "varve-metadata",
    "varve-log",
    "varve-replication",
    "varve-table",
    "varve-tiering",
    "varve-compactor",
    "varve-broker",
];

/// Crates that may see everything and that nothing but tests sees.
const ROOF: &[&str] = &["varve-simulation", "varve-tests", "varve-bench", "varve-fuzz", "varve-xtask"];

/// Rooms that decide and do no IO, and the words that must not appear in them outside tests.
const PURE_ROOMS: &[(&str, &[&str])] = &[
    ("metadata/src/model", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now", "redb"]),
    ("metadata/src/config", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now", "redb"]),
    ("metadata/src/image", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now", "redb"]),
    ("metadata/src/snapshot", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now", "redb"]),
    ("metadata/src/controller", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now", "redb"]),
    ("log/src/format", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now"]),
    ("log/src/local", &["tokio", "async fn"]),
    ("replication/src", &["std::fs", "tokio", "async fn", "SystemTime::now", "Instant::now"]),
    ("table/src", &["std::fs", "tokio", "async fn", "object_store", "SystemTime::now", "Instant::now"]),
    ("tiering/src/layout", &["std::fs", "tokio", "async fn", "object_store", "SystemTime::now", "Instant::now"]),
    ("tiering/src/manifest", &["std::fs", "tokio", "async fn", "object_store", "SystemTime::now", "Instant::now"]),
    ("tiering/src/raw", &["std::fs", "tokio", "async fn", "object_store", "SystemTime::now", "Instant::now"]),
    ("tiering/src/plan", &["std::fs", "tokio", "async fn", "object_store", "SystemTime::now", "Instant::now"]),
    ("compactor/src/plan", &["std::fs", "tokio", "async fn", "object_store", "SystemTime::now", "Instant::now"]),
    ("broker/src/coordinator", &["std::fs", "tokio", "async fn", "crate::server", "SystemTime::now", "Instant::now"]),
    ("broker/src/wire", &["std::fs", "tokio::net", "crate::server", "crate::partition", "SystemTime::now"]),
];

/// Prints nothing and succeeds, or names every import that points up.
pub(crate) fn run() -> Result<()> {
    let mut faults = upward_crates(&dependencies()?);
    for (room, banned) in PURE_ROOMS {
        for file in sources_of(&root().join(room))? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            faults.extend(banned_words(&text, banned).map(|(line, word)| {
                format!("{shown}:{line}: `{word}` in a pure room: pass what it needs as an argument")
            }));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("the house's floors are crossed:\n  {}", faults.join("\n  "));
}

/// Our crates and what each one's normal dependencies are, by name.
fn dependencies() -> Result<BTreeMap<String, Vec<String>>> {
    let output = cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    Ok(packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"].as_array().into_iter().flatten().filter(|one| one["kind"].is_null());
            (text(&package["name"]), normal.map(|one| text(&one["name"])).collect())
        })
        .collect())
}

/// One line for every dependency that points up.
fn upward_crates(dependencies: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let floor = |name: &str| CRATES.iter().position(|known| *known == name);
    let mut faults = Vec::new();
    for (name, needs) in dependencies {
        match floor(name) {
            None if ROOF.contains(&name.as_str()) => {}
            None => faults.push(format!("{name} has no floor: give it one in xtask/src/floors.rs")),
            Some(own) => {
                for need in needs {
                    let up = floor(need).is_some_and(|theirs| theirs >= own) || ROOF.contains(&need.as_str());
                    if up {
                        faults.push(format!("{name} depends on {need}, which stands above it"));
                    }
                }
            }
        }
    }
    faults
}

/// Line number and word of every banned word before the file's tests; comments do not count.
fn banned_words<'a>(text: &'a str, banned: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    let code = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    code.filter(|(_, line)| !line.trim_start().starts_with("//")).flat_map(move |(number, line)| {
        banned.iter().filter(move |word| names(line, word)).map(move |word| (number + 1, *word))
    })
}

/// Whether `line` has `word`, also as a member of a group: `use std::{fs::File, io}` names `std::fs`.
fn names(line: &str, word: &str) -> bool {
    let in_group = |(parent, child): (&str, &str)| {
        let group = line.trim_start().strip_prefix("use ")?.strip_prefix(parent)?.strip_prefix("::{")?;
        group.split([',', '{', '}', ';']).find(|member| member.trim().split("::").next() == Some(child))
    };
    line.contains(word) || word.rsplit_once("::").and_then(in_group).is_some()
}

/// The Rust files of a room, which is a folder or, while it is small, one file.
fn sources_of(room: &Path) -> Result<Vec<PathBuf>> {
    let file = room.with_extension("rs");
    let mut found: Vec<PathBuf> = file.is_file().then_some(file).into_iter().collect();
    let mut folders: Vec<PathBuf> = room.is_dir().then(|| room.to_owned()).into_iter().collect();
    if found.is_empty() && folders.is_empty() {
        bail!("{} does not exist: mend the list of rooms in xtask/src/floors.rs", room.display());
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !is_test {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(edges: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        edges
            .iter()
            .map(|(name, needs)| (name.to_string(), needs.iter().map(|need| need.to_string()).collect()))
            .collect()
    }

    #[test]
    fn an_import_that_points_up_is_named() {
        let faults = upward_crates(&house(&[("varve-log", &["varve-metadata", "varve-tiering"])]));
        assert_eq!(faults, ["varve-log depends on varve-tiering, which stands above it"]);
    }

    #[test]
    fn imports_that_point_down_pass() {
        assert!(upward_crates(&house(&[("varve-broker", CRATES.split_last().expect("crates").1)])).is_empty());
    }

    #[test]
    fn a_crate_without_a_floor_is_named() {
        assert_eq!(upward_crates(&house(&[("varve-common", &[])])).len(), 1);
    }

    #[test]
    fn a_group_of_imports_names_its_members() {
        let names_fs = |line: &str| banned_words(line, &["std::fs"]).count() == 1;
        assert!(names_fs("use std::{fs::File, io};") && names_fs("use std::{io, fs};") && names_fs("use std::fs;"));
        assert!(!names_fs("use std::{io, os::unix::fs::FileExt};"));
    }

    #[test]
    fn a_pure_room_may_use_io_in_its_tests_only() {
        let text = "use std::fs;\n// std::fs\n#[cfg(test)]\nmod tests { use std::fs; }";
        assert_eq!(banned_words(text, &["std::fs"]).collect::<Vec<_>>(), [(1, "std::fs")]);
    }
}
