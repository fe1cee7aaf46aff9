//! In-process stages run on small fleets and write their measurements as JSON.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Runs stages and holds that each has measurements.
fn check(stages: &[&str], arguments: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("figures.json");
    let status = Command::new(env!("CARGO_BIN_EXE_nixfleet-bench"))
        .args(["--stage", &stages.join(",")])
        .args(arguments)
        .args(["--rounds", "1", "--seconds", "1", "--json"])
        .arg(&json)
        .status()?;
    ensure!(status.success(), "ended with {status}");
    let report: Value = serde_json::from_slice(&std::fs::read(json)?)?;
    let measurements = report["figures"].as_array().context("no measurements")?;
    for stage in stages {
        let of_stage: Vec<_> = measurements
            .iter()
            .filter(|figure| figure["stage"] == *stage)
            .collect();
        ensure!(!of_stage.is_empty(), "{stage} has no figures");
        let numbers = of_stage.iter().all(|figure| figure["value"].is_number());
        ensure!(numbers, "{stage}: {of_stage:?}");
    }
    Ok(())
}

#[test]
fn in_process_stages_run_and_their_figures_parse() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pictures = folder.path().join("pictures");
    let plotted = pictures.to_str().context("a path that is no text")?;
    let stages = ["fold", "planner", "growth"];
    check(&stages, &["--hosts", "20,40", "--plot", plotted])?;
    for picture in ["growth.svg", "stages.svg"] {
        let text = std::fs::read_to_string(pictures.join(picture))?;
        ensure!(text.starts_with("<svg"), "{picture}: {text}");
        ensure!(text.contains("\ncargo xtask bench --"), "{picture}: {text}");
    }
    Ok(())
}
