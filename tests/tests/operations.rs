//! A cluster in the hands of its operators, by `varve broker` and by Kafka's own tools, while clients are at work.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::{
    messages::{
        AlterPartitionReassignmentsRequest, BrokerId, TopicName,
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    },
    protocol::StrBytes,
};
use serde_json::{Value, json};
use varve_tests::{
    client::Client,
    cluster::{
        Cluster, Described,
        broker_command::{is_there, told, varve_broker},
        load::{Load, SETTINGS, TOPIC, UNHURRIED, judged, setting},
    },
    kafka_tools::KafkaTools,
    kcat,
    node::{eventually, until},
    pair::{Pair, WATCHED},
    running::Running,
};

/// Waits until `varve broker list` prints what `is_so` wants: whichever broker answers may hear of a change after another one.
fn await_listed(cluster: &Cluster, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Result<()> {
    until(&format!("the list says: {what}"), || {
        let (_, lines) = told(cluster, &["list", "--json"])?;
        ensure!(is_so(&lines), "{lines:?}");
        Ok(())
    })
}

fn holds(described: &[Described], broker: usize) -> bool {
    described.iter().any(|one| one.leader == Some(broker) || one.replicas.contains(&broker))
}

/// The broker's end, from the first move to its last word, beside writers and groups whose records are counted, and beside
/// Kafka's own producer and consumer, which must not see a single error.
#[test]
fn a_broker_is_drained_and_decommissioned_and_no_client_sees_an_error() -> Result<()> {
    const GONE: usize = 1;
    let load = Load { brokers: 4, replicas: 3, replicas_after: 3, settings: &UNHURRIED };
    judged(load, setting("VARVE_CLUSTER_SEED", 4)?, &|cluster, _, _| {
        let folder = tempfile::tempdir()?;
        let pair = Pair::start(cluster, folder.path())?;
        let id = GONE.to_string();
        // Given up at once, it is taken up again where it was.
        let (is_done, lines) = told(cluster, &["drain", &id, "--json", "--parallel", "1", "--timeout", "0"])?;
        ensure!(!is_done && is_there(&lines, "cordoned"), "{lines:?}");
        let (is_done, lines) = told(cluster, &["drain", &id, "--json", "--timeout", "600"])?;
        ensure!(is_done && is_there(&lines, "drained"), "{lines:?}");
        ensure!(!is_there(&lines, "cordoned"), "it was: {lines:?}");
        for topic in [TOPIC, WATCHED, "__consumer_offsets"] {
            let described = cluster.describe(topic)?;
            ensure!(!holds(&described, GONE), "{topic}: {described:?}");
        }
        await_listed(cluster, "drained", |lines| lines.len() == 4 && is_there(lines, "drained"))?;
        // Nothing new is placed there either.
        cluster.create("later", 12, 3, &[])?;
        let later = cluster.describe("later")?;
        ensure!(later.len() == 12 && !holds(&later, GONE), "{later:?}");

        let decommission = |log: &str| {
            let command = varve_broker(cluster, &["decommission", &id, "--json", "--timeout", "600"])?;
            Running::start(command, &folder.path().join(log))
        };
        // Somebody changes his mind while it waits for the end of the process.
        let mut taken_back = decommission("taken-back.log")?;
        taken_back.until_it_says("stop the process now")?;
        let undrained = varve_broker(cluster, &["undrain", &id])?.output()?;
        ensure!(undrained.status.success(), "{undrained:?}");
        let ended = eventually("it gives up", || taken_back.ended())?;
        ensure!(!ended.success() && taken_back.printed().contains("took the drain back"), "{}", taken_back.printed());

        let mut forgetting = decommission("decommission.log")?;
        forgetting.until_it_says("stop the process now")?;
        cluster.stop(GONE)?;
        let ended = eventually("it is forgotten", || forgetting.ended())?;
        ensure!(ended.success() && forgetting.printed().contains("forgotten"), "{}", forgetting.printed());
        await_listed(cluster, "forgotten", |lines| {
            lines.len() == 3 && lines.iter().all(|line| line["broker"] != GONE)
        })?;

        pair.judge(cluster)?;

        // The next of this number is a new one, with nothing, that may hold what it is given.
        cluster.start_all(&[GONE])?;
        cluster.create("newest", 12, 3, &[])?;
        let newest = cluster.describe("newest")?;
        ensure!(holds(&newest, GONE), "{newest:?}");
        Ok(())
    })
}

#[test]
fn a_drain_that_would_leave_too_little_is_refused_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), 3, &[&SETTINGS[..], &UNHURRIED].concat())?;
    cluster.create("wide", 2, 3, &[])?;
    let reasons = |lines: &[Value]| -> String {
        lines.iter().filter_map(|line| line["reason"].as_str()).collect::<Vec<_>>().join("\n")
    };
    let (is_done, lines) = told(&cluster, &["drain", "1", "--json"])?;
    ensure!(!is_done && reasons(&lines).contains("wide-0 has 3 replicas, and only 2 brokers are left"), "{lines:?}");
    await_listed(&cluster, "all serve", |lines| lines.iter().all(|line| line["state"] == "serves"))?;
    let unknown = varve_broker(&cluster, &["drain", "7"])?.output()?;
    ensure!(!unknown.status.success(), "there is no broker 7");
    ensure!(String::from_utf8_lossy(&unknown.stderr).contains("there is no broker 7"), "{unknown:?}");

    // With a broker more it could be drained, were it not for a replica that lags.
    cluster.add()?;
    cluster.await_isr("wide", 3)?;
    cluster.kill(2);
    eventually("the ISR shrinks", || {
        let described = cluster.look("wide");
        let has_shrunk = described.iter().all(|one| one.isr.len() == 2 && one.leader.is_some());
        Ok((!described.is_empty() && has_shrunk).then_some(()))
    })?;
    // Whichever broker the next command asks knows it.
    cluster.describe("wide")?;
    let (is_done, lines) = told(&cluster, &["drain", "1", "--json"])?;
    ensure!(!is_done && reasons(&lines).contains("wide-0 is under-replicated: [2]"), "{lines:?}");
    // The one that is down can be, and the cluster is whole without it.
    let (is_done, lines) = told(&cluster, &["decommission", "2", "--json", "--timeout", "600"])?;
    ensure!(is_done && is_there(&lines, "forgotten"), "{lines:?}");
    // Taken up again together with another one, which cannot leave.
    eventually("whichever broker is asked knows that it is forgotten", || {
        let (is_done, lines) = told(&cluster, &["decommission", "2", "1", "--json", "--dry-run"])?;
        ensure!(!is_done && reasons(&lines).contains("only 2 brokers are left"), "{lines:?}");
        let is_forgotten = lines.iter().any(|line| line["broker"] == 2 && line["state"] == "forgotten");
        Ok(is_forgotten.then_some(()))
    })?;
    cluster.await_isr("wide", 3)?;
    ensure!(!holds(&cluster.describe("wide")?, 2), "it holds nothing");
    Ok(())
}

