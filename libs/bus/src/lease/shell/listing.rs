//! The contents of the lease bucket, for operators.

use std::time::Duration;

use async_nats::header::{NATS_SUBJECT, NATS_TIME_STAMP};
use async_nats::{Client, Message, StatusCode};
use futures::StreamExt as _;
use nixfleet_proto::Timestamp;
use serde_json::json;

use super::super::record::{Content, Record, RecordKey};
use super::bucket::content;
use crate::{Bus, LeaderReadError};

/// Limit of keys in the server's answer to one request.
const KEYS_MAX: usize = 1_024;
/// Status code after the last message.
const END: u16 = 204;

/// A record of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// Service as a subject token.
    pub service: String,
    /// The key.
    pub key: RecordKey,
    /// Value of the key; `None` when it is in the format of another release.
    pub record: Option<Record>,
    /// Server time of the write.
    pub written_at: Timestamp,
}

impl Bus {
    /// All members and leases of all services. Any server with the bucket may answer the two requests, so
    /// the result may be slightly stale.
    pub async fn lease_records(&self) -> Result<Vec<RecordView>, LeaderReadError> {
        let bucket = self.names().lease_bucket();
        let prefix = format!("$KV.{bucket}.");
        let mut views = Vec::new();
        for kind in ["member", "lease"] {
            let filter = format!("{prefix}{kind}.>");
            let subject = format!(
                "{}.DIRECT.GET.KV_{bucket}",
                self.config().jetstream_prefix()
            );
            let read = last_of_each(&self.connections().consume, subject, &filter);
            let timeout = Duration::from_secs(self.config().request_timeout_seconds);
            let messages = match tokio::time::timeout(timeout, read).await {
                Ok(Ok(messages)) => messages,
                Ok(Err(reason)) => return Err(unavailable(&bucket, reason)),
                Err(_) => return Err(unavailable(&bucket, "no answer in time".to_owned())),
            };
            views.extend(messages.iter().filter_map(|message| view(&prefix, message)));
        }
        Ok(views)
    }
}

fn unavailable(bucket: &str, reason: String) -> LeaderReadError {
    LeaderReadError::Unavailable {
        stream: format!("KV_{bucket}"),
        reason,
    }
}

async fn last_of_each(
    client: &Client,
    subject: String,
    filter: &str,
) -> Result<Vec<Message>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| text(&error))?;
    let request = json!({ "multi_last": [filter], "batch": KEYS_MAX }).to_string();
    client
        .publish_with_reply(subject, inbox, request.into())
        .await
        .map_err(|error| text(&error))?;
    let mut messages = Vec::new();
    while let Some(message) = answers.next().await {
        match message.status {
            None => messages.push(message),
            // The end of the messages, or no message at all.
            Some(status) if status == StatusCode::NOT_FOUND || status.as_u16() == END => {
                return Ok(messages);
            }
            Some(status) => {
                let why = message.description.unwrap_or_default();
                return Err(format!("the server answers {status} {why}"));
            }
        }
    }
    Err("the connection ended".to_owned())
}

/// Converts a message; `None` for an absent key or a key that is neither a member nor a lease.
fn view(prefix: &str, message: &Message) -> Option<RecordView> {
    let headers = message.headers.as_ref()?;
    let path = headers.get(NATS_SUBJECT)?.as_str().strip_prefix(prefix)?;
    let (service, key) = RecordKey::parse(path)?;
    let record = match content(&key, headers, &message.payload) {
        Content::Absent => return None,
        Content::Record(record) => Some(record),
        Content::Unreadable => None,
    };
    Some(RecordView {
        service: service.to_owned(),
        key,
        record,
        written_at: headers.get(NATS_TIME_STAMP)?.as_str().parse().ok()?,
    })
}
