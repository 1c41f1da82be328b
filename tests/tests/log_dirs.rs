//! Brokers with two log directories each, of which one fails: others take over what lay there, the broker goes on with the rest, and
//! nothing that was acknowledged is lost. And brokers that come back with an empty disk, which lead nothing that only the old one had.
//!
//! A directory fails here as a disk does that is gone while files on it are open: its place in the tree is taken by something that
//! is no directory, which shows with the next file that is to be made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AlterReplicaLogDirsRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
        MetadataRequest, TopicName,
        alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
        describe_topic_partitions_request::TopicRequest,
        elect_leaders_request::TopicPartitions,
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    cluster::{
        Cluster, Described,
        load::{CONFIGS, CREW, SETTINGS, TOPIC, UNHURRIED},
    },
    history::{Place, Recorder},
    node::{Node, eventually},
    tools,
    workload::{Crew, Random},
};

const BROKERS: usize = 3;
/// Enough for each directory of each broker to have some, and to lead one of them.
const WORK: Crew = Crew { partitions: 12, ..CREW };
/// What is written to by a client that takes no refusal.
const STEADY: &str = "steady";
const KAFKA_STORAGE_ERROR: i16 = 56;

fn start(folder: &Path, dirs: [&'static str; 2]) -> Result<Cluster> {
    let folder_of = {
        let folder = folder.to_owned();
        move |at: usize| folder.join(format!("broker-{at}"))
    };
    let own = move |at| {
        let [one, other] = dirs.map(|dir| folder_of(at).join(dir).display().to_string());
        vec![format!("log.dirs={one},{other}")]
    };
    Cluster::start_each(folder, BROKERS, &[&SETTINGS[..], &UNHURRIED].concat(), own)
}

/// The partitions of a topic that have a log in a directory.
fn held(dir: &Path, topic: &str) -> Result<Vec<i32>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    let indexes = names.iter().filter_map(|name| name.strip_prefix(topic)?.strip_prefix('-')?.parse().ok());
    let mut indexes: Vec<i32> = indexes.collect();
    indexes.sort_unstable();
    Ok(indexes)
}

/// A directory that is to fail.
struct Chosen {
    /// Whose.
    at: usize,
    fails: PathBuf,
    stays: PathBuf,
    /// Partitions of [`TOPIC`] in it.
    lost: Vec<i32>,
    /// A partition of [`STEADY`] that the broker leads out of its other directory.
    kept: i32,
    /// One that it follows there.
    followed: i32,
}

impl Chosen {
    /// One with partitions that its broker leads, of a broker that leads others out of its other directory.
    fn from(cluster: &Cluster) -> Result<Chosen> {
        let (ledger, steady) = (cluster.describe(TOPIC)?, cluster.describe(STEADY)?);
        let is_led = |described: &[Described], index: i32, at| described[index as usize].leader == Some(at);
        for at in 0..BROKERS {
            for (fails, stays) in [("a", "b"), ("b", "a")] {
                let (fails, stays) = (cluster.folder(at).join(fails), cluster.folder(at).join(stays));
                let lost = held(&fails, TOPIC)?;
                let (led, followed): (Vec<i32>, Vec<i32>) =
                    held(&stays, STEADY)?.into_iter().partition(|index| is_led(&steady, *index, at));
                if let ([kept, ..], [followed, ..]) = (led.as_slice(), followed.as_slice())
                    && lost.iter().any(|index| is_led(&ledger, *index, at))
                {
                    return Ok(Chosen { at, fails, stays, lost, kept: *kept, followed: *followed });
                }
            }
        }
        bail!("no broker leads partitions out of both of its directories")
    }

    fn fail(&self) -> Result<()> {
        fs::rename(&self.fails, self.fails.with_extension("lost"))?;
        Ok(fs::write(&self.fails, "")?)
    }

    fn come_back(&self) -> Result<()> {
        fs::remove_file(&self.fails)?;
        Ok(fs::rename(self.fails.with_extension("lost"), &self.fails)?)
    }
}

fn batch(bytes: usize) -> Result<Bytes> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    let timestamp = Timestamp::from_wire(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64);
    batch.push(RecordContent { timestamp, key: None, value: Some(&vec![b'v'; bytes]), headers: &[] });
    Ok(batch.build()?.into())
}

