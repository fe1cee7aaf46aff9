//! Every stage runs on a tiny fleet and says what it measured in a form that machines read.

use std::process::Command;

use serde_json::Value;

#[test]
fn stages_in_memory_run_and_their_figures_parse() {
    let folder = tempfile::tempdir().unwrap();
    let (json, plot) = (
        folder.path().join("figures.json"),
        folder.path().join("costs.svg"),
    );
    let status = Command::new(env!("CARGO_BIN_EXE_nixfleet-bench"))
        .args(["--stage", "fold,planner,growth"])
        .args(["--hosts", "20,40", "--rounds", "1", "--json"])
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .status()
        .unwrap();
    assert!(status.success());
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let figures = report["figures"].as_array().unwrap();
    for stage in ["fold", "planner", "growth"] {
        let mut of_stage = figures.iter().filter(|figure| figure["stage"] == stage);
        assert!(
            of_stage.all(|figure| figure["value"].is_number()),
            "{stage}"
        );
        assert!(
            figures.iter().any(|figure| figure["stage"] == stage),
            "{stage}"
        );
    }
    assert!(std::fs::read_to_string(plot).unwrap().starts_with("<svg"));
}