#[test]
fn several_brokers_are_drained_as_one_and_commands_that_run_at_once_see_each_other() -> Result<()> {
    const TOPICS: [&str; 2] = ["pairs", "alone"];
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), 5, &[&SETTINGS[..], &UNHURRIED].concat())?;
    cluster.create("pairs", 10, 3, &[("min.insync.replicas", "2")])?;
    cluster.create("alone", 5, 1, &[])?;
    let held_by = |ids: &[usize]| -> Result<bool> {
        let described = TOPICS.iter().map(|topic| cluster.describe(topic)).collect::<Result<Vec<_>>>()?.concat();
        Ok(ids.iter().any(|id| holds(&described, *id)))
    };
    let serves = |id: usize| {
        await_listed(&cluster, "it serves", |lines| {
            lines.iter().any(|line| line["broker"] == id && line["state"] == "serves")
        })
    };
    let state = |lines: &[Value], id: usize, state: &str| -> usize {
        lines.iter().filter(|line| line["broker"] == id && line["state"] == state).count()
    };

    // Nothing would go from one to the other.
    let (is_done, lines) = told(&cluster, &["drain", "1", "2", "--json", "--dry-run"])?;
    ensure!(is_done && state(&lines, 1, "can be drained") + state(&lines, 2, "can be drained") == 2, "{lines:?}");
    let moves: Vec<&Value> = lines.iter().filter(|line| line["replicas"].is_array()).collect();
    let goes_to_one =
        |line: &&Value| line["replicas"].as_array().is_some_and(|to| to.iter().any(|id| *id == 1 || *id == 2));
    ensure!(!moves.is_empty() && !moves.iter().any(goes_to_one), "{moves:?}");
    ensure!(held_by(&[1])? && held_by(&[2])?, "nothing has changed");

    // Broken off with both cordoned: another command sees that only two others are left beside its own broker, and which are not.
    let (is_done, lines) = told(&cluster, &["drain", "1", "2", "--json", "--parallel", "1", "--timeout", "0"])?;
    ensure!(!is_done && state(&lines, 1, "cordoned") + state(&lines, 2, "cordoned") == 2, "{lines:?}");
    let (is_done, lines) = told(&cluster, &["drain", "3", "--json"])?;
    let reasons: String = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    ensure!(!is_done && reasons.contains("only 2 brokers are left"), "{lines:?}");
    ensure!(["broker 1 takes none", "broker 2 takes none"].iter().all(|said| reasons.contains(said)), "{lines:?}");
    serves(3)?;
    // Taken up again.
    let (is_done, lines) = told(&cluster, &["drain", "2", "1", "--json", "--timeout", "600"])?;
    ensure!(is_done && !is_there(&lines, "cordoned"), "{lines:?}");
    ensure!(state(&lines, 1, "drained") == 1 && state(&lines, 2, "drained") == 1, "{lines:?}");
    ensure!(!held_by(&[1, 2])?, "both hold nothing");
    ensure!(varve_broker(&cluster, &["undrain", "1", "2"])?.output()?.status.success(), "both are back");

    // Two commands at once, both of which may be.
    let begin = |ids: &[&str], log: &str| {
        let command = varve_broker(&cluster, &[&["drain"], ids, &["--json", "--timeout", "600"]].concat())?;
        Running::start(command, &folder.path().join(log))
    };
    let (mut first, mut second) = (begin(&["3"], "first.log")?, begin(&["4"], "second.log")?);
    for one in [&mut first, &mut second] {
        let ended = eventually("it ends", || one.ended())?;
        ensure!(ended.success() && one.printed().contains("drained"), "{}", one.printed());
    }
    ensure!(!held_by(&[3, 4])?, "nothing went from one to the other, to stay there");
    ensure!(varve_broker(&cluster, &["undrain", "3", "4"])?.output()?.status.success(), "both are back");

    // Two of which one may be at most: whoever is refused leaves its brokers as they were.
    let mut ends = Vec::new();
    for (ids, mut one) in [(vec![1, 2], begin(&["1", "2"], "pair.log")?), (vec![0], begin(&["0"], "single.log")?)] {
        let ended = eventually("it ends", || one.ended())?;
        if !ended.success() {
            ensure!(one.printed().contains("refused"), "{}", one.printed());
            ids.iter().try_for_each(|id| serves(*id))?;
        }
        ends.push(ended.success());
    }
    ensure!(ends != [true, true], "three replicas need three brokers");
    Ok(())
}

