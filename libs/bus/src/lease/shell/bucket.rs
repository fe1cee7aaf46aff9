//! Access to the lease bucket: write, read and watch, one round trip each.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MARKER_REASON, NATS_MESSAGE_TTL,
};
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use nixfleet_proto::subject::escape;

use super::super::record::{Content, Record, RecordKey, VersionedContent, WriteResult};
use crate::Bus;
use crate::publish::outgoing_message::{OutgoingMessage, PublishRefusal};

const KV_OPERATION: &str = "KV-Operation";
/// Time to live of a deletion marker. It is useless once every watch has seen it, and members have a new
/// name at every start, so that markers without an expiry would accumulate.
const MARK_SECONDS: &str = "60";

#[derive(Clone)]
pub(super) struct Bucket {
    bus: Bus,
    service: String,
    ttl: Duration,
}

impl Bucket {
    pub(super) fn new(bus: Bus, service: String, ttl: Duration) -> Self {
        Self { bus, service, ttl }
    }

    /// Writes a value with the time to live, if the key has the expected revision.
    pub(super) async fn put(&self, key: &RecordKey, record: &Record, expected: u64) -> WriteResult {
        let payload = match record.to_bytes() {
            Ok(payload) => Bytes::from(payload),
            Err(error) => {
                tracing::error!(%error, "a lease record cannot be written");
                return WriteResult::Unknown;
            }
        };
        let mut message = self.message(key, payload, expected);
        let seconds = self.ttl.as_secs().to_string();
        message.headers.insert(NATS_MESSAGE_TTL, seconds.as_str());
        self.send(&message).await
    }

    pub(super) async fn delete(&self, key: &RecordKey, expected: u64) -> WriteResult {
        let mut message = self.message(key, Bytes::new(), expected);
        message.headers.insert(KV_OPERATION, "DEL");
        message.headers.insert(NATS_MESSAGE_TTL, MARK_SECONDS);
        self.send(&message).await
    }

    /// Reads the key through the leader; `None` without an answer.
    pub(super) async fn read(&self, key: &RecordKey) -> Option<VersionedContent> {
        let context = &self.bus.connections().lease_js;
        let stream = format!("KV_{}", self.bus.names().lease_bucket());
        let stream = context.get_stream_no_info(&stream).await.ok()?;
        let message = match stream
            .get_last_raw_message_by_subject(&self.subject(key))
            .await
        {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                return Some(VersionedContent {
                    revision: 0,
                    content: Content::Absent,
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a lease cannot be read");
                return None;
            }
        };
        Some(VersionedContent {
            revision: message.sequence,
            content: content(key, &message.headers, &message.payload),
        })
    }

    /// Opens a watch that begins with the last value of every key.
    pub(super) async fn watch(&self) -> Result<kv::Watch, String> {
        let service = escape(&self.service);
        let keys = [format!("member.{service}.>"), format!("lease.{service}.>")];
        let bucket = self.bus.names().lease_bucket();
        let context = &self.bus.connections().lease_js;
        let store = context.get_key_value(bucket).await;
        let store = store.map_err(|error| error.to_string())?;
        let watch = store.watch_many_with_history(keys).await;
        watch.map_err(|error| error.to_string())
    }

    /// Converts an entry of the watch; `None` for keys that are neither members nor leases.
    pub(super) fn observed(entry: &kv::Entry) -> Option<(RecordKey, VersionedContent)> {
        let (_, key) = RecordKey::parse(&entry.key)?;
        let content = match entry.operation {
            kv::Operation::Delete | kv::Operation::Purge => Content::Absent,
            kv::Operation::Put => value(&key, &entry.value),
        };
        let revision = entry.revision;
        Some((key, VersionedContent { revision, content }))
    }

    fn subject(&self, key: &RecordKey) -> String {
        let bucket = self.bus.names().lease_bucket();
        format!("$KV.{bucket}.{}", key.path(&self.service))
    }

    fn message(&self, key: &RecordKey, payload: Bytes, expected: u64) -> OutgoingMessage {
        let mut headers = HeaderMap::new();
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            async_nats::HeaderValue::from(expected),
        );
        OutgoingMessage {
            subject: self.subject(key),
            headers,
            payload,
        }
    }

    async fn send(&self, message: &OutgoingMessage) -> WriteResult {
        match message.send(&self.bus.connections().lease_js).await {
            Ok(ack) => WriteResult::Stored(ack.sequence),
            Err(PublishRefusal::LastSequence) => WriteResult::Conflict,
            Err(refusal) => {
                tracing::debug!(subject = message.subject, %refusal, "lease write not acknowledged");
                WriteResult::Unknown
            }
        }
    }
}

/// A release leaves an operation header, an expiry leaves a marker.
pub(super) fn content(key: &RecordKey, headers: &HeaderMap, payload: &[u8]) -> Content {
    let is_gone = headers.get(KV_OPERATION).is_some() || headers.get(NATS_MARKER_REASON).is_some();
    if is_gone {
        Content::Absent
    } else {
        value(key, payload)
    }
}

fn value(key: &RecordKey, payload: &[u8]) -> Content {
    Record::read(key, payload).map_or(Content::Unreadable, Content::Record)
}