/// One connection to one leader, which is never refused anything.
struct Steady {
    client: Client,
    partition: i32,
    written: i64,
}

impl Steady {
    fn write(&mut self) -> Result<()> {
        let offset = self.client.produce(STEADY, self.partition, batch(100)?).context("of the other directory")?;
        ensure!(offset == self.written, "offset {offset} after {} records", self.written);
        self.written += 1;
        Ok(())
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// What the broker says of each of its directories, by Kafka's code.
fn told_of_dirs(client: &mut Client) -> Result<Vec<(PathBuf, i16)>> {
    let answer = client.ask(4, &DescribeLogDirsRequest::default().with_topics(None))?;
    let dirs = answer.results.iter().filter(|dir| !dir.log_dir.starts_with("remote://"));
    Ok(dirs.map(|dir| (PathBuf::from(dir.log_dir.as_str()), dir.error_code)).collect())
}

/// The code with which a move of a partition's log to a directory is answered.
fn moved(client: &mut Client, topic: &str, partition: i32, to: &Path) -> Result<i16> {
    let of = AlterReplicaLogDirTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
    let dir = AlterReplicaLogDir::default().with_path(text(&to.display().to_string())).with_topics(vec![of]);
    let answer = client.ask(2, &AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]))?;
    Ok(answer.results.first().and_then(|topic| topic.partitions.first()).context("one partition")?.error_code)
}

/// Partitions of [`TOPIC`] of which the replica on a broker is told to be offline.
fn told_offline(client: &mut Client, at: usize) -> Result<Vec<i32>> {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(TOPIC))));
    let answer = client.ask(9, &MetadataRequest::default().with_topics(Some(vec![topic])))?;
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let is_offline = partitions.filter(|one| one.offline_replicas.iter().any(|id| id.0 == at as i32));
    let mut indexes: Vec<i32> = is_offline.map(|one| one.partition_index).collect();
    indexes.sort_unstable();
    Ok(indexes)
}

fn shows(node: &Node, line: &str) -> Result<bool> {
    Ok(node.http_get("/metrics")?.lines().any(|shown| shown == line))
}