/// A file for `kafka-reassign-partitions.sh`; its path.
fn file(folder: &Path, name: &str, content: &Value) -> Result<String> {
    let path = folder.join(name);
    fs::write(&path, content.to_string())?;
    Ok(path.display().to_string())
}

/// Runs the tool until it says that all of `plan` is done.
fn await_reassigned(tools: &KafkaTools, plan: &str) -> Result<()> {
    eventually("the reassignment ends", || {
        let said = tools.run(&format!("kafka-reassign-partitions.sh --reassignment-json-file {plan} --verify"))?;
        ensure!(!said.contains("FAILED"), "{said}");
        // The broker that is asked may not have heard of it yet, or not of its end: it then is none, and replicas are elsewhere.
        let is_done = said.contains(" is completed") && !said.contains("There is no active reassignment");
        Ok((is_done && !said.contains("still in progress")).then_some(()))
    })
}

/// One request for all of them, as the tools send it.
#[test]
fn kafkas_tools_move_and_elect_more_partitions_than_etcd_takes_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [&SETTINGS[..], &UNHURRIED, &["auto.leader.rebalance.enable=false"]].concat();
    let cluster = Cluster::start(folder.path(), 3, &settings)?;
    cluster.create("many", 450, 2, &[])?;
    let tools = KafkaTools::at(cluster.addresses()[0]);
    // The other replica of each is preferred from now on.
    let turned = |(one, index): (&Described, usize)| {
        let replicas: Vec<usize> = one.replicas.iter().rev().copied().collect();
        json!({"topic": "many", "partition": index, "replicas": replicas})
    };
    let turned: Vec<Value> = cluster.describe("many")?.iter().zip(0..).map(turned).collect();
    let plan = file(folder.path(), "turned.json", &json!({"version": 1, "partitions": turned}))?;
    tools.run(&format!("kafka-reassign-partitions.sh --reassignment-json-file {plan} --execute"))?;
    await_reassigned(&tools, &plan)?;
    let led_as_preferred = || -> Result<usize> {
        let described = cluster.describe("many")?;
        Ok(described.iter().filter(|one| one.leader == one.replicas.first().copied()).count())
    };
    ensure!(led_as_preferred()? == 0, "leaders stay where they are");
    let said = tools.run("kafka-leader-election.sh --election-type preferred --all-topic-partitions")?;
    ensure!(said.contains("Successfully completed leader election"), "{said}");
    ensure!(led_as_preferred()? == 450, "{said}");
    Ok(())
}

