//! Every planner case of `tests/vectors`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

#[test]
fn every_vector_matches() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/plan.ndjson");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut failures = Vec::new();
    let mut count = 0;
    for line in text.lines() {
        count += 1;
        let case: Value = serde_json::from_str(line).unwrap();
        let answer = nixfleet_plan::json_case::plan_line(&case["input"].to_string()).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if !matches(&case["expect"], &answer) {
            failures.push(format!(
                "{}\n  wanted {}\n  got    {answer}",
                case["name"], case["expect"]
            ));
        }
    }
    assert!(count >= 120, "only {count} cases");
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The matching rules of `tests/vectors/README.md`.
fn matches(expect: &Value, got: &Value) -> bool {
    match expect {
        Value::Object(keys) => {
            if let Some(items) = keys.get("$contains") {
                return contains(items.as_array().expect("$contains holds a list"), got);
            }
            if let Some(options) = keys.get("$anyOf") {
                return options
                    .as_array()
                    .expect("$anyOf holds a list")
                    .iter()
                    .any(|option| matches(option, got));
            }
            if keys.contains_key("$absent") {
                return got.is_null();
            }
            got.is_object() && keys.iter().all(|(key, value)| matches(value, &got[key]))
        }
        Value::Array(items) => got.as_array().is_some_and(|others| {
            items.len() == others.len()
                && items
                    .iter()
                    .zip(others)
                    .all(|(item, other)| matches(item, other))
        }),
        Value::String(text) => match chrono::DateTime::parse_from_rfc3339(text) {
            Ok(instant) => got.as_str().is_some_and(|other| {
                chrono::DateTime::parse_from_rfc3339(other).is_ok_and(|other| other == instant)
            }),
            Err(_) => got == expect,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => got == expect,
    }
}

/// Each item matches a different element. Greedy search is enough for the cases kept here.
fn contains(items: &[Value], got: &Value) -> bool {
    let Some(others) = got.as_array() else {
        return false;
    };
    let mut used = BTreeSet::new();
    items.iter().all(|item| {
        let free = (0..others.len()).filter(|place| !used.contains(place));
        let found = free
            .into_iter()
            .find(|place| matches(item, &others[*place]));
        found.is_some_and(|place| used.insert(place))
    })
}
