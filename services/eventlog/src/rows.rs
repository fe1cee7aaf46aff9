//! What a message becomes in the archive.
//!
//! What is archived is the JSON as it came, with fields this release does not know: each frame is read
//! once in full, and then cut into its pieces.
//!
//! Source: docs/storage.md, the archive.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nixfleet_bus::{Message, decode_input, decode_output};
use nixfleet_proto::outcome::Verdict;
use nixfleet_proto::{InputFrame, OutputFrame, Position};
use nixfleet_store::ArchiveRow;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::stream::{Content, Stream};

/// Kind of a message that cannot be read.
pub const UNDECODABLE: &str = "undecodable";
/// Index of an output frame without its outcomes.
const FRAME_INDEX: i32 = -1;
/// Names longer than this are not put in the indexed columns, which hold at most some 2,700 bytes;
/// the payload has them.
const NAME_BYTES_MAX: usize = 512;

/// A message that cannot be read, kept as it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Undecodable<'a> {
    reason: &'a str,
    /// The bytes, when they are a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// The bytes in standard base64, when they are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// The rows of one message; never none.
pub fn rows(stream: &Stream, message: &Message) -> Vec<ArchiveRow> {
    let read = match stream.content {
        Content::Input => input(stream, message),
        Content::Output => output(stream, message),
        Content::Manifest => whole(stream, message, manifest_kind(&message.subject)),
        Content::Dead => whole(stream, message, "dead-letter"),
    };
    read.unwrap_or_else(|reason| vec![undecodable(stream, message, &reason)])
}

/// The row of a message whose content cannot be stored in any other form.
pub fn undecodable(stream: &Stream, message: &Message, reason: &str) -> ArchiveRow {
    // NUL has an escape of its own in the store, but control characters say that this is no text.
    let text = std::str::from_utf8(&message.payload)
        .ok()
        .filter(|text| !text.contains('\0'));
    let payload = Undecodable {
        reason,
        text,
        base64: text.is_none().then(|| STANDARD.encode(&message.payload)),
    };
    let payload = serde_json::to_string(&payload).expect("texts always serialise");
    let mut row = row(stream, message, UNDECODABLE, payload);
    if stream.content == Content::Input {
        // The reducer counts it as one entry.
        row.input = Some(Position {
            seq: message.seq,
            index: 0,
        });
    }
    row
}

fn row(stream: &Stream, message: &Message, kind: &str, payload: String) -> ArchiveRow {
    ArchiveRow {
        stream: stream.name.clone(),
        sequence: message.seq,
        index: 0,
        subject: message.subject.clone(),
        ts: message.time,
        kind: kind.to_owned(),
        rollout_id: None,
        hostname: None,
        input: None,
        payload,
        traceparent: message.traceparent.clone(),
    }
}

fn input(stream: &Stream, message: &Message) -> Result<Vec<ArchiveRow>, String> {
    let frame: InputFrame = decode_input(message).map_err(|error| error.to_string())?;
    let payloads = take_array(&mut fields(message)?, "entries")?;
    let rows = (0_u32..).zip(frame.entries.iter().zip(payloads));
    Ok(rows
        .map(|(index, (entry, payload))| ArchiveRow {
            index: row_index(index),
            rollout_id: entry
                .body
                .rollout_id()
                .filter(|id| id.as_str().len() <= NAME_BYTES_MAX)
                .cloned(),
            hostname: entry
                .body
                .hostname()
                .filter(|name| name.as_str().len() <= NAME_BYTES_MAX)
                .cloned(),
            input: Some(Position {
                seq: message.seq,
                index,
            }),
            traceparent: entry.traceparent.clone(),
            ..row(stream, message, entry.body.name(), payload.get().to_owned())
        })
        .collect())
}

fn output(stream: &Stream, message: &Message) -> Result<Vec<ArchiveRow>, String> {
    let frame: OutputFrame = decode_output(message).map_err(|error| error.to_string())?;
    let mut around = fields(message)?;
    let payloads = take_array(&mut around, "outcomes")?;
    let around = serde_json::to_string(&around).map_err(|error| error.to_string())?;
    let mut rows = vec![ArchiveRow {
        index: FRAME_INDEX,
        ..row(stream, message, "frame", around)
    }];
    let outcomes = (0_u32..).zip(frame.outcomes.iter().zip(payloads));
    rows.extend(outcomes.map(|(index, (outcome, payload))| {
        let kind = match outcome.verdict {
            Verdict::Accepted(_) => "accepted",
            Verdict::Rejected(_) => "rejected",
        };
        let subject = &outcome.subject;
        ArchiveRow {
            index: row_index(index),
            rollout_id: subject
                .rollout_id
                .clone()
                .filter(|id| id.as_str().len() <= NAME_BYTES_MAX),
            hostname: subject
                .hostname
                .clone()
                .filter(|name| name.as_str().len() <= NAME_BYTES_MAX),
            input: Some(outcome.position),
            traceparent: outcome.traceparent.clone(),
            ..row(stream, message, kind, payload.get().to_owned())
        }
    }));
    Ok(rows)
}

fn whole(stream: &Stream, message: &Message, kind: &str) -> Result<Vec<ArchiveRow>, String> {
    let payload: &RawValue = parse(&message.payload)?;
    Ok(vec![row(stream, message, kind, payload.get().to_owned())])
}

