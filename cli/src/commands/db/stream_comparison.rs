//! Compares the rows of the archive with the messages that the streams still hold.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::Args;
use futures::{StreamExt as _, stream};
use nixfleet_bus::{Bus, BusConfig, LeaderReadError, Message, decode_input};
use nixfleet_proto::{Hostname, RolloutId, column_time};
use nixfleet_replay::Difference;
use nixfleet_store::{ArchivedMessage, ArchivedStream, Audit, MessageRow};
use serde_json::Value;

use super::database_options::Database;
use crate::command_error::CommandError;

/// Messages requested at the same time.
const REQUESTS: usize = 64;
/// Longest name that the archive keeps in an indexed column.
const INDEXED_BYTES_MAX: usize = 512;

/// Where the streams are.
#[derive(Debug, Args)]
pub struct Streams {
    /// NATS servers with the streams, bus.url of the services, comma separated
    #[arg(
        long,
        value_name = "URL",
        env = "NIXFLEET_BUS_URL",
        default_value = "nats://127.0.0.1:4222"
    )]
    bus_url: String,
    /// Authorities of the servers' certificates, PEM
    #[arg(long, value_name = "FILE")]
    bus_ca: Option<PathBuf>,
    /// Your certificate for the bus, PEM
    #[arg(long, value_name = "FILE", requires = "bus_key")]
    bus_cert: Option<PathBuf>,
    /// The key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "bus_cert")]
    bus_key: Option<PathBuf>,
    /// NATS credentials of a user that may read the streams
    #[arg(long, value_name = "FILE")]
    bus_credentials: Option<PathBuf>,
    /// bus.api_prefix of the services, on servers with the accounts of `nixfleet bus users`
    #[arg(long, value_name = "NAME")]
    bus_api_prefix: Option<String>,
    /// Do not compare with the streams: rows that were changed since they were archived may pass
    #[arg(long)]
    without_streams: bool,
}

impl Streams {
    /// Connects; `None` when the streams are not to be compared.
    ///
    /// # Errors
    /// Exit code 3.
    pub async fn connect(&self, prefix: &str) -> Result<Option<Bus>, CommandError> {
        if self.without_streams {
            return Ok(None);
        }
        let config = BusConfig {
            url: self.bus_url.clone(),
            prefix: prefix.to_owned(),
            credentials_file: self.bus_credentials.clone(),
            ca_file: self.bus_ca.clone(),
            cert_file: self.bus_cert.clone(),
            key_file: self.bus_key.clone(),
            api_prefix: self.bus_api_prefix.clone(),
            ..BusConfig::default()
        };
        let connected = Bus::connect(config, "nixfleet-db-verify").await;
        connected.map(Some).map_err(|error| {
            let context = "the streams cannot be read; --without-streams leaves them out";
            CommandError::unreachable(anyhow::Error::new(error).context(context))
        })
    }
}

/// Result of comparing one stream.
#[derive(Debug, Default)]
pub struct ComparedStream {
    pub messages: u64,
    pub differences: Vec<Difference>,
}

/// Compares the archived part of a stream with what the stream holds of it.
///
/// # Errors
/// Those of the database, and exit code 3 when the bus does not answer.
pub async fn compare(
    bus: &Bus,
    audit: &Audit<'_>,
    archived: &ArchivedStream,
) -> Result<ComparedStream, CommandError> {
    let mut compared = ComparedStream::default();
    let name = archived.stream.as_str();
    let identity = match bus.stream_identity(name).await {
        Ok(identity) => identity,
        // Lost with its server.
        Err(LeaderReadError::Missing(_)) => return Ok(compared),
        Err(error) => return Err(unreadable(error)),
    };
    if identity.created != archived.mark.stream_created {
        return Ok(compared);
    }
    let generation = archived
        .generations
        .last()
        .map_or(1, |it| it.first_sequence);
    let first = identity.first_seq.max(generation);
    let last = identity.last_seq.min(archived.mark.sequence);
    let mut rows = audit.messages(name, first, last).await.or_database()?;
    let mut row = rows.next().await.or_database()?;
    let messages = stream::iter(first..=last).map(|seq| bus.message_at(name, seq));
    let mut messages = messages.buffered(REQUESTS);
    while let Some(message) = messages.next().await {
        // Trimmed, or another part of a stream with gaps.
        let Some(message) = message.map_err(unreadable)? else {
            continue;
        };
        while row.as_ref().is_some_and(|row| row.sequence < message.seq) {
            row = rows.next().await.or_database()?;
        }
        compared.messages += 1;
        let found = row.as_ref().filter(|row| row.sequence == message.seq);
        compared
            .differences
            .extend(differences(name, &message, found));
    }
    Ok(compared)
}

fn unreadable(error: LeaderReadError) -> CommandError {
    CommandError::unreachable(anyhow::Error::new(error).context("the bus failed"))
}

