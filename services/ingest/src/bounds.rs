//! Bounds of what an agent may report: beyond them lie values that the log, the database or a
//! reader's patience cannot hold.

use nixfleet_proto::Timestamp;
use nixfleet_proto::wire::EventRequest;
use serde_json::Value;

use crate::error::ApiError;

/// Names, closures and identifiers.
const MAX_TEXT_BYTES: usize = 1024;
/// Reasons written for people.
const MAX_REASON_BYTES: usize = 8 * 1024;
/// The end of a failed command's output.
const MAX_TAIL_BYTES: usize = 64 * 1024;
/// Probes of a host, controls of a probe.
const MAX_ITEMS: usize = 512;
/// Years a host's clock may claim; beyond them it is broken, and some databases are too.
const YEARS: std::ops::RangeInclusive<i32> = 2000..=2199;
/// Largest integer every reader holds: a signed 64-bit column.
const MAX_INTEGER: u64 = i64::MAX as u64;

/// Checks an event against every bound.
///
/// # Errors
/// A 400 that names the first field out of bounds.
///
/// Source: docs/wire-protocol.md, limits.
pub fn check_event(request: &EventRequest) -> Result<(), ApiError> {
    if request.event.seq == 0 {
        return Err(out_of_bounds("event.seq", "the first event is 1"));
    }
    check_time("event", request.event.body.at())?;
    let value = serde_json::to_value(request)
        .map_err(|error| ApiError::internal("reading an event back", &error))?;
    check_value(&mut String::new(), &value)
}

/// Checks a time that a client sent.
///
/// # Errors
/// A 400 that names `field`.
pub fn check_time(field: &str, at: Timestamp) -> Result<(), ApiError> {
    use chrono::Datelike as _;
    if YEARS.contains(&at.year()) {
        Ok(())
    } else {
        let message = format!("its time {at} is not within the years 2000 to 2199");
        Err(out_of_bounds(field, &message))
    }
}

/// Checks a text that a client sent: no NUL, at most `max` bytes.
///
/// # Errors
/// A 400 that names `field`.
pub fn check_text(field: &str, text: &str, max: usize) -> Result<(), ApiError> {
    if text.len() > max {
        let message = format!("{} bytes are more than {max}", text.len());
        return Err(out_of_bounds(field, &message));
    }
    if text.contains('\0') {
        return Err(out_of_bounds(field, "holds a NUL character"));
    }
    Ok(())
}

fn check_value(path: &mut String, value: &Value) -> Result<(), ApiError> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => match number.as_u64() {
            Some(number) if number > MAX_INTEGER => {
                Err(out_of_bounds(path, "is above 9223372036854775807"))
            }
            Some(_) | None => Ok(()),
        },
        Value::String(text) => {
            let field = path.rsplit('.').next().unwrap_or(path);
            let max = match field {
                "stderrTail" => MAX_TAIL_BYTES,
                "failureReason" | "overrideReason" => MAX_REASON_BYTES,
                // Hostnames, rollout ids, closures, probe names and whatever comes next.
                _other => MAX_TEXT_BYTES,
            };
            check_text(path, text, max)
        }
        Value::Array(items) => {
            if items.len() > MAX_ITEMS {
                let message = format!("{} items are more than {MAX_ITEMS}", items.len());
                return Err(out_of_bounds(path, &message));
            }
            let length = path.len();
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                check_value(path, item)?;
                path.truncate(length);
            }
            Ok(())
        }
        Value::Object(map) => {
            let length = path.len();
            for (key, value) in map {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                check_value(path, value)?;
                path.truncate(length);
            }
            Ok(())
        }
    }
}

fn out_of_bounds(field: &str, message: &str) -> ApiError {
    ApiError::field("out-of-bounds", field, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: Value) -> EventRequest {
        let request = serde_json::json!({
            "hostname": "web-1", "rolloutId": "stable@4f", "event": event,
        });
        serde_json::from_value(request).unwrap()
    }

    #[track_caller]
    fn check(body: Value, field: Option<&str>) {
        let error = check_event(&event(body)).err();
        let found = error.as_ref().and_then(ApiError::at_field);
        assert_eq!(found, field, "{error:?}");
    }

    fn failed(tail: &str) -> Value {
        serde_json::json!({
            "kind": "ActivationFailed", "seq": 3, "exitCode": 1, "stderrTail": tail,
            "failedAt": "2026-01-01T00:00:00Z",
        })
    }

    #[test]
    fn texts_have_the_bound_of_their_field() {
        check(failed("what went wrong"), None);
        check(failed(&"x".repeat(64 * 1024)), None);
        check(failed(&"x".repeat(64 * 1024 + 1)), Some("event.stderrTail"));
        check(failed("a\0b"), Some("event.stderrTail"));
        let started = serde_json::json!({
            "kind": "ActivationStarted", "seq": 2, "startedAt": "2026-01-01T00:00:00Z",
            "switchMethod": "x".repeat(1025),
        });
        check(started, Some("event.switchMethod"));
    }

    #[test]
    fn lists_and_what_is_in_them_are_bounded() {
        let result = |controls: Vec<Value>| {
            serde_json::json!({
                "kind": "ProbeResult", "seq": 4, "probeName": "p", "mode": "enforce",
                "status": "fail", "observedAt": "2026-01-01T00:00:00Z", "subResults": controls,
            })
        };
        let control =
            |id: &str| serde_json::json!({ "controlId": id, "status": "fail", "framework": "f" });
        check(result(vec![control("a"); 512]), None);
        check(result(vec![control("a"); 513]), Some("event.subResults"));
        let second = result(vec![control("a"), control("b\0")]);
        check(second, Some("event.subResults[1].controlId"));
    }

    #[test]
    fn broken_clocks_and_numbers_no_column_holds_are_refused() {
        let at = |text: &str| {
            serde_json::json!({
                "kind": "Converged", "seq": 4, "convergedAt": text, "currentClosure": "c",
            })
        };
        check(at("2026-01-01T00:00:00Z"), None);
        check(at("1970-01-01T00:00:00Z"), Some("event"));
        check(at("2200-01-01T00:00:00Z"), Some("event"));
        let mut zero = failed("");
        zero["seq"] = 0.into();
        check(zero, Some("event.seq"));
        let mut huge = failed("");
        huge["seq"] = u64::MAX.into();
        check(huge, Some("event.seq"));
    }
}