#[test]
fn a_log_directory_that_fails_under_load_takes_its_partitions_to_other_brokers_and_no_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = start(folder.path(), ["a", "b"])?;
    cluster.create(TOPIC, WORK.partitions, BROKERS as i16, &CONFIGS)?;
    cluster.create(STEADY, WORK.partitions, BROKERS as i16, &[("min.insync.replicas", "2")])?;
    let (routes, recorder) = (cluster.routes(), Recorder::default());
    let (at, place, written) = WORK.work(&routes, &recorder, &mut Random(1), |_, _| {
        let chosen = Chosen::from(&cluster)?;
        let Chosen { at, ref fails, ref stays, ref lost, kept, followed } = chosen;
        let client = || Client::connect(cluster.node(at).address);
        let mut steady = Steady { client: client()?, partition: kept, written: 0 };
        steady.write()?;
        // A log that is followed moves as well.
        ensure!(moved(&mut client()?, STEADY, followed, fails)? == 0, "it moves");
        eventually("it has moved", || Ok(held(fails, STEADY)?.contains(&followed).then_some(())))?;
        let is_kept = |steady: &[Described]| {
            let now = &steady[kept as usize];
            now.leader == Some(at) && now.isr.len() == BROKERS
        };
        chosen.fail()?;
        eventually("others lead what lay in the directory", || {
            steady.write()?;
            let (ledger, kept) = (cluster.look(TOPIC), cluster.look(STEADY));
            ensure!(kept.is_empty() || is_kept(&kept), "the other directory goes on: {kept:?}");
            let is_out = |index: &i32| {
                let now = &ledger[*index as usize];
                now.leader.is_some_and(|leader| leader != at) && !now.isr.contains(&at)
            };
            Ok((!ledger.is_empty() && lost.iter().all(is_out)).then_some(()))
        })?;

        // Everybody who watches is told.
        let health = cluster.node(at).http_get("/healthz")?;
        ensure!(health.starts_with("degraded: ") && health.contains(&fails.display().to_string()), "{health}");
        ensure!(cluster.node(at).http_get("/readyz")?.starts_with("ready, but degraded: "), "it serves");
        ensure!(shows(cluster.node(at), "varve_offline_log_directories 1")?, "it is counted");
        let mut dirs = told_of_dirs(&mut client()?)?;
        dirs.sort_by_key(|(_, code)| *code);
        ensure!(dirs == [(stays.clone(), 0), (fails.clone(), KAFKA_STORAGE_ERROR)], "{dirs:?}");
        let offline = told_offline(&mut client()?, at)?;
        ensure!(offline == *lost, "{offline:?} are offline of {lost:?}");

        // Nothing new goes there, and nothing moves out of it or into it.
        ensure!(moved(&mut client()?, STEADY, kept, fails)? == KAFKA_STORAGE_ERROR, "not into it");
        ensure!(moved(&mut client()?, TOPIC, lost[0], stays)? == KAFKA_STORAGE_ERROR, "not out of it");
        cluster.create("younger", 3, BROKERS as i16, &[])?;
        cluster.await_isr("younger", BROKERS)?;
        ensure!(held(stays, "younger")?.len() == 3, "new replicas are where there is a directory");
        for _ in 0..20 {
            steady.write()?;
        }
        ensure!(is_kept(&cluster.describe(STEADY)?), "it leads as before");

        // It can be started without the disk.
        let written = steady.written;
        cluster.stop(at)?;
        cluster.start_all(&[at])?;
        eventually("it is in sync with what it has", || {
            let steady = cluster.look(STEADY);
            Ok((!steady.is_empty() && steady[kept as usize].isr.len() == BROKERS).then_some(()))
        })?;
        ensure!(cluster.node(at).http_get("/healthz")?.starts_with("degraded: "), "the directory is not there");
        let offline = told_offline(&mut Client::connect(cluster.node(at).address)?, at)?;
        ensure!(offline == *lost, "{offline:?} are offline of {lost:?}");

        // The disk is there again, with logs that end where it failed or before.
        cluster.stop(at)?;
        chosen.come_back()?;
        cluster.start_all(&[at])?;
        cluster.await_isr(TOPIC, BROKERS)?;
        cluster.await_isr(STEADY, BROKERS)?;
        ensure!(cluster.node(at).http_get("/healthz")? == "ok\n", "all of it is there again");
        ensure!(shows(cluster.node(at), "varve_offline_partitions 0")?, "nothing is offline");
        ensure!(told_offline(&mut Client::connect(cluster.node(at).address)?, at)?.is_empty(), "nor told to be");
        Ok((at, Place { topic: STEADY.to_owned(), partition: kept }, written))
    })?;
    cluster.await_isr(TOPIC, BROKERS)?;
    WORK.judge(&routes, &recorder)?;

    // What came back has all of it: nobody else is asked.
    for other in (0..BROKERS).filter(|other| *other != at) {
        cluster.stop(other)?;
    }
    eventually("it leads all", || {
        let led =
            |topic| cluster.look(topic).iter().all(|one| one.leader == Some(at)) && !cluster.look(topic).is_empty();
        Ok((led(TOPIC) && led(STEADY)).then_some(()))
    })?;
    // Below the minimum it need not know what the last leader had only just committed (KIP-966).
    for topic in [TOPIC, STEADY] {
        let mut alter = tools::program("kafka-configs.sh")?;
        alter.args(["--bootstrap-server", &cluster.node(at).address.to_string(), "--alter", "--entity-type", "topics"]);
        tools::output_of(alter.args(["--entity-name", topic, "--add-config", "min.insync.replicas=1"]))?;
    }
    WORK.judge(&routes, &recorder)?;
    let end = routes.to_leader(&place)?.list_offset(&place.topic, place.partition, -1)?;
    ensure!(end == written, "{end} records for {written} that were acknowledged");
    Ok(())
}

