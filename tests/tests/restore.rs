//! Every disk is lost, and the bucket is enough: topics with their ids and settings, committed offsets, every archived record. Etcd
//! comes back with less than it had, and nothing is lost.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    asked::Asked,
    client::Client,
    cluster::Cluster,
    etcd::{Etcd, TOKEN},
    kcat,
    node::{Node, eventually, stable_address, until, varve},
    running::Running,
    s3::S3Emulator,
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
    kcat::write_lines(node.address, "logs", &input, &["-K:", "-z", "zstd"])?;
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
    let mut found: Vec<String> = kcat::read_lines(node.address, "logs")?.lines().map(str::to_owned).collect();
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

/// Every file below `folder`.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        // It may go meanwhile.
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    found.insert(path);
                }
            }
        }
    }
    Ok(found)
}

/// Objects in the bucket that hold records of a topic, raw or as Parquet.
fn objects(bucket: &Path, topic: &str, id: &str) -> Result<BTreeSet<PathBuf>> {
    let (raw, table) = (format!("/{id}/"), format!("/{topic}/data/"));
    let holds = |path: &PathBuf| {
        let path = path.strip_prefix(bucket).unwrap_or(path).to_string_lossy();
        (path.starts_with("raw/") && path.contains(&raw)) || (path.starts_with("tables/") && path.contains(&table))
    };
    Ok(files(bucket)?.into_iter().filter(holds).collect())
}

/// Whether a directory has segments with something in them.
fn has_records(log: &Path) -> Result<bool> {
    let holds = |path: &PathBuf| {
        path.extension().is_some_and(|suffix| suffix == "log") && fs::metadata(path).is_ok_and(|file| file.len() > 0)
    };
    Ok(files(log)?.iter().any(holds))
}

/// Writes `LINES` lines to a topic.
fn fill(cluster: &Cluster, topic: &str, input: &Path) -> Result<()> {
    kcat::write_lines(cluster.addresses()[0], topic, input, &[])
}

fn read(cluster: &Cluster, topic: &str) -> Result<String> {
    kcat::read_lines(cluster.addresses()[0], topic)
}

