//! The archive rows of a message.
//!
//! Rows keep the JSON as it was received, with fields that this release does not know. An input
//! frame is decoded and split into its entries; the outcomes of an output frame stay together.
//!
//! Source: docs/storage.md, the archive.

use nixfleet_bus::{DecodeError, MAX_OUTPUT_FRAME_BYTES, Message, decode_input};
use nixfleet_proto::{Entry, Hostname, InputFrame, LAYOUT_VERSION, Position, RolloutId};
use nixfleet_store::ArchiveRow;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::stream::{Content, Stream};

mod output_frame;
mod undecodable;

pub use output_frame::FrameParsing;
use output_frame::SplitFrame;

/// Kind of an undecodable message.
pub const UNDECODABLE: &str = "undecodable";
const FRAME_INDEX: i32 = -1;
/// Longest name in an indexed column, which is limited to 2,700 bytes; the payload has all.
const NAME_BYTES_MAX: usize = 512;

/// Entries of an input frame as raw JSON.
#[derive(Deserialize)]
struct RawEntries<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

/// A message and its archive content.
pub struct ArchivedMessage<'a> {
    stream: &'a Stream,
    message: &'a Message,
    content: MessageContent<'a>,
}

/// Content of a message.
enum MessageContent<'a> {
    /// Entries, decoded and as raw JSON.
    Input(InputFrame, Vec<&'a RawValue>),
    Output(SplitFrame<'a>),
    Whole(&'static str, &'a str),
    /// A document that wraps undecodable bytes.
    Undecodable(String),
}

impl<'a> ArchivedMessage<'a> {
    /// Parses a message; an undecodable one keeps its bytes.
    pub fn new(stream: &'a Stream, message: &'a Message, parsing: FrameParsing) -> Self {
        let read = match stream.content {
            Content::Input => input(message),
            Content::Output => output(message, parsing),
            Content::Manifest => whole(message, manifest_kind(&message.subject)),
            Content::Dead => whole(message, "dead-letter"),
        };
        read.map_or_else(
            |reason| Self::undecodable(stream, message, &reason),
            |content| Self {
                stream,
                message,
                content,
            },
        )
    }

    /// Wraps the bytes of a message that cannot be stored in another form.
    pub fn undecodable(stream: &'a Stream, message: &'a Message, reason: &str) -> Self {
        let payload = undecodable::document(&message.payload, reason);
        Self {
            stream,
            message,
            content: MessageContent::Undecodable(payload),
        }
    }

    /// Rows of the message, at least one.
    pub fn rows(&self) -> Vec<ArchiveRow<'_>> {
        match &self.content {
            MessageContent::Input(frame, raw_entries) => {
                let entries = (0_u32..).zip(frame.entries.iter().zip(raw_entries));
                entries
                    .map(|(index, (entry, raw))| self.entry(index, entry, raw.get()))
                    .collect()
            }
            MessageContent::Output(frame) => vec![ArchiveRow {
                index: FRAME_INDEX,
                input: frame.head.last_input.map(|last| Position {
                    seq: last.seq,
                    index: last.index,
                }),
                outcomes: frame.outcomes,
                ..self.row("frame", &frame.envelope)
            }],
            MessageContent::Whole(kind, payload) => vec![self.row(kind, payload)],
            MessageContent::Undecodable(payload) => vec![ArchiveRow {
                // The reducer counts the message as one entry.
                input: (self.stream.content == Content::Input).then(|| self.position(0)),
                ..self.row(UNDECODABLE, payload)
            }],
        }
    }

    fn row<'r>(&'r self, kind: &'r str, payload: &'r str) -> ArchiveRow<'r> {
        ArchiveRow {
            stream: &self.stream.name,
            sequence: self.message.seq,
            index: 0,
            subject: &self.message.subject,
            ts: self.message.time,
            kind,
            rollout_id: None,
            hostname: None,
            input: None,
            payload,
            traceparent: self.message.traceparent.as_deref(),
            outcomes: None,
        }
    }

    fn entry<'r>(&'r self, index: u32, entry: &'r Entry, payload: &'r str) -> ArchiveRow<'r> {
        let fits = |name: &&str| name.len() <= NAME_BYTES_MAX;
        ArchiveRow {
            index: row_index(index),
            rollout_id: entry.body.rollout_id().map(RolloutId::as_str).filter(fits),
            hostname: entry.body.hostname().map(Hostname::as_str).filter(fits),
            input: Some(self.position(index)),
            traceparent: entry.traceparent.as_deref(),
            ..self.row(entry.body.name(), payload)
        }
    }

    fn position(&self, index: u32) -> Position {
        Position {
            seq: self.message.seq,
            index,
        }
    }
}