#[test]
fn a_broker_that_loses_the_directory_with_what_is_its_own_leaves_the_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // The first is varve.data.dir, too.
    let cluster = start(folder.path(), ["varve-data", "b"])?;
    cluster.create(TOPIC, WORK.partitions, BROKERS as i16, &CONFIGS)?;
    let at = 1;
    let lost = cluster.folder(at).join("varve-data");
    ensure!(
        !held(&lost, TOPIC)?.is_empty() && !held(&cluster.folder(at).join("b"), TOPIC)?.is_empty(),
        "both are used"
    );
    fs::rename(&lost, lost.with_extension("lost"))?;
    fs::write(&lost, "")?;
    let routes = cluster.routes();
    eventually("others lead all of it", || {
        for place in WORK.places() {
            // Refused where the directory failed, until others lead.
            let _told = routes
                .to_leader(&place)
                .and_then(|mut leader| leader.produce(&place.topic, place.partition, batch(15_000)?));
        }
        let partitions = cluster.look(TOPIC);
        let is_out = |one: &Described| one.leader.is_some_and(|leader| leader != at) && one.isr.len() == BROKERS - 1;
        Ok((!partitions.is_empty() && partitions.iter().all(is_out)).then_some(()))
    })?;
    let refused = cluster.node(at).http_get("/healthz").err().map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|refused| refused.contains("503")), "{refused:?}");
    Ok(())
}

/// Writes `count` records to each partition of [`STEADY`], acknowledged by all who are in sync.
fn write_each(cluster: &Cluster, partitions: i32, count: usize) -> Result<()> {
    let routes = cluster.routes();
    for partition in 0..partitions {
        let place = Place { topic: STEADY.to_owned(), partition };
        for _ in 0..count {
            routes.to_leader(&place)?.produce(STEADY, partition, batch(100)?)?;
        }
    }
    Ok(())
}

fn end_of(cluster: &Cluster, partition: i32) -> Result<i64> {
    let place = Place { topic: STEADY.to_owned(), partition };
    cluster.routes().to_leader(&place)?.list_offset(STEADY, partition, -1)
}

/// The code with which an unclean election of a partition of [`STEADY`] is answered.
fn elected_uncleanly(client: &mut Client, partition: i32) -> Result<i16> {
    let asked = TopicPartitions::default().with_topic(TopicName(text(STEADY))).with_partitions(vec![partition]);
    let request = ElectLeadersRequest::default()
        .with_election_type(1)
        .with_topic_partitions(Some(vec![asked]))
        .with_timeout_ms(60_000);
    let answer = client.ask(2, &request)?;
    let results = answer.replica_election_results.first().and_then(|topic| topic.partition_result.first());
    Ok(results.context("one partition")?.error_code)
}

/// Whom a partition of [`STEADY`] waits for, as `kafka-topics.sh --describe` shows it.
fn last_known(client: &mut Client, partition: usize) -> Result<Vec<i32>> {
    let asked = TopicRequest::default().with_name(TopicName(text(STEADY)));
    let answer = client.ask(0, &DescribeTopicPartitionsRequest::default().with_topics(vec![asked]))?;
    let described = answer.topics.first().and_then(|topic| topic.partitions.get(partition)).context("described")?;
    Ok(described.last_known_elr.iter().flatten().map(|id| id.0).collect())
}

