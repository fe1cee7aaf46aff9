//! Decoding of frames from untrusted writers: size limit first, then decompression, then the version, then
//! the full document.

use nixfleet_proto::effects_frame::EffectsFrame;
use nixfleet_proto::fleet::{ReleaseAnnouncement, RolloutAnnouncement};
pub use nixfleet_proto::frame::MAX_OUTPUT_FRAME_BYTES;
use nixfleet_proto::frame::{MAX_FRAME_BYTES, MAX_FRAME_ENTRIES};
use nixfleet_proto::subject::Names;
use nixfleet_proto::wire::LivenessFlush;
use nixfleet_proto::{InputFrame, LAYOUT_VERSION, OutputFrame, json};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::frame::compression;
use crate::frame::decode_error::DecodeError;
use crate::message::Message;

/// Largest announcement; with some 300 bytes per channel there is space for thousands of channels.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 960 * 1024;

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// A document that names its layout version.
pub(crate) trait Layout: DeserializeOwned {
    fn version(&self) -> u32;
}

macro_rules! layouts {
    ($($document:ty),+) => {
        $(impl Layout for $document {
            fn version(&self) -> u32 {
                self.v
            }
        })+
    };
}
layouts!(
    InputFrame,
    OutputFrame,
    EffectsFrame,
    ReleaseAnnouncement,
    RolloutAnnouncement,
    LivenessFlush
);

/// Decodes a message of an input stream.
///
/// # Errors
/// [`DecodeError`]; the message becomes a dead letter and counts as one entry.
pub fn decode_input(message: &Message) -> Result<InputFrame, DecodeError> {
    let frame = read_input(&message.payload)?;
    // NATS decides who may write on a subject; the entries must be those of that subject.
    let class = Names::input_class(&message.subject).unwrap_or_default();
    match frame
        .entries
        .iter()
        .find(|entry| entry.body.class() != class)
    {
        Some(entry) => Err(DecodeError::Subject {
            entry: entry.body.name(),
            class: class.to_owned(),
        }),
        None => Ok(frame),
    }
}

/// Like [`decode_input`], from the payload alone, whatever its subject.
pub fn read_input(payload: &[u8]) -> Result<InputFrame, DecodeError> {
    let frame: InputFrame = decode(payload, MAX_FRAME_BYTES)?;
    let (entries, max) = (frame.entries.len(), MAX_FRAME_ENTRIES);
    if entries == 0 {
        return Err(DecodeError::Empty);
    }
    if entries > max {
        return Err(DecodeError::TooMany { entries, max });
    }
    match frame.entries.iter().find(|entry| entry.v != LAYOUT_VERSION) {
        Some(entry) => Err(DecodeError::Version(entry.v)),
        None => Ok(frame),
    }
}

/// Decodes a message of an output stream. A frame without outcomes is a takeover.
pub fn decode_output(message: &Message) -> Result<OutputFrame, DecodeError> {
    read_output(&message.payload)
}

/// Decodes the effects of a message of an output stream.
pub fn decode_effects(message: &Message) -> Result<EffectsFrame, DecodeError> {
    decode(&message.payload, MAX_OUTPUT_FRAME_BYTES)
}

/// Like [`decode_output`], from the payload alone.
pub fn read_output(payload: &[u8]) -> Result<OutputFrame, DecodeError> {
    decode(payload, MAX_OUTPUT_FRAME_BYTES)
}

/// Decodes the announcement of a release, which is not verified.
///
/// # Errors
/// [`DecodeError`]; the message becomes a dead letter.
pub fn read_release_announcement(payload: &[u8]) -> Result<ReleaseAnnouncement, DecodeError> {
    decode(payload, ANNOUNCEMENT_BYTES_MAX)
}

/// Decodes the announcement of a rollout manifest, which is not verified.
///
/// # Errors
/// [`DecodeError`]; the message becomes a dead letter.
pub fn read_rollout_announcement(payload: &[u8]) -> Result<RolloutAnnouncement, DecodeError> {
    decode(payload, ANNOUNCEMENT_BYTES_MAX)
}