/// Somebody restores etcd, or starts it on empty volumes, and did not stop the brokers first. What it lacks was deleted by nobody:
/// the brokers end, with their logs and the archive as they were.
#[test]
fn an_etcd_that_comes_back_older_or_empty_under_running_brokers_costs_no_record() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (backup, bucket) = (folder.path().join("backup.db"), folder.path().join("bucket"));
    // Whatever is buried is gone soon: no shorter time is allowed.
    let settings = [&SETTINGS[..], &["varve.archive.grace.ms=10000"]].concat();
    let mut cluster = Cluster::start(folder.path(), 2, &settings)?;
    let input = folder.path().join("input.txt");
    let lines: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
    fs::write(&input, &lines)?;
    cluster.create("before", 1, 2, &[])?;
    fill(&cluster, "before", &input)?;
    let leader = cluster.describe("before")?[0].leader.context("a leader")?;
    wait_until_archived(cluster.node(leader), "before", 1)?;
    cluster.etcd[0].save(&backup)?;
    cluster.create("after", 1, 2, &[])?;
    fill(&cluster, "after", &input)?;
    let leader = cluster.describe("after")?[0].leader.context("a leader")?;
    wait_until_archived(cluster.node(leader), "after", 1)?;
    let log = |at: usize, topic: &str| cluster_log(folder.path(), at).join(format!("{topic}-0"));
    let logs = [0, 1].map(|at| log(at, "after"));
    let id = topic_id(&kafka("kafka-topics.sh", cluster.node(0), &["--describe", "--topic", "after"])?)?;
    let archived = || objects(&bucket, "after", &id);
    ensure!(!archived()?.is_empty(), "something is archived: {:?}", files(&bucket)?);

    // Under the name that its members had, which is the hardest to tell.
    cluster.etcd[0].restore(&backup, TOKEN)?;
    for at in 0..2 {
        cluster.await_failure(at)?;
        let printed = cluster.printed(at)?;
        ensure!(printed.contains("the metadata store was put back to an older state"), "broker {at}:\n{printed}");
    }
    for log in &logs {
        ensure!(has_records(log)?, "{log:?}");
    }
    ensure!(!archived()?.is_empty(), "its objects are gone");
    let place = [format!("varve.object.store.url=file://{}", bucket.display())];
    let told = Asked::of(folder.path()).with_settings(&[&place[0]]).ask(&["restore", "--dry-run"])?;
    let fate = told.iter().find(|line| line["topic"] == "after").context("the topic")?;
    ensure!(!fate["outcome"].as_str().unwrap_or_default().starts_with("left out"), "its archive is buried: {told:?}");

    // The next start takes the older state, and deletes nothing for it.
    cluster.start_all(&[0, 1])?;
    cluster.await_isr("before", 2)?;
    ensure!(read(&cluster, "before")? == lines, "what the backup knows is all there");
    for at in 0..2 {
        let aside = files(&cluster_log(folder.path(), at))?;
        let is_aside =
            |path: &PathBuf| path.to_string_lossy().contains("/after-0.") && path.to_string_lossy().ends_with(".log");
        ensure!(aside.iter().any(is_aside), "broker {at} has {aside:?}");
    }

    // Nor does anybody bury the archive of a topic that the backup lacks: it can be given up, by who says so.
    eventually("a sweep tells of it", || {
        let is_told =
            |at| Ok::<_, anyhow::Error>(cluster.printed(at)?.contains("that nobody is known to have deleted"));
        Ok((is_told(0)? || is_told(1)?).then_some(()))
    })?;
    ensure!(!archived()?.is_empty(), "its objects are gone");
    let metadata = format!("varve.metadata.url=etcd://{}/varve", cluster.etcd[0].address());
    let asked = Asked::of(folder.path()).with_settings(&[&place[0], &metadata]);
    let would = asked.ask(&["tier", "forget", &id])?;
    ensure!(would[0]["topic"] == "after" && would[0]["outcome"].to_string().contains("--confirm"), "{would:?}");
    asked.ask(&["tier", "forget", &id, "--confirm"])?;
    eventually("its archive goes", || Ok(archived()?.is_empty().then_some(())))?;
    eventually("it is not remembered for ever", || {
        Ok((!cluster.etcd[0].ctl(&["get", "/varve/deleted/", "--prefix", "--keys-only"])?.contains(&id)).then_some(()))
    })?;

    cluster.etcd[0].restart_empty("new")?;
    for at in 0..2 {
        cluster.await_failure(at)?;
        let log = log(at, "before");
        ensure!(has_records(&log)?, "{log:?}");
    }
    // Nor do they make a new cluster there, which would be in the way of what is restored.
    let refused = cluster.start_all(&[0, 1]).err().context("they start")?;
    ensure!(format!("{refused:#}").contains("the metadata store is empty"), "{refused:#}");
    ensure!(!cluster.etcd[0].ctl(&["get", "/varve/cluster"])?.contains("cluster"), "there is a new cluster");
    cluster.etcd[0].restore(&backup, "another")?;
    cluster.start_all(&[0, 1])?;
    cluster.await_isr("before", 2)?;
    ensure!(read(&cluster, "before")? == lines, "all is there");
    Ok(())
}

/// Since the backup another broker has led, and records were acknowledged that the one of before does not have. It starts first, and by the
/// backup it would lead at once: the others would cut what they have to that.
#[test]
fn a_backup_of_before_a_leader_changed_costs_no_acknowledged_record() -> Result<()> {
    // Under the name that its members had nothing tells but what brokers have seen.
    for token in ["another", TOKEN] {
        a_leader_changed_before_it_is_restored_under(token)?;
    }
    Ok(())
}

