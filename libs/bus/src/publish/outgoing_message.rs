//! One outgoing message: its headers, its id, and the classification of the server's errors.

use std::error::Error as _;

use async_nats::header::{
    NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM,
    NATS_MESSAGE_ID,
};
use async_nats::jetstream::context::{Context, PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use nixfleet_proto::LAYOUT_VERSION;
use tokio::task::spawn_blocking;

use crate::frame::compression;
use crate::message::{TRACEPARENT, VERSION, stored_bytes};
use crate::publish::log_writer::Fence;
pub(crate) use crate::publish::publish_reply::PublishRefusal;
use crate::publish::publish_reply::PublishReply;

/// Names the subject that the expected last subject sequence refers to, when it is not the subject of the
/// message.
const EXPECTED_LAST_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// JSON below this size is compressed in less than a tenth of a millisecond.
const INLINE_BYTES: usize = 32 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct OutgoingMessage {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl OutgoingMessage {
    pub(crate) fn new(stream: &str, subject: String, msg_id: &str, payload: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_STREAM, HeaderValue::from(stream));
        headers.insert(NATS_MESSAGE_ID, HeaderValue::from(msg_id));
        headers.insert(VERSION, HeaderValue::from(u64::from(LAYOUT_VERSION)));
        Self {
            subject,
            headers,
            payload,
        }
    }

    /// Stores the message only while the last message of the subject has this sequence.
    pub(crate) fn fenced(mut self, expected: u64) -> Self {
        self.headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            HeaderValue::from(expected),
        );
        self
    }

    /// Stores the message only while the last message of the stream is the expected one. `all` matches
    /// every subject of the stream.
    pub(crate) fn following(mut self, fence: &Fence, all: &str) -> Self {
        let subject = fence.subject.as_deref();
        if subject.is_some() {
            let last = HeaderValue::from(fence.seq);
            self.headers.insert(NATS_EXPECTED_LAST_SEQUENCE, last);
        }
        let subject = HeaderValue::from(subject.unwrap_or(all));
        self.headers.insert(EXPECTED_LAST_SUBJECT, subject);
        self.fenced(fence.seq)
    }

    /// Adds a trace context. A value that is not a legal header is dropped: the trace context is only a
    /// hint.
    pub(crate) fn traced(mut self, traceparent: Option<&str>) -> Self {
        if let Some(value) = traceparent.and_then(|text| text.parse::<HeaderValue>().ok()) {
            self.headers.insert(TRACEPARENT, value);
        }
        self
    }

    pub(crate) fn stored_bytes(&self) -> usize {
        stored_bytes(&self.subject, Some(&self.headers), &self.payload)
    }

    /// Sends it once and waits for the acknowledgement.
    pub(crate) async fn send(&self, context: &Context) -> Result<PublishAck, PublishRefusal> {
        let ack = context
            .publish_with_headers(
                self.subject.clone(),
                self.headers.clone(),
                self.payload.clone(),
            )
            .await
            .map_err(PublishRefusal::from)?;
        ack.await.map_err(PublishRefusal::from)
    }

    /// Like [`OutgoingMessage::send`], with the reply as a plain value.
    pub(crate) async fn attempt(&self, context: &Context) -> PublishReply {
        match self.send(context).await {
            Ok(ack) => PublishReply::Stored {
                seq: ack.sequence,
                duplicate: ack.duplicate,
            },
            Err(refusal) => PublishReply::Refused(refusal),
        }
    }
}

impl From<PublishError> for PublishRefusal {
    fn from(error: PublishError) -> Self {
        match error.kind() {
            PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
                Self::LastSequence
            }
            PublishErrorKind::MaxPayloadExceeded => Self::TooLarge,
            // Without responders the stream's leader is being elected or the server is starting.
            PublishErrorKind::StreamNotFound
            | PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending => Self::Unknown(error.to_string()),
            PublishErrorKind::Other => {
                let answer = error
                    .source()
                    .and_then(|source| source.downcast_ref::<jetstream::Error>());
                answer.map_or_else(|| Self::Unknown(error.to_string()), classify)
            }
        }
    }
}

fn classify(answer: &jetstream::Error) -> PublishRefusal {
    let text = answer.to_string();
    match answer.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE => PublishRefusal::LastSequence,
        // The store returns this code for its limits and for failed writes; only the text tells which.
        ErrorCode::STREAM_STORE_FAILED if text.contains("maximum") => PublishRefusal::Full,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => PublishRefusal::Full,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            PublishRefusal::TooLarge
        }
        ErrorCode::STREAM_NOT_MATCH | ErrorCode::STREAM_SEALED => PublishRefusal::Permanent(text),
        _ => PublishRefusal::Unknown(text),
    }
}

/// The stored form of a frame's JSON. Large frames are compressed on another thread.
pub(crate) async fn stored_form(json: Bytes) -> Bytes {
    if json.len() < INLINE_BYTES {
        return compression::encode(&json);
    }
    let plain = json.clone();
    let encoded = spawn_blocking(move || compression::encode(&json));
    // A runtime that shuts down runs no blocking work; plain JSON is valid as well.
    encoded.await.unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_illegal_traceparent_is_dropped() {
        let message = OutgoingMessage::new("S", "s".to_owned(), "id", Bytes::new());
        let message = message.traced(Some("00-ab\r\nNats-Rollup: all"));
        assert!(message.headers.get(TRACEPARENT).is_none());
    }
}
