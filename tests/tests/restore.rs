//! Every disk is lost, and the bucket is enough: topics with their ids and settings, committed offsets, every archived record.

use std::{fs, io::Write, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    asked::Asked,
    client::Client,
    node::{Node, eventually, until, varve},
    tools,
};

const LINES: usize = 3000;
const COMMITTED: i64 = 1234;
const SETTINGS: [&str; 6] = [
    "log.retention.check.interval.ms=200",
    "remote.log.manager.task.interval.ms=200",
    "varve.archive.lag.ms=500",
    "varve.backup.lag.ms=500",
    "varve.compactor.interval.ms=500",
    "offsets.topic.num.partitions=3",
];

fn kafka(tool: &str, node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = tools::program(tool)?;
    command.args(["--bootstrap-server", &node.address.to_string()]).args(arguments);
    tools::output_of(&mut command)
}

fn topic_id(described: &str) -> Result<String> {
    let mut words = described.split_whitespace().skip_while(|word| *word != "TopicId:");
    Ok(words.nth(1).with_context(|| format!("a topic id in {described}"))?.to_owned())
}

/// Waits until the archive holds all that the local logs of `topic` hold.
fn wait_until_archived(node: &Node, topic: &str, partitions: i32) -> Result<()> {
    let mut client = Client::connect(node.address)?;
    for partition in 0..partitions {
        let end = client.list_offset(topic, partition, -1)?;
        eventually(&format!("{topic}-{partition} is archived"), || {
            let last_tiered = client.list_offset(topic, partition, -5)?;
            Ok((end == 0 || last_tiered + 1 >= end).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_cluster_comes_back_from_the_bucket_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("varve-data");
    let node = Node::start(folder.path(), &SETTINGS)?;
    kafka(
        "kafka-topics.sh",
        &node,
        &["--create", "--topic", "logs", "--partitions", "2", "--config", "retention.ms=-1"],
    )?;
    let id = topic_id(&kafka("kafka-topics.sh", &node, &["--describe", "--topic", "logs"])?)?;
    let input = folder.path().join("input.txt");
    let mut file = fs::File::create(&input)?;
    (0..LINES).try_for_each(|line| writeln!(file, "key{line}:line {line}"))?;
    let mut produce = Command::new("kcat");
    produce
        .args(["-b", &node.address.to_string(), "-t", "logs", "-P", "-K:", "-z", "zstd", "-m", "60", "-l"])
        .arg(&input);
    tools::output_of(&mut produce)?;
    let reset = ["--reset-offsets", "--group", "readers", "--topic", "logs:0", "--to-offset", "1234", "--execute"];
    kafka("kafka-consumer-groups.sh", &node, &reset)?;
    wait_until_archived(&node, "logs", 2)?;
    wait_until_archived(&node, "__consumer_offsets", 3)?;
    // A topic that is made last, and the settings that change last, are in the newest copy soon.
    kafka("kafka-topics.sh", &node, &["--create", "--topic", "late", "--partitions", "3"])?;
    let alter =
        ["--alter", "--entity-type", "topics", "--entity-name", "logs", "--add-config", "segment.bytes=7654321"];
    kafka("kafka-configs.sh", &node, &alter)?;
    // A copy may be followed by a newer one, and be deleted, between the two looks at it.
    until("the newest copy knows them", || {
        let told = Asked::of(folder.path()).ask(&["restore", "--dry-run"])?;
        let has_late = told.iter().any(|line| line["topic"] == "late" && line["outcome"] == "restored");
        let newest = format!("meta/{:020}.jsonl.zst", told[0]["snapshot"].as_u64().unwrap_or(0));
        let compressed = fs::read(data.join("archive").join(&newest))?;
        let text = zstd::decode_all(compressed.as_slice())?;
        ensure!(has_late && String::from_utf8_lossy(&text).contains("7654321"), "{newest} does not: {told:?}");
        Ok(())
    })?;
    node.kill();

    fs::rename(data.join("archive"), folder.path().join("bucket"))?;
    fs::remove_dir_all(&data)?;
    let bucket = format!("varve.object.store.url=file://{}", folder.path().join("bucket").display());
    let told = Asked::of(folder.path()).with_settings(&[&bucket]).ask(&["restore"])?;
    ensure!(told.iter().filter(|line| line["outcome"] == "restored").count() == 3, "{told:?}");
    let again = varve()?.current_dir(folder.path()).args(["restore", "--override", &bucket]).output()?;
    ensure!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("in use"), "{again:?}");

    let settings: Vec<&str> = SETTINGS.into_iter().chain([bucket.as_str()]).collect();
    let node = Node::start(folder.path(), &settings)?;
    let described = kafka("kafka-topics.sh", &node, &["--describe", "--topic", "logs"])?;
    ensure!(topic_id(&described)? == id, "{described}");
    ensure!(described.contains("segment.bytes=7654321") && described.contains("retention.ms=-1"), "{described}");
    let group = eventually("the group is back", || {
        let printed = kafka("kafka-consumer-groups.sh", &node, &["--describe", "--group", "readers"])?;
        Ok(printed.contains("readers").then_some(printed))
    })?;
    let line = group.lines().find(|line| line.starts_with("readers")).context("a line of the group")?;
    ensure!(line.split_whitespace().nth(3) == Some(&COMMITTED.to_string()), "{group}");
    let mut consume = Command::new("kcat");
    consume.args([
        "-b",
        &node.address.to_string(),
        "-t",
        "logs",
        "-C",
        "-e",
        "-q",
        "-m",
        "60",
        "-o",
        "beginning",
        "-f",
        "%s\\n",
    ]);
    let mut found: Vec<String> = tools::output_of(&mut consume)?.lines().map(str::to_owned).collect();
    found.sort_unstable();
    let mut expected: Vec<String> = (0..LINES).map(|line| format!("line {line}")).collect();
    expected.sort_unstable();
    ensure!(found == expected, "{} of {LINES} lines came back", found.len());

    // Offsets go on behind those of before, and the group's log is on the disk again, for starts without the bucket.
    let mut client = Client::connect(node.address)?;
    let end = client.list_offset("logs", 0, -1)? + client.list_offset("logs", 1, -1)?;
    ensure!(end == LINES as i64, "the logs go on at {end}");
    let segment = |index| data.join(format!("log/__consumer_offsets-{index}/{:020}.log", 0));
    let local: u64 = (0..3).map(|index| fs::metadata(segment(index)).map_or(0, |file| file.len())).sum();
    ensure!(local > 0, "the log of committed offsets was not brought back");
    drop(client);
    node.stop()
}
