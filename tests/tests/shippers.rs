//! Programs that ship logs: rsyslog tails a file into a topic and writes a topic to a file; kcat in all its modes.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    kcat,
    node::{Node, eventually, stable_address},
    running::Running,
    tools,
};

#[test]
fn rsyslog_ships_a_growing_file_through_a_restart_and_lands_every_line() -> Result<()> {
    const LINES: usize = 2_000;
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let overrides = ["group.initial.rebalance.delay.ms=0", "num.partitions=1"];
    let node = Node::start_at(folder.path(), address, &overrides)?;
    // imkafka waits for a topic that is not there, and complains.
    varve_tests::client::Client::connect(address)?.create_topic("syslog", 1, &[])?;
    let at = folder.path().display();
    let settings = format!(
        r#"global(workDirectory="{at}")
        module(load="imfile" mode="inotify")
        module(load="omkafka")
        module(load="imkafka")
        template(name="line" type="string" string="%msg%")
        template(name="lines" type="string" string="%rawmsg%\n")
        input(type="imfile" file="{at}/app.log" tag="app" ruleset="ship")
        ruleset(name="ship") {{
          action(type="omkafka" broker=["{address}"] topic="syslog" key="app.log" template="line"
                 confParam=["compression.codec=snappy", "acks=all", "enable.idempotence=true"]
                 resubmitOnFailure="on" keepFailedMessages="on" failedMsgFile="{at}/failed" errorFile="{at}/errors"
                 action.resumeRetryCount="-1" action.resumeInterval="1")
        }}
        input(type="imkafka" broker=["{address}"] topic="syslog" consumergroup="landing" ruleset="land"
              confParam=["auto.offset.reset=earliest"])
        ruleset(name="land") {{ action(type="omfile" file="{at}/landed.log" template="lines") }}
        "#
    );
    fs::write(folder.path().join("rsyslog.conf"), settings)?;
    let mut command = tools::program("rsyslogd")?;
    command.args(["-n", "-f"]).arg(folder.path().join("rsyslog.conf")).arg("-i").arg(folder.path().join("rsyslog.pid"));
    let mut rsyslog = Running::start(command, &folder.path().join("rsyslog.log"))?;
    let lines: Vec<String> = (0..LINES).map(|number| format!("service=web request={number} status=200")).collect();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(folder.path().join("app.log"))?;
    let mut write = |lines: &[String]| writeln!(file, "{}", lines.join("\n"));
    let landed = || -> Result<Vec<String>> {
        let text = fs::read_to_string(folder.path().join("landed.log")).unwrap_or_default();
        Ok(text.lines().map(|line| line.trim_start().to_owned()).collect())
    };
    write(&lines[..LINES / 2])?;
    eventually("half of the lines land", || {
        ensure!(rsyslog.ended()?.is_none(), "rsyslog ended");
        Ok((landed()?.len() >= LINES / 2).then_some(()))
    })
    .with_context(|| rsyslog.printed())?;
    // It goes on while the node is away, and catches up.
    node.kill();
    write(&lines[LINES / 2..])?;
    let node = Node::start_at(folder.path(), address, &overrides)?;
    eventually("all lines land", || {
        ensure!(rsyslog.ended()?.is_none(), "rsyslog ended");
        Ok((landed()?.len() >= LINES).then_some(()))
    })
    .with_context(|| rsyslog.printed())?;
    let landed = landed()?;
    ensure!(landed == lines, "each line lands once, in order: {landed:#?}");
    let written = kcat::read_committed(address, "syslog")?;
    let values = written.iter().map(|record| record.value.trim_start());
    ensure!(values.eq(lines.iter().map(String::as_str)), "and is in the topic once");
    ensure!(written.iter().all(|record| record.key == "app.log"), "under its key");
    rsyslog.terminate()?;
    node.stop()
}

/// Runs kcat with `words` and `input`; what it printed.
fn run_kcat(node: &Node, words: &str, input: &str) -> Result<String> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &node.address.to_string(), "-m", "60"]).args(words.split_whitespace());
    let mut child = kcat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "kcat {words}: {printed}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(printed)
}

