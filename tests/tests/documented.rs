//! Commands and questions of docs/archive.md and about configuration files, as they stand there.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use varve_metadata::config::Codec;
use varve_tests::{
    asked::Asked,
    client::Client,
    lines::Lines,
    node::{Node, binary, eventually, varve},
    tools,
};

/// What stands in the page's blocks of that language.
fn blocks(page: &str, language: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(tools::checkout().join(page))?;
    let pieces = text.split("```").skip(1).step_by(2);
    Ok(pieces.filter_map(|piece| Some(piece.strip_prefix(language)?.strip_prefix('\n')?.to_owned())).collect())
}

/// Runs lines of a shell in `folder`, with `varve` in its path.
fn shell(folder: &Path, lines: &str) -> Result<Output> {
    let binary = binary()?;
    let bin = binary.parent().context("a folder")?.display();
    // The variables that say where this test finds its tools are no settings of the node.
    let script = format!("set -eu\nunset ${{!VARVE_*}}\nPATH={bin}:$PATH\n{lines}");
    Ok(Command::new("bash").arg("-c").arg(script).current_dir(folder).output()?)
}

fn succeeds(folder: &Path, lines: &str) -> Result<String> {
    let Output { status, stdout, stderr } = shell(folder, lines)?;
    ensure!(status.success(), "{lines}{status}\n{}", String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// What DuckDB answers to the statements of a block.
fn duckdb(folder: &Path, block: &str) -> Result<String> {
    let mut python = Command::new(tools::folder()?.join("venv/bin/python"));
    python.args(["-c", "import sys, duckdb\nprint(duckdb.sql(sys.argv[1]))", block]).current_dir(folder);
    tools::output_of(&mut python)
}

#[test]
fn the_page_about_the_archive_is_true_from_the_first_question_to_the_loss_of_every_disk() -> Result<()> {
    const PAGE: &str = "docs/archive.md";
    let folder = tempfile::tempdir()?;
    let settings = [
        "log.retention.check.interval.ms=100",
        "varve.compactor.interval.ms=100",
        "varve.backup.lag.ms=300",
        "varve.archive.grace.ms=3600000",
    ];
    let node = Node::start(folder.path(), &settings)?;
    let mut client = Client::connect(node.address)?;
    let configs = [("varve.archive.lag.ms", "300"), ("local.retention.ms", "1"), ("retention.ms", "-1")];
    client.create_topic("app-logs", 1, &[&configs[..], &[("file.delete.delay.ms", "0")]].concat())?;
    let batches = Lines::load(None)?.batches(Codec::Zstd, 64 << 10, 256 << 10)?;
    for batch in batches {
        client.produce("app-logs", 0, batch)?;
    }
    let records = Asked::of(folder.path()).only_parquet_is_left(&node, "app-logs", 1)?.to_string();
    eventually("the copy of the state knows the topic", || {
        // Without a copy there is nothing to tell, and one may be deleted while it is read.
        let told = Asked::of(folder.path()).ask(&["restore", "--dry-run"]).unwrap_or_default();
        Ok(told.iter().any(|line| line["topic"] == "app-logs" && line["outcome"] == "restored").then_some(()))
    })?;
    drop(client);
    // Nothing is rewritten between the list of the files and the question to them.
    node.kill();

    let (commands, questions) = (blocks(PAGE, "sh")?, blocks(PAGE, "sql")?);
    ensure!((commands.len(), questions.len()) == (2, 2), "blocks of {PAGE} changed: {commands:?} {questions:?}");
    duckdb(folder.path(), &questions[0])?;
    succeeds(folder.path(), &commands[0])?;
    let answer = duckdb(folder.path(), &questions[1])?;
    ensure!(answer.contains(&records), "{records} records:\n{answer}");

    let (data, bucket) = (folder.path().join("varve-data"), folder.path().join("bucket"));
    fs::rename(data.join("archive"), &bucket)?;
    fs::remove_dir_all(&data)?;
    let file = format!("varve.object.store.url=file://{}\n{}\n", bucket.display(), settings.join("\n"));
    fs::write(folder.path().join("server.properties"), file)?;
    let lines: Vec<&str> = commands[1].lines().collect();
    let [plan, restore, start] = lines[..] else { anyhow::bail!("three commands: {lines:?}") };
    let planned = succeeds(folder.path(), plan)?;
    ensure!(planned.contains("app-logs") && !data.join("metadata").exists(), "{planned}");
    let restored = succeeds(folder.path(), restore)?;
    ensure!(restored.contains("app-logs"), "{restored}");
    let mut words = start.split_whitespace();
    ensure!(words.next() == Some("varve"), "{start}");
    let mut command = varve()?;
    command.args(words);
    let node = Node::launch(folder.path(), command, &[])?;
    let mut client = Client::connect(node.address)?;
    let (first, end) = (client.list_offset("app-logs", 0, -2)?, client.list_offset("app-logs", 0, -1)?);
    ensure!((first, end.to_string()) == (0, records), "{first} to {end}");
    node.stop()
}

#[test]
fn a_file_is_checked_without_a_node() -> Result<()> {
    let pages = ["README.md", "docs/configuration.md"];
    for page in pages {
        let text = fs::read_to_string(tools::checkout().join(page))?;
        ensure!(text.contains("`varve config check FILE`"), "{page} tells another command");
    }
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("FILE"), "num.network.threads=3\nnum.partitions=3\n")?;
    let report = succeeds(folder.path(), "varve config check FILE")?;
    ensure!(report.starts_with("warning: num.network.threads ") && report.ends_with("FILE is valid\n"), "{report}");
    fs::write(folder.path().join("FILE"), "zookeeper.connect=localhost:2181\nnum.partitions=many\n")?;
    let refused = shell(folder.path(), "varve config check FILE")?;
    let report = String::from_utf8_lossy(&refused.stdout).into_owned();
    ensure!(refused.status.code() == Some(1) && report.lines().count() == 2, "{report}");
    ensure!(
        report.contains("error: zookeeper.connect is refused: ") && report.contains("for num.partitions"),
        "{report}"
    );
    ensure!(fs::read_dir(folder.path())?.count() == 1, "a check makes nothing");
    Ok(())
}
