//! The reference: every family of metrics, printed from its declaration.

use std::{fmt::Write as _, path::PathBuf};

use varve_compactor::metrics::CompactorMetrics;
use varve_tiering::tier::{archiver::ArchiverMetrics, bucket::BucketMetrics, cold::ColdMetrics};

use super::{ClusterGauges, Declared, DiskGauges, MetadataMetrics, Metrics, clock, register_build_info};
use crate::{cli::canary_metrics, partition::UpkeepMetrics, quota::QuotaMetrics, server};

/// Chapters of the reference: a title, and what the names of its families begin with. The first that fits is taken.
const CHAPTERS: &[(&str, &[&str])] = &[
    ("The canary", &["varve_canary_"]),
    (
        "The node and its disks",
        &["varve_build_info", "varve_start_", "varve_clock_", "varve_disk_", "varve_certificate_", "process_"],
    ),
    (
        "The cluster",
        &[
            "varve_brokers",
            "varve_controller",
            "varve_elections_",
            "varve_leaderless_",
            "varve_lost_log_",
            "varve_metadata_",
            "varve_moving_",
            "varve_not_preferred_",
            "varve_topics",
        ],
    ),
    (
        "Requests and connections",
        &[
            "varve_request",
            "varve_received_",
            "varve_sent_",
            "varve_connections",
            "varve_partition_errors_",
            "varve_trace",
        ],
    ),
    ("Who is let in", &["varve_authentications_", "varve_reauthentications_", "varve_sessions_", "varve_a"]),
    ("Quotas", &["varve_throttled_", "varve_client_throttled_"]),
    ("Groups", &["varve_group"]),
    ("Transactions", &["varve_transaction"]),
    ("The archive's bucket", &["varve_object_store_"]),
    ("Reads from the archive", &["varve_cold_"]),
    ("Rewriting of the archive", &["varve_compactor_"]),
    ("Partitions, logs, uploads", &["varve_"]),
];

/// `varve_acls` and denials begin like the archive, what was appended, and partitions with few replicas in sync.
const NOT_ACCESS: &[&str] = &["varve_archive_", "varve_appended_", "varve_at_min_isr_"];

/// Every family that a node, or the canary, may show under `/metrics`, by name; those of single clients come on top.
pub fn declared() -> Vec<Declared> {
    let metrics = Metrics::new();
    let registry = metrics.registry();
    register_build_info(registry);
    clock(registry);
    MetadataMetrics::new(registry);
    ClusterGauges::new(registry);
    DiskGauges::new(registry, std::iter::empty::<PathBuf>());
    UpkeepMetrics::new(registry);
    QuotaMetrics::new(registry);
    server::declare(registry);
    canary_metrics(registry);
    let archive = [
        BucketMetrics::new().collectors(),
        ColdMetrics::new().collectors(),
        ArchiverMetrics::new().collectors(),
        CompactorMetrics::new().collectors(),
    ];
    for collector in archive.into_iter().flatten() {
        registry.register(collector).expect("each name is declared once");
    }
    registry.declared()
}

/// The reference of all metrics, as Markdown. The same for every run: it stands in the repository too.
pub fn reference() -> String {
    let mut out = String::from(INTRODUCTION);
    let all = declared();
    let mut by_chapter: Vec<(&str, Vec<&Declared>)> = CHAPTERS.iter().map(|(title, _)| (*title, Vec::new())).collect();
    for one in &all {
        by_chapter[chapter_of(&one.name)].1.push(one);
    }
    // The canary is a process of its own.
    by_chapter.rotate_left(1);
    for (title, families) in by_chapter {
        let _ = writeln!(out, "## {title}\n\n| name | kind | labels | |\n|---|---|---|---|");
        for Declared { name, kind, labels, help } in families {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn chapter_of(name: &str) -> usize {
    let fits = |beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    let is_access = |beginnings: &[&str]| beginnings.contains(&"varve_a") && fits(NOT_ACCESS);
    let chapter = CHAPTERS.iter().position(|(_, beginnings)| fits(beginnings) && !is_access(beginnings));
    chapter.unwrap_or(CHAPTERS.len() - 1)
}

const INTRODUCTION: &str = "\
# Metrics

<!-- Printed by `varve metrics docs`; a test holds the two equal. Change the declarations, not this file. -->

A node serves these at `/metrics` of `varve.http.listener`, in Prometheus' text format. Counters begin anew with the process.
Sizes and lags are looked up when they are read. A family with labels is there once it has a value. Histograms have the usual
`_bucket` (with `le`), `_sum` and `_count`.

Labels are bounded: APIs, kinds, listeners, log directories, topics. Only `varve_group_lag_records` and its neighbours name
groups, of which they show the thousand furthest behind in a topic, and `varve_client_throttled_seconds` the fifty clients
throttled most. There is nothing by partition. What clients push (KIP-714) comes on top, under `kafka_client_`
([administration.md](administration.md)).

What to watch, and what to do: [operations/alerts.md](operations/alerts.md). The rules and dashboards in `deploy/monitoring` use
these names, which a test checks.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_repository_is_the_one_that_is_printed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(checked_in == reference(), "print it anew: varve metrics docs > docs/metrics.md");
    }

    #[test]
    fn names_units_and_helps_are_as_prometheus_has_them() {
        for Declared { name, kind, help, .. } in declared() {
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is {kind}");
            // Those of every process are Prometheus' own.
            if !name.starts_with("process_") {
                assert!(name.starts_with("varve_"), "{name}");
                assert!(!help.is_empty() && !help.ends_with('.') && !help.contains('|'), "{name}: {help}");
            }
        }
    }
}
