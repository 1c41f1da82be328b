//! README's commands, as they stand there.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    node::{Node, eventually},
    tools,
};

/// The shell blocks of README.md, in order.
fn blocks() -> Result<Vec<String>> {
    let text = fs::read_to_string(tools::checkout().join("README.md"))?;
    let pieces = text.split("```sh\n").skip(1);
    pieces.map(|piece| Ok(piece.split_once("```").context("a block ends")?.0.to_owned())).collect()
}

#[test]
fn readmes_five_minutes_work_as_they_stand() -> Result<()> {
    let blocks = blocks()?;
    let (commands, five_minutes) = blocks.split_at(2);
    // The first command builds and starts what this test starts below; the second runs this test.
    ensure!(commands == ["cargo run --release\n", "cargo xtask test\n"], "README's two commands changed: {commands:?}");

    let folder = tempfile::tempdir()?;
    // A newcomer has nothing else running; the test may not be so lucky, so the node gets free ports and the commands
    // are told them.
    let node = Node::start(folder.path(), &[])?;
    let mut environment = String::new();
    let mut shell = |block: &str| -> Result<String> {
        let block = block
            .replace("127.0.0.1:9092", &node.address.to_string())
            .replace("127.0.0.1:9404", &node.http.to_string())
            // Cargo runs this test and holds its lock; the tools are there already.
            .replace("$(cargo xtask tools)", &tools::folder()?.display().to_string())
            .replace(
                "$PWD/target/release",
                &varve_tests::node::binary()?.parent().context("a folder")?.display().to_string(),
            );
        if block.starts_with("export") {
            environment.push_str(block.lines().next().unwrap_or_default());
            environment.push('\n');
        }
        // The variables that say where this test finds its tools are no settings of the node.
        let script = format!("set -eu\nunset ${{!VARVE_*}}\n{environment}{block}");
        tools::output_of(Command::new("bash").arg("-c").arg(script).current_dir(folder.path()))
    };
    // What a node that was started by hand says to do next.
    let printed = node.printed();
    let greeting = printed.lines().find(|line| line.contains("varve is ready")).context("a greeting")?.to_owned();
    fs::write(folder.path().join("FILE"), "a line\nanother\n")?;
    let next: Vec<&str> = greeting.split("kcat ").skip(1).filter_map(|rest| rest.split([',', ';']).next()).collect();
    ensure!(next.len() == 2 && greeting.contains("README.md"), "{greeting}");
    let said = next.iter().map(|arguments| shell(&format!("kcat {arguments}"))).collect::<Result<Vec<_>>>()?;
    ensure!(said == ["", "a line\nanother\n"], "{greeting}: {said:?}");
    for block in five_minutes {
        if block.contains("tier describe") {
            eventually("all lines are Parquet", || {
                // Until the first segment is archived there is nothing to describe, and varve says so.
                let Ok(printed) = shell(&block.replace("app-logs", "app-logs --json")) else { return Ok(None) };
                Ok((printed.contains("\"raw_objects\":0") && printed.contains("\"records\":50000")).then_some(()))
            })?;
        }
        let printed = shell(block)?;
        println!("{block}{printed}");
        if block.contains("kafka-console-consumer.sh") {
            ensure!(printed.lines().count() == 3 && printed.contains("request=1\n"), "consumed:\n{printed}");
        }
        if block.contains("duckdb") {
            ensure!(printed.contains("50000") && printed.contains("49999"), "DuckDB counted:\n{printed}");
        }
        if block.contains("/metrics") {
            ensure!(printed.contains("varve_"), "metrics:\n{printed}");
        }
    }
    node.stop()
}
