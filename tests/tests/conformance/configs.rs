//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use std::{cell::RefCell, collections::BTreeSet};

use anyhow::{Result, ensure};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    alter_configs_request::{AlterConfigsResource, AlterableConfig},
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{
        AlterConfigsResource as IncrementalResource, AlterableConfig as IncrementalConfig,
    },
};
use varve_tests::differential::Pair;

use super::{
    request::{text, versions},
    topics::{catch_up, make, new},
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    make(pair, new("settings", 1, 1))?;
    describe(pair)?;
    incremental(pair)?;
    alter(pair)
}

pub(super) fn ask(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys);
    DescribeConfigsRequest::default().with_resources(vec![resource])
}

fn describe(pair: &mut Pair) -> Result<()> {
    let all = versions(1, 4);
    pair.ask("describe-configs-topic", &all, |_, _| ask(TOPIC, "settings", None))?;
    pair.ask("describe-configs-topic-synonyms", &all, |_, _| ask(TOPIC, "settings", None).with_include_synonyms(true))?;
    let keys = ["retention.ms", "cleanup.policy", "no.such", "retention.ms"];
    pair.ask("describe-configs-keys", &all, |_, _| ask(TOPIC, "settings", Some(&keys)).with_include_synonyms(true))?;
    pair.ask("describe-configs-no-keys", &all, |_, _| ask(TOPIC, "settings", Some(&[])))?;
    for (kind, name) in [
        (TOPIC, "nobody"),
        (TOPIC, ""),
        (TOPIC, "a b"),
        (BROKER, "2"),
        (BROKER, "x"),
        (BROKER, "-1"),
        (LOGGER, ""),
        (LOGGER, "2"),
        (LOGGER, "x"),
        (METRICS, ""),
        (METRICS, "nothing"),
        (GROUP, ""),
        (GROUP, "nobody"),
        (0, "settings"),
        (1, "settings"),
        (3, "settings"),
        (99, "settings"),
        (-1, "settings"),
    ] {
        pair.ask(&format!("describe-configs-{kind}-{name}"), &all, |_, _| ask(kind, name, None))?;
    }
    let keys = [
        "log.retention.ms",
        "num.partitions",
        "message.max.bytes",
        "background.threads",
        "node.id",
        "sasl.kerberos.kinit.cmd",
        "sasl.login.class",
        "sasl.server.max.receive.size",
        "ssl.principal.mapping.rules",
    ];
    describe_all(pair)?;
    for name in ["", "1"] {
        pair.ask(&format!("describe-configs-broker-{name}"), &all, |_, _| {
            ask(BROKER, name, Some(&keys)).with_include_synonyms(true)
        })?;
    }
    pair.ask("describe-configs-none", &all, |_, _| DescribeConfigsRequest::default())?;
    pair.ask("describe-configs-twice", &all, |_, _| {
        let mut request = ask(TOPIC, "settings", Some(&["retention.ms"]));
        request.resources.push(request.resources[0].clone());
        request
    })?;
    Ok(())
}

type Change<'a> = (&'a str, i8, Option<&'a str>);

/// Every setting of a broker that one of the two lists, but for those that say where it is and with whom: the test tells each its
/// own.
fn describe_all(pair: &mut Pair) -> Result<()> {
    const OF_THE_PLACE: [&str; 7] = [
        "advertised.listeners",
        "controller.listener.names",
        "controller.quorum.voters",
        "listener.security.protocol.map",
        "listeners",
        "log.dirs",
        "process.roles",
    ];
    let listed = RefCell::new(BTreeSet::new());
    pair.until(
        4,
        |_, _| ask(BROKER, "1", None),
        |answer| {
            let settings = answer["results"][0]["configs"].as_array();
            let names = settings.into_iter().flatten().filter_map(|setting| setting["name"].as_str());
            listed.borrow_mut().extend(names.map(str::to_owned));
            true
        },
    )?;
    let listed = listed.into_inner();
    let names: Vec<&str> = listed.iter().map(String::as_str).filter(|name| !OF_THE_PLACE.contains(name)).collect();
    // That of 4.3 has 345.
    ensure!(names.len() > 330, "{} settings are listed", names.len());
    pair.ask("describe-configs-broker-all", &[4], |_, _| ask(BROKER, "1", Some(&names)).with_include_synonyms(true))?;
    Ok(())
}

