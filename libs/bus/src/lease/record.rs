//! A lease in its bucket: reading, taking, renewing and giving back, each one round trip.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MARKER_REASON, NATS_MESSAGE_TTL,
};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use nixfleet_proto::subject::escape;
use serde::{Deserialize, Serialize};

use crate::Bus;
use crate::publish::{Outgoing, Refusal};

/// Header that marks a deleted key.
const KV_OPERATION: &str = "KV-Operation";

/// Who holds a lease. The counter tells one renewal from the next, so that a writer whose
/// acknowledgement was lost recognises its own value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    pub(crate) instance: String,
    pub(crate) process: String,
    pub(crate) renewal: u64,
}

/// What the bucket says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Current {
    /// Nobody holds it; a writer expects this revision.
    Free(u64),
    /// Somebody holds it.
    Held(u64, Option<Holder>),
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is stored with this revision.
    Stored(u64),
    /// Another revision is there.
    Conflict,
    /// Nobody knows.
    Unknown(String),
}

/// One key of the lease bucket.
#[derive(Clone)]
pub(crate) struct Record {
    bus: Bus,
    stream: String,
    subject: String,
    ttl: Duration,
}

impl Record {
    pub(crate) fn new(bus: Bus, service: &str, key: &str, ttl: Duration) -> Self {
        let bucket = bus.names().lease_bucket();
        Self {
            stream: format!("KV_{bucket}"),
            subject: format!("$KV.{bucket}.lease.{}.{}", escape(service), escape(key)),
            bus,
            ttl,
        }
    }

    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Reads the key through the leader.
    pub(crate) async fn read(&self) -> Result<Current, String> {
        let context = &self.bus.connections().lease_js;
        let stream = context
            .get_stream_no_info(&self.stream)
            .await
            .map_err(|error| error.to_string())?;
        let message = match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Ok(Current::Free(0));
            }
            Err(error) => return Err(error.to_string()),
        };
        // Giving back leaves an operation header, expiry a marker.
        let gone = message.headers.get(KV_OPERATION).is_some()
            || message.headers.get(NATS_MARKER_REASON).is_some();
        if gone {
            return Ok(Current::Free(message.sequence));
        }
        let holder = serde_json::from_slice(&message.payload).ok();
        Ok(Current::Held(message.sequence, holder))
    }

    /// Writes the holder with the lease's time to live, if the revision is the expected one.
    pub(crate) async fn write(&self, holder: &Holder, expected: u64) -> Written {
        let payload = match serde_json::to_vec(holder) {
            Ok(payload) => payload,
            Err(error) => return Written::Unknown(error.to_string()),
        };
        let mut message = self.message(Bytes::from(payload), expected);
        let seconds = self.ttl.as_secs().to_string();
        message.headers.insert(NATS_MESSAGE_TTL, seconds.as_str());
        self.send(&message).await
    }

    /// Deletes the key, if the revision is the expected one.
    pub(crate) async fn delete(&self, expected: u64) -> Written {
        let mut message = self.message(Bytes::new(), expected);
        message.headers.insert(KV_OPERATION, "DEL");
        self.send(&message).await
    }

    fn message(&self, payload: Bytes, expected: u64) -> Outgoing {
        let mut headers = HeaderMap::new();
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            async_nats::HeaderValue::from(expected),
        );
        Outgoing {
            subject: self.subject.clone(),
            headers,
            payload,
        }
    }

    async fn send(&self, message: &Outgoing) -> Written {
        match message.send(&self.bus.connections().lease_js).await {
            Ok(ack) => Written::Stored(ack.sequence),
            Err(Refusal::Fence) => Written::Conflict,
            Err(refusal) => Written::Unknown(refusal.to_string()),
        }
    }
}
