//! Splits an output frame into its outcomes and the rest.

use std::collections::BTreeMap;

use nixfleet_proto::{InputMark, json};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Start of the last field of a frame as reducers write it.
const OUTCOMES: &str = "\"outcomes\":[";

/// How a frame is parsed: most of it are outcomes, and the database checks all JSON again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameParsing {
    /// Without the outcomes of a frame in the layout of a reducer; the database checks them.
    Fast,
    /// The whole frame.
    Full,
}

/// Fields of an output frame that the archive needs.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrameHead {
    pub v: u32,
    /// Last input that the frame covers.
    #[serde(default)]
    pub last_input: Option<InputMark>,
}

/// A frame split into outcomes and the rest.
#[derive(Debug, PartialEq)]
pub struct SplitFrame<'a> {
    pub head: FrameHead,
    /// JSON of the frame without its outcomes.
    pub envelope: String,
    /// JSON array of the outcomes; absent when it is empty.
    pub outcomes: Option<&'a str>,
}

impl<'a> SplitFrame<'a> {
    /// Splits a frame.
    ///
    /// # Errors
    /// States the fault of the frame.
    pub fn read(payload: &'a [u8], parsing: FrameParsing) -> Result<Self, String> {
        let fast = match parsing {
            FrameParsing::Fast => std::str::from_utf8(payload).ok().and_then(split_fast),
            FrameParsing::Full => None,
        };
        fast.map_or_else(|| split_full(payload), Ok)
    }

    /// `outcomes` is the JSON of an array.
    fn new(head: FrameHead, envelope: String, outcomes: &'a str) -> Self {
        let is_empty = outcomes[1..].trim_ascii_start().starts_with(']');
        Self {
            head,
            envelope,
            outcomes: (!is_empty).then_some(outcomes),
        }
    }
}

/// Splits a frame whose last field is `outcomes`. The text before is parsed: it is an object by
/// itself only if the field belongs to the frame itself.
fn split_fast(frame: &str) -> Option<SplitFrame<'_>> {
    let at = frame.find(OUTCOMES)?;
    let outcomes = frame[at + OUTCOMES.len() - 1..].strip_suffix('}')?;
    let envelope = format!("{}}}", frame[..at].strip_suffix(',')?);
    let head = serde_json::from_str(&envelope).ok()?;
    // The database refuses text that is no array, except one that ends early.
    let is_array = outcomes == "[]" || outcomes.starts_with("[{") && outcomes.ends_with("}]");
    is_array.then(|| SplitFrame::new(head, envelope, outcomes))
}

fn split_full(payload: &[u8]) -> Result<SplitFrame<'_>, String> {
    let failed = |error: serde_json::Error| error.to_string();
    let mut envelope: BTreeMap<String, &RawValue> = json::read(payload).map_err(failed)?;
    let outcomes = envelope
        .remove("outcomes")
        .ok_or("there is no field outcomes")?
        .get();
    if !outcomes.starts_with('[') {
        return Err("outcomes is no array".to_owned());
    }
    let envelope = serde_json::to_string(&envelope).map_err(failed)?;
    let head = serde_json::from_str(&envelope).map_err(failed)?;
    Ok(SplitFrame::new(head, envelope, outcomes))
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{OutputFrame, Position};

    use super::*;

    fn written() -> String {
        let frame = OutputFrame {
            first_input: Some(Position { seq: 3, index: 0 }),
            last_input: Some(InputMark {
                seq: 3,
                index: 1,
                of: 2,
            }),
            ..OutputFrame::new(7)
        };
        let mut json = Vec::new();
        frame.write_head(&mut json).unwrap();
        json.extend_from_slice(br#"{"n":"]}"}"#);
        json.extend_from_slice(OutputFrame::JSON_TAIL);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn fast_and_full_parsing_agree_on_a_written_frame() {
        let frame = written();
        let fast = split_fast(&frame).unwrap();
        assert_eq!(fast.outcomes, Some(r#"[{"n":"]}"}]"#));
        let full = split_full(frame.as_bytes()).unwrap();
        assert_eq!((&full.head, &full.outcomes), (&fast.head, &fast.outcomes));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&full.envelope), value(&fast.envelope));
    }

    #[test]
    fn other_layouts_are_parsed_in_full() {
        for frame in [
            r#"{"v":1,"outcomes": []}"#,
            r#"{"outcomes":[],"v":1}"#,
            r#"{"v":1,"outcomes":[],"later":{}}"#,
            r#"{"v":1,"outcomes":[],"later":[{}]}"#,
            r#"{"v":1,"in":{"outcomes":[]},"outcomes":[{}]}"#,
            r#"{"v":1,"a\"outcomes":[]}"#,
            r#"{"v":1,"text":"\"outcomes\":[","outcomes":[{}]} "#,
            r#"{"outcomes":[]}"#,
        ] {
            assert_eq!(split_fast(frame), None, "{frame}");
        }
        let frame = r#"{"v":1,"outcomes":[],"later":{}}"#.as_bytes();
        let frame = SplitFrame::read(frame, FrameParsing::Fast).unwrap();
        assert_eq!(
            (&*frame.envelope, frame.outcomes),
            (r#"{"later":{},"v":1}"#, None)
        );
    }
}
