//! Three brokers, one etcd, one bucket: what is acknowledged by all survives the end of any one of them, and clients go on.
//!
//! `VARVE_CLUSTER_ROUNDS` and `VARVE_CLUSTER_SEED` change the loop of kills.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kafka_protocol::{
    messages::{
        FindCoordinatorRequest, IncrementalAlterConfigsRequest, MetadataRequest, TopicName,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use serde_json::Value;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::{config::Codec, model::Offset};
use varve_tests::{
    client::Client,
    cluster::{
        Cluster, Described,
        load::{CONFIGS, CREW, Load, SETTINGS, TOPIC, UNHURRIED, judged, setting},
    },
    history::Place,
    kafka_tools::KafkaTools,
    lines::Lines,
    node::{eventually, stable_address, until, varve},
    pair::{Pair, WATCHED},
    running::signal,
    tools,
    transactions::{CommittedReader, batch},
};

const BROKERS: usize = 3;
const LOAD: Load = Load { brokers: BROKERS, replicas: BROKERS, replicas_after: BROKERS, settings: &[] };

#[test]
fn no_history_of_writers_and_groups_breaks_a_promise_when_brokers_are_killed() -> Result<()> {
    let rounds = setting("VARVE_CLUSTER_ROUNDS", 4)?;
    judged(LOAD, setting("VARVE_CLUSTER_SEED", 1)?, &|cluster, random, faults| {
        for round in 0..rounds {
            if faults.recv_timeout(Duration::from_millis(500 + random.below(2_000))).is_ok() {
                break;
            }
            // The leader of a partition as a rule, which is the worst.
            let partitions = cluster.describe(TOPIC)?;
            let at = partitions[random.below(partitions.len() as u64) as usize].leader;
            let at = at.unwrap_or(random.below(BROKERS as u64) as usize);
            let killed = Instant::now();
            cluster.kill(at);
            eventually("other brokers lead", || {
                let partitions = cluster.look(TOPIC);
                let is_led = !partitions.is_empty()
                    && partitions.iter().all(|one| one.leader.is_some_and(|leader| leader != at));
                Ok(is_led.then_some(()))
            })?;
            println!("round {round}: broker {at} killed, others lead after {:?}", killed.elapsed());
            cluster.start_all(&[at]).with_context(|| format!("round {round} of {rounds}"))?;
            cluster.await_isr(TOPIC, BROKERS)?;
        }
        Ok(())
    })
}

/// Its lease is longer than this test: others know from its machine, which refuses connections, that it has ended. It was the
/// controller as well as a leader, and comes back in the place that it left.
#[test]
fn a_killed_broker_is_missed_long_before_its_lease_ends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [&SETTINGS[1..], &["broker.session.timeout.ms=3600000"]].concat();
    let mut cluster = Cluster::start(folder.path(), BROKERS, &settings)?;
    cluster.create(TOPIC, CREW.partitions, BROKERS as i16, &CONFIGS)?;
    for _ in 0..2 {
        let killed = eventually("somebody decides", || Ok(cluster.controller().ok().flatten()))?;
        cluster.kill(killed);
        eventually("others lead and decide", || {
            let partitions = cluster.look(TOPIC);
            let is_led = |one: &Described| one.leader.is_some_and(|leader| leader != killed);
            let decides = cluster.controller().ok().flatten().is_some_and(|at| at != killed);
            Ok((decides && !partitions.is_empty() && partitions.iter().all(is_led)).then_some(()))
        })?;
        cluster.start_all(&[killed])?;
        cluster.await_isr(TOPIC, BROKERS)?;
    }
    Ok(())
}

/// A partition that is below its minimum tells who may lead it all the same and, once nobody does, who led it last (KIP-966).
#[test]
fn kafkas_tool_shows_who_may_lead_a_partition_that_is_below_its_minimum() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), BROKERS, &SETTINGS)?;
    cluster.create("pair", 1, 2, &[("min.insync.replicas", "2")])?;
    let replicas = cluster.describe("pair")?.remove(0).replicas;
    let other = (0..BROKERS).find(|at| !replicas.contains(at)).context("a broker without it")?;
    let tool = KafkaTools::at(cluster.addresses()[other]);
    let await_shown = |elr: &str, last: &str| {
        let wanted = format!("\tElr: {elr}\tLastKnownElr: {last}");
        until(&format!("it shows {wanted:?}"), || {
            let said = tool.run("kafka-topics.sh --describe --topic pair")?;
            ensure!(said.lines().any(|line| line.ends_with(&wanted)), "{said}");
            Ok(())
        })
    };
    let [first, second] = replicas[..] else { bail!("two replicas, not {replicas:?}") };
    await_shown("", "")?;
    cluster.kill(second);
    await_shown(&second.to_string(), "")?;
    cluster.kill(first);
    await_shown(&format!("{},{}", first.min(second), first.max(second)), &first.to_string())?;
    cluster.start_all(&[first, second])?;
    cluster.await_isr("pair", 2)?;
    await_shown("", "")
}

