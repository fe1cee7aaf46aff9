//! Reading request bodies within bounds of size, time and memory, and saying what is wrong with them.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use nixfleet_proto::json;

use crate::problem::ApiError;

/// A body that is too large is read to its end, within these bounds, and thrown away: a client that
/// is still writing would otherwise see a broken connection instead of the answer.
const DISCARD_BYTES: usize = 32 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Largest body whose faulty field is looked for: each try copies and reads the whole of it, and a
/// client could ask for that often.
pub const EXPLAINED_BYTES: usize = 16 * 1024;

/// How a body may look.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// Largest size.
    pub bytes: usize,
    /// Longest time from the first to the last byte.
    pub time: Duration,
}

/// A JSON body that is to be read, with the room for it in memory.
pub struct JsonBody {
    stream: BodyDataStream,
    declared: Option<usize>,
    limit: BodyLimit,
    _room: OwnedSemaphorePermit,
}

impl JsonBody {
    /// The body of a request; `room` gives room for so many bytes.
    ///
    /// # Errors
    /// 415 when it says it is something else or compressed, and those of `room`.
    pub fn of(
        request: Request,
        limit: BodyLimit,
        room: impl FnOnce(usize) -> Result<OwnedSemaphorePermit, ApiError>,
    ) -> Result<Self, ApiError> {
        check_content_type(request.headers())?;
        check_content_encoding(request.headers())?;
        let declared = declared_length(request.headers());
        Ok(Self {
            _room: room(declared.unwrap_or(limit.bytes).min(limit.bytes))?,
            stream: request.into_body().into_data_stream(),
            declared,
            limit,
        })
    }

    /// Reads it to its end.
    ///
    /// # Errors
    /// 413 when it is too large, 408 when it takes too long, 400 when the client broke off.
    pub async fn read(&mut self) -> Result<Bytes, ApiError> {
        let limit = self.limit;
        if self.declared.is_none_or(|length| length <= limit.bytes) {
            let expected = self.declared.unwrap_or(1024);
            let collected = collect(&mut self.stream, expected, limit.bytes);
            match tokio::time::timeout(limit.time, collected).await {
                Ok(Ok(Some(bytes))) => return Ok(bytes),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => {
                    let message = format!("the body took longer than {:?}", limit.time);
                    let status = StatusCode::REQUEST_TIMEOUT;
                    return Err(ApiError::refused(status, "body-timeout", message));
                }
            }
        }
        // Not read to its end in time: the client gets the answer or a broken connection, its choice.
        let _elapsed = tokio::time::timeout(DISCARD_TIME, discard(&mut self.stream)).await;
        let message = format!("the body is larger than {} bytes", limit.bytes);
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Err(ApiError::refused(status, "body-too-large", message))
    }
}

/// The whole body, or `None` when it has more than `max` bytes.
async fn collect(
    stream: &mut BodyDataStream,
    expected: usize,
    max: usize,
) -> Result<Option<Bytes>, ApiError> {
    let mut collected = BytesMut::with_capacity(expected.min(max));
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            let message = format!("the body broke off: {error}");
            ApiError::refused(StatusCode::BAD_REQUEST, "body-incomplete", message)
        })?;
        if collected.len() + chunk.len() > max {
            return Ok(None);
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(Some(collected.freeze()))
}

async fn discard(stream: &mut BodyDataStream) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        discarded += chunk.len();
        if discarded > DISCARD_BYTES {
            return;
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse().ok())
}

/// A small compressed body could be a large one.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut encodings = encodings.map(|encoding| encoding.to_str().unwrap_or("?").trim());
    match encodings.find(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        None => Ok(()),
        Some(encoding) => Err(ApiError::refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            format!("content-encoding {encoding:?} is not read, send the body as it is"),
        )),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let content_type = content_type.to_str().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::refused(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "the body must be application/json",
    ))
}

/// Parses a JSON body.
///
/// # Errors
/// 400 `invalid-json` when it is no JSON, 400 `invalid-field` with the field otherwise.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    json::read(bytes).map_err(|error| explain::<T>(bytes, &error))
}

/// Parses a JSON body into a value that borrows from it; `Owned` is the same without borrowing.
pub fn parse_in_place<'b, T: Deserialize<'b>, Owned: DeserializeOwned>(
    bytes: &'b [u8],
) -> Result<T, ApiError> {
    json::read(bytes).map_err(|error| explain::<Owned>(bytes, &error))
}

/// Reads a body as any JSON, or answers 400 `invalid-json`.
pub fn read_json(bytes: &[u8]) -> Result<Value, ApiError> {
    json::read(bytes).map_err(|error| not_json(&error))
}

/// The refusal of a body that was not parsed as a `T`. A large body is read again without being kept: its values
/// could take many times its size.
pub fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let at = |field: String| ApiError::field("invalid-field", field, plain(error));
    if bytes.len() > EXPLAINED_BYTES {
        return match json::read::<IgnoredAny>(bytes) {
            Ok(IgnoredAny) => at("(body)".to_owned()),
            Err(error) => not_json(&error),
        };
    }
    match read_json(bytes) {
        Ok(value) => at(culprit::<T>(&value, error).unwrap_or_else(|| "(body)".to_owned())),
        Err(refusal) => refusal,
    }
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let message = format!("the body is not JSON: {error}");
    ApiError::refused(StatusCode::BAD_REQUEST, "invalid-json", message)
}

/// The top-level field that causes an error: the one named as missing, or the one whose removal
/// changes the error. Tagged and flattened types lose the path, so it is found by trying; the number
/// of tries is bounded. The tag `kind` was checked before.
pub fn culprit<T: DeserializeOwned>(value: &Value, error: &serde_json::Error) -> Option<String> {
    const MAX_TRIES: usize = 64;
    let original = plain(error);
    if let Some(rest) = original.strip_prefix("missing field `") {
        return rest.strip_suffix('`').map(ToOwned::to_owned);
    }
    let object = value.as_object()?;
    let keys = object.keys().filter(|key| *key != "kind");
    keys.take(MAX_TRIES).find_map(|key| {
        let mut without = object.clone();
        without.remove(key);
        let changed = match serde_json::from_value::<T>(Value::Object(without)) {
            Ok(_) => true,
            Err(error) => plain(&error) != original,
        };
        changed.then(|| key.clone())
    })
}

/// The error without its place in the text, which says little about a body of one line.
pub fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}