fn input(message: &Message) -> Result<MessageContent<'_>, String> {
    let frame = decode_input(message).map_err(|error| error.to_string())?;
    let RawEntries { entries } = parse(&message.payload)?;
    Ok(MessageContent::Input(frame, entries))
}

fn output(message: &Message, parsing: FrameParsing) -> Result<MessageContent<'_>, String> {
    if let Some(fault) = message.encoding_fault() {
        return Err(fault.to_string());
    }
    let (bytes, max) = (message.payload.len(), MAX_OUTPUT_FRAME_BYTES);
    if bytes > max {
        return Err(DecodeError::TooLarge { bytes, max }.to_string());
    }
    let frame = SplitFrame::read(&message.payload, parsing)?;
    if frame.head.v != LAYOUT_VERSION {
        return Err(DecodeError::Version(frame.head.v).to_string());
    }
    Ok(MessageContent::Output(frame))
}

fn whole<'a>(message: &'a Message, kind: &'static str) -> Result<MessageContent<'a>, String> {
    let payload: &RawValue = parse(&message.payload)?;
    Ok(MessageContent::Whole(kind, payload.get()))
}

/// Releases and single rollout manifests are announced on different subjects.
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

/// Frames have far fewer entries than the column can count.
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

    /// Counts the forms of rows that an archive may hold: docs/stability.md, archive rows.
    const FORM: u32 = 1;

    /// Passes the rows of a message with this content to a closure.
    fn read<T>(
        content: Content,
        payload: impl Into<Vec<u8>>,
        check: impl FnOnce(&[ArchiveRow<'_>]) -> T,
    ) -> T {
        let name = "S".to_owned();
        let subject = match content {
            Content::Input => "fleet.in.00.recovery.stable.4f",
            Content::Output | Content::Manifest | Content::Dead => "fleet.manifest.fleet",
        };
        let stream = Stream { name, content };
        let message = Message {
            seq: 9,
            subject: subject.to_owned(),
            msg_id: None,
            traceparent: None,
            time: Timestamp::UNIX_EPOCH,
            payload: payload.into().into(),
            stored_bytes: 0,
        };
        check(&ArchivedMessage::new(&stream, &message, FrameParsing::Full).rows())
    }

    /// Index, kind and position of a row.
    type Shape<'a> = (i32, &'a str, Option<(u64, u32)>);

    fn shape<'a>(rows: &[ArchiveRow<'a>]) -> Vec<Shape<'a>> {
        let shape = |row: &ArchiveRow<'_>| row.input.map(|input| (input.seq, input.index));
        rows.iter()
            .map(|row| (row.index, row.kind, shape(row)))
            .collect()
    }

    #[test]
    fn an_input_frame_becomes_one_row_per_entry_with_unknown_fields_kept() {
        let frame = format!(r#"{{"v":1,"entries":[{ENTRY},{ENTRY}]}}"#);
        read(Content::Input, frame, |rows| {
            let kind = "RecoveryCandidate";
            let expected = [(0, kind, Some((9, 0))), (1, kind, Some((9, 1)))];
            assert_eq!(shape(rows), expected);
            let row = &rows[0];
            assert_eq!(row.rollout_id, Some("stable@4f"));
            assert_eq!(row.hostname, Some("h"));
            assert_eq!(row.traceparent, Some("t"));
            assert!(row.payload.contains(r#""later":7"#));
        });
    }

    #[test]
    fn an_output_frame_is_one_row_with_its_last_input() {
        let last = r#""lastInput":{"seq":3,"index":1,"of":2}"#;
        let frame = format!(r#"{{"v":1,"epoch":2,{last},"later":0,"outcomes":[{OUTCOME}]}}"#);
        read(Content::Output, frame, |rows| {
            assert_eq!(shape(rows), [(-1, "frame", Some((3, 1)))]);
            let envelope = format!(r#"{{"epoch":2,{last},"later":0,"v":1}}"#);
            assert_eq!(rows[0].payload, envelope);
            assert_eq!(rows[0].outcomes, Some(&*format!("[{OUTCOME}]")));
        });
    }

    #[test]
    fn a_barrier_row_has_no_outcomes() {
        let frame = r#"{"v":1,"epoch":2,"outcomes":[ ]}"#;
        read(Content::Output, frame, |rows| {
            assert_eq!(shape(rows), [(-1, "frame", None)]);
            assert_eq!(rows[0].outcomes, None);
        });
    }

    #[test]
    fn other_payloads_in_an_output_stream_are_kept_as_bytes() {
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
            read(Content::Output, frame, |rows| {
                assert_eq!(shape(rows), [(0, UNDECODABLE, None)], "{frame:.60}");
            });
        }
    }

    #[test]
    fn other_messages_are_archived_as_one_document() {
        let document = r#"{"v":1,"fleet":{}}"#;
        for (content, kind) in [
            (Content::Manifest, "release"),
            (Content::Dead, "dead-letter"),
        ] {
            read(content, document, |rows| {
                assert_eq!(shape(rows), [(0, kind, None)]);
                assert_eq!(rows[0].payload, document);
            });
        }
    }

    #[test]
    fn undecodable_messages_are_kept_as_text_or_base64() {
        read(Content::Input, "{\"v\":9}", |rows| {
            assert_eq!(shape(rows), [(0, UNDECODABLE, Some((9, 0)))]);
            assert!(rows[0].payload.contains(r#""text":"{\"v\":9}""#));
        });
        read(Content::Output, [0xff, 0], |rows| {
            assert_eq!(shape(rows), [(0, UNDECODABLE, None)]);
            assert!(rows[0].payload.contains(r#""base64":"/wA=""#));
        });
        read(Content::Dead, "\0", |rows| {
            assert!(rows[0].payload.contains(r#""base64":"AA==""#));
        });
    }

    #[test]
    fn a_name_too_long_for_an_index_stays_in_the_payload() {
        let long = format!("stable@{}", "4".repeat(NAME_BYTES_MAX));
        let entry = ENTRY.replace("stable@4f", &long);
        let frame = format!(r#"{{"v":1,"entries":[{entry}]}}"#);
        read(Content::Input, frame, |rows| {
            assert_eq!(rows[0].rollout_id, None);
            assert!(rows[0].payload.contains(&long));
        });
    }

    #[test]
    fn rows_keep_their_form() {
        let form = |row: &ArchiveRow<'_>| {
            let input = row.input.map(|input| (input.seq, input.index));
            let about = (row.rollout_id, row.hostname, row.traceparent, input);
            let content = (row.kind, row.payload, row.outcomes);
            let message = (row.stream, row.sequence, row.index, row.subject, row.ts);
            serde_json::to_string(&(message, content, about)).unwrap()
        };
        let messages = [
            (
                "input",
                Content::Input,
                format!(r#"{{"v":1,"entries":[{ENTRY},{ENTRY}]}}"#),
            ),
            (
                "output",
                Content::Output,
                format!(
                    r#"{{"v":1,"epoch":2,"lastInput":{{"seq":3,"index":1,"of":2}},"outcomes":[{OUTCOME}]}}"#
                ),
            ),
            (
                "barrier",
                Content::Output,
                r#"{"v":1,"epoch":2,"outcomes":[]}"#.to_owned(),
            ),
            (
                "release",
                Content::Manifest,
                r#"{"v":1,"fleet":{}}"#.to_owned(),
            ),
            ("dead-letter", Content::Dead, r#"{"v":1}"#.to_owned()),
            ("undecodable", Content::Input, r#"{"v":9}"#.to_owned()),
        ];
        let samples = messages.map(|(name, content, payload)| {
            let forms =
                |rows: &[ArchiveRow<'_>]| rows.iter().map(form).collect::<Vec<_>>().join("\n");
            (name, read(content, payload, forms))
        });
        nixfleet_encodings::check("archive-row", FORM, samples);
    }
}
