//! SVG plot of a run over time: sizes, database, events and releases, lags.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::sampler::Sample;
use crate::summary::Summary;

type DrawResult = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Pixels of the plot and of one panel.
const WIDTH: u32 = 900;
const PANEL_HEIGHT: u32 = 280;

/// A line of a panel.
struct Line {
    name: &'static str,
    value: fn(&Sample) -> f64,
}

/// A name and a value.
type Limit = (&'static str, fn(&Summary) -> f64);

/// Some lines with a common unit.
struct Panel {
    unit: &'static str,
    lines: &'static [Line],
    /// A value that the lines must stay below.
    limit: Option<Limit>,
}

const PANELS: [Panel; 4] = [
    Panel {
        unit: "GiB, bus",
        lines: &[
            Line {
                name: "disk of the bus",
                value: |sample| gibibytes(sample.disk_bytes),
            },
            Line {
                name: "input log",
                value: |sample| gibibytes(sample.input_bytes),
            },
            Line {
                name: "output log",
                value: |sample| gibibytes(sample.output_bytes),
            },
            Line {
                name: "objects",
                value: |sample| gibibytes(sample.object_bytes),
            },
        ],
        limit: Some(("limit", |summary| gibibytes(summary.disk_limit))),
    },
    Panel {
        unit: "GiB, database",
        lines: &[Line {
            name: "database",
            value: |sample| gibibytes(sample.database_bytes.unwrap_or(0)),
        }],
        limit: None,
    },
    Panel {
        unit: "million events, releases",
        lines: &[
            Line {
                name: "accepted events, million",
                value: |sample| sample.accepted as f64 / 1e6,
            },
            Line {
                name: "releases",
                value: |sample| f64::from(sample.releases),
            },
        ],
        limit: None,
    },
    Panel {
        unit: "thousand events behind",
        lines: &[
            Line {
                name: "applier",
                value: |sample| sample.applier_lag as f64 / 1e3,
            },
            Line {
                name: "archive",
                value: |sample| sample.archive_lag as f64 / 1e3,
            },
        ],
        limit: None,
    },
];

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Plots a run with at least two samples.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(summary: &Summary, path: &Path) -> Result<()> {
    if summary.samples.len() < 2 {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let height = PANEL_HEIGHT * PANELS.len() as u32;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    paint(&root, summary)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("drawing {}", path.display()))
}

fn paint(root: &DrawingArea<SVGBackend<'_>, Shift>, summary: &Summary) -> DrawResult {
    root.fill(&WHITE).map_err(draw_error)?;
    let areas = root.split_evenly((PANELS.len(), 1));
    for (number, (panel, area)) in PANELS.iter().zip(&areas).enumerate() {
        let caption = if number == 0 {
            summary.command.as_str()
        } else {
            ""
        };
        paint_panel(area, (panel, caption), summary)?;
    }
    root.present().map_err(draw_error)?;
    Ok(())
}

fn paint_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    (panel, caption): (&Panel, &str),
    summary: &Summary,
) -> DrawResult {
    let samples = &summary.samples;
    let limit = panel.limit.map(|(name, limit)| (name, limit(summary)));
    let values = panel.lines.iter();
    let values = values.flat_map(|line| samples.iter().map(line.value));
    let most = values
        .chain(limit.map(|(_, limit)| limit))
        .fold(0.0, f64::max);
    let last = samples.last().map_or(1.0, |sample| sample.seconds);
    // A panel needs a height even if every value is 0.
    let top = if most > 0.0 { most * 1.1 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(caption, ("sans-serif", 14))
        .x_label_area_size(34)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last, 0.0..top)
        .map_err(draw_error)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("seconds")
        .y_desc(panel.unit)
        .draw()
        .map_err(draw_error)?;
    let lines = panel.lines.iter();
    let points = |line: &Line| -> Vec<(f64, f64)> {
        let point = |sample: &Sample| (sample.seconds, (line.value)(sample));
        samples.iter().map(point).collect()
    };
    let mut series: Vec<_> = lines.map(|line| (line.name, points(line))).collect();
    series.extend(limit.map(|(name, limit)| (name, vec![(0.0, limit), (last, limit)])));
    for (number, (name, points)) in series.into_iter().enumerate() {
        let is_limit = number == panel.lines.len();
        let color = if is_limit {
            RED.stroke_width(2)
        } else {
            Palette99::pick(number + 1).stroke_width(2)
        };
        let drawn = chart.draw_series(LineSeries::new(points, color));
        let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color);
        drawn.map_err(draw_error)?.label(name).legend(key);
    }
    let mut labels = chart.configure_series_labels();
    labels
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .background_style(WHITE.mix(0.8))
        .draw()
        .map_err(draw_error)?;
    Ok(())
}

fn draw_error<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Volume;
    use crate::sampler::Samples;
    use crate::summary::RunData;

    #[test]
    fn the_plot_has_labels() {
        let sample = |seconds, disk_bytes| Sample {
            seconds,
            disk_bytes,
            ..Sample::default()
        };
        let summary = Summary::new(RunData {
            volume: Volume {
                hosts: 20,
                releases: 1,
                events: 0,
                probe_rounds: 0,
            },
            releases: 1,
            outcome_counts: crate::output_follower::OutcomeCounts::default(),
            phases: Vec::new(),
            samples: Samples {
                samples: vec![sample(0.0, 1 << 20), sample(1.0, 1 << 30)],
                ..Samples::default()
            },
            rebuilt_seconds: None,
            checks: Vec::new(),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run.svg");
        draw(&summary, &path).unwrap();
        let picture = std::fs::read_to_string(path).unwrap();
        assert!(picture.starts_with("<svg"), "{picture}");
        for name in ["disk of the bus", "limit", "releases", "archive"] {
            assert!(picture.contains(name), "{name}");
        }
    }
}