#[test]
fn kafkas_tools_widen_balance_cancel_elect_and_unregister_under_load() -> Result<()> {
    // Leadership moves when this test says so.
    const SETTINGS: &[&str] = &[UNHURRIED[0], UNHURRIED[1], UNHURRIED[2], "auto.leader.rebalance.enable=false"];
    let load = Load { brokers: 3, replicas: 2, replicas_after: 3, settings: SETTINGS };
    judged(load, setting("VARVE_CLUSTER_SEED", 5)?, &|cluster, _, _| {
        let folder = tempfile::tempdir()?;
        let tools = KafkaTools::at(cluster.addresses()[0]);
        let reassign = "kafka-reassign-partitions.sh";

        // A third replica for each partition.
        let wider: Vec<Value> = (0..3)
            .map(|index| json!({"topic": TOPIC, "partition": index, "replicas": [index, (index + 1) % 3, (index + 2) % 3]}))
            .collect();
        let wider = file(folder.path(), "wider.json", &json!({"version": 1, "partitions": wider}))?;
        let said = tools.run(&format!("{reassign} --reassignment-json-file {wider} --execute"))?;
        ensure!(said.contains("Successfully started partition reassignments"), "{said}");
        await_reassigned(&tools, &wider)?;
        cluster.await_isr(TOPIC, 3)?;

        // One broker more, and what the tool proposes for four of them.
        let added = cluster.add()?;
        let topics = json!({"version": 1, "topics": [{"topic": TOPIC}, {"topic": "__consumer_offsets"}]});
        let topics = file(folder.path(), "topics.json", &topics)?;
        eventually("groups have their topic", || Ok((!cluster.look("__consumer_offsets").is_empty()).then_some(())))?;
        cluster.describe("__consumer_offsets")?;
        let said = tools
            .run(&format!("{reassign} --topics-to-move-json-file {topics} --broker-list 0,1,2,{added} --generate"))?;
        let proposed = said.lines().skip_while(|line| !line.contains("Proposed partition reassignment")).nth(1);
        let proposed: Value = serde_json::from_str(proposed.with_context(|| said.clone())?)?;
        let plan = file(folder.path(), "balanced.json", &proposed)?;
        tools.run(&format!("{reassign} --reassignment-json-file {plan} --execute"))?;
        await_reassigned(&tools, &plan)?;
        let described = [cluster.describe(TOPIC)?, cluster.describe("__consumer_offsets")?].concat();
        ensure!(holds(&described, added), "{described:?}");
        let listed = || tools.run(&format!("{reassign} --list"));
        eventually("nothing is under way", || Ok((!listed()?.contains("replicas:")).then_some(())))?;

        // A move to a broker that is down waits, until it is cancelled. The tool would ask that broker about throttles too.
        let down = cluster.add()?;
        cluster.stop(down)?;
        let before = cluster.describe(TOPIC)?;
        let kept: Vec<i32> = before[0].replicas[..2].iter().map(|at| *at as i32).collect();
        let target: Vec<i32> = kept.iter().copied().chain([down as i32]).collect();
        let partition = ReassignablePartition::default()
            .with_partition_index(0)
            .with_replicas(Some(target.iter().map(|id| BrokerId(*id)).collect()));
        let topic = ReassignableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![partition]);
        let asked = AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
        let answer = Client::connect(cluster.addresses()[0])?.ask(0, &asked)?;
        ensure!(answer.responses[0].partitions[0].error_code == 0, "{answer:?}");
        eventually("it is under way", || Ok(listed()?.contains(&format!("adding: {down}")).then_some(())))?;
        let plan = json!({"version": 1, "partitions": [{"topic": TOPIC, "partition": 0, "replicas": target}]});
        let plan = file(folder.path(), "waits.json", &plan)?;
        eventually("it is cancelled", || {
            let said =
                tools.run(&format!("{reassign} --reassignment-json-file {plan} --cancel --preserve-throttles"))?;
            Ok(said.contains("Successfully cancelled partition reassignment").then_some(()))
        })?;
        let sorted = |described: &Described| described.replicas.iter().copied().collect::<BTreeSet<_>>();
        ensure!(sorted(&cluster.describe(TOPIC)?[0]) == sorted(&before[0]), "it is where it was");

        // The broker that is down is forgotten; one that runs is not.
        let refused = tools.refused("kafka-cluster.sh unregister --id 0 --bootstrap-server NODE")?;
        ensure!(refused.contains("is running"), "{refused}");
        // Somebody may not know yet that it has stopped.
        let unregister = format!("kafka-cluster.sh unregister --id {down} --bootstrap-server NODE");
        let said = until("a broker that has stopped is unregistered", || tools.run(&unregister))?;
        ensure!(said.contains("is no longer registered"), "{said}");

        // Leadership that a restart has moved comes back when it is asked for.
        let at = cluster.describe(TOPIC)?[0].replicas[0];
        cluster.stop(at)?;
        cluster.start_all(&[at])?;
        cluster.await_isr(TOPIC, 3)?;
        cluster.await_isr("__consumer_offsets", 3)?;
        ensure!(cluster.describe(TOPIC)?[0].leader != Some(at), "another one has taken over");
        let said = tools.run("kafka-leader-election.sh --election-type preferred --all-topic-partitions")?;
        ensure!(said.contains(&format!("{TOPIC}-0")), "{said}");
        eventually("preferred replicas lead", || {
            let described = cluster.look(TOPIC);
            let are_preferred = described.iter().all(|one| one.leader == one.replicas.first().copied());
            Ok((!described.is_empty() && are_preferred).then_some(()))
        })
    })
}