pub(super) fn change(kind: i8, name: &str, changes: &[Change<'_>]) -> IncrementalAlterConfigsRequest {
    let configs = changes.iter().map(|(name, operation, value)| {
        IncrementalConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value.map(text))
    });
    let resource = IncrementalResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
}

fn incremental(pair: &mut Pair) -> Result<()> {
    let cases: &[(&str, i8, &str, &[Change<'_>])] = &[
        ("set", TOPIC, "settings", &[("retention.ms", SET, Some("5000"))]),
        ("set-again", TOPIC, "settings", &[("retention.ms", SET, Some("5000")), ("segment.ms", SET, Some("70000"))]),
        ("set-blank", TOPIC, "settings", &[("retention.ms", SET, Some(" 6000 "))]),
        ("set-signed", TOPIC, "settings", &[("segment.bytes", SET, Some("+0002000000"))]),
        ("set-case", TOPIC, "settings", &[("preallocate", SET, Some(" TRUE"))]),
        ("set-double", TOPIC, "settings", &[("min.cleanable.dirty.ratio", SET, Some(" 0.250"))]),
        ("set-list", TOPIC, "settings", &[("cleanup.policy", SET, Some(" delete , compact"))]),
        ("set-list-back", TOPIC, "settings", &[("cleanup.policy", SET, Some("delete"))]),
        ("set-null", TOPIC, "settings", &[("retention.ms", SET, None)]),
        ("set-empty", TOPIC, "settings", &[("retention.ms", SET, Some(""))]),
        ("delete", TOPIC, "settings", &[("segment.ms", DELETE, None)]),
        ("delete-value", TOPIC, "settings", &[("segment.ms", DELETE, Some("x"))]),
        ("delete-unknown", TOPIC, "settings", &[("no.such", DELETE, None)]),
        ("set-unknown", TOPIC, "settings", &[("no.such", SET, Some("1"))]),
        ("append", TOPIC, "settings", &[("cleanup.policy", APPEND, Some("compact"))]),
        ("append-again", TOPIC, "settings", &[("cleanup.policy", APPEND, Some("compact"))]),
        ("append-wrong", TOPIC, "settings", &[("cleanup.policy", APPEND, Some("shred"))]),
        ("append-null", TOPIC, "settings", &[("cleanup.policy", APPEND, None)]),
        ("append-number", TOPIC, "settings", &[("retention.ms", APPEND, Some("1"))]),
        ("subtract", TOPIC, "settings", &[("cleanup.policy", SUBTRACT, Some("compact"))]),
        ("subtract-missing", TOPIC, "settings", &[("cleanup.policy", SUBTRACT, Some("compact"))]),
        ("subtract-number", TOPIC, "settings", &[("retention.ms", SUBTRACT, Some("1"))]),
        ("operation", TOPIC, "settings", &[("retention.ms", 9, Some("1"))]),
        ("operation-negative", TOPIC, "settings", &[("retention.ms", -1, Some("1"))]),
        ("key-twice", TOPIC, "settings", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))]),
        ("nothing", TOPIC, "settings", &[]),
        ("wrong", TOPIC, "settings", &[("retention.ms", SET, Some("x"))]),
        ("small", TOPIC, "settings", &[("segment.bytes", SET, Some("1"))]),
        ("local-larger", TOPIC, "settings", &[("local.retention.ms", SET, Some("999999999999"))]),
        ("unknown-topic", TOPIC, "nobody", &[("retention.ms", SET, Some("1"))]),
        ("invalid-topic", TOPIC, "a b", &[("retention.ms", SET, Some("1"))]),
        ("no-topic", TOPIC, "", &[("retention.ms", SET, Some("1"))]),
        ("broker", BROKER, "1", &[("log.retention.ms", SET, Some("900000"))]),
        ("broker-delete", BROKER, "1", &[("log.retention.ms", DELETE, None)]),
        ("broker-rate", BROKER, "1", &[("leader.replication.throttled.rate", SET, Some("5000000"))]),
        ("broker-threads", BROKER, "1", &[("num.io.threads", SET, Some("9"))]),
        ("broker-threads-few", BROKER, "1", &[("num.io.threads", SET, Some("1"))]),
        ("broker-threads-few-background", BROKER, "1", &[("background.threads", SET, Some("2"))]),
        ("broker-threads-few-fetchers", BROKER, "1", &[("num.replica.fetchers", SET, Some("3"))]),
        ("broker-fetchers", BROKER, "1", &[("num.replica.fetchers", SET, Some("2"))]),
        ("broker-threads-many", BROKER, "", &[("num.network.threads", SET, Some("900"))]),
        ("broker-verification", BROKER, "", &[("transaction.partition.verification.enable", SET, Some("false"))]),
        ("broker-verification-delete", BROKER, "", &[("transaction.partition.verification.enable", DELETE, None)]),
        ("broker-default", BROKER, "", &[("log.cleaner.backoff.ms", SET, Some("14000"))]),
        ("broker-default-delete", BROKER, "", &[("log.cleaner.backoff.ms", DELETE, None)]),
        ("broker-read-only", BROKER, "1", &[("node.id", SET, Some("7"))]),
        ("broker-security", BROKER, "1", &[("sasl.kerberos.min.time.before.relogin", SET, Some("58000"))]),
        ("broker-security-delete", BROKER, "1", &[("sasl.kerberos.min.time.before.relogin", DELETE, None)]),
        ("broker-security-default", BROKER, "", &[("sasl.login.refresh.window.factor", SET, Some("0.7"))]),
        ("broker-security-fixed", BROKER, "1", &[("sasl.login.class", SET, Some("x"))]),
        (
            "broker-rate-of-listener-none",
            BROKER,
            "1",
            &[("listener.name.plaintext.max.connection.creation.rate", SET, Some("0"))],
        ),
        (
            "broker-connections-of-listener-none",
            BROKER,
            "1",
            &[("listener.name.plaintext.max.connections", SET, Some("0"))],
        ),
        ("broker-connections-none", BROKER, "1", &[("max.connections", SET, Some("0"))]),
        ("broker-rate-none", BROKER, "", &[("max.connection.creation.rate", SET, Some("0"))]),
        (
            "broker-reauthentication",
            BROKER,
            "1",
            &[("listener.name.plaintext.connections.max.reauth.ms", SET, Some("5000"))],
        ),
        ("broker-reauthentication-general", BROKER, "1", &[("connections.max.reauth.ms", SET, Some("5000"))]),
        (
            "broker-reauthentication-default",
            BROKER,
            "",
            &[("listener.name.plaintext.connections.max.reauth.ms", SET, Some("5000"))],
        ),
        (
            "broker-connections-of-listener",
            BROKER,
            "",
            &[("listener.name.plaintext.max.connections", SET, Some("900"))],
        ),
        (
            "broker-rate-of-listener",
            BROKER,
            "1",
            &[("listener.name.plaintext.max.connection.creation.rate", SET, Some("900"))],
        ),
        ("broker-security-of-listener", BROKER, "1", &[("ssl.keystore.location", SET, Some("/x"))]),
        ("broker-unknown", BROKER, "1", &[("retention.mss", SET, Some("7"))]),
        ("broker-wrong", BROKER, "1", &[("log.retention.ms", SET, Some("x"))]),
        ("broker-other", BROKER, "2", &[("log.retention.ms", SET, Some("5"))]),
        ("broker-word", BROKER, "x", &[("log.retention.ms", SET, Some("5"))]),
        ("logger", LOGGER, "1", &[("no.such.logger", SET, Some("DEBUG"))]),
        ("logger-level", LOGGER, "1", &[("root", SET, Some("LOUD"))]),
        ("logger-append", LOGGER, "1", &[("root", APPEND, Some("DEBUG"))]),
        ("logger-nobody", LOGGER, "", &[("root", SET, Some("DEBUG"))]),
        ("logger-other", LOGGER, "2", &[("root", SET, Some("DEBUG"))]),
        ("kind", 3, "settings", &[("retention.ms", SET, Some("1"))]),
        ("kind-unknown", 0, "settings", &[("retention.ms", SET, Some("1"))]),
        ("kind-99", 99, "settings", &[("retention.ms", SET, Some("1"))]),
        ("group", GROUP, "g", &[("consumer.session.timeout.ms", SET, Some("50000"))]),
        ("group-wrong", GROUP, "g", &[("consumer.session.timeout.ms", SET, Some("1"))]),
        ("group-unknown", GROUP, "g", &[("no.such", SET, Some("1"))]),
        ("group-nobody", GROUP, "", &[("consumer.session.timeout.ms", SET, Some("50000"))]),
        ("metrics", METRICS, "m", &[("interval.ms", SET, Some("500"))]),
        ("metrics-unknown", METRICS, "m", &[("no.such", SET, Some("500"))]),
    ];
    for (name, kind, resource, changes) in cases {
        for (validate, versions) in [(true, &[0, 1][..]), (false, &[1])] {
            pair.ask(&format!("incremental-alter-{name}-{validate}"), versions, |_, _| {
                change(*kind, resource, changes).with_validate_only(validate)
            })?;
        }
    }
    pair.ask("incremental-alter-none", &[0, 1], |_, _| IncrementalAlterConfigsRequest::default())?;
    pair.ask("incremental-alter-twice", &[0, 1], |_, _| {
        let mut request = change(TOPIC, "settings", &[("retention.ms", SET, Some("1"))]);
        request.resources.push(change(TOPIC, "settings", &[("segment.ms", SET, Some("99999"))]).resources.remove(0));
        request
    })?;
    let keys =
        ["retention.ms", "segment.ms", "cleanup.policy", "segment.bytes", "preallocate", "min.cleanable.dirty.ratio"];
    catch_up(pair, "settings-changed")?;
    let of_broker = [
        "leader.replication.throttled.rate",
        "num.io.threads",
        "num.replica.fetchers",
        "listener.name.plaintext.connections.max.reauth.ms",
        "listener.name.plaintext.max.connection.creation.rate",
        "listener.name.plaintext.max.connections",
    ];
    for name in ["", "1"] {
        pair.ask(&format!("describe-configs-broker-changed-{name}"), &[4], |_, _| {
            ask(BROKER, name, Some(&of_broker)).with_include_synonyms(true)
        })?;
    }
    let undo = of_broker.map(|name| (name, DELETE, None));
    for (name, undo) in [("1", &undo[..5]), ("", &undo[5..])] {
        pair.ask("incremental-alter-broker-undo", &[1], |_, _| change(BROKER, name, undo))?;
    }
    pair.ask("describe-configs-changed", &[4], |_, _| ask(TOPIC, "settings", Some(&keys)).with_include_synonyms(true))?;
    Ok(())
}

