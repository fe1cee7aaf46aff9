//! Every conformance case of `tests/vectors`, through the real binary.
//!
//! Source: docs/debug-commands.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use chrono::{DateTime, FixedOffset};
use serde_json::Value;
use support::nixfleet;

/// True when the output is what a case expects.
fn matches(expected: &Value, actual: &Value) -> bool {
    match expected {
        Value::Object(keys) => {
            if let Some(items) = keys.get("$contains") {
                let (Value::Array(items), Value::Array(actual)) = (items, actual) else {
                    return false;
                };
                return contains(items, &mut vec![false; actual.len()], actual);
            }
            if let Some(Value::Array(alternatives)) = keys.get("$anyOf") {
                return alternatives.iter().any(|one| matches(one, actual));
            }
            if keys.get("$absent") == Some(&Value::Bool(true)) {
                return actual.is_null();
            }
            actual.is_object()
                && keys
                    .iter()
                    .all(|(key, value)| matches(value, &actual[key.as_str()]))
        }
        Value::Array(items) => actual.as_array().is_some_and(|actual| {
            items.len() == actual.len()
                && items
                    .iter()
                    .zip(actual)
                    .all(|(one, other)| matches(one, other))
        }),
        Value::String(text) => match (instant(text), actual.as_str().and_then(instant)) {
            (Some(one), Some(other)) => one == other,
            (Some(_), None) | (None, Some(_) | None) => expected == actual,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => expected == actual,
    }
}

/// Each item matches a different element: tries all ways, because a vague item must not take the
/// element of a strict one.
fn contains(items: &[Value], used: &mut Vec<bool>, actual: &[Value]) -> bool {
    let Some((first, rest)) = items.split_first() else {
        return true;
    };
    for index in 0..actual.len() {
        if !used[index] && matches(first, &actual[index]) {
            used[index] = true;
            if contains(rest, used, actual) {
                return true;
            }
            used[index] = false;
        }
    }
    false
}

fn instant(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(text).ok()
}

/// Runs all cases of a file through one process and counts them.
fn check_file(command: &str, text: &str) -> usize {
    let cases: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let input: String = cases
        .iter()
        .map(|case| format!("{}\n", case["input"]))
        .collect();
    let run = nixfleet(&["debug", command], input.as_bytes());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let answers: Vec<Value> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), cases.len());
    let mut failed = Vec::new();
    for (case, answer) in cases.iter().zip(&answers) {
        assert_eq!(case["command"], command, "{}", case["name"]);
        if !matches(&case["expect"], answer) {
            failed.push(format!(
                "{} ({})\n  expected {}\n  answered {answer}",
                case["name"], case["source"], case["expect"]
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} cases of {command} fail:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
    cases.len()
}

#[test]
fn the_host_machine_conforms() {
    let count = check_file("step", include_str!("../../tests/vectors/step.ndjson"));
    assert!(count >= 142, "{count} cases");
}

#[test]
fn the_rollout_machine_conforms() {
    let count = check_file(
        "rollout",
        include_str!("../../tests/vectors/rollout.ndjson"),
    );
    assert!(count >= 54, "{count} cases");
}

#[test]
fn the_planner_conforms() {
    let count = check_file("plan", include_str!("../../tests/vectors/plan.ndjson"));
    assert!(count >= 120, "{count} cases");
}

#[test]
fn the_matcher_detects_a_difference() {
    let check = |expected: &str, actual: &str, fits: bool| {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(
            matches(&parse(expected), &parse(actual)),
            fits,
            "{expected} {actual}"
        );
    };
    check("{}", "{\"a\":1}", true);
    check("{}", "null", false);
    check("{\"a\":1}", "{\"a\":1,\"b\":2}", true);
    check("{\"a\":1}", "{\"a\":2}", false);
    check("[1]", "[1,2]", false);
    check(
        "{\"$contains\":[{},{\"a\":1}]}",
        "[{\"a\":1},{\"b\":2}]",
        true,
    );
    check("{\"$contains\":[1,1]}", "[1,2]", false);
    check("{\"$anyOf\":[1,2]}", "2", true);
    check("{\"$anyOf\":[1,2]}", "3", false);
    check("{\"a\":{\"$absent\":true}}", "{}", true);
    check("{\"a\":{\"$absent\":true}}", "{\"a\":0}", false);
    check(
        "\"2026-05-01T12:00:00Z\"",
        "\"2026-05-01T14:00:00.000+02:00\"",
        true,
    );
    check(
        "\"2026-05-01T12:00:00Z\"",
        "\"2026-05-01T12:00:01Z\"",
        false,
    );
    check("\"a\"", "\"b\"", false);
}