#[test]
fn preferred_replicas_lead_again_by_themselves() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [&SETTINGS[..], &UNHURRIED, &["leader.imbalance.check.interval.seconds=1"]].concat();
    let mut cluster = Cluster::start(folder.path(), 3, &settings)?;
    cluster.create("even", 6, 3, &[])?;
    cluster.stop(1)?;
    eventually("others have taken over", || {
        let described = cluster.look("even");
        Ok((!described.is_empty() && described.iter().all(|one| one.leader != Some(1))).then_some(()))
    })?;
    cluster.start_all(&[1])?;
    eventually("it leads again what it is to lead", || {
        let described = cluster.look("even");
        let are_preferred = described.iter().all(|one| one.leader == one.replicas.first().copied());
        Ok((!described.is_empty() && are_preferred).then_some(()))
    })
}

/// The files of a partition at a broker: the smallest base offset, and how many bytes they have.
fn local(cluster: &Cluster, at: usize, partition: &str) -> Result<(u64, u64)> {
    let folder = cluster.folder(at).join("varve-data/log").join(partition);
    let (mut first, mut bytes) = (None::<u64>, 0);
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(base) = name.strip_suffix(".log") else { continue };
        let base = base.parse()?;
        // One that is deleted meanwhile is not there any more.
        let Ok(metadata) = entry.metadata() else { continue };
        first = Some(first.map_or(base, |first| first.min(base)));
        bytes += metadata.len();
    }
    Ok((first.context("it has a log")?, bytes))
}

