//! Matches an output against the expectation of a conformance case.
//!
//! Source: docs/debug-commands.md, how a case matches.

use nixfleet_proto::Timestamp;
use serde_json::Value;

/// True when `actual` is what `expected` asks for; an absent key arrives as `null`.
pub fn matches(expected: &Value, actual: &Value) -> bool {
    match expected {
        Value::Object(keys) => {
            if let Some(items) = keys.get("$contains") {
                return contains(items, actual);
            }
            if let Some(Value::Array(alternatives)) = keys.get("$anyOf") {
                return alternatives.iter().any(|item| matches(item, actual));
            }
            if keys.get("$absent") == Some(&Value::Bool(true)) {
                return actual.is_null();
            }
            actual.is_object()
                && keys
                    .iter()
                    .all(|(key, item)| matches(item, actual.get(key).unwrap_or(&Value::Null)))
        }
        Value::Array(items) => actual.as_array().is_some_and(|actual| {
            items.len() == actual.len()
                && items
                    .iter()
                    .zip(actual)
                    .all(|(item, actual)| matches(item, actual))
        }),
        Value::String(text) => match (instant(text), actual.as_str()) {
            (Some(instant_expected), Some(actual)) => instant(actual) == Some(instant_expected),
            (Some(_), None) => false,
            (None, _) => expected == actual,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => expected == actual,
    }
}

/// Each listed item matches a different item, in any order.
fn contains(items: &Value, actual: &Value) -> bool {
    let (Some(items), Some(actual)) = (items.as_array(), actual.as_array()) else {
        return false;
    };
    assign(items, &mut actual.iter().map(Some).collect())
}

/// Tries every free item for the first listed one, then the rest.
fn assign(items: &[Value], free: &mut Vec<Option<&Value>>) -> bool {
    let Some((first, rest)) = items.split_first() else {
        return true;
    };
    for index in 0..free.len() {
        let Some(candidate) = free[index] else {
            continue;
        };
        if matches(first, candidate) {
            free[index] = None;
            if assign(rest, free) {
                return true;
            }
            free[index] = Some(candidate);
        }
    }
    false
}

fn instant(text: &str) -> Option<Timestamp> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(parsed.to_utc())
}