#[test]
fn kcat_lists_writes_reads_asks_and_joins_groups() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["group.initial.rebalance.delay.ms=0"])?;
    let input: String = (0..30).map(|number| format!("key-{}:value {number}\n", number % 4)).collect();
    run_kcat(&node, "-P -t notes -p 0 -K: -H host=web-1 -H level=WARN -z lz4 -X enable.idempotence=true", &input)?;
    // An empty value as a null one, and a key alone.
    run_kcat(&node, "-P -t notes -p 0 -K: -Z -X compression.codec=zstd", "gone:\n")?;

    let listed: Value = serde_json::from_str(&run_kcat(&node, "-L -J", "")?)?;
    ensure!(listed["brokers"][0]["name"] == node.address.to_string(), "{listed}");
    let topics = listed["topics"].as_array().context("topics")?;
    let notes = topics.iter().find(|topic| topic["topic"] == "notes").context("the topic is listed")?;
    ensure!(notes["partitions"][0]["leader"] == listed["controllerid"], "{listed}");

    let show = "-C -t notes -p 0 -e -q -f %o|%k|%S|%s|%h|%T\\n";
    let all = run_kcat(&node, &format!("{show} -o beginning"), "")?;
    let lines: Vec<Vec<&str>> = all.lines().map(|line| line.split('|').collect()).collect();
    ensure!(lines.len() == 31 && lines[5][..5] == ["5", "key-1", "7", "value 5", "host=web-1,level=WARN"], "{all}");
    ensure!(lines[30][..3] == ["30", "gone", "-1"], "a null value: {all}");
    let time = lines[30][5];
    let offsets = |words: &str| -> Result<Vec<i64>> {
        let printed = run_kcat(&node, &format!("{show} {words}"), "")?;
        printed.lines().map(|line| Ok(line.split('|').next().context("an offset")?.parse()?)).collect()
    };
    ensure!(offsets("-o 12 -c 3")? == [12, 13, 14], "from an offset");
    ensure!(offsets("-o -4")? == [27, 28, 29, 30], "the last few");
    ensure!(offsets(&format!("-o s@{time}"))? == [30], "from a time");
    ensure!(offsets(&format!("-o s@0 -o e@{time}"))?.len() == 30, "until a time");
    ensure!(offsets("-o end")?.is_empty(), "from the end");
    let asked = run_kcat(&node, &format!("-Q -t notes:0:{time} -t notes:0:-1 -t notes:0:-2"), "");
    // kcat answers the same partition's last question only.
    ensure!(asked?.contains("notes [0] offset"), "a question is answered");
    ensure!(
        run_kcat(&node, &format!("-Q -t notes:0:{time}"), "")?.trim() == "notes [0] offset 30",
        "the time of a record"
    );
    ensure!(run_kcat(&node, "-Q -t notes:0:-2", "")?.trim() == "notes [0] offset 0", "the start");
    ensure!(run_kcat(&node, "-Q -t notes:0:-1", "")?.trim() == "notes [0] offset 31", "the end");

    let json: Value = serde_json::from_str(&run_kcat(&node, "-C -t notes -p 0 -o 3 -c 1 -J -q", "")?)?;
    ensure!(
        json["key"] == "key-3" && json["headers"] == serde_json::json!(["host", "web-1", "level", "WARN"]),
        "{json}"
    );

    // A group reads each record once, over two members one after the other.
    let group = "-G readers -X auto.offset.reset=earliest -X session.timeout.ms=30000 -q -c";
    let first = run_kcat(&node, &format!("{group} 10 -f %o\\n notes"), "")?;
    let second = run_kcat(&node, &format!("{group} 21 -f %o\\n notes"), "")?;
    let numbers: Vec<i64> = first.lines().chain(second.lines()).map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.iter().copied().eq(0..31), "{numbers:?}");
    node.stop()
}
