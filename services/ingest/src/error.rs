//! The one shape of every refusal.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use nixfleet_proto::wire::ErrorBody;
use serde::Serialize;

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

/// Left on a response for the access layer, which counts refusals by code.
#[derive(Debug, Clone, Copy)]
pub struct Refusal(pub &'static str);

/// The body of a refusal.
#[derive(Debug, Serialize)]
pub struct Document {
    #[serde(flatten)]
    body: ErrorBody,
    /// The offending field of the request body.
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

    /// A 500; what went wrong is logged here and not told to the client.
    pub fn internal(context: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, context, "request failed");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let message = "the request failed here, see the log of the service";
        Self::refused(status, "internal", message).after(5)
    }

    /// A 400 that names a field of the body.
    pub fn field(
        code: &'static str,
        field: impl Into<String>,
        message: impl std::fmt::Display,
    ) -> Self {
        let field = field.into();
        let message = format!("{field}: {message}");
        Self {
            field: Some(field),
            ..Self::refused(StatusCode::BAD_REQUEST, code, message)
        }
    }

    /// What machines branch on.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// After how many seconds the same request may succeed.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.retry_after_seconds
    }

    /// The body.
    pub fn into_document(self) -> Document {
        Document {
            body: ErrorBody {
                code: self.code.to_owned(),
                message: self.message,
                retryable: self.retry_after_seconds.is_some(),
            },
            field: self.field,
            faults: self.faults,
        }
    }

    /// The same refusal with a list of faults.
    pub fn with_faults(mut self, faults: Vec<serde_json::Value>) -> Self {
        self.faults = faults;
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, refusal) = (self.status, Refusal(self.code));
        let retry_after = self.retry_after_seconds;
        let mut response = (status, Json(self.into_document())).into_response();
        if let Some(seconds) = retry_after
            && status != StatusCode::INTERNAL_SERVER_ERROR
        {
            let seconds = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(refusal);
        response
    }
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

#[cfg(test)]
impl ApiError {
    /// The field at fault, when one is.
    pub fn at_field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}