/// Beside writers and groups that forgive much, Kafka's own producer and consumer, which must not see a single error.
#[test]
fn a_rolling_restart_moves_leadership_first_and_no_client_sees_an_error() -> Result<()> {
    // Nobody is missed before its lease ends, which it does not.
    let load = Load { settings: &UNHURRIED, ..LOAD };
    judged(load, setting("VARVE_CLUSTER_SEED", 2)?, &|cluster, _, faults| {
        let folder = tempfile::tempdir()?;
        let pair = Pair::start(cluster, folder.path())?;
        for at in 0..BROKERS {
            if faults.recv_timeout(Duration::from_millis(1_000)).is_ok() {
                break;
            }
            let partitions = cluster.describe(TOPIC)?;
            ensure!(partitions.iter().any(|one| one.leader == Some(at)), "broker {at} leads something: {partitions:?}");
            cluster.stop(at).with_context(|| format!("broker {at} stops"))?;
            // It saw others lead all of it before it stopped to serve: they did not have to miss it.
            let printed = cluster.printed(at)?;
            ensure!(printed.contains("others have taken over what was led here"), "broker {at}:\n{printed}");
            // Nobody waits for a lease to end, only for what that broker has seen.
            eventually("all hear of those who lead", || {
                let partitions = cluster.describe(TOPIC)?;
                let is_led = partitions.iter().all(|one| one.leader.is_some_and(|leader| leader != at));
                Ok(is_led.then_some(()))
            })?;
            cluster.start_all(&[at])?;
            [TOPIC, WATCHED].iter().try_for_each(|topic| cluster.await_isr(topic, BROKERS))?;
        }
        pair.judge(cluster)
    })
}

/// Changes a dynamic setting of the broker `at`.
fn set(cluster: &Cluster, at: usize, name: &str, value: &str) -> Result<()> {
    set_over(cluster.node(at).address, at, name, value)
}

fn set_over(address: SocketAddr, at: usize, name: &str, value: &str) -> Result<()> {
    let config = AlterableConfig::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let broker = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_string(at.to_string()))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![broker]);
    let answer = Client::connect(address)?.ask(1, &request)?.responses.remove(0);
    ensure!(answer.error_code == 0, "{name}={value}: {} {:?}", answer.error_code, answer.error_message);
    Ok(())
}

#[test]
fn fetchers_come_and_go_while_records_are_copied_and_lose_none() -> Result<()> {
    let load = Load { settings: &UNHURRIED, ..LOAD };
    judged(load, setting("VARVE_CLUSTER_SEED", 3)?, &|cluster, _, faults| {
        for fetchers in ["2", "4", "8", "4", "2", "1"] {
            if faults.recv_timeout(Duration::from_millis(500)).is_ok() {
                break;
            }
            for at in 0..BROKERS {
                set(cluster, at, "num.replica.fetchers", fetchers)?;
                let said = format!("goes to another number of connections fetchers={fetchers}");
                until(&format!("broker {at} has {fetchers} fetchers"), || {
                    let printed = cluster.printed(at)?;
                    ensure!(printed.contains(&said), "{printed}");
                    Ok(())
                })?;
            }
            cluster.await_isr(TOPIC, BROKERS)?;
        }
        Ok(())
    })
}

