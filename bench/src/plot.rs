//! Plots of the report, one file each.

mod baseline_ratios;
mod draw_result;
mod growth;

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};

use crate::measurements::BenchReport;

use draw_result::DrawResult;

type Draw = fn(&BenchReport, &Path) -> DrawResult;

const PICTURES: [(&str, Draw); 2] = [
    ("growth.svg", growth::draw),
    ("stages.svg", baseline_ratios::draw),
];

/// Draws every plot that has data into a folder, which is created if missing.
pub fn draw(report: &BenchReport, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for (name, draw) in PICTURES {
        let path = folder.join(name);
        draw(report, &path)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("drawing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::{Measurement, Target};

    fn report() -> BenchReport {
        let cost =
            |hosts, ns| Measurement::new("growth", "fold, per event", "ns", vec![ns]).of(hosts);
        let reducer = Measurement::new("reducer", "log to log", "entries/s", vec![60.0, 80.0])
            .against("pull and <publish>", vec![100.0, 100.0])
            .target(Target::RatioAtLeast(0.65));
        let dispatch = Measurement::new("dispatch", "p99", "ms", vec![40.0])
            .against("one append and one commit", vec![10.0]);
        BenchReport {
            command: "nixfleet-bench --plot folder".to_owned(),
            machine: "a machine".to_owned(),
            measurements: vec![cost(1_000, 900.0), cost(10_000, 950.0), reducer, dispatch],
        }
    }

    fn read(folder: &Path, name: &str) -> String {
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn every_plot_is_written_with_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        draw(&report(), &folder).unwrap();
        let growth = read(&folder, "growth.svg");
        assert!(growth.starts_with("<svg"), "{growth}");
        assert!(growth.contains("fold, per event"), "{growth}");
        let stages = read(&folder, "stages.svg");
        assert!(stages.starts_with("<svg"), "{stages}");
        assert!(stages.contains("reducer: log to log"), "{stages}");
        assert!(
            stages.contains("0.70 of pull and &lt;publish&gt;; target 0.65"),
            "{stages}"
        );
        // A time equal to its baseline has the ratio 1.
        assert!(
            stages.contains("0.25 of one append and one commit"),
            "{stages}"
        );
    }

    #[test]
    fn no_measurements_give_no_plot() {
        let folder = tempfile::tempdir().unwrap();
        draw(&BenchReport::default(), folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
