//! The conformance cases of both machines.

use std::path::Path;

use nixfleet_core::json_lines::{LineError, rollout_line, step_line};
use serde_json::Value;

use crate::expectation_matcher::matches;

/// Runs the fixed cases, and those of rules that came after them.
fn run(file: &str, answer: fn(&str) -> Result<String, LineError>) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["../../tests/vectors", "tests/core/cases"];
    let cases = folders.map(|folder| {
        let path = package.join(folder).join(file);
        let cases = std::fs::read_to_string(&path).unwrap();
        assert!(!cases.is_empty(), "{}", path.display());
        cases
    });
    let mut failures = Vec::new();
    for line in cases.iter().flat_map(|cases| cases.lines()) {
        let case: Value = serde_json::from_str(line).unwrap();
        let answer = answer(&case["input"].to_string()).unwrap();
        let actual: Value = serde_json::from_str(&answer).unwrap();
        if !matches(&case["expect"], &actual) {
            failures.push(format!(
                "{}\n  expected {}\n  got      {answer}",
                case["name"], case["expect"]
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn step_answers_every_case() {
    run("step.ndjson", step_line);
}

#[test]
fn rollout_answers_every_case() {
    run("rollout.ndjson", rollout_line);
}

/// The first case of a file, changed.
fn changed(file: &str, change: impl Fn(&mut Value)) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(file);
    let cases = std::fs::read_to_string(path).unwrap();
    let case: Value = serde_json::from_str(cases.lines().next().unwrap()).unwrap();
    let mut input = case["input"].clone();
    change(&mut input);
    input.to_string()
}

#[test]
fn null_stands_for_absent_and_unknown_keys_are_ignored() {
    let line = changed("step.ndjson", |input| {
        input["rolloutState"] = Value::Null;
        input["surprise"] = Value::from(1);
        input["event"]["surprise"] = Value::from("x");
        input["record"]["surprise"] = Value::Array(vec![]);
        for key in [
            "currentClosureAtDispatch",
            "currentClosure",
            "revertedTo",
            "soakDueAt",
            "policyApplied",
            "declaredProbes",
            "convergenceClaim",
            "unchanged",
            "probes",
            "recoverySeq",
        ] {
            input["record"][key] = Value::Null;
        }
    });
    step_line(&line).unwrap();
}

#[test]
fn the_largest_sequence_is_exact() {
    let line = changed("step.ndjson", |input| {
        input["record"]["state"] = "Activating".into();
        input["record"]["lastEventSeq"] = (u64::MAX - 1).into();
        input["event"] = serde_json::json!({
            "kind": "ActivationStarted", "seq": u64::MAX,
            "startedAt": "2026-05-01T10:02:00Z", "switchMethod": "switch",
        });
    });
    let answer: Value = serde_json::from_str(&step_line(&line).unwrap()).unwrap();
    assert_eq!(
        answer["accepted"]["next"]["lastEventSeq"],
        Value::from(u64::MAX)
    );
}

#[test]
fn what_is_no_input_is_an_error_and_no_answer() {
    for line in ["", "[]", "{}", "null", "{\"record\":1}"] {
        assert!(step_line(line).is_err(), "{line}");
    }
    for line in ["", "[]", "{}", "null"] {
        assert!(rollout_line(line).is_err(), "{line}");
    }
    let line = changed("step.ndjson", |input| {
        input["event"]["kind"] = "DispatchReject".into();
    });
    assert!(step_line(&line).is_err());
}
