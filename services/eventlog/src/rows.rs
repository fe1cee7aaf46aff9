//! What a message becomes in the archive.
//!
//! What is archived is the JSON as it came, with fields this release does not know. An input frame is
//! read in full and then cut into its entries; the outcomes of an output frame stay together.
//!
//! Source: docs/storage.md, the archive.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nixfleet_bus::{DecodeError, MAX_OUTPUT_FRAME_BYTES, Message, decode_input};
use nixfleet_proto::{InputFrame, LAYOUT_VERSION, Position};
use nixfleet_store::ArchiveRow;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::stream::{Content, Stream};

mod frame;

use frame::Frame;
pub use frame::Reading;

/// Kind of a message that cannot be read.
pub const UNDECODABLE: &str = "undecodable";
/// Index of an output frame.
const FRAME_INDEX: i32 = -1;
/// Names longer than this are not put in the indexed columns, which hold at most some 2,700 bytes;
/// the payload has them.
const NAME_BYTES_MAX: usize = 512;

/// The entries of an input frame as they came.
#[derive(Deserialize)]
struct Pieces<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

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
pub fn rows(stream: &Stream, message: &Message, reading: Reading) -> Vec<ArchiveRow> {
    let read = match stream.content {
        Content::Input => input(stream, message),
        Content::Output => output(stream, message, reading),
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

fn row(stream: &Stream, message: &Message, kind: &'static str, payload: String) -> ArchiveRow {
    ArchiveRow {
        stream: stream.name.as_str().into(),
        sequence: message.seq,
        index: 0,
        subject: message.subject.as_str().into(),
        ts: message.time,
        kind,
        rollout_id: None,
        hostname: None,
        input: None,
        payload,
        traceparent: message.traceparent.clone(),
        outcomes: None,
    }
}

fn input(stream: &Stream, message: &Message) -> Result<Vec<ArchiveRow>, String> {
    let frame: InputFrame = decode_input(message).map_err(|error| error.to_string())?;
    let Pieces { entries } = parse(&message.payload)?;
    let rows = (0_u32..).zip(frame.entries.iter().zip(entries));
    // What the rows have in common; each entry has a kind and a payload of its own.
    let common = row(stream, message, "", String::new());
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
            kind: entry.body.name(),
            payload: payload.get().to_owned(),
            traceparent: entry.traceparent.clone(),
            ..common.clone()
        })
        .collect())
}

fn output(stream: &Stream, message: &Message, reading: Reading) -> Result<Vec<ArchiveRow>, String> {
    let (bytes, max) = (message.payload.len(), MAX_OUTPUT_FRAME_BYTES);
    if bytes > max {
        return Err(DecodeError::TooLarge { bytes, max }.to_string());
    }
    let frame = Frame::read(&message.payload, reading)?;
    if frame.head.v != LAYOUT_VERSION {
        return Err(DecodeError::Version(frame.head.v).to_string());
    }
    Ok(vec![ArchiveRow {
        index: FRAME_INDEX,
        input: frame.head.last_input.map(|last| Position {
            seq: last.seq,
            index: last.index,
        }),
        outcomes: frame.outcomes,
        ..row(stream, message, "frame", frame.around)
    }])
}

fn whole(
    stream: &Stream,
    message: &Message,
    kind: &'static str,
) -> Result<Vec<ArchiveRow>, String> {
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

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    nixfleet_proto::json::read(json).map_err(|error| error.to_string())
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

    fn rows(stream: &Stream, message: &Message) -> Vec<ArchiveRow> {
        super::rows(stream, message, Reading::Full)
    }

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
            .map(|row| (row.index, row.kind, shape(row)))
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
    fn an_output_frame_is_one_row_that_says_how_far_it_covers() {
        let last = r#""lastInput":{"seq":3,"index":1,"of":2}"#;
        let frame = format!(r#"{{"v":1,"epoch":2,{last},"later":0,"outcomes":[{OUTCOME}]}}"#);
        let rows = rows(&stream(Content::Output), &message(frame));
        assert_eq!(shape(&rows), [(-1, "frame", Some((3, 1)))]);
        let around = format!(r#"{{"epoch":2,{last},"later":0,"v":1}}"#);
        assert_eq!(rows[0].payload, around);
        assert_eq!(rows[0].outcomes, Some(format!("[{OUTCOME}]")));
    }

    #[test]
    fn a_takeover_has_no_outcomes() {
        let frame = r#"{"v":1,"epoch":2,"outcomes":[ ]}"#;
        let rows = rows(&stream(Content::Output), &message(frame));
        assert_eq!(shape(&rows), [(-1, "frame", None)]);
        assert_eq!(rows[0].outcomes, None);
    }

    #[test]
    fn what_is_no_output_frame_is_kept_as_it_is() {
        let large = "x".repeat(MAX_OUTPUT_FRAME_BYTES);
        for frame in [
            r#"{"v":2,"epoch":2,"outcomes":[]}"#,
            r#"{"epoch":2,"outcomes":[]}"#,
            r#"{"v":1,"epoch":2,"outcomes":{}}"#,
            r#"{"v":1,"epoch":2}"#,
            r#"{"v":1,"epoch":2,"lastInput":7,"outcomes":[]}"#,
            r#"{"v":1,"epoch":2,"outcomes":[{]}"#,
            &format!(r#"{{"v":1,"epoch":2,"outcomes":[],"x":"{large}"}}"#),
        ] {
            let rows = rows(&stream(Content::Output), &message(frame));
            assert_eq!(shape(&rows), [(0, UNDECODABLE, None)], "{frame:.60}");
        }
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
