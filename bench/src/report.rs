//! The table, and the figures for programs.

use std::{fmt::Write, fs};

use anyhow::{Context, Result};

use crate::{
    Settings, plot,
    servers::{Kind, LOCAL_ONLY},
    workloads::Figures,
};

/// Middle, smallest and largest of the rounds.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

pub(crate) fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted.get(middle.wrapping_sub(1))? + sorted.get(middle)?) / 2.0
    };
    Some(Spread { median, least: *sorted.first()?, most: *sorted.last()? })
}

/// Writes `results.md`, `results.json` and `results.svg`, and prints the table.
pub(crate) fn write(settings: &Settings, figures: &Figures) -> Result<()> {
    fs::create_dir_all(&settings.output)?;
    let table = table(settings, figures)?;
    println!("{table}");
    fs::write(settings.output.join("results.md"), &table)?;
    fs::write(settings.output.join("results.json"), serde_json::to_string_pretty(figures)?)?;
    plot::draw(&settings.output.join("results.svg"), figures).context("drawing the plot")
}

fn table(settings: &Settings, figures: &Figures) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "# Varve beside Apache Kafka, in one run\n")?;
    writeln!(text, "Command: `cargo run --release --package varve-bench -- {}`\n", arguments())?;
    writeln!(text, "{}\n", machine())?;
    writeln!(
        text,
        "{} rounds, alternating. Median (least to most). The ratio is Varve's median to Kafka's: below 1 is less.\n",
        settings.runs
    )?;
    writeln!(
        text,
        "Hot figures (produce, consume, latency, resident, start) are of nodes that keep everything local, as Kafka does: \
         Varve runs with `{LOCAL_ONLY}`. The archive and the many partitions have measurements of their own, with the \
         archive on, which it is by default.\n\nResident under load is the largest of samples taken 20 times a second \
         while the load ran, of the process's VmRSS; the other resident figures are one sample at that moment.\n\n\
         The load generator's CPU is that of the one process that sends and reads. Over TLS it encrypts and decrypts \
         too, as the brokers do.\n\nThree brokers have three replicas of everything, and acks=all with \
         min.insync.replicas=2; GB are those of the producer. All processes count: Kafka's controllers are in its \
         brokers, Varve's etcd (one member) is one more. Each has {} idle partitions beside those that are \
         written. A killed leader is one of them, with either's default timeouts: all that it led take records again. \
         A replaced broker comes back with its id and an empty disk: the topic has {} MB of zstd batches, which Varve \
         has archived before.\n",
        settings.idle_partitions, settings.archive_megabytes
    )?;
    writeln!(text, "| measurement | Apache Kafka | Varve | ratio |\n|---|---|---|---|")?;
    for (name, by_kind) in figures {
        let cell = |kind| match by_kind.get(&kind).and_then(|values| spread(values)) {
            Some(Spread { median, least, most }) => format!("{median:.3} ({least:.3} to {most:.3})"),
            None => "-".to_owned(),
        };
        let ratio = ratio(by_kind).map_or("-".to_owned(), |ratio| format!("**{ratio:.3}**"));
        writeln!(text, "| {name} | {} | {} | {ratio} |", cell(Kind::Kafka), cell(Kind::Varve))?;
    }
    Ok(text)
}

/// Those of this run, without the folders of this machine.
fn arguments() -> String {
    const FOLDERS: [&str; 4] = ["--tools", "--scratch", "--output", "--varve"];
    let mut arguments = std::env::args().skip(1);
    let mut shown = Vec::new();
    while let Some(argument) = arguments.next() {
        if FOLDERS.contains(&argument.as_str()) {
            arguments.next();
        } else if argument == "--lines" {
            arguments.next();
            shown.push("--lines LOG-FOLDER".to_owned());
        } else {
            shown.push(argument);
        }
    }
    shown.join(" ")
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let model = named.trim_start_matches([' ', '\t', ':']).split('@').next().unwrap_or_default().trim_end();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Machine: {cores} cores, {model}; broker and load share them.")
}

fn ratio(by_kind: &std::collections::BTreeMap<Kind, Vec<f64>>) -> Option<f64> {
    let kafka = spread(by_kind.get(&Kind::Kafka)?)?.median;
    let varve = spread(by_kind.get(&Kind::Varve)?)?.median;
    (kafka > 0.0).then(|| varve / kafka)
}
