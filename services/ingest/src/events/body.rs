//! Parsing the body of an event, with the field at fault.

use nixfleet_http::{ApiError, EXPLAINED_BYTES, culprit, explain, plain, read_json};
use nixfleet_proto::wire::EventRequest;
use nixfleet_proto::{HostEventBody, json};
use serde_json::Value;

/// Parses the body of an event.
///
/// # Errors
/// As [`nixfleet_http::parse`], and 400 `unknown-event-kind`.
pub fn parse_event(bytes: &[u8]) -> Result<EventRequest, ApiError> {
    json::read(bytes).map_err(|error| explain_event(bytes, &error))
}

fn explain_event(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    if bytes.len() > EXPLAINED_BYTES {
        return explain::<EventRequest>(bytes, error);
    }
    let value = match read_json(bytes) {
        Ok(value) => value,
        Err(refusal) => return refusal,
    };
    let Some(event) = value.get("event").filter(|event| event.is_object()) else {
        return explain::<EventRequest>(bytes, error);
    };
    match event.get("kind") {
        Some(Value::String(kind)) if HostEventBody::KINDS.contains(&kind.as_str()) => {}
        Some(kind) => {
            let kind: String = kind.to_string().chars().take(80).collect();
            let message = format!("{kind} is none of {}", HostEventBody::KINDS.join(", "));
            return ApiError::field("unknown-event-kind", "event.kind", message);
        }
        None => return ApiError::field("invalid-field", "event.kind", "missing"),
    }
    if !event.get("seq").is_some_and(Value::is_u64) {
        return ApiError::field("invalid-field", "event.seq", "must be a number from 1 up");
    }
    match serde_json::from_value::<HostEventBody>(event.clone()) {
        Err(error) => {
            let field = culprit::<HostEventBody>(event, &error)
                .map_or_else(|| "event".to_owned(), |field| format!("event.{field}"));
            ApiError::field("invalid-field", field, plain(&error))
        }
        Ok(_) => explain::<EventRequest>(bytes, error),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[track_caller]
    fn check(body: &str, code: &str, field: Option<&str>) {
        let error = parse_event(body.as_bytes()).unwrap_err();
        assert_eq!((error.code(), error.at_field()), (code, field), "{error:?}");
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }

    fn with_event(event: &str) -> String {
        format!(r#"{{"hostname":"a","rolloutId":"stable@4f","event":{event}}}"#)
    }

    #[test]
    fn a_good_event_passes_and_unknown_keys_are_ignored() {
        let event = r#"{"kind":"Converged","seq":1,"convergedAt":"2026-01-01T00:00:00Z",
            "currentClosure":"c","extra":1}"#;
        assert!(parse_event(with_event(event).as_bytes()).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", "invalid-json", None);
        check("{\"hostname\":", "invalid-json", None);
        check("[]", "invalid-field", Some("(body)"));
        check("{}", "invalid-field", Some("hostname"));
        let missing = r#"{"hostname":"a","rolloutId":"stable@4f"}"#;
        check(missing, "invalid-field", Some("event"));
        let wrong = r#"{"hostname":7,"rolloutId":"stable@4f","event":{"kind":"Converged","seq":1,
            "convergedAt":"2026-01-01T00:00:00Z","currentClosure":"c"}}"#;
        check(wrong, "invalid-field", Some("hostname"));
        let rollout = r#"{"hostname":"a","rolloutId":"stable","event":{"kind":"Converged","seq":1,
            "convergedAt":"2026-01-01T00:00:00Z","currentClosure":"c"}}"#;
        check(rollout, "invalid-field", Some("rolloutId"));
    }

    #[test]
    fn events_name_the_field_at_fault() {
        let check = |event: &str, code: &str, field: &str| {
            check(&with_event(event), code, Some(field));
        };
        check(r#"{"seq":1}"#, "invalid-field", "event.kind");
        check(
            r#"{"kind":"Exploded","seq":1}"#,
            "unknown-event-kind",
            "event.kind",
        );
        check(r#"{"kind":7,"seq":1}"#, "unknown-event-kind", "event.kind");
        check(r#"{"kind":"Converged"}"#, "invalid-field", "event.seq");
        check(
            r#"{"kind":"Converged","seq":-1}"#,
            "invalid-field",
            "event.seq",
        );
        check(
            r#"{"kind":"Converged","seq":1,"currentClosure":"c"}"#,
            "invalid-field",
            "event.convergedAt",
        );
        check(
            r#"{"kind":"Converged","seq":1,"convergedAt":"soon","currentClosure":"c"}"#,
            "invalid-field",
            "event.convergedAt",
        );
        check(
            r#"{"kind":"ActivationFailed","seq":1,"exitCode":"1","stderrTail":"",
                "failedAt":"2026-01-01T00:00:00Z"}"#,
            "invalid-field",
            "event.exitCode",
        );
        check(
            r#"{"kind":"ProbeResult","seq":1,"probeName":"p","mode":"maybe","status":"pass",
                "observedAt":"2026-01-01T00:00:00Z"}"#,
            "invalid-field",
            "event.mode",
        );
    }
}
