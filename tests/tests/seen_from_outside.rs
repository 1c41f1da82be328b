//! What whoever watches a node sees: health, readiness, metrics, its log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_metadata::config::Codec;
use varve_tests::{
    client::{Client, FetchSpec},
    lines::Lines,
    node::{Node, eventually, until},
};

/// One sample: name, labels as they stand there, value.
type Sample<'a> = (&'a str, &'a str, f64);

/// Reads the text format strictly: each family has its help and type before its samples, and stands there once.
fn parse(page: &str) -> Result<(BTreeMap<&str, &str>, Vec<Sample<'_>>)> {
    let mut families = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut samples = Vec::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').with_context(|| line.to_owned())?;
            ensure!(!text.is_empty() && helped.insert(name), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').with_context(|| line.to_owned())?;
            ensure!(["counter", "gauge", "histogram"].contains(&kind) && helped.contains(name), "{line}");
            ensure!(families.insert(name, kind).is_none(), "{name} comes twice");
        } else {
            let (head, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
            let family = families.get_key_value(name).or_else(|| {
                let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end))?;
                families.get_key_value(plain).filter(|(_, kind)| **kind == "histogram")
            });
            let (family, kind) = family.with_context(|| format!("no type before {line}"))?;
            ensure!(*kind != "counter" || family.ends_with("_total"), "{family} is a counter");
            // Prometheus' own names for what every process has.
            let is_ours = name.starts_with("varve_") || name.starts_with("process_");
            ensure!(labels.ends_with('}') && is_ours, "{line}");
            samples.push((name, labels.trim_end_matches('}'), value.parse().with_context(|| line.to_owned())?));
        }
    }
    Ok((families, samples))
}

#[test]
fn health_readiness_and_every_family_of_metrics_are_there_when_data_has_moved() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let eager =
        ["log.retention.check.interval.ms=200", "remote.log.manager.task.interval.ms=200", "varve.archive.lag.ms=300"];
    let node = Node::start(folder.path(), &eager)?;
    ensure!(node.http_get("/healthz")? == "ok\n", "alive");
    eventually("ready", || Ok(node.http_get("/readyz").is_ok_and(|page| page == "ready\n").then_some(())))?;
    let mut client = Client::connect(node.address)?;
    let configs = [("local.retention.ms", "1"), ("file.delete.delay.ms", "0"), ("retention.ms", "-1")];
    client.create_topic("orders", 1, &configs)?;
    let mut end = 0;
    for batch in Lines::load(None)?.batches(Codec::Zstd, 64 << 10, 1 << 20)? {
        end = client.produce("orders", 0, batch)?;
    }
    eventually("all is in the archive alone", || Ok((client.list_offset("orders", 0, -4)? > end).then_some(())))?;
    let fetch = FetchSpec { topic: "orders", partition: 0, max_bytes: 1 << 20, max_wait_ms: 30_000 };
    for _ in 0..2 {
        ensure!(!client.fetch(&fetch, 0)?.is_empty(), "read from the archive");
    }

    // What a request took is noted after its answer, and what background work has left to do when it looks.
    let page = until("all of it is shown", || {
        let page = node.http_get("/metrics")?;
        is_all_shown(&page).with_context(|| page.clone())?;
        Ok(page)
    })?;
    let (families, samples) = parse(&page)?;
    histograms_add_up(&families, &samples)?;
    node.stop()
}

/// Families and values that must be there.
fn is_all_shown(page: &str) -> Result<()> {
    let (families, samples) = parse(page)?;
    for wanted in [
        "varve_build_info",
        "varve_request_seconds",
        "varve_received_bytes_total",
        "varve_sent_bytes_total",
        "varve_appended_bytes_total",
        "varve_produced_records_total",
        "varve_metadata_requests_total",
        "varve_clock_timestamp_seconds",
        "process_open_fds",
        "varve_local_log_bytes",
        "varve_archive_bytes",
        "varve_archive_lag_seconds",
        "varve_disk_time_to_full_seconds",
        "varve_hot_time_to_full_seconds",
        "varve_cold_cache_lookups_total",
        "varve_object_store_requests_total",
        "varve_object_store_request_seconds",
        "varve_compactor_backlog_bytes",
    ] {
        ensure!(families.contains_key(wanted), "{wanted} is missing");
    }
    let of = |name: &str, label: &str| -> f64 {
        let found = samples.iter().filter(|(found, labels, _)| *found == name && labels.contains(label));
        found.map(|(_, _, value)| value).sum()
    };
    ensure!(of("varve_request_seconds_count", "api=\"Produce\"") >= 10.0, "produce requests are counted");
    ensure!(of("varve_request_seconds_count", "api=\"Fetch\"") == 2.0, "fetch requests are counted");
    ensure!(of("varve_archive_bytes", "") > 0.0, "the archive has a size");
    let of_orders = |name: &str| of(name, "topic=\"orders\"");
    ensure!(of_orders("varve_consumed_bytes_total") > 0.0, "what is read from the archive is consumed as well");
    ensure!(of_orders("varve_produced_bytes_total") > 0.0, "bytes of producers are counted");
    ensure!(of("varve_controller", "") == 1.0, "a node that agrees with itself decides");
    ensure!(of("varve_requests_under_way", "") == 0.0, "nobody waits");
    Ok(())
}

/// Buckets of one histogram grow and end with all, which is the count.
fn histograms_add_up(families: &BTreeMap<&str, &str>, samples: &[Sample<'_>]) -> Result<()> {
    for family in families.iter().filter(|(_, kind)| **kind == "histogram").map(|(name, _)| *name) {
        let mut last: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (name, labels, value) in samples {
            if *name == format!("{family}_bucket") {
                let (rest, bound) = labels.rsplit_once("le=\"").with_context(|| format!("{name} {labels}"))?;
                let bound = bound.trim_end_matches('"').replace("+Inf", "inf").parse::<f64>()?;
                let before = last.insert(rest.trim_end_matches(',').to_owned(), (bound, *value));
                let (last_bound, last_value) = before.unwrap_or((f64::NEG_INFINITY, 0.0));
                ensure!(bound > last_bound && *value >= last_value, "{name} {labels} {value}");
            }
        }
        for (name, labels, value) in samples.iter().filter(|(name, _, _)| *name == format!("{family}_count")) {
            ensure!(
                last.get(*labels) == Some(&(f64::INFINITY, *value)),
                "{name} {labels} {value}: {:?}",
                last.get(*labels)
            );
        }
    }
    Ok(())
}

#[test]
fn every_line_of_the_log_is_json_if_that_was_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // A setting without effect, for a warning.
    let node = Node::start(folder.path(), &["varve.log.format=json", "num.network.threads=3"])?;
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    node.stop()?;
    let text = fs::read_to_string(folder.path().join("varve.log"))?;
    let lines = text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
    let lines: Vec<Value> = lines.collect::<Result<_>>()?;
    for line in &lines {
        ensure!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        ensure!(line["target"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
    let has = |level: &str, words: &str| {
        let said = |line: &Value| line["fields"]["message"].as_str().is_some_and(|message| message.contains(words));
        lines.iter().any(|line| line["level"] == level && said(line))
    };
    ensure!(has("WARN", "num.network.threads") && has("INFO", "varve is ready"), "{text}");
    Ok(())
}
