//! docs/topic-settings.md: every topic setting with what becomes of it, and the test that shows its effect. A setting that is
//! honoured without such a test fails here, and so does a test that is no more.
//!
//! `VARVE_TOPIC_SETTINGS=write` prints the page.

use std::{fmt::Write, fs};

use anyhow::{Context, Result, ensure};
use varve_metadata::config::{ConfigDef, Treatment, topic_table};
use varve_tests::tools;

const APPEND: &str = "log/src/local/tests/append.rs";
const UPKEEP: &str = "log/src/local/tests/upkeep.rs";
const CODECS: &str = "log/src/format/compression/tests.rs";
const CLEANER: &str = "log/src/local/cleaner/plan.rs";
const DATA: &str = "broker/src/server/data_test.rs";
const FLUSH: &str = "broker/src/server/flush_test.rs";
const LOGS: &str = "broker/src/partition/upkeep/tests.rs";
const ARCHIVER: &str = "tiering/src/tier/archiver/tests.rs";
const DISABLED: &str = "tiering/src/tier/archiver/tests/disabled.rs";
const COLD: &str = "tiering/src/tier/cold/tests/mod.rs";
const COMPACTOR: &str = "compactor/src/plan_tests.rs";
const THROTTLE: &str = "tests/tests/replication_throttle.rs";
const ISR: &str = "metadata/src/controller/in_sync/tests.rs";

/// What shows the effect of each setting: a file, and a test in it.
const SHOWN: &[(&str, &str, &str)] = &[
    ("segment.bytes", UPKEEP, "a_full_segment_is_sealed_and_reads_go_on_across"),
    ("segment.ms", LOGS, "a_quiet_topic_is_sealed_by_segment_ms_and_its_last_records_expire"),
    ("segment.jitter.ms", UPKEEP, "jitter_takes_a_part_of_segment_ms_off_that_differs_from_partition_to_partition"),
    ("segment.index.bytes", UPKEEP, "a_full_index_seals_its_segment"),
    ("index.interval.bytes", UPKEEP, "index_entries_are_as_far_apart_as_the_topic_says"),
    ("flush.messages", FLUSH, "with_flush_messages_an_answer_means_on_disk"),
    ("flush.ms", FLUSH, "with_flush_ms_records_reach_the_disk_by_themselves"),
    ("file.delete.delay.ms", LOGS, "a_topic_without_archive_loses_what_is_older_than_retention_ms"),
    ("preallocate", UPKEEP, "a_segments_disk_space_is_reserved_when_it_begins_and_given_back_when_it_is_sealed"),
    ("max.message.bytes", APPEND, "a_batch_that_ends_early_or_is_too_large_is_refused"),
    ("compression.type", APPEND, "another_codec_is_replaced_by_that_of_the_topic"),
    ("compression.gzip.level", CODECS, "the_levels_of_gzip_and_zstd_change_what_is_written"),
    ("compression.lz4.level", CODECS, "lz4_levels_other_than_the_default_use_the_thorough_compressor"),
    ("compression.zstd.level", CODECS, "the_levels_of_gzip_and_zstd_change_what_is_written"),
    ("message.timestamp.type", DATA, "log_append_time_is_told_and_stamped"),
    ("message.timestamp.before.max.ms", APPEND, "create_times_must_lie_near_the_brokers_clock"),
    ("message.timestamp.after.max.ms", APPEND, "create_times_must_lie_near_the_brokers_clock"),
    ("min.insync.replicas", ISR, "who_leaves_an_isr_below_the_minimum_stays_eligible"),
    ("unclean.leader.election.enable", ISR, "only_where_it_is_allowed_does_a_replica_without_all_records_lead"),
    (
        "leader.replication.throttled.replicas",
        THROTTLE,
        "kafkas_tool_sets_a_throttle_that_holds_and_takes_it_away_again",
    ),
    (
        "follower.replication.throttled.replicas",
        THROTTLE,
        "kafkas_tool_sets_a_throttle_that_holds_and_takes_it_away_again",
    ),
    ("cleanup.policy", "broker/src/partition/upkeep/plan.rs", "only_the_policy_delete_lets_records_go"),
    ("retention.ms", LOGS, "a_topic_without_archive_loses_what_is_older_than_retention_ms"),
    ("retention.bytes", LOGS, "retention_that_is_changed_holds_at_the_next_look"),
    ("delete.retention.ms", "log/src/local/tests/clean.rs", "tombstones_go_when_their_time_has_passed"),
    ("min.compaction.lag.ms", CLEANER, "what_is_too_young_waits"),
    ("max.compaction.lag.ms", CLEANER, "what_is_too_old_is_cleaned_whatever_the_ratio"),
    ("min.cleanable.dirty.ratio", COMPACTOR, "key_compaction_is_due_by_ratio_and_takes_the_place_of_conversion"),
    ("remote.storage.enable", DISABLED, "turned_on_again_the_archive_begins_where_the_local_log_does"),
    ("remote.log.copy.disable", DISABLED, "with_copying_off_it_takes_nothing_more_and_expires"),
    (
        "remote.log.delete.on.disable",
        DISABLED,
        "turned_off_with_deletion_the_archive_is_emptied_and_the_local_log_stays",
    ),
    ("local.retention.ms", ARCHIVER, "local_retention_gives_up_only_what_the_manifest_covers"),
    ("local.retention.bytes", ARCHIVER, "local_retention_gives_up_only_what_the_manifest_covers"),
    ("varve.archive.lag.ms", ARCHIVER, "a_quiet_partition_reaches_the_archive_within_its_lag"),
    ("varve.archive.format", COMPACTOR, "a_topic_that_stays_raw_is_left_alone"),
    ("varve.archive.fetch.compression", COLD, "batches_out_of_parquet_can_be_given_with_their_producers_codec"),
];