/// Decodes a payload of at most `max` bytes whose layout version is known.
pub(crate) fn decode<T: Layout>(payload: &[u8], max: usize) -> Result<T, DecodeError> {
    let payload = &compression::decode(payload, max)?[..];
    let bytes = payload.len();
    if bytes > max {
        return Err(DecodeError::TooLarge { bytes, max });
    }
    let decoded = json::read::<T>(payload);
    // Another layout need not parse as this one, so the version is checked even when parsing fails.
    let version = match &decoded {
        Ok(frame) => frame.version(),
        Err(_) => {
            let versioned = serde_json::from_slice::<Versioned>(payload);
            versioned.map_or(LAYOUT_VERSION, |versioned| versioned.v)
        }
    };
    if version != LAYOUT_VERSION {
        return Err(DecodeError::Version(version));
    }
    decoded.map_err(DecodeError::Malformed)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nixfleet_proto::Timestamp;

    use super::*;

    fn message(payload: impl Into<Bytes>) -> Message {
        Message {
            seq: 1,
            subject: "fleet.in.00.recovery.stable.4f".to_owned(),
            msg_id: None,
            traceparent: None,
            time: Timestamp::UNIX_EPOCH,
            payload: payload.into(),
            stored_bytes: 0,
        }
    }

    fn entry(v: u32) -> String {
        format!(
            r#"{{"v":{v},"receivedAt":"2026-01-01T00:00:00Z","body":{{"entry":"RecoveryCandidate",
            "rolloutId":"stable@4f","hostname":"h","currentClosure":"c"}}}}"#
        )
    }

    fn check(payload: impl Into<Bytes>, expected: &str) {
        let name = match decode_input(&message(payload)) {
            Ok(frame) => format!("{} entries", frame.entries.len()),
            Err(error) => error.name().to_owned(),
        };
        assert_eq!(name, expected);
    }

    #[test]
    fn an_entry_on_a_subject_of_another_class_is_refused() {
        let frame = format!(r#"{{"v":1,"entries":[{}]}}"#, entry(1));
        let gateway = Message {
            subject: "fleet.in.00.event.stable.4f".to_owned(),
            ..message(frame)
        };
        let error = decode_input(&gateway).unwrap_err();
        assert_eq!(error.name(), "subject");
    }

    #[test]
    fn a_frame_is_decoded_and_unknown_fields_are_ignored() {
        check(
            format!(r#"{{"v":1,"entries":[{}]}}"#, entry(1)),
            "1 entries",
        );
        check(
            format!(r#"{{"v":1,"later":true,"entries":[{}]}}"#, entry(1)),
            "1 entries",
        );
    }

    #[test]
    fn each_hostile_frame_has_a_named_error() {
        let complete = format!(r#"{{"v":1,"entries":[{}]}}"#, entry(1));
        check(complete[..complete.len() - 3].to_owned(), "malformed");
        check("", "malformed");
        check("[]", "malformed");
        check("\u{0}\u{1}", "malformed");
        check(Bytes::from_static(b"\xff\xfe"), "malformed");
        check(r#"{"v":"1","entries":[]}"#, "malformed");
        check(r#"{"v":-1,"entries":[]}"#, "malformed");
        check(r#"{"v":1,"entries":{}}"#, "malformed");
        check(r#"{"v":1,"entries":[7]}"#, "malformed");
        check(r#"{"v":1}"#, "malformed");
        check(r#"{"v":2,"anything":[]}"#, "version");
        check(format!(r#"{{"v":1,"entries":[{}]}}"#, entry(9)), "version");
        check(r#"{"v":1,"entries":[]}"#, "empty");
    }

    #[test]
    fn a_stored_form_is_decoded_and_its_errors_have_names() {
        let frame = Bytes::from(format!(r#"{{"v":1,"entries":[{}]}}"#, entry(1)));
        let stored = compression::encode(&frame);
        assert!(stored.len() < frame.len());
        check(stored.clone(), "1 entries");
        check(stored.slice(..stored.len() - 1), "compressed");
        check(&b"\x82\x00"[..], "encoding");
        let large = Bytes::from(vec![b' '; MAX_FRAME_BYTES + 1]);
        check(compression::encode(&large), "too-large");
    }

    #[test]
    fn limits_are_checked_before_parsing() {
        check(vec![b'x'; MAX_FRAME_BYTES + 1], "too-large");
        let many = vec![entry(1); MAX_FRAME_ENTRIES + 1].join(",");
        check(format!(r#"{{"v":1,"entries":[{many}]}}"#), "too-many");
        check("[".repeat(100_000), "malformed");
    }

    #[test]
    fn a_takeover_frame_has_no_outcomes() {
        let frame = decode_output(&message(r#"{"v":1,"epoch":3,"outcomes":[]}"#)).unwrap();
        assert_eq!(frame.epoch, 3);
        assert!(decode_output(&message(r#"{"v":1,"epoch":3}"#)).is_err());
        let large = vec![b' '; MAX_OUTPUT_FRAME_BYTES + 1];
        assert!(decode_output(&message(large)).is_err());
    }
}
