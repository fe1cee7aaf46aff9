//! The costs that must not grow with the fleet.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::prelude::*;

use super::draw_result::{DrawResult, draw_error};
use crate::measurements::BenchReport;

/// Draws nanoseconds per event over hosts; no file with fewer than two sizes.
pub(super) fn draw(report: &BenchReport, path: &Path) -> DrawResult {
    let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for measurement in report
        .measurements
        .iter()
        .filter(|measurement| measurement.unit == "ns")
    {
        if let Some(hosts) = measurement.hosts {
            let line = lines.entry(&measurement.name).or_default();
            line.push((hosts as f64, measurement.value));
        }
    }
    let points = || lines.values().flatten();
    let most = points().map(|(_, cost)| *cost).fold(0.0, f64::max);
    let last = points().map(|(hosts, _)| *hosts).fold(0.0, f64::max);
    let first = points().map(|(hosts, _)| *hosts).fold(last, f64::min);
    if first >= last {
        return Ok(());
    }
    let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
    paint(&root, &lines, (first..last, most * 1.1), &report.command)
}

fn paint(
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    lines: &BTreeMap<&str, Vec<(f64, f64)>>,
    (hosts, most): (std::ops::Range<f64>, f64),
    command: &str,
) -> DrawResult {
    root.fill(&WHITE).map_err(draw_error)?;
    let mut chart = ChartBuilder::on(root)
        .margin(16)
        .caption(command, ("sans-serif", 14))
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(hosts.log_scale(), 0.0..most)
        .map_err(draw_error)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("hosts")
        .y_desc("ns per event")
        .draw()
        .map_err(draw_error)?;
    for (number, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(number).stroke_width(2);
        let series = LineSeries::new(points.iter().copied(), color).point_size(4);
        let drawn = chart.draw_series(series).map_err(draw_error)?;
        let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color);
        drawn.label(*name).legend(key);
    }
    let mut labels = chart.configure_series_labels();
    labels
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()
        .map_err(draw_error)?;
    root.present().map_err(draw_error)?;
    Ok(())
}
