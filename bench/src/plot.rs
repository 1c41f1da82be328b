//! The plot: how Varve compares with Apache Kafka, and what it reaches where there is nothing to compare it with.

use std::path::Path;

use anyhow::Result;
use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
};

use crate::{
    report::{Spread, spread},
    servers::Kind,
    workloads::Figures,
};

const WIDTH: u32 = 1100;
const ROW: u32 = 30;
const NAMES: u32 = 440;
const BAR: RGBColor = RGBColor(38, 104, 171);
const WHISKER: RGBColor = RGBColor(40, 40, 40);

/// A line of the plot: what was measured, where its bar and its whiskers end, and what stands beside them.
struct Row {
    name: &'static str,
    bar: Spread,
    label: String,
}

impl Row {
    /// A figure per CPU-second is infinite if the kernel counted none: a run so short has no place in the plot.
    fn can_be_drawn(&self) -> bool {
        self.bar.median.is_finite() && self.bar.most.is_finite()
    }
}

/// Writes two panels of bars, each with the spread of its rounds.
pub(crate) fn draw(path: &Path, figures: &Figures) -> Result<()> {
    let (compared, alone) = (compared(figures), alone(figures));
    if compared.is_empty() && alone.is_empty() {
        return Ok(());
    }
    let height = |rows: &[Row]| if rows.is_empty() { 0 } else { 90 + ROW * rows.len() as u32 };
    let area = SVGBackend::new(path, (WIDTH, height(&compared) + height(&alone))).into_drawing_area();
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(height(&compared));
    panel(
        &above,
        "Varve's median as a share of Apache Kafka's (line: Kafka), and the spread of the rounds",
        &compared,
    )?;
    panel(&below, "Varve alone: the spread of the rounds as a share of their median (line)", &alone)?;
    area.present()?;
    Ok(())
}

/// What both brokers were measured at. A ratio's spread reaches from Varve's least to Kafka's most, and the other way round.
fn compared(figures: &Figures) -> Vec<Row> {
    let row = |(name, by_kind): (&&'static str, &std::collections::BTreeMap<Kind, Vec<f64>>)| {
        let (kafka, varve) = (spread(by_kind.get(&Kind::Kafka)?)?, spread(by_kind.get(&Kind::Varve)?)?);
        (kafka.least > 0.0).then(|| {
            let median = varve.median / kafka.median;
            let bar = Spread { median, least: varve.least / kafka.most, most: varve.most / kafka.least };
            Row { name, bar, label: format!("{median:.2}") }
        })
    };
    figures.iter().filter_map(row).filter(Row::can_be_drawn).collect()
}

/// What only Varve has: the archive, many partitions.
fn alone(figures: &Figures) -> Vec<Row> {
    let row = |(name, by_kind): (&&'static str, &std::collections::BTreeMap<Kind, Vec<f64>>)| {
        let varve = spread(by_kind.get(&Kind::Varve)?)?;
        (!by_kind.contains_key(&Kind::Kafka) && varve.median > 0.0).then(|| {
            let share = |figure: f64| figure / varve.median;
            let bar = Spread { median: 1.0, least: share(varve.least), most: share(varve.most) };
            Row { name, bar, label: format!("{:.3}", varve.median) }
        })
    };
    figures.iter().filter_map(row).filter(Row::can_be_drawn).collect()
}

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, rows: &[Row]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let most = rows.iter().map(|row| row.bar.most).fold(1.2, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..most * 1.1, 0.0..rows.len() as f64)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().draw()?;
    for (at, row) in rows.iter().enumerate() {
        bar(area, &mut chart, (rows.len() - 1 - at) as f64, row)?;
    }
    chart.draw_series(LineSeries::new([(1.0, 0.0), (1.0, rows.len() as f64)], BLACK.stroke_width(2)))?;
    Ok(())
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn bar(area: &DrawingArea<SVGBackend<'_>, Shift>, chart: &mut Chart<'_, '_>, low: f64, row: &Row) -> Result<()> {
    let Spread { median, least, most } = row.bar;
    let middle = low + 0.5;
    chart.draw_series([Rectangle::new([(0.0, low + 0.2), (median, low + 0.8)], BAR.filled())])?;
    let whisker = [
        vec![(least, middle), (most, middle)],
        vec![(least, low + 0.3), (least, low + 0.7)],
        vec![(most, low + 0.3), (most, low + 0.7)],
    ];
    for line in whisker {
        chart.draw_series(LineSeries::new(line, WHISKER.stroke_width(1)))?;
    }
    let (base_x, base_y) = area.get_base_pixel();
    let at = |place: f64| {
        let (x, y) = chart.backend_coord(&(place, low + 0.65));
        (x - base_x, y - base_y)
    };
    let (x, y) = at(0.0);
    area.draw(&Text::new(row.name.to_owned(), (x - NAMES as i32 + 10, y - 2), ("sans-serif", 13)))?;
    let (x, y) = at(most.max(median));
    area.draw(&Text::new(row.label.clone(), (x + 6, y - 2), ("sans-serif", 13)))?;
    Ok(())
}
