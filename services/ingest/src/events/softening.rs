//! Texts of an event that a host cannot make shorter: cut here instead of refused, so that no report is lost because
//! of its words. Values that are compared with others (closures, names, ids) are never changed.
//!
//! Source: docs/wire-protocol.md, limits.

use nixfleet_proto::bounds::{REASON_BYTES_MAX, TEXT_BYTES_MAX};
use nixfleet_proto::event::SubResult;
use nixfleet_proto::{HostEventBody, ProbeStatus};

use super::bounds::{MAX_ITEMS, MAX_TAIL_BYTES};

/// Cuts texts and lists to what the log takes, and says so in them.
pub fn soften(body: &mut HostEventBody) {
    use HostEventBody as E;
    match body {
        E::ActivationStarted { switch_method, .. } => soften_text(switch_method, TEXT_BYTES_MAX),
        E::ActivationDeferred { component, .. } => soften_text(component, TEXT_BYTES_MAX),
        E::ActivationFailed { stderr_tail, .. } => soften_text(stderr_tail, MAX_TAIL_BYTES),
        E::RollbackFailed { detail, .. } => soften_text(detail, REASON_BYTES_MAX),
        E::ProbeResult {
            failure_reason,
            sub_results,
            ..
        } => {
            if let Some(sub_results) = sub_results {
                for control in sub_results.iter_mut() {
                    if let Some(reason) = &mut control.override_reason {
                        soften_text(reason, REASON_BYTES_MAX);
                    }
                }
                if let Some(said) = keep_most_telling(sub_results) {
                    let reason = failure_reason.get_or_insert_default();
                    reason.push_str(&said);
                }
            }
            if let Some(reason) = failure_reason {
                soften_text(reason, REASON_BYTES_MAX);
            }
        }
        E::DispatchAck { .. }
        | E::ActivationCompleted { .. }
        | E::RollbackComplete { .. }
        | E::Converged { .. }
        | E::ProbeTopologyDeclared { .. }
        | E::ProbeObservedFirst { .. }
        | E::ProbeFailureFirst { .. }
        | E::Failed { .. } => {}
    }
}

/// Keeps the last bytes, which name the error in most outputs, and replaces what Postgres cannot hold.
fn soften_text(text: &mut String, max: usize) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
    if text.len() <= max {
        return;
    }
    let marker = format!("[the first of {} bytes are cut] ", text.len());
    let start = text.ceil_char_boundary(text.len() - (max - marker.len()));
    text.replace_range(..start, &marker);
}

/// Keeps as many controls as the log takes, failing ones first; says how many there were when it cut some.
fn keep_most_telling(controls: &mut Vec<SubResult>) -> Option<String> {
    let count = controls.len();
    if count <= MAX_ITEMS {
        return None;
    }
    controls.sort_by_key(|control| control.status == ProbeStatus::Pass);
    controls.truncate(MAX_ITEMS);
    Some(format!(" [{MAX_ITEMS} of {count} controls are kept]"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn softened(event: Value) -> Value {
        let mut body: HostEventBody = serde_json::from_value(event).unwrap();
        soften(&mut body);
        serde_json::to_value(body).unwrap()
    }

    fn failed(tail: &str) -> Value {
        let event = json!({
            "kind": "ActivationFailed", "exitCode": 1, "stderrTail": tail,
            "failedAt": "2026-01-01T00:00:00Z",
        });
        softened(event)["stderrTail"].clone()
    }

    #[test]
    fn what_fits_is_unchanged() {
        let text = "x".repeat(MAX_TAIL_BYTES);
        assert_eq!(failed(&text), text);
        assert_eq!(failed("naïve"), "naïve");
    }

    #[test]
    fn the_end_of_a_long_text_is_kept_on_a_character_boundary() {
        for filler in ["x", "ä", "€", "🦀"] {
            let text = format!("{}the error", filler.repeat(30_000));
            let cut = failed(&text);
            let cut = cut.as_str().unwrap();
            if text.len() <= MAX_TAIL_BYTES {
                assert_eq!(cut, text);
                continue;
            }
            let marker = format!("[the first of {} bytes are cut] ", text.len());
            let rest = cut.strip_prefix(&marker).unwrap();
            assert!(text.ends_with(rest) && rest.ends_with("the error"));
            assert!((MAX_TAIL_BYTES - 3..=MAX_TAIL_BYTES).contains(&cut.len()));
        }
    }

    #[test]
    fn characters_that_no_table_holds_are_replaced() {
        assert_eq!(failed("a\0b"), "a\u{fffd}b");
        // The replacement is longer: it is cut afterwards.
        let long = failed(&"\0".repeat(MAX_TAIL_BYTES));
        assert!(long.as_str().unwrap().len() <= MAX_TAIL_BYTES);
    }

    #[test]
    fn failing_controls_are_kept_and_the_cut_is_said() {
        let control = |id: usize, status: &str| json!({ "controlId": format!("c{id}"), "status": status, "framework": "f" });
        let mut controls: Vec<Value> = (0..600).map(|id| control(id, "pass")).collect();
        controls.push(control(600, "fail"));
        let result = softened(json!({
            "kind": "ProbeResult", "probeName": "p", "mode": "enforce", "status": "fail",
            "observedAt": "2026-01-01T00:00:00Z", "subResults": controls,
        }));
        let kept = result["subResults"].as_array().unwrap();
        assert_eq!(kept.len(), MAX_ITEMS);
        assert_eq!(kept[0]["controlId"], "c600");
        assert_eq!(kept[1]["controlId"], "c0");
        assert_eq!(result["failureReason"], " [512 of 601 controls are kept]");
    }
}