fn alter(pair: &mut Pair) -> Result<()> {
    let request = |kind: i8, name: &str, configs: &[(&str, Option<&str>)]| {
        let configs = configs
            .iter()
            .map(|(name, value)| AlterableConfig::default().with_name(text(name)).with_value(value.map(text)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(configs.collect());
        AlterConfigsRequest::default().with_resources(vec![resource])
    };
    for (label, kind, name, configs) in [
        ("set", TOPIC, "settings", &[("retention.ms", Some("700000"))][..]),
        ("null", TOPIC, "settings", &[("retention.ms", None)]),
        ("wrong", TOPIC, "settings", &[("retention.ms", Some("x"))]),
        ("unknown", TOPIC, "settings", &[("no.such", Some("x"))]),
        ("unknown-topic", TOPIC, "nobody", &[("retention.ms", Some("1"))]),
        ("key-twice", TOPIC, "settings", &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]),
        ("broker", BROKER, "2", &[("log.retention.ms", Some("1"))]),
        ("logger", LOGGER, "1", &[("root", Some("DEBUG"))]),
        ("kind", 3, "settings", &[("retention.ms", Some("1"))]),
        ("nothing", TOPIC, "settings", &[]),
    ] {
        for (validate, versions) in [(true, versions(0, 2)), (false, vec![2])] {
            pair.ask(&format!("alter-configs-{label}-{validate}"), &versions, |_, _| {
                request(kind, name, configs).with_validate_only(validate)
            })?;
        }
    }
    pair.ask("alter-configs-none", &versions(0, 2), |_, _| AlterConfigsRequest::default())?;
    let keys = ["retention.ms", "segment.ms", "cleanup.policy"];
    catch_up(pair, "settings-altered")?;
    pair.ask("describe-configs-altered", &[4], |_, _| ask(TOPIC, "settings", Some(&keys)))?;
    Ok(())
}