const HEAD: &str = "\
# Topic settings

Every topic setting of Kafka 4.3, and our own: honoured, without effect for a reason, or refused for a reason. Nothing is
silently ignored: `metadata/src/config/topic_effects.rs` changes every one, given to a topic and to the broker, and
`broker/src/server/topic_settings_test.rs` watches a living partition obey. What each setting means is in
[configuration.md](configuration.md#topic-settings). This page is printed by
`VARVE_TOPIC_SETTINGS=write cargo test -p varve-tests --test topic_settings`.

| Setting | State | Shown by |
|---|---|---|
";

#[test]
fn every_topic_setting_is_honoured_and_shown_or_says_why_not() -> Result<()> {
    let mut page = HEAD.to_owned();
    for definition in topic_table().iter().filter(|definition| !definition.internal) {
        writeln!(page, "| `{}` | {} | {} |", definition.name, state(definition), shown(definition)?)?;
    }
    let path = tools::checkout().join("docs/topic-settings.md");
    if std::env::var("VARVE_TOPIC_SETTINGS").is_ok_and(|what| what == "write") {
        return Ok(fs::write(path, page)?);
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    ensure!(found == page, "docs/topic-settings.md is not what holds; VARVE_TOPIC_SETTINGS=write prints it anew");
    Ok(())
}

fn state(definition: &ConfigDef) -> String {
    match definition.treatment {
        Treatment::Honoured => "honoured".to_owned(),
        Treatment::NoEffect { why } => format!("no effect: {why}"),
        Treatment::Refused { why } => format!("refused: {why}"),
    }
}

fn shown(definition: &ConfigDef) -> Result<String> {
    let found = SHOWN.iter().find(|(name, ..)| *name == definition.name);
    if definition.treatment != Treatment::Honoured {
        ensure!(found.is_none(), "{} has no effect, and yet one that is shown", definition.name);
        return Ok(String::new());
    }
    let (name, file, test) = found.with_context(|| format!("nothing shows the effect of {}", definition.name))?;
    let code = fs::read_to_string(tools::checkout().join(file)).with_context(|| (*file).to_owned())?;
    ensure!(code.contains(&format!("fn {test}(")), "{name}: {file} has no {test}");
    Ok(format!("`{file}`: {}", test.replace('_', " ")))
}
