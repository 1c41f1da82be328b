//! The configuration as a whole: layers, precedence, refusals, and what an existing `server.properties` becomes.

use std::path::Path;
use std::time::Duration;

use varve_metadata::config::{ConfigDef, Kind, TopicConfig, Treatment};

use super::*;
use crate::security::SecurityProtocol;

fn load(file: &str) -> Result<Loaded, Vec<String>> {
    load_with(file, &[], &[])
}

fn load_with(file: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Loaded, Vec<String>> {
    let sources = Sources {
        file: Some(("server.properties".into(), file.into())),
        environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        overrides: overrides.iter().map(|text| (*text).into()).collect(),
    };
    BrokerConfig::load(&sources).map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

fn topic(config: &BrokerConfig) -> TopicConfig {
    TopicConfig::resolve(&config.topic_defaults, &Default::default()).unwrap()
}

#[test]
fn without_any_configuration_a_node_works_on_loopback_in_one_directory() {
    let Loaded { config, warnings } = BrokerConfig::load(&Sources::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.node.to_wire(), 1);
    assert_eq!(config.roles, Roles { broker: true, tiering: true, compactor: true });
    let listener = &config.listeners.listeners[0];
    assert_eq!(
        (listener.name.as_str(), listener.host.as_deref(), listener.port),
        ("PLAINTEXT", Some("127.0.0.1"), 9092)
    );
    assert_eq!(config.listeners.advertised[0].host.as_deref(), Some("127.0.0.1"));
    assert_eq!(config.logs.dirs, [Path::new("./varve-data/log")]);
    assert_eq!(config.metadata, MetadataUrl::Embedded("./varve-data/metadata".into()));
    assert!(config.object_store.url.as_str().ends_with("/varve-data/archive/"), "{}", config.object_store.url);
    assert_eq!(config.object_store.url.scheme(), "file");
    assert_eq!(config.cache.disk_bytes, 0, "a copy of local files on the same disk gains nothing");
    assert_eq!(config.http.unwrap().to_string(), "127.0.0.1:9404");
    assert!(config.archive.enabled);
}

/// The settings of the file that Kafka 4 ships for a combined node.
const SHIPPED: &str = "
process.roles=broker,controller
node.id=3
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

#[test]
fn the_file_that_kafka_ships_is_accepted_with_warnings() {
    let Loaded { config, warnings } = load(SHIPPED).unwrap();
    assert_eq!(config.node.to_wire(), 3);
    assert_eq!(config.listeners.listeners.len(), 1, "the controller's listener is left out");
    assert_eq!(config.listeners.listeners[0].host, None);
    let advertised = &config.listeners.advertised[0];
    assert_eq!((advertised.host.as_deref(), advertised.port), (Some("localhost"), Some(9092)));
    assert_eq!(config.logs.dirs, [Path::new("/tmp/kraft-combined-logs")]);
    for name in ["process.roles has no effect", "num.io.threads has no effect", "listener CONTROLLER is left out"] {
        assert_eq!(warnings.iter().filter(|warning| warning.starts_with(name)).count(), 1, "{name} in {warnings:#?}");
    }
}

#[test]
fn the_command_line_beats_the_environment_beats_the_file() {
    let file = "log.segment.bytes=2000000\nnum.partitions=2\nnode.id=2\n";
    let environment = [("VARVE_LOG_SEGMENT_BYTES", "3000000"), ("VARVE_NUM_PARTITIONS", "3")];
    let config = load_with(file, &environment, &["log.segment.bytes=4000000"]).unwrap().config;
    assert_eq!(topic(&config).segment_bytes, 4_000_000);
    assert_eq!((config.topics.partitions, config.node.to_wire()), (3, 2));
    assert_eq!(
        config.settings.given("num.partitions").unwrap().origin.to_string(),
        "environment variable VARVE_NUM_PARTITIONS"
    );
    assert_eq!(config.settings.given("node.id").unwrap().origin.to_string(), "server.properties, line 3");
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let errors = load_with(
        "log.retension.ms=1\nnum.partitions=0\nauto.create.topics.enable=maybe\nlog.segment.bytes=x",
        &[("VARVE_NODE_IDD", "1")],
        &["nonsense"],
    );
    assert_eq!(
        errors.unwrap_err(),
        [
            "unknown setting VARVE_NODE_IDD; did you mean VARVE_NODE_ID?",
            "invalid value \"nonsense\" for --override: name=value",
            "invalid value \"maybe\" for auto.create.topics.enable: true or false",
            "unknown setting log.retension.ms; did you mean log.retention.ms?",
            "invalid value \"x\" for log.segment.bytes: an integer of at least 1048576",
            "invalid value \"0\" for num.partitions: an integer of at least 1",
        ]
    );
}

#[test]
fn refusals_say_why_and_what_to_do() {
    for (line, expected) in [
        (
            "zookeeper.connect=localhost:2181",
            "zookeeper.connect is refused: there is no ZooKeeper; set varve.metadata.url",
        ),
        ("authorizer.class.name=com.example.Ours", "StandardAuthorizer, or empty: no Java classes are loaded"),
        ("super.users=User:admin;bob", "User:name, semicolon-separated; bob is not one"),
        ("remote.log.storage.manager.class.name=io.aiven.Rsm", "varve.object.store.url says where the archive is"),
        (
            "listeners=SSL://:9093",
            "invalid value \"\" for listener.name.ssl.ssl.keystore.location: a file with the node's",
        ),
        ("listeners=SSL://:9093\nssl.keystore.location=/k", "the password of ssl.keystore.location"),
        ("listeners=SSL://:9093\nssl.keystore.key=k", "PEM, where ssl.keystore.key"),
        ("listeners=SSL://:9093\nssl.enabled.protocols=TLSv1.1", "older ones are broken"),
        ("listeners=SSL://:9093\nssl.principal.mapping.rules=RULE:a", "RULE:pattern/replacement/[LU]"),
        ("listeners=SSL://:9093\nlistener.name.ssl.ssl.client.auth=required", "whose certificates would be good"),
        (
            "listener.name.x.ssl.client.auth=maybe",
            "for listener.name.x.ssl.client.auth: one of required, requested, none",
        ),
        ("security.inter.broker.protocol=SSL", "one of PLAINTEXT"),
        (
            "inter.broker.listener.name=PLAINTEXT\nsecurity.inter.broker.protocol=PLAINTEXT",
            "only one of them may be set",
        ),
        (
            "listeners=A://:1,B://:2\nlistener.security.protocol.map=A:PLAINTEXT,B:SASL_SSL",
            "listener.name.b.sasl.enabled",
        ),
        ("listeners=SASL_PLAINTEXT://:9092", "GSSAPI (Kerberos), Kafka's default, is not served"),
        ("listeners=SASL_PLAINTEXT://:9092\nsasl.enabled.mechanisms=CRAM-MD5", "CRAM-MD5 is none of them"),
        ("listeners=SASL_PLAINTEXT://:9092\nsasl.enabled.mechanisms=PLAIN", "with at least one user"),
        (
            "listeners=SASL_PLAINTEXT://:9092\nsasl.enabled.mechanisms=PLAIN\nsasl.jaas.config=x required a=b",
            "value \"[hidden]\" for listener.name.sasl_plaintext.plain.sasl.jaas.config",
        ),
        (
            "listeners=SASL_PLAINTEXT://:9092\nsasl.enabled.mechanisms=OAUTHBEARER",
            "here they must be asked for by the name",
        ),
        (
            "listeners=SASL_PLAINTEXT://:9092\nsasl.enabled.mechanisms=SCRAM-SHA-256\n\
             listener.name.sasl_plaintext.scram-sha-256.sasl.server.callback.handler.class=com.example.X",
            "no Java classes are loaded",
        ),
        ("varve.first.users=SCRAM-SHA-256=[name=a]", "value \"[hidden]\" for varve.first.users"),
        ("listeners=INTERNAL://:9092", "an entry for every listener name; INTERNAL has none"),
        ("listeners=PLAINTEXT://:9092,PLAINTEXT://:9093", "each listener once; PLAINTEXT is there twice"),
        ("listeners=PLAINTEXT://:99999", "PLAINTEXT://:99999 is not one"),
        ("listeners=", "at least one listener for clients"),
        ("advertised.listeners=PLAINTEXT://0.0.0.0:9092", "an address that clients can connect to"),
        ("advertised.listeners=OTHER://h:1", "OTHER is not in listeners"),
        ("inter.broker.listener.name=OTHER", "one of PLAINTEXT"),
        ("node.id=1\nbroker.id=2", "broker.id=2 contradicts node.id=1"),
        ("process.roles=controller", "a list with broker in it"),
        ("varve.roles=", "at least one of broker, tiering, compactor"),
        ("varve.roles=compactor", "a list with broker in it"),
        ("log.dirs=/a,/a", "none of them twice"),
        ("varve.metadata.url=zk://x", "embedded:directory or etcd://host:port"),
        ("varve.object.store.url=ftp://x", "s3://bucket/prefix"),
        ("varve.object.store.url=s3://", "s3://bucket/prefix"),
        ("varve.request.memory.bytes=2000000", "at least socket.request.max.bytes (104857600)"),
        ("group.min.session.timeout.ms=9\ngroup.max.session.timeout.ms=8", "no more than group.max.session.timeout.ms"),
        ("varve.log.level=a=b=c", "error, warn, info, debug or trace"),
        ("varve.http.listener=9404", "address:port, or empty"),
        ("varve.trace.endpoint=127.0.0.1:4318", "a URL, as in http://127.0.0.1:4318/v1/traces"),
        ("varve.trace.sample.ratio=2", "a number from 0 to 1"),
        (
            "log.cleaner.max.compaction.lag.ms=1\nlog.cleaner.min.compaction.lag.ms=2",
            "min.compaction.lag.ms=2 contradicts",
        ),
        ("listener.name.plaintext.max.connections.per.ip=5", "set max.connections.per.ip for all of them"),
        ("listener.name.plaintext.max.connectons=5", "unknown setting"),
        ("config.providers.file.class=x", "no Java classes are loaded"),
        ("delegation.token.master.key=k", "set delegation.token.secret.key"),
        ("quota.producer.default=1000", "kafka-configs.sh --entity-type clients"),
    ] {
        let errors = load(line).expect_err(line);
        assert!(errors.iter().any(|error| error.contains(expected)), "{line}: {errors:#?}");
    }
}

#[test]
fn an_authorizer_is_taken_under_the_names_that_kafka_gave_it() {
    let with = |class: &str| {
        load(&format!(
            "authorizer.class.name={class}\nsuper.users=User:a; User:CN=b,O=c;\nallow.everyone.if.no.acl.found=true"
        ))
    };
    let standard = with("org.apache.kafka.metadata.authorizer.StandardAuthorizer").unwrap();
    let authorizer = standard.config.authorizer.unwrap();
    let users: Vec<String> = authorizer.super_users.iter().map(ToString::to_string).collect();
    assert_eq!((users, authorizer.allow_if_no_acl), (vec!["User:CN=b,O=c".to_owned(), "User:a".to_owned()], true));
    assert_eq!(standard.warnings, [""; 0]);
    let past = with("kafka.security.authorizer.AclAuthorizer").unwrap();
    assert!(
        past.config.authorizer.is_some() && past.warnings[0].contains("the name of earlier Kafkas"),
        "{:?}",
        past.warnings
    );
    let without = with("").unwrap();
    assert!(without.config.authorizer.is_none());
    assert!(without.warnings[0].contains("super.users has no effect: authorizer.class.name is not set"));
}

#[test]
fn a_refused_setting_may_say_what_happens_anyway() {
    for line in [
        "security.inter.broker.protocol=PLAINTEXT",
        "authorizer.class.name=",
        "transaction.two.phase.commit.enable=false",
        "max.connection.creation.rate=2147483647",
    ] {
        assert!(load(line).is_ok(), "{line}: {:?}", load(line).err());
    }
}

#[test]
fn a_setting_without_effect_gives_one_warning_that_says_why() {
    for (line, expected) in [
        ("num.network.threads=9", "num.network.threads has no effect: requests are tasks"),
        ("ssl.protocol=TLS", "ssl.protocol has no effect: ssl.enabled.protocols says which"),
        ("rsm.config.chunk.size=1", "rsm.config.chunk.size has no effect: tiered storage is built in"),
        ("listener.name.x.ssl.provider=x", "listener.name.x.ssl.provider has no effect: TLS is built in"),
        ("inter.broker.protocol.version=3.6", "inter.broker.protocol.version has no effect: requests are versioned"),
    ] {
        let warnings = load(line).unwrap().warnings;
        assert!(matches!(&warnings[..], [one] if one.starts_with(expected)), "{line}: {warnings:?}");
    }
}

#[test]
fn certificates_of_clients_are_asked_for_on_listeners_with_sasl_only_if_these_say_so() {
    let all = "listeners=SASL_SSL://:1\nssl.keystore.type=PEM\nssl.keystore.location=/k\nssl.client.auth=required\n\
               sasl.enabled.mechanisms=SCRAM-SHA-256";
    let Loaded { warnings, .. } = load(all).unwrap();
    assert!(
        warnings[0].ends_with("write listener.name.sasl_ssl.ssl.client.auth=required if that is meant"),
        "{warnings:?}"
    );
    let own = format!("{all}\nlistener.name.sasl_ssl.ssl.client.auth=none");
    assert_eq!(load(&own).unwrap().warnings, [""; 0]);
}

#[test]
fn old_names_of_listeners_are_mapped_with_a_warning() {
    let Loaded { config, warnings } =
        load("port=9192\nadvertised.host.name=kafka.example\nadvertised.port=19092").unwrap();
    assert_eq!((config.listeners.listeners[0].host.as_deref(), config.listeners.listeners[0].port), (None, 9192));
    let advertised = &config.listeners.advertised[0];
    assert_eq!((advertised.host.as_deref(), advertised.port), (Some("kafka.example"), Some(19092)));
    assert!(warnings[1].ends_with("write advertised.listeners=PLAINTEXT://kafka.example:19092"), "{warnings:?}");
    let Loaded { config, warnings } = load("advertised.port=1\nadvertised.listeners=PLAINTEXT://h:2").unwrap();
    assert_eq!(config.listeners.advertised[0].port, Some(2));
    assert_eq!(warnings, ["advertised.port is ignored: advertised.listeners is set"]);
}

#[test]
fn broker_id_is_another_name_of_node_id() {
    assert_eq!(load("broker.id=5").unwrap().config.node.to_wire(), 5);
    assert_eq!(load("broker.id=-1").unwrap().config.node.to_wire(), 1);
    assert_eq!(load("broker.id=5\nnode.id=5").unwrap().config.node.to_wire(), 5);
    for file in ["broker.id=5", "node.id=5"] {
        let settings = load(file).unwrap().config.settings;
        assert_eq!([settings.value("node.id"), settings.value("broker.id")], [Some("5"); 2], "{file} shows as both");
    }
}

#[test]
fn retention_and_roll_follow_kafkas_precedence() {
    let retention = |file: &str| topic(&load(file).unwrap().config).retention_time;
    assert_eq!(
        retention("log.retention.hours=1\nlog.retention.minutes=2\nlog.retention.ms=3"),
        Some(Duration::from_millis(3))
    );
    assert_eq!(retention("log.retention.hours=1\nlog.retention.minutes=2"), Some(Duration::from_secs(120)));
    assert_eq!(retention("log.retention.hours=1"), Some(Duration::from_secs(3600)));
    assert_eq!(retention("log.retention.minutes=-1"), None);
    let roll = topic(&load("log.roll.hours=2").unwrap().config).segment_time;
    assert_eq!(roll, Duration::from_secs(7200));
}

#[test]
fn listeners_have_names_hosts_and_ports() {
    let file = "listeners=INTERNAL://[::1]:9092,external://0.0.0.0:0\n\
                listener.security.protocol.map=INTERNAL:PLAINTEXT, EXTERNAL:plaintext\n\
                advertised.listeners=EXTERNAL://kafka.example:443\ninter.broker.listener.name=EXTERNAL";
    let listeners = load(file).unwrap().config.listeners;
    let protocol = SecurityProtocol::Plaintext;
    let internal = Listener { name: "INTERNAL".into(), host: Some("::1".into()), port: 9092, protocol };
    assert_eq!(listeners.listeners[0], internal);
    assert_eq!(listeners.listeners[1].port, 0);
    assert_eq!(listeners.inter_broker, 1);
    assert_eq!(listeners.advertised[0].host.as_deref(), Some("::1"));
    assert_eq!(listeners.advertised[1].host.as_deref(), Some("kafka.example"));
    assert_eq!(load("listeners=PLAINTEXT://0.0.0.0:0").unwrap().config.listeners.advertised[0].host, None);
}

#[test]
fn who_is_on_this_machine_connects_to_itself_where_all_addresses_are_listened_on() {
    for (bound, reached) in [
        ("0.0.0.0:9404", "127.0.0.1:9404"),
        ("[::]:9404", "[::1]:9404"),
        ("10.0.0.1:9404", "10.0.0.1:9404"),
        ("[fd00::1]:9404", "[fd00::1]:9404"),
    ] {
        assert_eq!(reachable_here(bound.parse().unwrap()).to_string(), reached);
    }
}

#[test]
fn brokers_use_the_plaintext_listener_unless_told_otherwise() {
    let map = "listener.security.protocol.map=SSL:SASL_PLAINTEXT,OUTSIDE:SASL_PLAINTEXT,INSIDE:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
               sasl.enabled.mechanisms=SCRAM-SHA-256\nlisteners=";
    let used = |listeners: &str| load(&format!("{map}{listeners}")).unwrap().config.listeners.inter_broker;
    assert_eq!(used("OUTSIDE://:1,INSIDE://:2,PLAINTEXT://:3"), 2);
    assert_eq!(used("OUTSIDE://:1,INSIDE://:2"), 1);
    assert_eq!(used("OUTSIDE://:1,SSL://:2"), 0);
    assert_eq!(used("INSIDE://:1,OUTSIDE://:2\ninter.broker.listener.name=OUTSIDE"), 1);
}

#[test]
fn negative_and_largest_numbers_become_no_limit() {
    let config = load("connections.max.idle.ms=-1\nsocket.send.buffer.bytes=-1").unwrap().config;
    assert_eq!((config.network.idle_timeout, config.network.send_buffer_bytes), (None, None));
    assert_eq!((config.network.max_connections, config.archive.upload_bytes_per_second), (None, None));
    let limits = load("max.connections.per.ip.overrides=[::ffff:10.0.0.1]:5, [::1]:6\nmax.connections=7")
        .unwrap()
        .config
        .network;
    assert_eq!(limits.max_connections, Some(7));
    let own = load("listener.name.plaintext.max.connections=3").unwrap().config.network.max_connections_per_listener;
    assert_eq!(own.get("PLAINTEXT"), Some(&3));
    let own: Vec<String> =
        limits.max_connections_per_ip_overrides.iter().map(|(ip, limit)| format!("{ip} {limit}")).collect();
    assert_eq!(own, ["10.0.0.1 5", "::1 6"]);
}

#[test]
fn the_object_store_and_the_metadata_store_are_named_by_url() {
    let config =
        load("varve.object.store.url=s3://bucket/logs\nvarve.metadata.url=etcd://a:2379,b:2379/varve/").unwrap().config;
    assert_eq!((config.object_store.url.host_str(), config.object_store.url.path()), (Some("bucket"), "/logs"));
    assert_eq!(config.cache.disk_bytes, 4 << 30);
    let etcd = MetadataUrl::Etcd { endpoints: vec!["a:2379".into(), "b:2379".into()], prefix: "/varve".into() };
    assert_eq!(config.metadata, etcd);
    let config =
        load("varve.object.store.url=file:///srv/archive\nvarve.metadata.url=embedded:/srv/meta").unwrap().config;
    assert_eq!(config.object_store.url.as_str(), "file:///srv/archive/");
    assert_eq!(config.metadata, MetadataUrl::Embedded("/srv/meta".into()));
    assert!(load("varve.object.store.url=memory://").is_ok());
}

#[test]
fn a_name_that_is_set_twice_is_told() {
    let Loaded { config, warnings } = load("node.id=1\nnode.id=2").unwrap();
    assert_eq!(config.node.to_wire(), 2);
    assert_eq!(warnings, ["node.id is set twice: server.properties, line 2, replaces server.properties, line 1"]);
}

/// Values for settings that are not numbers, flags or words of a list: their definitions do not say what is allowed.
const OTHER: &[(&str, &str)] = &[
    ("advertised.listeners", "PLAINTEXT://other:9092"),
    ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    ("group.consumer.migration.policy", "upgrade"),
    ("group.consumer.min.heartbeat.interval.ms", "4000"),
    ("cordoned.log.dirs", "*"),
    ("group.consumer.min.session.timeout.ms", "40000"),
    ("group.share.min.heartbeat.interval.ms", "4000"),
    ("group.share.min.session.timeout.ms", "40000"),
    ("group.streams.min.heartbeat.interval.ms", "4000"),
    ("group.streams.min.session.timeout.ms", "40000"),
    ("listeners", "PLAINTEXT://127.0.0.1:9999"),
    ("log.local.retention.ms", "1000"),
    ("max.connections.per.ip.overrides", "10.0.0.1:5"),
    ("queued.max.request.bytes", "1000000000"),
    ("varve.cache.disk.bytes", "1000000000"),
    ("varve.http.listener", "127.0.0.1:9999"),
    ("varve.metadata.url", "embedded:/other"),
    ("varve.first.users", "SCRAM-SHA-256=[name=other,password=other]"),
    // With the other half of a pair on a line of its own.
    ("varve.metadata.etcd.certificate.file", "other\nvarve.metadata.etcd.key.file=other"),
    ("varve.metadata.etcd.key.file", "other\nvarve.metadata.etcd.certificate.file=other"),
    ("varve.metadata.etcd.password", "other\nvarve.metadata.etcd.user=other"),
    ("varve.metadata.etcd.user", "other\nvarve.metadata.etcd.password=other"),
    ("varve.object.store.endpoint", "http://other:9000"),
    ("varve.trace.endpoint", "http://other:4318/v1/traces"),
    ("varve.object.store.url", "s3://other/archive"),
];

/// They say something about listeners, or an authorizer, that are not there by default: tests above have them.
const OF_WHAT_IS_NOT_THERE: &[&str] = &[
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "security.inter.broker.protocol",
    "super.users",
    "allow.everyone.if.no.acl.found",
];

/// There is one value that is taken, which is the default.
const OF_ONE_VALUE: &[&str] = &["group.share.assignors"];

/// Read for a listener that uses them, and so by the tests of TLS and SASL.
fn is_of_security(name: &str) -> bool {
    name.starts_with("ssl.") || name.starts_with("sasl.") || name == "connections.max.reauth.ms"
}

/// A valid value of the setting that is not its default.
fn another(definition: &ConfigDef) -> String {
    if let Some((_, value)) = OTHER.iter().find(|(name, _)| *name == definition.name) {
        return (*value).to_owned();
    }
    let default = definition.default.unwrap_or_default();
    let number = |min: i64, max: i64| {
        let default = default.parse::<i64>().unwrap_or(min);
        (if default < max { default + 1 } else { default - 1 }).max(min).to_string()
    };
    match definition.kind {
        Kind::Bool => (default != "true").to_string(),
        Kind::Int { min, max } => number(min.into(), max.into()),
        Kind::Long { min, max } => number(min, max),
        Kind::Levels { min, max, .. } => (if default == min.to_string() { max } else { min }).to_string(),
        Kind::Double { min, .. } => if default == "0.25" { min.max(0.5) } else { min.max(0.25) }.to_string(),
        Kind::Text | Kind::Password | Kind::Class | Kind::List([]) => "other".to_owned(),
        Kind::Replicas => "0:1".to_owned(),
        Kind::Enum(words) | Kind::List(words) => {
            (*words.iter().find(|word| **word != default).expect("more words than one")).to_owned()
        }
    }
}

#[test]
fn every_setting_that_is_honoured_is_read() {
    let text = |lines: &str| -> Result<String, Vec<String>> {
        let config = load(lines)?.config;
        Ok(format!("{:?}", BrokerConfig { settings: Settings::default(), ..config }))
    };
    let plain = text("").unwrap();
    let mut wrong = Vec::new();
    let honoured = broker_table().iter().filter(|definition| definition.treatment == Treatment::Honoured);
    let is_left_out = |name: &str| OF_WHAT_IS_NOT_THERE.contains(&name) || OF_ONE_VALUE.contains(&name);
    let of_all = |name: &str| !is_left_out(name) && !is_of_security(name);
    for definition in honoured.filter(|definition| of_all(definition.name)) {
        let line = format!("{}={}", definition.name, another(definition));
        match text(&line) {
            Ok(changed) if changed == plain => wrong.push(format!("{line} changes nothing")),
            Ok(_) => {}
            Err(errors) => wrong.push(format!("{line}: {}", errors.join("; "))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