fn a_leader_changed_before_it_is_restored_under(token: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let backup = folder.path().join("backup.db");
    let mut cluster = Cluster::start(folder.path(), 3, &SETTINGS)?;
    let input = folder.path().join("input.txt");
    let lines = |of: &str| (0..LINES).map(|line| format!("{of} {line}\n")).collect::<String>();
    fs::write(&input, lines("before"))?;
    cluster.create("t", 1, 3, &[("min.insync.replicas", "2")])?;
    fill(&cluster, "t", &input)?;
    cluster.await_isr("t", 3)?;
    let leader = cluster.describe("t")?[0].leader.context("a leader")?;
    cluster.etcd[0].save(&backup)?;

    cluster.stop(leader)?;
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    fs::write(&input, lines("after"))?;
    kcat::write_lines(cluster.addresses()[others[0]], "t", &input, &["-X", "acks=all"])?;
    for &at in &others {
        cluster.stop(at)?;
    }
    cluster.etcd[0].restore(&backup, token)?;

    cluster.start_all(&[leader])?;
    let printed = cluster.printed(leader)?;
    ensure!(printed.contains("the metadata store was restored from a backup"), "{printed}");
    ensure!(cluster.describe("t")?[0].leader.is_none(), "it leads on the word of the backup");
    cluster.start_all(&others)?;
    cluster.await_isr("t", 3)?;
    ensure!(read(&cluster, "t")? == lines("before") + &lines("after"), "what was acknowledged is all there, in order");
    // Nor is anything asked again at the next start.
    cluster.stop(leader)?;
    cluster.start_all(&[leader])?;
    cluster.await_isr("t", 3)
}

