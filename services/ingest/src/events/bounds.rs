//! Bounds of what an agent may report: beyond them lie values that the log, the database or a
//! reader's patience cannot hold.

use std::fmt::{Arguments, Display};

use nixfleet_http::{ApiError, check_text, out_of_bounds};
use nixfleet_proto::bounds::{INTEGER_MAX, REASON_BYTES_MAX, TEXT_BYTES_MAX, is_plausible};
use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::wire::EventRequest;
use nixfleet_proto::{HostEventBody, ProbeName, Timestamp};

/// The end of a failed command's output.
pub const MAX_TAIL_BYTES: usize = 64 * 1024;
/// Probes of a host, controls of a probe.
pub const MAX_ITEMS: usize = 512;

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
    check_number("event.seq", request.event.seq)?;
    check_time("event", request.event.body.at())?;
    check_name("hostname", &request.hostname)?;
    check_name("rolloutId", &request.rollout_id)?;
    check_body(&request.event.body)
}

/// Every field of every kind is named here, so that a new one cannot be forgotten.
#[expect(
    clippy::too_many_lines,
    reason = "one arm for each kind, with every field"
)]
fn check_body(body: &HostEventBody) -> Result<(), ApiError> {
    use HostEventBody as E;
    match body {
        E::DispatchAck {
            current_closure_at_dispatch: closure,
            received_at: _,
        } => check_name("event.currentClosureAtDispatch", closure),
        E::ActivationStarted {
            started_at: _,
            switch_method,
        } => check_name("event.switchMethod", switch_method),
        E::ActivationCompleted {
            observed_current_closure: closure,
            exit_code: _,
            completed_at: _,
        } => check_name("event.observedCurrentClosure", closure),
        E::ActivationDeferred {
            component,
            deferred_at: _,
        } => check_name("event.component", component),
        E::ActivationFailed {
            exit_code: _,
            stderr_tail,
            failed_at: _,
        } => check_text("event.stderrTail", stderr_tail, MAX_TAIL_BYTES),
        E::RollbackComplete {
            reverted_to_closure: closure,
            exit_code: _,
            completed_at: _,
        } => check_name("event.revertedToClosure", closure),
        E::RollbackFailed {
            reason: _,
            detail,
            failed_at: _,
        } => check_reason("event.detail", Some(detail)),
        E::Converged {
            converged_at: _,
            current_closure: closure,
        } => check_name("event.currentClosure", closure),
        E::ProbeTopologyDeclared {
            probes,
            declared_at: _,
        } => check_items("event.probes", probes, check_declaration),
        E::ProbeObservedFirst {
            probe_name,
            mode: _,
            observed_at: _,
        }
        | E::ProbeFailureFirst {
            probe_name,
            mode: _,
            first_failed_at: _,
        } => check_name("event.probeName", probe_name),
        E::ProbeResult {
            probe_name,
            mode: _,
            status: _,
            observed_at: _,
            failure_reason,
            sub_results,
        } => {
            check_name("event.probeName", probe_name)?;
            check_reason("event.failureReason", failure_reason.as_deref())?;
            let controls = sub_results.as_deref().unwrap_or_default();
            check_items("event.subResults", controls, check_control)
        }
        E::Failed {
            failed_at: _,
            sustained_duration_secs,
            failing_probes,
            policy_applied: _,
        } => {
            check_number("event.sustainedDurationSecs", *sustained_duration_secs)?;
            check_items("event.failingProbes", failing_probes, check_probe)
        }
    }
}

fn check_probe(path: Arguments<'_>, name: &ProbeName) -> Result<(), ApiError> {
    check_name(path, name)
}

fn check_declaration(path: Arguments<'_>, probe: &ProbeDeclaration) -> Result<(), ApiError> {
    let ProbeDeclaration {
        probe_name,
        kind,
        mode: _,
    } = probe;
    check_name(format_args!("{path}.probeName"), probe_name)?;
    check_name(format_args!("{path}.kind"), kind)
}

fn check_control(path: Arguments<'_>, control: &SubResult) -> Result<(), ApiError> {
    let SubResult {
        control_id,
        status: _,
        framework,
        article,
        effective_mode: _,
        override_reason,
    } = control;
    check_name(format_args!("{path}.controlId"), control_id)?;
    check_name(format_args!("{path}.framework"), framework)?;
    let article = article.as_deref().unwrap_or_default();
    check_name(format_args!("{path}.article"), article)?;
    check_reason(
        format_args!("{path}.overrideReason"),
        override_reason.as_deref(),
    )
}

fn check_items<T>(
    field: &str,
    items: &[T],
    check: impl Fn(Arguments<'_>, &T) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    if items.len() > MAX_ITEMS {
        let message = format!("{} items are more than {MAX_ITEMS}", items.len());
        return Err(out_of_bounds(field, &message));
    }
    let mut items = items.iter().enumerate();
    items.try_for_each(|(index, item)| check(format_args!("{field}[{index}]"), item))
}

fn check_number(field: &str, number: u64) -> Result<(), ApiError> {
    if number > INTEGER_MAX {
        return Err(out_of_bounds(field, "is above 9223372036854775807"));
    }
    Ok(())
}

fn check_reason(field: impl Display, reason: Option<&str>) -> Result<(), ApiError> {
    check_text(field, reason.unwrap_or_default(), REASON_BYTES_MAX)
}

/// Checks a name, a closure or an identifier.
fn check_name(field: impl Display, text: &(impl AsRef<str> + ?Sized)) -> Result<(), ApiError> {
    check_text(field, text.as_ref(), TEXT_BYTES_MAX)
}

/// Checks a time that a client sent.
///
/// # Errors
/// A 400 that names `field`.
pub fn check_time(field: &str, at: Timestamp) -> Result<(), ApiError> {
    if is_plausible(at) {
        Ok(())
    } else {
        let message = format!("its time {at} is not within the years 2000 to 2199");
        Err(out_of_bounds(field, &message))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