#[test]
fn the_listener_of_brokers_moves_while_they_copy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), 2, &UNHURRIED)?;
    cluster.create(TOPIC, 4, 2, &[("min.insync.replicas", "2")])?;
    cluster.await_isr(TOPIC, 2)?;
    let mut addresses = cluster.addresses();
    let home = addresses[0];
    let fetchers = ["2", "4"];
    for (to, fetchers) in [stable_address()?, home].into_iter().zip(fetchers) {
        set_over(addresses[0], 0, "listeners", &format!("PLAINTEXT://{to}"))?;
        addresses[0] = to;
        for &at in &addresses {
            until(&format!("those who ask at {at} are told where broker 0 is"), || {
                let brokers = Client::connect(at)?.ask(9, &MetadataRequest::default())?.brokers;
                let told = brokers.iter().find(|broker| broker.node_id.0 == 0).map(|broker| broker.port);
                ensure!(told == Some(i32::from(to.port())), "{brokers:?}");
                Ok(())
            })?;
        }
        // Connections that are there go on, and new ones find the way.
        set_over(addresses[1], 1, "num.replica.fetchers", fetchers)?;
        let said = format!("goes to another number of connections fetchers={fetchers}");
        until("broker 1 has more connections", || {
            let printed = cluster.printed(1)?;
            ensure!(printed.contains(&said), "{printed}");
            Ok(())
        })?;
        for (partition, leader) in leaders(addresses[1])?.into_iter().enumerate() {
            let mut client = Client::connect(addresses[leader])?;
            let mut record = BatchBuilder::new(Offset::ZERO);
            let value = Some(b"taken by both".as_slice());
            record.push(RecordContent { timestamp: None, key: None, value, headers: &[] });
            client.produce(TOPIC, partition as i32, record.build()?.into())?;
        }
    }
    Ok(())
}

/// The leaders of the topic's partitions, in order, as the broker at `address` has it.
fn leaders(address: SocketAddr) -> Result<Vec<usize>> {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(TOPIC))));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let mut partitions = Client::connect(address)?.ask(9, &request)?.topics.remove(0).partitions;
    partitions.sort_by_key(|partition| partition.partition_index);
    partitions.iter().map(|partition| usize::try_from(partition.leader_id.0).context("a leader")).collect()
}

#[test]
fn clients_go_on_while_etcd_is_away_and_brokers_need_no_restart_when_it_is_back() -> Result<()> {
    judged(LOAD, setting("VARVE_CLUSTER_SEED", 3)?, &|cluster, _, faults| {
        let routes = cluster.routes();
        let ends = || -> Result<Vec<i64>> {
            let end = |place: Place| routes.to_leader(&place)?.list_offset(&place.topic, place.partition, -1);
            CREW.places().into_iter().map(end).collect()
        };
        // Producer ids, and the topic of groups, come from etcd.
        until("everybody is at work", || {
            ensure!(!cluster.look("__consumer_offsets").is_empty(), "groups have no topic");
            let ends = ends()?;
            ensure!(ends.iter().all(|end| *end > 0), "{ends:?}");
            Ok(())
        })?;
        cluster.await_isr(TOPIC, BROKERS)?;
        cluster.etcd[0].kill();
        // Longer than leases last: nobody is there to end them.
        let _ = faults.recv_timeout(Duration::from_millis(2_500));
        let before = until("leaders tell how much they have", ends)?;
        until("records are committed without etcd", || {
            let now = ends()?;
            ensure!(now.iter().zip(&before).all(|(now, before)| now > before), "{now:?} after {before:?}");
            Ok(())
        })?;
        cluster.etcd[0].restart()?;
        cluster.await_isr(TOPIC, BROKERS)?;
        // Changes are taken again.
        cluster.create("later", 1, BROKERS as i16, &[])?;
        cluster.await_isr("later", BROKERS)
    })
}

/// The machine of a broker went down, and the broker's first start after that fails late: the second one must not take the
/// first for a life that others know of, or it could lead with a log that has lost acknowledged records.
#[test]
fn a_start_that_fails_does_not_hide_a_crash_of_the_machine_from_the_others() -> Result<()> {
    const OTHER_BOOT: &str = "a boot before this one";
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), BROKERS, &SETTINGS)?;
    let last_life = cluster.folder(0).join("varve-data/last-life");
    let left = || std::fs::read_to_string(&last_life).map(|text| text.trim().to_owned());
    let this_boot = left()?;
    cluster.stop(0)?;
    std::fs::write(&last_life, OTHER_BOOT)?;
    let taken = std::net::TcpListener::bind(cluster.addresses()[0])?;
    let failed = cluster.start_all(&[0]).expect_err("the port is taken");
    ensure!(format!("{failed:#}").contains("cannot listen"), "{failed:#}");
    ensure!(left()? != this_boot, "nobody knows of that life");
    drop(taken);
    cluster.start_all(&[0])?;
    ensure!(left()? == this_boot, "others know what may be lost, and this life counts");
    Ok(())
}