/// Since the backup a partition got another replica, and then only that one was left to take records; another one was moved.
#[test]
fn replicas_that_were_added_since_the_backup_are_asked_as_well() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let backup = folder.path().join("backup.db");
    let mut cluster = Cluster::start(folder.path(), 3, &SETTINGS)?;
    let input = folder.path().join("input.txt");
    let lines = |of: &str| (0..LINES).map(|line| format!("{of} {line}\n")).collect::<String>();
    let tool = |cluster: &Cluster, tool: &str, arguments: &[&str]| kafka(tool, cluster.node(2), arguments);
    for (topic, replicas) in [("grown", "0:1"), ("moved", "0")] {
        tool(&cluster, "kafka-topics.sh", &["--create", "--topic", topic, "--replica-assignment", replicas])?;
    }
    fs::write(&input, lines("before"))?;
    for topic in ["grown", "moved"] {
        fill(&cluster, topic, &input)?;
    }
    cluster.etcd[0].save(&backup)?;

    let plan = folder.path().join("plan.json");
    let partition =
        |topic: &str, replicas: &str| format!(r#"{{"topic":"{topic}","partition":0,"replicas":{replicas}}}"#);
    let partitions = [partition("grown", "[0,1,2]"), partition("moved", "[2]")].join(",");
    fs::write(&plan, format!(r#"{{"version":1,"partitions":[{partitions}]}}"#))?;
    let moves = ["--reassignment-json-file", &plan.display().to_string(), "--execute"].map(str::to_owned);
    tool(&cluster, "kafka-reassign-partitions.sh", &moves.each_ref().map(String::as_str))?;
    cluster.await_isr("grown", 3)?;
    until("it has moved", || {
        let now = cluster.describe("moved")?;
        ensure!(now[0].replicas == [2] && now[0].isr == [2], "{now:?}");
        Ok(())
    })?;
    cluster.stop(0)?;
    cluster.stop(1)?;
    cluster.await_isr("grown", 1)?;
    fs::write(&input, lines("after"))?;
    for topic in ["grown", "moved"] {
        kcat::write_lines(cluster.addresses()[2], topic, &input, &["-X", "acks=all"])?;
    }
    cluster.stop(2)?;
    cluster.etcd[0].restore(&backup, "another")?;

    // All that the backup knows of, and they have told what they have.
    cluster.start_all(&[0, 1])?;
    until("it is said who is waited for", || {
        let printed = cluster.printed(0)?;
        ensure!(printed.contains("these brokers have not looked yet"), "{printed}");
        Ok(())
    })?;
    ensure!(cluster.describe("grown")?[0].leader.is_none(), "they lead without who has more");
    cluster.start_all(&[2])?;
    for (topic, replicas) in [("grown", vec![0, 1]), ("moved", vec![0])] {
        until(&format!("{topic} is where the backup has it"), || {
            let now = cluster.describe(topic)?;
            let one = now.first().context("a partition")?;
            ensure!(one.replicas == replicas && one.isr.len() == replicas.len(), "{now:?}");
            Ok(())
        })?;
        ensure!(read(&cluster, topic)? == lines("before") + &lines("after"), "what {topic} had is all there, in order");
    }
    Ok(())
}

/// Where a broker of a cluster in `folder` keeps its logs.
fn cluster_log(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("broker-{at}/varve-data/log"))
}

/// Etcd and every disk are lost: nothing tells a broker of the cluster that there was, but the bucket. It asks that before it makes
/// a new one, which would be in the way of what is restored.
#[test]
fn a_broker_with_empty_disks_makes_no_cluster_where_the_bucket_has_one() -> Result<()> {
    const WAITS: &str = "no cluster is made before the object store has answered: trying again";
    let folder = tempfile::tempdir()?;
    let mut etcd = Etcd::start(folder.path())?;
    let emulator = S3Emulator::start()?;
    let (place, http) = (format!("varve.metadata.url=etcd://{}/varve", etcd.address()), stable_address()?);
    let endpoint = format!("varve.object.store.endpoint=http://{}", emulator.address());
    let settings = [&SETTINGS[..], &[&place, &endpoint, "varve.object.store.url=s3://varve/a/prefix"]].concat();
    let variables = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    let broker = || Asked::of(folder.path()).with_settings(&settings).with_environment(&variables);
    let hasty = broker().with_settings(&["initial.broker.registration.timeout.ms=0"]);
    let is_empty = |etcd: &Etcd| {
        let keys = etcd.ctl(&["get", "--prefix", "/varve/", "--keys-only"])?;
        ensure!(keys.trim().is_empty(), "it wrote {keys}");
        Ok(())
    };

    // One that is not there is no empty one.
    let told = hasty.start().err().context("it starts")?;
    ensure!(format!("{told:#}").contains("s3://varve/a/prefix is not there to say whether"), "{told:#}");
    is_empty(&etcd)?;
    emulator.make_bucket("varve")?;

    // A bucket that is away holds the first start up, and no longer than it is away.
    emulator.freeze(true)?;
    let watched = broker().with_settings(&[&format!("varve.http.listener={http}")]);
    let mut first = Running::start(watched.node()?, &folder.path().join("first.log"))?;
    first.until_it_says(WAITS)?;
    let asked = varve()?.args(["health", "--ready", "--address", &http.to_string()]).output()?;
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    ensure!(said == "waiting for the object store s3://varve/a/prefix, before a cluster is made\n", "{said}");
    is_empty(&etcd)?;
    emulator.freeze(false)?;
    first.until_it_says("varve is ready")?;
    first.terminate()?;

    let node = broker().start()?;
    until("it is let in", || Client::connect(node.address)?.create_topic("logs", 1, &[]))?;
    until("the bucket has a copy of the state", || {
        let told = broker().ask(&["restore", "--dry-run"])?;
        ensure!(told.iter().any(|line| line["topic"] == "logs"), "{told:?}");
        Ok(())
    })?;
    node.stop()?;
    etcd.restart_empty("new")?;
    fs::remove_dir_all(folder.path().join("varve-data"))?;

    let told = broker().start().err().context("it starts")?;
    let told = format!("{told:#}");
    ensure!(told.contains("the metadata store is empty, and s3://varve/a/prefix is the archive of cluster "), "{told}");
    is_empty(&etcd)?;
    emulator.freeze(true)?;
    let told = hasty.start().err().context("it starts")?;
    ensure!(format!("{told:#}").contains("has not said whether it is the archive of a cluster"), "{told:#}");
    is_empty(&etcd)?;
    emulator.freeze(false)?;

    hasty.ask(&["restore"])?;
    let node = hasty.start()?;
    let end = until("the topic is back", || Client::connect(node.address)?.list_offset("logs", 0, -1))?;
    ensure!(end == 0, "it ends at {end}");
    node.stop()
}
