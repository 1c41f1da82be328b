//! Records as the test clients read and write them: one JSON object a line (tests/clients/README.md).

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::tools::checkout;

/// One record, with key, value and header values in base64 as in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRecord {
    /// Base64, or null.
    pub key: Value,
    /// Base64, or null.
    pub value: Value,
    /// `[name, base64 or null]` in order.
    pub headers: Value,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

/// The lines of real system logs, by file, in `$VARVE_LOG_SAMPLES`, else in `../shared/data/loghub` beside the checkout,
/// else (said on standard error) lines made up here.
///
/// # Errors
/// The folder has no logs.
pub fn log_files() -> Result<Vec<(String, Vec<Vec<u8>>)>> {
    let given = std::env::var_os("VARVE_LOG_SAMPLES").map(PathBuf::from);
    let folder = given.or_else(|| Some(checkout().join("../shared/data/loghub")).filter(|folder| folder.is_dir()));
    let mut files: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    match folder {
        Some(folder) => {
            let mut paths: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
            paths.retain(|path| path.extension().is_some_and(|kind| kind == "log"));
            paths.sort();
            ensure!(!paths.is_empty(), "{} has no *.log files", folder.display());
            for path in paths {
                let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()));
            }
        }
        None => {
            eprintln!("no log samples beside the checkout: using made-up lines (set VARVE_LOG_SAMPLES to a folder)");
            for source in ["web", "auth", "storage", "kernel"] {
                let line = |n: usize| {
                    format!(
                        "Nov 22 10:{:02}:{:02} host-{} {source}[{n}]: event {}",
                        n / 60 % 60,
                        n % 60,
                        n % 7,
                        n * 7919
                    )
                };
                files.push((source.to_owned(), (0..2_000).map(|n| line(n).into_bytes()).collect()));
            }
        }
    }
    Ok(files)
}

/// What the archive is made of: the lines of [`log_files`], keyed by file, with headers.
///
/// # Errors
/// As [`log_files`].
pub fn log_records() -> Result<Vec<TestRecord>> {
    let mut records = Vec::new();
    for (source, lines) in log_files()? {
        for (number, line) in lines.iter().enumerate() {
            let level = ["ERROR", "WARN", "INFO", "DEBUG"]
                .into_iter()
                .find(|level| line.windows(level.len()).any(|part| part.eq_ignore_ascii_case(level.as_bytes())))
                .unwrap_or("NONE");
            let host = format!("host-{}", number % 13);
            let header = |name: &str, value: &str| json!([name, base64(value.as_bytes())]);
            records.push(TestRecord {
                key: json!(base64(source.as_bytes())),
                // An empty line is an empty value, and every 500th record a null one.
                value: if number % 500 == 499 { Value::Null } else { json!(base64(line)) },
                headers: json!([header("host", &host), header("level", level), header("source", &source)]),
                timestamp: 1_760_000_000_000 + records.len() as i64 * 10,
            });
        }
    }
    Ok(records)
}

/// Writes `records` where a test client reads them.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, records: &[TestRecord]) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for TestRecord { key, value, headers, timestamp } in records {
        writeln!(file, "{}", json!({"key": key, "value": value, "headers": headers, "timestamp": timestamp}))?;
    }
    Ok(file.flush()?)
}

/// Reads what a test client consumed: the records of each key in the order in which their partition has them.
///
/// # Errors
/// The file cannot be read, an offset comes twice, or records of one partition are out of order.
pub fn read_by_key(path: &Path) -> Result<BTreeMap<String, Vec<TestRecord>>> {
    let mut by_key: BTreeMap<String, Vec<TestRecord>> = BTreeMap::new();
    let mut last_offsets: BTreeMap<i64, i64> = BTreeMap::new();
    for line in BufReader::new(fs::File::open(path)?).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        let number = |name: &str| line[name].as_i64().with_context(|| format!("{name} in {line}"));
        let (partition, offset) = (number("partition")?, number("offset")?);
        if let Some(last) = last_offsets.insert(partition, offset) {
            ensure!(offset > last, "partition {partition}: offset {offset} after {last}");
        }
        by_key.entry(line["key"].to_string()).or_default().push(TestRecord {
            key: line["key"].clone(),
            value: line["value"].clone(),
            headers: line["headers"].clone(),
            timestamp: number("timestamp")?,
        });
    }
    Ok(by_key)
}

/// The records of each key in order.
pub fn by_key(records: &[TestRecord]) -> BTreeMap<String, Vec<TestRecord>> {
    let mut by_key: BTreeMap<String, Vec<TestRecord>> = BTreeMap::new();
    for record in records {
        by_key.entry(record.key.to_string()).or_default().push(record.clone());
    }
    by_key
}

/// Standard base64 with padding.
pub fn base64(data: &[u8]) -> String {
    base64::prelude::BASE64_STANDARD.encode(data)
}
