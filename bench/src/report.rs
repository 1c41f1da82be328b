//! The table and the plot.

use std::{fmt::Write, fs};

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::{Settings, servers::Kind, workloads::Figures};

/// Middle, smallest and largest of the rounds.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

fn spread(values: &[f64]) -> Option<Spread> {
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
    let ratios = ratios(figures);
    if !ratios.is_empty() {
        plot(settings, &ratios).context("drawing the plot")?;
    }
    Ok(())
}

fn table(settings: &Settings, figures: &Figures) -> Result<String> {
    let mut text = String::new();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    writeln!(text, "# Varve beside Apache Kafka, in one run\n")?;
    writeln!(text, "Command: `cargo run --release --package varve-bench -- {}`\n", arguments.join(" "))?;
    writeln!(text, "{}\n", machine())?;
    writeln!(
        text,
        "{} rounds, alternating. Median (least to most). The ratio is Varve's median to Kafka's: below 1 is less.\n",
        settings.runs
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

fn ratios(figures: &Figures) -> Vec<(&'static str, f64)> {
    figures.iter().filter_map(|(name, by_kind)| Some((*name, ratio(by_kind)?))).collect()
}

/// One bar a measurement: Varve's median as a share of Kafka's, which is the line at 1.
fn plot(settings: &Settings, ratios: &[(&'static str, f64)]) -> Result<()> {
    let path = settings.output.join("results.svg");
    let area = SVGBackend::new(&path, (1000, 90 + 34 * ratios.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = ratios.iter().map(|(_, ratio)| *ratio).fold(1.2, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("Varve's median as a share of Apache Kafka's", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(300)
        .build_cartesian_2d(0.0..most * 1.05, 0.0..ratios.len() as f64)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().x_desc("ratio (line: Kafka)").draw()?;
    for (row, (name, ratio)) in ratios.iter().enumerate() {
        let low = (ratios.len() - 1 - row) as f64;
        let colour = RGBColor(38, 104, 171);
        chart.draw_series([Rectangle::new([(0.0, low + 0.2), (*ratio, low + 0.8)], colour.filled())])?;
        let (x, y) = chart.backend_coord(&(0.0, low + 0.62));
        area.draw(&Text::new(name.to_string(), (x - 290, y - 4), ("sans-serif", 14)))?;
        let (x, y) = chart.backend_coord(&(*ratio, low + 0.62));
        area.draw(&Text::new(format!("{ratio:.2}"), (x + 5, y - 4), ("sans-serif", 13)))?;
    }
    chart.draw_series(LineSeries::new([(1.0, 0.0), (1.0, ratios.len() as f64)], BLACK.stroke_width(2)))?;
    area.present()?;
    Ok(())
}
