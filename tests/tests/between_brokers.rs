//! Brokers that speak with each other through TLS, and log in to each other, with an authorizer that lets nobody copy records but
//! them; and those who only say that they are brokers.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    certificates::{Authority, Identity},
    client::Client,
    cluster::Cluster,
    identity_provider::IdentityProvider,
    kafka_tools::KafkaTools,
    node::{eventually, until},
    tools,
    workload::Routes,
};

const BROKERS: usize = 3;
const TOPIC: &str = "ledger";
const SETTINGS: [&str; 10] = [
    "broker.session.timeout.ms=3600000",
    "replica.lag.time.max.ms=30000",
    "offsets.topic.num.partitions=3",
    "transaction.state.log.num.partitions=3",
    "transaction.state.log.min.isr=2",
    "group.initial.rebalance.delay.ms=0",
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "connection.failed.authentication.delay.ms=1",
    "inter.broker.listener.name=INTERNAL",
    "leader.imbalance.check.interval.seconds=1",
];
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

fn tls(own: &Path, trusted: &Path) -> Vec<String> {
    vec![
        "listeners=INTERNAL://127.0.0.1:0".to_owned(),
        "listener.name.internal.ssl.keystore.type=PEM".to_owned(),
        format!("listener.name.internal.ssl.keystore.location={}", own.display()),
        "listener.name.internal.ssl.truststore.type=PEM".to_owned(),
        format!("listener.name.internal.ssl.truststore.location={}", trusted.display()),
        "listener.name.internal.ssl.client.auth=required".to_owned(),
    ]
}