#[test]
fn a_new_replica_copies_what_its_leader_has_on_the_disk_and_leaves_the_archive_where_it_is() -> Result<()> {
    const RECORDS: usize = 4_000;
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), 2, &[&SETTINGS[..], &UNHURRIED].concat())?;
    let configs = [
        ("internal.segment.bytes", "50000"),
        ("local.retention.bytes", "100000"),
        ("retention.ms", "-1"),
        ("remote.storage.enable", "true"),
    ];
    cluster.create("long", 1, 2, &configs)?;
    let kafka = KafkaTools::at(cluster.addresses()[0]);
    let load = format!(
        "kafka-producer-perf-test.sh --topic long --num-records {RECORDS} --record-size 1000 --throughput -1 \
         --bootstrap-server NODE --command-property acks=all"
    );
    kafka.run(&load)?;
    let leader = cluster.describe("long")?[0].leader.context("a leader")?;
    let (start, here) = eventually("most of it is in the archive alone", || {
        let (start, bytes) = local(&cluster, leader, "long-0")?;
        Ok((start as usize > RECORDS / 2).then_some((start, bytes)))
    })?;
    let added = cluster.add()?;
    let replicas: Vec<usize> = vec![leader, added];
    let plan = json!({"version": 1, "partitions": [{"topic": "long", "partition": 0, "replicas": replicas}]});
    let plan = file(folder.path(), "plan.json", &plan)?;
    kafka.run(&format!("kafka-reassign-partitions.sh --reassignment-json-file {plan} --execute"))?;
    await_reassigned(&kafka, &plan)?;
    let (first, copied) = local(&cluster, added, "long-0")?;
    println!(
        "{RECORDS} records of 1000 bytes, {here} bytes from {start} on at the leader, {copied} from {first} on copied"
    );
    ensure!(
        first >= start && copied <= here,
        "copied from {first} on, {copied} bytes; at the leader {here} from {start} on"
    );
    // Whoever leads: all of it is there.
    cluster.stop(leader)?;
    eventually("the new one leads", || {
        Ok(cluster.look("long").iter().any(|one| one.leader == Some(added)).then_some(()))
    })?;
    let read = kcat::read_committed(cluster.addresses()[added], "long")?.len();
    if read != RECORDS {
        bail!("{read} records are read of {RECORDS}");
    }
    Ok(())
}