fn differences(
    stream: &str,
    message: &Message,
    found: Option<&ArchivedMessage>,
) -> Vec<Difference> {
    let sequence = message.seq;
    let difference = |at: Option<i32>, (column, expected, found): Cell| Difference {
        table: "event_log",
        key: vec![
            stream.to_owned(),
            at.map_or_else(|| sequence.to_string(), |at| format!("{sequence}.{at}")),
        ],
        column: column.to_owned(),
        expected,
        found,
    };
    let Some(found) = found else {
        return vec![difference(None, ("", Some("a message".into()), None))];
    };
    let mut all = Vec::new();
    if found.ts != column_time(message.time) {
        let cell = ("ts", Some(time(message.time)), Some(time(found.ts)));
        all.push(difference(None, cell));
    }
    if let [row] = &found.rows[..]
        && row.kind == UNDECODABLE
    {
        let cells = undecodable_cells(message, row);
        all.extend(
            cells
                .into_iter()
                .map(|cell| difference(Some(row.index), cell)),
        );
        return all;
    }
    let Some(expected) = expected_rows(message) else {
        let cell = (
            "kind",
            Some(UNDECODABLE.into()),
            Some("decoded rows".into()),
        );
        all.push(difference(None, cell));
        return all;
    };
    for row in &expected {
        let same = found.rows.iter().find(|found| found.index == row.index);
        let cells = match same {
            Some(found) => row.cells(found),
            None => vec![("", Some("a row".into()), None)],
        };
        all.extend(
            cells
                .into_iter()
                .map(|cell| difference(Some(row.index), cell)),
        );
    }
    for row in &found.rows {
        if !expected.iter().any(|expected| expected.index == row.index) {
            all.push(difference(
                Some(row.index),
                ("", None, Some("a row".into())),
            ));
        }
    }
    all
}

const UNDECODABLE: &str = "undecodable";

/// Column, what the stream says, what the row says.
type Cell = (&'static str, Option<Value>, Option<Value>);

/// What the archive makes of a message.
///
/// Source: docs/storage.md, the archive.
struct ExpectedRow {
    index: i32,
    kind: Option<String>,
    subject: String,
    rollout_id: Option<String>,
    hostname: Option<String>,
    traceparent: Option<String>,
    payload: Value,
    outcomes: Option<Value>,
}

impl ExpectedRow {
    fn of(message: &Message, index: i32, payload: Value) -> Self {
        Self {
            index,
            kind: None,
            subject: message.subject.clone(),
            rollout_id: None,
            hostname: None,
            traceparent: message.traceparent.clone(),
            payload,
            outcomes: None,
        }
    }

    fn cells(&self, found: &MessageRow) -> Vec<Cell> {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        let kind = self.kind.clone().unwrap_or_else(|| found.kind.clone());
        let all = [
            ("kind", Some(kind.into()), Some(found.kind.clone().into())),
            (
                "subject",
                Some(self.subject.clone().into()),
                Some(found.subject.clone().into()),
            ),
            (
                "rollout_id",
                text(&self.rollout_id),
                text(&found.rollout_id),
            ),
            ("hostname", text(&self.hostname), text(&found.hostname)),
            (
                "traceparent",
                text(&self.traceparent),
                text(&found.traceparent),
            ),
            (
                "payload",
                Some(self.payload.clone()),
                Some(json(&found.payload)),
            ),
            (
                "outcomes",
                self.outcomes.clone(),
                found.outcomes.as_deref().map(json),
            ),
        ];
        let differs = |(_, expected, found): &Cell| expected != found;
        all.into_iter().filter(differs).collect()
    }
}

/// The rows of a message; `None` when it is archived undecoded.
fn expected_rows(message: &Message) -> Option<Vec<ExpectedRow>> {
    let mut document: Value = serde_json::from_slice(&message.payload).ok()?;
    let mut kinds = message.subject.split('.').skip(1);
    match kinds.next() {
        Some("in") => {
            let frame = decode_input(message).ok()?;
            let raw = document.get_mut("entries")?.as_array_mut()?;
            let entries = (0..).zip(frame.entries.iter().zip(std::mem::take(raw)));
            let fits = |name: &&str| name.len() <= INDEXED_BYTES_MAX;
            let rows = entries.map(|(index, (entry, payload))| {
                let (rollout, host) = (entry.body.rollout_id(), entry.body.hostname());
                ExpectedRow {
                    kind: Some(entry.body.name().to_owned()),
                    rollout_id: rollout
                        .map(RolloutId::as_str)
                        .filter(fits)
                        .map(str::to_owned),
                    hostname: host.map(Hostname::as_str).filter(fits).map(str::to_owned),
                    traceparent: entry.traceparent.clone(),
                    ..ExpectedRow::of(message, index, payload)
                }
            });
            Some(rows.collect())
        }
        Some("out") => {
            let outcomes = document.as_object_mut()?.remove("outcomes")?;
            let is_empty = outcomes.as_array()?.is_empty();
            Some(vec![ExpectedRow {
                kind: Some("frame".to_owned()),
                outcomes: (!is_empty).then_some(outcomes),
                ..ExpectedRow::of(message, -1, document)
            }])
        }
        _ => Some(vec![ExpectedRow::of(message, 0, document)]),
    }
}

/// A message that was archived undecoded, with its bytes as text or base64.
fn undecodable_cells(message: &Message, row: &MessageRow) -> Vec<Cell> {
    let kept: Value = serde_json::from_str(&row.payload).unwrap_or_default();
    let is_same = match (kept["text"].as_str(), kept["base64"].as_str()) {
        (Some(text), None) => text.as_bytes() == &message.payload[..],
        (None, Some(text)) => {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            bytes.is_ok_and(|bytes| bytes == message.payload)
        }
        _ => false,
    };
    let text = || String::from_utf8_lossy(&message.payload).into_owned();
    match is_same && row.subject == message.subject {
        true => Vec::new(),
        false => vec![("payload", Some(text().into()), Some(kept))],
    }
}

fn time(at: DateTime<Utc>) -> Value {
    at.to_rfc3339().into()
}