#[test]
fn the_last_leader_with_an_empty_disk_cuts_nobody_and_leads_again_when_it_has_the_old_one() -> Result<()> {
    const PARTITIONS: i32 = 3;
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), BROKERS, &[&SETTINGS[..], &UNHURRIED].concat())?;
    let configs = [("min.insync.replicas", "1"), ("remote.storage.enable", "false")];
    cluster.create(STEADY, PARTITIONS, BROKERS as i16, &configs)?;
    cluster.await_isr(STEADY, BROKERS)?;
    write_each(&cluster, PARTITIONS, 10)?;
    // The others fall behind, each of them as much.
    let last = cluster.describe(STEADY)?[0].leader.context("a leader")?;
    let others: Vec<usize> = (0..BROKERS).filter(|at| *at != last).collect();
    for &other in &others {
        cluster.stop(other)?;
    }
    eventually("it leads all, alone", || {
        let now = cluster.look(STEADY);
        Ok((!now.is_empty() && now.iter().all(|one| one.leader == Some(last) && one.isr == [last])).then_some(()))
    })?;
    write_each(&cluster, PARTITIONS, 5)?;
    cluster.stop(last)?;
    let (disk, aside) = (cluster.folder(last).join("varve-data"), cluster.folder(last).join("aside"));
    fs::rename(&disk, &aside)?;
    cluster.start_all(&others)?;
    cluster.start_all(&[last])?;

    // What happens next has seen all that comes of it.
    cluster.create("younger", 3, BROKERS as i16, &[])?;
    cluster.await_isr("younger", BROKERS)?;
    let leaderless = |one: &Described| one.leader.is_none() && one.isr.is_empty();
    let now = cluster.describe(STEADY)?;
    ensure!(now.iter().all(leaderless), "only the old disk has all that was acknowledged: {now:?}");
    for at in 0..BROKERS {
        ensure!(shows(cluster.node(at), "varve_lost_log_partitions 3")?, "broker {at} counts them");
        let waited_for = last_known(&mut Client::connect(cluster.node(at).address)?, 0)?;
        ensure!(waited_for == [last as i32], "{waited_for:?}");
    }
    let printed = cluster.printed(last)?;
    ensure!(printed.contains("came back without the logs that were the last ones in sync"), "{printed}");

    // Of one partition the operator gives up what only that disk had.
    let given_up = 0;
    ensure!(elected_uncleanly(&mut Client::connect(cluster.node(last).address)?, given_up)? == 0, "it is allowed");
    let is_led = |one: &Described| one.leader.is_some_and(|leader| leader != last) && one.isr.len() == BROKERS;
    eventually("another one leads it, and all follow", || {
        Ok(cluster.look(STEADY).first().is_some_and(is_led).then_some(()))
    })?;
    ensure!(end_of(&cluster, given_up)? == 10, "what others had is there");
    let now = cluster.describe(STEADY)?;
    ensure!(now[1..].iter().all(leaderless), "the others wait: {now:?}");

    // The disk is found again.
    cluster.stop(last)?;
    fs::rename(&disk, disk.with_extension("empty"))?;
    fs::rename(&aside, &disk)?;
    cluster.start_all(&[last])?;
    cluster.await_isr(STEADY, BROKERS)?;
    for partition in 0..PARTITIONS {
        let expected = if partition == given_up { 10 } else { 15 };
        let end = end_of(&cluster, partition)?;
        ensure!(end == expected, "{end} records in partition {partition}, not {expected}");
    }
    ensure!(shows(cluster.node(last), "varve_lost_log_partitions 0")?, "none is missed");
    Ok(())
}

#[test]
fn when_every_disk_is_lost_partitions_begin_behind_their_archive_once_an_operator_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), BROKERS, &[&SETTINGS[..], &UNHURRIED].concat())?;
    let configs = [("min.insync.replicas", "2"), ("internal.segment.bytes", "2000")];
    cluster.create(STEADY, 1, BROKERS as i16, &configs)?;
    cluster.create("alone", 1, 1, &[("remote.storage.enable", "false")])?;
    cluster.await_isr(STEADY, BROKERS)?;
    write_each(&cluster, 1, 40)?;
    let routes = cluster.routes();
    routes.to_leader(&Place { topic: "alone".to_owned(), partition: 0 })?.produce("alone", 0, batch(100)?)?;
    let place = Place { topic: STEADY.to_owned(), partition: 0 };
    eventually("all is in the bucket", || {
        Ok((routes.to_leader(&place)?.list_offset(STEADY, 0, -5)? == 39).then_some(()))
    })?;
    for at in 0..BROKERS {
        cluster.stop(at)?;
        fs::remove_dir_all(cluster.folder(at).join("varve-data"))?;
    }
    let all: Vec<usize> = (0..BROKERS).collect();
    cluster.start_all(&all)?;
    eventually("the only replica there was leads an empty log", || {
        let now = cluster.look("alone");
        Ok(now.first().is_some_and(|one| one.leader.is_some()).then_some(()))
    })?;
    let now = cluster.describe(STEADY)?;
    ensure!(now[0].leader.is_none(), "nobody has what was acknowledged: {now:?}");
    ensure!(elected_uncleanly(&mut Client::connect(cluster.node(0).address)?, 0)? == 0, "it is allowed");
    cluster.await_isr(STEADY, BROKERS)?;
    ensure!(end_of(&cluster, 0)? == 40, "offsets go on behind the archive: {}", end_of(&cluster, 0)?);
    write_each(&cluster, 1, 1)?;
    ensure!(end_of(&cluster, 0)? == 41, "it takes records");
    Ok(())
}
