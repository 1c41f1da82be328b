//! Writing and reading topics with kcat, for tests that look at what others make of it.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::tools;

/// A record whose key and value are text without line breaks; the key without blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextRecord {
    /// Partition that it lies in.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key; empty if it has none.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Every record of `topic` that a consumer of read_committed isolation sees: those of one partition in order.
///
/// # Errors
/// kcat fails, or a record is no such text.
pub fn read_committed(address: SocketAddr, topic: &str) -> Result<Vec<TextRecord>> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &address.to_string(), "-C", "-e", "-q", "-m", "60", "-o", "beginning", "-t", topic]);
    kcat.args(["-X", "check.crcs=true", "-X", "isolation.level=read_committed", "-f", "%p %o %k %s\n"]);
    let printed = tools::output_of(&mut kcat)?;
    let records = printed.lines().map(|line| {
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().with_context(|| format!("{topic}: {line}"));
        let (partition, offset) = (part()?.parse()?, part()?.parse()?);
        Ok(TextRecord { partition, offset, key: part()?.to_owned(), value: part()?.to_owned() })
    });
    records.collect()
}

/// Writes each line of the file `input` to `topic`; `more` are arguments of kcat beside that.
///
/// # Errors
/// kcat fails.
pub fn write_lines(address: SocketAddr, topic: &str, input: &Path, more: &[&str]) -> Result<()> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &address.to_string(), "-t", topic, "-P", "-m", "60"]).args(more).arg("-l").arg(input);
    tools::output_of(&mut kcat).map(drop)
}

/// The values of all records of `topic`, a line each: those of one partition in order.
///
/// # Errors
/// kcat fails.
pub fn read_lines(address: SocketAddr, topic: &str) -> Result<String> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &address.to_string(), "-t", topic, "-C", "-e", "-q", "-m", "60", "-o", "beginning"]);
    tools::output_of(&mut kcat)
}