/// A process that waits for a place among the brokers can be asked to end.
#[test]
fn a_double_waits_for_the_end_of_the_first_and_can_be_stopped_meanwhile() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), 1, &SETTINGS)?;
    let place = folder.path().join("double");
    std::fs::create_dir_all(&place)?;
    let log = place.join("output.log");
    let output = std::fs::File::create(&log)?;
    let mut double = varve()?;
    let metadata = format!("varve.metadata.url=etcd://{}/varve", cluster.etcd[0].address());
    for setting in SETTINGS.iter().chain(&["node.id=0", "listeners=PLAINTEXT://127.0.0.1:0", metadata.as_str()]) {
        double.args(["--override", setting]);
    }
    let mut double = double.current_dir(&place).stdout(output.try_clone()?).stderr(output).spawn()?;
    let printed = || std::fs::read_to_string(&log).unwrap_or_default();
    let ended = eventually("the double waits", || {
        ensure!(double.try_wait()?.is_none(), "the double ended: {}", printed());
        Ok(printed().contains("waiting for the lease of an earlier life").then_some(()))
    })
    .and_then(|()| {
        signal(double.id(), "-TERM")?;
        eventually("the double ends", || Ok(double.try_wait()?))
    });
    let _ = double.kill();
    let _ = double.wait();
    let ended = ended?;
    ensure!(ended.success(), "{ended}: {}", printed());
    Ok(())
}

