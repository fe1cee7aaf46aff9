//! The one shape of every refusal: a problem document of RFC 9457 with members of our own.

use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use nixfleet_proto::wire::ErrorBody;
use serde::Serialize;

/// Media type of a problem document.
///
/// Source: RFC 9457, section 3.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Longest path that a refusal repeats, in characters.
const PATH_CHARACTERS: usize = 200;

/// A request that is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_seconds: Option<u32>,
    field: Option<String>,
    faults: Vec<serde_json::Value>,
}

/// The refusal behind a response without a body; [`finish`] writes the body.
#[derive(Debug, Clone)]
struct Refusal(Box<ApiError>);

/// The body of a refusal.
///
/// Source: RFC 9457, section 3.1, for the members up to `instance`; docs/wire-protocol.md, errors, for the
/// others.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// URI of the kind of problem, made of its code.
    r#type: String,
    /// The kind in words; the same for every problem of the kind.
    title: String,
    status: u16,
    detail: String,
    /// Path of the request; absent for an item of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(flatten)]
    body: ErrorBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Everything wrong with a release.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<serde_json::Value>,
}

impl ApiError {
    /// A refusal that the same request will meet again.
    pub fn refused(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after_seconds: None,
            field: None,
            faults: Vec::new(),
        }
    }

    /// A 503: the same request may succeed after this many seconds.
    pub fn unavailable(
        code: &'static str,
        message: impl Into<String>,
        retry_after_seconds: u32,
    ) -> Self {
        Self::refused(StatusCode::SERVICE_UNAVAILABLE, code, message).after(retry_after_seconds)
    }

    /// A 429: this client asked for too much, and may ask again after this many seconds.
    pub fn too_many(
        code: &'static str,
        message: impl Into<String>,
        retry_after_seconds: u32,
    ) -> Self {
        Self::refused(StatusCode::TOO_MANY_REQUESTS, code, message).after(retry_after_seconds)
    }

    /// The same refusal, to be retried after this many seconds.
    pub fn after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// A 500; the cause is logged here and not told to the client.
    pub fn internal(context: &str, error: &dyn Display) -> Self {
        tracing::error!(%error, context, "request failed");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let message = "the request failed here, see the log of the service";
        Self::refused(status, "internal", message).after(5)
    }

    /// A 400 that names a field of the body.
    pub fn field(code: &'static str, field: impl Into<String>, message: impl Display) -> Self {
        let field = field.into();
        let message = format!("{field}: {message}");
        Self {
            field: Some(field),
            ..Self::refused(StatusCode::BAD_REQUEST, code, message)
        }
    }

    /// The code that machines branch on.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// After how many seconds the same request may succeed.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after_seconds
    }

    /// The offending field of the request body.
    pub fn at_field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The same refusal with a list of faults.
    pub fn with_faults(mut self, faults: Vec<serde_json::Value>) -> Self {
        self.faults = faults;
        self
    }

    /// The body.
    pub fn into_problem(self) -> Problem {
        let words = self.code.replace('-', " ");
        Problem {
            r#type: format!("urn:nixfleet:problem:{}", self.code),
            title: words[..1].to_ascii_uppercase() + &words[1..],
            status: self.status.as_u16(),
            detail: self.message.clone(),
            instance: None,
            body: ErrorBody {
                code: self.code.to_owned(),
                message: self.message,
                retryable: self.retry_after_seconds.is_some(),
            },
            field: self.field,
            faults: self.faults,
        }
    }
}

/// The response still lacks its body: the request's path belongs into it, which `finish` knows.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Refusal(Box::new(self)));
        response
    }
}

/// Writes the body of a refusal to a request of this path; gives the refusal's code. Other responses stay
/// as they are.
pub(crate) fn finish(response: Response, path: &str) -> (Response, Option<&'static str>) {
    let (mut head, body) = response.into_parts();
    let Some(Refusal(error)) = head.extensions.remove() else {
        return (Response::from_parts(head, body), None);
    };
    let (code, retry_after) = (error.code, error.retry_after_seconds);
    let mut problem = error.into_problem();
    problem.instance = Some(path.chars().take(PATH_CHARACTERS).collect());
    let body = axum::Json(problem).into_response().into_body();
    head.headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    if let Some(seconds) = retry_after
        && head.status != StatusCode::INTERNAL_SERVER_ERROR
    {
        head.headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    (Response::from_parts(head, body), Some(code))
}

impl From<nixfleet_store::ReadError> for ApiError {
    fn from(error: nixfleet_store::ReadError) -> Self {
        use nixfleet_store::ReadError;
        match &error {
            ReadError::Db(_) | ReadError::SchemaOutdated { .. } | ReadError::Divergent(_) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(error, "the database cannot be read");
                let message = "the database cannot be read at the moment";
                Self::unavailable("database-unavailable", message, 5)
            }
            ReadError::Corrupt { .. } => Self::internal("reading the database", &error),
        }
    }
}

/// A 404, for a path that no route has.
pub async fn unknown_path(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(PATH_CHARACTERS).collect();
    let message = format!("there is nothing at {path}");
    ApiError::refused(StatusCode::NOT_FOUND, "unknown-path", message)
}

pub(crate) fn method_not_allowed(method: &Method, path: &str) -> ApiError {
    let message = format!("{path} does not take {method}");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ApiError::refused(status, "method-not-allowed", message)
}

/// Checks a text that a client sent: no NUL, at most `max` bytes. The name of the field is written only when
/// the text is at fault.
///
/// # Errors
/// A 400 that names `field`.
pub fn check_text(field: impl Display, text: &str, max: usize) -> Result<(), ApiError> {
    if text.len() > max {
        let message = format!("{} bytes are more than {max}", text.len());
        return Err(out_of_bounds(field, &message));
    }
    if text.contains('\0') {
        return Err(out_of_bounds(field, "holds a NUL character"));
    }
    Ok(())
}

/// A 400 for a value beyond its bound.
pub fn out_of_bounds(field: impl Display, message: &str) -> ApiError {
    ApiError::field("out-of-bounds", field.to_string(), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_has_the_members_of_rfc_9457_and_ours() {
        let error = ApiError::unavailable("log-full", "partition 1 is full", 10);
        let (response, code) = finish(error.into_response(), "/v1/agent/events");
        assert_eq!(code, Some("log-full"));
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[header::RETRY_AFTER], "10");
        let body = axum::body::to_bytes(response.into_body(), 4096).await;
        let body: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
        let expected = serde_json::json!({
            "type": "urn:nixfleet:problem:log-full",
            "title": "Log full",
            "status": 503,
            "detail": "partition 1 is full",
            "instance": "/v1/agent/events",
            "code": "log-full",
            "message": "partition 1 is full",
            "retryable": true,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_success_stays_as_it_is() {
        let (response, code) = finish(StatusCode::NO_CONTENT.into_response(), "/v1/x");
        assert_eq!((response.status(), code), (StatusCode::NO_CONTENT, None));
    }
}
