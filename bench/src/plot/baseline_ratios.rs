//! Plot of the stages as parts of their baselines.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::draw_result::{DrawResult, draw_error};
use crate::measurements::{Baseline, BenchReport, Measurement, Target, TargetStatus};

/// Pixels of a bar with its text.
const ROW_HEIGHT: u32 = 44;
/// Height of the title, axis and margins.
const FRAME_HEIGHT: u32 = 110;

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A stage beside its baseline.
struct Bar {
    text: String,
    /// Part of the baseline that is reached.
    part: f64,
    /// Part of the baseline that shall be reached.
    target: Option<f64>,
    color: RGBColor,
}

impl Bar {
    fn of(measurement: &Measurement, baseline: &Baseline) -> Self {
        let part = match measurement.unit {
            // Of times the shorter one is the better one.
            "ms" | "s" => 1.0 / baseline.ratio,
            _ => baseline.ratio,
        };
        let hosts = measurement.hosts.map(|hosts| format!(", {hosts} hosts"));
        let mut text = format!(
            "{}: {}{}: {part:.2} of {}",
            measurement.stage,
            measurement.name,
            hosts.unwrap_or_default(),
            baseline.name
        );
        let target = match measurement.target {
            Some(Target::RatioAtLeast(bound)) => Some(bound),
            Some(Target::RatioAtMost(bound)) => Some(1.0 / bound),
            Some(Target::AtLeast(_) | Target::AtMost(_)) | None => None,
        };
        if let Some(target) = target {
            text.push_str(&format!("; target {target:.2}"));
        }
        // The verdict is about the ratio only where the target is.
        let color = match measurement.target_status.filter(|_| target.is_some()) {
            Some(TargetStatus::Pass) => RGBColor(60, 140, 90),
            Some(TargetStatus::Short) => RGBColor(200, 80, 60),
            None => RGBColor(110, 130, 160),
        };
        Self {
            text,
            part,
            target,
            color,
        }
    }
}

/// Draws a bar for every measurement that has a baseline; no file when none has.
pub(super) fn draw(report: &BenchReport, path: &Path) -> DrawResult {
    let measurements = report.measurements.iter();
    let bars = measurements
        .filter_map(|measurement| Some(Bar::of(measurement, measurement.baseline.as_ref()?)));
    let bars: Vec<Bar> = bars.filter(|bar| bar.part.is_finite()).collect();
    if bars.is_empty() {
        return Ok(());
    }
    let height = FRAME_HEIGHT + ROW_HEIGHT * bars.len() as u32;
    let root = SVGBackend::new(path, (800, height)).into_drawing_area();
    paint(&root, &bars, &report.command)
}

fn paint(root: &DrawingArea<SVGBackend<'_>, Shift>, bars: &[Bar], command: &str) -> DrawResult {
    root.fill(&WHITE).map_err(draw_error)?;
    let most = bars.iter().map(|bar| bar.part).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(root)
        .margin(16)
        .caption(command, ("sans-serif", 14))
        .x_label_area_size(40)
        .build_cartesian_2d(0.0..most, 0.0..bars.len() as f64)
        .map_err(draw_error)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh()
        .x_desc("part of the baseline that is reached; a line marks the target")
        .draw()
        .map_err(draw_error)?;
    for (row, bar) in bars.iter().rev().enumerate() {
        paint_bar(&mut chart, bar, row as f64)?;
    }
    root.present().map_err(draw_error)?;
    Ok(())
}

/// Text above, bar below, in the row that begins at `low`.
fn paint_bar(chart: &mut Plane<'_, '_>, bar: &Bar, low: f64) -> DrawResult {
    let body = [(0.0, low + 0.1), (bar.part, low + 0.5)];
    let body = Rectangle::new(body, bar.color.filled());
    chart.draw_series([body]).map_err(draw_error)?;
    let text = Text::new(bar.text.clone(), (0.0, low + 0.92), ("sans-serif", 13));
    chart.draw_series([text]).map_err(draw_error)?;
    if let Some(target) = bar.target {
        let line = vec![(target, low), (target, low + 0.6)];
        let line = PathElement::new(line, BLACK.stroke_width(2));
        chart.draw_series([line]).map_err(draw_error)?;
    }
    Ok(())
}
