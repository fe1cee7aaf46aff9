//! Conversion of messages of the client library.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, HeaderValue};
use bytes::Bytes;
use nixfleet_proto::Timestamp;

use super::Message;

/// Header with the W3C trace context of the publisher.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Header that labels the stored form of the payload with its layout version. No code of this workspace
/// reads it: it is for tools outside that inspect a stream without decoding payloads. Readers of this crate
/// take the version from the decoded payload.
pub(crate) const VERSION: &str = "nixfleet-v";

impl Message {
    /// Converts a message of the client library; the payload stays in its stored form.
    pub(crate) fn new(
        seq: u64,
        subject: &str,
        headers: Option<&HeaderMap>,
        time: async_nats::datetime::DateTime,
        payload: Bytes,
    ) -> Self {
        let header = |name: &str| {
            headers
                .and_then(|headers| headers.get(name))
                .map(|value| value.as_str().to_owned())
        };
        Self {
            stored_bytes: stored_bytes(subject, headers, &payload),
            seq,
            subject: subject.to_owned(),
            msg_id: headers
                .and_then(|headers| headers.get(NATS_MESSAGE_ID))
                .map(|value| value.as_str().to_owned()),
            traceparent: header(TRACEPARENT),
            time: timestamp(time),
            payload,
        }
    }
}

/// Fixed part of a file store record: length, sequence, time, subject length, checksum.
const RECORD_BYTES: usize = 4 + 8 + 8 + 2 + 8;
/// Length field of the headers, when there are any.
const HEADERS_LENGTH_BYTES: usize = 4;

/// Source: `fileStoreMsgSizeRaw` of nats-server.
pub(crate) fn stored_bytes(subject: &str, headers: Option<&HeaderMap>, payload: &[u8]) -> usize {
    let headers = headers.filter(|headers| !headers.is_empty());
    let headers = headers.map_or(0, |headers| HEADERS_LENGTH_BYTES + header_bytes(headers));
    RECORD_BYTES + subject.len() + headers + payload.len()
}

/// Size of the headers as the client library writes them.
fn header_bytes(headers: &HeaderMap) -> usize {
    let around = "NATS/1.0\r\n".len() + "\r\n".len();
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        let line = move |value: &HeaderValue| name.len() + ": \r\n".len() + value.as_str().len();
        values.iter().map(line)
    });
    around + lines.sum::<usize>()
}

/// Converts a time of the server. A time outside the range of 584 years cannot come from a server.
pub(crate) fn timestamp(time: async_nats::datetime::DateTime) -> Timestamp {
    let nanos = i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_timestamp_nanos(nanos)
}
