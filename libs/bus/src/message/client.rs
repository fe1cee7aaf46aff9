//! Messages as the client library delivers them.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use nixfleet_proto::Timestamp;

use super::Message;

/// Header with the W3C trace context of whoever published.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// Header with the layout version of the payload.
pub(crate) const VERSION: &str = "nixfleet-v";

impl Message {
    /// Builds a message from what the client library delivers.
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

/// The server's time in our own type; a time outside the range of 584 years cannot come from it.
pub(crate) fn timestamp(time: async_nats::datetime::DateTime) -> Timestamp {
    let nanos = i64::try_from(time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_timestamp_nanos(nanos)
}