/// Announcements of releases and of single rollout manifests have subjects of their own.
fn manifest_kind(subject: &str) -> &'static str {
    if subject.ends_with(".manifest.fleet") {
        "release"
    } else {
        "rollout-manifest"
    }
}

/// The fields of a frame by name.
fn fields(message: &Message) -> Result<BTreeMap<String, &RawValue>, String> {
    parse(&message.payload)
}

fn take_array<'a>(
    fields: &mut BTreeMap<String, &'a RawValue>,
    key: &str,
) -> Result<Vec<&'a RawValue>, String> {
    let array = fields.remove(key);
    let array = array.ok_or_else(|| format!("there is no array {key}"))?;
    parse(array.get().as_bytes())
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// Frames are bounded far below what the column holds.
fn row_index(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    const ENTRY: &str = r#"{"v":1,"receivedAt":"2026-01-01T00:00:00Z","traceparent":"t",
        "later":7,"body":{"entry":"RecoveryCandidate","rolloutId":"stable@4f","hostname":"h",
        "currentClosure":"c"}}"#;
    const OUTCOME: &str = r#"{"position":{"seq":3,"index":1},"at":"2026-01-01T00:00:00Z",
        "subject":{"entry":"RecoveryCandidate","rolloutId":"stable@4f","hostname":"h"},
        "rejected":{"reason":"unknown","message":"no"}}"#;

    fn stream(content: Content) -> Stream {
        let name = "S".to_owned();
        Stream { name, content }
    }

    fn message(payload: impl Into<Vec<u8>>) -> Message {
        Message {
            seq: 9,
            subject: "fleet.manifest.fleet".to_owned(),
            msg_id: None,
            traceparent: None,
            time: Timestamp::UNIX_EPOCH,
            payload: payload.into().into(),
        }
    }

    /// Index, kind and position of a row.
    type Shape<'a> = (i32, &'a str, Option<(u64, u32)>);

    fn shape(rows: &[ArchiveRow]) -> Vec<Shape<'_>> {
        let shape = |row: &'_ ArchiveRow| row.input.map(|input| (input.seq, input.index));
        rows.iter()
            .map(|row| (row.index, row.kind.as_str(), shape(row)))
            .collect()
    }

    #[test]
    fn an_input_frame_becomes_one_row_per_entry_with_unknown_fields_kept() {
        let frame = format!(r#"{{"v":1,"entries":[{ENTRY},{ENTRY}]}}"#);
        let rows = rows(&stream(Content::Input), &message(frame));
        let kind = "RecoveryCandidate";
        let expected = [(0, kind, Some((9, 0))), (1, kind, Some((9, 1)))];
        assert_eq!(shape(&rows), expected);
        let row = &rows[0];
        assert_eq!(row.rollout_id.as_ref().unwrap().as_str(), "stable@4f");
        assert_eq!(row.hostname.as_ref().unwrap().as_str(), "h");
        assert_eq!(row.traceparent.as_deref(), Some("t"));
        assert!(row.payload.contains(r#""later":7"#));
    }

    #[test]
    fn an_output_frame_becomes_its_outcomes_and_the_frame_around_them() {
        let frame = format!(r#"{{"v":1,"epoch":2,"outcomes":[{OUTCOME}]}}"#);
        let rows = rows(&stream(Content::Output), &message(frame));
        let expected = [(-1, "frame", None), (0, "rejected", Some((3, 1)))];
        assert_eq!(shape(&rows), expected);
        assert_eq!(rows[0].payload, r#"{"epoch":2,"v":1}"#);
    }

    #[test]
    fn other_messages_are_archived_whole() {
        let message = message(r#"{"v":1,"fleet":{}}"#);
        let release = rows(&stream(Content::Manifest), &message);
        assert_eq!(shape(&release), [(0, "release", None)]);
        let dead = rows(&stream(Content::Dead), &message);
        assert_eq!(shape(&dead), [(0, "dead-letter", None)]);
    }

    #[test]
    fn what_cannot_be_read_is_kept_as_it_is() {
        let text = rows(&stream(Content::Input), &message("{\"v\":9}"));
        assert_eq!(shape(&text), [(0, UNDECODABLE, Some((9, 0)))]);
        assert!(text[0].payload.contains(r#""text":"{\"v\":9}""#));
        let bytes = rows(&stream(Content::Output), &message(vec![0xff, 0]));
        assert_eq!(shape(&bytes), [(0, UNDECODABLE, None)]);
        assert!(bytes[0].payload.contains(r#""base64":"/wA=""#));
        let nul = rows(&stream(Content::Dead), &message("\0"));
        assert!(nul[0].payload.contains(r#""base64":"AA==""#));
    }

    #[test]
    fn a_name_too_long_for_an_index_stays_in_the_payload() {
        let long = "h".repeat(NAME_BYTES_MAX + 1);
        let entry = ENTRY.replace(r#""h""#, &format!("{long:?}"));
        let frame = format!(r#"{{"v":1,"entries":[{entry}]}}"#);
        let rows = rows(&stream(Content::Input), &message(frame));
        assert_eq!(rows[0].hostname, None);
        assert!(rows[0].payload.contains(&long));
    }
}
