//! Kafka's shell tools against a node, called as an administrator types them.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{node::Node, tools};

/// A tool that has not ended by then hangs: Kafka's own limit for an answer is one minute, and a machine with much else to do is
/// slow. Seconds.
const LIMIT: &str = "600";

/// Kafka's shell tools, all told the same node.
pub struct KafkaTools {
    bootstrap: String,
}

impl KafkaTools {
    /// Tools for `node`.
    pub fn of(node: &Node) -> KafkaTools {
        KafkaTools::at(node.address)
    }

    /// Tools for whichever broker listens there.
    pub fn at(address: SocketAddr) -> KafkaTools {
        KafkaTools { bootstrap: address.to_string() }
    }

    /// Runs a command line (words are split at blanks, there is no quoting; `NODE` becomes the node's address, and
    /// without it `--bootstrap-server NODE` is appended). What it printed on standard output.
    ///
    /// # Errors
    /// It cannot start, does not end, or fails: then with everything it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        self.run_with_input(line, "")
    }

    /// As [`KafkaTools::run`], with `input` to read.
    ///
    /// # Errors
    /// As [`KafkaTools::run`].
    pub fn run_with_input(&self, line: &str, input: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.end_of(line, input)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        ensure!(status.success(), "{line} ended with {status}\n{stdout}\n{stderr}");
        Ok(stdout.into_owned())
    }

    /// Runs a command line that must fail. Everything it printed, without Java's stack traces.
    ///
    /// # Errors
    /// It cannot start, does not end, or succeeds.
    pub fn refused(&self, line: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.end_of(line, "")?;
        let printed = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        ensure!(!status.success(), "{line} succeeded:\n{printed}");
        ensure!(status.code() != Some(124), "{line} does not end:\n{printed}");
        let lines = printed.lines().filter(|line| !line.starts_with("\tat "));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The tool as a process to start, for one that runs beside others.
    ///
    /// # Errors
    /// The tool is not there.
    pub fn command(&self, line: &str) -> Result<Command> {
        let mut words = line.split_whitespace();
        let tool = tools::program(words.next().context("a tool's name")?)?;
        let mut command = Command::new("timeout");
        command.arg(LIMIT).arg(tool.get_program());
        command.args(words.map(|word| word.replace("NODE", &self.bootstrap)));
        if !line.contains("NODE") {
            command.args(["--bootstrap-server", &self.bootstrap]);
        }
        Ok(command)
    }

    fn end_of(&self, line: &str, input: &str) -> Result<Output> {
        let input_file = tempfile::NamedTempFile::new()?;
        fs::write(input_file.path(), input)?;
        let mut command = self.command(line)?;
        command.stdin(Stdio::from(fs::File::open(input_file.path())?));
        command.output().with_context(|| format!("starting {command:?}"))
    }
}

/// What `kafka-dump-log.sh` prints for each of `files` of a log directory, with `flags`.
///
/// # Errors
/// It cannot start, fails, or finds fault with a file.
pub fn dump_log(files: &[PathBuf], flags: &[&str]) -> Result<Vec<String>> {
    let (sections, told) = dump(files, flags)?;
    // Of each segment that does not begin with offset 0 it says that -1 is followed by the first one.
    let gap = told.lines().find(|line| line.contains(" is followed by ") && !line.trim_start().starts_with("-1 "));
    ensure!(gap.is_none(), "kafka-dump-log finds a gap:\n{}\n{told}", sections.concat());
    Ok(sections)
}

/// As [`dump_log`], of logs where compaction left gaps.
///
/// # Errors
/// As [`dump_log`].
pub fn dump_cleaned_log(files: &[PathBuf], flags: &[&str]) -> Result<Vec<String>> {
    Ok(dump(files, flags)?.0)
}

/// How the tool says that something is wrong with a file; it ends with success all the same.
const FAULTS: [&str; 7] = [
    "isvalid: false",
    "Mismatches in",
    "Found timestamp mismatch",
    "Found out of order timestamp",
    "indexed offsets are not found",
    "invalid bytes at the end",
    "Ignoring unknown file",
];

/// What it prints for each file, and what it told besides.
fn dump(files: &[PathBuf], flags: &[&str]) -> Result<(Vec<String>, String)> {
    let mut command = tools::program("kafka-dump-log.sh")?;
    let list: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let output = command.args(flags).arg("--files").arg(list.join(",")).output()?;
    let (printed, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?} ended with {}\n{printed}\n{told}", output.status);
    for fault in FAULTS {
        ensure!(!printed.contains(fault) && !told.contains(fault), "kafka-dump-log finds a fault:\n{printed}\n{told}");
    }
    let sections: Vec<String> = printed.split("Dumping ").skip(1).map(str::to_owned).collect();
    ensure!(sections.len() == files.len(), "{} files dumped:\n{printed}", sections.len());
    Ok((sections, told.into_owned()))
}