/// Writes `count` records to the first partition, each kept by all in sync before the next.
fn produce(routes: &Routes, count: usize) -> Result<i64> {
    let place = varve_tests::history::Place { topic: TOPIC.to_owned(), partition: 0 };
    for number in 0..count {
        let (value, timestamp) =
            (format!("value {number}"), Timestamp::from_wire(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64));
        let mut batch = BatchBuilder::new(Offset::ZERO);
        batch.push(RecordContent { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
        let batch = Bytes::from(batch.build()?);
        eventually("a record is kept", || {
            Ok(routes.to_leader(&place).and_then(|mut leader| leader.produce(TOPIC, 0, batch.clone())).ok())
        })?;
    }
    until("the end of the log", || routes.to_leader(&place)?.list_offset(TOPIC, 0, -1))
}

fn await_printed(cluster: &Cluster, at: usize, words: &[&str]) -> Result<()> {
    eventually(&format!("broker {at} says {words:?}"), || {
        let printed = cluster.printed(at)?;
        Ok(printed.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
    .with_context(|| cluster.printed(at).unwrap_or_default())
}

#[test]
fn brokers_know_each_other_by_certificates_which_are_renewed_and_an_impostor_gets_no_record() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let (first, second) = (Authority::new(folder.path(), "first")?, Authority::new(folder.path(), "second")?);
    let issue = |authority: &Authority, name: &str| -> Result<Identity> { authority.issue(name, &HOSTS, false) };
    for broker in 0..BROKERS {
        fs::copy(issue(&first, &format!("broker-{broker}"))?.both, at(&format!("own-{broker}.pem")))?;
        fs::copy(&first.certificate, at(&format!("trusted-{broker}.pem")))?;
    }
    let place = folder.path().to_owned();
    let own = move |broker: usize| {
        let file = |kind: &str| place.join(format!("{kind}-{broker}.pem"));
        tls(&file("own"), &file("trusted"))
    };
    let common = [
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:SSL",
        "super.users=User:ANONYMOUS;User:CN=broker-0;User:CN=broker-1;User:CN=broker-2",
    ];
    let mut cluster = Cluster::start_each(folder.path(), BROKERS, &[&SETTINGS[..], &common].concat(), own)?;
    cluster.create(TOPIC, 1, BROKERS as i16, &[("min.insync.replicas", "2")])?;
    produce(&cluster.routes(), 10)?;
    cluster.await_isr(TOPIC, BROKERS)?;

    // Everybody trusts a second authority, too, and then has a certificate from it, without a restart.
    let both = [fs::read_to_string(&first.certificate)?, fs::read_to_string(&second.certificate)?].concat();
    for broker in 0..BROKERS {
        fs::write(at(&format!("trusted-{broker}.pem")), &both)?;
    }
    let renewed = |cluster: &Cluster, times: usize| {
        eventually("brokers take new certificates", || {
            let counts = (0..BROKERS)
                .map(|broker| Ok(cluster.printed(broker)?.matches("new TLS keys and certificates").count()))
                .collect::<Result<Vec<_>>>()?;
            Ok(counts.iter().all(|count| *count >= times).then_some(()))
        })
    };
    renewed(&cluster, 1)?;
    for broker in 0..BROKERS {
        fs::copy(issue(&second, &format!("broker-{broker}"))?.both, at(&format!("own-{broker}.pem")))?;
    }
    renewed(&cluster, 2)?;
    cluster.stop(1)?;
    cluster.start_all(&[1])?;
    produce(&cluster.routes(), 10)?;
    cluster.await_isr(TOPIC, BROKERS)?;

    // Somebody who has its id, but no certificate of its own issuer: it is let in by etcd, and copies nothing.
    cluster.stop(2)?;
    let before = produce(&cluster.routes(), 10)?;
    let kept = fs::read(at("own-2.pem"))?;
    let stranger = Authority::new(folder.path(), "stranger")?;
    fs::copy(issue(&stranger, "broker-2")?.both, at("own-2.pem"))?;
    fs::write(at("trusted-2.pem"), [both, fs::read_to_string(&stranger.certificate)?].concat())?;
    cluster.start_all(&[2])?;
    await_printed(&cluster, 2, &["nothing can be fetched", "TLS between brokers failed", "ssl.truststore"])?;
    produce(&cluster.routes(), 10)?;
    ensure!(cluster.describe(TOPIC)?[0].isr.iter().all(|at| *at != 2), "an impostor is in sync");
    let end = Client::connect(cluster.addresses()[2])?.list_offset(TOPIC, 0, -1);
    ensure!(end.is_err(), "an impostor leads nothing");
    let log = fs::metadata(cluster.folder(2).join(format!("varve-data/log/{TOPIC}-0/00000000000000000000.log")))?.len();
    let whole =
        fs::metadata(cluster.folder(0).join(format!("varve-data/log/{TOPIC}-0/00000000000000000000.log")))?.len();
    ensure!(log < whole, "{log} of {whole} bytes: an impostor has copied what came after {before}");

    // The right certificate is back: without a restart it goes on.
    fs::write(at("own-2.pem"), kept)?;
    cluster.await_isr(TOPIC, BROKERS)
}

#[test]
fn brokers_log_in_by_scram_inside_of_tls_and_need_the_right_to_copy_records() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "ca")?;
    let identity = authority.issue("broker", &HOSTS, false)?;
    let password = folder.path().join("password-2");
    fs::write(&password, "guess")?;
    let (own, trusted) = (identity.both.clone(), authority.certificate.clone());
    let own = move |broker: usize| {
        let given = match broker {
            2 => fs::read_to_string(&password).unwrap_or_default(),
            _ => "broker-secret".to_owned(),
        };
        let jaas = format!(
            "listener.name.internal.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required username=\"broker\" password=\"{given}\";"
        );
        [tls(&own, &trusted), vec![jaas]].concat()
    };
    let common = [
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:SASL_SSL",
        "listener.name.internal.sasl.enabled.mechanisms=SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512",
        "listener.name.internal.connections.max.reauth.ms=20000",
        "varve.first.users=SCRAM-SHA-512=[name=broker,password=broker-secret]",
        "super.users=User:ANONYMOUS",
    ];
    let mut cluster = Cluster::start_each(folder.path(), BROKERS, &[&SETTINGS[..], &common].concat(), own)?;
    cluster.create(TOPIC, 3, BROKERS as i16, &[])?;
    // Whoever is nobody's broker by its password.
    await_printed(
        &cluster,
        2,
        &["nothing can be fetched", "login as broker by SCRAM-SHA-512 failed", "sasl.jaas.config"],
    )?;
    // The others are who they say, which is not enough.
    await_printed(&cluster, 0, &["nothing can be fetched", "CLUSTER_ACTION"])?;
    await_printed(&cluster, 1, &["nothing can be fetched", "CLUSTER_ACTION"])?;
    let tools = KafkaTools::at(cluster.addresses()[0]);
    tools.run("kafka-acls.sh --add --cluster --operation ClusterAction --allow-principal User:broker")?;
    // Without a restart those two go on; the third one needs its password.
    eventually("two of three are in sync", || {
        let partitions = cluster.look(TOPIC);
        let are_in_sync =
            partitions.iter().all(|one| one.isr.contains(&0) && one.isr.contains(&1) || one.leader == Some(2));
        Ok((!partitions.is_empty() && are_in_sync).then_some(()))
    })?;
    fs::write(folder.path().join("password-2"), "broker-secret")?;
    cluster.stop(2)?;
    cluster.start_all(&[2])?;
    cluster.await_isr(TOPIC, BROKERS)?;
    produce(&cluster.routes(), 10)?;

    // Markers and offsets of transactions go from broker to broker as well.
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let mut command = tools::program("java-Transactions")?;
    command.args([&addresses.join(","), "java"]);
    tools::output_of(&mut command)?;

    let renewed = "varve_reauthentications_total{listener=\"INTERNAL\",result=\"successful\"}";
    let page = eventually("brokers say again who they are", || {
        Ok(Some(cluster.node(0).http_get("/metrics")?).filter(|page| page.contains(renewed)))
    })?;
    ensure!(page.contains("varve_sessions_expired_total 0"), "sessions end:\n{page}");
    for at in 0..BROKERS {
        ensure!(!cluster.printed(at)?.contains("broker-secret"), "a password is in the log of broker {at}");
    }
    Ok(())
}

/// Each broker is a client of an identity provider whose tokens end soon. Sessions end with them, and nothing stops for that.
#[test]
fn brokers_log_in_by_tokens_of_an_identity_provider_which_are_renewed_before_they_end() -> Result<()> {
    const LIFE_S: u64 = 30;
    const SECRETS: [&str; BROKERS] = ["zero-hunter2", "one-hunter2", "two-hunter2"];
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys.json");
    let clients: BTreeMap<String, String> =
        (0..BROKERS).map(|broker| (format!("broker-{broker}"), SECRETS[broker].to_owned())).collect();
    let provider = IdentityProvider::start(&keys, clients, LIFE_S)?;
    let secret = folder.path().join("secret-2");
    fs::write(&secret, "guess-hunter2")?;
    let own = move |broker: usize| {
        let given = match broker {
            2 => fs::read_to_string(&secret).unwrap_or_default(),
            _ => SECRETS[broker].to_owned(),
        };
        vec![
            "listeners=INTERNAL://127.0.0.1:0".to_owned(),
            format!(
                "listener.name.internal.oauthbearer.sasl.jaas.config=\
                 org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=\"broker-{broker}\" \
                 clientSecret=\"{given}\" scope=\"kafka\";"
            ),
        ]
    };
    let endpoint = format!("listener.name.internal.oauthbearer.sasl.oauthbearer.token.endpoint.url={}", provider.url());
    let keys = format!("sasl.oauthbearer.jwks.endpoint.url=file://{}", keys.display());
    let common = [
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:SASL_PLAINTEXT",
        "listener.name.internal.sasl.enabled.mechanisms=OAUTHBEARER",
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER",
        "sasl.oauthbearer.expected.audience=kafka",
        "sasl.oauthbearer.clock.skew.seconds=0",
        "super.users=User:ANONYMOUS;User:broker-0;User:broker-1;User:broker-2",
        endpoint.as_str(),
        keys.as_str(),
    ];
    let mut cluster = Cluster::start_each(folder.path(), BROKERS, &[&SETTINGS[..], &common].concat(), own)?;
    cluster.create(TOPIC, 3, BROKERS as i16, &[])?;
    // Whom the provider does not know gets no token, and says so, without the secret that the provider repeats.
    await_printed(&cluster, 2, &["nothing can be fetched", "invalid_client", "sasl.oauthbearer.token.endpoint.url"])?;
    eventually("two of three are in sync", || {
        let partitions = cluster.look(TOPIC);
        let are_in_sync =
            partitions.iter().all(|one| one.isr.contains(&0) && one.isr.contains(&1) || one.leader == Some(2));
        Ok((!partitions.is_empty() && are_in_sync).then_some(()))
    })?;
    fs::write(folder.path().join("secret-2"), SECRETS[2])?;
    cluster.stop(2)?;
    cluster.start_all(&[2])?;
    cluster.await_isr(TOPIC, BROKERS)?;
    produce(&cluster.routes(), 10)?;

    let renewed = "varve_reauthentications_total{listener=\"INTERNAL\",result=\"successful\"}";
    eventually("tokens are renewed, and brokers say again who they are", || {
        let mut are_renewed = true;
        for at in 0..BROKERS {
            are_renewed &= provider.given_to(&format!("broker-{at}")) >= 3;
            are_renewed &= cluster.node(at).http_get("/metrics")?.contains(renewed);
        }
        Ok(are_renewed.then_some(()))
    })?;
    produce(&cluster.routes(), 10)?;
    cluster.await_isr(TOPIC, BROKERS)?;
    for at in 0..BROKERS {
        let page = cluster.node(at).http_get("/metrics")?;
        ensure!(page.contains("varve_sessions_expired_total 0"), "sessions end:\n{page}");
        let printed = cluster.printed(at)?;
        // All tokens of the provider begin alike.
        ensure!(!printed.contains("hunter2") && !printed.contains("eyJ"), "a secret is in the log of broker {at}");
    }
    Ok(())
}