/// The leader of each partition writes, another broker coordinates and is killed before the end: whoever takes over carries the
/// decision to the leaders, and readers of committed records see all of the transaction, once.
#[test]
fn a_transaction_is_committed_whole_by_the_coordinator_that_takes_over() -> Result<()> {
    const ID: &str = "mover";
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), BROKERS, &SETTINGS)?;
    cluster.create(TOPIC, CREW.partitions, BROKERS as i16, &CONFIGS)?;
    let routes = cluster.routes();
    let coordinator = |cluster: &Cluster| -> Result<usize> {
        let asked = FindCoordinatorRequest::default().with_key_type(1).with_key(StrBytes::from_static_str(ID));
        let found = cluster.routes().to_any()?.ask(3, &asked)?;
        ensure!(found.error_code == 0, "FindCoordinator says {}", found.error_code);
        Ok(usize::try_from(found.node_id.0)?)
    };
    let asked = |cluster: &Cluster| -> Result<Client> {
        let client = Client::connect(cluster.addresses()[coordinator(cluster)?])?;
        client.wait_at_most(Duration::from_secs(10))?;
        Ok(client)
    };
    let mut producer = until("a producer", || asked(&cluster)?.init_producer(ID, 600_000))?;
    let rounds = 3;
    for round in 0..rounds {
        for (place, index) in CREW.places().iter().zip(0..) {
            let value = format!("{round}/{index}");
            let batch = batch(producer, 0, None, &value)?;
            until("a record is taken", || {
                routes.to_leader(place)?.produce_in_transaction(TOPIC, place.partition, 12, ID, batch.clone())
            })?;
        }
        let at = until("somebody coordinates", || coordinator(&cluster))?;
        let killed = Instant::now();
        cluster.kill(at);
        let commit = round != 1;
        producer = until("another coordinator ends it", || {
            let now = coordinator(&cluster)?;
            ensure!(now != at, "it was killed");
            asked(&cluster)?.end_transaction(ID, producer, commit)
        })?;
        println!("round {round}: coordinator {at} killed, the transaction ended after {:?}", killed.elapsed());
        cluster.start_all(&[at])?;
        cluster.await_isr(TOPIC, BROKERS)?;
        cluster.await_isr("__transaction_state", BROKERS)?;
    }
    for (place, index) in CREW.places().iter().zip(0..) {
        let expected: Vec<String> = [0, 2].iter().map(|round| format!("{round}/{index}")).collect();
        // Markers are on their way when the producer is answered.
        until("what was committed is seen", || {
            let mut leader = routes.to_leader(place)?;
            let end = leader.list_offset(TOPIC, place.partition, -1)?;
            let mut reader = CommittedReader::start(&mut leader, TOPIC, place.partition)?;
            let seen: Vec<String> = reader.read_to(&mut leader, end)?.into_iter().map(|seen| seen.value).collect();
            ensure!(seen == expected, "{place}: {seen:?}, not {expected:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn javas_transactions_span_brokers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), BROKERS, &SETTINGS)?;
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = tools::program("java-Transactions")?;
    command.args([&addresses.join(","), "java"]);
    tools::output_of(&mut command)?;
    Ok(())
}

/// The sum of a metric's values on a broker, of those with these labels.
fn value(cluster: &Cluster, at: usize, metric: &str, labels: &str) -> Result<f64> {
    let page = cluster.node(at).http_get("/metrics")?;
    let of_metric =
        page.lines().filter_map(|line| line.strip_prefix(metric)).filter(|rest| rest.starts_with(['{', ' ']));
    let values = of_metric.filter(|rest| rest.contains(labels)).filter_map(|rest| rest.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<f64>().with_context(|| format!("{metric}: {value}"))).sum()
}

#[test]
fn operators_see_who_decides_and_what_goes_on_between_brokers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), BROKERS, &[&SETTINGS[..], &UNHURRIED].concat())?;
    cluster.create(TOPIC, CREW.partitions, BROKERS as i16, &[("min.insync.replicas", "2")])?;
    let holder = |cluster: &Cluster| {
        eventually("somebody decides", || {
            let office = cluster.etcd[0].ctl(&["get", "--print-value-only", "/varve/controller"])?;
            if office.trim().is_empty() {
                return Ok(None);
            }
            let held: Value = serde_json::from_str(&office).context(office)?;
            Ok(held["broker"].as_u64())
        })
    };
    // Not the one with the lowest number, which would be named without looking.
    cluster.stop(0)?;
    holder(&cluster)?;
    cluster.start_all(&[0])?;
    cluster.await_isr(TOPIC, BROKERS)?;
    let controller = usize::try_from(holder(&cluster)?)?;
    for (at, address) in cluster.addresses().into_iter().enumerate() {
        let wanted = format!("LeaderId:               {controller}\n");
        until(&format!("broker {at} knows who decides"), || {
            let said =
                KafkaTools::at(address).run("kafka-metadata-quorum.sh --bootstrap-server NODE describe --status")?;
            ensure!(said.contains(&wanted), "not {controller}:\n{said}");
            ensure!(
                value(&cluster, at, "varve_controller", "")? == f64::from(u8::from(at == controller)),
                "at /metrics"
            );
            Ok(())
        })?;
    }

    let leader = cluster.describe(TOPIC)?[0].leader.context("a leader")?;
    let mut client = Client::connect(cluster.addresses()[leader])?;
    for batch in Lines::load(None)?.batches(Codec::Zstd, 16 << 10, 64 << 10)? {
        client.produce(TOPIC, 0, batch)?;
    }
    let sum = |metric: &str, labels: &str| -> Result<f64> {
        (0..BROKERS).map(|at| value(&cluster, at, metric, labels)).sum()
    };
    let of_topic = format!("topic=\"{TOPIC}\"");
    let (produced, records) = (
        sum("varve_produced_bytes_total", &of_topic)?,
        value(&cluster, leader, "varve_produced_records_total", &of_topic)?,
    );
    ensure!(produced > 16_000.0 && records > 10.0, "{records} records with {produced} bytes of producers");
    // What one sends another one gets; a look at one broker comes before that at the next.
    until("the copies are counted", || {
        let (sent, got) =
            (sum("varve_replicated_bytes_total", "\"out\"")?, sum("varve_replicated_bytes_total", "\"in\"")?);
        ensure!(sent == got && got >= 2.0 * produced, "{sent} sent, {got} got");
        Ok(())
    })?;
    ensure!(sum("varve_isr_changes_total", "expand")? > 0.0, "who came back was let in");
    ensure!(
        sum("varve_elections_total", "unclean")? == 0.0 && sum("varve_elections_total", "\"clean")? > 0.0,
        "elections"
    );
    for at in 0..BROKERS {
        ensure!(value(&cluster, at, "varve_metadata_requests_total", "outcome=\"ok\"")? > 0.0, "etcd answers");
        ensure!(value(&cluster, at, "process_open_fds", "")? > 0.0, "the process");
    }
    Ok(())
}
